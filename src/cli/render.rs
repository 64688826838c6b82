//! `kubectl bulkhead render`: everything that a tenant becomes, without a cluster.

pub(crate) mod documents;

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use bulkhead_api::McpTenant;
use bulkhead_operator::{
    build::{self, Observed},
    settings::Settings,
    validate::{Invalid, validate},
};
use clap::Args;
use serde_json::{Value, json};

use crate::{
    exit::Exit,
    output::{self, Format},
    paint,
};

/// What a rendering can't know, told at the top of it.
const HEADER: &str = "\
# Rendered by kubectl bulkhead without a cluster, in the order in which the operator applies.
# Not known here, and so left out or different in a cluster:
# - the tenant's UID (unless the input has it): owner references of the namespaces; it is in each policy, so the
#   policies' revisions differ from the cluster's
# - the certificate authorities: the ConfigMaps bulkhead-trust
# - the Services that servers may dial: hostAliases of the Deployments
# - other tenants and runtime classes: nothing is checked against them
";

/// Shows what tenants become.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  kubectl bulkhead render -f tenant.yaml
  kubectl bulkhead render -f tenants/ -f extra.yaml -o json
  kubectl get mcptenant acme -o yaml | kubectl bulkhead render -f - | diff - rendered/acme.yaml

Give the same settings as the operator has: what it is told by the chart is told here by flags.

Exit codes: 0 rendered, 1 the operator would not accept it, or it can't be read.")]
pub struct Render {
    /// File with tenants, a folder of such (*.yaml, *.yml, *.json), or - for stdin; may be repeated.
    #[arg(long = "filename", short = 'f', value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Form of the output.
    #[arg(long, short, value_enum, default_value = "yaml")]
    output: Format,
    /// What the operator is told about cluster and sidecar.
    #[command(flatten)]
    settings: Settings,
}

/// Renders all tenants of the input, or none.
pub fn run(args: &Render) -> Result<Exit> {
    let mut tenants = Vec::new();
    for file in &args.files {
        for (name, text) in texts(file)? {
            let read = documents::tenants(&text).with_context(|| name.clone())?;
            tenants.extend(read.into_iter().map(|tenant| (name.clone(), tenant)));
        }
    }
    if tenants.is_empty() {
        bail!("no McpTenant in the input");
    }
    let (mut objects, mut problems) = (Vec::new(), 0);
    for (file, tenant) in &tenants {
        match rendered(tenant, &args.settings)? {
            Ok(children) => objects.extend(children),
            Err(invalid) => {
                problems += invalid.len();
                complain(file, tenant, &invalid);
            }
        }
    }
    if problems > 0 {
        bail!("{problems} problems: the operator would answer Accepted=False and build nothing");
    }
    output::text(&written(&objects, args.output)?)?;
    Ok(Exit::Success)
}

/// The children of a tenant, in order, or why the operator would make none.
fn rendered(
    tenant: &McpTenant,
    settings: &Settings,
) -> Result<std::result::Result<Vec<Value>, Vec<Invalid>>> {
    let unknown = Observed::default();
    match validate(tenant, settings, &unknown) {
        Ok(valid) => Ok(Ok(build::render(&build::build(&valid, &unknown, settings))?)),
        Err(invalid) => Ok(Err(invalid)),
    }
}

fn complain(file: &str, tenant: &McpTenant, invalid: &[Invalid]) {
    let name = tenant.metadata.name.as_deref().unwrap_or("(no name)");
    for problem in invalid {
        output::note(&format!(
            "{file}: {name}: {}: {problem}",
            paint::bad(problem.reason.as_str())
        ));
    }
}

fn written(objects: &[Value], format: Format) -> Result<String> {
    match format {
        Format::Json => {
            let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
            Ok(format!("{}\n", serde_json::to_string_pretty(&list)?))
        }
        Format::Yaml => {
            let mut text = HEADER.to_owned();
            for object in objects {
                text.push_str("---\n");
                text.push_str(&serde_saphyr::to_string(object).context("writing YAML")?);
            }
            Ok(text)
        }
    }
}

/// The texts behind one `-f`, with a name for messages.
fn texts(path: &Path) -> Result<Vec<(String, String)>> {
    if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin()
            .read_to_string(&mut text)
            .context("reading stdin")?;
        return Ok(vec![("stdin".into(), text)]);
    }
    let mut files = vec![path.to_owned()];
    if path.is_dir() {
        files = fs::read_dir(path)
            .and_then(|entries| {
                entries
                    .map(|entry| Ok(entry?.path()))
                    .collect::<std::io::Result<_>>()
            })
            .with_context(|| format!("reading {}", path.display()))?;
        files.retain(|file| {
            let extension = file.extension().and_then(|extension| extension.to_str());
            matches!(extension, Some("yaml" | "yml" | "json"))
        });
        files.sort();
    }
    let read = |file: PathBuf| {
        let name = file.display().to_string();
        let text = fs::read_to_string(&file).with_context(|| format!("reading {name}"))?;
        Ok((name, text))
    };
    files.into_iter().map(read).collect()
}

#[cfg(test)]
mod tests;
