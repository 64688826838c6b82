//! Two tenants come up from `kubectl apply`, and their agents call their tools.

use bulkhead_e2e::{Kubectl, samples};

#[test]
fn each_sample_tenant_answers_its_agent_with_its_own_rows() {
    for sample in samples() {
        let target = format!("{}/ledger", sample.name);
        let call = Kubectl::plugin(&["call", &target, "list_invoices", "{}", "--agent", "billing"]).unwrap();
        assert_eq!(call.code, 0, "{}{}", call.stdout, call.stderr);
        let other = if sample.name == "acme" { "globex" } else { "acme" };
        assert!(call.stdout.contains(&sample.name), "own rows: {}", call.stdout);
        assert!(!call.stdout.contains(other), "no rows of others: {}", call.stdout);
    }
}

#[test]
fn a_refused_call_says_which_rule_refused_it() {
    samples();
    let call = Kubectl::plugin(&[
        "call",
        "acme/ledger",
        "delete_invoice",
        r#"{"invoice_id": "x"}"#,
        "--agent",
        "billing",
    ])
    .unwrap();
    assert_eq!(call.code, 5, "{}{}", call.stdout, call.stderr);
    let said = format!("{}{}", call.stdout, call.stderr);
    assert!(said.contains("Unknown tool"), "what the client saw: {said}");
    assert!(
        said.contains("delete_invoice") && said.to_lowercase().contains("role"),
        "the rule, from the audit: {said}"
    );
}

#[test]
fn status_shows_the_tree_of_a_tenant() {
    samples();
    let status = Kubectl::plugin(&["status", "acme"]).unwrap();
    assert_eq!(status.code, 0, "{}{}", status.stdout, status.stderr);
    for part in [
        "acme",
        "Ready",
        "CertificatesReady",
        "NetworkIsolated",
        "PolicyEnforced",
        "ToolsOffered",
        "ledger",
        "billing",
    ] {
        assert!(status.stdout.contains(part), "{part} in {}", status.stdout);
    }
    assert_eq!(Kubectl::plugin(&["status", "nobody"]).unwrap().code, 4);
}
