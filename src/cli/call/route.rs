//! From which agent to which server of a cluster: the flags that say so, and where that is.

use std::time::Duration;

use anyhow::{Context as _, Result};
use bulkhead_api::{McpTenant, tenant::Tier};
use bulkhead_core::pod;
use clap::Args;
use kube::{Api, Client, ResourceExt as _};

use super::{
    job,
    target::{self, Target},
};
use crate::exit::ExitError;

/// The flags.
#[derive(Args, Debug)]
pub struct Route {
    /// The server.
    #[arg(value_name = "TENANT/SERVER")]
    pub target: Target,
    /// The agent: whose certificate and token are shown.
    #[arg(long, value_name = "NAME", value_parser = target::name)]
    pub agent: String,
    /// Image of the Job: that of this kubectl-bulkhead.
    #[arg(
        long,
        env = "BULKHEAD_CLI_IMAGE",
        value_name = "IMAGE",
        default_value = concat!("bulkhead-cli:", env!("CARGO_PKG_VERSION"))
    )]
    pub image: String,
    /// Path of the server's endpoint, if you may not read the tenant and it isn't /mcp.
    #[arg(long, value_name = "PATH")]
    pub path: Option<String>,
}

impl Route {
    /// Where it leads, as the tenant says it to those who may read it.
    pub async fn place(&self, client: &Client) -> Result<Place> {
        let tenant = known_tenant(client, &self.target.tenant).await?;
        place(&self.target, &self.agent, self.path.as_deref(), tenant.as_ref())
    }

    /// What a Job of the agent's is to do there.
    pub fn plan(&self, runtime_class: Option<String>, timeout: Duration, work: job::Work) -> job::Plan {
        job::Plan {
            tenant: self.target.tenant.clone(),
            agent: self.agent.clone(),
            runtime_class,
            image: self.image.clone(),
            timeout,
            work,
        }
    }
}

/// The tenant, for those who may read it.
async fn known_tenant(client: &Client, name: &str) -> Result<Option<McpTenant>> {
    match Api::<McpTenant>::all(client.clone()).get(name).await {
        Ok(tenant) => Ok(Some(tenant)),
        Err(kube::Error::Api(status)) if status.is_not_found() => {
            Err(ExitError::not_found(format!("no tenant `{name}`")).into())
        }
        // A developer of the tenant may call without seeing its specification.
        Err(kube::Error::Api(status)) if status.is_forbidden() => Ok(None),
        Err(error) => Err(error).with_context(|| format!("reading tenant {name}")),
    }
}

/// Where a server is, and where an agent's pods run.
#[derive(Debug)]
pub struct Place {
    /// The server's endpoint.
    pub url: String,
    /// Its path.
    pub path: String,
    /// The runtime class of the tenant's pods.
    pub runtime_class: Option<String>,
}

/// Finds server and agent in the tenant; by convention, where it isn't known.
fn place(target: &Target, agent: &str, path: Option<&str>, tenant: Option<&McpTenant>) -> Result<Place> {
    let Target {
        tenant: tenant_name,
        server,
    } = target;
    let (mut declared_path, mut runtime_class) = ("/mcp".to_owned(), None);
    if let Some(tenant) = tenant {
        let spec = &tenant.spec;
        let Some(declared) = spec.servers.iter().find(|declared| declared.name == *server) else {
            let names = spec.servers.iter().map(|server| server.name.as_str());
            return Err(missing("server", server, &tenant.name_any(), names));
        };
        if !spec.agents.iter().any(|declared| declared.name == agent) {
            let names = spec.agents.iter().map(|agent| agent.name.as_str());
            return Err(missing("agent", agent, &tenant.name_any(), names));
        }
        declared_path.clone_from(&declared.http.path);
        if spec.isolation.tier == Tier::Sandbox {
            runtime_class = spec
                .isolation
                .sandbox
                .as_ref()
                .map(|sandbox| sandbox.runtime_class_name.clone());
        }
    }
    let path = path.unwrap_or(&declared_path);
    let slash = if path.starts_with('/') { "" } else { "/" };
    let path = format!("{slash}{path}");
    Ok(Place {
        url: format!("https://{server}.{tenant_name}.svc:{}{path}", pod::MTLS_PORT),
        path,
        runtime_class,
    })
}

fn missing<'a>(
    kind: &str,
    name: &str,
    tenant: &str,
    declared: impl Iterator<Item = &'a str>,
) -> anyhow::Error {
    let declared: Vec<_> = declared.collect();
    let hint = if declared.is_empty() {
        "it has none".into()
    } else {
        format!("it has {}", declared.join(", "))
    };
    ExitError::not_found(format!("tenant `{tenant}` has no {kind} `{name}`; {hint}")).into()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::exit::{Exit, exit_of};

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        route: Route,
    }

    fn tenant(tier: &str) -> McpTenant {
        let sandbox = if tier == "Sandbox" {
            "sandbox: {runtimeClassName: gvisor}"
        } else {
            ""
        };
        serde_saphyr::from_str(&format!(
            "metadata: {{name: acme}}
spec:
  isolation:
    tier: {tier}
    {sandbox}
  identity: {{tenantId: t}}
  quota: {{cpu: '1', memory: 1Gi, pods: 2}}
  agents: [{{name: billing}}]
  servers: [{{name: crm, image: i, http: {{port: 3000, path: /v2/mcp}}}}]"
        ))
        .unwrap()
    }

    fn found(line: &[&str], tenant: Option<&McpTenant>) -> Result<Place> {
        let line = ["x", "acme/crm", "--agent=billing"].iter().chain(line);
        let Flags { route } = Flags::try_parse_from(line).unwrap();
        place(&route.target, &route.agent, route.path.as_deref(), tenant)
    }

    #[test]
    fn what_the_tenant_declares_decides_path_and_runtime_class() {
        let place = found(&[], Some(&tenant("Sandbox"))).unwrap();
        assert_eq!(place.url, "https://crm.acme.svc:8443/v2/mcp");
        assert_eq!(place.runtime_class.as_deref(), Some("gvisor"));
        let place = found(&[], Some(&tenant("Namespace"))).unwrap();
        assert_eq!(place.runtime_class, None);
    }

    #[test]
    fn a_tenant_that_may_not_be_read_is_called_by_convention() {
        assert_eq!(found(&[], None).unwrap().url, "https://crm.acme.svc:8443/mcp");
        assert_eq!(
            found(&["--path=v2"], None).unwrap().url,
            "https://crm.acme.svc:8443/v2"
        );
    }

    #[test]
    fn what_the_tenant_does_not_have_is_not_found_and_what_it_has_is_named() {
        let mut tenant = tenant("Namespace");
        tenant.spec.agents[0].name = "support".into();
        let error = found(&[], Some(&tenant)).unwrap_err();
        assert_eq!(
            (exit_of(&error), error.to_string().contains("it has support")),
            (Exit::NotFound, true)
        );
        tenant.spec.servers.clear();
        let error = found(&[], Some(&tenant)).unwrap_err();
        assert_eq!(
            (exit_of(&error), error.to_string().contains("it has none")),
            (Exit::NotFound, true)
        );
    }
}
