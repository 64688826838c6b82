//! Where things live: the sources of the parts, the cache that outlives a work tree, the state of running clusters.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

/// The folders everything else is derived from.
#[derive(Clone, Debug)]
pub struct Paths {
    /// Built binaries, image archives, the base image: kept between runs and shared by work trees.
    pub cache: PathBuf,
    /// Running clusters and their logs. Ignored by git.
    pub state: PathBuf,
    /// One folder per part, each a Go module of its own.
    pub parts: PathBuf,
}

impl Paths {
    /// The folders that the environment names (`BULKHEAD_CACHE`, `BULKHEAD_STATE`), or the usual ones.
    pub fn from_env() -> Result<Self> {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let repository = here
            .ancestors()
            .nth(2)
            .context("the crate lives two folders below the repository")?;
        let cache = match env::var_os("BULKHEAD_CACHE") {
            Some(cache) => PathBuf::from(cache),
            None => home()?.join(".cache/bulkhead"),
        };
        let state = env::var_os("BULKHEAD_STATE").map_or_else(|| repository.join(".run"), PathBuf::from);
        Ok(Self {
            cache: std::path::absolute(cache)?,
            state: std::path::absolute(state)?,
            parts: here.join("parts"),
        })
    }

    /// The folder of one cluster: its keys, its data, its logs.
    pub fn cluster(&self, name: &str) -> PathBuf {
        self.state.join("clusters").join(name)
    }
}

fn home() -> Result<PathBuf> {
    env::home_dir()
        .filter(|home| !home.as_os_str().is_empty())
        .context("no home folder to cache in: set BULKHEAD_CACHE")
}
