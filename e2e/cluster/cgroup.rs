//! Control groups: where a cluster's processes are found again, and under which its pods are counted.
//!
//! Every program of a cluster starts inside a group of that cluster, and so does whatever it starts in turn (shims,
//! sandboxes, containers). That is how `down` ends all of them and nothing else.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

/// The groups of one cluster in every hierarchy of this machine.
#[derive(Clone, Debug)]
pub(crate) struct Cgroups {
    /// Those with controllers.
    hierarchies: Vec<PathBuf>,
    /// Version 2 beside version 1: no controllers, but runc makes its groups there too.
    beside: Vec<PathBuf>,
    unified: bool,
    name: String,
}

impl Cgroups {
    pub(crate) fn of_this_machine(name: String) -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").context("read /proc/self/mounts")?;
        let (hierarchies, beside, unified) = hierarchies(&mounts);
        if hierarchies.is_empty() {
            bail!("no control groups are mounted under /sys/fs/cgroup: nodes cannot run here");
        }
        Ok(Self {
            hierarchies,
            beside,
            unified,
            name,
        })
    }

    /// The file that a process writes its number to, to become one of the cluster's.
    pub(crate) fn system(&self) -> Result<PathBuf> {
        let group = self.tracking().join(&self.name).join("system");
        fs::create_dir_all(&group).with_context(|| format!("create {}", group.display()))?;
        Ok(group.join("cgroup.procs"))
    }

    /// One hierarchy is enough to find processes by; that of `pids` has no resources to be set up first.
    fn tracking(&self) -> &Path {
        self.hierarchies
            .iter()
            .find(|path| path.ends_with("pids"))
            .unwrap_or(&self.hierarchies[0])
    }

    /// Makes the group below which a kubelet keeps its pods, and gives its name. Two kubelets see one tree, so each needs
    /// a root of its own.
    pub(crate) fn ensure_node(&self, node: u8) -> Result<String> {
        let name = format!("/{}/node-{node}", self.name);
        for hierarchy in &self.hierarchies {
            let mut group = hierarchy.clone();
            for part in [self.name.clone(), format!("node-{node}")] {
                let parent = group.clone();
                if self.unified {
                    delegate(&parent);
                }
                group.push(part);
                fs::create_dir_all(&group).with_context(|| format!("create {}", group.display()))?;
                for file in ["cpuset.cpus", "cpuset.mems"] {
                    inherit(&parent, &group, file)?;
                }
            }
            if self.unified {
                delegate(&group);
            }
        }
        Ok(name)
    }

    /// Every process of the cluster.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let mut found = Vec::new();
        for root in self.roots() {
            walk(&root, &mut |group| {
                let processes = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
                found.extend(
                    processes
                        .lines()
                        .filter_map(|line| line.parse::<u32>().ok())
                        .filter(|pid| *pid != 0),
                );
            });
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Removes the groups, innermost first. A group with a process in it stays.
    pub(crate) fn remove(&self) {
        for root in self.roots() {
            walk(&root, &mut |group| {
                let _ = fs::remove_dir(group);
            });
        }
    }

    pub(crate) fn any_left(&self) -> bool {
        self.roots().any(|root| root.exists())
    }

    fn roots(&self) -> impl Iterator<Item = PathBuf> {
        self.hierarchies
            .iter()
            .chain(&self.beside)
            .map(|hierarchy| hierarchy.join(&self.name))
    }
}

/// Calls `each` for a folder and all below it, innermost first.
fn walk(folder: &Path, each: &mut impl FnMut(&Path)) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&entry.path(), each);
        }
    }
    if folder.is_dir() {
        each(folder);
    }
}

/// Version 1 has a hierarchy per controller, version 2 one for all. Where both are mounted, controllers are in the
/// former, and the latter comes second.
fn hierarchies(mounts: &str) -> (Vec<PathBuf>, Vec<PathBuf>, bool) {
    let of_kind = |kind: &str| -> Vec<PathBuf> {
        mounts
            .lines()
            .filter_map(|line| {
                let mut words = line.split(' ').skip(1);
                let (path, found) = (words.next()?, words.next()?);
                (found == kind && path.starts_with("/sys/fs/cgroup")).then(|| PathBuf::from(path))
            })
            .collect()
    };
    let first = of_kind("cgroup");
    let second = of_kind("cgroup2");
    if first.is_empty() {
        (second, Vec::new(), true)
    } else {
        (first, second, false)
    }
}

/// A new cpuset group of version 1 is empty, and nothing can run in it before it has processors and memory.
fn inherit(parent: &Path, group: &Path, file: &str) -> Result<()> {
    let to = group.join(file);
    let Ok(there) = fs::read_to_string(&to) else {
        return Ok(());
    };
    if !there.trim().is_empty() {
        return Ok(());
    }
    let from = fs::read_to_string(parent.join(file)).unwrap_or_default();
    if from.trim().is_empty() {
        return Ok(());
    }
    fs::write(&to, from.trim()).with_context(|| format!("write {}", to.display()))
}

/// Passes all controllers of a group of version 2 on to the groups below it. One that cannot be passed on is missing
/// below, and the kubelet then says which.
fn delegate(group: &Path) {
    let controllers = fs::read_to_string(group.join("cgroup.controllers")).unwrap_or_default();
    for controller in controllers.split_whitespace() {
        let _ = fs::write(group.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_of_version_1_win_where_both_are_mounted() {
        let mixed = "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                     cgroup /sys/fs/cgroup/pids cgroup rw,pids 0 0\n\
                     cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        let (found, beside, unified) = hierarchies(mixed);
        assert_eq!(
            found,
            ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup/pids"].map(PathBuf::from)
        );
        assert_eq!(beside, [PathBuf::from("/sys/fs/cgroup/unified")]);
        assert!(!unified);
        let (found, _, unified) = hierarchies("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n");
        assert_eq!(found, [PathBuf::from("/sys/fs/cgroup")]);
        assert!(unified);
    }

    #[test]
    fn groups_are_removed_innermost_first() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("demo/node-0/pod")).unwrap();
        let groups = Cgroups {
            hierarchies: vec![dir.path().to_owned()],
            beside: Vec::new(),
            unified: false,
            name: "demo".into(),
        };
        assert!(groups.any_left());
        groups.remove();
        assert!(!groups.any_left());
    }
}
