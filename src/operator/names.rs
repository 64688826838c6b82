//! Names: of tenants, servers and agents (checked), of everything that is made for them, and the
//! labels, SPIFFE IDs and host names that follow from them.

use std::fmt::{self, Write as _};

use sha2::{Digest, Sha256};

/// Label that every object carries, with the value [`MANAGED_BY`].
pub const LABEL_MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Value of [`LABEL_MANAGED_BY`].
pub const MANAGED_BY: &str = "bulkhead";
/// Label with the name of the operator's own pods.
pub const LABEL_NAME: &str = "app.kubernetes.io/name";
/// Label with the tenant's name.
pub const LABEL_TENANT: &str = "bulkhead.dev/tenant";
/// Label with the server's name.
pub const LABEL_SERVER: &str = "bulkhead.dev/server";
/// Label with the agent's name.
pub const LABEL_AGENT: &str = "bulkhead.dev/agent";
/// Annotation of a namespace: the `RuntimeClass` of every pod in it, which a fence of the chart holds them to.
pub const ANNOTATION_RUNTIME_CLASS: &str = "bulkhead.dev/runtime-class";
/// Annotation of a pod template: the revision of the policy that its sidecar must enforce.
pub const ANNOTATION_POLICY_REVISION: &str = "bulkhead.dev/policy-revision";
/// Annotation of a pod: revision of what its server's network policy lets in and out.
pub const ANNOTATION_NETWORK_POLICY_REVISION: &str = "bulkhead.dev/network-policy-revision";
/// Label that Kubernetes keeps on every namespace: its name.
pub const LABEL_NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// `ResourceQuota` and `LimitRange` of both namespaces.
pub const QUOTA: &str = "bulkhead";
/// `NetworkPolicy` of both namespaces that denies everything to and from every pod.
pub const DEFAULT_DENY: &str = "default-deny";
/// `NetworkPolicy` of the agents' namespace: the tenant's servers and the cluster's DNS.
pub const AGENTS_POLICY: &str = "agents";
/// `RoleBinding` of the tenant's admins.
pub const ADMINS: &str = "bulkhead-admins";
/// `RoleBinding` of the tenant's developers.
pub const DEVELOPERS: &str = "bulkhead-developers";
/// `ClusterRole` of the chart for a tenant's admins.
pub const ADMIN_ROLE: &str = "bulkhead:tenant:admin";
/// `ClusterRole` of the chart for a tenant's developers.
pub const DEVELOPER_ROLE: &str = "bulkhead:tenant:developer";
/// What the names of the `ClusterRole`s begin with that let a tenant's people read their own `McpTenant`. The colon is in
/// no tenant's name, so none of them is one of the chart's.
const VIEW_ROLE_PREFIX: &str = "bulkhead:tenant:view:";
/// Self-signing Issuer of both namespaces: of the CA, and of the certificates whose keys alone are of use.
pub const SELF_SIGNED: &str = "selfsigned";
/// CA of the servers: Certificate, Secret and Issuer.
pub const SERVERS_CA: &str = "servers-ca";
/// CA of the agents: Certificate, Secret and Issuer.
pub const AGENTS_CA: &str = "agents-ca";
/// The operator's Service, and the label value of its pods.
pub const OPERATOR: &str = "bulkhead-operator";
/// `ConfigMap` with the root to trust for the other side.
pub const TRUST: &str = "bulkhead-trust";

/// A name that is no name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not a label of the kind that is needed, of at most so many characters.
    #[error("`{name}` must be {form}, at most {max} characters")]
    Syntax {
        /// The text.
        name: String,
        /// What is needed.
        form: &'static str,
        /// Longest name of this kind.
        max: usize,
    },
    /// Taken by Kubernetes or Bulkhead.
    #[error("`{0}` is reserved")]
    Reserved(String),
}

/// Whether a text is an RFC 1123 label of at most `max` characters.
pub(crate) fn is_label(text: &str, max: usize) -> bool {
    let bytes = text.as_bytes();
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    bytes.len() <= max
        && bytes.first().is_some_and(alphanumeric)
        && bytes.last().is_some_and(alphanumeric)
        && bytes.iter().all(|b| alphanumeric(b) || *b == b'-')
}

/// Whether a text is the value of a label: empty, or at most 63 characters.
pub(crate) fn is_label_value(text: &str) -> bool {
    let ends = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.is_empty()
        || (bytes.len() <= 63
            && ends(bytes.first())
            && ends(bytes.last())
            && bytes
                .iter()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')))
}

/// Whether a text is the key of a label: a name, perhaps after a DNS prefix and `/`.
pub(crate) fn is_label_key(text: &str) -> bool {
    let (prefix, name) = text
        .split_once('/')
        .map_or((None, text), |(prefix, name)| (Some(prefix), name));
    let prefixed =
        prefix.is_none_or(|prefix| prefix.len() <= 253 && prefix.split('.').all(|label| is_label(label, 63)));
    prefixed && !name.is_empty() && is_label_value(name)
}

/// Whether a text is an RFC 1035 label, which Services need: it starts with a letter.
fn is_service_label(text: &str, max: usize) -> bool {
    is_label(text, max) && !text.starts_with(|c: char| c.is_ascii_digit())
}

/// Whether a text is a label without `-`, so that `<server>-<volume>` names one claim.
fn is_plain_label(text: &str, max: usize) -> bool {
    is_label(text, max) && !text.contains('-')
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $max:expr, $form:expr, $check:expr, $reserved:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(String);

        impl $type {
            /// Longest name: everything made from it fits Kubernetes' limits.
            pub const MAX: usize = $max;

            /// A checked name.
            pub fn new(name: &str) -> Result<Self, NameError> {
                if !$check(name, Self::MAX) {
                    return Err(NameError::Syntax { name: name.to_owned(), form: $form, max: Self::MAX });
                }
                let reserved: fn(&str) -> bool = $reserved;
                if reserved(name) {
                    return Err(NameError::Reserved(name.to_owned()));
                }
                Ok(Self(name.to_owned()))
            }

            /// As text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// Name of a tenant. 56 characters: `<tenant>-agents` fits a namespace (63), `<tenant> servers` a common name (64).
    TenantName,
    56,
    "a DNS label (lower-case letters, digits and `-`)",
    is_label,
    |name| name == "default" || name.starts_with("kube-") || name.ends_with("-agents")
);
name!(
    /// Name of a server in its tenant. 40 characters, so that `<server>-<volume>` fits 63.
    ServerName,
    40,
    "a DNS label that starts with a letter",
    is_service_label,
    |name| matches!(name, "default" | "kubernetes")
);
name!(
    /// Name of an agent in its tenant.
    AgentName,
    40,
    "a DNS label (lower-case letters, digits and `-`)",
    is_label,
    |name| name == "default"
);
name!(
    /// Name of a volume in its server. It has no `-`, so that `<server>-<volume>` names one claim.
    VolumeName,
    22,
    "lower-case letters and digits",
    is_plain_label,
    |_| false
);

impl TenantName {
    /// Namespace of the tenant's servers.
    pub fn servers_namespace(&self) -> String {
        self.0.clone()
    }

    /// Namespace of the tenant's agents.
    pub fn agents_namespace(&self) -> String {
        format!("{}-agents", self.0)
    }

    /// `ClusterRole`, and its binding, for reading the tenant's own `McpTenant`.
    pub fn view_role(&self) -> String {
        format!("{VIEW_ROLE_PREFIX}{}", self.0)
    }

    /// The tenant's SPIFFE trust domain.
    pub fn trust_domain(&self, cluster_domain: &str) -> String {
        format!("{}.{cluster_domain}", self.0)
    }

    /// SPIFFE ID of a service account of the tenant.
    pub fn spiffe_id(&self, cluster_domain: &str, namespace: &str, service_account: &str) -> String {
        format!(
            "spiffe://{}/ns/{namespace}/sa/{service_account}",
            self.trust_domain(cluster_domain)
        )
    }
}

impl ServerName {
    /// Its `NetworkPolicy`.
    pub fn network_policy(&self) -> String {
        format!("server-{}", self.0)
    }

    /// Its Certificate, and the Secret that it fills.
    pub fn certificate(&self) -> String {
        format!("{}-tls", self.0)
    }

    /// The Certificate whose key seals its handles, and the Secret that it fills. No server's or agent's name has a dot.
    pub fn handles(&self) -> String {
        format!("{}.handles-tls", self.0)
    }

    /// The `ConfigMap` with its policy document.
    pub fn policy(&self) -> String {
        format!("{}-policy", self.0)
    }

    /// The claim of one of its persistent volumes.
    pub fn volume_claim(&self, volume: &VolumeName) -> String {
        format!("{}-{volume}", self.0)
    }

    /// Names under which clients reach it; the first is the one to use.
    pub fn hostnames(&self, tenant: &TenantName, cluster_domain: &str) -> [String; 3] {
        let namespace = tenant.servers_namespace();
        [
            format!("{}.{namespace}.svc", self.0),
            format!("{}.{namespace}.svc.{cluster_domain}", self.0),
            format!("{}.{namespace}", self.0),
        ]
    }
}

impl AgentName {
    /// The `NetworkPolicy` with its own egress.
    pub fn network_policy(&self) -> String {
        format!("agent-{}", self.0)
    }

    /// Its Certificate, and the Secret that it fills.
    pub fn certificate(&self) -> String {
        format!("{}-tls", self.0)
    }
}

/// The tenant whose [`TenantName::view_role`] has this name, by name alone.
pub fn viewed_tenant(role: &str) -> Option<&str> {
    role.strip_prefix(VIEW_ROLE_PREFIX)
}

/// What a claim is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClaimKind {
    /// A value of `spec.identity.tenantId`.
    TenantId,
    /// A namespace.
    Namespace,
    /// An issuer of persons' tokens and an audience of them.
    Audience,
}

impl ClaimKind {
    /// As it goes into the digest: never changed, or held claims are lost.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TenantId => "tenantId",
            Self::Namespace => "namespace",
            Self::Audience => "audience",
        }
    }
}

/// Name of the `ConfigMap` in the operator's namespace that claims a value: `claim-<sha256>` of the
/// kind, a NUL (in no kind, so that no two pairs have one digest) and the value.
pub fn claim_name(kind: ClaimKind, value: &str) -> String {
    let mut digest = Sha256::new();
    digest.update(kind.as_str());
    digest.update([0]);
    digest.update(value);
    let mut name = String::from("claim-");
    for byte in digest.finalize() {
        // Writing to a String can't fail.
        let _ = write!(name, "{byte:02x}");
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_from_the_tenant_and_server() {
        let tenant = TenantName::new("umbra").unwrap();
        let server = ServerName::new("notes").unwrap();
        assert_eq!(tenant.agents_namespace(), "umbra-agents");
        assert_eq!(tenant.view_role(), "bulkhead:tenant:view:umbra");
        assert_eq!(viewed_tenant(&tenant.view_role()), Some("umbra"));
        assert_eq!(
            tenant.spiffe_id("cluster.local", "umbra-agents", "scout"),
            "spiffe://umbra.cluster.local/ns/umbra-agents/sa/scout"
        );
        assert_eq!(
            server.hostnames(&tenant, "cluster.local"),
            ["notes.umbra.svc", "notes.umbra.svc.cluster.local", "notes.umbra"]
        );
    }

    #[test]
    fn names_that_kubernetes_or_bulkhead_would_confuse_are_refused() {
        for name in ["", "-a", "a-", "A", "a.b", "a_b", "ä", &"a".repeat(57)] {
            assert!(
                matches!(TenantName::new(name), Err(NameError::Syntax { .. })),
                "{name}"
            );
        }
        for name in ["default", "kube-system", "umbra-agents"] {
            assert_eq!(TenantName::new(name), Err(NameError::Reserved(name.into())));
        }
        assert!(matches!(ServerName::new("default"), Err(NameError::Reserved(_))));
        assert!(
            matches!(ServerName::new("1a"), Err(NameError::Syntax { .. })),
            "no name of a Service"
        );
        assert!(AgentName::new("1a").is_ok());
        assert!(
            matches!(VolumeName::new("a-b"), Err(NameError::Syntax { .. })),
            "`a-b-c` would name two claims"
        );
    }

    #[test]
    fn labels_are_told_from_what_kubernetes_would_refuse() {
        for key in ["app", "app.kubernetes.io/name", "A_b.c-1"] {
            assert!(is_label_key(key), "{key}");
        }
        for key in [
            "",
            "/a",
            "a/",
            "a/b/c",
            "-a",
            "a b",
            "Upper.example/a",
            &"k".repeat(64),
        ] {
            assert!(!is_label_key(key), "{key}");
        }
        assert!(is_label_value("") && is_label_value("v1.2_x"));
        assert!(!is_label_value("-") && !is_label_value("a b") && !is_label_value(&"v".repeat(64)));
    }

    #[test]
    fn no_tenants_role_is_one_of_the_charts() {
        for name in ["admin", "developer", "view"] {
            let role = TenantName::new(name).unwrap().view_role();
            assert!(![ADMIN_ROLE, DEVELOPER_ROLE].contains(&&*role), "{role}");
        }
        assert!(TenantName::new("view:admin").is_err());
        for role in [ADMIN_ROLE, DEVELOPER_ROLE, "bulkhead-operator"] {
            assert_eq!(viewed_tenant(role), None);
        }
    }

    #[test]
    fn every_name_fits_at_the_maxima() {
        let tenant = TenantName::new(&"t".repeat(TenantName::MAX)).unwrap();
        let server = ServerName::new(&"s".repeat(ServerName::MAX)).unwrap();
        let agent = AgentName::new(&"a".repeat(AgentName::MAX)).unwrap();
        let volume = VolumeName::new(&"v".repeat(VolumeName::MAX)).unwrap();
        for name in [
            tenant.agents_namespace(),
            server.network_policy(),
            server.certificate(),
            server.handles(),
            server.policy(),
            server.volume_claim(&volume),
            agent.network_policy(),
            agent.certificate(),
        ] {
            assert!(name.len() <= 63, "{name}");
        }
        assert!(
            format!("{tenant} servers").len() <= 64,
            "RFC 5280 upper bound of a common name"
        );
    }

    #[test]
    fn a_claim_is_the_digest_of_kind_and_value_apart() {
        // printf 'tenantId\0value' | sha256sum
        assert_eq!(
            claim_name(ClaimKind::TenantId, "value"),
            "claim-0ac62f2151284c86a588a128068bcf2ed276cfafefddfde652b4b8d3940bfdea"
        );
        assert_ne!(
            claim_name(ClaimKind::TenantId, "umbra"),
            claim_name(ClaimKind::Namespace, "umbra")
        );
    }
}
