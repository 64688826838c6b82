//! Kubeconfig files, written as JSON, which every YAML reader takes.

use std::{fs, io::Write as _, os::unix::fs::OpenOptionsExt as _, path::Path};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::pki::Identity;

/// The text of a kubeconfig with one context, everything inline.
pub(crate) fn render(cluster: &str, server: &str, ca_pem: &str, user: &Identity) -> String {
    let value: Value = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": cluster,
            "cluster": {"server": server, "certificate-authority-data": base64(ca_pem.as_bytes())},
        }],
        "users": [{
            "name": user.name,
            "user": {
                "client-certificate-data": base64(user.certificate_pem.as_bytes()),
                "client-key-data": base64(user.key_pem.as_bytes()),
            },
        }],
        "contexts": [{"name": cluster, "context": {"cluster": cluster, "user": user.name}}],
        "current-context": cluster,
    });
    format!("{value:#}\n")
}

/// Writes a file that only its owner reads, whole or not at all.
pub(crate) fn write_private(path: &Path, text: &str) -> Result<()> {
    let parent = path.parent().context("a file has a folder")?;
    fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
    let mut name = path.file_name().context("a file has a name")?.to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = parent.join(name);
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .with_context(|| format!("write {}", temporary.display()))?;
    file.write_all(text.as_bytes())?;
    fs::rename(&temporary, path).with_context(|| format!("write {}", path.display()))
}

/// Standard base64 with padding.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = chunk
            .iter()
            .fold(0_usize, |group, byte| group << 8 | usize::from(*byte))
            << (8 * (3 - chunk.len()));
        for position in 0..4 {
            if position <= chunk.len() {
                text.push(char::from(ALPHABET[group >> (18 - 6 * position) & 0x3f]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_pads_as_rfc_4648_shows() {
        let shown = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
        ];
        for (plain, encoded) in shown {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
    }

    #[test]
    fn a_kubeconfig_points_at_its_only_context() {
        let user = Identity {
            name: "jane".into(),
            certificate_pem: "cert".into(),
            key_pem: "key".into(),
        };
        let value: Value =
            serde_json::from_str(&render("demo", "https://192.0.2.1:6443", "ca", &user)).unwrap();
        assert_eq!(value["current-context"], "demo");
        assert_eq!(
            value["contexts"][0]["context"],
            json!({"cluster": "demo", "user": "jane"})
        );
        assert_eq!(
            value["clusters"][0]["cluster"]["server"],
            "https://192.0.2.1:6443"
        );
    }
}
