//! `manifests/install.yaml`: the chart with its defaults, rendered for people who don't use Helm.

use std::{env, path::Path, process::Command};

use anyhow::{Context as _, Result, bail};

use crate::Generated;

pub(crate) const PATH: &str = "manifests/install.yaml";

const HEADER: &str = "\
# Generated from charts/bulkhead by `make generate`; edits are lost.
# Needs cert-manager. Install: kubectl apply --server-side -f install.yaml
---
apiVersion: v1
kind: Namespace
metadata:
  name: bulkhead-system
  labels:
    pod-security.kubernetes.io/enforce: restricted
";

/// Renders the chart with the program in `HELM` or, without it, `helm`.
pub(crate) fn file(root: &Path) -> Result<Generated> {
    let helm = env::var_os("HELM").unwrap_or_else(|| "helm".into());
    let output = Command::new(&helm)
        .args(["template", "bulkhead"])
        .arg(root.join("charts/bulkhead"))
        .args(["--namespace", "bulkhead-system"])
        .output()
        .with_context(|| {
            format!(
                "run {}: Helm renders {PATH}; `cargo run -p bulkhead-cluster -- tool helm` builds it and prints its path \
                 for HELM",
                helm.display()
            )
        })?;
    if !output.status.success() {
        bail!(
            "helm template: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    let rendered = String::from_utf8(output.stdout).context("Helm writes UTF-8")?;
    Ok(Generated {
        path: PATH,
        content: format!("{HEADER}{rendered}"),
    })
}
