//! What comes back from the server: which answers pass, what becomes of the others, and what is recorded.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use bulkhead_core::policy::document::{Enforcement, Forced, Owned, Results};
use bulkhead_proxy::testing::{
    Answer, PATIENCE, RecordingUpstream, Seen, Setup, TestSidecar, sidecar::TENANT_ID, upstream,
};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, time::timeout};

async fn start() -> (RecordingUpstream, TestSidecar) {
    let upstream = RecordingUpstream::start().await;
    let sidecar = TestSidecar::start(Setup::new(upstream.port())).await;
    (upstream, sidecar)
}

async fn start_answering(
    handler: impl Fn(&Seen) -> Answer + Send + Sync + 'static,
) -> (RecordingUpstream, TestSidecar) {
    let upstream = RecordingUpstream::answering(handler).await;
    let sidecar = TestSidecar::start(Setup::new(upstream.port())).await;
    (upstream, sidecar)
}

#[tokio::test]
async fn what_was_permitted_is_not_recorded_as_refused_when_the_server_fails() {
    let (_upstream, sidecar) = start_answering(|request| match request.method.as_str() {
        "POST" if request.header("mcp-session-id").is_none() && request.json()["id"].is_number() => {
            upstream::plain(request)
        }
        _ => Answer::Whole(404, vec![], String::new()),
    })
    .await;
    let mut client = sidecar.client("billing").await;
    let session = client.open_session().await;
    let with = [("mcp-session-id", session.as_str())];
    let list = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
    let ready = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
    for (method, headers, body, reason) in [
        ("POST", &with[..], list, "session_unknown"),
        ("DELETE", &with[..], "", "session_unknown"),
        ("POST", &[], ready, "upstream_failed"),
    ] {
        let reply = client.exchange(method, headers, body).await.unwrap();
        assert_eq!(reply.reason(), reason, "{method} {body}");
        let audit = sidecar.audit();
        let [.., intent, outcome] = audit.as_slice() else {
            panic!("{audit:?}")
        };
        assert_eq!(intent["decision"], "permit", "{method} {body}");
        assert_eq!(
            (&outcome["outcome"], &outcome["call"]),
            (&json!("failed"), &intent["call"])
        );
    }
}

#[tokio::test]
async fn a_server_that_answers_before_it_reads_holds_up_no_other_call() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = tokio::spawn(async move {
        let mut open = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.readable().await.unwrap();
            let body = r#"{"jsonrpc":"2.0","id":1,"result":{"content":[]}}"#;
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
            open.push(stream);
        }
    });
    let mut setup = Setup::new(port);
    setup.limits.body_bytes = 64 << 20;
    (setup.limits.memory, setup.limits.memory_per_agent) = (64 << 20, 64 << 20);
    let sidecar = TestSidecar::start(setup).await;
    let mut client = sidecar.client("billing").await;
    // More than the sockets' buffers hold, so that the request can't have been written to its end.
    let large = Some(json!({"text": "x".repeat(32 << 20)}));
    let reply = client.call("list_invoices", large).await;
    assert_eq!(reply.json()["result"]["content"], json!([]));
    let second = timeout(PATIENCE, client.call("list_invoices", None)).await;
    let second = second.expect("a connection that never gets ready must not be waited for");
    assert_eq!(second.json()["result"]["content"], json!([]));
    serving.abort();
}

#[tokio::test]
async fn of_an_event_stream_only_the_answer_and_comments_pass() {
    let (_upstream, sidecar) = start_answering(|request| {
        let id = &request.json()["id"];
        Answer::events(vec![
            "id: 1\ndata: \n\n: secret\n\n".to_owned(),
            r#"data: {"jsonrpc":"2.0","method":"notifications/message","params":{"data":"secret"}}"#
                .to_owned()
                + "\n\n",
            r#"data: {"jsonrpc":"2.0","id":9,"method":"sampling/createMessage","params":{}}"#.to_owned()
                + "\n\n",
            "event: endpoint\ndata: /secret\n\n".to_owned(),
            format!(
                "data: {}\r\n\r\n",
                json!({"jsonrpc": "2.0", "id": id, "result": {"tools": upstream::tools()}})
            ),
            format!(
                "data: {}\n\n",
                json!({"jsonrpc": "2.0", "id": id, "result": {"secret": true}})
            ),
        ])
    })
    .await;
    let reply = sidecar
        .client("billing")
        .await
        .post(&json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}))
        .await;
    assert_eq!(reply.headers["content-type"], "text/event-stream");
    let text = String::from_utf8(reply.body.to_vec()).unwrap();
    assert!(
        !text.contains("secret") && text.contains(": keep-alive"),
        "{text}"
    );
    let result = reply.json();
    assert_eq!(result["result"]["tools"].as_array().unwrap().len(), 1);
    for kind in ["server_message_denied", "answer_feature"] {
        let dropped = format!("bulkhead_dropped_messages_total{{kind=\"{kind}\"}} 1");
        assert!(sidecar.metrics().contains(&dropped), "{dropped}");
    }
    assert_eq!(sidecar.audit().last().unwrap()["outcome"], "completed");
}

#[tokio::test]
async fn what_is_no_answer_to_the_request_does_not_pass() {
    for (status, content_type, body, expected) in [
        (
            200,
            "application/json",
            r#"{"jsonrpc":"2.0","id":2,"result":{"secret":1}}"#,
            "answer_mismatch",
        ),
        (200, "application/json", r#"{"secret":1}"#, "answer_malformed"),
        (200, "text/html", "<p>secret</p>", ""),
        (500, "text/plain", "secret stack trace", ""),
        (302, "text/plain", "secret", ""),
    ] {
        let (_upstream, sidecar) = start_answering(move |_| {
            let headers = vec![
                ("content-type", content_type.to_owned()),
                ("location", "http://10.0.0.1/".into()),
            ];
            Answer::Whole(status, headers, body.to_owned())
        })
        .await;
        let reply = sidecar.client("billing").await.call("list_invoices", None).await;
        let text = String::from_utf8(reply.body.to_vec()).unwrap();
        assert!(!text.contains("secret"), "{text}");
        assert_eq!(reply.status, StatusCode::OK);
        assert_eq!(
            (&reply.json()["id"], reply.json()["error"].is_object()),
            (&json!(1), true),
            "{text}"
        );
        let outcome = sidecar.audit().pop().unwrap();
        assert_eq!(
            (
                &outcome["outcome"],
                outcome["reason"].as_str().unwrap_or_default()
            ),
            (&json!("failed"), expected)
        );
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told_as_such() {
    let upstream = RecordingUpstream::start().await;
    let port = upstream.port();
    drop(upstream);
    let sidecar = TestSidecar::start(Setup::new(port)).await;
    let reply = sidecar.client("billing").await.call("list_invoices", None).await;
    assert_eq!(reply.reason(), "upstream_unavailable");
    assert_eq!(sidecar.audit().pop().unwrap()["outcome"], "failed");
}

#[tokio::test]
async fn an_error_of_the_server_and_text_pass_as_they_are() {
    let (_upstream, sidecar) = start().await;
    let reply = sidecar
        .client("billing")
        .await
        .call("list_invoices", Some(json!({"text": "é\u{1F600}"})))
        .await;
    let echoed: Value = serde_json::from_str(&reply.text()).unwrap();
    assert_eq!(echoed, json!({"tenant_id": TENANT_ID, "text": "é\u{1F600}"}));
}

#[tokio::test]
async fn of_a_filtered_result_the_agent_s_own_records_pass_and_the_others_are_counted() {
    let upstream = RecordingUpstream::answering(|request| {
        let rows = json!([{"tenant": TENANT_ID, "n": 1}, {"tenant": "globex", "n": 2}]);
        Answer::json(&json!({"jsonrpc": "2.0", "id": request.json()["id"], "result": {
            "content": [{"type": "text", "text": "globex too"}], "structuredContent": {"rows": rows, "total": 2}}}))
    })
    .await;
    let mut setup = Setup::new(upstream.port());
    setup.policy.tools[0].results = Some(Results {
        owned: Some(Owned {
            path: "$.rows".into(),
            field: "tenant".into(),
            equals: Forced::String(TENANT_ID.into()),
        }),
        max_records: Some(5),
        max_bytes: None,
        enforcement: Enforcement::Enforce,
    });
    let mut policy = setup.policy.clone();
    let sidecar = TestSidecar::start(setup).await;
    let reply = sidecar.client("billing").await.call("list_invoices", None).await;
    let left = json!({"rows": [{"tenant": TENANT_ID, "n": 1}]});
    assert_eq!(reply.json()["result"]["structuredContent"], left);
    assert_eq!(reply.text(), left.to_string());
    let outcome = sidecar.audit().pop().unwrap();
    assert_eq!(
        (&outcome["recordsKept"], &outcome["recordsRemoved"]),
        (&json!(1), &json!(1))
    );
    let removed = "bulkhead_owned_records_total{result=\"removed\"} 1";
    assert!(sidecar.metrics().contains(removed), "{}", sidecar.metrics());
    // The control: of a tool without the filter everything passes.
    let reply = sidecar.client("support").await.call("delete_invoice", None).await;
    assert_eq!(reply.text(), "globex too");
    // And of one whose rules only report; what they would have done is counted and on record.
    let tool = &mut policy.tools[0];
    tool.results.as_mut().unwrap().enforcement = Enforcement::Report;
    tool.bounds.get_mut("limit").unwrap().enforcement = Enforcement::Report;
    sidecar.mount_policy(&policy).await;
    let limit = Some(json!({"limit": 101}));
    let reply = sidecar.client("billing").await.call("list_invoices", limit).await;
    assert_eq!(reply.text(), "globex too");
    let audit = sidecar.audit();
    let [.., decision, outcome] = &audit[..] else {
        panic!("{audit:?}")
    };
    assert_eq!(
        decision["reportedRules"],
        json!(["tools[list_invoices].bounds[limit]"])
    );
    assert_eq!(
        (
            &outcome["outcome"],
            &outcome["reported"],
            &outcome["recordsRemoved"]
        ),
        (&json!("completed"), &json!("records_foreign"), &json!(1))
    );
    for reason in ["records_foreign", "argument_out_of_bounds"] {
        let counted = format!("bulkhead_reported_total{{reason=\"{reason}\"}} 1");
        assert!(sidecar.metrics().contains(&counted), "{}", sidecar.metrics());
    }
    assert!(sidecar.metrics().contains(removed), "what passed was not removed");
}
