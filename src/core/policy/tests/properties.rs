use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::json::tests::json_text;

const ROLES: [&str; 3] = ["a", "b", "c"];
const TOOLS: [&str; 3] = ["t0", "t1", "t2"];

fn roles() -> impl Strategy<Value = BTreeSet<&'static str>> {
    prop::collection::btree_set(prop::sample::select(&ROLES[..]), 0..3)
}

/// A policy of one agent and some tools.
fn small(agent: &BTreeSet<&str>, tools: &[(&str, &BTreeSet<&str>)]) -> CompiledPolicy {
    let tools: Vec<_> = tools
        .iter()
        .map(|(name, roles)| json!({"name": name, "roles": roles, "forced": {"tenant": {"string": "acme"}}, "bounds": {"n": {"maximum": 10}}}))
        .collect();
    let mut document = document();
    document["agents"] = json!([{"name": "x", "spiffeId": "spiffe://acme/x", "roles": agent}]);
    document["tools"] = json!(tools);
    compile(&document)
}

fn permits(policy: &CompiledPolicy, body: &str) -> bool {
    decide(policy, "x", LEGACY, body, &Inventory::default())
        .outcome
        .is_ok()
}

/// Arguments with hostile spellings and the names that rules are about.
fn arguments() -> impl Strategy<Value = String> {
    let name = prop_oneof!["tenant", "t\\\\u0065nant", "Tenant", "n", "N", "[a-c]{1,2}"];
    prop_oneof![
        json_text(),
        prop::collection::vec((name, json_text()), 0..4).prop_map(|members| {
            let members: Vec<_> = members
                .iter()
                .map(|(name, value)| format!("\"{name}\" :{value}"))
                .collect();
            format!("{{ {} }}", members.join(" , "))
        }),
    ]
}

proptest! {
    #[test]
    fn a_permit_means_that_a_rule_allowed_it(agent in roles(), tools in prop::collection::vec(roles(), 3), tool in prop::sample::select(&TOOLS[..])) {
        let named: Vec<_> = TOOLS.into_iter().zip(&tools).take(2).collect();
        let allowed = named.iter().any(|(name, roles)| *name == tool && !roles.is_disjoint(&agent));
        prop_assert_eq!(permits(&small(&agent, &named), &call(tool, "{}")), allowed);
    }

    #[test]
    fn taking_away_a_tool_or_a_role_never_widens(agent in roles(), tools in prop::collection::vec(roles(), 3), gone in 0usize..3, role in prop::sample::select(&ROLES[..])) {
        let all: Vec<_> = TOOLS.into_iter().zip(&tools).collect();
        let before = small(&agent, &all);
        let mut fewer = all.clone();
        fewer.remove(gone);
        let mut weaker = agent.clone();
        weaker.remove(role);
        let mut narrower = tools.clone();
        narrower[gone].remove(role);
        let narrower: Vec<_> = TOOLS.into_iter().zip(&narrower).collect();
        for after in [small(&agent, &fewer), small(&weaker, &all), small(&agent, &narrower)] {
            for tool in TOOLS {
                let body = call(tool, "{}");
                prop_assert!(!permits(&after, &body) || permits(&before, &body), "{}", tool);
            }
        }
    }

    #[test]
    fn what_goes_up_is_what_was_decided(arguments in arguments()) {
        let policy = policy();
        let text = call("list", &arguments);
        let body = Bytes::from(text.clone());
        prop_assume!(mcp::read(&body, Limits::default()).is_ok());
        let decision = decide(&policy, "billing", LEGACY, &text, &Inventory::default());
        let Ok(sent) = outcome(&decision) else { return Ok(()) };

        // Read by someone else, it is the caller's message with the forced value, and no more.
        let mut expected: Value = serde_json::from_str(&text).unwrap();
        let arguments = &mut expected["params"]["arguments"];
        if arguments.is_null() {
            *arguments = json!({});
        }
        arguments["tenant"] = json!("acme");
        prop_assert_eq!(serde_json::from_str::<Value>(&sent).unwrap(), expected);

        // Sent again, it is permitted and nothing changes.
        let again = decide(&policy, "billing", LEGACY, &sent, &Inventory::default());
        prop_assert_eq!(outcome(&again), Ok(sent));
        prop_assert!(again.overridden.is_empty());
    }

    #[test]
    fn bounds_hold_for_whatever_goes_up(value in json_text()) {
        let text = call("list", &format!(r#"{{"limit":{value}}}"#));
        let body = Bytes::from(text.clone());
        prop_assume!(mcp::read(&body, Limits::default()).is_ok());
        if let Ok(sent) = outcome(&decide(&policy(), "billing", LEGACY, &text, &Inventory::default())) {
            let sent: Value = serde_json::from_str(&sent).unwrap();
            prop_assert!(sent["params"]["arguments"]["limit"].as_f64().is_some_and(|limit| limit <= 100.0));
        }
    }

    #[test]
    fn any_answer_is_decided(result in json_text(), method in prop::sample::select(&["tools/list", "tools/call", "ping"][..])) {
        let policy = policy();
        let params = if method == "tools/call" { r#"{"name":"free"}"# } else { "{}" };
        let permitted = decide(&policy, "billing", LEGACY, &request(method, params), &Inventory::default()).outcome.unwrap();
        let body = Bytes::from(format!(r#"{{"jsonrpc":"2.0","id":1,"result":{result}}}"#));
        let caller = policy.agent("spiffe://acme/billing");
        if let Answer::Final(answer) = policy.answer(caller, Channel::Answer(permitted.expected().unwrap()), &body, context(&Inventory::default())) {
            prop_assert!(serde_json::from_slice::<Value>(&answer.body).is_ok());
        }
    }
}
