//! What this machine must have before anything starts: rights, room, Debian packages.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::run::{command, last_lines, output, succeeds};

/// Programs that are not built here, with the Debian package that has each.
const PROGRAMS: &[(&str, &str)] = &[
    ("runc", "runc"),
    ("ipset", "ipset"),
    ("iptables", "iptables"),
    ("conntrack", "conntrack"),
    ("ip", "iproute2"),
    ("ethtool", "ethtool"),
    ("socat", "socat"),
    ("modprobe", "kmod"),
    ("mount", "mount"),
    ("nsenter", "util-linux"),
    ("setsid", "util-linux"),
];

/// Programs that only the building of images needs.
const IMAGE_PROGRAMS: &[(&str, &str)] = &[("buildah", "buildah"), ("dpkg-deb", "dpkg")];

/// Whether a program is on the PATH (or where administrators' programs are).
pub(crate) fn has(program: &str) -> bool {
    find(program).is_some()
}

pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
}

/// Nodes are namespaces and cgroups, which only root makes.
pub(crate) fn ensure_root(what: &str) -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "{what} needs root: run it as root, or point at a cluster that you have with --context NAME"
    );
    Ok(())
}

/// Installs what the nodes need from Debian packages, when it is absent.
pub(crate) fn ensure_node_programs() -> Result<()> {
    ensure_programs(PROGRAMS)
}

/// Installs what the building of images needs, when it is absent.
pub(crate) fn ensure_image_programs() -> Result<()> {
    ensure_programs(IMAGE_PROGRAMS)
}

fn ensure_programs(programs: &[(&str, &str)]) -> Result<()> {
    let mut packages: Vec<&str> = programs
        .iter()
        .filter(|(program, _)| !has(program))
        .map(|(_, package)| *package)
        .collect();
    packages.dedup();
    if packages.is_empty() {
        return Ok(());
    }
    let wanted = packages.join(" ");
    ensure!(
        has("apt-get"),
        "missing: {wanted}. Install them with this system's package manager"
    );
    ensure_root(&format!("installing {wanted}"))?;
    eprintln!("installing Debian packages: {wanted}");
    let install = || {
        let mut apt = Command::new("apt-get");
        apt.args([
            "install",
            "--yes",
            "--quiet",
            "--no-install-recommends",
            "-o",
            "DPkg::Lock::Timeout=300",
        ])
        .args(&packages);
        apt.env("DEBIAN_FRONTEND", "noninteractive");
        output(&mut apt)
    };
    let mut outcome = install()?;
    if !outcome.status.success() {
        // Most likely the package lists are absent or old.
        let _ = output(Command::new("apt-get").args(["update", "--quiet"]));
        outcome = install()?;
    }
    ensure!(
        outcome.status.success(),
        "apt-get could not install {wanted}. Install them by hand and run this again.\n{}",
        last_lines(&String::from_utf8_lossy(&outcome.stderr), 10)
    );
    Ok(())
}

/// Refuses to begin what would fill the disk.
pub(crate) fn ensure_disk(folder: &Path, gib: u64) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    let stat =
        rustix::fs::statvfs(folder).with_context(|| format!("ask for the room in {}", folder.display()))?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize) >> 30;
    ensure!(
        free >= gib,
        "{} has {free} GiB free and {gib} GiB are needed: make room, or name another folder in BULKHEAD_CACHE",
        folder.display()
    );
    Ok(())
}

/// A lock that ends with the value or the process.
pub(crate) fn lock(path: &Path, holder: &str) -> Result<fs::File> {
    let parent = path.parent().context("a lock has a folder")?;
    fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
    let file = fs::File::create(path).with_context(|| format!("write {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => {
            eprintln!("waiting for {holder}");
            file.lock().with_context(|| format!("lock {}", path.display()))?;
        }
        Err(fs::TryLockError::Error(error)) => bail!("lock {}: {error}", path.display()),
    }
    Ok(file)
}

/// The kernel's parts that nodes use. A kernel that has them built in has nothing to load, so a refusal is no error:
/// what is really missing shows in the log of the program that wants it.
pub(crate) fn load_kernel_modules() {
    for module in ["overlay", "veth", "bridge", "ip_set", "nf_conntrack"] {
        if !Path::new("/sys/module").join(module).exists() {
            succeeds(command("modprobe").args(["--quiet", module]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_or_not() {
        assert!(has("sh"));
        assert!(!has("no-such-program-anywhere"));
    }

    #[test]
    fn too_little_room_names_the_way_out() {
        let error = ensure_disk(Path::new("/tmp"), u64::MAX >> 30)
            .unwrap_err()
            .to_string();
        assert!(error.contains("BULKHEAD_CACHE"), "{error}");
    }
}
