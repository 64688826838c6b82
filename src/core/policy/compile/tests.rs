use serde_json::{Value, json};

use super::*;

fn document() -> Value {
    json!({
        "format": 1,
        "tenant": {"name": "acme", "uid": "u"},
        "server": "crm",
        "hostnames": ["crm.acme.svc"],
        "upstream": {"port": 3000, "path": "/mcp"},
        "agents": [
            {"name": "billing", "spiffeId": "spiffe://acme/billing", "roles": ["reader"], "attributes": {"place": "nyc"}},
            {"name": "other", "spiffeId": "spiffe://acme/other", "roles": ["reader"]},
            {"name": "idle", "spiffeId": "spiffe://acme/idle", "roles": []}
        ],
        "tools": [
            {"name": "list", "roles": ["reader"], "forced": {"place": {"agent": "place"}, "n": {"int": 7}}, "bounds": {"limit": {"maximum": 1}}},
            {"name": "delete", "roles": ["admin"]},
            {"name": "nobody", "roles": []}
        ]
    })
}

fn compile(document: &Value) -> Result<CompiledPolicy, CompileError> {
    CompiledPolicy::from_json(document.to_string().as_bytes())
}

#[test]
fn each_agent_has_what_its_roles_and_attributes_give() {
    let policy = compile(&document()).unwrap();
    let reason = |agent: &str, tool: &str| {
        policy
            .agent(&format!("spiffe://acme/{agent}"))
            .unwrap()
            .tool(&policy, tool)
            .err()
    };
    assert_eq!(reason("billing", "list"), None);
    assert_eq!(reason("billing", "delete"), Some(Reason::ToolNotGranted));
    assert_eq!(reason("billing", "nobody"), Some(Reason::ToolNotGranted));
    assert_eq!(reason("billing", "drop"), Some(Reason::ToolUnknown));
    assert_eq!(reason("other", "list"), Some(Reason::AgentAttributeMissing));
    assert_eq!(reason("idle", "list"), Some(Reason::ToolNotGranted));
    let tools = |agent: &str| policy.agent(&format!("spiffe://acme/{agent}")).unwrap().tools();
    assert_eq!(tools("billing"), BTreeSet::from(["list"]));
    assert_eq!(tools("other"), BTreeSet::new());
    assert_eq!(tools("idle"), BTreeSet::new());
    assert!(policy.agent("spiffe://acme/unknown").is_none());
    assert!(policy.agent("spiffe://acme/Billing").is_none());
}

#[test]
fn a_document_that_is_wrong_anywhere_is_refused_in_full() {
    let cases: &[(&str, Value)] = &[
        ("/format", json!(2)),
        ("/tenant/uid", json!("")),
        ("/server", json!("")),
        ("/hostnames/0", json!("CRM.acme.svc")),
        ("/upstream/port", json!(0)),
        ("/upstream/path", json!("mcp")),
        ("/upstream/path", json!("/a b")),
        ("/agents/0/name", json!("")),
        ("/agents/0/name", json!("other")),
        ("/agents/0/spiffeId", json!("spiffe://acme/other")),
        ("/agents/0/spiffeId", json!("https://acme/other")),
        ("/tools/0/name", json!("")),
        ("/tools/0/name", json!("delete")),
        ("/tools/0/forced", json!({"limit": {"int": 1}})),
        ("/tools/0/forced", json!({"Limit": {"int": 1}})),
        ("/tools/0/forced", json!({"a": {"int": 1}, "A": {"int": 1}})),
        ("/tools/0/forced", json!({"": {"int": 1}})),
        ("/tools/0/forced", json!({"a": {"agent": ""}})),
        ("/tools/0/forced", json!({"a": {"float": 1.5}})),
        ("/tools/0/forced", json!({"a": {"int": 1, "bool": true}})),
        (
            "/tools/0/forced",
            json!({"a": {"int": 9_223_372_036_854_775_808_u64}}),
        ),
        ("/tools/0/bounds", json!({"a": {}})),
        ("/tools/0/bounds", json!({"a": {"max": 1}})),
        ("/tools/0/bounds", json!({"a": {"pattern": "("}})),
    ];
    for (pointer, value) in cases {
        let mut document = document();
        *document.pointer_mut(pointer).unwrap() = value.clone();
        assert!(compile(&document).is_err(), "{pointer} {value}");
    }
    let mut unknown = document();
    unknown["enforcement"] = json!("Report");
    assert!(matches!(compile(&unknown), Err(CompileError::Shape(_))));
}

#[test]
fn a_key_twice_in_the_document_is_refused() {
    let twice = document().to_string().replace(
        r#""forced":{"#,
        r#""forced":{"tenant_id":{"string":"a"},"tenant_id":{"string":"b"},"#,
    );
    assert_eq!(
        CompiledPolicy::from_json(twice.as_bytes()).unwrap_err(),
        CompileError::Json(Reason::DuplicateKey)
    );
}
