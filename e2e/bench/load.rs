//! The callers: connections that are kept, one request at a time on each.

use std::{
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use hdrhistogram::Histogram;
use http::{HeaderValue, Request, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    net::TcpStream,
    runtime::Builder,
    task::LocalSet,
    time::{Instant as Timer, sleep_until},
};
use tokio_rustls::TlsConnector;

use crate::call::{Form, HOST, REQUEST, VERSION};

/// Where calls go, and by what.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    /// TLS of the callers; none: plain HTTP.
    pub(crate) tls: Option<Arc<ClientConfig>>,
    /// `Authorization` of every request.
    pub(crate) authorization: HeaderValue,
    /// How answers come.
    pub(crate) form: Form,
    /// Whether a refusal (429) is an answer too, as to one that asks for too much.
    pub(crate) may_be_refused: bool,
}

/// How requests are spread over time.
#[derive(Clone, Copy)]
pub(crate) enum Pace {
    /// The next one when the answer has come.
    Closed,
    /// So many a second in all, whether answers come or not.
    Open(u32),
}

/// What a load showed.
pub(crate) struct Observed {
    /// Nanoseconds of each call.
    pub(crate) latencies: Histogram<u64>,
    pub(crate) elapsed: Duration,
    /// Key exchange and cipher suite of the connections.
    pub(crate) tls: String,
}

impl Observed {
    /// Calls a second.
    #[allow(clippy::cast_precision_loss, reason = "a rate for people")]
    pub(crate) fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.elapsed.as_secs_f64()
    }

    /// A quantile, in microseconds.
    #[allow(clippy::cast_precision_loss, reason = "a figure for people")]
    pub(crate) fn micros(&self, quantile: f64) -> f64 {
        self.latencies.value_at_quantile(quantile) as f64 / 1000.0
    }
}

/// Calls over so many connections for so long. Any answer but the right one ends the run: a wrong row is worse than none.
pub(crate) fn run(target: &Target, connections: u32, pace: Pace, length: Duration) -> Result<Observed> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, drive(target, connections, pace, length))
}

async fn drive(target: &Target, connections: u32, pace: Pace, length: Duration) -> Result<Observed> {
    let target = Rc::new(target.clone());
    let mut tls = String::new();
    let mut open = Vec::new();
    for _ in 0..connections {
        let (mut sender, described) = connect(&target).await?;
        tls = described;
        // Not counted: the first call makes a proxy connect to the server.
        call(&mut sender, &target).await?;
        open.push(sender);
    }
    let begin = Instant::now();
    let callers = open.into_iter().zip(0u32..).map(|(sender, number)| {
        let target = Rc::clone(&target);
        let schedule = match pace {
            Pace::Closed => None,
            Pace::Open(rate) => {
                let between = Duration::from_secs(1) * connections / rate;
                Some((begin + between * number / connections, between))
            }
        };
        tokio::task::spawn_local(caller(sender, target, schedule, begin + length))
    });
    let callers: Vec<_> = callers.collect();
    let mut latencies = histogram()?;
    for caller in callers {
        latencies.add(caller.await??)?;
    }
    Ok(Observed {
        latencies,
        elapsed: begin.elapsed(),
        tls,
    })
}

/// One minute at most, three significant digits.
fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 60_000_000_000, 3)?)
}

async fn caller(
    mut sender: SendRequest<Full<Bytes>>,
    target: Rc<Target>,
    schedule: Option<(Instant, Duration)>,
    end: Instant,
) -> Result<Histogram<u64>> {
    let mut latencies = histogram()?;
    let mut due = schedule.map(|(first, _)| first);
    loop {
        let mut begin = Instant::now();
        if let (Some(at), Some((_, between))) = (due, schedule) {
            if at > begin {
                sleep_until(Timer::from_std(at)).await;
                // A timer wakes a little late, which is nobody's latency.
                begin = Instant::now();
            } else {
                // The answer before came too late: this call has waited since it was due.
                begin = at;
            }
            due = Some(at + between);
        }
        if Instant::now() >= end {
            return Ok(latencies);
        }
        call(&mut sender, &target).await?;
        let nanoseconds = u64::try_from(begin.elapsed().as_nanos())?;
        latencies.record(nanoseconds.max(1))?;
    }
}

async fn connect(target: &Target) -> Result<(SendRequest<Full<Bytes>>, String)> {
    let stream = TcpStream::connect(target.address).await?;
    stream.set_nodelay(true)?;
    let Some(config) = &target.tls else {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::task::spawn_local(connection);
        return Ok((sender, "none".to_owned()));
    };
    let stream = TlsConnector::from(Arc::clone(config))
        .connect(ServerName::try_from(HOST)?, stream)
        .await
        .context("TLS handshake")?;
    let session = stream.get_ref().1;
    let group = session
        .negotiated_key_exchange_group()
        .map(rustls::crypto::SupportedKxGroup::name);
    let suite = session.negotiated_cipher_suite().map(|suite| suite.suite());
    let described = format!(
        "{:?}, {:?}",
        group.context("a group was agreed on")?,
        suite.context("a suite was agreed on")?
    );
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::task::spawn_local(connection);
    Ok((sender, described))
}

async fn call(sender: &mut SendRequest<Full<Bytes>>, target: &Target) -> Result<()> {
    let request = Request::post(target.form.path())
        .header(header::HOST, HOST)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ACCEPT, "application/json, text/event-stream")
        .header(header::AUTHORIZATION, &target.authorization)
        .header("mcp-protocol-version", VERSION)
        .body(Full::new(Bytes::from_static(REQUEST.as_bytes())))?;
    sender.ready().await?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    if status == 429 && target.may_be_refused {
        return Ok(());
    }
    ensure!(
        status == 200 && target.form.is_answer(&body),
        "HTTP {status}: {}",
        String::from_utf8_lossy(&body)
    );
    Ok(())
}
