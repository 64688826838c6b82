//! The CRD as YAML, for `kubectl apply` and, with Helm's switches around it, for the chart.

use anyhow::{Context as _, Result};
use bulkhead_api::McpTenant;
use kube::CustomResourceExt as _;

use crate::Generated;

const HEADER: &str = "# Generated from the Rust types by `make generate`; edits are lost.\n";

/// Both copies.
pub(crate) fn files() -> Result<Vec<Generated>> {
    let yaml = serde_saphyr::to_string(&McpTenant::crd()).context("write the CRD as YAML")?;
    Ok(vec![
        Generated {
            path: "crds/bulkhead.dev_mcptenants.yaml",
            content: format!("{HEADER}{yaml}"),
        },
        Generated {
            path: "charts/bulkhead/templates/crds/bulkhead.dev_mcptenants.yaml",
            content: templated(&yaml)?,
        },
    ])
}

/// A template, and not in the chart's `crds/` folder: Helm never upgrades what is there.
fn templated(yaml: &str) -> Result<String> {
    // Descriptions may speak of `{{ … }}` some day; Helm must not read them.
    let escaped = yaml.replace("{{", "{{ \"{{\" }}");
    let (before, after) = escaped.split_once("metadata:\n").context("a CRD has metadata")?;
    Ok(format!(
        "{HEADER}{{{{- if .Values.crds.enabled }}}}\n{before}metadata:\n  \
         labels:\n    {{{{- include \"bulkhead.labels\" . | nindent 4 }}}}\n  \
         {{{{- if .Values.crds.keep }}}}\n  \
         annotations:\n    # Without the CRD every tenant would be deleted.\n    helm.sh/resource-policy: keep\n  {{{{- end }}}}\n\
         {after}{{{{- end }}}}\n"
    ))
}
