//! The images that a cluster itself needs, and the base for those of others. None of them comes from a registry.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use sha2::{Digest as _, Sha256};

use crate::{
    Paths, host,
    oci::ProgramImage,
    parts::{Part, short},
    run::{check, command, last_lines, output, succeeds},
};

/// An image archive and the name that its image has after it is loaded.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    /// Repository and tag.
    pub(crate) reference: String,
    /// The file to load.
    pub(crate) archive: PathBuf,
}

/// The image of one program of a part, tagged with what the part was built from.
pub(crate) fn of_program(paths: &Paths, part: &str, program: &str) -> Result<Image> {
    let part = Part::named(part)?;
    let folder = part.binaries(paths)?;
    let name = folder
        .file_name()
        .context("a part's folder has a name")?
        .to_string_lossy()
        .into_owned();
    let tag = name.rsplit('-').next().unwrap_or_default();
    let reference = format!("localhost/bulkhead-cluster/{program}:{tag}");
    let archive = paths.cache.join("images").join(format!("{program}-{tag}.tar"));
    ProgramImage {
        reference: &reference,
        program: &part.program(paths, program)?,
        name: program,
    }
    .ensure(&archive)?;
    Ok(Image { reference, archive })
}

/// What a dynamic program written in Rust asks of its image.
const BASE_PACKAGES: &[&str] = &["libc6", "libgcc-s1", "ca-certificates"];

/// `buildah` that keeps everything below the cache and touches nothing of the machine's own images.
pub fn buildah(paths: &Paths) -> Result<PathBuf> {
    host::ensure_root("building images")?;
    host::ensure_image_programs()?;
    let program = host::find("buildah").context("buildah was installed and is not on the PATH")?;
    let wrapper = paths.cache.join("bin/buildah");
    let storage = paths.cache.join("buildah");
    // Overlay needs a kernel that lets it stack on what is below; plain copies work everywhere.
    let text = format!(
        "#!/bin/sh\n\
         # Images of Bulkhead's tests: storage of its own, no daemon, no registry.\n\
         export BUILDAH_ISOLATION=chroot STORAGE_DRIVER=vfs\n\
         exec '{}' --root '{1}/root' --runroot '{1}/run' --storage-driver vfs \"$@\"\n",
        program.display(),
        storage.display()
    );
    if fs::read_to_string(&wrapper).is_ok_and(|there| there == text) {
        return Ok(wrapper);
    }
    crate::kubeconfig::write_private(&wrapper, &text)?;
    check(command("chmod").arg("755").arg(&wrapper))?;
    Ok(wrapper)
}

/// An image with Debian's C library and certificate authorities, made from Debian's packages, in `buildah`'s storage.
/// Its name says which versions are in it.
pub fn base_image(paths: &Paths) -> Result<String> {
    let buildah = buildah(paths)?;
    let folder = paths.cache.join("base");
    let _lock = host::lock(&folder.join("lock"), "another base image")?;
    let files = download(&folder.join("packages"))?;
    let mut hash = Sha256::new();
    for file in &files {
        // Versions are part of the names.
        hash.update(file.file_name().unwrap_or_default().as_encoded_bytes());
    }
    let reference = format!("localhost/bulkhead-base:{}", short(&hash.finalize()));
    if succeeds(Command::new(&buildah).args(["inspect", "--type", "image", &reference])) {
        return Ok(reference);
    }
    eprintln!("making the base image from {}", BASE_PACKAGES.join(", "));
    let root = tempfile::tempdir_in(&folder)?;
    for file in &files {
        check(command("dpkg-deb").arg("--extract").arg(file).arg(root.path()))?;
    }
    finish_root(root.path())?;
    let container = check(Command::new(&buildah).args(["from", "scratch"]))?;
    let container = container.trim();
    let built = (|| {
        check(
            Command::new(&buildah)
                .args(["add", "--quiet", container])
                .arg(root.path())
                .arg("/"),
        )?;
        check(Command::new(&buildah).args(["config", "--user=65532:65532", "--workingdir=/", container]))?;
        check(Command::new(&buildah).args(["commit", "--quiet", container, &reference]))
    })();
    let _ = check(Command::new(&buildah).args(["rm", container]));
    built?;
    Ok(reference)
}

/// Fetches the packages, unless a folder of them is there.
fn download(folder: &Path) -> Result<Vec<PathBuf>> {
    let list = |folder: &Path| -> Result<Vec<PathBuf>> {
        let mut files: Vec<PathBuf> = fs::read_dir(folder)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "deb"))
            .collect();
        files.sort();
        Ok(files)
    };
    let files = list(folder)?;
    if files.len() == BASE_PACKAGES.len() {
        return Ok(files);
    }
    ensure!(
        host::has("apt-get"),
        "the base image is made of Debian packages, and there is no apt-get here"
    );
    fs::create_dir_all(folder)?;
    // apt drops its rights before it downloads, and complains when it then can't write here.
    let download = || {
        let mut apt = Command::new("apt-get");
        apt.args(["download", "--quiet", "-o", "APT::Sandbox::User=root"])
            .args(BASE_PACKAGES)
            .current_dir(folder);
        output(&mut apt)
    };
    let mut outcome = download()?;
    if !outcome.status.success() {
        let _ = output(Command::new("apt-get").args(["update", "--quiet"]));
        outcome = download()?;
    }
    ensure!(
        outcome.status.success(),
        "apt-get could not download {}:\n{}",
        BASE_PACKAGES.join(", "),
        last_lines(&String::from_utf8_lossy(&outcome.stderr), 10)
    );
    list(folder)
}

/// What the packages' own scripts would have done.
fn finish_root(root: &Path) -> Result<()> {
    let etc = root.join("etc");
    fs::create_dir_all(etc.join("ssl/certs"))?;
    let mut bundle = String::new();
    collect_certificates(&root.join("usr/share/ca-certificates"), &mut bundle)?;
    ensure!(
        bundle.contains("BEGIN CERTIFICATE"),
        "the package ca-certificates holds no certificates"
    );
    fs::write(etc.join("ssl/certs/ca-certificates.crt"), bundle)?;
    fs::write(
        etc.join("passwd"),
        "root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/:/sbin/nologin\n",
    )?;
    fs::write(etc.join("group"), "root:x:0:\nnonroot:x:65532:\n")?;
    fs::write(etc.join("nsswitch.conf"), "hosts: files dns\n")?;
    fs::create_dir_all(root.join("tmp"))?;
    check(command("chmod").arg("1777").arg(root.join("tmp")))?;
    for folder in ["usr/share/doc", "usr/share/lintian", "usr/share/man"] {
        let _ = fs::remove_dir_all(root.join(folder));
    }
    Ok(())
}

fn collect_certificates(folder: &Path, bundle: &mut String) -> Result<()> {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder)
        .with_context(|| format!("read {}", folder.display()))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<std::io::Result<_>>()?;
    entries.sort();
    for path in entries {
        if path.is_dir() {
            collect_certificates(&path, bundle)?;
        } else if path.extension().is_some_and(|extension| extension == "crt") {
            bundle.push_str(&fs::read_to_string(&path)?);
        }
    }
    Ok(())
}
