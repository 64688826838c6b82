use proptest::prelude::*;

use super::*;

fn parse(body: &str) -> Result<String, (Reason, Option<String>)> {
    let bytes = Bytes::copy_from_slice(body.as_bytes());
    let read = read(
        &bytes,
        Limits {
            bytes: 4096,
            depth: 16,
        },
    );
    match read {
        Ok(message) => Ok(format!(
            "{} {}",
            match message {
                Message::Request(_) => "request",
                Message::Notification(_) => "notification",
                Message::Response(_) => "response",
            },
            message.method().unwrap_or_default()
        )),
        Err(refusal) => {
            let told = refusal.body();
            let id = serde_json::from_slice::<serde_json::Value>(&told).unwrap()["id"].clone();
            Err((refusal.reason, (!id.is_null()).then(|| id.to_string())))
        }
    }
}

#[test]
fn well_formed_messages_are_read() {
    let cases = [
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#, "request ping"),
        (
            r#" { "params" : { } , "method" : "a\/b" , "id" : "x" , "jsonrpc" : "2.0" } "#,
            "request a/b",
        ),
        (
            r#"{"jsonrpc":"2.\u0030","id":-9223372036854775808,"method":"p"}"#,
            "request p",
        ),
        (
            r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
            "notification notifications/initialized",
        ),
        (r#"{"jsonrpc":"2.0","id":1,"result":{}}"#, "response "),
        (
            r#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":""}}"#,
            "response ",
        ),
        (
            r#"{"jsonrpc":"2.0","error":{"code":1,"message":""}}"#,
            "response ",
        ),
    ];
    for (body, expected) in cases {
        assert_eq!(parse(body), Ok(expected.to_owned()), "{body}");
    }
}

#[test]
fn hostile_envelopes_are_refused_with_the_id_when_there_is_one() {
    use Reason::*;
    let one = Some("1");
    let cases: &[(&str, Reason, Option<&str>)] = &[
        (r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#, Batch, None),
        ("[]", Batch, None),
        ("\"ping\"", InvalidEnvelope, None),
        ("{}", InvalidEnvelope, None),
        (r#"{"id":1,"method":"ping"}"#, InvalidEnvelope, one),
        (
            r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#,
            InvalidEnvelope,
            one,
        ),
        (r#"{"jsonrpc":2.0,"id":1,"method":"ping"}"#, InvalidEnvelope, one),
        (r#"{"jsonrpc":"2.0","id":1}"#, InvalidEnvelope, one),
        (r#"{"jsonrpc":"2.0","id":1,"method":7}"#, InvalidEnvelope, one),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","result":{}}"#,
            InvalidEnvelope,
            one,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","error":{}}"#,
            InvalidEnvelope,
            one,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{}}"#,
            InvalidEnvelope,
            one,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"result":{},"params":{}}"#,
            InvalidEnvelope,
            one,
        ),
        (r#"{"jsonrpc":"2.0","id":1,"result":null}"#, InvalidEnvelope, one),
        (r#"{"jsonrpc":"2.0","result":{}}"#, InvalidEnvelope, None),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","extra":1}"#,
            InvalidEnvelope,
            one,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","Method":"x"}"#,
            CaseVariant,
            one,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","PARAMS":{}}"#,
            CaseVariant,
            one,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","param\u017f":{}}"#,
            CaseVariant,
            one,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"ID":2,"method":"ping"}"#,
            CaseVariant,
            one,
        ),
        (r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#, InvalidId, None),
        (r#"{"jsonrpc":"2.0","id":1.0,"method":"ping"}"#, InvalidId, None),
        (r#"{"jsonrpc":"2.0","id":1e0,"method":"ping"}"#, InvalidId, None),
        (r#"{"jsonrpc":"2.0","id":-0,"method":"ping"}"#, InvalidId, None),
        (
            r#"{"jsonrpc":"2.0","id":9223372036854775808,"method":"ping"}"#,
            InvalidId,
            None,
        ),
        (r#"{"jsonrpc":"2.0","id":true,"method":"ping"}"#, InvalidId, None),
        (r#"{"jsonrpc":"2.0","id":[1],"method":"ping"}"#, InvalidId, None),
        (r#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#, InvalidId, None),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":[1]}"#,
            InvalidParams,
            one,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":null}"#,
            InvalidParams,
            one,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"a","method":"b"}"#,
            DuplicateKey,
            one,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"id":1,"method":"b"}"#,
            DuplicateKey,
            one,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"b","params":{"name":"a","name":"b"}}"#,
            DuplicateKey,
            one,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"b","params":{"a":{"b":[{"c":1,"c":1}]}}}"#,
            DuplicateKey,
            one,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"b","params":{"a":"\ud800"}}"#,
            LoneSurrogate,
            one,
        ),
        (r#"{"jsonrpc":"2.0","id":1,"method":"b"}{}"#, TrailingBytes, one),
        (
            "\u{feff}{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"b\"}",
            ByteOrderMark,
            None,
        ),
    ];
    for (body, reason, id) in cases {
        assert_eq!(parse(body), Err((*reason, id.map(str::to_owned))), "{body}");
    }
    let long = format!(
        r#"{{"jsonrpc":"2.0","id":"{}","method":"ping"}}"#,
        "x".repeat(300)
    );
    assert_eq!(parse(&long), Err((InvalidId, None)));
    let deep = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"p","params":{}1{}}}"#,
        "{\"a\":".repeat(16),
        "}".repeat(16)
    );
    assert_eq!(parse(&deep), Err((TooDeep, one.map(str::to_owned))));
    assert_eq!(parse(&" ".repeat(5000)), Err((BodyTooLarge, None)));
}

#[test]
fn an_id_is_the_same_value_not_the_same_spelling() {
    let id = |raw| Id::read(raw).unwrap();
    assert!(id("1").is("1"));
    assert!(!id("1").is("2"));
    assert!(!id("1").is("\"1\""));
    assert!(!id("\"1\"").is("1"));
    assert!(id("\"caf\\u00e9\"").is("\"café\""));
    assert!(!id("\"cafe\"").is("\"café\""));
}

proptest! {
    #[test]
    fn any_body_is_read_or_refused(body: Vec<u8>) {
        let _ = read(&Bytes::from(body), Limits::default());
    }

    #[test]
    fn what_is_read_is_what_serde_json_reads(
        params in crate::json::tests::json_text(),
        id in "-?[0-9]{1,4}|\"[a-z]{0,3}\"",
        method in "[a-z/]{1,12}",
    ) {
        let text = format!(r#"{{"jsonrpc":"2.0", "id":{id},"params" :{params},"method":"{method}"}}"#);
        let body = Bytes::from(text.clone());
        if let Ok(Message::Request(request)) = read(&body, Limits::default()) {
            let theirs: serde_json::Value = serde_json::from_str(&text).unwrap();
            let value = |raw: &str| serde_json::from_str::<serde_json::Value>(raw).unwrap();
            prop_assert_eq!(value(request.id.raw()), theirs["id"].clone());
            prop_assert_eq!(request.method.as_ref(), theirs["method"].as_str().unwrap());
            prop_assert_eq!(value(request.params.unwrap().raw()), theirs["params"].clone());
        }
    }
}
