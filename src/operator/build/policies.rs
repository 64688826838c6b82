//! The policy document of each server, complete for that server and with nothing of others.

use bulkhead_core::policy::document::{Agent, FORMAT, PolicyDocument, Tenant, Upstream};

use crate::{
    settings::Settings,
    validate::{Server, ValidatedTenant},
};

/// UID of a tenant that no API server has seen yet, as when rendering offline: the nil UUID (RFC 9562).
const NO_UID: &str = "00000000-0000-0000-0000-000000000000";

/// A policy as it is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The document.
    pub json: String,
    /// Its revision.
    pub revision: String,
}

/// The policy of a server.
pub fn policy(tenant: &ValidatedTenant, server: &Server, settings: &Settings) -> Policy {
    let domain = &settings.cluster_domain;
    let namespace = tenant.name.agents_namespace();
    let document = PolicyDocument {
        format: FORMAT,
        tenant: Tenant {
            name: tenant.name.to_string(),
            uid: tenant.uid.as_deref().unwrap_or(NO_UID).to_owned(),
        },
        server: server.name.to_string(),
        hostnames: server.name.hostnames(&tenant.name, domain).into(),
        upstream: Upstream {
            port: server.http.port,
            path: server.http.path.clone(),
        },
        agents: tenant
            .agents
            .iter()
            .map(|agent| Agent {
                name: agent.name.to_string(),
                spiffe_id: tenant.name.spiffe_id(domain, &namespace, agent.name.as_str()),
                roles: agent.roles.clone(),
                attributes: agent.attributes.clone(),
            })
            .collect(),
        tools: server.offers.tools.clone(),
        prompts: server.offers.prompts.clone(),
        resources: server.offers.resources.clone(),
        client_features: server.offers.client_features.clone(),
    };
    let json = document.to_json();
    let revision = PolicyDocument::revision_of(json.as_bytes());
    Policy { json, revision }
}
