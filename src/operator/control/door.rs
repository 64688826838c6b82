//! Who reports: the sidecar of a pod of a tenant's server, proven twice, by a token of that pod and by the server's
//! certificate.

use std::{net::IpAddr, sync::Arc, time::SystemTime};

use bulkhead_control::{
    Parts, SidecarReport,
    server::{Authority, Caller, Refused, Session, TurnedAway},
};
use bulkhead_core::control::AUDIENCE;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::{Api, Client, api::PostParams, runtime::reflector::ObjectRef};
use tracing::{debug, info, warn};

use super::{InForce, parts, proof, sidecars::Attached, sidecars::ServerRef};
use crate::{
    apply::{Owner, is_ours},
    cache::Report,
    context::Context,
    dereference::root,
    kinds::Kind,
    names::{SERVERS_CA, TenantName},
};

/// Where a token's review says which pod it is bound to (KEP-1205).
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// Knows sidecars by what the API server says and the watches hold.
pub struct Door {
    context: Arc<Context>,
}

/// Why a caller isn't known.
#[derive(Debug, thiserror::Error)]
enum Unknown {
    #[error("the API server doesn't know the token: {0}")]
    Token(String),
    #[error("the token is of {0}, not of a pod's service account")]
    NoPod(String),
    #[error("the namespace {0} is no tenant's")]
    NoTenant(String),
    #[error("the tenant has no CA of servers")]
    NoRoot,
    #[error(transparent)]
    Proof(#[from] proof::ProofError),
}

/// The pod that a token is of.
struct OfPod {
    namespace: String,
    account: String,
    uid: String,
}

impl Door {
    /// By these watches.
    pub fn new(context: Arc<Context>) -> Self {
        Self { context }
    }

    async fn review(client: &Client, token: String) -> Result<TokenReviewStatus, kube::Error> {
        let review = TokenReview {
            spec: TokenReviewSpec {
                audiences: Some(vec![AUDIENCE.to_owned()]),
                token,
            },
            ..TokenReview::default()
        };
        let reviewed = Api::<TokenReview>::all(client.clone())
            .create(&PostParams::default(), &review)
            .await?;
        Ok(reviewed.status.unwrap_or_default())
    }

    /// Whose sidecar it is: the server, the pod's UID, and until when that is proven. `Ok(None)`: the watches don't know the
    /// pod, or don't know it yet.
    fn identify(
        &self,
        review: TokenReviewStatus,
        caller: &Caller,
    ) -> Result<Option<(ServerRef, String, SystemTime)>, Unknown> {
        let OfPod {
            namespace,
            account,
            uid,
        } = of_pod(review)?;
        let context = &self.context;
        let no_tenant = || Unknown::NoTenant(namespace.clone());
        let name = TenantName::new(&namespace).map_err(|_| no_tenant())?;
        let tenant = context
            .tenants
            .get(&ObjectRef::new(&namespace))
            .ok_or_else(no_tenant)?;
        let tenant = tenant.0.as_ref().map_err(|_| no_tenant())?;
        let owner = Owner {
            name: &namespace,
            uid: tenant.metadata.uid.as_deref().unwrap_or_default(),
            namespaces: tenant.status.as_ref().map_or(&[], |status| &status.namespaces),
        };
        let live = context.cache.get(Kind::Namespace, &namespace, &namespace);
        if !live.is_some_and(|live| is_ours(&live, owner)) {
            return Err(no_tenant());
        }
        let pods = context.cache.of_kind(Kind::Pod, &namespace);
        let is_known = pods.iter().any(|live| {
            let Report::Pod(pod) = &live.report else {
                return false;
            };
            live.uid == uid && !pod.finished && pod.server.as_deref() == Some(&account)
        });
        if !is_known {
            return Ok(None);
        }
        let roots = root(&context.cache, &namespace, SERVERS_CA).ok_or(Unknown::NoRoot)?;
        let spiffe_id = name.spiffe_id(&context.settings.cluster_domain, &namespace, &account);
        let expires = proof::verify(&caller.certificates, &roots, &spiffe_id)?;
        let server = ServerRef {
            tenant: namespace,
            server: account,
        };
        Ok(Some((server, uid, expires)))
    }
}

fn of_pod(review: TokenReviewStatus) -> Result<OfPod, Unknown> {
    let is_ours = review
        .audiences
        .is_some_and(|audiences| audiences.iter().any(|audience| audience == AUDIENCE));
    if review.authenticated != Some(true) || !is_ours {
        return Err(Unknown::Token(review.error.unwrap_or_default()));
    }
    let user = review.user.unwrap_or_default();
    let username = user.username.unwrap_or_default();
    let uid = user.extra.and_then(|extra| match &extra.get(POD_UID)?[..] {
        [uid] => Some(uid.clone()),
        _ => None,
    });
    let account = username
        .strip_prefix("system:serviceaccount:")
        .and_then(|rest| rest.split_once(':'));
    match (account, uid) {
        (Some((namespace, account)), Some(uid)) => Ok(OfPod {
            namespace: namespace.to_owned(),
            account: account.to_owned(),
            uid,
        }),
        _ => Err(Unknown::NoPod(username)),
    }
}

impl Authority for Door {
    type Session = Reporting;

    fn turned_away(&self, address: IpAddr, why: TurnedAway) {
        self.context.metrics.sidecar_called(why.as_str());
        debug!(%address, why = why.as_str(), "turned away who would report");
    }

    async fn admit(&self, mut caller: Caller) -> Result<Reporting, Refused> {
        let token = std::mem::take(&mut caller.token);
        let review = match Self::review(&self.context.client, token).await {
            Ok(review) => review,
            Err(error) => {
                warn!(%error, "a sidecar's token can't be reviewed");
                self.context.metrics.sidecar_called("unreviewed");
                return Err(Refused::Later);
            }
        };
        match self.identify(review, &caller) {
            Ok(Some((server, pod, expires))) => {
                self.context.metrics.sidecar_called("admitted");
                info!(server.tenant, server.server, pod.uid = pod, "a sidecar reports");
                self.context.metrics.sidecars.inc();
                Ok(Reporting {
                    context: Arc::clone(&self.context),
                    attached: self.context.sidecars.attach(server, &pod),
                    expires,
                })
            }
            Ok(None) => {
                self.context.metrics.sidecar_called("pod_unknown");
                Err(Refused::Later)
            }
            Err(unknown) => {
                self.context.metrics.sidecar_called("refused");
                warn!(address = %caller.address, error = %unknown, "somebody who is no sidecar would report");
                Err(Refused::Unknown)
            }
        }
    }
}

/// A sidecar that reports.
pub struct Reporting {
    context: Arc<Context>,
    attached: Attached,
    expires: SystemTime,
}

impl Drop for Reporting {
    fn drop(&mut self) {
        self.context.metrics.sidecars.dec();
    }
}

impl Session for Reporting {
    fn expires(&self) -> SystemTime {
        self.expires
    }

    fn report(&mut self, mut report: SidecarReport) -> bool {
        let (number, usage) = (report.parts, std::mem::take(&mut report.usage));
        let (Some(in_force), Some(usage)) = (InForce::read(report), parts::read(usage)) else {
            return false;
        };
        self.attached.says(in_force);
        let server = self.attached.server();
        if let Some(tenant) = self.context.tenants.get(&ObjectRef::new(&server.tenant))
            && let Ok(tenant) = &tenant.0
        {
            let whole = parts::Whole::of(&tenant.spec, &server.server);
            self.attached.uses(whole, number, &usage);
        }
        true
    }

    async fn parts(&mut self) -> Parts {
        self.attached.parts().await
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::authentication::v1::UserInfo;

    use super::*;

    #[test]
    fn only_a_token_of_a_pod_for_this_audience_says_who_calls() {
        let review = |audience: &str, username: &str, uids: &[&str], authenticated| TokenReviewStatus {
            audiences: Some(vec![audience.to_owned()]),
            authenticated: Some(authenticated),
            error: None,
            user: Some(UserInfo {
                username: Some(username.to_owned()),
                extra: Some(
                    [(
                        POD_UID.to_owned(),
                        uids.iter().map(|uid| (*uid).to_owned()).collect(),
                    )]
                    .into(),
                ),
                ..UserInfo::default()
            }),
        };
        let account = "system:serviceaccount:umbra:notes";
        let good = of_pod(review(AUDIENCE, account, &["u"], true)).unwrap();
        assert_eq!(
            (&*good.namespace, &*good.account, &*good.uid),
            ("umbra", "notes", "u")
        );
        for bad in [
            review(AUDIENCE, account, &["u"], false),
            review("https://kubernetes.default.svc", account, &["u"], true),
            review(AUDIENCE, "system:node:a", &["u"], true),
            review(AUDIENCE, account, &[], true),
            review(AUDIENCE, account, &["u", "v"], true),
            TokenReviewStatus::default(),
        ] {
            assert!(of_pod(bad).is_err());
        }
    }
}
