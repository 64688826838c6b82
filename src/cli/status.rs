//! `kubectl bulkhead status`: which tenants there are, and how one of them is.

pub mod fetch;
pub mod pods;
pub mod table;
pub mod tree;
pub mod view;

use anyhow::Result;
use clap::{Args, ValueEnum};
use jiff::Timestamp;
use kube::Client;

use crate::{
    call::target,
    exit::{Exit, ExitError},
    output::{self, Format},
};

/// Form of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// One JSON document.
    Json,
    /// One YAML document.
    Yaml,
    /// More columns and lines.
    Wide,
}

/// Shows tenants, or one of them.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  kubectl bulkhead status
  kubectl bulkhead status acme
  kubectl bulkhead status acme -o json | jq '.servers[].pods'

Shows what you may read, and says what you may not. Without the right to list tenants, those that you may read by
name are shown.

Exit codes: 0 ready (always, without a name), 1 error, 3 the tenant exists and isn't ready, 4 not found.")]
pub struct Status {
    /// The tenant. Without it: all that you may see.
    #[arg(value_parser = target::name)]
    tenant: Option<String>,
    /// Form of the output.
    #[arg(long, short, value_enum)]
    output: Option<Output>,
}

/// Reads and shows.
pub async fn run(args: &Status, client: Client) -> Result<Exit> {
    let wide = args.output == Some(Output::Wide);
    let format = match args.output {
        Some(Output::Json) => Some(Format::Json),
        Some(Output::Yaml) => Some(Format::Yaml),
        Some(Output::Wide) | None => None,
    };
    let now = Timestamp::now();
    let Some(name) = &args.tenant else {
        let tenants: Vec<_> = fetch::tenants(client)
            .await?
            .iter()
            .map(|tenant| table::row(tenant, now))
            .collect();
        match format {
            Some(format) => output::document(&tenants, format)?,
            None if tenants.is_empty() => output::note("no tenants that you may see"),
            None => output::text(&table::render(&tenants, wide))?,
        }
        return Ok(Exit::Success);
    };
    let objects = fetch::tenant(client, name).await?;
    if objects.tenant == fetch::Access::Missing {
        return Err(ExitError::not_found(format!("no tenant `{name}`")).into());
    }
    let view = view::view(name, &objects, now);
    match format {
        Some(format) => output::document(&view, format)?,
        None => output::text(&tree::render(&view, wide))?,
    }
    Ok(exit(&view))
}

/// A tenant whose readiness may not be read isn't known to be ready: neither 0 nor 3 would be true.
fn exit(view: &view::TenantView) -> Exit {
    match &view.tenant {
        None => Exit::Failure,
        Some(tenant) if tenant.ready => Exit::Success,
        Some(_) => Exit::NotReady,
    }
}

#[cfg(test)]
mod tests;
