//! A hostile server beside its sidecar: they share a pod's network, and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};
use bulkhead_core::pod::{KEYS_PORT, KUBELET_PORT, MTLS_PORT, PEERS_PORT};
use bulkhead_e2e::{Agent, Dialler, Open, Tenant, eventually, object, record};
use serde_json::{Value, json};

/// Where its own MCP server is.
const OWN: u16 = 3000;

/// Status of each answer, by address and path; `null` where there was no HTTP.
type Answers = BTreeMap<(String, String), Value>;

fn texts(said: &[Value], member: &str) -> BTreeSet<String> {
    let lines = said.iter().filter_map(|line| line[member].as_str());
    lines.map(str::to_owned).collect()
}

fn answers_of(said: &[Value]) -> Answers {
    let answer = |line: &Value| {
        let (address, path) = (line["open"].as_str()?, line["asked"].as_str()?);
        Some(((address.to_owned(), path.to_owned()), line["status"].clone()))
    };
    said.iter().filter_map(answer).collect()
}

fn scanned(said: Result<Vec<Value>>) -> Result<Vec<Value>> {
    let said = said?;
    ensure!(said.iter().any(|line| line["scanned"] == true), "{said:?}");
    Ok(said)
}

#[test]
fn a_server_finds_nothing_of_its_sidecar_s_but_the_keys_of_its_credentials() {
    // Where its sidecar reports is open to the whole pod.
    let operator = object("service", "bulkhead-system", "bulkhead-operator").unwrap();
    let control = format!(
        "{}:{}",
        operator["spec"]["clusterIP"].as_str().unwrap(),
        bulkhead_core::control::PORT
    );
    let spec = Dialler::tenant("besieged", 1, &["--scan", "--speak", &control]);
    let tenant = Tenant::ready(&spec);
    let dialler = Dialler::of("besieged");
    let pod = dialler.new_pods(1, &[]).remove(0);
    let said = eventually("it has looked around", || scanned(dialler.said(&pod)));

    let loopback = |port: u16| format!("127.0.0.1:{port}");
    let on_pod = |port: u16| format!("{}:{port}", pod.ip);
    let answers = answers_of(&said);
    let open: BTreeSet<_> = answers.keys().map(|(address, _)| address.clone()).collect();
    let expected = [
        loopback(OWN),
        loopback(KEYS_PORT),
        on_pod(OWN),
        on_pod(MTLS_PORT),
        on_pod(KUBELET_PORT),
        on_pod(PEERS_PORT),
    ];
    let found: BTreeSet<_> = open
        .iter()
        .filter(|address| **address != control)
        .cloned()
        .collect();
    assert_eq!(found, BTreeSet::from(expected), "{said:#?}");
    for ((address, path), status) in &answers {
        let given = address == &loopback(KEYS_PORT) && path == "/jwks.json"
            || address == &on_pod(KUBELET_PORT) && path == "/readyz"
            || address.ends_with(&format!(":{OWN}"));
        let status = status.as_u64();
        assert_eq!(
            status.is_some_and(|status| status < 300),
            given,
            "{address}{path}: {status:?}"
        );
    }
    // Where agents, replicas and sidecars come in, nothing is said in plain text.
    for address in [on_pod(MTLS_PORT), on_pod(PEERS_PORT), control] {
        let mut said = answers.iter().filter(|((of, _), _)| *of == address);
        assert!(open.contains(&address), "{open:?}");
        assert!(said.all(|(_, status)| status.is_null()), "{address}: {answers:?}");
    }

    // It takes the place of none of them, though it takes a free one.
    let taken = texts(&said, "taken");
    assert_eq!(taken, BTreeSet::from([on_pod(0)]), "{said:#?}");
    let refused = texts(&said, "refused");
    for port in [MTLS_PORT, KUBELET_PORT, KEYS_PORT, PEERS_PORT] {
        assert!(
            refused.contains(&format!("0.0.0.0:{port}")),
            "{port}: {refused:?}"
        );
    }
    for member in ["udp", "abstract", "file", "process"] {
        let found: Vec<_> = said.iter().filter(|line| !line[member].is_null()).collect();
        assert!(found.is_empty(), "{member}: {found:?}");
    }

    // And its agents are served.
    let agent = Agent::start("besieged", "billing");
    let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"});
    let answered = agent.rpc(&tenant.url_of("dialler"), &[ping]).unwrap();
    assert_eq!(answered[0]["status"], 200, "{answered:?}");

    // The control: in a pod without a sidecar all of it is there.
    let beside = Open::target("beside");
    let args = [
        "listen",
        "--mcp",
        &MTLS_PORT.to_string(),
        "--scan",
        "--speak",
        &beside.address,
    ];
    let bare = Agent::running("open", "bare", &args);
    let found = answers_of(&eventually("it has looked around", || scanned(bare.said())));
    let mcp = |address: String| found[&(address, "/mcp".to_owned())] == 200;
    assert!(
        mcp(loopback(MTLS_PORT)) && mcp(format!("{}:{MTLS_PORT}", bare.ip())),
        "{found:?}"
    );
    record(
        "own addresses, users, mounts",
        "a server looks for its sidecar's ports, sockets, files and processes, speaks to them and takes them",
        "the keys of its credentials and whether it is ready, nothing else",
        "a pod without a sidecar: its port answers",
    );
}
