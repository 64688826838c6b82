//! An agent acts for a person whose token an issuer signed: the operator finds the issuer's keys, through its own walls.

use std::time::{SystemTime, UNIX_EPOCH};

use bulkhead_e2e::{Agent, Issuer, Ledger, PROOF, Tenant, call_message, tenant};
use serde_json::{Value, json};

const HOSTNAME: &str = "ledger.persons.example.com";

fn names(answer: &Value) -> Vec<&str> {
    let tools = answer["body"]["result"]["tools"].as_array().expect("a list");
    tools.iter().map(|tool| tool["name"].as_str().unwrap()).collect()
}

#[test]
fn an_agent_may_for_a_person_what_both_may() {
    let issuer = Issuer::start("login");
    let mut spec = tenant("persons");
    spec["spec"]["issuers"] = json!([{
        "name": "corp", "url": issuer.url(), "audiences": ["api://persons"], "certificateAuthority": issuer.authority,
        "roles": [{"claim": "groups", "value": "finance", "roles": ["reader"]}, {"claim": "groups", "value": "owners", "roles": ["owner"]}],
    }]);
    spec["spec"]["agents"][0]["roles"] = json!(["reader", "admin"]);
    spec["spec"]["agents"][0]["clients"] = json!([{"issuer": "corp", "id": "billing-desk"}]);
    spec["spec"]["servers"][0]["hostnames"] = json!([HOSTNAME]);
    // Ready only once every sidecar says that it has the issuer's keys.
    let tenant = Tenant::ready(&spec);
    let agent = Agent::start("persons", "billing");
    let list = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}).to_string();
    let call = call_message("list_invoices", Some(&json!({}))).to_string();

    // Acting for itself the agent has what its own roles give.
    assert_eq!(agent.tools(&tenant.url()).unwrap().len(), 3);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let claims = |sub: &str, client: &str, groups: &[&str]| {
        json!({
            "iss": issuer.url(), "sub": sub, "aud": "api://persons", "client_id": client, "groups": groups,
            "iat": now, "exp": now + 600, "jti": format!("token-of-{sub}"),
        })
    };
    let with = |claims: &Value, host: &str, bodies: &[&str]| {
        let token = issuer.sign(claims).unwrap();
        let flags = [&PROOF[..2], &["--bearer", &token, "--host", host]].concat();
        agent.raw_with(&tenant.url(), &flags, bodies).unwrap()
    };
    let ada = claims("ada", "billing-desk", &["finance"]);
    let answers = with(&ada, HOSTNAME, &[&list, &call]);
    assert_eq!(
        names(&answers[0]),
        ["list_invoices", "search_notes"],
        "{answers:?}"
    );
    assert!(answers[1]["body"]["result"].is_object(), "{answers:?}");

    // A role that the agent hasn't gives nothing; nor does a name that the server hasn't, or another's client.
    let eve = claims("eve", "billing-desk", &["owners"]);
    let answers = with(&eve, "ledger.persons.svc:8443", &[&list, &call]);
    assert_eq!(names(&answers[0]), [""; 0], "{answers:?}");
    assert_eq!(
        answers[1]["body"]["error"]["message"],
        "Unknown tool: list_invoices"
    );
    for (claims, host, reason) in [
        (&ada, "ledger.other.example.com", "host_not_allowed"),
        (
            &claims("ada", "another-desk", &["finance"]),
            HOSTNAME,
            "token_binding",
        ),
    ] {
        let answers = with(claims, host, &[&call]);
        let refused = answers[0]["error"].as_str().unwrap_or_default();
        assert!(refused.contains(reason), "{reason}: {answers:?}");
    }

    let made = Ledger::of("persons").recorded("ada's call", |record| {
        record["person"] == "ada" && record["tool"] == "list_invoices"
    });
    assert_eq!(
        (&made["agent"], &made["issuer"], &made["token"], &made["decision"]),
        (
            &json!("billing"),
            &json!("corp"),
            &json!("token-of-ada"),
            &json!("permit")
        )
    );
}
