//! Messages of a client, about everything that there are rules about.

use super::*;
use crate::{handles::Handle, mcp::headers::encode};

pub const TOOLS: [&str; 3] = ["t0", "t1", "t2"];
pub const PROMPTS: [&str; 2] = ["p0", "p1"];
pub const RESOURCES: [&str; 3] = ["docs://a", "docs://{id}", "crm://{tenant}/{id}"];

/// URIs that are asked for, and the resources above whose rules cover them.
const URIS: [(&str, &[usize]); 7] = [
    ("docs://a", &[0, 1]),
    ("docs://b", &[1]),
    ("crm://acme/7", &[2]),
    ("crm://globex/7", &[]),
    ("crm://acme/../globex", &[]),
    ("docs://{id}", &[1]),
    ("keys://a", &[]),
];

/// The same of what is completed: a template is known by what is forced in it.
const REFERENCES: [(&str, About); 4] = [
    ("docs://a", About::Completed(0)),
    ("docs://{id}", About::Completed(1)),
    ("crm://acme/{id}", About::Completed(2)),
    ("crm://{tenant}/{id}", About::Nothing),
];

const BILLING: &str = "spiffe://acme/billing";
const META: &str = r#""_meta":{"progressToken":"p"}"#;
const MODERN_META: &str = r#""_meta":{"progressToken":"p","io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":CAPABILITIES}"#;

/// What has to be allowed for a message to go up.
#[derive(Clone, Copy, Debug)]
pub enum About {
    /// Nothing has.
    Anyone,
    /// It never goes up.
    Nothing,
    Tool(&'static str),
    Prompt(&'static str),
    /// A resource that the rules of these resources cover.
    Covered {
        by: &'static [usize],
        read: bool,
    },
    /// Values for the variables of this resource.
    Completed(usize),
    Feature(&'static str),
}

/// A message of `billing`.
#[derive(Clone, Debug)]
pub struct Ask {
    pub modern: bool,
    pub method: &'static str,
    pub about: About,
    pub body: String,
    /// What of the protocol goes with it.
    pub headers: Vec<(String, String)>,
}

impl Ask {
    /// A message with these members of `params`, and the headers that belong to it.
    pub fn new(modern: bool, method: &'static str, params: &str) -> Self {
        Self::with(
            modern,
            method,
            params,
            r#"{"extensions":{"io.modelcontextprotocol/tasks":{}}}"#,
        )
    }

    /// The same of a client with these capabilities.
    pub fn with(modern: bool, method: &'static str, params: &str, capabilities: &str) -> Self {
        let comma = if params.is_empty() { "" } else { "," };
        let meta = if modern { MODERN_META } else { META }.replace("CAPABILITIES", capabilities);
        let mut body = request(method, &format!("{{{params}{comma}{meta}}}"));
        if method.starts_with("notifications/") {
            body = body.replacen(r#""id":1,"#, "", 1);
        }
        let version = if modern { "2026-07-28" } else { "2025-11-25" };
        let mut headers = vec![("mcp-protocol-version".to_owned(), version.to_owned())];
        let members: Value = serde_json::from_str(&format!("{{{params}}}")).unwrap_or_default();
        if modern {
            headers.push(("mcp-method".to_owned(), method.to_owned()));
            let name = ["name", "uri", "taskId"]
                .iter()
                .find_map(|key| members[*key].as_str());
            headers.extend(name.map(|name| ("mcp-name".to_owned(), encode(name).into_owned())));
        }
        Self {
            modern,
            method,
            about: About::Anyone,
            body,
            headers,
        }
    }

    fn about(self, about: About) -> Self {
        Self { about, ..self }
    }

    pub fn is_readable(&self) -> bool {
        mcp::read(&Bytes::from(self.body.clone()), Limits::default()).is_ok()
    }

    pub fn decided(&self, policy: &CompiledPolicy, inventory: &Inventory) -> Decision {
        let headers: Vec<_> = self
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        decide(policy, "billing", &headers, &self.body, inventory)
    }
}

/// Messages about everything that there may be rules about, in one era.
pub fn asks(modern: bool) -> Vec<Ask> {
    let mut asks = Vec::new();
    let mut ask = |method, params: &str, about| asks.push(Ask::new(modern, method, params).about(about));
    let only = |wanted: bool, about| if wanted == modern { about } else { About::Nothing };
    for name in ["t0", "t1", "t2", "t9", "p0"] {
        for arguments in ["{}", r#"{"x":"abc","n":7,"y":9}"#, r#"{"n":1,"y":1}"#] {
            ask(
                "tools/call",
                &format!(r#""name":"{name}","arguments":{arguments}"#),
                About::Tool(name),
            );
        }
    }
    for name in ["p0", "p1", "p9", "t0"] {
        for arguments in ["{}", r#"{"x":"abc","n":7,"y":9}"#] {
            ask(
                "prompts/get",
                &format!(r#""name":"{name}","arguments":{arguments}"#),
                About::Prompt(name),
            );
        }
        let completed = format!(
            r#""ref":{{"type":"ref/prompt","name":"{name}"}},"argument":{{"name":"x","value":"a"}},"context":{{"arguments":{{"n":"1"}}}}"#
        );
        ask("completion/complete", &completed, About::Prompt(name));
    }
    for (uri, by) in URIS {
        let params = format!(r#""uri":"{uri}""#);
        ask("resources/read", &params, About::Covered { by, read: true });
        for method in ["resources/subscribe", "resources/unsubscribe"] {
            ask(method, &params, only(false, About::Covered { by, read: false }));
        }
    }
    for (uri, about) in REFERENCES {
        let completed = format!(
            r#""ref":{{"type":"ref/resource","uri":"{uri}"}},"argument":{{"name":"id","value":"a"}}"#
        );
        ask("completion/complete", &completed, about);
    }
    for (tool, agent, about) in TOOLS
        .map(|tool| (tool, BILLING, About::Tool(tool)))
        .into_iter()
        .chain([("t0", "spiffe://acme/root", About::Nothing)])
    {
        let handle = Handle::Task {
            tool: tool.into(),
            id: "task-1".into(),
        };
        let sealed = Handles::new(&HERE, agent, Some("s-1")).seal(&handle).unwrap();
        let params = format!(r#""taskId":{},"inputResponses":{{}}"#, json!(sealed));
        for method in ["tasks/get", "tasks/update", "tasks/cancel"] {
            ask(method, &params, only(true, about));
        }
    }
    for method in [
        "tools/list",
        "prompts/list",
        "resources/list",
        "resources/templates/list",
    ] {
        ask(method, "", About::Anyone);
    }
    let uris = URIS.map(|(uri, _)| json!(uri).to_string()).join(",");
    let listens = format!(r#""notifications":{{"toolsListChanged":true,"resourceSubscriptions":[{uris}]}}"#);
    ask("subscriptions/listen", &listens, only(true, About::Anyone));
    ask("server/discover", "", only(true, About::Anyone));
    ask("ping", "", only(false, About::Anyone));
    ask(
        "logging/setLevel",
        r#""level":"info""#,
        only(false, About::Feature("logging")),
    );
    ask(
        "notifications/roots/list_changed",
        "",
        only(false, About::Feature("roots")),
    );
    ask(
        "initialize",
        r#""protocolVersion":"2025-11-25","clientInfo":{},"capabilities":{"roots":{},"sampling":{},"elicitation":{"form":{},"url":{}}}"#,
        only(false, About::Anyone),
    );
    ask("sampling/createMessage", "", About::Nothing);
    asks
}

/// Some of them, so that a case is fast: all cases together have each of them many times.
pub fn some_asks() -> impl Strategy<Value = Vec<Ask>> {
    let some = |modern, at| asks(modern).into_iter().skip(at).step_by(9).collect();
    (any::<bool>(), 0usize..9).prop_map(move |(modern, at)| some(modern, at))
}

/// The resources that an agent under these rules is told of, of those that a subscription above asks for.
pub fn told_of(rules: &Rules) -> Vec<&'static str> {
    let told = URIS
        .into_iter()
        .filter(|(_, by)| rules.allow(About::Covered { by, read: false }));
    told.map(|(uri, _)| uri).collect()
}
