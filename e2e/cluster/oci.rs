//! Image archives of one static program each, written as the OCI image layout says.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::run::{check, command};

/// An image with one program at its root, which it starts.
pub(crate) struct ProgramImage<'a> {
    /// Repository and tag.
    pub(crate) reference: &'a str,
    pub(crate) program: &'a Path,
    /// What the program is called inside.
    pub(crate) name: &'a str,
}

impl ProgramImage<'_> {
    /// Writes the archive, unless it is there. Its name says what is in it, so what is there is right.
    pub(crate) fn ensure(&self, archive: &Path) -> Result<()> {
        if archive.is_file() {
            return Ok(());
        }
        let parent = archive.parent().context("an archive has a folder")?;
        fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
        let work = tempfile::tempdir_in(parent)?;
        let layout = self
            .layout(work.path())
            .with_context(|| format!("make the image {}", self.reference))?;
        let unfinished = work.path().join("archive.tar");
        tar(&layout, &unfinished)?;
        fs::rename(&unfinished, archive)?;
        Ok(())
    }

    fn layout(&self, work: &Path) -> Result<PathBuf> {
        let root = work.join("root");
        // Programs that write a scratch file expect the usual place for it.
        fs::create_dir_all(root.join("tmp"))?;
        fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777))?;
        fs::copy(self.program, root.join(self.name))?;
        fs::set_permissions(root.join(self.name), fs::Permissions::from_mode(0o755))?;

        let layout = work.join("layout");
        let blobs = layout.join("blobs/sha256");
        fs::create_dir_all(&blobs)?;
        let layer = work.join("layer.tar");
        tar(&root, &layer)?;
        let (layer_digest, layer_size) = store(&blobs, &layer)?;
        let config = work.join("config.json");
        fs::write(&config, image_config(self.name, &layer_digest).to_string())?;
        let (config_digest, config_size) = store(&blobs, &config)?;
        let manifest = work.join("manifest.json");
        let text = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": config_digest,
                "size": config_size,
            },
            "layers": [{
                "mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": layer_digest,
                "size": layer_size,
            }],
        });
        fs::write(&manifest, text.to_string())?;
        let (manifest_digest, manifest_size) = store(&blobs, &manifest)?;
        fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [{
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": manifest_digest,
                "size": manifest_size,
                "annotations": {
                    "io.containerd.image.name": self.reference,
                    "org.opencontainers.image.ref.name": self.reference,
                },
            }],
        });
        fs::write(layout.join("index.json"), index.to_string())?;
        Ok(layout)
    }
}

fn image_config(program: &str, layer: &str) -> Value {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    json!({
        "architecture": architecture,
        "os": "linux",
        // Nobody's: what runs from such an image needs no rights.
        "config": {"Entrypoint": [format!("/{program}")], "User": "65532:65532", "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [layer]},
    })
}

/// The same folder gives the same bytes, whoever packs it and when.
fn tar(folder: &Path, archive: &Path) -> Result<()> {
    let fixed = [
        "--sort=name",
        "--mtime=@0",
        "--owner=0",
        "--group=0",
        "--numeric-owner",
        "--format=gnu",
    ];
    check(
        command("tar")
            .args(fixed)
            .arg("-C")
            .arg(folder)
            .arg("-cf")
            .arg(archive)
            .arg("."),
    )?;
    Ok(())
}

/// Moves a file among the blobs, under its digest.
fn store(blobs: &Path, file: &Path) -> Result<(String, u64)> {
    let digest = sha256(file)?;
    let size = fs::metadata(file)?.len();
    fs::rename(file, blobs.join(&digest))?;
    Ok((format!("sha256:{digest}"), size))
}

/// The name of the image in an archive.
pub(crate) fn reference(archive: &Path) -> Result<String> {
    ensure!(
        archive.is_file(),
        "there is no image archive {}",
        archive.display()
    );
    let found = match member(archive, "index.json") {
        Ok(index) => in_index(&index),
        Err(_) => in_docker_manifest(&member(archive, "manifest.json")?),
    };
    found.with_context(|| format!("the image in {} has no name", archive.display()))
}

/// How buildah is told to read an archive.
pub(crate) fn transport(archive: &Path) -> Result<String> {
    let kind = if member(archive, "index.json").is_ok() {
        "oci-archive"
    } else {
        "docker-archive"
    };
    Ok(format!("{kind}:{}", std::path::absolute(archive)?.display()))
}

fn in_index(index: &Value) -> Option<String> {
    let annotations = &index["manifests"][0]["annotations"];
    ["io.containerd.image.name", "org.opencontainers.image.ref.name"]
        .iter()
        .find_map(|key| annotations[*key].as_str())
        .map(str::to_owned)
}

fn in_docker_manifest(manifest: &Value) -> Option<String> {
    manifest[0]["RepoTags"][0].as_str().map(str::to_owned)
}

/// A JSON file in an archive, whose members are listed with or without a leading `./`.
fn member(archive: &Path, name: &str) -> Result<Value> {
    let read = |name: &str| check(command("tar").arg("-xOf").arg(archive).arg(name));
    let text = read(name).or_else(|_| read(&format!("./{name}")))?;
    Ok(serde_json::from_str(&text)?)
}

/// The digest of a file, by the program that is fast in every build profile.
pub(crate) fn sha256(file: &Path) -> Result<String> {
    let said = check(command("sha256sum").arg("--").arg(file))?;
    Ok(said
        .split_whitespace()
        .next()
        .context("sha256sum prints the digest first")?
        .trim_start_matches('\\')
        .to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_kind_of_archive_has_a_name_too() {
        assert_eq!(
            in_docker_manifest(&json!([{"RepoTags": ["localhost/a:1"]}])).as_deref(),
            Some("localhost/a:1")
        );
        assert_eq!(in_docker_manifest(&json!([{"RepoTags": null}])), None);
    }

    #[test]
    fn the_same_program_gives_the_same_archive() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("program");
        fs::write(&program, "#!/bin/sh").unwrap();
        let image = ProgramImage {
            reference: "localhost/program:1",
            program: &program,
            name: "program",
        };
        let (one, two) = (dir.path().join("one/a.tar"), dir.path().join("two/b.tar"));
        image.ensure(&one).unwrap();
        image.ensure(&two).unwrap();
        assert_eq!(sha256(&one).unwrap(), sha256(&two).unwrap());
        let listing = check(command("tar").arg("-tf").arg(&one)).unwrap();
        assert_eq!(reference(&one).unwrap(), "localhost/program:1");
        assert!(transport(&one).unwrap().starts_with("oci-archive:/"));
        assert!(listing.contains("./index.json") && listing.contains("./blobs/sha256/"));
    }
}
