//! Prompts, resources, completion, subscriptions, tasks, input and cursors: what goes up. What comes back is in `returned`.

mod returned;

use super::*;
use crate::{
    handles::{Handle, Kind, Replica, tests::Plain},
    policy::answer::Channel,
};

/// A policy with one of everything. `billing` is a reader, `root` an admin.
fn document() -> Value {
    let mut document = super::document();
    document["prompts"] = json!([
        {"name": "summary", "roles": ["reader"], "forced": {"tenant": {"string": "acme"}, "n": {"int": 7}}, "bounds": {"style": {"enum": ["short", "long"]}}},
        {"name": "purge", "roles": ["admin"]}
    ]);
    document["resources"] = json!([
        {"uri": "docs://handbook", "roles": ["reader"]},
        {"uri": "crm://{tenant}/{id}", "roles": ["reader"], "forced": {"tenant": {"string": "acme"}}},
        {"uri": "keys://{id}", "roles": ["admin"]}
    ]);
    document["clientFeatures"] = json!({"elicitation": ["form"], "logging": true});
    document
}

const MODERN: &str = "2026-07-28";

const TASKS: &str = r#"clientCapabilities":{"extensions":{"io.modelcontextprotocol/tasks":{}}}"#;

/// Decides a request of `billing`, modern when `method` is sent with its headers.
fn decided(document: &Value, era: &str, method: &str, params: &str) -> Decision {
    let policy = compile(document);
    let (mut body, name);
    let mut headers = vec![("mcp-protocol-version", era)];
    if era == MODERN {
        body = modern(method, params);
        let members: Value = serde_json::from_str(&format!("{{{params}}}")).unwrap();
        name = ["name", "uri", "taskId"]
            .iter()
            .find_map(|key| members[*key].as_str())
            .unwrap_or_default()
            .to_owned();
        // What belongs to the extension of tasks is for those who declare it.
        if method.starts_with("tasks/") {
            body = body.replace("clientCapabilities\":{}", TASKS);
        }
        headers.push(("mcp-method", method));
        headers.push(("mcp-name", &name));
    } else {
        body = request(method, &format!("{{{params}}}"));
    }
    decide(&policy, "billing", &headers, &body, &Inventory::default())
}

fn params_of(decision: &Decision) -> Result<Value, Reason> {
    let sent: Value = serde_json::from_str(&outcome(decision)?).unwrap();
    let mut params = sent["params"].clone();
    if let Some(params) = params.as_object_mut() {
        params.remove("_meta");
    }
    Ok(params)
}

const LATEST: &str = "2025-11-25";

const BILLING: &str = "spiffe://acme/billing";

fn billing(seal: &Handle) -> String {
    Handles::new(&HERE, BILLING, Some("s-1")).seal(seal).unwrap()
}

#[test]
fn what_is_granted_goes_up_and_the_rest_does_not_exist() {
    use Reason::*;
    let cases: &[(&str, &str, Result<Value, Reason>)] = &[
        (
            "prompts/get",
            r#""name":"summary","arguments":{"tenant":"globex","style":"short"}"#,
            Ok(json!({"name": "summary", "arguments": {"tenant": "acme", "style": "short", "n": "7"}})),
        ),
        (
            "prompts/get",
            r#""name":"summary""#,
            Ok(json!({"name": "summary", "arguments": {"tenant": "acme", "n": "7"}})),
        ),
        (
            "prompts/get",
            r#""name":"summary","arguments":{"style":"rude"}"#,
            Err(ArgumentOutOfBounds),
        ),
        ("prompts/get", r#""name":"purge""#, Err(PromptNotGranted)),
        ("prompts/get", r#""name":"list""#, Err(PromptUnknown)),
        ("tools/call", r#""name":"summary""#, Err(ToolUnknown)),
        (
            "resources/read",
            r#""uri":"docs://handbook""#,
            Ok(json!({"uri": "docs://handbook"})),
        ),
        (
            "resources/read",
            r#""uri":"crm://acme/7""#,
            Ok(json!({"uri": "crm://acme/7"})),
        ),
        (
            "resources/read",
            r#""uri":"crm://globex/7""#,
            Err(ResourceNotGranted),
        ),
        (
            "resources/read",
            r#""uri":"crm://acme/../globex""#,
            Err(ResourceNotGranted),
        ),
        ("resources/read", r#""uri":"keys://7""#, Err(ResourceNotGranted)),
        ("resources/read", r#""uri":7"#, Err(InvalidParams)),
        (
            "completion/complete",
            r#""ref":{"type":"ref/prompt","name":"summary"},"argument":{"name":"style","value":"s"}"#,
            Ok(json!({
                "ref": {"type": "ref/prompt", "name": "summary"},
                "argument": {"name": "style", "value": "s"},
                "context": {"arguments": {"n": "7", "tenant": "acme"}}
            })),
        ),
        (
            "completion/complete",
            r#""ref":{"type":"ref/resource","uri":"crm://acme/{id}"},"argument":{"name":"id","value":"1"},"context":{"arguments":{"tenant":"globex","x":"y"}}"#,
            Ok(json!({
                "ref": {"type": "ref/resource", "uri": "crm://{tenant}/{id}"},
                "argument": {"name": "id", "value": "1"},
                "context": {"arguments": {"x": "y", "tenant": "acme"}}
            })),
        ),
        (
            "completion/complete",
            r#""ref":{"type":"ref/resource","uri":"crm://acme/{id}"},"argument":{"name":"Tenant","value":""}"#,
            Err(InvalidParams),
        ),
        (
            "completion/complete",
            r#""ref":{"type":"ref/resource","uri":"crm://{tenant}/{id}"},"argument":{"name":"id","value":""}"#,
            Err(ResourceNotGranted),
        ),
        (
            "completion/complete",
            r#""ref":{"type":"ref/resource","uri":"keys://{id}"},"argument":{"name":"id","value":""}"#,
            Err(ResourceNotGranted),
        ),
        (
            "completion/complete",
            r#""ref":{"type":"ref/prompt","name":"purge"},"argument":{"name":"id","value":""}"#,
            Err(PromptNotGranted),
        ),
        (
            "completion/complete",
            r#""ref":{"type":"ref/prompt","name":"summary","Name":"purge"},"argument":{"name":"style","value":""}"#,
            Err(CaseVariant),
        ),
        (
            "completion/complete",
            r#""ref":{"type":"ref/tool","name":"free"},"argument":{"name":"id","value":""}"#,
            Err(InvalidParams),
        ),
    ];
    for era in [LATEST, MODERN] {
        for (method, params, expected) in cases {
            let decision = decided(&document(), era, method, params);
            assert_eq!(&params_of(&decision), expected, "{era} {method} {params}");
        }
    }
}

#[test]
fn features_of_one_era_are_granted_or_not_there() {
    use Reason::*;
    let cases = [
        (LATEST, "logging/setLevel", r#""level":"info""#, None),
        (LATEST, "resources/subscribe", r#""uri":"crm://acme/7""#, None),
        (
            LATEST,
            "resources/subscribe",
            r#""uri":"crm://globex/7""#,
            Some(ResourceNotGranted),
        ),
        (
            LATEST,
            "resources/unsubscribe",
            r#""uri":"keys://7""#,
            Some(ResourceNotGranted),
        ),
        (
            MODERN,
            "resources/subscribe",
            r#""uri":"crm://acme/7""#,
            Some(MethodUnknown),
        ),
        (
            MODERN,
            "logging/setLevel",
            r#""level":"info""#,
            Some(MethodUnknown),
        ),
    ];
    for (era, method, params, reason) in cases {
        let decision = decided(&document(), era, method, params);
        assert_eq!(outcome(&decision).err(), reason, "{era} {method}");
    }
    let mut silent = document();
    silent["clientFeatures"]["logging"] = json!(false);
    let decision = decided(&silent, LATEST, "logging/setLevel", r#""level":"info""#);
    assert_eq!(outcome(&decision), Err(FeatureNotGranted));
    assert_eq!(decision.rule.as_deref(), Some("clientFeatures.logging"));
}

#[test]
fn a_subscription_names_what_exists_only() {
    let asked = r#""notifications":{"toolsListChanged":true,"resourceSubscriptions":["crm://acme/7","crm://globex/7","docs://handbook","keys://1"],"taskIds":["x"]}"#;
    let decision = decided(&document(), MODERN, "subscriptions/listen", asked);
    let kept = json!({"notifications": {"toolsListChanged": true, "resourceSubscriptions": ["crm://acme/7", "docs://handbook"]}});
    assert_eq!(params_of(&decision), Ok(kept));
    for bad in [
        "",
        r#""notifications":{"toolsListChanged":1}"#,
        r#""notifications":{"resourceSubscriptions":"a"}"#,
        r#""notifications":{"resourceSubscriptions":[1]}"#,
    ] {
        let decision = decided(&document(), MODERN, "subscriptions/listen", bad);
        assert_eq!(outcome(&decision), Err(Reason::InvalidParams), "{bad}");
    }
    let variant = r#""notifications":{"ResourceSubscriptions":["keys://1"]}"#;
    let decision = decided(&document(), MODERN, "subscriptions/listen", variant);
    assert_eq!(outcome(&decision), Err(Reason::CaseVariant));
}

#[test]
fn a_handle_goes_up_as_the_server_s_own_value() {
    use Reason::*;
    let cursor = |method: &str| {
        billing(&Handle::Cursor {
            method: method.into(),
            value: "p\"2".into(),
        })
    };
    let task = |tool: &str| {
        billing(&Handle::Task {
            tool: tool.into(),
            id: "t-1".into(),
        })
    };
    let state = |name: &str| {
        billing(&Handle::State {
            method: "tools/call".into(),
            name: name.into(),
            value: "st".into(),
        })
    };
    let text = |handle: String| serde_json::to_string(&handle).unwrap();
    let cases: Vec<(&str, String, Result<Value, Reason>)> = vec![
        (
            "tools/list",
            format!(r#""cursor":{}"#, text(cursor("tools/list"))),
            Ok(json!({"cursor": "p\"2"})),
        ),
        (
            "prompts/list",
            format!(r#""cursor":{}"#, text(cursor("tools/list"))),
            Err(HandleUnknown),
        ),
        ("tools/list", r#""cursor":"p2""#.into(), Err(HandleUnknown)),
        (
            "tools/list",
            format!(r#""cursor":{}"#, text(task("free"))),
            Err(HandleUnknown),
        ),
        (
            "tasks/get",
            format!(r#""taskId":{}"#, text(task("free"))),
            Ok(json!({"taskId": "t-1"})),
        ),
        (
            "tasks/cancel",
            format!(r#""taskId":{}"#, text(task("delete"))),
            Err(ToolNotGranted),
        ),
        ("tasks/get", r#""taskId":"t-1""#.into(), Err(HandleUnknown)),
        (
            "tools/call",
            format!(
                r#""name":"free","requestState":{},"inputResponses":{{}}"#,
                text(state("free"))
            ),
            Ok(json!({"name": "free", "requestState": "st", "inputResponses": {}})),
        ),
        (
            "tools/call",
            format!(r#""name":"free","requestState":{}"#, text(state("list"))),
            Err(HandleUnknown),
        ),
        (
            "prompts/get",
            format!(r#""name":"summary","requestState":{}"#, text(state("summary"))),
            Err(HandleUnknown),
        ),
        (
            "tools/call",
            r#""name":"free","requestState":"st""#.into(),
            Err(HandleUnknown),
        ),
        (
            "tools/call",
            r#""name":"free","requestState":7"#.into(),
            Err(InvalidParams),
        ),
    ];
    for (method, params, expected) in cases {
        let decision = decided(&document(), MODERN, method, &params);
        assert_eq!(params_of(&decision), expected, "{method} {params}");
    }
    let undeclared = modern("tasks/get", r#""taskId":"t-1""#);
    let headers = [
        ("mcp-protocol-version", MODERN),
        ("mcp-method", "tasks/get"),
        ("mcp-name", "t-1"),
    ];
    let refused = decide(
        &compile(&document()),
        "billing",
        &headers,
        &undeclared,
        &Inventory::default(),
    );
    assert_eq!(outcome(&refused), Err(CapabilityMissing));
    // The header that names the task goes up with the server's own id as well.
    let decision = decided(
        &document(),
        MODERN,
        "tasks/get",
        &format!(r#""taskId":{}"#, text(task("free"))),
    );
    assert_eq!(decision.target, Some(Target::Tool("free".into())));
    let headers = decision.outcome.unwrap();
    let headers = headers.headers();
    assert!(
        headers.contains(&("Mcp-Name".into(), "t-1".to_owned())),
        "{headers:?}"
    );
}

#[test]
fn a_handle_of_another_replica_belongs_there_and_is_handed_on_once() {
    let policy = policy();
    let inventory = Inventory::default();
    let cursor = Handle::Cursor {
        method: "tools/list".to_owned(),
        value: "2".to_owned(),
    };
    let elsewhere = Plain("10.1.9.9:8446");
    let foreign = "spiffe://acme/root";
    for (seal, owner, reach, expected, replica) in [
        (&HERE, BILLING, Reach::EveryReplica, Ok(()), None),
        (&HERE, BILLING, Reach::ThisReplica, Ok(()), None),
        (
            &elsewhere,
            BILLING,
            Reach::EveryReplica,
            Ok(()),
            Some("10.1.9.9:8446"),
        ),
        (
            &elsewhere,
            BILLING,
            Reach::ThisReplica,
            Err(Reason::HandleUnknown),
            None,
        ),
        (
            &elsewhere,
            foreign,
            Reach::EveryReplica,
            Err(Reason::HandleUnknown),
            None,
        ),
    ] {
        let sealed = Handles::new(seal, owner, Some("s-1")).seal(&cursor).unwrap();
        let body = Bytes::from(request("tools/list", &json!({"cursor": sealed}).to_string()));
        let message = mcp::read(&body, Limits::default()).unwrap();
        let headers = MirroredHeaders::read(LEGACY.iter().map(|(name, value)| (*name, value.as_bytes())));
        let context = Context {
            reach,
            ..context(&inventory)
        };
        let decision = policy.decide(policy.agent(BILLING), &message, &headers, context);
        assert_eq!(outcome(&decision).map(|_| ()), expected, "{owner} {reach:?}");
        assert_eq!(
            decision.elsewhere.as_ref().map(Replica::as_str),
            replica,
            "{owner} {reach:?}"
        );
    }
}
