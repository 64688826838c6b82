//! What comes back holds what the rules of results leave, and no more.

use super::*;
use crate::json;

/// What a server says: records of several owners among its own words.
#[derive(Clone, Debug)]
pub struct Said {
    /// The raw owner, if the record has one, and something else of the record.
    records: Vec<(&'static str, String)>,
    shape: Shape,
}

/// In which form the server says it.
#[derive(Clone, Copy, Debug)]
enum Shape {
    /// As a structure, with a copy of it in a text.
    Structure,
    /// As a text alone.
    Text,
    /// One record, where a list could be.
    Single,
    Prose,
    ToolError,
    Error,
    Question,
    Task,
}

const OWNERS: [&str; 9] = [
    r#""acme""#,
    r#""acme""#,
    r#""\u0061cme""#,
    r#""globex""#,
    r#""ACME""#,
    r#""acme ""#,
    r#"["acme"]"#,
    "7",
    "",
];

pub fn said() -> impl Strategy<Value = Said> {
    let readable = |raw: &String| json::check(raw.as_bytes(), Limits::default()).is_ok();
    let other = json_text().prop_filter("no server writes it", readable);
    let records = prop::collection::vec((prop::sample::select(&OWNERS[..]), other), 0..4);
    let shapes = [
        Shape::Structure,
        Shape::Structure,
        Shape::Text,
        Shape::Single,
        Shape::Prose,
        Shape::ToolError,
        Shape::Error,
        Shape::Question,
        Shape::Task,
    ];
    (records, prop::sample::select(Vec::from(shapes))).prop_map(|(records, shape)| Said { records, shape })
}

impl Said {
    fn record(&self, index: usize) -> String {
        let (owner, other) = &self.records[index];
        let owner = if owner.is_empty() {
            String::new()
        } else {
            format!("\"tenant\" :{owner} ,")
        };
        format!("{{{owner}\"id\":\"mark-{index}\", \"o\":{other}}}")
    }

    fn structure(&self) -> String {
        let rows = match self.shape {
            Shape::Single if !self.records.is_empty() => self.record(0),
            _ => {
                let records: Vec<_> = (0..self.records.len()).map(|index| self.record(index)).collect();
                format!("[ {} ]", records.join(" , "))
            }
        };
        format!(r#"{{"total":3,"rows":{rows},"hint":"word-hint globex"}}"#)
    }

    /// The marks of the records that are `acme`'s own.
    fn own(&self) -> Vec<String> {
        let shown = if matches!(self.shape, Shape::Single) {
            1
        } else {
            self.records.len()
        };
        let records = self.records.iter().enumerate().take(shown);
        let own = records.filter(|(_, (owner, _))| !owner.is_empty() && parsed(owner) == json!("acme"));
        own.map(|(index, _)| format!("mark-{index}")).collect()
    }

    /// The server's answer to a message.
    pub fn answer(&self, ask: &Ask) -> String {
        if let Shape::Error = self.shape {
            return r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32011,"message":"word-error globex","data":{"tenant":"globex"}}}"#.into();
        }
        let params = &parsed(&ask.body)["params"];
        let result = match (self.shape, ask.method) {
            (Shape::Question, "tools/call" | "resources/read") => r#"{"resultType":"input_required","inputRequests":{"a":{"method":"elicitation/create","params":{"message":"word-asked globex"}}}}"#.into(),
            (Shape::Task, "tools/call") => format!(r#"{{"resultType":"task","taskId":"task-1","status":"working","statusMessage":"word-task globex","result":{}}}"#, self.called()),
            (_, "tools/call") => self.called(),
            (_, "tasks/get") => format!(r#"{{"resultType":"complete","taskId":"task-1","status":"completed","statusMessage":"word-task globex","result":{}}}"#, self.called()),
            (_, "resources/read") => self.contents(params["uri"].as_str().unwrap_or_default()),
            _ => listed(ask.method).to_string(),
        };
        format!(r#"{{"jsonrpc":"2.0","id":1,"result":{result}}}"#)
    }

    /// The result of a call.
    fn called(&self) -> String {
        let copy = json!(self.structure());
        let prose = r#"{"type":"text","text":"word-prose globex has one too"}"#;
        match self.shape {
            Shape::Text => format!(r#"{{"content":[{prose},{{"type":"text","text":{copy}}}]}}"#),
            Shape::Prose => format!(r#"{{"content":[{prose}]}}"#),
            Shape::ToolError => format!(
                r#"{{"content":[{prose}],"isError":true,"structuredContent":{}}}"#,
                self.structure()
            ),
            _ => format!(
                r#"{{"content":[{prose},{{"type":"text","text":{copy}}}],"structuredContent":{},"_meta":{{"x":"word-meta globex"}},"x":"word-more"}}"#,
                self.structure()
            ),
        }
    }

    fn contents(&self, uri: &str) -> String {
        let content = match self.shape {
            Shape::Prose => json!({"uri": uri, "text": "word-prose globex"}),
            Shape::ToolError => json!({"uri": uri, "blob": "Z2xvYmV4"}),
            _ => json!({"uri": uri, "text": self.structure(), "_meta": {"x": "word-more globex"}}),
        };
        format!(
            r#"{{"contents":[{content}],"resultType":"complete","_meta":{{"x":"word-meta globex"}},"ttlMs":9}}"#
        )
    }
}

/// Resources that a server lists.
const SHOWN: [(&str, &str); 4] = [
    ("docs://a", "word-a"),
    ("docs://b", "word-b"),
    ("crm://acme/7", "word-acme"),
    ("crm://globex/7", "word-globex"),
];

/// What a server lists, and what it says of itself: all that the rules could leave.
fn listed(method: &str) -> Value {
    let arguments = ["tenant", "n", "x", "y"];
    let properties = |name: &str| -> serde_json::Map<_, _> {
        let said =
            |argument: &str| json!({"type": "string", "description": format!("word-{name}-{argument}")});
        arguments
            .map(|argument| (argument.to_owned(), said(argument)))
            .into_iter()
            .collect()
    };
    let tool = |name: &str| {
        json!({"name": name, "description": format!("word-{name}"), "inputSchema": {"type": "object", "properties": properties(name)},
            "outputSchema": {"type": "object", "description": format!("word-{name}-out")}})
    };
    let prompt = |name: &str| json!({"name": name, "arguments": arguments.map(|argument| json!({"name": argument, "description": format!("word-{name}-{argument}")}))});
    let resource = |(uri, name)| json!({"uri": uri, "name": name});
    let template = |uri: &str| json!({"uriTemplate": uri, "name": format!("word-{}", uri.len())});
    let mut listed = match method {
        "tools/list" => json!({"tools": TOOLS.map(tool)}),
        "prompts/list" => json!({"prompts": PROMPTS.map(prompt)}),
        "resources/list" => json!({"resources": SHOWN.map(resource)}),
        "resources/templates/list" => json!({"resourceTemplates": RESOURCES.map(template)}),
        _ => json!({"x": "word-more", "protocolVersion": "2025-11-25", "supportedVersions": ["2026-07-28"],
            "capabilities": {"tools": {}, "prompts": {}, "resources": {"subscribe": true}, "completions": {}, "logging": {}}}),
    };
    listed["resultType"] = json!("complete");
    listed
}

/// What a server says and asks besides, in the legacy era.
pub const EVENTS: [&str; 9] = [
    r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"p","progress":1,"total":9,"message":"word-done"}}"#,
    r#"{"jsonrpc":"2.0","id":5,"method":"sampling/createMessage","params":{"messages":[],"systemPrompt":"word-asked"}}"#,
    r#"{"jsonrpc":"2.0","id":5,"method":"elicitation/create","params":{"message":"word-asked"}}"#,
    r#"{"jsonrpc":"2.0","id":5,"method":"elicitation/create","params":{"mode":"url","url":"https://a","message":"word-asked"}}"#,
    r#"{"jsonrpc":"2.0","id":5,"method":"roots/list","params":{"_meta":{"x":"word-asked"}}}"#,
    r#"{"jsonrpc":"2.0","id":5,"method":"ping","params":{"_meta":{"x":"word-asked"}}}"#,
    r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"word-log"}}"#,
    r#"{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":"docs://word-id","title":"word-title"}}"#,
    r#"{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":"crm://acme/word-id","title":"word-title"}}"#,
];

/// What becomes of a message of the server.
fn answered(policy: &CompiledPolicy, channel: Channel<'_>, message: &str) -> Answer {
    let body = Bytes::copy_from_slice(message.as_bytes());
    let inventory = Inventory::default();
    policy.answer(
        policy.agent("spiffe://acme/billing"),
        channel,
        &body,
        context(&inventory),
    )
}

/// The text that a client gets of it, if it gets any.
pub fn told(policy: &CompiledPolicy, channel: Channel<'_>, message: &str) -> Option<String> {
    let text = match answered(policy, channel, message) {
        Answer::Final(answer) => answer.body.to_vec(),
        Answer::Event(body) => body.to_vec(),
        Answer::Refused(refusal) => refusal.body().to_vec(),
        Answer::ListChanged | Answer::Dropped(_) => return None,
    };
    Some(String::from_utf8(text).unwrap())
}

/// The server's marks and words that a text holds, and the capabilities that it speaks of.
pub fn held(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
    let words = words.filter(|word| word.starts_with("mark-") || word.starts_with("word-"));
    let capabilities = parsed(text)["result"]["capabilities"].clone();
    let capabilities = capabilities
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, _)| key.clone());
    words.map(str::to_owned).chain(capabilities).collect()
}

/// A policy whose tool and resource are filtered by owner.
fn filtering() -> CompiledPolicy {
    let mut document = document();
    document["tools"] = json!([{"name": "t0", "roles": ["reader"], "results": parsed(RESULTS[3])}]);
    document["resources"] = json!([{"uri": "docs://a", "roles": ["reader"], "results": parsed(RESULTS[1])}]);
    document["clientFeatures"] =
        json!({"elicitation": ["form", "url"], "sampling": true, "roots": true, "logging": true});
    compile(&document)
}

/// A call of the filtered tool, a look at the task that it became, a read of the filtered resource.
fn filtered() -> impl Strategy<Value = Ask> {
    any::<bool>().prop_flat_map(|modern| {
        let is_filtered = |ask: &Ask| match ask.about {
            About::Tool("t0") => !ask.method.contains("cancel") && !ask.method.contains("update"),
            About::Covered { by: [0, ..], read } => read,
            _ => false,
        };
        prop::sample::select(asks(modern).into_iter().filter(is_filtered).collect::<Vec<_>>())
    })
}

proptest! {
    #[test]
    fn a_filtered_answer_is_the_agent_s_own_and_filtered_again_it_is_the_same(ask in filtered(), said in said()) {
        let policy = filtering();
        let permitted = ask.decided(&policy, &Inventory::default()).outcome.unwrap();
        let channel = Channel::Answer(permitted.expected().unwrap());
        let text = told(&policy, channel, &said.answer(&ask)).unwrap();
        prop_assert!(!text.contains("globex") && !text.contains("Z2xvYmV4"), "{}", text);
        let held: Vec<_> = held(&text).into_iter().collect();
        prop_assert!(held.is_empty() || held == said.own(), "{}", text);
        let Answer::Final(first) = answered(&policy, channel, &said.answer(&ask)) else { return Ok(()) };
        // What is refused for its bounds has no record; else all of the agent's own are there.
        if matches!(said.shape, Shape::Structure | Shape::Text | Shape::Single) && !first.failed {
            prop_assert_eq!(held, said.own(), "{}", text);
        }
        // A task's handle is the server's value to who reads it again, and is sealed once more.
        if !text.contains("sealed<") {
            let Answer::Final(second) = answered(&policy, channel, &text) else {
                return Err(TestCaseError::fail(format!("what was filtered is refused: {text}")));
            };
            prop_assert_eq!((second.body, second.failed), (first.body, first.failed));
            prop_assert!(second.records.is_none_or(|records| records.removed == 0));
        }
    }

    #[test]
    fn what_a_server_says_besides_has_no_word_of_its_own_where_something_is_filtered(ask in filtered(), event in prop::sample::select(&EVENTS[..])) {
        let policy = filtering();
        let permitted = ask.decided(&policy, &Inventory::default()).outcome.unwrap();
        for channel in [Channel::Answer(permitted.expected().unwrap()), Channel::Session(mcp::ProtocolVersion::LATEST_LEGACY)] {
            let text = told(&policy, channel, event).unwrap_or_else(|| "{}".to_owned());
            let held: Vec<_> = held(&text).into_iter().filter(|word| word != "word-id").collect();
            prop_assert!(held.is_empty(), "{}", text);
        }
    }
}
