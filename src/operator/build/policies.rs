//! The policy document of each server, complete for that server and with nothing of others.

use std::num::NonZeroU32;

use bulkhead_api::tenant;
use bulkhead_core::policy::document::{
    Agent, FORMAT, KeyExchange, PolicyDocument, RequestLimits, Tenant, Upstream,
};

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

/// One replica's part of limits, rounded up.
fn share(limits: tenant::RequestLimits, replicas: u32) -> RequestLimits {
    let part = |limit: NonZeroU32| NonZeroU32::new(limit.get().div_ceil(replicas.max(1)));
    RequestLimits {
        requests_per_minute: limits.requests_per_minute.and_then(part),
        concurrent: limits.concurrent.and_then(part),
    }
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
        hostnames: server.all_hostnames(&tenant.name, domain).into_iter().collect(),
        upstream: Upstream {
            port: server.http.port,
            path: server.http.path.clone(),
        },
        key_exchange: match tenant.key_exchange {
            tenant::KeyExchange::PostQuantumPreferred => KeyExchange::PostQuantumPreferred,
            tenant::KeyExchange::PostQuantumRequired => KeyExchange::PostQuantumRequired,
        },
        agents: tenant
            .agents
            .iter()
            .map(|agent| Agent {
                name: agent.name.to_string(),
                spiffe_id: tenant.name.spiffe_id(domain, &namespace, agent.name.as_str()),
                roles: agent.roles.clone(),
                attributes: agent.attributes.clone(),
                limits: share(agent.limits, server.replicas),
                clients: agent.clients.clone(),
                requires_person: agent.requires_person,
            })
            .collect(),
        issuers: tenant.issuers.iter().map(|issuer| issuer.rules.clone()).collect(),
        limits: share(tenant.limits, server.replicas),
        tools: server.offers.tools.clone(),
        prompts: server.offers.prompts.clone(),
        resources: server.offers.resources.clone(),
        instructions: server.offers.instructions.clone(),
        client_features: server.offers.client_features.clone(),
    };
    let json = document.to_json();
    let revision = PolicyDocument::revision_of(json.as_bytes());
    Policy { json, revision }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_share_limits_and_none_is_without_a_part() {
        let number = NonZeroU32::new;
        for (whole, replicas, part) in [
            (600, 1, 600),
            (600, 2, 300),
            (601, 2, 301),
            (1, 3, 1),
            (600, 0, 600),
        ] {
            let limits = tenant::RequestLimits {
                requests_per_minute: number(whole),
                concurrent: number(whole),
            };
            let expected = RequestLimits {
                requests_per_minute: number(part),
                concurrent: number(part),
            };
            assert_eq!(share(limits, replicas), expected, "{whole} over {replicas}");
        }
        assert!(share(tenant::RequestLimits::default(), 2).is_none());
    }
}
