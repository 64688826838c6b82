//! Contents of resources, filtered and bounded.

use super::*;

/// A policy of resources: all notes are filtered, `notes://{id}` isn't, `dump://all` is bounded, `tried://all` reports.
fn resources() -> Value {
    let owned = json!({"path": "$.rows", "field": "tenant", "equals": {"string": "acme"}});
    let mut document = document();
    document["resources"] = json!([
        {"uri": "notes://{id}", "roles": ["reader"]},
        {"uri": "notes://all", "roles": ["reader"], "results": {"owned": owned, "maxRecords": 2, "maxBytes": 500}},
        {"uri": "dump://all", "roles": ["reader"], "results": {"maxBytes": 60}},
        {"uri": "tried://all", "roles": ["reader"], "results": {"owned": owned, "enforcement": "report"}},
    ]);
    document
}

/// What becomes of an answer to the reading of a resource.
fn on_read(modern: bool, uri: &str, message: &Value) -> Answer {
    let policy = compile(&resources());
    on(
        &policy,
        modern,
        "resources/read",
        ("uri", uri),
        &message.to_string(),
    )
}

fn contents(modern: bool, uri: &str, contents: &Value) -> Answer {
    let result =
        json!({"contents": contents, "_meta": {"total": "globex"}, "ttlMs": 7, "resultType": "complete"});
    on_read(modern, uri, &json!({"jsonrpc": "2.0", "id": 1, "result": result}))
}

#[test]
fn of_a_filtered_resource_only_owned_records_are_left() {
    let all = json!({"rows": rows(), "total": 3});
    let left = json!({"rows": [{"tenant": "acme", "n": 1}]});
    let given = json!([{"uri": "notes://all", "text": all.to_string(), "mimeType": "text/globex", "_meta": {"x": "globex"}}]);
    for modern in [false, true] {
        let answer = contents(modern, "notes://all", &given);
        let mut expected = json!({"resultType": "complete", "contents": [
            {"uri": "notes://all", "mimeType": "application/json", "text": left.to_string()},
        ]});
        if modern {
            // What it said of caching goes with its other words, and is made anew.
            expected["ttlMs"] = json!(7);
            expected["cacheScope"] = json!("private");
        }
        let mut message = told(&answer).unwrap();
        if !modern {
            assert!(message["result"].get("ttlMs").is_none(), "{message}");
        }
        assert_eq!(message["result"].take(), expected);
        let Answer::Final(answer) = answer else { panic!() };
        assert_eq!(answer.records, Some(Records { kept: 1, removed: 2 }));
        // The control: a resource without a filter, and another content of the same answer by its own rule.
        let free = json!([{"uri": "notes://7", "text": all.to_string()}]);
        assert_eq!(
            told(&contents(modern, "notes://7", &free)).unwrap()["result"]["contents"],
            free
        );
        let beside = json!([free[0], given[0]]);
        let message = told(&contents(modern, "notes://7", &beside)).unwrap();
        assert_eq!(
            message["result"]["contents"],
            json!([free[0], expected["contents"][0]])
        );
        assert!(message["result"].get("_meta").is_none(), "{message}");
    }
}

#[test]
fn contents_that_can_not_be_filtered_or_break_a_bound_do_not_pass() {
    let of = |content: Value| {
        let mut content = content;
        content["uri"] = json!("notes://all");
        told(&contents(false, "notes://all", &json!([content]))).unwrap_err()
    };
    for content in [
        json!({"blob": "Z2xvYmV4"}),
        json!({"text": "globex has one too"}),
        json!({"text": r#"{"rows":[],"rows":[]}"#}),
        json!({"text": r#"{"row":[]}"#}),
        json!({}),
    ] {
        assert_eq!(of(content.clone()), Reason::AnswerUnfiltered, "{content}");
    }
    let under_another_name = json!([{"uri": "notes://7", "text": "globex has one too"}]);
    assert_eq!(
        told(&contents(false, "notes://all", &under_another_name)),
        Err(Reason::AnswerUnfiltered)
    );
    let mine = |count| json!({"text": json!({"rows": vec![json!({"tenant": "acme"}); count]}).to_string()});
    assert_eq!(of(mine(3)), Reason::AnswerTooManyRecords);
    let long = json!({"text": json!({"rows": [{"tenant": "acme", "text": "x".repeat(500)}]}).to_string()});
    assert_eq!(of(long), Reason::AnswerTooLong);
    let dump = |length| json!([{"uri": "dump://all", "text": "x".repeat(length)}]);
    let Answer::Refused(refusal) = contents(false, "dump://all", &dump(60)) else {
        panic!("a long answer")
    };
    assert_eq!(refusal.reason, Reason::AnswerTooLong);
    let body: Value = serde_json::from_slice(&refusal.body()).unwrap();
    assert!(
        body["error"]["message"].as_str().unwrap().contains("60 bytes"),
        "no tool, and so no tool error: {body}"
    );
    let short =
        json!({"jsonrpc": "2.0", "id": 1, "result": {"contents": [{"uri": "dump://all", "text": ""}]}});
    assert!(told(&on_read(false, "dump://all", &short)).is_ok());
}

#[test]
fn what_a_server_says_besides_of_a_filtered_resource_is_left_out_and_a_report_is_only_that() {
    let failed =
        json!({"jsonrpc": "2.0", "id": 1, "error": {"code": -32002, "message": "globex", "data": "globex"}});
    let message = told(&on_read(false, "notes://all", &failed)).unwrap();
    assert_eq!(message["error"]["code"], -32002);
    assert!(!message.to_string().contains("globex"), "{message}");
    let message = told(&on_read(false, "notes://7", &failed)).unwrap();
    assert!(message.to_string().contains("globex"), "the control: {message}");
    let asks =
        json!({"jsonrpc": "2.0", "id": 1, "result": {"resultType": "input_required", "inputRequests": {}}});
    assert_eq!(
        told(&on_read(true, "notes://all", &asks)),
        Err(Reason::AnswerUnfiltered)
    );
    assert!(told(&on_read(true, "notes://7", &asks)).is_ok(), "the control");

    for (text, reported) in [
        (json!({"rows": rows()}).to_string(), Some(Reason::RecordsForeign)),
        ("prose".to_owned(), Some(Reason::AnswerUnfiltered)),
        (r#"{"rows":[{"tenant":"acme"}]}"#.to_owned(), None),
    ] {
        let given = json!([{"uri": "tried://all", "text": text}]);
        let answer = contents(false, "tried://all", &given);
        assert_eq!(told(&answer).unwrap()["result"]["contents"], given);
        let Answer::Final(answer) = answer else { panic!() };
        assert_eq!(answer.reported, reported, "{text}");
    }
}

/// Whose the records must be isn't known without a person's token, or without an attribute.
#[test]
fn a_filter_without_its_owner_refuses_and_gives_no_laxer_rule_its_place() {
    for (owner, reason) in [
        (json!({"claim": "desk"}), Reason::ClaimMissing),
        (json!({"agent": "desk"}), Reason::AgentAttributeMissing),
    ] {
        let mut document = resources();
        document["resources"][1]["results"]["owned"]["equals"] = owner;
        let policy = compile(&document);
        let read = |uri: &str| {
            let asked = request("resources/read", &format!(r#"{{"uri":"{uri}"}}"#));
            let decision = decide(&policy, "billing", LEGACY, &asked, &Inventory::default());
            outcome(&decision).map(drop)
        };
        assert_eq!(read("notes://all"), Err(reason));
        assert_eq!(read("notes://7"), Ok(()), "the control: the laxer rule's own");
    }
}

#[test]
fn another_spelling_of_a_resource_is_not_covered_by_a_laxer_rule() {
    let mut document = resources();
    let rules = document["resources"].as_array_mut().unwrap();
    for (uri, role) in [
        ("users://me@corp", "keeper"),
        ("users://caf%C3%A9", "keeper"),
        ("docs://team%40/{id}", "keeper"),
        ("users://{name}", "reader"),
        ("docs://{+any}", "reader"),
        ("lists://all", "keeper"),
        ("lists://all?page={page}", "reader"),
    ] {
        rules.push(json!({"uri": uri, "roles": [role]}));
    }
    let policy = compile(&document);
    for (uri, expected) in [
        ("users://me%40corp", Err(Reason::ResourceNotGranted)),
        ("users://caf%c3%a9", Err(Reason::ResourceNotGranted)),
        ("users://caf\u{e9}", Err(Reason::ResourceNotGranted)),
        ("users://me@corp:", Err(Reason::ResourceNotGranted)),
        ("docs://team@/7", Err(Reason::ResourceNotGranted)),
        ("docs://others/7", Ok(())),
        ("lists://all?page=2", Ok(())),
        ("users://you%40corp", Ok(())),
        ("users://caf%C3%A8", Ok(())),
    ] {
        let asked = request("resources/read", &format!(r#"{{"uri":"{uri}"}}"#));
        let decision = decide(&policy, "billing", LEGACY, &asked, &Inventory::default());
        assert_eq!(outcome(&decision).map(drop), expected, "{uri}");
    }
}

/// A filter is of the resource, and nobody sheds it by losing a role.
#[test]
fn who_has_no_role_for_the_rule_of_a_resource_may_not_read_it_by_another() {
    let mut document = resources();
    document["resources"][1]["roles"] = json!(["keeper"]);
    let rules = document["resources"].as_array_mut().unwrap();
    rules.push(json!({"uri": "logs://{day}", "roles": ["keeper"]}));
    rules.push(json!({"uri": "logs://{+rest}", "roles": ["reader"]}));
    rules.push(json!({"uri": "own://{desk}", "roles": ["keeper"], "forced": {"desk": {"string": "d-7"}}}));
    rules.push(json!({"uri": "own://{id}", "roles": ["reader"]}));
    let of = |document: &Value| {
        let policy = compile(document);
        [
            "notes://all",
            "notes://7",
            "logs://monday",
            "logs://monday/7",
            "own://d-7",
            "own://d-8",
        ]
        .map(|uri| {
            let asked = request("resources/read", &format!(r#"{{"uri":"{uri}"}}"#));
            let decision = decide(&policy, "billing", LEGACY, &asked, &Inventory::default());
            outcome(&decision).map(drop)
        })
    };
    let denied = Err(Reason::ResourceNotGranted);
    assert_eq!(of(&document), [denied, Ok(()), denied, Ok(()), denied, Ok(())]);
    // Nor is it told of as a value of a laxer template.
    let completed = |document: &Value| {
        let policy = compile(document);
        ["notes://{id}", "logs://{+rest}", "own://{id}", "docs://{page}"].map(|uri| {
            let params = format!(
                r#"{{"ref":{{"type":"ref/resource","uri":"{uri}"}},"argument":{{"name":"id","value":""}}}}"#
            );
            let asked = request("completion/complete", &params);
            let decision = decide(&policy, "billing", LEGACY, &asked, &Inventory::default());
            outcome(&decision).map(drop)
        })
    };
    let rules = document["resources"].as_array_mut().unwrap();
    rules.push(json!({"uri": "docs://{page}", "roles": ["reader"]}));
    assert_eq!(completed(&document), [denied, denied, denied, Ok(())]);
    document["agents"][0]["roles"] = json!(["reader", "keeper"]);
    assert_eq!(of(&document), [Ok(()); 6], "the control");
    assert_eq!(completed(&document), [Ok(()); 4], "the control");
}
