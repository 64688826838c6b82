//! A client's message: whatever goes upstream reads back as what was decided, by somebody else's parser too, and holds
//! what is forced and bounded. The first byte picks the agent and the headers, the rest is the body.
#![no_main]

use bulkhead_core::{
    json::{self, Limits},
    mcp::{self, Inventory, MirroredHeaders},
    policy::{Context, Decision},
};
use bulkhead_fuzz::{BILLING, FORCED, MOST, POLICY, ROOT, TENANT};
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fn decide(agent: &str, body: &Bytes, headers: &[(String, String)]) -> Option<Decision> {
    let inventory = Inventory::default();
    let limits = Limits::default();
    let message = mcp::read(body, limits).ok()?;
    let mirrored = MirroredHeaders::read(
        headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_bytes())),
    );
    Some(POLICY.decide(
        POLICY.agent(agent),
        &message,
        &mirrored,
        Context::offline(&inventory, limits),
    ))
}

/// What a client of the modern era sends with the body.
fn modern(body: &Value) -> Vec<(String, String)> {
    let mut headers = vec![("mcp-protocol-version".to_owned(), "2026-07-28".to_owned())];
    let text = |value: &Value| value.as_str().map(|text| mcp::headers::encode(text).into_owned());
    headers.extend(text(&body["method"]).map(|method| ("mcp-method".to_owned(), method)));
    let params = &body["params"];
    let name = ["name", "uri", "taskId"]
        .iter()
        .find_map(|key| text(&params[*key]));
    headers.extend(name.map(|name| ("mcp-name".to_owned(), name)));
    headers
}

fuzz_target!(|data: &[u8]| {
    let Some((flags, body)) = data.split_first() else {
        return;
    };
    let agent = if flags & 1 == 0 { BILLING } else { ROOT };
    let body = Bytes::copy_from_slice(body);
    let foreign = serde_json::from_slice::<Value>(&body);
    let headers = match (flags & 2, &foreign) {
        (0, _) => vec![("mcp-protocol-version".to_owned(), "2025-11-25".to_owned())],
        (_, Ok(body)) => modern(body),
        (_, Err(_)) => Vec::new(),
    };
    let Some(decision) = decide(agent, &body, &headers) else {
        return;
    };
    let foreign = foreign.expect("what is read here is JSON");
    let Ok(permitted) = decision.outcome else { return };

    json::check(permitted.body(), Limits::default()).expect("what goes up is unambiguous");
    let sent: Value = serde_json::from_slice(permitted.body()).expect("what goes up is JSON");
    assert_eq!(sent["method"], foreign["method"]);
    assert_eq!(sent.get("id"), foreign.get("id"));
    let params = &sent["params"];
    if sent["method"] == "tools/call" {
        let caller = POLICY.agent(agent).expect("the agent is there");
        let name = params["name"].as_str().expect("a call has a name");
        assert!(caller.tools().contains(name), "{name} is not granted");
        if name == FORCED {
            assert_eq!(params["arguments"]["tenant"], TENANT);
            let limit = &params["arguments"]["limit"];
            assert!(
                limit.is_null() || limit.as_f64().is_some_and(|limit| limit <= MOST),
                "{limit}"
            );
        }
    }
    // Sent once more, it is permitted and nothing changes.
    let headers: Vec<_> = permitted
        .headers()
        .iter()
        .map(|(name, value)| (name.to_string(), value.clone()))
        .collect();
    let again = decide(agent, permitted.body(), &headers).expect("it can be read");
    let again = again
        .outcome
        .unwrap_or_else(|refusal| panic!("refused when sent again: {}", refusal.reason));
    assert_eq!(again.body(), permitted.body());
});
