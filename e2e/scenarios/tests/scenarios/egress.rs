//! What servers and agents may dial.

use anyhow::{Result, bail};
use bulkhead_e2e::{Agent, Kubectl, Tenant, apply, dialled, eventually, object, samples, setting, tenant};
use serde_json::{Value, json};

/// Dials from inside the container of a server. A probe that doesn't run is no refusal.
fn dial_from(server: &str, tenant: &str, target: &str) -> Result<()> {
    let deployment = format!("deploy/{server}");
    let dial = [
        "exec",
        "-n",
        tenant,
        &deployment,
        "-c",
        "server",
        "--",
        "/usr/local/bin/bulkhead-probe",
        "dial",
        target,
    ];
    let text = Kubectl::break_glass()
        .run(&[&dial[..], &["--attempts", "3"]].concat())
        .expect("the probe must run");
    dialled(target, &[serde_json::from_str(text.trim())?])
}

fn dial_from_server(tenant: &str, target: &str) -> Result<()> {
    dial_from("dialler", tenant, target)
}

/// A tenant of which two servers and an agent declare targets, each its own.
fn outbound() -> Value {
    let mut spec = tenant("outbound");
    spec["spec"]["servers"] = json!([{
        "name": "dialler",
        "image": setting("BULKHEAD_E2E_IMAGE_PROBE"),
        "args": ["listen", "--mcp", "3000"],
        "http": {"port": 3000},
        "egress": [{"to": {"namespace": "databases", "podLabels": {"app": "postgres"}}, "ports": [5432]}],
    }, {
        "name": "resolver",
        "image": setting("BULKHEAD_E2E_IMAGE_PROBE"),
        "args": ["listen", "--mcp", "3000"],
        "http": {"port": 3000},
        "dns": "Cluster",
    }]);
    spec["spec"]["agents"] = json!([
        {"name": "billing", "roles": ["reader"]},
        {"name": "crawler", "roles": ["reader"],
         "egress": [{"to": {"namespace": "outside", "podLabels": {"app": "target"}}, "ports": [7000]}]},
    ]);
    spec
}

#[test]
fn what_is_declared_is_open_to_who_declared_it_and_nothing_else_is() {
    let tenant = Tenant::ready(&outbound());
    samples();
    let [billing, crawler] = ["billing", "crawler"].map(|agent| Agent::start(&tenant.name, agent));
    servers(&tenant.name);
    billing
        .dial("postgres.databases.svc:5432")
        .expect_err("an agent going round the sidecar");
    billing
        .dial("dialler.outbound.svc:8443")
        .expect("an agent calling its server");
    agents(&billing, &crawler);
}

/// A server dials what it declares.
fn servers(tenant: &str) {
    let service = |namespace: &str, name: &str| {
        let object = object("service", namespace, name).unwrap();
        object["spec"]["clusterIP"].as_str().unwrap().to_owned()
    };
    eventually("the declared database, by name", || {
        dial_from_server(tenant, "postgres.databases.svc:5432")
    });
    let denied = [
        ("the API server", "kubernetes.default".to_owned(), 443),
        ("the cluster's DNS", "kube-dns.kube-system".to_owned(), 53),
        ("another tenant's sidecar", "ledger.acme".to_owned(), 8443),
    ];
    for (what, service_name, port) in denied {
        let (name, namespace) = service_name.split_once('.').unwrap();
        let target = format!("{}:{port}", service(namespace, name));
        dial_from_server(tenant, &target).expect_err(what);
    }
    let unknown = |error: anyhow::Error| error.to_string().contains("lookup");
    let undeclared = "ledger.acme.svc:8443";
    let error = dial_from_server(tenant, undeclared).expect_err("a name that was not declared");
    assert!(unknown(error), "isn't known to a server without DNS");
    let error = dial_from("resolver", tenant, undeclared).expect_err("DNS opens nothing else");
    assert!(
        !unknown(error),
        "with the cluster's DNS, the control, it is known, and refused all the same"
    );
}

/// An agent dials what it declares.
fn agents(billing: &Agent, crawler: &Agent) {
    let outside = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "outside"}});
    apply(&outside).unwrap();
    let target = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "target", "namespace": "outside", "labels": {"app": "target"}},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [{
            "name": "target", "image": setting("BULKHEAD_E2E_IMAGE_PROBE"), "imagePullPolicy": "IfNotPresent", "args": ["listen", "7000", "7001"],
        }]},
    });
    apply(&target).unwrap();
    let ip = eventually("the target's address", || -> Result<String> {
        let pod = object("pod", "outside", "target")?;
        match pod["status"]["podIP"].as_str() {
            Some(ip) => Ok(ip.to_owned()),
            None => bail!("none yet"),
        }
    });
    eventually("the crawler's declared target", || {
        crawler.dial(&format!("{ip}:7000"))
    });
    let neighbour = Agent::bystander("outside", "neighbour");
    for port in [7000, 7001] {
        let target = format!("{ip}:{port}");
        eventually("the target listens, for who is free to dial it", || {
            neighbour.dial(&target)
        });
    }
    billing
        .dial(&format!("{ip}:7000"))
        .expect_err("an agent that declared nothing");
    crawler.dial(&format!("{ip}:7001")).expect_err("another port");
}
