//! Leaf certificates are renewed while calls flow.

use anyhow::{Result, bail};
use bulkhead_e2e::{Agent, Kubectl, Tenant, call_message, eventually, object, tenant};
use serde_json::{Value, json};

/// Asks cert-manager for a new certificate now, as `cmctl renew` does.
fn renew(namespace: &str, name: &str) {
    let certificate = object("certificate", namespace, name).unwrap();
    let mut conditions = certificate["status"]["conditions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    conditions.push(json!({
        "type": "Issuing", "status": "True", "reason": "ManuallyTriggered", "message": "renewal asked for by a scenario",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }));
    let patch = json!({"status": {"conditions": conditions}}).to_string();
    // Nobody but cert-manager writes a Certificate's status.
    Kubectl::cert_manager()
        .run(&[
            "patch",
            "certificate",
            "-n",
            namespace,
            name,
            "--subresource=status",
            "--type=merge",
            "-p",
            &patch,
        ])
        .unwrap();
}

fn revision(namespace: &str, name: &str) -> Result<i64> {
    let certificate: Value = object("certificate", namespace, name)?;
    match certificate["status"]["revision"].as_i64() {
        Some(revision) => Ok(revision),
        None => bail!("no revision yet"),
    }
}

#[test]
fn a_renewed_leaf_is_served_and_no_call_fails() {
    let tenant = Tenant::ready(&tenant("renewing"));
    let before = revision("renewing", "ledger-tls").unwrap();
    let body = call_message("list_invoices", Some(&json!({})));
    let load = Agent::load("renewing", "billing", &tenant.url(), &body, "\"result\"");
    renew("renewing", "ledger-tls");
    eventually("a new certificate", || {
        match revision("renewing", "ledger-tls")? {
            after if after > before => Ok(()),
            same => bail!("revision {same}"),
        }
    });
    // The kubelet brings it into the pod at once or within a minute or so.
    let serials = |report: &Value| report["serials"].as_array().map(Vec::len);
    eventually("the new certificate served, and calls on it", || {
        match load.so_far()? {
            report if serials(&report) == Some(2) && report["ok"].as_u64() > Some(100) => Ok(()),
            report => bail!("{report}"),
        }
    });
    let report = load.end();
    assert_eq!(report["failed"], 0, "{report}");
    assert_eq!(
        serials(&report),
        Some(2),
        "the old and the new certificate: {report}"
    );
}
