//! What a server says of its tools, prompts and resources: refused at sight, and held to.

use super::*;
use crate::mcp::inventory::ToolFacts;

fn definitions() -> CompiledPolicy {
    let mut document = document();
    document["prompts"] =
        json!([{"name": "summary", "roles": ["reader"]}, {"name": "other", "roles": ["reader"]}]);
    document["resources"] = json!([
        {"uri": "docs://handbook", "roles": ["reader"]}, {"uri": "docs://other", "roles": ["reader"]},
        {"uri": "crm://{id}", "roles": ["reader"]}, {"uri": "other://{id}", "roles": ["reader"]},
    ]);
    compile(&document)
}

/// The answer to a list of `billing`.
fn listed(method: &str, result: &Value, inventory: &Inventory) -> FinalAnswer {
    let policy = definitions();
    let permitted = decide(&policy, "billing", LEGACY, &request(method, "{}"), inventory)
        .outcome
        .unwrap();
    let body = Bytes::from(json!({"jsonrpc": "2.0", "id": 1, "result": result}).to_string());
    let channel = Channel::Answer(permitted.expected().unwrap());
    match policy.answer(
        policy.agent("spiffe://acme/billing"),
        channel,
        &body,
        context(inventory),
    ) {
        Answer::Final(answer) => answer,
        refused => panic!("{refused:?}"),
    }
}

/// What is known after this list of tools.
fn learned(tools: &Value) -> (FinalAnswer, Inventory) {
    let answer = listed("tools/list", &json!({"tools": tools}), &Inventory::default());
    let inventory = Inventory::default().learning(&answer.learned).unwrap_or_default();
    (answer, inventory)
}

fn called(tool: &str, arguments: &str, inventory: &Inventory) -> Decision {
    decide(
        &definitions(),
        "billing",
        LEGACY,
        &call(tool, arguments),
        inventory,
    )
}

#[test]
fn hidden_characters_take_a_definition_out_and_a_tool_with_it() {
    let lists = [
        (
            "tools/list",
            "tools",
            json!([{"name": "free", "inputSchema": {}}, {"name": "capped", "inputSchema": {}}]),
            "name",
        ),
        (
            "prompts/list",
            "prompts",
            json!([{"name": "other"}, {"name": "summary"}]),
            "name",
        ),
        (
            "resources/list",
            "resources",
            json!([{"uri": "docs://other", "name": "o"}, {"uri": "docs://handbook", "name": "h"}]),
            "uri",
        ),
        (
            "resources/templates/list",
            "resourceTemplates",
            json!([{"uriTemplate": "other://{id}", "name": "o"}, {"uriTemplate": "crm://{id}", "name": "c"}]),
            "uriTemplate",
        ),
    ];
    for (method, key, mut entries, name) in lists {
        let clean = listed(method, &json!({key: entries}), &Inventory::default());
        assert!(clean.dropped.is_empty(), "{method}");
        entries[1]["description"] = json!("Reads.\u{200b}\u{e0049}");
        let answer = listed(method, &json!({key: entries}), &Inventory::default());
        let dropped: Vec<_> = answer
            .dropped
            .iter()
            .map(|entry| (entry.name.as_str(), entry.reason))
            .collect();
        assert_eq!(
            dropped,
            [(entries[1][name].as_str().unwrap(), Reason::HiddenCharacters)],
            "{method}"
        );
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(body["result"][key].as_array().unwrap().len(), 1, "{method}");
    }
    let (_, inventory) = learned(&json!([{"name": "free", "inputSchema": {}, "title": "\u{202e}"}]));
    assert_eq!(
        outcome(&called("free", "{}", &inventory)),
        Err(Reason::HiddenCharacters)
    );
}

#[test]
fn a_call_is_held_against_the_schema_that_the_tool_was_listed_with() {
    let schema = json!({"type": "object", "required": ["limit"], "properties": {
        "tenant": {"type": "string"}, "limit": {"type": "integer", "minimum": 1}}});
    let (answer, inventory) = learned(&json!([{"name": "list", "inputSchema": schema}]));
    assert!(answer.dropped.is_empty());
    // What is forced is there when it is checked, whatever the caller gave.
    for good in [r#"{"limit":5}"#, r#"{"limit":5,"tenant":7}"#] {
        assert!(called("list", good, &inventory).outcome.is_ok(), "{good}");
    }
    for (bad, says) in [
        (
            r#"{"limit":0}"#,
            "Argument limit: value is less than the minimum of 1.",
        ),
        (
            r#"{"limit":1.5}"#,
            r#"Argument limit: value is not of type "integer"."#,
        ),
        ("{}", r#"The arguments: "limit" is a required property."#),
        ("null", r#"The arguments: "limit" is a required property."#),
    ] {
        let decision = called("list", bad, &inventory);
        assert_eq!(outcome(&decision), Err(Reason::ArgumentInvalid), "{bad}");
        assert_eq!(decision.rule.as_deref(), Some("tools[list]"));
        let refusal = decision.outcome.unwrap_err();
        assert_eq!(refusal.message, says, "{bad}");
        assert!(refusal.is_tool_error());
        // Nothing is known of the tool before it is listed.
        assert!(
            called("list", bad, &Inventory::default()).outcome.is_ok(),
            "{bad}"
        );
    }
    // Where nothing is rewritten it is checked as well.
    let (_, inventory) = learned(&json!([{"name": "free", "inputSchema": {"required": ["q"]}}]));
    assert_eq!(
        outcome(&called("free", "{}", &inventory)),
        Err(Reason::ArgumentInvalid)
    );
    assert!(called("free", r#"{"q":1}"#, &inventory).outcome.is_ok());
}

#[test]
fn a_forced_value_that_the_schema_does_not_allow_is_nobodys_to_correct() {
    let schema = json!({"type": "object", "properties": {"tenant": {"enum": ["globex"]}}});
    let (_, inventory) = learned(&json!([{"name": "list", "inputSchema": schema}]));
    let decision = called("list", "{}", &inventory);
    assert_eq!(outcome(&decision), Err(Reason::ForcedArgumentInvalid));
    let refusal = decision.outcome.unwrap_err();
    assert_eq!(refusal.message, "Unknown tool: list");
    assert!(!refusal.is_tool_error());
    // Nor does a refusal about the arguments as a whole name what clients don't know.
    for keyword in [
        json!({"propertyNames": {"maxLength": 3}}),
        json!({"propertyNames": {"pattern": "^[0-9]"}}),
        json!({"dependentSchemas": {"limit": {"maxProperties": 1}}}),
        json!({"maxProperties": 1}),
    ] {
        let mut schema = json!({"type": "object", "properties": {"tenant": {"type": "string"}, "limit": {}}});
        schema
            .as_object_mut()
            .unwrap()
            .extend(keyword.as_object().unwrap().clone());
        let (_, inventory) = learned(&json!([{"name": "list", "inputSchema": schema}]));
        let refusal = called("list", r#"{"limit":1}"#, &inventory).outcome.unwrap_err();
        assert!(
            !refusal.message.contains("tenant"),
            "{keyword}: {}",
            refusal.message
        );
    }
}

#[test]
fn a_tool_whose_schema_can_not_be_checked_is_neither_offered_nor_callable() {
    let (answer, inventory) =
        learned(&json!([{"name": "free", "inputSchema": {"$ref": "https://example.com/s"}}]));
    assert_eq!(answer.dropped[0].reason, Reason::SchemaUnusable);
    assert_eq!(
        outcome(&called("free", "{}", &inventory)),
        Err(Reason::SchemaUnusable)
    );
}

#[test]
fn a_schema_that_did_not_change_is_not_compiled_again() {
    let tools = json!([{"name": "free", "inputSchema": {"type": "object"}}]);
    let (first, inventory) = learned(&tools);
    let again = listed("tools/list", &json!({"tools": tools}), &inventory);
    let (ToolFacts::Usable { schema: before, .. }, ToolFacts::Usable { schema: after, .. }) =
        (&first.learned[0].1, &again.learned[0].1)
    else {
        panic!("{first:?}")
    };
    assert!(std::sync::Arc::ptr_eq(before, after));
    assert_eq!(inventory.learning(&again.learned), None);
}
