//! Another tenant's agent, on every way there is.

use bulkhead_e2e::{Agent, Tenant, apply, delete, eventually, object, objects, samples, server, tenant};
use serde_json::json;

#[test]
fn another_tenants_certificate_is_refused_by_tls_even_from_inside() {
    let [acme, _] = samples();
    // Worse than real: a thief who has globex's key and runs in acme's own agents' namespace.
    let mut stolen = object("secret", "globex-agents", "billing-tls").unwrap();
    stolen["metadata"] = json!({"name": "stolen", "namespace": "acme-agents"});
    apply(&stolen).unwrap();
    let thief = Agent::start_with("acme-agents", "probe-thief", "billing", "stolen");
    eventually(
        "the network lets the thief through, so that TLS is what refuses",
        || thief.dial("ledger.acme.svc:8443"),
    );
    let list = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"});
    let answers = thief.rpc(&acme.url, &[list]).unwrap();
    assert!(answers[0]["error"].is_string(), "{answers:?}");
    delete("secret", "acme-agents", "stolen").unwrap();

    Agent::start("acme", "billing")
        .tools(&acme.url)
        .expect("acme's own agent is let in");
}

#[test]
fn another_tenants_pods_are_refused_by_the_network() {
    let [acme, globex] = samples();
    let foreign = Agent::start("globex", "billing");
    foreign
        .dial("ledger.acme.svc:8443")
        .expect_err("from globex to acme");
    foreign
        .dial("ledger.globex.svc:8443")
        .expect("from globex to globex");
    let own = Agent::start("acme", "billing");
    own.dial("ledger.acme.svc:8443").expect("from acme to acme");
    own.tools(&acme.url).expect("and it is answered");
    own.tools(&globex.url).expect_err("but not by globex");
}

#[test]
fn the_sidecars_port_alone_is_reachable_and_from_the_tenants_agents_and_declared_clients_alone() {
    let gateway = json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": "gateway", "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
    });
    apply(&gateway).unwrap();
    // This server listens on every address, against the advice: the network must do without its help.
    let mut spec = tenant("openly");
    let mut open = server();
    open["args"] = json!(["--listen", "0.0.0.0:3000"]);
    open["clients"] = json!([{"namespace": "gateway", "podLabels": {"bulkhead.dev/agent": "default"}}]);
    spec["spec"]["servers"] = json!([open]);
    let tenant = Tenant::ready(&spec);
    let pods = objects("pods", "openly", "bulkhead.dev/server=ledger").unwrap();
    let ip = pods[0]["status"]["podIP"].as_str().unwrap().to_owned();

    let own = Agent::start("openly", "billing");
    own.tools(&tenant.url()).expect("through the sidecar it answers");
    own.dial(&format!("{ip}:8443"))
        .expect("the sidecar's port is open to the tenant's agents");
    samples();
    let foreign = Agent::start("globex", "billing");
    let edge = Agent::bystander("gateway", "edge");
    eventually("the declared client passes", || {
        edge.dial("ledger.openly.svc:8443")
    });
    for (who, agent) in [
        ("its own agents", &own),
        ("another tenant", &foreign),
        ("the declared client", &edge),
    ] {
        for port in [3000, 8444, 8446, 9464] {
            agent
                .dial(&format!("{ip}:{port}"))
                .expect_err(&format!("{who}, port {port}"));
        }
    }
    foreign
        .dial(&format!("{ip}:8443"))
        .expect_err("another tenant, the sidecar's port");
    let anonymous = edge
        .probe(&["rpc", "--url", &tenant.url(), "--trust", "/nowhere"])
        .unwrap();
    assert!(
        anonymous[0]["error"].is_string(),
        "a declared client needs a certificate all the same: {anonymous:?}"
    );
    edge.dial("ledger.acme.svc:8443")
        .expect_err("a tenant that declared nothing");
}
