//! The part of cert-manager's `v1` API that Bulkhead writes (Issuer, Certificate) and reads
//! (`CertificateRequest`). Their schema is cert-manager's.

use std::collections::BTreeMap;

use kube::CustomResource;
use serde::{Deserialize, Serialize};

/// API group of cert-manager.
pub const GROUP: &str = "cert-manager.io";

/// Annotation of a `CertificateRequest`: the Certificate that it was made for.
pub const CERTIFICATE_NAME_ANNOTATION: &str = "cert-manager.io/certificate-name";

/// Annotation of a `CertificateRequest`: the Certificate's revision that it was made for.
pub const CERTIFICATE_REVISION_ANNOTATION: &str = "cert-manager.io/certificate-revision";

/// Signs the certificates of its namespace: exactly one of its fields.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "cert-manager.io",
    version = "v1",
    kind = "Issuer",
    plural = "issuers",
    namespaced,
    schema = "disabled",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct IssuerSpec {
    /// Signs each certificate with its own key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub self_signed: Option<SelfSigned>,
    /// Signs with a CA's key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<Ca>,
}

/// Signs each certificate with its own key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SelfSigned {}

/// Signs with a CA's key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ca {
    /// Secret with the CA's certificate and key.
    pub secret_name: String,
}

/// A certificate to have and to renew, in a Secret.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "cert-manager.io",
    version = "v1",
    kind = "Certificate",
    plural = "certificates",
    namespaced,
    schema = "disabled",
    status = "CertificateStatus",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct CertificateSpec {
    /// Subject common name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub common_name: Option<String>,
    /// DNS names of the subject.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns_names: Vec<String>,
    /// URIs of the subject.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uris: Vec<String>,
    /// How long it is valid, as a Go duration.
    pub duration: String,
    /// How long before its end it is renewed, as a Go duration.
    pub renew_before: String,
    /// Whether it may sign others.
    #[serde(rename = "isCA", default, skip_serializing_if = "std::ops::Not::not")]
    pub is_ca: bool,
    /// What it is for, in cert-manager's words.
    pub usages: Vec<String>,
    /// Secret that it is kept in.
    pub secret_name: String,
    /// Labels of that Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_template: Option<SecretTemplate>,
    /// Its key.
    pub private_key: PrivateKey,
    /// Who signs it.
    pub issuer_ref: IssuerRef,
    /// How many of its past requests are kept.
    pub revision_history_limit: i32,
}

/// Metadata of a certificate's Secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretTemplate {
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// The key of a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PrivateKey {
    /// `ECDSA`, …
    pub algorithm: String,
    /// Bits.
    pub size: i32,
    /// `PKCS8` or `PKCS1`.
    pub encoding: String,
    /// `Always`: a new key with every renewal. `Never`: the same.
    pub rotation_policy: String,
}

/// The issuer of a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuerRef {
    /// Name.
    pub name: String,
    /// `Issuer` or `ClusterIssuer`.
    pub kind: String,
    /// API group of the kind.
    pub group: String,
}

/// State of a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateStatus {
    /// `Ready`, `Issuing`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// End of its validity, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<String>,
    /// When it is renewed next, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewal_time: Option<String>,
    /// Counts issuances.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<i64>,
}

/// One request for a signature; Bulkhead reads what was signed.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "cert-manager.io",
    version = "v1",
    kind = "CertificateRequest",
    plural = "certificaterequests",
    namespaced,
    schema = "disabled",
    status = "CertificateRequestStatus",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct CertificateRequestSpec {
    /// Who signs it.
    pub issuer_ref: RequestIssuerRef,
    /// Whether it asks for a CA certificate.
    #[serde(rename = "isCA", default, skip_serializing_if = "std::ops::Not::not")]
    pub is_ca: bool,
}

/// The issuer that a request names; all but the name may be left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestIssuerRef {
    /// Name.
    pub name: String,
    /// `Issuer` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// cert-manager's own when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
}

/// State of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateRequestStatus {
    /// `Approved`, `Ready`, …
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The signed certificate: base64 of PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
}

/// A condition of a cert-manager object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Type.
    #[serde(rename = "type")]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Why, in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why, for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The `metadata.generation` that it speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}
