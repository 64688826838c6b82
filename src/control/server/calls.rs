//! Calls: who makes one is asked once, then its reports are handed on, so many in a while.

use std::{
    num::NonZeroU32,
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime},
};

use governor::{Quota, RateLimiter};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::{Authority, Caller, PATIENCE, Peer, Refused, Session, TurnedAway};
use crate::{ReportEnd, SidecarReport, generated::control_server::Control};

/// For how long a call lasts at most: then the caller proves itself anew.
const MAX_AGE: Duration = Duration::from_mins(30);

/// Reports of one call in a while: some at once, as at a start, then one every three seconds.
const REPORTS: u32 = 20;
const REPORT_EVERY: Duration = Duration::from_secs(3);

/// The service.
pub(super) struct Calls<A> {
    authority: Arc<A>,
    shutdown: CancellationToken,
}

impl<A> Calls<A> {
    pub(super) fn new(authority: Arc<A>, shutdown: CancellationToken) -> Self {
        Self { authority, shutdown }
    }
}

#[tonic::async_trait]
impl<A: Authority> Control for Calls<A> {
    async fn report(
        &self,
        request: Request<Streaming<SidecarReport>>,
    ) -> Result<Response<ReportEnd>, Status> {
        let peer = request
            .extensions()
            .get::<Peer>()
            .cloned()
            .ok_or_else(|| Status::internal("a call without a connection"))?;
        let turned_away = |why, status| {
            self.authority.turned_away(peer.address, why);
            Err(status)
        };
        // Who calls costs the API server a review.
        if peer.has_called.swap(true, Ordering::Relaxed) {
            let status = Status::resource_exhausted("one call on a connection");
            return turned_away(TurnedAway::Calls, status);
        }
        let _over = peer.over.clone().drop_guard();
        let Some(token) = bearer(&request) else {
            let status = Status::unauthenticated("a bearer token is missing");
            return turned_away(TurnedAway::NoToken, status);
        };
        let caller = Caller {
            address: peer.address,
            certificates: peer.certificates.to_vec(),
            token,
        };
        let mut session = match timeout(PATIENCE, self.authority.admit(caller)).await {
            Ok(Ok(session)) => session,
            Ok(Err(Refused::Unknown)) => {
                return Err(Status::unauthenticated("not a sidecar that is known here"));
            }
            Ok(Err(Refused::Later)) => return Err(later()),
            Err(_) => return turned_away(TurnedAway::Slow, later()),
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
                let status = Status::resource_exhausted("too many reports");
                return turned_away(TurnedAway::TooMany, status);
            }
            if !session.report(report) {
                let status = Status::invalid_argument("not a report that a sidecar would make");
                return turned_away(TurnedAway::Nonsense, status);
            }
        }
    }
}

fn later() -> Status {
    Status::unavailable("it can't be said who calls; try again")
}

fn bearer<T>(request: &Request<T>) -> Option<String> {
    let value = request.metadata().get("authorization")?.to_str().ok()?;
    Some(value.strip_prefix("Bearer ")?.to_owned())
}
