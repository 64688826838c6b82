//! What must be known from the cluster before a tenant is validated and built: all of it from watch caches.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use bulkhead_api::McpTenant;
use bulkhead_core::{
    control::{self, Operator},
    mcp::Pins,
};
use ipnet::IpNet;
use kube::{Resource, ResourceExt, runtime::reflector::ObjectRef};
use tracing::warn;

use crate::{
    apply::{Owner, is_ours},
    build::{Observed, Overhead, PeerService, Pem},
    cache::{Cache, Report},
    context::Context,
    control::Shown,
    issuers::IssuerRef,
    kinds::{API_SERVER, Kind, tenants_of_namespace},
    names::{AGENTS_CA, OPERATOR, SERVERS_CA, ServerName},
    ranges::ClusterRanges,
    status,
    watch::{peer_namespaces, peer_ranges},
};

/// Reads what a tenant depends on.
pub fn dereference(context: &Context, tenant: &McpTenant) -> Observed {
    let name = tenant.name_any();
    let agents = format!("{name}-agents");
    let cache = &context.cache;
    let declared: BTreeSet<&str> = peer_namespaces(tenant).collect();
    // What its network policies let in and out now, too: while its specification is refused, they may be of an earlier one.
    let walls: Vec<_> = [&name, &agents]
        .into_iter()
        .flat_map(|namespace| cache.of_kind(Kind::NetworkPolicy, namespace))
        .collect();
    let walls = || {
        walls.iter().filter_map(|live| match &live.report {
            Report::Wall(wall) => Some(wall),
            _ => None,
        })
    };
    let peers = declared
        .iter()
        .copied()
        .chain(walls().flat_map(|wall| &wall.namespaces).map(String::as_str));
    let names_ranges = peer_ranges(tenant).next().is_some() || walls().any(|wall| !wall.ranges.is_empty());
    Observed {
        servers_ca: root(cache, &name, SERVERS_CA),
        agents_ca: root(cache, &agents, AGENTS_CA),
        token_keys: cache.token_keys(),
        operator: operator(context),
        pins: pins(context, tenant),
        shown: shown(context, tenant),
        issuers: tenant
            .spec
            .issuers
            .iter()
            .filter_map(|issuer| Some((issuer.url.clone(), cache.issuer(&IssuerRef::of(issuer))?)))
            .collect(),
        services: declared
            .iter()
            .flat_map(|namespace| services(cache, namespace))
            .collect(),
        runtime_classes: Some(
            cache
                .of_kind(Kind::RuntimeClass, "")
                .iter()
                .map(|class| {
                    let overhead = match &class.report {
                        Report::RuntimeClass(overhead) => *overhead,
                        _ => Overhead::default(),
                    };
                    (class.name.clone(), overhead)
                })
                .collect(),
        ),
        volume_claims: cache
            .of_kind(Kind::PersistentVolumeClaim, &name)
            .iter()
            .filter(|live| live.applied)
            .filter_map(|live| match &live.report {
                Report::Storage(Some(size)) => Some((live.name.clone(), *size)),
                _ => None,
            })
            .collect(),
        cluster: if names_ranges {
            cluster_ranges(cache)
        } else {
            ClusterRanges::default()
        },
        // Of the namespaces that this tenant names: which ones are another's is nobody's business otherwise.
        tenant_namespaces: peers
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

/// What the tenant's servers are held to: what this leader applied last, or, before it has, what the `ConfigMaps` say, as far
/// as the status vouches for them, which was written to another object. Whatever somebody does to a `ConfigMap` changes nothing.
fn pins(context: &Context, tenant: &McpTenant) -> BTreeMap<String, Pins> {
    let (namespace, status) = (tenant.name_any(), status::current(context, tenant));
    let uid = tenant.metadata.uid.as_deref().unwrap_or_default();
    let vouched = |server: &str| {
        let name = ServerName::new(server).ok()?;
        let live = context.cache.get(Kind::ConfigMap, &namespace, &name.policy())?;
        let Report::Pins(pins) = &live.report else {
            return None;
        };
        let known = status.servers.iter().find(|known| known.name == server);
        let is_vouched = known.is_some_and(|known| known.definitions == Some(pins.fingerprint().to_string()));
        (pins.is_empty() || is_vouched).then(|| Pins::clone(pins))
    };
    let servers = tenant.spec.servers.iter();
    servers
        .filter_map(|server| {
            let applied = context.memory.applied_pins(uid, &server.name);
            Some((server.name.clone(), applied.or_else(|| vouched(&server.name))?))
        })
        .collect()
}

/// What sidecars say that their servers showed first. A pod of another image than the server's present one has no say.
fn shown(context: &Context, tenant: &McpTenant) -> BTreeMap<String, Vec<Shown>> {
    let mut shown: BTreeMap<String, Vec<Shown>> = BTreeMap::new();
    for live in context.cache.of_kind(Kind::Pod, &tenant.name_any()) {
        let Report::Pod(pod) = &live.report else {
            continue;
        };
        let server = tenant.spec.servers.iter().find(|server| {
            Some(&server.name) == pod.server.as_ref() && Some(&server.image) == pod.image.as_ref()
        });
        if let (Some(server), Some(said)) = (server, context.sidecars.in_force(&live.uid)) {
            let of_server = shown.entry(server.name.clone()).or_default();
            of_server.extend(said.first.iter().cloned());
        }
    }
    shown
}

/// Where the operator's own Service is.
fn operator(context: &Context) -> Option<Operator> {
    let namespace = &context.settings.namespace;
    let live = context.cache.get(Kind::Service, namespace, OPERATOR)?;
    let Report::Service(state) = &live.report else {
        return None;
    };
    let address = SocketAddr::new(*state.addresses.first()?, control::PORT);
    let roots = context.control.roots().as_str().to_owned();
    Some(Operator::new(
        address,
        format!("{OPERATOR}.{namespace}.svc"),
        roots,
    ))
}

/// Where the cluster's own addresses are, as far as it tells.
pub(crate) fn cluster_ranges(cache: &Cache) -> ClusterRanges {
    let (namespace, service) = API_SERVER;
    let mut ranges = ClusterRanges::default();
    for live in [
        (Kind::Node, ""),
        (Kind::ServiceCidr, ""),
        (Kind::EndpointSlice, namespace),
    ]
    .into_iter()
    .flat_map(|(kind, namespace)| cache.of_kind(kind, namespace))
    {
        if let Report::Addresses(own) = &live.report {
            ranges.extend(own);
        }
    }
    if let Some(live) = cache.get(Kind::Service, namespace, service)
        && let Report::Service(state) = &live.report
    {
        ranges
            .api_server
            .extend(state.addresses.iter().copied().map(IpNet::from));
    }
    ranges
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
