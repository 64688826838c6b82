//! The agent's client against a real rmcp server behind real TLS: what it accepts, and what it refuses.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests are outside of #[test]"
)]

use std::{net::SocketAddr, path::Path, sync::Arc, vec};

use hyper_util::{
    client::legacy::connect::dns::Name,
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use kubectl_bulkhead::agent_call::{
    http::{MtlsClient, Resolver},
    report::Report,
    session::{self, Ask},
    tls,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use rmcp::{
    ErrorData, ServerHandler,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ListToolsResult,
        PaginatedRequestParams, ServerCapabilities, ServerConfig, Tool,
    },
    service::{RequestContext, RoleServer},
    transport::streamable_http_server::{
        StreamableHttpServerConfig, StreamableHttpService, session::local::LocalSessionManager,
    },
};
use rustls::{
    RootCertStore, ServerConfig as TlsServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tower::{BoxError, util::BoxCloneSyncService};

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

type Ca = CertifiedIssuer<'static, KeyPair>;

/// Each with a name of its own, as tenants' CAs have: an issuer that isn't trusted is then unknown, not forged.
fn ca(name: &str) -> Ca {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A leaf of this CA in PEM: certificate and key.
fn leaf(ca: &Ca, name: &str) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    (params.signed_by(&key, ca).unwrap().pem(), key.serialize_pem())
}

/// Echoes what it was asked, with the trace that came along.
#[derive(Clone)]
struct Echo;

impl ServerHandler for Echo {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let schema = json!({"type": "object"}).as_object().unwrap().clone();
        Ok(ListToolsResult::with_all_items(vec![Tool::new(
            "echo",
            "Echoes.",
            Arc::new(schema),
        )]))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        match &*request.name {
            "echo" => {
                let trace = context.meta.get_traceparent().map(ToOwned::to_owned);
                let echo = json!({"arguments": request.arguments, "trace": trace});
                Ok(CallToolResult::structured(echo).into())
            }
            "fail" => Ok(CallToolResult::error(vec![ContentBlock::text("out of bounds")]).into()),
            name => Err(ErrorData::invalid_params(format!("unknown tool {name}"), None)),
        }
    }
}

/// The ends of a connection and what each side believes.
struct World {
    servers_ca: Ca,
    agents_ca: Ca,
    /// The name in the server's certificate.
    server_name: &'static str,
    /// What the client trusts instead of the servers' CA.
    trusted: Option<Ca>,
    /// Who signed the client's certificate instead of the agents' CA.
    signer: Option<Ca>,
}

impl World {
    fn new() -> Self {
        Self {
            servers_ca: ca("acme servers"),
            agents_ca: ca("acme agents"),
            server_name: "crm.acme.svc",
            trusted: None,
            signer: None,
        }
    }

    async fn ask(&self, ask: Ask) -> Report {
        let dir = tempfile::tempdir().unwrap();
        let address = self.serve().await;
        let (certificate, key) = leaf(self.signer.as_ref().unwrap_or(&self.agents_ca), "billing");
        let trust = dir.path().join("ca.pem");
        std::fs::write(dir.path().join("tls.crt"), certificate).unwrap();
        std::fs::write(dir.path().join("tls.key"), key).unwrap();
        std::fs::write(&trust, self.trusted.as_ref().unwrap_or(&self.servers_ca).pem()).unwrap();
        let client = MtlsClient::new(tls::client_config(dir.path(), &trust).unwrap(), resolver(address));
        let url = format!("https://crm.acme.svc:{}/mcp", address.port());
        session::run(client, "t0ken", &url, ask, TRACE).await
    }

    async fn serve(&self) -> SocketAddr {
        let (certificate, key) = leaf(&self.servers_ca, self.server_name);
        let mut roots = RootCertStore::empty();
        roots.add(self.agents_ca.der().clone()).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone())
            .build()
            .unwrap();
        let mut tls = TlsServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
            )
            .unwrap();
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let config = StreamableHttpServerConfig::default().with_allowed_hosts(["crm.acme.svc"]);
        let service =
            StreamableHttpService::new(|| Ok(Echo), Arc::new(LocalSessionManager::default()), config);
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, service) = (acceptor.clone(), service.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let builder = auto::Builder::new(TokioExecutor::new());
                    let _ = builder
                        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service))
                        .await;
                });
            }
        });
        address
    }
}

fn resolver(address: SocketAddr) -> Resolver {
    BoxCloneSyncService::new(tower::service_fn(move |name: Name| async move {
        assert_eq!(name.as_str(), "crm.acme.svc");
        Ok::<vec::IntoIter<SocketAddr>, BoxError>(vec![address].into_iter())
    }))
}

fn call(tool: &str) -> Ask {
    Ask::Call {
        tool: tool.into(),
        arguments: json!({"limit": 3}).as_object().unwrap().clone(),
    }
}

#[tokio::test]
async fn a_call_over_mtls_has_its_arguments_and_its_trace() {
    let Report::Result { result } = World::new().ask(call("echo")).await else {
        panic!("no result")
    };
    assert_eq!(
        result["structuredContent"],
        json!({"arguments": {"limit": 3}, "trace": TRACE})
    );
}

#[tokio::test]
async fn the_tools_are_listed() {
    let Report::Result { result } = World::new().ask(Ask::List).await else {
        panic!("no result")
    };
    assert_eq!(result["tools"][0]["name"], "echo");
    assert_eq!(result["tools"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_tools_own_error_is_a_result() {
    let Report::Result { result } = World::new().ask(call("fail")).await else {
        panic!("no result")
    };
    assert_eq!(result["isError"], true);
}

#[tokio::test]
async fn a_json_rpc_error_is_a_refusal_with_its_code() {
    let Report::Refused { code, message, .. } = World::new().ask(call("hidden")).await else {
        panic!("no refusal")
    };
    assert_eq!((code, message.as_str()), (Some(-32_602), "unknown tool hidden"));
}

#[tokio::test]
async fn what_does_not_match_is_no_connection() {
    let table = [
        (
            World {
                trusted: Some(ca("globex servers")),
                ..World::new()
            },
            "UnknownIssuer",
        ),
        (
            World {
                server_name: "crm.globex.svc",
                ..World::new()
            },
            "not valid for name",
        ),
        (
            World {
                signer: Some(ca("globex agents")),
                ..World::new()
            },
            "alert",
        ),
    ];
    for (world, says) in table {
        let report = world.ask(call("echo")).await;
        let Report::CannotConnect { message } = &report else {
            panic!("{says}: {report:?}")
        };
        assert!(message.contains(says), "{says}: {message}");
    }
}

#[tokio::test]
async fn an_identity_that_is_no_certificate_is_told_before_connecting() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    std::fs::write(path("ca.pem"), ca("acme servers").pem()).unwrap();
    std::fs::write(path("tls.crt"), "not PEM").unwrap();
    std::fs::write(path("tls.key"), "not PEM").unwrap();
    assert!(tls::client_config(Path::new(dir.path()), &path("ca.pem")).is_err());
}
