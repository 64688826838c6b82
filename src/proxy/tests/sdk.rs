//! A real MCP client and a real MCP server (rmcp) on both sides, in both eras of the protocol.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::{Arc, Mutex};

use bulkhead_proxy::testing::{
    Setup, TestSidecar,
    client::connect_tls,
    sidecar::{HOST, TENANT_ID, spiffe},
};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use rmcp::{
    RoleClient, ServerHandler, Service,
    handler::server::{router::tool::ToolRouter, wrapper::Parameters},
    model::{CallToolRequestParams, ProtocolVersion},
    service::{ClientLifecycleMode, ClientServiceExt, RunningService},
    tool, tool_handler, tool_router,
    transport::{
        StreamableHttpClientTransport, StreamableHttpServerConfig, StreamableHttpService,
        UnixSocketHttpClient, streamable_http_client::StreamableHttpClientTransportConfig,
        streamable_http_server::session::local::LocalSessionManager,
    },
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::net::{TcpListener, UnixListener};

/// Arguments as the server sees them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
struct Arguments {
    tenant_id: String,
    limit: Option<u32>,
}

/// A server that trusts its arguments and remembers them.
#[derive(Clone)]
struct Ledger {
    asked: Arc<Mutex<Vec<Arguments>>>,
    router: ToolRouter<Self>,
}

#[tool_router(router = tools)]
impl Ledger {
    #[tool(description = "Lists invoices")]
    async fn list_invoices(&self, Parameters(arguments): Parameters<Arguments>) -> String {
        self.asked.lock().unwrap().push(arguments.clone());
        format!("invoices of {}", arguments.tenant_id)
    }

    #[tool(description = "Drops everything")]
    async fn drop_database(&self, Parameters(arguments): Parameters<Arguments>) -> String {
        self.asked.lock().unwrap().push(arguments);
        "dropped".to_owned()
    }
}

#[tool_handler(router = self.router)]
impl ServerHandler for Ledger {}

async fn serve_ledger(asked: Arc<Mutex<Vec<Arguments>>>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let service = TowerToHyperService::new(StreamableHttpService::new(
        move || {
            Ok(Ledger {
                asked: Arc::clone(&asked),
                router: Ledger::tools(),
            })
        },
        Arc::new(LocalSessionManager::default()),
        StreamableHttpServerConfig::default(),
    ));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service.clone());
            tokio::spawn(async move { drop(connection.await) });
        }
    });
    port
}

/// A unix socket whose every connection goes on over mTLS as this agent: how an SDK that can't
/// present a certificate gets one.
fn bridge(sidecar: &TestSidecar, agent: &str, folder: &std::path::Path) -> String {
    let path = folder.join(format!("{agent}.sock"));
    let listener = UnixListener::bind(&path).unwrap();
    let (address, ca, leaf) = (
        sidecar.address,
        sidecar.servers_ca.pem(),
        sidecar.agents_ca.client(&[&spiffe(agent)]),
    );
    tokio::spawn(async move {
        loop {
            let (mut plain, _) = listener.accept().await.unwrap();
            let mut tls = connect_tls(address, HOST, &ca, Some(&leaf), Some(b"http/1.1"))
                .await
                .unwrap();
            // How a copy ends is how its connections ended; the client sees that itself.
            tokio::spawn(async move { drop(tokio::io::copy_bidirectional(&mut plain, &mut tls).await) });
        }
    });
    path.to_str().unwrap().to_owned()
}

async fn connect(socket: &str, lifecycle: ClientLifecycleMode) -> RunningService<RoleClient, ()>
where
    (): Service<RoleClient>,
{
    let uri = format!("http://{HOST}/mcp");
    let transport = StreamableHttpClientTransport::with_client(
        UnixSocketHttpClient::new(socket, &uri),
        StreamableHttpClientTransportConfig::with_uri(uri.as_str()),
    );
    ().serve_with_lifecycle(transport, lifecycle)
        .await
        .expect("the handshake must succeed")
}

async fn use_it(lifecycle: ClientLifecycleMode) {
    let asked = Arc::default();
    let sidecar = TestSidecar::start(Setup::new(serve_ledger(Arc::clone(&asked)).await)).await;
    let folder = tempfile::tempdir().unwrap();
    let client = connect(&bridge(&sidecar, "billing", folder.path()), lifecycle).await;

    let tools = client.list_all_tools().await.unwrap();
    let names: Vec<_> = tools.iter().map(|tool| tool.name.as_ref()).collect();
    assert_eq!(names, ["list_invoices"]);
    assert!(
        !serde_json::to_string(&tools[0].input_schema)
            .unwrap()
            .contains("tenant_id")
    );

    let call = |tool: &'static str, arguments: serde_json::Value| {
        CallToolRequestParams::new(tool).with_arguments(arguments.as_object().unwrap().clone())
    };
    let result = client
        .call_tool(call("list_invoices", json!({"tenant_id": "globex", "limit": 3})))
        .await
        .unwrap();
    assert!(
        serde_json::to_string(&result)
            .unwrap()
            .contains(&format!("invoices of {TENANT_ID}"))
    );
    client
        .call_tool(CallToolRequestParams::new("list_invoices"))
        .await
        .unwrap();
    assert!(
        client
            .call_tool(call("drop_database", json!({"tenant_id": "globex"})))
            .await
            .is_err()
    );

    let forced = |limit| Arguments {
        tenant_id: TENANT_ID.to_owned(),
        limit,
    };
    assert_eq!(*asked.lock().unwrap(), [forced(Some(3)), forced(None)]);
    client.cancel().await.unwrap();
}

#[tokio::test]
async fn a_legacy_client_works_through_the_sidecar() {
    use_it(ClientLifecycleMode::Initialize).await;
}

#[tokio::test]
async fn a_modern_client_works_through_the_sidecar() {
    use_it(ClientLifecycleMode::Discover {
        preferred_versions: vec![ProtocolVersion::LATEST],
    })
    .await;
}
