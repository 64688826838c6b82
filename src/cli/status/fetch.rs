//! Reads what a person may read. What isn't permitted is an answer and no error.

use std::{collections::BTreeSet, fmt::Debug};

use anyhow::{Context as _, Result};
use bulkhead_api::{McpTenant, cert_manager::Certificate};
use futures::future;
use k8s_openapi::api::{
    authorization::v1::{SelfSubjectRulesReview, SelfSubjectRulesReviewSpec},
    core::v1::Pod,
};
use kube::{
    Api, Client, Resource,
    api::{ListParams, PostParams},
};
use serde::de::DeserializeOwned;

/// What came of reading something.
#[derive(Clone, Debug, PartialEq)]
pub enum Access<T> {
    /// It was read.
    Read(T),
    /// The person may not read it.
    NotPermitted,
    /// It doesn't exist; of a list: the cluster doesn't know the kind.
    Missing,
}

impl<T> Access<T> {
    /// What was read, if it was.
    pub fn read(&self) -> Option<&T> {
        match self {
            Self::Read(value) => Some(value),
            Self::NotPermitted | Self::Missing => None,
        }
    }

    /// Why nothing was read.
    pub fn why_not(&self) -> Option<&'static str> {
        match self {
            Self::Read(_) => None,
            Self::NotPermitted => Some("not permitted"),
            Self::Missing => Some("not installed"),
        }
    }

    fn of(outcome: kube::Result<T>, what: &str) -> Result<Self> {
        match outcome {
            Ok(value) => Ok(Self::Read(value)),
            Err(kube::Error::Api(status)) if status.is_forbidden() => Ok(Self::NotPermitted),
            // By code: of a kind that it doesn't know, the API server says 404 in plain text, without a reason.
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(Self::Missing),
            Err(error) => Err(error).with_context(|| format!("reading {what}")),
        }
    }
}

/// A tenant and what it is made of, as far as it may be read.
#[derive(Clone, Debug)]
pub struct Objects {
    /// The tenant.
    pub tenant: Access<McpTenant>,
    /// Pods of its servers.
    pub pods: Access<Vec<Pod>>,
    /// Certificates in the servers' namespace.
    pub server_certificates: Access<Vec<Certificate>>,
    /// Certificates in the agents' namespace.
    pub agent_certificates: Access<Vec<Certificate>>,
}

/// Reads one tenant.
pub async fn tenant(client: Client, name: &str) -> Result<Objects> {
    let (servers, agents) = (name.to_owned(), format!("{name}-agents"));
    let tenants: Api<McpTenant> = Api::all(client.clone());
    let servers_pods = ListParams::default().labels("bulkhead.dev/server");
    let all = ListParams::default();
    let (tenant, pods, server_certificates, agent_certificates) = future::join4(
        tenants.get(name),
        list::<Pod>(&client, &servers, &servers_pods),
        list::<Certificate>(&client, &servers, &all),
        list::<Certificate>(&client, &agents, &all),
    )
    .await;
    Ok(Objects {
        tenant: Access::of(tenant, &format!("tenant {name}"))?,
        pods: Access::of(pods, &format!("the pods in {servers}"))?,
        server_certificates: Access::of(server_certificates, &format!("the certificates in {servers}"))?,
        agent_certificates: Access::of(agent_certificates, &format!("the certificates in {agents}"))?,
    })
}

async fn list<K>(client: &Client, namespace: &str, params: &ListParams) -> kube::Result<Vec<K>>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned,
{
    Ok(Api::<K>::namespaced(client.clone(), namespace)
        .list(params)
        .await?
        .items)
}

/// The tenants that the person may see: all of them, or those that a rule names.
pub async fn tenants(client: Client) -> Result<Vec<McpTenant>> {
    let api: Api<McpTenant> = Api::all(client.clone());
    match Access::of(
        api.list(&ListParams::default()).await.map(|list| list.items),
        "tenants",
    )? {
        Access::Read(tenants) => Ok(tenants),
        Access::Missing => anyhow::bail!("this cluster has no McpTenant resource: is Bulkhead installed?"),
        Access::NotPermitted => {
            let names = permitted_names(&client).await?;
            let api = &api;
            let tenants = future::try_join_all(names.iter().map(|name| async move {
                // A rule may name a tenant that is gone.
                Access::of(api.get(name).await, &format!("tenant {name}"))
            }))
            .await?;
            Ok(tenants.iter().filter_map(Access::read).cloned().collect())
        }
    }
}

/// Names of tenants in the rules that apply to the person, who may always ask for these.
async fn permitted_names(client: &Client) -> Result<BTreeSet<String>> {
    let review = SelfSubjectRulesReview {
        spec: SelfSubjectRulesReviewSpec {
            namespace: Some("default".into()),
        },
        ..SelfSubjectRulesReview::default()
    };
    let review = Api::all(client.clone())
        .create(&PostParams::default(), &review)
        .await
        .context("asking for your own rights")?;
    let rules = review
        .status
        .map(|status| status.resource_rules)
        .unwrap_or_default();
    let names = |list: Option<Vec<String>>, name: &str| {
        list.unwrap_or_default()
            .iter()
            .any(|entry| entry == name || entry == "*")
    };
    Ok(rules
        .into_iter()
        .filter(|rule| {
            names(rule.api_groups.clone(), "bulkhead.dev")
                && names(rule.resources.clone(), "mcptenants")
                && names(Some(rule.verbs.clone()), "get")
        })
        .flat_map(|rule| rule.resource_names.unwrap_or_default())
        .collect())
}
