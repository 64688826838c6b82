//! One good message of each method that a client may send, in each era; the policy that permits it and the server that
//! answers it.

use std::collections::BTreeSet;

use bulkhead_core::{
    mcp::Era,
    policy::document::{Callable, Resource},
};
use bulkhead_proxy::testing::{Answer, Seen, Setup, upstream};
use serde_json::{Value, json};

/// A good message, in parts that a family spoils.
#[derive(Clone, Debug)]
pub struct Good {
    pub era: Era,
    pub method: &'static str,
    /// The members of `params` apart from `_meta`, as text.
    pub params: &'static str,
    /// What `Mcp-Name` mirrors.
    pub name: Option<&'static str>,
    /// Whether the method is a notification.
    pub notification: bool,
}

/// `_meta` of the modern era.
pub const META: &str = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;

const BOTH: [(&str, &str, Option<&str>); 8] = [
    (
        "tools/call",
        r#""name":"list_invoices","arguments":{"limit":5,"text":"x"}"#,
        Some("list_invoices"),
    ),
    ("tools/list", "", None),
    ("prompts/list", "", None),
    (
        "prompts/get",
        r#""name":"greet","arguments":{"text":"x"}"#,
        Some("greet"),
    ),
    ("resources/list", "", None),
    ("resources/templates/list", "", None),
    ("resources/read", r#""uri":"docs://a""#, Some("docs://a")),
    (
        "completion/complete",
        r#""ref":{"type":"ref/prompt","name":"greet"},"argument":{"name":"text","value":"x"}"#,
        None,
    ),
];

const LEGACY: [(&str, &str, Option<&str>); 5] = [
    (
        "initialize",
        r#""protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"c","version":"1"}"#,
        None,
    ),
    ("ping", "", None),
    ("resources/subscribe", r#""uri":"docs://a""#, Some("docs://a")),
    ("resources/unsubscribe", r#""uri":"docs://a""#, Some("docs://a")),
    ("logging/setLevel", r#""level":"info""#, None),
];

const MODERN: [(&str, &str, Option<&str>); 2] = [
    ("server/discover", "", None),
    (
        "subscriptions/listen",
        r#""notifications":{"toolsListChanged":true}"#,
        None,
    ),
];

/// All of them.
pub fn all() -> Vec<Good> {
    let make = |era| {
        move |(method, params, name): &(&'static str, &'static str, Option<&'static str>)| Good {
            era,
            method,
            params,
            name: *name,
            notification: false,
        }
    };
    let legacy = BOTH.iter().chain(&LEGACY).map(make(Era::Legacy));
    let modern = BOTH.iter().chain(&MODERN).map(make(Era::Modern));
    let initialized = Good {
        era: Era::Legacy,
        method: "notifications/initialized",
        params: "",
        name: None,
        notification: true,
    };
    legacy.chain(modern).chain([initialized]).collect()
}

impl Good {
    pub fn is_modern(&self) -> bool {
        self.era == Era::Modern
    }

    /// `params` with these members, and `_meta` where the era wants it.
    pub fn params_of(&self, members: &str) -> String {
        let meta = if self.is_modern() { META } else { "" };
        let comma = if members.is_empty() || meta.is_empty() {
            ""
        } else {
            ","
        };
        format!("{{{members}{comma}{meta}}}")
    }

    /// Its id member.
    pub fn id(&self) -> &'static str {
        if self.notification { "" } else { r#""id":7,"# }
    }

    /// Its body, with other members in `params`.
    pub fn with_params(&self, members: &str) -> String {
        body_of(
            self.id(),
            &format!("\"{}\"", self.method),
            &self.params_of(members),
        )
    }

    /// Its body.
    pub fn body(&self) -> String {
        self.with_params(self.params)
    }

    /// Its protocol headers.
    pub fn headers(&self) -> Vec<(String, String)> {
        let version = if self.is_modern() {
            "2026-07-28"
        } else {
            "2025-11-25"
        };
        let mut headers = vec![("mcp-protocol-version".to_owned(), version.to_owned())];
        if self.is_modern() {
            headers.push(("mcp-method".into(), self.method.into()));
            headers.extend(self.name.map(|name| ("mcp-name".to_owned(), name.to_owned())));
        }
        headers
    }
}

/// A body with this id member, method text and parameters.
pub fn body_of(id: &str, method: &str, params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0",{id}"method":{method},"params":{params}}}"#)
}

/// A policy that permits all of them.
pub fn setup(port: u16) -> Setup {
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
    setup.policy.client_features.logging = true;
    setup.limits.body_bytes = 64 << 10;
    setup
}

/// A server that has everything.
pub fn server(request: &Seen) -> Answer {
    let message = request.json();
    let method = message["method"].as_str().unwrap_or_default();
    let mut result = match method {
        "initialize" | "ping" => return upstream::plain(request),
        "tools/list" => json!({"tools": upstream::tools()}),
        "tools/call" => json!({"content": []}),
        "prompts/list" => json!({"prompts": [{"name": "greet"}]}),
        "prompts/get" => json!({"messages": []}),
        "resources/list" => json!({"resources": []}),
        "resources/templates/list" => json!({"resourceTemplates": []}),
        "resources/read" => json!({"contents": [{"uri": "docs://a", "text": "x"}]}),
        "completion/complete" => json!({"completion": {"values": []}}),
        "server/discover" => json!({"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}),
        method if method.starts_with("notifications/") => return upstream::plain(request),
        _ => json!({}),
    };
    if message["params"]["_meta"].is_object() {
        result["resultType"] = json!("complete");
        result["ttlMs"] = json!(0);
        result["cacheScope"] = json!("private");
    }
    let answer = json!({"jsonrpc": "2.0", "id": message["id"], "result": result});
    if method == "subscriptions/listen" {
        let acknowledged = acknowledged(&message["id"]);
        return Answer::events(vec![format!("data: {acknowledged}\n\ndata: {answer}\n\n")]);
    }
    Answer::json(&answer)
}

fn acknowledged(id: &Value) -> Value {
    json!({"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged", "params": {
        "notifications": {"toolsListChanged": true}, "_meta": {"io.modelcontextprotocol/subscriptionId": id}}})
}
