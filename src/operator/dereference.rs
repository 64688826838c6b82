//! What must be known from the cluster before a tenant is validated and built: all of it from watch caches.

use std::collections::BTreeSet;

use bulkhead_api::McpTenant;
use kube::{ResourceExt, runtime::reflector::ObjectRef};
use tracing::warn;

use crate::{
    build::{Observed, PeerService, Pem},
    cache::{Cache, Report},
    context::Context,
    kinds::{Kind, tenants_of_namespace},
    names::{AGENTS_CA, SERVERS_CA},
    watch::peer_namespaces,
};

/// Reads what a tenant depends on.
pub fn dereference(context: &Context, tenant: &McpTenant) -> Observed {
    let name = tenant.name_any();
    let agents = format!("{name}-agents");
    let cache = &context.cache;
    let peers: BTreeSet<&str> = peer_namespaces(tenant).collect();
    Observed {
        servers_ca: root(cache, &name, SERVERS_CA),
        agents_ca: root(cache, &agents, AGENTS_CA),
        services: peers
            .iter()
            .flat_map(|namespace| services(cache, namespace))
            .collect(),
        runtime_classes: Some(
            cache
                .of_kind(Kind::RuntimeClass, "")
                .iter()
                .map(|class| class.name.clone())
                .collect(),
        ),
        // Of the namespaces that this tenant names: which ones are another's is nobody's business otherwise.
        tenant_namespaces: peers
            .into_iter()
            .filter(|namespace| *namespace != name && *namespace != agents)
            .filter(|namespace| is_a_tenants(context, namespace))
            .map(str::to_owned)
            .collect(),
    }
}

/// The certificate of a CA: the one that was issued for the current revision of its Certificate. It is taken from the
/// request, so that no Secret need be read.
pub fn root(cache: &Cache, namespace: &str, ca: &str) -> Option<Pem> {
    let live = cache.get(Kind::Certificate, namespace, ca)?;
    let Report::Certificate(certificate) = &live.report else {
        return None;
    };
    let revision = certificate.revision?;
    let requests = cache.of_kind(Kind::CertificateRequest, namespace);
    let pem = requests.iter().find_map(|request| match &request.report {
        Report::Issued(issued) if issued.certificate == ca && issued.revision == revision => {
            Some(&issued.pem)
        }
        _ => None,
    })?;
    Pem::new(pem)
        .inspect_err(|error| warn!(namespace, ca, %error, "cert-manager issued what is no certificate"))
        .ok()
}

fn services(cache: &Cache, namespace: &str) -> Vec<PeerService> {
    cache
        .of_kind(Kind::Service, namespace)
        .iter()
        .filter_map(|service| match &service.report {
            Report::Service(state) => Some(PeerService {
                namespace: namespace.to_owned(),
                name: service.name.clone(),
                selector: state.selector.clone(),
                addresses: state.addresses.clone(),
            }),
            _ => None,
        })
        .collect()
}

fn is_a_tenants(context: &Context, namespace: &str) -> bool {
    tenants_of_namespace(namespace).any(|tenant| context.tenants.get(&ObjectRef::new(tenant)).is_some())
}
