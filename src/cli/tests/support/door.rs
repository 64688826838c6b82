//! A sidecar and its way in for local clients, in this process.

use std::sync::Arc;

use bulkhead_core::policy::document::Agent;
use bulkhead_proxy::{
    audit::AuditLog,
    testing::{RecordingUpstream, Reply},
};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use kubectl_bulkhead::{dev::sidecar::Sidecar, door, offline::Tenant};
use rmcp::{
    RoleClient,
    service::{ClientLifecycleMode, ClientServiceExt as _, RunningService},
    transport::{
        StreamableHttpClientTransport, UnixSocketHttpClient,
        streamable_http_client::StreamableHttpClientTransportConfig,
    },
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    net::{TcpListener, TcpStream, UnixListener},
    sync::watch,
};

/// What stands on this machine.
pub struct Here {
    /// A server that records what it saw.
    pub upstream: RecordingUpstream,
    /// Port of the way in.
    pub port: u16,
    server_port: u16,
    sidecar: Sidecar,
    folder: TempDir,
}

impl Here {
    /// A sidecar before the recording server.
    pub async fn start(tenant: &str, agent: &str) -> Self {
        let upstream = RecordingUpstream::start().await;
        let port = upstream.port();
        Self::with(tenant, agent, port, upstream).await
    }

    /// A sidecar before another server.
    pub async fn before(tenant: &str, agent: &str, server_port: u16) -> Self {
        Self::with(tenant, agent, server_port, RecordingUpstream::start().await).await
    }

    async fn with(tenant: &str, agent: &str, server_port: u16, upstream: RecordingUpstream) -> Self {
        let tenant = at(tenant, server_port);
        let policy = tenant.server(None).unwrap();
        let agent: &Agent = policy.agent(Some(agent)).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let sidecar = Sidecar::start(policy, AuditLog::to(std::io::sink()))
            .await
            .unwrap();
        let door = sidecar.door(policy, agent, port).unwrap();
        let doors = watch::Sender::new(Arc::new(door));
        tokio::spawn(async move { door::serve(listener, doors.subscribe()).await });
        Self {
            upstream,
            port,
            server_port,
            sidecar,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// Puts another version of the tenant in force.
    pub fn enforce(&self, tenant: &str) {
        let tenant = at(tenant, self.server_port);
        self.sidecar.enforce(tenant.server(None).unwrap()).unwrap();
    }

    /// Calls a tool.
    pub async fn call(&self, tool: &str, arguments: Value) -> Reply {
        self.call_with(tool, arguments, &[]).await
    }

    /// Calls a tool with more headers, or others.
    pub async fn call_with(&self, tool: &str, arguments: Value, headers: &[(&str, &str)]) -> Reply {
        let params = json!({"name": tool, "arguments": arguments});
        let message = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
        post(&format!("http://127.0.0.1:{}/mcp", self.port), &message, headers).await
    }

    /// A real client. Its SDK brings HTTP over unix sockets only, so one leads to the port.
    pub async fn connect(&self, lifecycle: ClientLifecycleMode) -> RunningService<RoleClient, ()> {
        let path = self.folder.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let port = self.port;
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let mut far = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                tokio::spawn(async move { drop(tokio::io::copy_bidirectional(&mut near, &mut far).await) });
            }
        });
        let uri = format!("http://127.0.0.1:{port}/mcp");
        let transport = StreamableHttpClientTransport::with_client(
            UnixSocketHttpClient::new(path.to_str().unwrap(), &uri),
            StreamableHttpClientTransportConfig::with_uri(uri.as_str()),
        );
        ().serve_with_lifecycle(transport, lifecycle)
            .await
            .expect("the handshake must succeed")
    }
}

fn at(tenant: &str, port: u16) -> Tenant {
    Tenant::parse(&tenant.replace("port: 3000", &format!("port: {port}"))).unwrap()
}

/// Posts a message as a client of 2025-06-18 does.
pub async fn post(url: &str, message: &Value, headers: &[(&str, &str)]) -> Reply {
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let mut request = Request::post(url)
        .header("content-type", "application/json")
        .header("accept", "application/json, text/event-stream")
        .header("mcp-protocol-version", "2025-06-18");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::from(message.to_string())).unwrap();
    let (parts, body) = client.request(request).await.unwrap().into_parts();
    Reply {
        status: parts.status,
        headers: parts.headers,
        body: body.collect().await.unwrap().to_bytes(),
    }
}
