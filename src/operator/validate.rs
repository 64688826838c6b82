//! Decides whether a tenant may be built: what the API's schema and CEL rules can't see
//! (references, quantities, expressions, ranges, the state of the cluster). All that is wrong is
//! told at once.

mod model;

use std::fmt;

pub use model::{
    Agent, Amounts, EgressPeer, EgressRule, Lifetime, PodPeer, Quota, Resources, Server, ValidatedTenant,
    Volume, VolumeSource,
};

/// One thing that is wrong with a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// What kind of wrong; stable.
    pub reason: Reason,
    /// Where: a path in the resource, for example `spec.servers[0].egress[1].to.cidr`.
    pub path: String,
    /// What, and what to do about it. Names no other tenant.
    pub message: String,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// Why a tenant is refused: the reason of `Accepted=False`. Part of the API, never renamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// A name isn't one, is reserved, or its derived names collide.
    InvalidName,
    /// Two things of the same name.
    DuplicateName,
    /// A value out of range or of the wrong form.
    InvalidValue,
    /// A text that must be a quantity isn't, or requests exceed limits.
    InvalidResources,
    /// Certificate lifetimes don't fit each other.
    InvalidCertificateLifetime,
    /// A reference to an attribute that doesn't exist.
    UnknownReference,
    /// Rules about arguments contradict each other or can't be read.
    InvalidToolRule,
    /// A regular expression doesn't compile.
    InvalidPattern,
    /// A peer or range that may not be dialled or let in.
    ForbiddenPeer,
    /// The servers need more than the quota gives.
    QuotaTooSmall,
    /// A reference to an object of Bulkhead's own.
    ReservedObject,
    /// The runtime class doesn't exist.
    RuntimeClassNotFound,
}

impl Reason {
    /// As it is in the condition.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidName => "InvalidName",
            Self::DuplicateName => "DuplicateName",
            Self::InvalidValue => "InvalidValue",
            Self::InvalidResources => "InvalidResources",
            Self::InvalidCertificateLifetime => "InvalidCertificateLifetime",
            Self::UnknownReference => "UnknownReference",
            Self::InvalidToolRule => "InvalidToolRule",
            Self::InvalidPattern => "InvalidPattern",
            Self::ForbiddenPeer => "ForbiddenPeer",
            Self::QuotaTooSmall => "QuotaTooSmall",
            Self::ReservedObject => "ReservedObject",
            Self::RuntimeClassNotFound => "RuntimeClassNotFound",
        }
    }
}
