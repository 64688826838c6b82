//! What must be known from the cluster before a tenant is validated and built: all of it from watch caches.

use std::collections::BTreeSet;

use bulkhead_api::McpTenant;
use kube::{Resource, ResourceExt, runtime::reflector::ObjectRef};
use tracing::warn;

use crate::{
    apply::{Owner, is_ours},
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

/// Whether a namespace was made for a tenant. That a tenant of its name exists is not enough: one that is refused, because
/// the namespace is somebody else's, must not close that namespace to all others.
fn is_a_tenants(context: &Context, namespace: &str) -> bool {
    let live = context.cache.get(Kind::Namespace, namespace, namespace);
    tenants_of_namespace(namespace)
        .filter_map(|tenant| context.tenants.get(&ObjectRef::new(tenant)))
        .any(|tenant| {
            let uid = tenant.meta().uid.as_deref().unwrap_or_default();
            let noted = tenant.0.as_ref().ok().and_then(|tenant| tenant.status.as_ref());
            let namespaces = noted.map_or(&[][..], |status| &status.namespaces);
            let owner = Owner {
                name: namespace,
                uid,
                namespaces,
            };
            live.as_ref().is_some_and(|live| is_ours(live, owner))
                || namespaces.iter().any(|known| known.name == namespace)
        })
}
