//! What clusters change on the machine outside their namespaces, noted down by the first and undone by the last.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

/// Folders that programs of a node insist on; each node mounts its own over them, for which they have to exist.
const MOUNT_POINTS: [&str; 3] = ["/var/lib/kubelet", "/var/log/containers", "/var/lib/cni"];

/// Settings of the one kernel that every kubelet changes to what it thinks right for a node.
const SETTINGS: [&str; 6] = [
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
];

/// Notes down what is there, when no cluster has yet, and makes the folders.
pub(crate) fn prepare(notes: &Path) -> Result<()> {
    fs::create_dir_all(notes).with_context(|| format!("create {}", notes.display()))?;
    for setting in SETTINGS {
        let note = notes.join(plain(setting));
        if let Ok(value) = fs::read_to_string(value_of(setting))
            && !note.exists()
        {
            fs::write(note, value)?;
        }
    }
    for point in MOUNT_POINTS {
        if !Path::new(point).is_dir() {
            fs::create_dir_all(point).with_context(|| format!("create {point}"))?;
            fs::write(notes.join(plain(point)), "")?;
        }
    }
    Ok(())
}

/// Undoes what the notes say. Only for the last cluster: a folder that goes takes with it what others have mounted over
/// it.
pub(crate) fn restore(notes: &Path) {
    for setting in SETTINGS {
        let note = notes.join(plain(setting));
        if let Ok(value) = fs::read_to_string(&note) {
            // A kernel that refuses its own earlier value is no reason to keep the cluster.
            let _ = fs::write(value_of(setting), value.trim_end());
            let _ = fs::remove_file(note);
        }
    }
    for point in MOUNT_POINTS {
        if fs::remove_file(notes.join(plain(point))).is_ok() {
            // Somebody else's by now, when it is not empty.
            let _ = fs::remove_dir(point);
        }
    }
    let _ = fs::remove_dir(notes);
}

fn value_of(setting: &str) -> PathBuf {
    Path::new("/proc/sys").join(setting)
}

fn plain(path: &str) -> String {
    path.trim_start_matches('/').replace('/', "-")
}
