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

/// Of sockets, keys and processes. What it left for itself to find shows that it looked.
fn it_finds_only_its_own(said: &[Value]) {
    assert_eq!(
        texts(said, "abstract"),
        BTreeSet::from(["@bulkhead-probe".to_owned()])
    );
    assert_eq!(
        texts(said, "file"),
        BTreeSet::from(["/tmp/probe.sock".to_owned()])
    );
    assert_eq!(texts(said, "process"), BTreeSet::from(["1".to_owned()]));
    let udp = said.iter().filter(|line| !line["udp"].is_null());
    assert_eq!(udp.count(), 1, "{said:#?}");
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
        let status = status.as_u64();
        if address == &on_pod(KUBELET_PORT) && path == "/readyz" {
            // What the server looked at first may be before its sidecar was ready.
            assert!(matches!(status, Some(200 | 503)), "{status:?}");
            continue;
        }
        let given =
            address == &loopback(KEYS_PORT) && path == "/jwks.json" || address.ends_with(&format!(":{OWN}"));
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

    // It takes the place of none of them, though it takes what nobody has.
    let sidecar_s = [MTLS_PORT, KUBELET_PORT, PEERS_PORT];
    let mut free = BTreeSet::from(sidecar_s.map(loopback));
    free.extend([on_pod(KEYS_PORT), on_pod(0)]);
    assert_eq!(texts(&said, "taken"), free, "{said:#?}");
    let refused = texts(&said, "refused");
    let mut places = Vec::from(sidecar_s.map(on_pod));
    places.push(loopback(KEYS_PORT));
    places.extend([MTLS_PORT, KUBELET_PORT, PEERS_PORT, KEYS_PORT].map(|port| format!("0.0.0.0:{port}")));
    for place in places {
        assert!(refused.contains(&place), "{place}: {refused:?}");
    }
    it_finds_only_its_own(&said);

    // And its agents are served.
    let agent = Agent::start("besieged", "billing");
    let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"});
    let answered = agent.rpc(&tenant.url_of("dialler"), &[ping]).unwrap();
    assert_eq!(
        answered[0]["body"]["error"]["code"], -32601,
        "its own answer: {answered:?}"
    );

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
    assert!(
        found.contains_key(&(beside.address.clone(), "/mcp".to_owned())),
        "{found:?}"
    );
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
