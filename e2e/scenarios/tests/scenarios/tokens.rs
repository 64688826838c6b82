//! A certificate proves nothing without the agent's own token for this tenant.

use bulkhead_e2e::{Agent, Ledger, PROOF, call_message, samples};
use serde_json::json;

#[test]
fn a_certificate_without_the_kubelets_token_for_this_tenant_is_refused() {
    samples();
    let url = "https://ledger.acme.svc:8443/mcp";
    let agent = Agent::start_with("acme-agents", "probe-tokens", "billing", "billing-tls");
    let call = call_message("list_invoices", Some(&json!({}))).to_string();
    for (token, reason) in [
        (&[][..], "token_missing"),
        (&["--token", "/etc/bulkhead/token/elsewhere"], "token_audience"),
    ] {
        let flags = [&PROOF[..2], token].concat();
        let answers = agent.raw_with(url, &flags, &[&call]).unwrap();
        let refused = answers[0]["error"].as_str().unwrap_or_default();
        let told = refused.contains("HTTP 401") && refused.contains(reason);
        assert!(told, "{token:?}: {answers:?}");
    }
    let answers = agent.raw(url, &[&call]).unwrap();
    assert!(answers[0]["body"]["result"].is_object(), "{answers:?}");

    let ledger = Ledger::of("acme");
    for reason in ["token_missing", "token_audience"] {
        ledger.recorded(reason, |record| record["reason"] == reason);
    }
    let made = ledger.recorded("the call, with its pod", |record| {
        record["pod"] == "probe-tokens" && record["tool"] == "list_invoices"
    });
    let id = made["token"].as_str().unwrap();
    assert!(id.len() >= 32, "the API server's own id of the token: {id}");
}
