//! A server's answer: what the client gets is JSON that answers its request, and lists hold nothing that isn't granted.
//! The first byte picks the request, the rest is the answer.
#![no_main]

use bulkhead_core::{
    json::Limits,
    mcp::{self, Inventory, MirroredHeaders},
    policy::{Answer, Channel, Context},
};
use bulkhead_fuzz::{BILLING, FORCED, POLICY};
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

const REQUESTS: [&str; 9] = [
    r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#,
    r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"list"}}"#,
    r#"{"jsonrpc":"2.0","id":1,"method":"prompts/list"}"#,
    r#"{"jsonrpc":"2.0","id":1,"method":"prompts/get","params":{"name":"greet"}}"#,
    r#"{"jsonrpc":"2.0","id":1,"method":"resources/list"}"#,
    r#"{"jsonrpc":"2.0","id":1,"method":"resources/templates/list"}"#,
    r#"{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"docs://a"}}"#,
    r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"c","version":"1"}}}"#,
    r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#,
];

fuzz_target!(|data: &[u8]| {
    let Some((request, answer)) = data.split_first() else {
        return;
    };
    let inventory = Inventory::default();
    let limits = Limits::default();
    let context = Context::offline(&inventory, limits);
    let body = Bytes::from_static(REQUESTS[usize::from(*request) % REQUESTS.len()].as_bytes());
    let message = mcp::read(&body, limits).expect("the requests can be read");
    let headers = MirroredHeaders::read([("mcp-protocol-version", b"2025-11-25".as_slice())]);
    let caller = POLICY.agent(BILLING);
    let decision = POLICY.decide(caller, &message, &headers, context);
    let permitted = decision.outcome.expect("the requests are permitted");
    let expected = permitted.expected().expect("requests are answered");

    let answer = Bytes::copy_from_slice(answer);
    let (passed, last) = match POLICY.answer(caller, Channel::Answer(expected), &answer, context) {
        Answer::Final(answer) => (answer.body, true),
        Answer::Event(body) => (body, false),
        Answer::Refused(refusal) => (refusal.body(), true),
        Answer::ListChanged | Answer::Dropped(_) => return,
    };
    let passed: Value = serde_json::from_slice(&passed).expect("what the client gets is JSON");
    if !last {
        assert!(passed["method"].is_string(), "an event has a method");
        return;
    }
    assert_eq!(passed["id"], 1);
    let granted = caller.expect("the agent is there").tools();
    for tool in passed["result"]["tools"].as_array().into_iter().flatten() {
        if REQUESTS[usize::from(data[0]) % REQUESTS.len()].contains("tools/list") {
            let name = tool["name"].as_str().expect("a tool has a name");
            assert!(granted.contains(name), "{name} is not granted");
            if name == FORCED {
                assert!(tool["inputSchema"]["properties"].get("tenant").is_none());
            }
        }
    }
});
