//! A real MCP client and a real MCP server (rmcp) on both sides, in both eras of the protocol.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use bulkhead_core::policy::document::{Callable, Forced, Resource};
use bulkhead_proxy::probe::{self, Probe};
use bulkhead_proxy::testing::{
    Setup, TestSidecar,
    client::connect_tls,
    sidecar::{HOST, TENANT_ID, spiffe},
};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use rmcp::{
    ErrorData, RoleClient, RoleServer, ServerHandler, Service,
    handler::server::{router::tool::ToolRouter, wrapper::Parameters},
    model::{
        CallToolRequestParams, GetPromptRequestParams, GetPromptResponse, ListPromptsResult,
        ListResourceTemplatesResult, PaginatedRequestParams, ProtocolVersion, ReadResourceRequestParams,
        ReadResourceResponse, ServerConfig,
    },
    service::{ClientLifecycleMode, ClientServiceExt, RequestContext, RunningService},
    tool, tool_handler, tool_router,
    transport::{
        StreamableHttpClientTransport, StreamableHttpServerConfig, StreamableHttpService,
        UnixSocketHttpClient, streamable_http_client::StreamableHttpClientTransportConfig,
        streamable_http_server::session::local::LocalSessionManager,
    },
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
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

/// A result of the SDK, from the JSON that it is on the wire.
fn result<T: DeserializeOwned>(result: Value) -> Result<T, ErrorData> {
    serde_json::from_value(result).map_err(|error| ErrorData::internal_error(error.to_string(), None))
}

#[tool_handler(router = self.router)]
impl ServerHandler for Ledger {
    fn get_info(&self) -> ServerConfig {
        let capabilities = json!({"tools": {}, "prompts": {}, "resources": {}, "completions": {}});
        let mut info = ServerConfig::default();
        info.capabilities = serde_json::from_value(capabilities).unwrap();
        info
    }

    /// Two pages of one prompt each.
    async fn list_prompts(
        &self,
        request: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        match request.and_then(|request| request.cursor).as_deref() {
            None => result(json!({"prompts": [{"name": "purge"}], "nextCursor": "second"})),
            Some("second") => result(json!({"prompts": [
                {"name": "summary", "arguments": [{"name": "tenant_id"}, {"name": "style"}]}
            ]})),
            Some(other) => Err(ErrorData::invalid_params(format!("no page {other}"), None)),
        }
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        let text = format!("{} {}", request.name, json!(request.arguments));
        let message = json!({"role": "user", "content": {"type": "text", "text": text}});
        Ok(GetPromptResponse::Complete(result(
            json!({"messages": [message]}),
        )?))
    }

    async fn list_resource_templates(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        result(json!({"resourceTemplates": [
            {"uriTemplate": "crm://{tenant_id}/{id}", "name": "record"}, {"uriTemplate": "keys://{id}", "name": "key"}
        ]}))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let contents = json!({"contents": [{"uri": request.uri, "text": "a record"}]});
        Ok(ReadResourceResponse::Complete(result(contents)?))
    }
}

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

async fn connect(
    socket: &str,
    token: String,
    lifecycle: ClientLifecycleMode,
) -> RunningService<RoleClient, ()>
where
    (): Service<RoleClient>,
{
    let uri = format!("http://{HOST}/mcp");
    let transport = StreamableHttpClientTransport::with_client(
        UnixSocketHttpClient::new(socket, &uri),
        StreamableHttpClientTransportConfig::with_uri(uri.as_str()).auth_header(token),
    );
    ().serve_with_lifecycle(transport, lifecycle)
        .await
        .expect("the handshake must succeed")
}

async fn use_it(lifecycle: ClientLifecycleMode) {
    let asked = Arc::default();
    let mut setup = Setup::new(serve_ledger(Arc::clone(&asked)).await);
    let tenant = || [("tenant_id".to_owned(), Forced::String(TENANT_ID.into()))].into();
    setup.policy.prompts = vec![Callable {
        name: "summary".into(),
        roles: ["reader".to_owned()].into(),
        forced: tenant(),
        bounds: [].into(),
        forbidden: [].into(),
        definitions: [].into(),
        results: None,
    }];
    setup.policy.resources = vec![Resource {
        uri: "crm://{tenant_id}/{id}".into(),
        roles: ["reader".to_owned()].into(),
        forced: tenant(),
        results: None,
    }];
    setup.inventory = true;
    let sidecar = TestSidecar::start(setup).await;
    while probe::ask(&sidecar.admin_socket, Probe::Ready).await.is_err() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let known: BTreeSet<_> = sidecar
        .audit()
        .iter()
        .map(|record| [&record["protocolVersion"], &record["tool"], &record["prompt"]].map(Value::clone))
        .map(|named| json!(named).to_string())
        .collect();
    let expected = ["2025-11-25", "2026-07-28"].into_iter().flat_map(|version| {
        [
            json!([version, "list_invoices", null]),
            json!([version, null, "summary"]),
        ]
        .map(|named| named.to_string())
    });
    assert_eq!(known, expected.collect());
    let folder = tempfile::tempdir().unwrap();
    let token = sidecar.issuer.token(&spiffe("billing"));
    let client = connect(&bridge(&sidecar, "billing", folder.path()), token, lifecycle).await;

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
    use_what_is_no_tool(&client).await;
    client.cancel().await.unwrap();
}

async fn use_what_is_no_tool(client: &RunningService<RoleClient, ()>) {
    let prompts = client.list_all_prompts().await.unwrap();
    assert_eq!(
        json!(prompts),
        json!([{"name": "summary", "arguments": [{"name": "style"}]}])
    );
    let params = |value: Value| serde_json::from_value(value).unwrap();
    let asked = json!({"name": "summary", "arguments": {"tenant_id": "globex", "style": "short"}});
    let prompt = json!(client.get_prompt(params(asked)).await.unwrap()).to_string();
    assert!(
        prompt.contains(TENANT_ID) && prompt.contains("short") && !prompt.contains("globex"),
        "{prompt}"
    );
    assert!(client.get_prompt(params(json!({"name": "purge"}))).await.is_err());

    let templates = client.list_all_resource_templates().await.unwrap();
    let own = format!("crm://{TENANT_ID}");
    assert_eq!(
        json!(templates),
        json!([{"uriTemplate": format!("{own}/{{id}}"), "name": "record"}])
    );
    let uri = |uri: &str| serde_json::from_value(json!({"uri": uri})).unwrap();
    let read = client.read_resource(uri(&format!("{own}/7"))).await.unwrap();
    assert!(json!(read).to_string().contains("a record"));
    for hidden in ["crm://globex/7", "keys://7"] {
        assert!(client.read_resource(uri(hidden)).await.is_err(), "{hidden}");
    }
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
