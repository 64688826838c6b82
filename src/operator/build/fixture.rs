//! A tenant for tests, which uses every field. No two of its names are equal, so that swapped ones show.

use bulkhead_api::McpTenant;
use bulkhead_core::{
    control::{self, Operator},
    mcp::{Fingerprint, Pins, ProtocolVersion, inventory::Listing},
    tokens::IssuerKeys,
};
use serde_json::{Value, json};

use super::{Observed, Overhead, PeerService, Pem};
use crate::{
    issuers::IssuerState, quantity::Quantity, ranges::ClusterRanges, settings::Settings, validate,
    validate::ValidatedTenant,
};

/// Root certificates, made once with `openssl req -x509`.
const SERVERS_ROOT: &str = include_str!("fixture/servers-root.pem");
const AGENTS_ROOT: &str = include_str!("fixture/agents-root.pem");

/// What the operator's certificate chains to. Nobody reads it here.
const OPERATOR_ROOT: &str = "-----BEGIN CERTIFICATE-----\n…\n-----END CERTIFICATE-----\n";

fn pinned() -> Pins {
    let mut pins = Pins::of_image("an earlier image");
    let definition = Fingerprint::of("{}");
    pins.pin(Listing::Tools, "enter", ProtocolVersion::V20251125, definition);
    pins
}

/// The tenant as it is written.
pub(crate) fn tenant() -> Value {
    serde_saphyr::from_str(include_str!("fixture/umbra.yaml")).unwrap()
}

/// The tenant as a typed object.
pub(crate) fn typed(tenant: Value) -> McpTenant {
    serde_json::from_value(tenant).unwrap()
}

/// The tenant, validated.
pub(crate) fn validated(tenant: Value, settings: &Settings, observed: &Observed) -> ValidatedTenant {
    validate::validate(&typed(tenant), settings, observed).unwrap()
}

/// Settings with every option given.
pub(crate) fn settings() -> Settings {
    Settings {
        namespace: "control".into(),
        proxy_image: "images.example/sidecar:7".into(),
        proxy_metrics_namespace: Some("watchers".into()),
        canary: Some(([198, 51, 100, 9], 6443).into()),
        cluster_domain: "cluster.example".into(),
        ..defaults()
    }
}

/// Settings without any option.
pub(crate) fn defaults() -> Settings {
    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        settings: Settings,
    }
    <Cli as clap::Parser>::parse_from(["operator"]).settings
}

/// A cluster where both roots are known.
pub(crate) fn observed() -> Observed {
    let service = |namespace: &str, name: &str, selector: &[(&str, &str)], addresses: &[&str]| PeerService {
        namespace: namespace.into(),
        name: name.into(),
        selector: selector
            .iter()
            .map(|(key, value)| ((*key).into(), (*value).into()))
            .collect(),
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
    };
    Observed {
        servers_ca: Some(Pem::new(SERVERS_ROOT).unwrap()),
        agents_ca: Some(Pem::new(AGENTS_ROOT).unwrap()),
        token_keys: Some(IssuerKeys {
            issuer: "https://api.cluster.example".into(),
            keys: vec![json!({"kty": "OKP", "crv": "Ed25519", "kid": "a", "x": "AAAA"})],
        }),
        operator: Some(Operator::new(
            ([10, 96, 0, 3], control::PORT).into(),
            "bulkhead-operator.control.svc".into(),
            OPERATOR_ROOT.into(),
        )),
        pins: [("ledgers".to_owned(), pinned())].into(),
        shown: [].into(),
        issuers: [(
            "https://login.example.com/realms/umbra".to_owned(),
            IssuerState {
                keys: Some(vec![
                    json!({"kty": "OKP", "crv": "Ed25519", "kid": "b", "x": "BBBB"}),
                ]),
                problem: None,
            },
        )]
        .into(),
        services: vec![
            service(
                "stores",
                "rows",
                &[("app", "postgres"), ("role", "primary")],
                &["10.96.0.7", "fd00::7"],
            ),
            service("stores", "rows-headless", &[("app", "postgres")], &[]),
            service("stores", "all", &[("app", "postgres")], &["10.96.0.8"]),
            service("stores", "external", &[], &["10.96.0.9"]),
            service("stores", "queue", &[("app", "queue")], &["10.96.0.10"]),
            service("elsewhere", "rows", &[("app", "postgres")], &["10.96.0.11"]),
        ],
        runtime_classes: Some(
            [(
                "gvisor".to_owned(),
                Overhead {
                    cpu: "125m".parse().unwrap(),
                    memory: "48Mi".parse().unwrap(),
                    ephemeral_storage: Quantity::ZERO,
                },
            )]
            .into(),
        ),
        volume_claims: [
            ("ledgers-data".to_owned(), "1Gi".parse().unwrap()),
            ("ledgers-old".to_owned(), "3Gi".parse().unwrap()),
        ]
        .into(),
        cluster: ClusterRanges {
            pods: ["10.244.0.0/24".parse().unwrap()].into(),
            services: ["10.96.0.0/12".parse().unwrap()].into(),
            nodes: [
                "192.168.7.2/32".parse().unwrap(),
                "2001:db9::2/128".parse().unwrap(),
            ]
            .into(),
            api_server: ["192.168.9.9/32".parse().unwrap()].into(),
        },
        tenant_namespaces: ["penumbra".to_owned(), "penumbra-agents".to_owned()].into(),
    }
}
