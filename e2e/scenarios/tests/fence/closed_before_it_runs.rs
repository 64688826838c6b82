//! A server that dials in its first millisecond, fifty times.

use std::collections::BTreeSet;

use bulkhead_e2e::{Agent, Dialler, Kubectl, Open, Tenant, eventually, object, record, samples};
use serde_json::Value;

/// Pods at once.
const REPLICAS: usize = 10;
/// Pod starts to see.
const STARTS: usize = 50;

#[test]
fn a_server_that_dials_in_its_first_millisecond_never_connects() {
    samples();
    let target = Open::target("first");
    let acme = object("service", "acme", "ledger").unwrap();
    let acme = format!("{}:8443", acme["spec"]["clusterIP"].as_str().unwrap());
    let first = ["--first", &target.address, "--first", &acme];

    // The control: nothing holds a bare pod back.
    let mut free = 0;
    for name in ["free-1", "free-2", "free-3"] {
        let bare = Agent::running("open", name, &[&["listen", "3000"], &first[..]].concat());
        let outcomes = eventually("it has dialled", || outcomes(&bare.said()?, 2));
        free += usize::from(outcomes.contains(&(target.address.clone(), true)));
    }
    assert_eq!(free, 3, "bare pods connect");

    let _tenant = Tenant::ready(&Dialler::tenant(
        "eager",
        u32::try_from(REPLICAS).unwrap(),
        &first,
    ));
    let dialler = Dialler::of("eager");
    let mut seen = BTreeSet::new();
    let mut old = Vec::new();
    while seen.len() < STARTS {
        let pods = dialler.new_pods(REPLICAS, &old);
        for pod in &pods {
            let outcomes = eventually("it has dialled", || outcomes(&dialler.said(pod)?, 2));
            assert!(
                outcomes.iter().all(|(_, connected)| !connected),
                "{}: {outcomes:?}",
                pod.name
            );
            seen.insert(pod.uid.clone());
        }
        let came = target.came();
        assert!(pods.iter().all(|pod| !came.contains(&pod.ip)), "{came:?}");
        let delete = [
            "delete",
            "pods",
            "-n",
            "eager",
            "-l",
            "bulkhead.dev/server=dialler",
        ];
        Kubectl::admin()
            .run(&[&delete[..], &["--wait=false", "--grace-period=2"]].concat())
            .unwrap();
        old = pods;
    }
    record(
        "canary, NetworkPolicies",
        "a server dials an open target and another tenant in its first millisecond",
        &format!("0 of {} pods connect", seen.len()),
        &format!("{free} of 3 bare pods connect"),
    );
}

/// Target and whether it was reached, of each first dial; an error until there are so many.
fn outcomes(said: &[Value], count: usize) -> anyhow::Result<Vec<(String, bool)>> {
    let outcomes: Vec<_> = said
        .iter()
        .filter_map(|line| Some((line["first"].as_str()?.to_owned(), line["connected"].as_bool()?)))
        .collect();
    anyhow::ensure!(outcomes.len() == count, "{outcomes:?}");
    Ok(outcomes)
}
