//! Issuers and Certificates: a CA per namespace, so that sidecars can trust agents only and agents
//! sidecars only, and a leaf for each server and agent; and for each server the key that its replicas' handles share.

use bulkhead_api::cert_manager::{
    Ca, Certificate, CertificateSpec, GROUP, Issuer, IssuerRef, IssuerSpec, PrivateKey, SecretTemplate,
    SelfSigned,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::meta::{agent_labels, meta, server_labels, tenant_labels};
use crate::{
    duration::GoDuration,
    names::{AGENTS_CA, SELF_SIGNED, SERVERS_CA},
    settings::Settings,
    validate::{Agent, Server, ValidatedTenant},
};

/// Lifetime of a CA, and how long before its end it is renewed: after two thirds.
const CA_DURATION: GoDuration = GoDuration::hours(365 * 24);
const CA_RENEW_BEFORE: GoDuration = GoDuration::hours(365 * 24 / 3);

/// Lifetime of the key of a server's handles, and how long before its end the next is made: after two thirds. What was
/// sealed with a key can be opened for as long as a replica lives that has seen it; see the sidecar's `keyring`.
const HANDLES_DURATION: GoDuration = GoDuration::hours(90 * 24);
const HANDLES_RENEW_BEFORE: GoDuration = GoDuration::hours(30 * 24);

/// Past requests that cert-manager keeps, for a look at the last renewals.
const REVISION_HISTORY_LIMIT: i32 = 2;

/// What a certificate is for, and whether its key changes with it.
struct Use {
    usages: &'static [&'static str],
    rotation_policy: &'static str,
}

/// A CA's renewal keeps its key: what the old certificate signed chains to the new one as well, so
/// no leaf is orphaned. A new key means a new CA beside the old one, never a replacement in place.
const CA: Use = Use {
    usages: &["cert sign", "crl sign"],
    rotation_policy: "Never",
};
/// Each renewal of a leaf makes a new key. A replica is the client of another.
const SERVER: Use = Use {
    usages: &["digital signature", "server auth", "client auth"],
    rotation_policy: "Always",
};
const CLIENT: Use = Use {
    usages: &["digital signature", "client auth"],
    rotation_policy: "Always",
};

/// A key that cert-manager keeps and renews; nobody is shown the certificate.
const HANDLES: Use = Use {
    usages: &["digital signature"],
    rotation_policy: "Always",
};

pub(super) fn issuers(tenant: &ValidatedTenant) -> Vec<Issuer> {
    let issuer = |namespace: String, name: &str, spec: IssuerSpec| Issuer {
        metadata: meta(namespace, name, tenant_labels(tenant)),
        spec,
    };
    [
        (tenant.name.servers_namespace(), SERVERS_CA),
        (tenant.name.agents_namespace(), AGENTS_CA),
    ]
    .into_iter()
    .flat_map(|(namespace, ca)| {
        let self_signed = IssuerSpec {
            self_signed: Some(SelfSigned {}),
            ca: None,
        };
        let signed_by_ca = IssuerSpec {
            self_signed: None,
            ca: Some(Ca {
                secret_name: ca.to_owned(),
            }),
        };
        [
            issuer(namespace.clone(), SELF_SIGNED, self_signed),
            issuer(namespace, ca, signed_by_ca),
        ]
    })
    .collect()
}

pub(super) fn certificates(tenant: &ValidatedTenant, settings: &Settings) -> Vec<Certificate> {
    let mut certificates = vec![ca(tenant, tenant.name.servers_namespace(), SERVERS_CA, "servers")];
    certificates.extend(
        tenant
            .servers
            .iter()
            .flat_map(|server| [of_server(tenant, server, settings), handles(tenant, server)]),
    );
    certificates.push(ca(tenant, tenant.name.agents_namespace(), AGENTS_CA, "agents"));
    certificates.extend(
        tenant
            .agents
            .iter()
            .map(|agent| of_agent(tenant, agent, settings)),
    );
    certificates
}

fn ca(tenant: &ValidatedTenant, namespace: String, name: &str, of: &str) -> Certificate {
    let metadata = meta(namespace, name, tenant_labels(tenant));
    let mut certificate = certificate(metadata, &CA, SELF_SIGNED, CA_DURATION, CA_RENEW_BEFORE);
    certificate.spec.common_name = Some(format!("{} {of}", tenant.name));
    certificate.spec.is_ca = true;
    certificate
}

fn of_server(tenant: &ValidatedTenant, server: &Server, settings: &Settings) -> Certificate {
    let namespace = tenant.name.servers_namespace();
    let domain = &settings.cluster_domain;
    let uri = tenant.name.spiffe_id(domain, &namespace, server.name.as_str());
    let metadata = meta(
        namespace,
        server.name.certificate(),
        server_labels(tenant, &server.name),
    );
    let lifetime = tenant.certificates;
    let mut certificate = certificate(
        metadata,
        &SERVER,
        SERVERS_CA,
        lifetime.duration,
        lifetime.renew_before,
    );
    certificate.spec.dns_names = server.all_hostnames(&tenant.name, domain);
    certificate.spec.uris = vec![uri];
    certificate
}

fn handles(tenant: &ValidatedTenant, server: &Server) -> Certificate {
    let metadata = meta(
        tenant.name.servers_namespace(),
        server.name.handles(),
        server_labels(tenant, &server.name),
    );
    let mut certificate = certificate(
        metadata,
        &HANDLES,
        SELF_SIGNED,
        HANDLES_DURATION,
        HANDLES_RENEW_BEFORE,
    );
    // RFC 5280 wants an issuer, which is the subject of what signs itself.
    certificate.spec.common_name = Some(format!("{} handles", server.name));
    certificate
}

fn of_agent(tenant: &ValidatedTenant, agent: &Agent, settings: &Settings) -> Certificate {
    let namespace = tenant.name.agents_namespace();
    let uri = tenant
        .name
        .spiffe_id(&settings.cluster_domain, &namespace, agent.name.as_str());
    let metadata = meta(
        namespace,
        agent.name.certificate(),
        agent_labels(tenant, &agent.name),
    );
    let lifetime = tenant.certificates;
    let mut certificate = certificate(
        metadata,
        &CLIENT,
        AGENTS_CA,
        lifetime.duration,
        lifetime.renew_before,
    );
    certificate.spec.uris = vec![uri];
    certificate
}

/// A certificate in a Secret of its own name.
fn certificate(
    metadata: ObjectMeta,
    what: &Use,
    issuer: &str,
    duration: GoDuration,
    renew_before: GoDuration,
) -> Certificate {
    let spec = CertificateSpec {
        common_name: None,
        dns_names: Vec::new(),
        uris: Vec::new(),
        duration: duration.to_string(),
        renew_before: renew_before.to_string(),
        is_ca: false,
        usages: what.usages.iter().map(|usage| (*usage).to_owned()).collect(),
        secret_name: metadata.name.clone().unwrap_or_default(),
        secret_template: metadata.labels.clone().map(|labels| SecretTemplate { labels }),
        private_key: PrivateKey {
            algorithm: "ECDSA".to_owned(),
            size: 256,
            encoding: "PKCS8".to_owned(),
            rotation_policy: what.rotation_policy.to_owned(),
        },
        issuer_ref: IssuerRef {
            name: issuer.to_owned(),
            kind: "Issuer".to_owned(),
            group: GROUP.to_owned(),
        },
        revision_history_limit: REVISION_HISTORY_LIMIT,
    };
    Certificate {
        metadata,
        spec,
        status: None,
    }
}
