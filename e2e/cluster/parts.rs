//! The programs a cluster is made of, and where each is built from.
//!
//! A part is one folder under `parts/` with a Go module of its own: their dependencies conflict, so no two share a
//! `go.mod`. Everything is pinned there; this table says how the result is called and what the first build costs.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};

use crate::Paths;

/// One Go module and the programs that come out of it.
#[derive(Debug)]
pub struct Part {
    /// Its folder under `parts/`.
    pub name: &'static str,
    /// What the first build takes on two idle cores, in seconds.
    pub usual_seconds: u32,
    /// Whether only `--gvisor` asks for it.
    pub optional: bool,
    /// Programs: as the Go command names them, as they are called here.
    pub(crate) programs: &'static [(&'static str, &'static str)],
    pub(crate) tags: &'static str,
    pub(crate) ldflags: &'static str,
    pub(crate) source: Source,
}

/// Where the code of a part's programs is.
#[derive(Debug)]
pub(crate) enum Source {
    /// In the modules that its `go.mod` names with `tool` lines.
    Tools,
    /// In the part's folder.
    Own,
    /// As `Tools`, with one line of the module changed first.
    Patched(Patch),
}

/// A change that a dependency needs before it runs where we do.
#[derive(Debug)]
pub(crate) struct Patch {
    pub(crate) module: &'static str,
    pub(crate) file: &'static str,
    pub(crate) from: &'static str,
    pub(crate) to: &'static str,
}

const STRIPPED: &str = "-s -w";

/// All parts, in the order in which they are built.
pub const PARTS: &[Part] = &[
    Part {
        name: "etcd",
        usual_seconds: 30,
        optional: false,
        programs: &[("server", "etcd")],
        tags: "",
        ldflags: STRIPPED,
        source: Source::Tools,
    },
    Part {
        name: "kubernetes",
        usual_seconds: 300,
        optional: false,
        programs: &[
            ("kube-apiserver", "kube-apiserver"),
            ("kube-controller-manager", "kube-controller-manager"),
            ("kube-scheduler", "kube-scheduler"),
            ("kubelet", "kubelet"),
            ("kube-proxy", "kube-proxy"),
            ("kubectl", "kubectl"),
        ],
        tags: "",
        // Without a version the API server calls itself v0.0.0 and clients refuse to work with it.
        ldflags: "-s -w -X k8s.io/component-base/version.gitVersion=v1.36.3 \
                  -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=36",
        source: Source::Tools,
    },
    Part {
        name: "containerd",
        usual_seconds: 90,
        optional: false,
        programs: &[
            ("containerd", "containerd"),
            ("containerd-shim-runc-v2", "containerd-shim-runc-v2"),
            ("ctr", "ctr"),
        ],
        // Both would need C libraries, and neither is used.
        tags: "no_btrfs,no_devmapper",
        ldflags: STRIPPED,
        source: Source::Tools,
    },
    Part {
        name: "cni",
        usual_seconds: 5,
        optional: false,
        programs: &[
            ("ptp", "ptp"),
            ("host-local", "host-local"),
            ("loopback", "loopback"),
            ("portmap", "portmap"),
        ],
        tags: "",
        ldflags: STRIPPED,
        source: Source::Tools,
    },
    Part {
        name: "pause",
        usual_seconds: 2,
        optional: false,
        programs: &[("pause", "pause")],
        tags: "",
        ldflags: STRIPPED,
        source: Source::Own,
    },
    Part {
        name: "kube-router",
        usual_seconds: 100,
        optional: false,
        programs: &[("kube-router", "kube-router")],
        tags: "",
        ldflags: STRIPPED,
        source: Source::Tools,
    },
    Part {
        name: "coredns",
        usual_seconds: 105,
        optional: false,
        programs: &[("coredns", "coredns")],
        tags: "",
        ldflags: STRIPPED,
        source: Source::Tools,
    },
    Part {
        name: "cert-manager",
        usual_seconds: 100,
        optional: false,
        programs: &[
            ("controller", "cert-manager-controller"),
            ("webhook", "cert-manager-webhook"),
            ("cainjector", "cert-manager-cainjector"),
        ],
        tags: "",
        ldflags: STRIPPED,
        source: Source::Tools,
    },
    Part {
        name: "helm",
        usual_seconds: 95,
        optional: false,
        programs: &[("helm", "helm")],
        tags: "",
        ldflags: STRIPPED,
        source: Source::Tools,
    },
    Part {
        name: "gvisor",
        usual_seconds: 120,
        optional: true,
        programs: &[("runsc", "runsc"), ("shim", "containerd-shim-runsc-v1")],
        tags: "",
        ldflags: STRIPPED,
        // The shim asks for a negative OOM score and gives up when that is refused, as it is without CAP_SYS_RESOURCE.
        source: Source::Patched(Patch {
            module: "gvisor.dev/gvisor",
            file: "pkg/shim/v1/manager.go",
            from: "SetOOMScore(cmd.Process.Pid, oomScoreMax)",
            to: "SetOOMScore(cmd.Process.Pid, 0)",
        }),
    },
];

impl Part {
    /// The part of that name, or an error that lists them.
    pub fn named(name: &str) -> Result<&'static Self> {
        PARTS.iter().find(|part| part.name == name).with_context(|| {
            let known: Vec<&str> = PARTS.iter().map(|part| part.name).collect();
            format!("no part is called {name}: there are {}", known.join(", "))
        })
    }

    pub(crate) fn folder(&self, paths: &Paths) -> PathBuf {
        paths.parts.join(self.name)
    }

    /// Where its programs are, or will be: a folder named by everything that decides what they are.
    pub fn binaries(&self, paths: &Paths) -> Result<PathBuf> {
        let mut hash = Sha256::new();
        for (path, bytes) in sources(&self.folder(paths))? {
            hash.update(format!("{path}\0{}\0", bytes.len()));
            hash.update(bytes);
        }
        hash.update(format!(
            "{:?}{}{}{:?}",
            self.programs, self.tags, self.ldflags, self.source
        ));
        Ok(paths
            .cache
            .join("bin")
            .join(format!("{}-{}", self.name, short(&hash.finalize()))))
    }

    /// Whether it has been built.
    pub fn is_built(&self, paths: &Paths) -> Result<bool> {
        Ok(self.binaries(paths)?.is_dir())
    }

    /// The path of one of its programs, which must have been built.
    pub(crate) fn program(&self, paths: &Paths, program: &str) -> Result<PathBuf> {
        let path = self.binaries(paths)?.join(program);
        if !path.is_file() {
            bail!("{program} is not built. Run: make cluster-tools");
        }
        Ok(path)
    }
}

/// The path of a program, whichever part it comes from.
pub fn program(paths: &Paths, name: &str) -> Result<PathBuf> {
    let part = PARTS
        .iter()
        .find(|part| part.programs.iter().any(|(_, program)| *program == name))
        .with_context(|| format!("no part has a program called {name}"))?;
    part.program(paths, name)
}

/// The files of a part's folder with their names, in a fixed order.
fn sources(folder: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            files.push((
                entry.file_name().to_string_lossy().into_owned(),
                fs::read(entry.path())?,
            ));
        }
    }
    files.sort();
    Ok(files)
}

/// Enough of a hash to name a file by.
pub(crate) fn short(hash: &[u8]) -> String {
    hash.iter().take(8).fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_has_a_pinned_module() {
        let paths = Paths::from_env().unwrap();
        for part in PARTS {
            let folder = part.folder(&paths);
            assert!(folder.join("go.sum").is_file(), "{}", part.name);
            let module = fs::read_to_string(folder.join("go.mod")).unwrap();
            let tools = module
                .lines()
                .filter(|line| line.trim_start().starts_with("tool "))
                .count();
            let own = matches!(part.source, Source::Own);
            assert!(own || tools > 0 || module.contains("tool ("), "{}", part.name);
        }
    }

    #[test]
    fn a_changed_pin_is_another_folder() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths {
            cache: dir.path().join("cache"),
            state: dir.path().into(),
            parts: dir.path().into(),
        };
        let part = Part::named("pause").unwrap();
        fs::create_dir(part.folder(&paths)).unwrap();
        fs::write(part.folder(&paths).join("go.mod"), "module a").unwrap();
        let before = part.binaries(&paths).unwrap();
        fs::write(part.folder(&paths).join("go.mod"), "module b").unwrap();
        assert_ne!(before, part.binaries(&paths).unwrap());
    }

    #[test]
    fn an_unknown_part_is_answered_with_the_known_ones() {
        assert!(
            Part::named("dockerd")
                .unwrap_err()
                .to_string()
                .contains("containerd")
        );
    }
}
