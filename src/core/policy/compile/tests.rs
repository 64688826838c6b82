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

fn with_issuer() -> Value {
    let mut document = document();
    document["issuers"] = json!([
        {"name": "corp", "url": "https://login.example.com", "audiences": ["api"], "maxLifetime": 3600,
         "roles": [{"claim": {"name": "groups", "value": "finance"}, "roles": ["reader", "admin"]}]},
        {"name": "other", "url": "https://other.example.com", "audiences": ["api"], "maxLifetime": 60}
    ]);
    document["agents"][0]["clients"] = json!([{"issuer": "corp", "id": "desk"}]);
    document["tools"][0]["forced"]["user"] = json!({"claim": "sub"});
    document
}

#[test]
fn acting_for_a_person_an_agent_has_what_both_have() {
    let policy = compile(&with_issuer()).unwrap();
    let billing = policy.agent("spiffe://acme/billing").unwrap();
    let person = |issuer: &str, claims: Value| Person::new(issuer, claims).unwrap();
    let ada = person(
        "https://login.example.com",
        json!({"sub": "ada", "groups": ["finance"]}),
    );
    let acting = policy.acting_for(billing, &ada).unwrap();
    // The person's role of an admin is not the agent's.
    assert_eq!(acting.tools(), BTreeSet::from(["list"]));
    assert_eq!(acting.roles(), &BTreeSet::from(["reader".to_owned()]));
    let forced = &acting.tool(&policy, "list").unwrap().forced;
    assert_eq!(
        forced
            .iter()
            .find(|forced| &*forced.name == "user")
            .unwrap()
            .value,
        "\"ada\""
    );
    assert_eq!(billing.tool(&policy, "list").err(), Some(Reason::ClaimMissing));
    for without in [
        person("https://login.example.com", json!({"sub": "ada"})),
        // What one issuer says of groups is nothing to another.
        person(
            "https://other.example.com",
            json!({"sub": "ada", "groups": ["finance"]}),
        ),
    ] {
        assert!(policy.acting_for(billing, &without).unwrap().tools().is_empty());
    }
    let stranger = person(
        "https://login.example.com/",
        json!({"sub": "ada", "groups": ["finance"]}),
    );
    assert!(policy.acting_for(billing, &stranger).is_none());
}

#[test]
fn handles_are_an_agents_and_a_persons_together() {
    let policy = compile(&with_issuer()).unwrap();
    let owner = |agent: &str, person: Option<(&str, &str)>| {
        let agent = policy.agent(&format!("spiffe://acme/{agent}")).unwrap();
        match person {
            None => agent.owner().to_string(),
            Some((issuer, sub)) => {
                let person = Person::new(issuer, json!({"sub": sub})).unwrap();
                policy.acting_for(agent, &person).unwrap().owner().to_string()
            }
        }
    };
    let (corp, other) = ("https://login.example.com", "https://other.example.com");
    let owners = [
        owner("billing", None),
        owner("other", None),
        owner("billing", Some((corp, "ada"))),
        owner("billing", Some((corp, "eve"))),
        owner("billing", Some((other, "ada"))),
        owner("other", Some((corp, "ada"))),
    ];
    assert_eq!(
        owners.iter().collect::<BTreeSet<_>>().len(),
        owners.len(),
        "{owners:#?}"
    );
    assert_eq!(owners[2], owner("billing", Some((corp, "ada"))));
}

#[test]
fn an_agent_for_persons_only_needs_somebody_who_proves_them() {
    let mut document = with_issuer();
    document["agents"][0]["requiresPerson"] = json!(true);
    let policy = compile(&document).unwrap();
    assert!(policy.agent("spiffe://acme/billing").unwrap().requires_person());
    assert!(!policy.agent("spiffe://acme/other").unwrap().requires_person());
    document["issuers"] = json!([]);
    document["agents"][0]["clients"] = json!([]);
    assert!(matches!(compile(&document), Err(CompileError::Invalid { .. })));
}

#[test]
fn issuers_that_make_no_sense_are_refused() {
    for (pointer, value) in [
        ("/issuers/0/name", json!("")),
        ("/issuers/0/name", json!("other")),
        ("/issuers/0/url", json!("")),
        ("/issuers/0/url", json!("https://a\nb")),
        ("/issuers/0/url", json!("https://other.example.com")),
        ("/issuers/0/audiences", json!([])),
        ("/issuers/0/audiences", json!([""])),
        ("/issuers/0/maxLifetime", json!(0)),
        ("/issuers/0/roles/0/claim/name", json!("")),
        ("/issuers/0/roles/0/claim/value", json!("")),
        ("/agents/0/clients/0/issuer", json!("nobody")),
        ("/agents/0/clients/0/id", json!("")),
        // ID tokens are for the client.
        ("/agents/0/clients/0/id", json!("api")),
        ("/agents/1/clients", json!([{"issuer": "corp", "id": "desk"}])),
        ("/tools/0/forced/user/claim", json!("")),
    ] {
        let mut document = with_issuer();
        if let Some(place) = document.pointer_mut(pointer) {
            *place = value.clone();
        } else {
            let (parent, name) = pointer.rsplit_once('/').unwrap();
            document.pointer_mut(parent).unwrap()[name] = value.clone();
        }
        let outcome = compile(&document);
        assert!(
            matches!(outcome, Err(CompileError::Invalid { .. })),
            "{pointer} {value}: {outcome:?}"
        );
    }
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
