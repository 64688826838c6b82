//! Writes the files that follow from the Rust types: the CRD, the chart's copy of it, the API
//! reference, and, when Helm is at hand, the manifest for plain `kubectl apply`.
//!
//! `bulkhead-generate` writes them; `bulkhead-generate --check` changes nothing, and fails and says
//! what to run when one is stale. Helm is taken from `HELM`; without it the manifest is left out,
//! unless `--with-manifest` asks for it.

#[path = "generate/crd.rs"]
mod crd;
#[path = "generate/manifest.rs"]
mod manifest;
#[path = "generate/reference.rs"]
mod reference;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result, bail};

/// A file of the repository and what it should hold.
struct Generated {
    path: &'static str,
    content: String,
}

fn main() -> Result<ExitCode> {
    let mut check = false;
    let mut with_manifest = env::var_os("HELM").is_some();
    for argument in env::args().skip(1) {
        match argument.as_str() {
            "--check" => check = true,
            "--with-manifest" => with_manifest = true,
            other => bail!("unknown argument {other}; there are --check and --with-manifest"),
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .context("the crate is in src/api")?;

    let mut stale = settle(root, check, crd::files()?)?;
    stale.extend(settle(root, check, vec![reference::file()?])?);
    // Rendered from the chart, and so from the CRD that was just written.
    if with_manifest {
        stale.extend(settle(root, check, vec![manifest::file(root)?])?);
    } else {
        eprintln!("{}: left as it is (HELM isn't set)", manifest::PATH);
    }

    if stale.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    for path in stale {
        eprintln!("{} is stale", path.display());
    }
    eprintln!("run `make generate` and commit the result");
    Ok(ExitCode::FAILURE)
}

/// Writes what differs, or with `check` only returns it.
fn settle(root: &Path, check: bool, files: Vec<Generated>) -> Result<Vec<PathBuf>> {
    let mut stale = Vec::new();
    for Generated { path, content } in files {
        let file = root.join(path);
        if fs::read_to_string(&file).is_ok_and(|present| present == content) {
            continue;
        }
        if check {
            stale.push(path.into());
            continue;
        }
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        }
        fs::write(&file, content).with_context(|| format!("write {path}"))?;
        eprintln!("{path}: written");
    }
    Ok(stale)
}
