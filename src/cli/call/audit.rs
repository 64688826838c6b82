//! What the sidecar recorded of a call, for those who may read its log: found by the call's trace.

use std::time::Duration;

use bulkhead_core::pod::SIDECAR_CONTAINER;
use futures::future;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, LogParams},
};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use super::{target::Target, trace::Trace};
use crate::paint;

/// How often a log is read again that doesn't have the record yet: node agents hand lines on with a delay.
const ATTEMPTS: u32 = 4;

/// What was found.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// Nobody looked.
    NotAsked,
    /// Records of the trace, in order.
    Records(Vec<Record>),
    /// None, and why.
    Nothing(String),
}

/// A decision of the sidecar: what this command shows of `bulkhead_core::audit::IntentRecord`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// When.
    pub time: String,
    /// The MCP method, if the message could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// The tool, if the policy knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// The rule that decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The policy's revision.
    pub policy_revision: String,
    /// `permit` or `refuse`.
    pub decision: String,
    /// Why it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Arguments whose value the policy replaced.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overridden_arguments: Vec<String>,
    #[serde(default, skip_serializing)]
    traceparent: Option<String>,
}

impl Record {
    /// The record in a line of the sidecar's log, if it is a decision about this trace.
    fn read(line: &str, trace_id: &str) -> Option<Self> {
        // Most lines of a busy sidecar are others' and needn't be parsed.
        let record: Self = line
            .contains(trace_id)
            .then(|| serde_json::from_str(line).ok())??;
        (record.traceparent.as_deref()?.split('-').nth(1)? == trace_id).then_some(record)
    }

    fn text(&self) -> String {
        let about = self
            .tool
            .as_deref()
            .or(self.method.as_deref())
            .unwrap_or("the request");
        let mut parts = vec![match self.decision.as_str() {
            "refuse" => paint::bad(&format!("the sidecar refused {about}")),
            _ => paint::good(&format!("the sidecar permitted {about}")),
        }];
        parts.extend(self.reason.as_ref().map(|reason| format!("reason {reason}")));
        parts.extend(self.rule.as_ref().map(|rule| format!("rule {rule}")));
        parts.push(format!("policy {}", self.policy_revision));
        if !self.overridden_arguments.is_empty() {
            parts.push(format!(
                "overridden arguments {}",
                self.overridden_arguments.join(", ")
            ));
        }
        parts.join(", ")
    }
}

impl Found {
    /// For people.
    pub fn text(&self) -> Option<String> {
        match self {
            Self::NotAsked => None,
            Self::Records(records) => Some(
                records
                    .iter()
                    .map(|record| format!("audit: {}", record.text()))
                    .collect::<Vec<_>>()
                    .join("\n"),
            ),
            Self::Nothing(why) => Some(format!("audit: {why}")),
        }
    }
}

/// Looks into the logs of the server's sidecars, as far back as the call began.
pub async fn find(client: &Client, target: &Target, trace: &Trace, since: Duration) -> Found {
    let Target { tenant, server } = target;
    let pods: Api<Pod> = Api::namespaced(client.clone(), tenant);
    let names = match pods
        .list(&ListParams::default().labels(&format!("bulkhead.dev/server={server}")))
        .await
    {
        Ok(pods) => pods.iter().map(ResourceExt::name_any).collect::<Vec<_>>(),
        Err(error) => return Found::Nothing(why(&error, tenant)),
    };
    let params = LogParams {
        container: Some(SIDECAR_CONTAINER.into()),
        // Some seconds more: the node's clock isn't ours.
        since_seconds: Some(
            i64::try_from(since.as_secs())
                .unwrap_or(i64::MAX)
                .saturating_add(30),
        ),
        ..LogParams::default()
    };
    for attempt in 1..=ATTEMPTS {
        let logs = future::join_all(names.iter().map(|name| pods.logs(name, &params))).await;
        let failed = logs.iter().find_map(|log| log.as_ref().err());
        let read: Vec<_> = logs.iter().filter_map(|log| log.as_deref().ok()).collect();
        let records = relevant(read.iter().flat_map(|log| log.lines()), trace.id());
        if !records.is_empty() {
            return Found::Records(records);
        }
        if let (true, Some(error)) = (read.is_empty(), failed) {
            return Found::Nothing(why(error, tenant));
        }
        if attempt < ATTEMPTS {
            sleep(Duration::from_millis(300)).await;
        }
    }
    Found::Nothing(format!(
        "no record of this call in the logs of {} sidecars",
        names.len()
    ))
}

/// The records that answer why: of the call itself if it got as far as a decision, otherwise of what was refused before.
fn relevant<'a>(lines: impl Iterator<Item = &'a str>, trace_id: &str) -> Vec<Record> {
    let mut records: Vec<_> = lines.filter_map(|line| Record::read(line, trace_id)).collect();
    records.sort_by(|one, other| one.time.cmp(&other.time));
    let is_call = |record: &Record| record.method.as_deref() == Some("tools/call");
    if records.iter().any(is_call) {
        records.retain(is_call);
    } else if records.iter().any(|record| record.decision == "refuse") {
        records.retain(|record| record.decision == "refuse");
    }
    records
}

fn why(error: &kube::Error, tenant: &str) -> String {
    match error {
        kube::Error::Api(status) if status.is_forbidden() => {
            format!(
                "the reason is in the sidecar's log, which you may not read (namespace {tenant}): ask an admin of the tenant"
            )
        }
        kube::Error::Api(status) => status.message.clone(),
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use bulkhead_core::{
        audit::{Call, IntentRecord},
        json::Limits,
        mcp::{self, Inventory, MirroredHeaders},
        policy::{CompiledPolicy, Context},
    };

    use super::*;

    const POLICY: &str = r#"{"format":1,"tenant":{"name":"acme","uid":"u"},"server":"crm",
        "hostnames":["crm.acme.svc"],"upstream":{"port":3000,"path":"/mcp"},
        "agents":[{"name":"billing","spiffeId":"spiffe://acme.cluster.local/ns/acme-agents/sa/billing","roles":["reader"]}],
        "tools":[{"name":"list_invoices","roles":["reader"],"forced":{"tenant_id":{"string":"7f9c"}}}]}"#;

    /// The line that a sidecar writes about a call of this tool.
    fn line(tool: &str) -> String {
        let policy = CompiledPolicy::from_json(POLICY.as_bytes()).unwrap();
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{tool}","arguments":{{"tenant_id":"x"}},
               "_meta":{{"traceparent":"{}"}}}}}}"#,
            Trace::for_test().parent()
        );
        let body = body.into();
        let message = mcp::read(&body, Limits::default())
            .map_err(|refusal| refusal.status())
            .unwrap();
        let spiffe_id = "spiffe://acme.cluster.local/ns/acme-agents/sa/billing";
        let caller = policy.agent(spiffe_id);
        let headers = MirroredHeaders::read([("mcp-protocol-version", b"2025-11-25".as_slice())]);
        let decision = policy.decide(
            caller,
            &message,
            &headers,
            Context::offline(&Inventory::default(), Limits::default()),
        );
        let call = Call {
            time: "2026-11-22T10:00:00Z",
            call: 1,
            spiffe_id,
            certificate_serial: "01",
            token: "t-1",
            pod: None,
            session: None,
            traceparent: None,
        };
        let record = IntentRecord::decided(&policy, caller, &call, &message, &decision);
        String::from_utf8(record.line()).unwrap()
    }

    #[test]
    fn a_refusal_is_found_by_its_trace_and_says_why() {
        let record = Record::read(&line("export_all"), Trace::for_test().id()).unwrap();
        assert_eq!(record.decision, "refuse");
        let text = record.text();
        assert!(
            text.contains("refused") && text.contains(&record.reason.unwrap()),
            "{text}"
        );
    }

    #[test]
    fn overridden_arguments_of_a_permitted_call_are_named() {
        let text = Record::read(&line("list_invoices"), Trace::for_test().id())
            .unwrap()
            .text();
        assert!(
            text.contains("permitted list_invoices") && text.contains("overridden arguments tenant_id"),
            "{text}"
        );
    }

    #[test]
    fn other_lines_are_not_the_calls() {
        let id = Trace::for_test().id().to_owned();
        let elsewhere = line("export_all").replace("traceparent", "session");
        for line in [
            "",
            &id,
            "{}",
            &elsewhere,
            &line("export_all").replace(&id, &"1".repeat(32)),
        ] {
            assert_eq!(Record::read(line, &id), None, "{line}");
        }
    }

    #[test]
    fn the_calls_own_record_is_shown_alone() {
        let handshake = line("export_all").replace("tools/call", "server/discover");
        let call = line("export_all");
        let methods = |lines: &[&str]| {
            let records = relevant(lines.iter().copied(), Trace::for_test().id());
            records
                .into_iter()
                .filter_map(|record| record.method)
                .collect::<Vec<_>>()
        };
        assert_eq!(methods(&[&handshake, &call]), ["tools/call"]);
        assert_eq!(methods(&[&handshake]), ["server/discover"]);
    }
}
