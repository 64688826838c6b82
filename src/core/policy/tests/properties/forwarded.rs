//! What goes upstream is the caller's message as it was decided, in both eras, and the headers say what it says.

use std::sync::Arc;

use super::*;
use crate::mcp::{
    Fingerprint, ProtocolVersion,
    headers::{decode, encode},
    input_schema::InputSchema,
    inventory::{Learned, Listing, ToolFacts},
    mirrors::{self, Mirror},
};

/// Rules that change something in every kind of message.
fn rewriting() -> CompiledPolicy {
    let mut document = document();
    document["prompts"] = json!([
        {"name": "summary", "roles": ["reader"], "forced": {"tenant": {"string": "acme"}, "n": {"int": 7}}},
    ]);
    document["resources"] = json!([{"uri": "docs://{id}", "roles": ["reader"]}]);
    document["clientFeatures"] = json!({"elicitation": ["form"]});
    compile(&document)
}

/// What a client says that it can, and what of it goes up under these rules.
const CAPABILITIES: [(&str, &str); 4] = [
    ("{}", "{}"),
    (r#"{ "elicitation" : {} }"#, r#"{"elicitation":{}}"#),
    (
        r#"{"elicitation":{"form":{},"url":{}},"sampling":{}}"#,
        r#"{"elicitation":{"form":{}}}"#,
    ),
    (r#"{"roots":{"listChanged":true},"experimental":{"x":1}}"#, "{}"),
];

/// Texts beside ASCII, which headers carry encoded, and such that look encoded.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-zé ü]{0,4}",
        any::<String>(),
        Just("=?base64?eA==?=".to_owned()),
        Just(" a\t".to_owned())
    ]
    .prop_map(|text| json!(text).to_string())
}

/// What tools are called with: what is mirrored has a value that a header can carry, as a rule.
fn called() -> impl Strategy<Value = String> {
    let scalar = || {
        prop_oneof![
            text(),
            "-?[0-9]{1,3}(\\.[0-9]{1,2})?(e[0-9])?",
            Just("true".to_owned()),
            json_text()
        ]
    };
    let limit = prop_oneof![4 => "[0-9]{1,2}(\\.0|e0)?", 1 => json_text()];
    let member = |name: &'static str, value: BoxedStrategy<String>| {
        prop::option::of(value).prop_map(move |value| value.map(|value| format!("\"{name}\":{value}")))
    };
    let members = (
        member("tenant", scalar().boxed()),
        member("limit", limit.boxed()),
        member(
            "at",
            scalar().prop_map(|value| format!("{{\"n\":{value}}}")).boxed(),
        ),
        member("x", json_text().boxed()),
    );
    let members = members.prop_map(|(a, b, c, d)| {
        let members: Vec<_> = [a, b, c, d].into_iter().flatten().collect();
        format!("{{{}}}", members.join(" , "))
    });
    prop_oneof![3 => members, 1 => arguments()]
}

/// A message whose `params` have something that doesn't belong there, and what is left of it.
fn message(eras: impl Strategy<Value = bool>) -> impl Strategy<Value = (Ask, Value)> {
    let kinds = prop::sample::select(
        &[
            ("tools/call", r#""name":"list","#),
            ("tools/call", r#""name":"placed","#),
            ("tools/call", r#""name":"free","#),
            ("prompts/get", r#""name":"summary","#),
            (
                "completion/complete",
                r#""argument":{"name":"style","value":"a"},"ref":{"type":"ref/prompt","name":"summary"},"#,
            ),
            ("resources/read", r#""uri":"docs://ü","#),
            ("tools/list", ""),
            (
                "subscriptions/listen",
                r#""notifications":{"toolsListChanged":true,"x":1,"resourceSubscriptions":["docs://a","keys://a"]},"#,
            ),
            ("initialize", r#""clientInfo":{},"protocolVersion":"2025-06-18","#),
        ][..],
    );
    let arguments =
        prop::option::of(prop_oneof![3 => called().boxed(), 1 => Just("null".to_owned()).boxed()]);
    let given = (
        arguments,
        prop::option::of(json_text()),
        prop::sample::select(&CAPABILITIES[..]),
        eras,
    );
    (kinds, given).prop_map(|((method, named), (arguments, foreign, (has, kept), modern))| {
        let mut members = vec![named.trim_end_matches(',').to_owned()];
        if let Some(arguments) = &arguments {
            members.push(match method {
                "completion/complete" => format!("\"context\":{{ \"arguments\" : {arguments} }}"),
                _ => format!("\"arguments\" : {arguments}"),
            });
        }
        members.extend((method == "initialize").then(|| format!("\"capabilities\":{has}")));
        members.extend(foreign.map(|foreign| format!("\"vendor\":{foreign}")));
        members.retain(|member| !member.is_empty());
        let ask = Ask::with(modern, method, &members.join(","), has);
        let expected = expected(&ask, method, kept);
        (ask, expected)
    })
}

/// What goes up of a message if it does, said without the words of the policy.
fn expected(ask: &Ask, method: &str, capabilities: &str) -> Value {
    let mut expected: Value = serde_json::from_str(&ask.body).unwrap_or_default();
    let Some(params) = expected["params"].as_object_mut() else {
        return expected;
    };
    params.remove("vendor");
    if !matches!(method, "tools/call" | "prompts/get") {
        params.remove("arguments");
    }
    let forced = match params.get("name").and_then(Value::as_str) {
        _ if method == "completion/complete" => json!({"tenant": "acme", "n": "7"}),
        Some("list") => json!({"tenant": "acme"}),
        Some("placed") => json!({"place": "nyc \"01\"", "n": 7, "b": true}),
        Some("summary") => json!({"tenant": "acme", "n": "7"}),
        _ => Value::Null,
    };
    let params = &mut expected["params"];
    if let Value::Object(forced) = forced {
        let context = if method == "completion/complete" {
            &mut params["context"]
        } else {
            &mut *params
        };
        if context["arguments"].is_null() {
            context["arguments"] = json!({});
        }
        if let Some(arguments) = context["arguments"].as_object_mut() {
            arguments.extend(forced);
        }
    }
    if method == "subscriptions/listen" {
        params["notifications"] = json!({"toolsListChanged": true, "resourceSubscriptions": ["docs://a"]});
    }
    if method == "initialize" {
        params["capabilities"] = parsed(capabilities);
    }
    if ask.modern {
        params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = parsed(capabilities);
    }
    expected
}

/// An inventory in which these tools have mirrored arguments, one of them forced.
fn mirrored() -> Inventory {
    let mirrors = || {
        [
            (&["tenant"][..], "Tenant"),
            (&["limit"], "Limit"),
            (&["at", "n"], "N"),
        ]
        .map(|(path, header)| Mirror {
            path: path.iter().map(|step| (*step).to_owned()).collect(),
            header: header.into(),
        })
    };
    let learned = ["list", "free"].map(|name| Learned {
        listing: Listing::Tools,
        version: ProtocolVersion::V20260728,
        name: name.into(),
        fingerprint: Fingerprint::of("{}"),
        facts: Ok(Some(Arc::new(ToolFacts {
            mirrors: mirrors().into(),
            schema: InputSchema::compile("{}").unwrap(),
        }))),
    });
    Inventory::default().learning(&learned).unwrap()
}

/// The message with the headers that a client writes from it.
fn mirroring(ask: &Ask, inventory: &Inventory) -> Ask {
    let mut ask = ask.clone();
    let body = Bytes::from(ask.body.clone());
    if let Ok(message) = mcp::read(&body, Limits::default())
        && let Some(params) = message.params()
        && let Some(Ok(facts)) = params.text("name").and_then(|name| inventory.tool(&name, &[]))
    {
        ask.headers
            .extend(mirrors::headers_of(&facts.mirrors, params.get("arguments")));
    }
    ask
}

/// Whether the text of a header is the value of an argument: `None` has no header.
fn says(header: Option<&str>, value: &Value) -> bool {
    match (header, value) {
        (None, Value::Null | Value::Array(_) | Value::Object(_)) => true,
        (Some(header), Value::String(text)) => decode(header).is_ok_and(|decoded| decoded == text.as_str()),
        (Some(header), Value::Number(_) | Value::Bool(_)) => {
            serde_json::from_str::<Value>(header).ok().as_ref() == Some(value)
        }
        _ => false,
    }
}

proptest! {
    #[test]
    fn what_goes_up_is_what_was_decided((ask, expected) in message(any::<bool>())) {
        prop_assume!(ask.is_readable());
        let (policy, inventory) = (rewriting(), mirrored());
        let ask = mirroring(&ask, &inventory);
        let decision = ask.decided(&policy, &inventory);
        let Ok(permitted) = &decision.outcome else { return Ok(()) };
        let sent = outcome(&decision).unwrap();

        // Read by someone else, it is the caller's message with what is forced and without what isn't granted, and no more.
        let params = &expected["params"];
        prop_assert_eq!(&parsed(&sent), &expected);
        // What is decided on, answered and signed is what that message says.
        prop_assert_eq!(permitted.method().map(crate::mcp::methods::Method::name), expected["method"].as_str());
        let name = ["name", "uri"].iter().find_map(|key| params[*key].as_str());
        if ask.method != "completion/complete" {
            prop_assert_eq!(permitted.expected().unwrap().name(), name);
            prop_assert_eq!(decision.target.as_ref().map(Target::name), name);
        }
        let body = permitted.body();
        let again = mcp::read(body, Limits::default()).unwrap();
        let raw = again.params().and_then(|params| params.get("arguments"));
        let digest = (ask.method == "tools/call").then(|| crate::credential::digest(raw.filter(|raw| *raw != "null"))).flatten();
        prop_assert_eq!(permitted.arguments_digest(), digest.as_deref());

        // Headers: the version, and in the modern era all that the message says, each once.
        let headers = permitted.headers();
        let of = |wanted: &str| {
            let mut found = headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.as_str());
            (found.next(), found.next())
        };
        let version = if ask.modern { "2026-07-28" } else { "2025-11-25" };
        prop_assert_eq!(of("mcp-protocol-version"), (Some(version), None));
        if ask.modern {
            prop_assert_eq!(of("mcp-method"), (expected["method"].as_str(), None));
            let encoded = name.map(encode);
            prop_assert_eq!(of("mcp-name"), (encoded.as_deref(), None));
            let mirrored = ask.method == "tools/call" && name != Some("placed");
            let arguments = if mirrored { &params["arguments"] } else { &Value::Null };
            for (header, value) in [("tenant", &arguments["tenant"]), ("limit", &arguments["limit"]), ("n", &arguments["at"]["n"])] {
                let (written, more) = of(&format!("mcp-param-{header}"));
                prop_assert!(says(written, value) && more.is_none(), "{} {:?} {}", header, written, value);
            }
        } else {
            prop_assert_eq!(headers.len(), 1);
        }

        // Sent again with them, it is permitted and nothing changes.
        let forwarded = Ask {
            body: sent.clone(),
            headers: headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect(),
            ..ask
        };
        let again = forwarded.decided(&policy, &inventory);
        prop_assert_eq!(outcome(&again), Ok(sent));
        prop_assert_eq!(again.outcome.as_ref().unwrap().headers(), headers);
        prop_assert!(again.overridden.is_empty() && again.removed.is_empty());
    }

    #[test]
    fn headers_that_say_something_else_never_go_up((ask, _) in message(Just(true)), at in 0usize..5, other in text()) {
        let (policy, inventory) = (rewriting(), mirrored());
        prop_assume!(ask.is_readable());
        let mut ask = mirroring(&ask, &inventory);
        // What is refused for another reason shows nothing.
        if ask.decided(&policy, &inventory).outcome.is_err() {
            return Ok(());
        }
        let at = 1 + at % (ask.headers.len() - 1);
        // What a header says of itself is read as it is written.
        let other = encode(&serde_json::from_str::<String>(&other).unwrap()).into_owned();
        let said = ask.headers[at].1.clone();
        let number = |text: &str| text.parse::<f64>().ok();
        prop_assume!(said != other && (number(&said).is_none() || number(&said) != number(&other)));
        ask.headers[at].1 = other;
        prop_assert!(ask.decided(&policy, &inventory).outcome.is_err(), "{:?}", ask);
    }
}
