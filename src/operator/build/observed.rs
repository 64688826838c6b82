//! What was read from the cluster before a tenant is validated and built.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use bulkhead_core::{control::Operator, mcp::Pins, tokens::IssuerKeys};

use crate::{control::Shown, issuers::IssuerState, quantity::Quantity, ranges::ClusterRanges};

/// What was read from the cluster. The default is knowing nothing, as when rendering offline.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Root of the servers' CA, which agents trust. None: not issued yet.
    pub servers_ca: Option<Pem>,
    /// Root of the agents' CA, which sidecars trust. None: not issued yet.
    pub agents_ca: Option<Pem>,
    /// The keys that verify the tokens of the agents' service accounts. None: not known yet.
    pub token_keys: Option<IssuerKeys>,
    /// Where the operator is, for sidecars. None: it has no Service.
    pub operator: Option<Operator>,
    /// What the tenant's servers are held to, by name.
    pub pins: BTreeMap<String, Pins>,
    /// What sidecars say that their servers showed first, by name, of pods with the servers' present images.
    pub shown: BTreeMap<String, Vec<Shown>>,
    /// What is known of the issuers of persons' tokens that the tenant names, by `iss`.
    pub issuers: BTreeMap<String, IssuerState>,
    /// Services of the namespaces that servers may dial.
    pub services: Vec<PeerService>,
    /// The cluster's runtime classes, and what each adds to a pod. None: not known, and not checked.
    pub runtime_classes: Option<BTreeMap<String, Overhead>>,
    /// The tenant's persistent volume claims, by name, and what they request: also those that it no longer declares.
    pub volume_claims: BTreeMap<String, Quantity>,
    /// Addresses of the cluster's own; for a tenant that names none, nothing.
    pub cluster: ClusterRanges,
    /// Namespaces of other tenants.
    pub tenant_namespaces: BTreeSet<String>,
}

/// What a runtime class adds to what a pod is limited to: a quota counts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overhead {
    /// CPU.
    pub cpu: Quantity,
    /// Memory.
    pub memory: Quantity,
    /// Ephemeral storage.
    pub ephemeral_storage: Quantity,
}

/// Certificates in PEM, and nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pem(String);

/// A text that isn't certificates in PEM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a PEM bundle of certificates only")]
pub struct PemError;

impl Observed {
    /// Whether everything is known by which a tenant's pods tell friend from foe.
    pub fn trust_is_known(&self) -> bool {
        self.servers_ca.is_some() && self.agents_ca.is_some() && self.token_keys.is_some()
    }
}

impl Pem {
    /// A checked bundle. A private key in it is refused: it would be published.
    pub fn new(text: &str) -> Result<Self, PemError> {
        let mut found = false;
        for block in x509_parser::pem::Pem::iter_from_buffer(text.as_bytes()) {
            let block = block.map_err(|_| PemError)?;
            block.parse_x509().map_err(|_| PemError)?;
            if block.label != "CERTIFICATE" {
                return Err(PemError);
            }
            found = true;
        }
        if found {
            Ok(Self(text.to_owned()))
        } else {
            Err(PemError)
        }
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A Service in a namespace that servers may dial.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PeerService {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Labels of the pods behind it.
    pub selector: BTreeMap<String, String>,
    /// Its cluster addresses; none for a headless Service.
    pub addresses: Vec<IpAddr>,
}
