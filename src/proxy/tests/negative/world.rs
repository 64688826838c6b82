//! What the good messages are sent in: a policy that permits all of them, a server that answers them, and real handles
//! of two agents.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bulkhead_core::{
    handles::{Handle, Handles},
    policy::document::{Callable, ElicitationMode, Resource},
};
use bulkhead_proxy::testing::{
    Answer, Client, Leaf, Protocol, RecordingUpstream, Reply, Seen, Setup, TestSidecar, sidecar::spiffe,
    upstream,
};
use serde_json::{Value, json};

use crate::{
    families::{Case, Fate},
    good::Good,
    why::Why,
};

const AGENTS: [&str; 2] = ["billing", "support"];

/// A sidecar, its server, and handles that it made.
pub struct World {
    pub upstream: RecordingUpstream,
    pub sidecar: TestSidecar,
    /// Each agent's certificate.
    leaves: [(&'static str, Leaf); 2],
    /// A connection that can be used again, and whose it is.
    open: Mutex<Option<(&'static str, Client)>>,
    minted: Vec<Minted>,
    /// Records that were looked at.
    known: AtomicUsize,
}

/// A handle: how cases write it, what the client has and what the server made.
struct Minted {
    written: String,
    sealed: String,
    own: String,
}

impl World {
    /// One for a message and what is made of it.
    pub async fn of(
        good: &Good,
        adjust: impl FnOnce(&mut Setup),
        answer: impl Fn(&Seen) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let upstream = RecordingUpstream::answering(answer).await;
        let mut setup = setup(upstream.port());
        adjust(&mut setup);
        let sidecar = TestSidecar::start(setup).await;
        let leaves = AGENTS.map(|agent| (agent, sidecar.agents_ca.client(&[&spiffe(agent)])));
        let minted = AGENTS
            .into_iter()
            .flat_map(|agent| mint(&sidecar, agent, good))
            .collect();
        Self {
            upstream,
            sidecar,
            leaves,
            open: Mutex::default(),
            minted,
            known: AtomicUsize::new(0),
        }
    }

    /// The certificate of the agent that sends a case.
    pub fn leaf(&self, case: &Case) -> &Leaf {
        let own = self.leaves.iter().find(|(agent, _)| *agent == case.agent);
        &own.expect("the policy has two agents").1
    }

    /// Sends a case with its handles in place.
    pub async fn send(&self, case: &Case) -> Reply {
        let open = self.open.lock().unwrap().take();
        let mut client = match open.filter(|(agent, _)| *agent == case.agent) {
            Some((_, client)) => client,
            None => self.sidecar.client_with(self.leaf(case), Protocol::Http1).await,
        };
        let headers: Vec<_> = case
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), self.sealed(value)))
            .collect();
        let headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let exchanged = client.exchange(case.http_method, &headers, self.body(case)).await;
        // The edge may close a connection of which it hasn't read all.
        if !matches!(case.fate, Fate::Refused(Why::Edge(_))) {
            *self.open.lock().unwrap() = Some((case.agent, client));
        }
        exchanged.unwrap()
    }

    /// The body of a case with its handles in place.
    pub fn body(&self, case: &Case) -> Vec<u8> {
        match std::str::from_utf8(&case.body) {
            Ok(text) => self.sealed(text).into(),
            Err(_) => case.body.clone(),
        }
    }

    /// A text with handles as clients have them.
    pub fn sealed(&self, text: &str) -> String {
        self.minted.iter().fold(text.to_owned(), |text, minted| {
            text.replace(&minted.written, &minted.sealed)
        })
    }

    /// A text with handles as the server made them.
    pub fn own(&self, text: &str) -> String {
        self.minted.iter().fold(text.to_owned(), |text, minted| {
            text.replace(&minted.written, &minted.own)
        })
    }

    /// Records since the last time, without those of what lists teach.
    pub fn new_records(&self) -> Vec<Value> {
        let mut records = self.sidecar.audit();
        let mut records = records.split_off(self.known.swap(records.len(), Ordering::Relaxed));
        records.retain(|record| record["record"] != "definition");
        records
    }
}

/// Handles of an agent as the sidecar makes them: `<billing's task>` is one.
fn mint(sidecar: &TestSidecar, agent: &str, good: &Good) -> Vec<Minted> {
    let cursor = |method: &str| Handle::Cursor {
        method: method.into(),
        value: "upstream-cursor".into(),
    };
    let state = |method: &str, name: &str| Handle::State {
        method: method.into(),
        name: name.into(),
        value: "upstream-state".into(),
    };
    let task = |tool: &str| Handle::Task {
        tool: tool.into(),
        id: "upstream-task".into(),
    };
    let event = || Handle::Event {
        id: "upstream-event".into(),
        expected: None,
        call: 0,
        run: 0,
    };
    // What is granted in `setup`, as such handles have it: roots and forms.
    let request = |granted: &str| Handle::Request {
        granted: granted.into(),
        id: "\"upstream-request\"".into(),
    };
    let (first, second) = ("upstream-session", "second-session");
    let name = good.name.unwrap_or_default();
    [
        ("session", first, Handle::Session(first.into())),
        ("second session", second, Handle::Session(second.into())),
        ("cursor", "", cursor(good.method)),
        ("cursor of another list", "", cursor("other/list")),
        ("state", "", state(good.method, name)),
        ("state of another method", "", state("other/method", name)),
        ("state of another name", "", state(good.method, "other")),
        ("task", "", task("list_invoices")),
        ("task of a lost tool", "", task("delete_invoice")),
        ("event", first, event()),
        ("event of the second session", second, event()),
        ("request", first, request("rf")),
        ("request of the second session", second, request("rf")),
        ("request of before", first, request("srf")),
    ]
    .into_iter()
    .map(|(what, session, handle)| {
        let owner = spiffe(agent);
        let handles = Handles::new(&*sidecar.shared.keyring, &owner, Some(session));
        Minted {
            written: format!("<{agent}'s {what}>"),
            sealed: handles.seal(&handle).expect("such a handle can be sealed"),
            own: handle.value().trim_matches('"').to_owned(),
        }
    })
    .collect()
}

/// A policy that permits all of them. `support` may do all that `billing` may, so that its handles are good in its hands.
fn setup(port: u16) -> Setup {
    let mut setup = Setup::new(port);
    let reader = || BTreeSet::from(["reader".to_owned()]);
    let admin = || BTreeSet::from(["admin".to_owned()]);
    let prompt = |name: &str, roles| Callable {
        name: name.into(),
        roles,
        forced: [].into(),
        bounds: [].into(),
        forbidden: [].into(),
        definitions: BTreeSet::new(),
        results: None,
    };
    setup.policy.agents[1].roles.extend(reader());
    setup.policy.tools[0].forbidden.insert("location_id".into());
    setup.policy.prompts = vec![prompt("greet", reader()), prompt("promote", admin())];
    let resource = |uri: &str, roles| Resource {
        uri: uri.into(),
        roles,
        forced: [].into(),
        results: None,
    };
    setup.policy.resources = vec![
        resource("docs://{page}", reader()),
        resource("secrets://{name}", admin()),
    ];
    let features = &mut setup.policy.client_features;
    (features.logging, features.roots) = (true, true);
    features.elicitation.insert(ElicitationMode::Form);
    setup.limits.body_bytes = 64 << 10;
    // Nothing changes here, and many sidecars run at once.
    (setup.limits.reload, setup.limits.canary) = (Duration::from_secs(1), Duration::from_millis(200));
    setup
}

/// A server that has everything.
pub fn server(request: &Seen) -> Answer {
    if request.method == "GET" {
        return Answer::events(vec![": hello\n\n".into()]);
    }
    if request.method == "DELETE" {
        return upstream::plain(request);
    }
    let message = request.json();
    let method = message["method"].as_str().unwrap_or_default();
    if method.is_empty() || method.starts_with("notifications/") {
        return Answer::Whole(202, vec![], String::new());
    }
    let answer = answer(&message);
    if method == "subscriptions/listen" {
        let acknowledged = acknowledged(&message["id"]);
        return Answer::events(vec![format!("data: {acknowledged}\n\ndata: {answer}\n\n")]);
    }
    Answer::json(&answer)
}

/// Its answer to a request.
pub fn answer(message: &Value) -> Value {
    let mut result = match message["method"].as_str().unwrap_or_default() {
        "initialize" => json!({
            "protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "s", "version": "1"}
        }),
        "tools/list" => json!({"tools": tools()}),
        "tools/call" => json!({"content": []}),
        "prompts/list" => json!({"prompts": [{"name": "greet"}]}),
        "prompts/get" => json!({"messages": []}),
        "resources/list" => json!({"resources": [{"uri": "docs://a", "name": "a"}]}),
        "resources/templates/list" => {
            json!({"resourceTemplates": [{"uriTemplate": "docs://{page}", "name": "pages"}]})
        }
        "resources/read" => json!({"contents": [{"uri": "docs://a", "text": "x"}]}),
        "completion/complete" => json!({"completion": {"values": []}}),
        "server/discover" => json!({"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}),
        "tasks/get" => json!({"taskId": "upstream-task", "status": "working"}),
        _ => json!({}),
    };
    if message["params"]["_meta"].is_object() {
        result["resultType"] = json!("complete");
        result["ttlMs"] = json!(0);
        result["cacheScope"] = json!("private");
    }
    json!({"jsonrpc": "2.0", "id": message["id"], "result": result})
}

/// The plain server's tools, of which arguments are mirrored in headers.
fn tools() -> Value {
    let mut tools = upstream::tools();
    let properties = &mut tools[0]["inputSchema"]["properties"];
    properties["region"] = json!({"type": "string", "x-mcp-header": "Region"});
    properties["tenant_id"]["x-mcp-header"] = json!("Tenant");
    tools
}

fn acknowledged(id: &Value) -> Value {
    json!({"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged", "params": {
        "notifications": {"toolsListChanged": true}, "_meta": {"io.modelcontextprotocol/subscriptionId": id}}})
}
