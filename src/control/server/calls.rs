//! Calls: who makes one is asked once, then its reports are handed on, so many in a while, and it is told its parts.

use std::{
    net::IpAddr,
    num::NonZeroU32,
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime},
};

use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Request, Response, Status, Streaming};

use super::{Authority, Caller, PATIENCE, Peer, Refused, Session, TurnedAway};
use crate::{Parts, SidecarReport, generated::control_server::Control};

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
    type ReportStream = BoxStream<'static, Result<Parts, Status>>;

    async fn report(
        &self,
        request: Request<Streaming<SidecarReport>>,
    ) -> Result<Response<Self::ReportStream>, Status> {
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
        let guard = peer.over.clone().drop_guard();
        let Some(token) = bearer(&request) else {
            let status = Status::unauthenticated("a bearer token is missing");
            return turned_away(TurnedAway::NoToken, status);
        };
        let caller = Caller {
            address: peer.address,
            certificates: peer.certificates.to_vec(),
            token,
        };
        let session = match timeout(PATIENCE, self.authority.admit(caller)).await {
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
        let burst = NonZeroU32::new(REPORTS).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::with_period(REPORT_EVERY).unwrap_or(Quota::per_second(NonZeroU32::MIN));
        // Beside the call, of which nothing moves while its caller takes nothing: the connection ends as well.
        let over = peer.over.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = over.cancelled() => {}
                () = sleep(left.min(MAX_AGE)) => over.cancel(),
            }
        });
        let call = Call {
            authority: Arc::clone(&self.authority),
            address: peer.address,
            session,
            reports: request.into_inner(),
            pace: RateLimiter::direct(quota.allow_burst(burst)),
            over: peer.over,
            shutdown: self.shutdown.clone(),
            _guard: guard,
        };
        // What ends a call badly is the last that is said on it.
        let said = stream::unfold(Some(call), async |call| {
            let mut call = call?;
            match call.next().await {
                Ok(Some(parts)) => Some((Ok(parts), Some(call))),
                Ok(None) => None,
                Err(status) => Some((Err(status), None)),
            }
        });
        Ok(Response::new(said.boxed()))
    }
}

/// A call under way.
struct Call<A: Authority> {
    authority: Arc<A>,
    address: IpAddr,
    session: A::Session,
    reports: Streaming<SidecarReport>,
    pace: DefaultDirectRateLimiter,
    over: CancellationToken,
    shutdown: CancellationToken,
    _guard: DropGuard,
}

impl<A: Authority> Call<A> {
    /// Takes reports until there are parts to be told. `None`: the call is over.
    async fn next(&mut self) -> Result<Option<Parts>, Status> {
        loop {
            let report = tokio::select! {
                report = self.reports.message() => report?,
                parts = self.session.parts() => return Ok(Some(parts)),
                () = self.over.cancelled() => return Ok(None),
                () = self.shutdown.cancelled() => return Ok(None),
            };
            let Some(report) = report else {
                return Ok(None);
            };
            if self.pace.check().is_err() {
                self.authority.turned_away(self.address, TurnedAway::TooMany);
                return Err(Status::resource_exhausted("too many reports"));
            }
            if !self.session.report(report) {
                self.authority.turned_away(self.address, TurnedAway::Nonsense);
                return Err(Status::invalid_argument("not a report that a sidecar would make"));
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
