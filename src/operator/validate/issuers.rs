//! The issuers of persons' tokens, and what agents are to them.

use bulkhead_api::{
    McpTenant,
    tenant::{AgentClient, Issuer as IssuerSpec, PersonRoles},
};
use bulkhead_core::policy::document::{self, ClaimValue, RolesOf};

use super::{Findings, Reason, model::Issuer};
use crate::{build::Pem, duration::GoDuration};

/// Checks a tenant's issuers.
pub(super) fn issuers(tenant: &McpTenant, findings: &mut Findings) -> Vec<Issuer> {
    let issuers = &tenant.spec.issuers;
    findings.unique("spec.issuers", issuers.iter().map(|issuer| issuer.name.as_str()));
    let checked = issuers.iter().enumerate();
    checked
        .filter_map(|(index, spec)| issuer(spec, &format!("spec.issuers[{index}]"), findings))
        .collect()
}

fn issuer(spec: &IssuerSpec, path: &str, findings: &mut Findings) -> Option<Issuer> {
    if !spec.url.starts_with("https://") {
        findings.add(
            Reason::InvalidValue,
            format!("{path}.url"),
            "must be an https URL",
        );
    }
    let lifetime: GoDuration = findings.take(
        spec.max_token_lifetime.parse(),
        Reason::InvalidValue,
        &format!("{path}.maxTokenLifetime"),
    )?;
    if let Some(authority) = &spec.certificate_authority
        && let Err(error) = Pem::new(authority)
    {
        let path = format!("{path}.certificateAuthority");
        findings.add(Reason::InvalidValue, path, format!("is {error}"));
    }
    Some(Issuer {
        rules: document::Issuer {
            name: spec.name.clone(),
            url: spec.url.clone(),
            audiences: spec.audiences.iter().cloned().collect(),
            max_lifetime: lifetime.as_secs(),
            roles: spec.roles.iter().map(roles_of).collect(),
        },
        certificate_authority: spec.certificate_authority.clone(),
    })
}

fn roles_of(rule: &PersonRoles) -> RolesOf {
    let claim = rule.claim.as_ref().zip(rule.value.as_ref());
    RolesOf {
        claim: claim.map(|(name, value)| ClaimValue {
            name: name.clone(),
            value: value.clone(),
        }),
        roles: rule.roles.iter().cloned().collect(),
    }
}

/// What an agent is to the issuers.
pub(super) fn client(client: &AgentClient) -> document::Client {
    document::Client {
        issuer: client.issuer.clone(),
        id: client.id.clone(),
    }
}
