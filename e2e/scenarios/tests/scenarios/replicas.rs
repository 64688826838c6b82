//! Two replicas of one server: to an agent they are one.

use std::time::Instant;

use anyhow::{Result, ensure};
use bulkhead_e2e::{Agent, PROOF, Tenant, call_message, eventually, objects, said, tenant};
use serde_json::{Value, json};

/// The requests of the agent that each pod has recorded as permitted, those about this tool or all.
fn permitted(pods: &[Value], tool: Option<&str>) -> Result<Vec<u32>> {
    let permitted = |pod: &Value| {
        let name = pod["metadata"]["name"].as_str().unwrap();
        let records = said("twofold", name, "bulkhead-proxy")?;
        let counted = records.iter().filter(|record| {
            record["agent"] == "billing"
                && record["decision"] == "permit"
                && tool.is_none_or(|tool| record["tool"] == tool)
        });
        Ok(u32::try_from(counted.count())?)
    };
    pods.iter().map(permitted).collect()
}

/// Requests a minute that the agent may make, and all agents together: of both each replica gives its part.
const LIMIT: u32 = 40;

#[test]
fn to_an_agent_two_replicas_are_one() {
    let mut spec = tenant("twofold");
    spec["spec"]["servers"][0]["replicas"] = json!(2);
    spec["spec"]["limits"] = json!({"requestsPerMinute": LIMIT});
    spec["spec"]["agents"][0]["limits"] = spec["spec"]["limits"].clone();
    let tenant = Tenant::ready(&spec);
    let agent = Agent::start("twofold", "billing");
    let pods = objects("pods", "twofold", "bulkhead.dev/server=ledger").unwrap();
    assert_eq!(pods.len(), 2);
    let addresses: Vec<String> = pods
        .iter()
        .map(|pod| format!("{}:8443", pod["status"]["podIP"].as_str().unwrap()))
        .collect();

    a_session_goes_on_whichever_is_asked(&agent, &tenant.url(), &pods, &addresses);
    one_that_is_asked_more_gives_more(&agent, &tenant.url(), &pods, &addresses[..1]);
}

/// So many calls in one session, by way of these in turn.
fn calls(agent: &Agent, url: &str, via: &[String], number: usize) -> Result<Vec<Value>> {
    let call = call_message("list_invoices", Some(&json!({}))).to_string();
    let mut args = vec!["rpc", "--url", url];
    args.extend(PROOF);
    args.extend(via.iter().flat_map(|address| ["--via", address.as_str()]));
    args.extend(vec![call.as_str(); number]);
    agent.probe(&args)
}

fn a_session_goes_on_whichever_is_asked(agent: &Agent, url: &str, pods: &[Value], addresses: &[String]) {
    let answers = calls(agent, url, addresses, 6).unwrap();
    assert_eq!(answers.len(), 6);
    for answer in &answers {
        assert!(answer["body"]["result"].is_object(), "{answer}");
    }
    // The session lives in one of them, and is recorded there.
    eventually("six records in one replica", || {
        let mut counts = permitted(pods, Some("list_invoices"))?;
        counts.sort_unstable();
        ensure!(counts == [0, 6], "{counts:?}");
        Ok(())
    });
}

/// An agent whose connections are all to one replica has nearly all of its limit there.
fn one_that_is_asked_more_gives_more(agent: &Agent, url: &str, pods: &[Value], via: &[String]) {
    let all = || Ok::<u32, anyhow::Error>(permitted(pods, None)?.iter().sum());
    let before = all().unwrap();
    let begun = Instant::now();
    // The most that a limit lets through since, whatever was used before.
    let most = |limit: u32| f64::from(limit) * (1.0 + begun.elapsed().as_secs_f64() / 60.0);
    eventually("more than an equal part", || {
        // Most are refused, the opening of a session too.
        calls(agent, url, via, 6)?;
        let (so_far, equal) = (f64::from(all()? - before), most(LIMIT / 2));
        ensure!(
            so_far > equal + 1.0,
            "{so_far} requests, and {equal} would be an equal part"
        );
        Ok(())
    });
    let so_far = f64::from(all().unwrap() - before);
    assert!(so_far <= most(LIMIT) + 1.0, "{so_far} requests");
}
