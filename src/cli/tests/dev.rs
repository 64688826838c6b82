//! `dev`: the real sidecar before real servers, for clients without a certificate; and how a session begins and ends.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests are outside of #[test]"
)]

#[path = "support/door.rs"]
mod door;
#[path = "support/server.rs"]
mod server;

use std::{
    fs,
    net::TcpListener as StdTcpListener,
    path::PathBuf,
    process::{Output, Stdio},
    time::Duration,
};

use bulkhead_cluster::Port;
use door::{Here, post};
use http::StatusCode;
use rmcp::{
    model::{CallToolRequestParams, ProtocolVersion},
    service::ClientLifecycleMode,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

const ACME: &str = include_str!("../../../manifests/samples/acme.yaml");
const TENANT_ID: &str = "7f9c0d5e-1b7a-4c57-9f6e-2f3f0a1c0001";

/// Longest wait for something that must happen.
const PATIENCE: Duration = Duration::from_mins(1);

#[tokio::test]
async fn a_call_goes_upstream_as_the_agent_and_a_refused_one_does_not() {
    let here = Here::start(ACME, "billing").await;
    let reply = here
        .call("list_invoices", json!({"tenant_id": "globex", "limit": 5}))
        .await;
    assert_eq!(reply.status, StatusCode::OK);
    let arguments = json!({"tenant_id": TENANT_ID, "location_id": "nyc-01", "limit": 5});
    assert_eq!(here.upstream.only().arguments(), arguments);

    for tool in ["delete_invoice", "export_all"] {
        let reply = here.call(tool, json!({})).await;
        assert_eq!(reply.json()["error"]["message"], format!("Unknown tool: {tool}"));
    }
    let reply = here.call("list_invoices", json!({"limit": 101})).await;
    assert_eq!(reply.json()["result"]["isError"], true);
    assert_eq!(
        here.upstream.seen().len(),
        1,
        "nothing that was refused goes upstream"
    );
}

#[tokio::test]
async fn a_web_page_of_this_machines_browser_is_kept_out() {
    let here = Here::start(ACME, "billing").await;
    let port = here.port.to_string();
    for (name, value) in [
        ("origin", "https://evil.example".to_owned()),
        ("origin", "null".to_owned()),
        ("origin", "http://127.0.0.1:1".to_owned()),
        ("origin", format!("http://evil.example:{port}")),
        ("host", "evil.example".to_owned()),
        ("host", format!("evil.example:{port}")),
        ("host", "127.0.0.1:1".to_owned()),
    ] {
        let reply = here
            .call_with("list_invoices", json!({}), &[(name, &value)])
            .await;
        assert_eq!(reply.status, StatusCode::FORBIDDEN, "{name}: {value}");
    }
    assert!(here.upstream.seen().is_empty());
    for (name, value) in [
        ("host", format!("localhost:{port}")),
        ("origin", format!("http://localhost:{port}")),
        ("origin", format!("http://127.0.0.1:{port}")),
    ] {
        let reply = here
            .call_with("list_invoices", json!({}), &[(name, &value)])
            .await;
        assert_eq!(reply.status, StatusCode::OK, "{name}: {value}");
    }
}

#[tokio::test]
async fn another_policy_decides_the_next_call() {
    let here = Here::start(ACME, "billing").await;
    assert!(
        here.call("delete_invoice", json!({}))
            .await
            .json()
            .get("error")
            .is_some()
    );
    here.enforce(&ACME.replace("roles: [admin] #", "roles: [reader] #"));
    assert!(
        here.call("delete_invoice", json!({}))
            .await
            .json()
            .get("result")
            .is_some()
    );
    here.enforce(ACME);
    assert!(
        here.call("delete_invoice", json!({}))
            .await
            .json()
            .get("error")
            .is_some()
    );
    assert_eq!(here.upstream.seen().len(), 1);
}

#[tokio::test]
async fn a_real_client_without_a_certificate_works_in_both_eras() {
    let modern = ClientLifecycleMode::Discover {
        preferred_versions: vec![ProtocolVersion::LATEST],
    };
    for lifecycle in [ClientLifecycleMode::Initialize, modern] {
        let port = server::start().await;
        let here = Here::before(ACME, "billing", port).await;
        let client = here.connect(lifecycle).await;
        let tools = client.list_all_tools().await.unwrap();
        let names: Vec<_> = tools.iter().map(|tool| tool.name.as_ref()).collect();
        assert_eq!(names, ["list_invoices"]);
        assert!(!serde_json::to_string(&tools).unwrap().contains("tenant_id"));
        let result = client
            .call_tool(CallToolRequestParams::new("list_invoices"))
            .await
            .unwrap();
        assert_eq!(result.structured_content.unwrap()["tenant_id"], TENANT_ID);
        assert!(
            client
                .call_tool(CallToolRequestParams::new("export_all"))
                .await
                .is_err()
        );
        client.cancel().await.unwrap();
    }
}

/// Not a test of its own: the MCP server that the tests below give `dev` as its COMMAND.
#[tokio::test]
#[ignore = "a server that other tests start"]
async fn mcp_server() {
    if let Ok(port) = std::env::var("TEST_PORT") {
        server::serve(port.parse().unwrap()).await;
    }
}

/// A tenant's file whose server has a port of this test's own.
struct File {
    folder: TempDir,
    port: Port,
}

impl File {
    fn new() -> Self {
        let file = Self {
            folder: tempfile::tempdir().unwrap(),
            port: Port::reserve().unwrap(),
        };
        file.write(ACME);
        file
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("acme.yaml")
    }

    fn write(&self, text: &str) {
        fs::write(
            self.path(),
            text.replace("port: 3000", &format!("port: {}", self.port.number())),
        )
        .unwrap();
    }

    fn dev(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-bulkhead"));
        command.args(["dev", "-f"]).arg(self.path()).args(arguments);
        command.env("TEST_PORT", self.port.number().to_string());
        command
            .kill_on_drop(true)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }
}

async fn output(mut command: Command) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = timeout(PATIENCE, command.output()).await.unwrap().unwrap();
    (status.code(), String::from_utf8(stderr).unwrap())
}

/// The next line that has this in it.
async fn line(lines: &mut Lines<BufReader<ChildStdout>>, part: &str) -> String {
    let find = async {
        loop {
            let line = lines.next_line().await.unwrap().expect("the session must go on");
            if line.contains(part) {
                return line;
            }
        }
    };
    timeout(PATIENCE, find)
        .await
        .unwrap_or_else(|_| panic!("waited in vain for {part:?}"))
}

fn signal(session: &Child, signal: Signal) {
    let id = session
        .id()
        .and_then(|id| Pid::from_raw(i32::try_from(id).unwrap()))
        .unwrap();
    kill_process(id, signal).unwrap();
}

#[tokio::test]
async fn a_session_starts_its_server_follows_its_file_and_ends_with_ctrl_c() {
    let file = File::new();
    let this = std::env::current_exe().unwrap();
    let command = [
        "--agent",
        "billing",
        "--",
        this.to_str().unwrap(),
        "--ignored",
        "--exact",
        "mcp_server",
    ];
    let mut session = file.dev(&command).stderr(Stdio::inherit()).spawn().unwrap();
    let lines = &mut BufReader::new(session.stdout.take().unwrap()).lines();
    let url = line(lines, "acme/ledger, as agent billing").await;
    let url = url.split_whitespace().next().unwrap().to_owned();
    assert!(
        url.starts_with("http://127.0.0.1:") && url.ends_with("/mcp"),
        "{url}"
    );
    line(
        lines,
        "tools of billing: get_invoice, list_invoices, search_notes",
    )
    .await;
    line(lines, "the network is not checked").await;

    let call =
        |tool: &str| json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool}});
    post(&url, &call("export_all"), &[]).await;
    line(lines, "refuse  tools/call export_all  tool_unknown, by tools").await;
    post(&url, &call("search_notes"), &[]).await;
    line(lines, "permit  tools/call search_notes  by tools[search_notes]").await;

    file.write("a: [");
    let kept = line(lines, "stays in force").await;
    assert!(
        kept.starts_with("not changed policy ") && kept.contains("not YAML"),
        "{kept}"
    );
    post(&url, &call("search_notes"), &[]).await;
    line(lines, "permit  tools/call search_notes").await;

    file.write(&ACME.replace("name: search_notes", "name: find_notes"));
    line(lines, "tools of billing: find_notes, get_invoice, list_invoices").await;
    post(&url, &call("search_notes"), &[]).await;
    line(lines, "refuse  tools/call search_notes  tool_unknown").await;

    signal(&session, Signal::INT);
    let status = timeout(PATIENCE, session.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(130));
    StdTcpListener::bind(("127.0.0.1", file.port.number())).expect("the server must be gone");
}

#[tokio::test]
async fn a_session_ends_with_its_server() {
    for (script, code, says) in [
        ("exit 0", 0, "the server ended\n"),
        ("exit 3", 1, "exit status: 3"),
    ] {
        let (status, told) = output(File::new().dev(&["--agent=billing", "--", "sh", "-c", script])).await;
        assert_eq!(status, Some(code), "{told}");
        assert!(told.contains(says), "{told}");
    }
}

#[tokio::test]
async fn what_can_not_begin_says_why() {
    let file = File::new();
    let taken = StdTcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().port().to_string();
    let own = file.port.number().to_string();
    let nowhere = format!("nothing listens on 127.0.0.1:{own}");
    let table: [(&[&str], i32, &str); 7] = [
        (&["--agent=billing"], 6, &nowhere),
        (&[], 1, "name one: billing, ops"),
        (&["--agent=eve"], 4, "no agent eve; there is: billing, ops"),
        (
            &["--agent=billing", "--server=crm"],
            4,
            "no server crm; there is: ledger",
        ),
        (
            &["--agent=billing", "--port", &taken, "--", "true"],
            1,
            "is taken",
        ),
        (
            &["--agent=billing", "--port", &own, "--", "true"],
            1,
            "the MCP server's own",
        ),
        (
            &["--agent=billing", "--", "/nowhere/server"],
            1,
            "starting /nowhere/server",
        ),
    ];
    for (arguments, code, says) in table {
        let (status, told) = output(file.dev(arguments)).await;
        assert_eq!(status, Some(code), "{arguments:?} {told}");
        assert!(told.contains(says), "{says}: {told}");
    }
    let _server = StdTcpListener::bind(("127.0.0.1", file.port.number())).unwrap();
    let (status, told) = output(file.dev(&["--agent=billing", "--", "true"])).await;
    assert_eq!(status, Some(1));
    assert!(told.contains("something listens on"), "{told}");
}
