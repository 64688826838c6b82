//! Both halves over TLS: what the operator's half lets through, and what it ends.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use bulkhead_control::{
    ALPN, Parts, SidecarReport, Withheld,
    client::{self, ClientError},
    server::{self, Authority, Caller, Refused, Session, TurnedAway},
};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use http_body_util::{Empty, StreamBody};
use hyper::{body::Frame, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::sync::CancellationToken;

const HOST: &str = "operator.control.svc";

/// Knows who says `good`, for as long as it says, and tells parts to who reports `tell`.
#[derive(Clone)]
struct Known {
    told: u64,
    due: bool,
    reports: Arc<Mutex<Vec<SidecarReport>>>,
    turned_away: Arc<Mutex<Vec<TurnedAway>>>,
    good_for: Duration,
}

impl Authority for Known {
    type Session = Self;

    fn turned_away(&self, address: IpAddr, why: TurnedAway) {
        assert!(address.is_loopback());
        self.turned_away.lock().unwrap().push(why);
    }

    async fn admit(&self, caller: Caller) -> Result<Self, Refused> {
        assert_eq!(caller.certificates.len(), 1);
        match &*caller.token {
            "good" => Ok(self.clone()),
            "early" => Err(Refused::Later),
            _ => Err(Refused::Unknown),
        }
    }
}

impl Session for Known {
    fn expires(&self) -> SystemTime {
        SystemTime::now() + self.good_for
    }

    fn report(&mut self, report: SidecarReport) -> bool {
        let is_good = report.policy_revision != "bad";
        self.due = report.policy_revision == "tell";
        self.reports.lock().unwrap().push(report);
        is_good
    }

    async fn parts(&mut self) -> Parts {
        if !std::mem::take(&mut self.due) {
            return std::future::pending().await;
        }
        self.told += 1;
        Parts {
            number: self.told,
            ..Parts::default()
        }
    }
}

struct Operator {
    address: SocketAddr,
    root: rustls::pki_types::CertificateDer<'static>,
    reports: Arc<Mutex<Vec<SidecarReport>>>,
    turned_away: Arc<Mutex<Vec<TurnedAway>>>,
    stop: CancellationToken,
}

impl Operator {
    async fn start(good_for: Duration) -> Self {
        let pair = rcgen::generate_simple_self_signed(vec![HOST.to_owned()]).unwrap();
        let (chain, key) = (pair.cert.pem(), pair.signing_key.serialize_pem());
        let tls = server::server_config(aws_lc_rs::default_provider(), chain.as_bytes(), key.as_bytes());
        let tls = Arc::new(tls.unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let known = Known {
            told: 0,
            due: false,
            reports: Arc::default(),
            turned_away: Arc::default(),
            good_for,
        };
        let (reports, stop) = (Arc::clone(&known.reports), CancellationToken::new());
        let turned_away = Arc::clone(&known.turned_away);
        tokio::spawn(server::serve(
            listener,
            move || Arc::clone(&tls),
            known,
            stop.clone(),
        ));
        Self {
            address,
            root: pair.cert.der().clone(),
            reports,
            turned_away,
            stop,
        }
    }

    async fn dial(&self, with_certificate: bool) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = if with_certificate {
            let own = rcgen::generate_simple_self_signed(vec!["sidecar".to_owned()]).unwrap();
            let key = PrivateKeyDer::from_pem_slice(own.signing_key.serialize_pem().as_bytes()).unwrap();
            config
                .with_client_auth_cert(vec![own.cert.der().clone()], key)
                .unwrap()
        } else {
            config.with_no_client_auth()
        };
        config.alpn_protocols = vec![ALPN.to_vec()];
        let stream = TcpStream::connect(self.address).await?;
        TlsConnector::from(Arc::new(config))
            .connect(ServerName::try_from(HOST).unwrap(), stream)
            .await
    }

    /// Waits until so many were turned away, for these reasons.
    async fn turned(&self, expected: &[TurnedAway]) {
        for _ in 0..1000 {
            if *self.turned_away.lock().unwrap() == expected {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{:?}", self.turned_away.lock().unwrap());
    }

    async fn report(
        &self,
        token: &str,
        reports: impl Stream<Item = SidecarReport> + Send + 'static,
    ) -> Result<(), ClientError> {
        let stream = self.dial(true).await.unwrap();
        let mut call = client::call(stream, HOST, token, reports).await?;
        while call.parts().await?.is_some() {}
        Ok(())
    }
}

fn of(revision: &str) -> SidecarReport {
    SidecarReport {
        policy_revision: revision.to_owned(),
        ..SidecarReport::default()
    }
}

/// These, and then nothing more, without an end.
fn open(reports: Vec<SidecarReport>) -> impl Stream<Item = SidecarReport> + Send {
    stream::iter(reports).chain(stream::pending())
}

fn code(ended: Result<(), ClientError>) -> tonic::Code {
    match ended {
        Ok(()) => tonic::Code::Ok,
        Err(ClientError::Status(status)) => status.code(),
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test]
async fn who_is_known_is_heard_and_nobody_else() {
    let operator = Operator::start(Duration::from_hours(1)).await;
    let said = || operator.reports.lock().unwrap().len();
    for (token, reports, expected, heard) in [
        ("good", vec![of("1"), of("2")], tonic::Code::Ok, 2),
        ("bad", vec![of("3")], tonic::Code::Unauthenticated, 2),
        ("early", vec![of("3")], tonic::Code::Unavailable, 2),
        ("good", vec![of("bad")], tonic::Code::InvalidArgument, 3),
    ] {
        let ended = operator.report(token, stream::iter(reports)).await;
        assert_eq!((code(ended), said()), (expected, heard), "{token}");
    }
    let huge = SidecarReport {
        withheld: vec![
            Withheld {
                name: "n".repeat(1024),
                ..Withheld::default()
            };
            640
        ],
        ..SidecarReport::default()
    };
    assert_eq!(
        code(operator.report("good", open(vec![huge])).await),
        tonic::Code::OutOfRange
    );
    assert_eq!(said(), 3);
    // Without a certificate there is no connection: it ends before a byte comes.
    let ended = match operator.dial(false).await {
        Ok(mut stream) => stream.read_u8().await.map(drop),
        Err(error) => Err(error),
    };
    assert!(ended.unwrap_err().to_string().contains("CertificateRequired"));
    operator
        .turned(&[TurnedAway::Nonsense, TurnedAway::Handshake])
        .await;
}

#[tokio::test]
async fn parts_come_while_reports_go_on() {
    let operator = Operator::start(Duration::from_hours(1)).await;
    let (report, reports) = mpsc::unbounded_channel();
    let stream = operator.dial(true).await.unwrap();
    let reports = stream::unfold(reports, async |mut reports| {
        Some((reports.recv().await?, reports))
    });
    let mut call = client::call(stream, HOST, "good", reports).await.unwrap();
    for (number, revision) in [(0, "1"), (1, "tell"), (1, "2"), (2, "tell")] {
        report.send(of(revision)).unwrap();
        if revision == "tell" {
            assert_eq!(call.parts().await.unwrap().unwrap().number, number);
        }
    }
    drop(report);
    assert_eq!(call.parts().await.unwrap(), None);
    assert_eq!(operator.reports.lock().unwrap().len(), 4);
}

#[tokio::test]
async fn a_call_has_so_many_reports_in_a_while() {
    let operator = Operator::start(Duration::from_hours(1)).await;
    let many = (0..100).map(|n| of(&n.to_string())).collect();
    assert_eq!(
        code(operator.report("good", open(many)).await),
        tonic::Code::ResourceExhausted
    );
    let heard = operator.reports.lock().unwrap().len();
    assert!((20..25).contains(&heard), "{heard}");
    operator.turned(&[TurnedAway::TooMany]).await;
}

#[tokio::test]
async fn a_call_ends_well_with_its_proof_and_with_the_operator() {
    let operator = Operator::start(Duration::from_millis(200)).await;
    assert_eq!(
        code(operator.report("good", open(vec![of("1")])).await),
        tonic::Code::Ok
    );
    let operator = Operator::start(Duration::from_hours(1)).await;
    let stop = operator.stop.clone();
    let reports = Arc::clone(&operator.reports);
    tokio::spawn(async move {
        while reports.lock().unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        stop.cancel();
    });
    assert_eq!(
        code(operator.report("good", open(vec![of("1")])).await),
        tonic::Code::Ok
    );
}

#[tokio::test]
async fn a_call_ends_with_its_proof_also_when_nothing_is_taken_from_it() {
    let operator = Operator::start(Duration::from_millis(200)).await;
    let stream = operator.dial(true).await.unwrap();
    let (mut sender, connection) = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(0)
        .handshake(TokioIo::new(stream))
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    // A report, framed, after which there is something to take.
    let report = Bytes::from_static(b"\0\0\0\0\x06\x0a\x04tell");
    let reports = stream::iter([Ok::<_, Infallible>(Frame::data(report))]).chain(stream::pending());
    let request = http::Request::post(format!("https://{HOST}/bulkhead.control.v1.Control/Report"))
        .header("authorization", "Bearer good")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(StreamBody::new(reports))
        .unwrap();
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(
        (answer.status(), answer.headers().get("grpc-status")),
        (http::StatusCode::OK, None)
    );
    tokio::time::timeout(Duration::from_secs(30), connection)
        .await
        .expect("kept for ever")
        .unwrap()
        .ok();
}

#[tokio::test]
async fn who_makes_no_call_is_let_go() {
    let operator = Operator::start(Duration::from_hours(1)).await;
    let mut stream = operator.dial(true).await.unwrap();
    let mut read = Vec::new();
    // The server's own settings frame comes, and then the end.
    let _ = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut read))
        .await
        .expect("kept for ever");
    operator.turned(&[TurnedAway::Calls]).await;
}

#[tokio::test]
async fn a_connection_has_one_call_and_ends_with_it() {
    let operator = Operator::start(Duration::from_hours(1)).await;
    let stream = operator.dial(true).await.unwrap();
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    let mut code = async || {
        let request = http::Request::post(format!("https://{HOST}/bulkhead.control.v1.Control/Report"))
            .header("authorization", "Bearer bad")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Empty::<Bytes>::new())
            .unwrap();
        let answer = sender.send_request(request).await.unwrap();
        answer.headers()["grpc-status"].to_str().unwrap().to_owned()
    };
    for expected in [tonic::Code::Unauthenticated, tonic::Code::ResourceExhausted] {
        assert_eq!(code().await, (expected as i32).to_string());
    }
    operator.turned(&[TurnedAway::Calls]).await;
    drop(sender);
    tokio::time::timeout(Duration::from_secs(30), connection)
        .await
        .expect("kept for ever")
        .unwrap()
        .ok();
}

#[tokio::test]
async fn who_dials_too_often_or_brings_no_token_is_turned_away_and_counted() {
    let operator = Operator::start(Duration::from_hours(1)).await;
    let places: Vec<_> = futures::future::join_all((0..4).map(|_| operator.dial(true))).await;
    assert!(places.iter().all(Result::is_ok));
    assert!(operator.dial(true).await.is_err());
    operator.turned(&[TurnedAway::Crowded]).await;

    let operator = Operator::start(Duration::from_hours(1)).await;
    let stream = operator.dial(true).await.unwrap();
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    let request = http::Request::post(format!("https://{HOST}/bulkhead.control.v1.Control/Report"))
        .header("content-type", "application/grpc")
        .body(Empty::<Bytes>::new())
        .unwrap();
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.headers()["grpc-status"], "16");
    operator.turned(&[TurnedAway::NoToken]).await;
}
