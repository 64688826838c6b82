//! Calls: who makes one is asked once, then its reports are handed on, so many in a while.

use std::{
    num::NonZeroU32,
    sync::atomic::Ordering,
    time::{Duration, SystemTime},
};

use governor::{Quota, RateLimiter};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::{Authority, Caller, PATIENCE, Peer, Refused, Session};
use crate::{ReportEnd, SidecarReport, generated::control_server::Control};

/// For how long a call lasts at most: then the caller proves itself anew.
const MAX_AGE: Duration = Duration::from_mins(30);

/// Reports of one call in a while: some at once, as at a start, then one every three seconds.
const REPORTS: u32 = 20;
const REPORT_EVERY: Duration = Duration::from_secs(3);

/// The service.
pub(super) struct Calls<A> {
    authority: A,
    shutdown: CancellationToken,
}

impl<A> Calls<A> {
    pub(super) fn new(authority: A, shutdown: CancellationToken) -> Self {
        Self { authority, shutdown }
    }
}

#[tonic::async_trait]
impl<A: Authority> Control for Calls<A> {
    async fn report(
        &self,
        request: Request<Streaming<SidecarReport>>,
    ) -> Result<Response<ReportEnd>, Status> {
        let peer = peer(&request)?;
        let _over = peer.over.clone().drop_guard();
        let caller = caller(peer, &request)?;
        let mut session = match timeout(PATIENCE, self.authority.admit(caller)).await {
            Ok(Ok(session)) => session,
            Ok(Err(Refused::Unknown)) => {
                return Err(Status::unauthenticated("not a sidecar that is known here"));
            }
            Ok(Err(Refused::Later)) | Err(_) => {
                return Err(Status::unavailable("it can't be said who calls; try again"));
            }
        };
        let left = session
            .expires()
            .duration_since(SystemTime::now())
            .unwrap_or_default();
        let over = sleep(left.min(MAX_AGE));
        let mut over = std::pin::pin!(over);
        let burst = NonZeroU32::new(REPORTS).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::with_period(REPORT_EVERY).unwrap_or(Quota::per_second(NonZeroU32::MIN));
        let pace = RateLimiter::direct(quota.allow_burst(burst));
        let mut reports = request.into_inner();
        loop {
            let report = tokio::select! {
                report = reports.message() => report?,
                () = &mut over => return Ok(Response::new(ReportEnd {})),
                () = self.shutdown.cancelled() => return Ok(Response::new(ReportEnd {})),
            };
            let Some(report) = report else {
                return Ok(Response::new(ReportEnd {}));
            };
            if pace.check().is_err() {
                return Err(Status::resource_exhausted("too many reports"));
            }
            if !session.report(report) {
                return Err(Status::invalid_argument("not a report that a sidecar would make"));
            }
        }
    }
}

/// The connection of a call, which has no other: who is asked about costs the API server a review.
fn peer<T>(request: &Request<T>) -> Result<&Peer, Status> {
    let peer = request
        .extensions()
        .get::<Peer>()
        .ok_or_else(|| Status::internal("a call without a connection"))?;
    if peer.has_called.swap(true, Ordering::Relaxed) {
        return Err(Status::resource_exhausted("one call on a connection"));
    }
    Ok(peer)
}

fn caller<T>(peer: &Peer, request: &Request<T>) -> Result<Caller, Status> {
    let token = request
        .metadata()
        .get("authorization")
        .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "))
        .ok_or_else(|| Status::unauthenticated("a bearer token is missing"))?;
    Ok(Caller {
        address: peer.address,
        certificates: peer.certificates.to_vec(),
        token: token.to_owned(),
    })
}
