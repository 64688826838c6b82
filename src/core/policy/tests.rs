//! Whole decisions and answers, as the sidecar asks for them.

use bytes::Bytes;
use serde_json::{Value, json};

use super::*;
use crate::{
    handles::{Handles, tests::HERE},
    json::Limits,
    mcp::{self, Inventory, MirroredHeaders},
    reason::Reason,
};

mod answers;
mod decisions;
mod definitions;
mod forbidden;
mod inquiries;
mod objects;
mod owned;
mod properties;
mod records;
mod reporting;
mod views;

/// The policy of most tests. `billing` is a reader, `root` an admin.
fn document() -> Value {
    json!({
        "format": 1,
        "tenant": {"name": "acme", "uid": "u-1"},
        "server": "crm",
        "hostnames": ["crm.acme.svc"],
        "upstream": {"port": 3000, "path": "/mcp"},
        "agents": [
            {"name": "billing", "spiffeId": "spiffe://acme/billing", "roles": ["reader"], "attributes": {"place": "nyc \"01\""}},
            {"name": "root", "spiffeId": "spiffe://acme/root", "roles": ["admin", "reader"]}
        ],
        "tools": [
            {"name": "list", "roles": ["reader"], "forced": {"tenant": {"string": "acme"}}, "bounds": {"limit": {"maximum": 100}}},
            {"name": "placed", "roles": ["reader"], "forced": {"place": {"agent": "place"}, "n": {"int": 7}, "b": {"bool": true}}},
            {"name": "free", "roles": ["reader"]},
            {"name": "capped", "roles": ["reader"], "bounds": {"limit": {"maximum": 100}}},
            {"name": "delete", "roles": ["admin"], "forced": {"tenant": {"string": "acme"}}}
        ]
    })
}

fn policy() -> CompiledPolicy {
    compile(&document())
}

fn compile(document: &Value) -> CompiledPolicy {
    CompiledPolicy::from_json(document.to_string().as_bytes()).unwrap()
}

type Headers<'a> = &'a [(&'a str, &'a str)];

const LEGACY: Headers<'static> = &[("mcp-protocol-version", "2025-11-25")];

/// Reads and decides a body of an agent.
fn decide(
    policy: &CompiledPolicy,
    agent: &str,
    headers: Headers<'_>,
    body: &str,
    inventory: &Inventory,
) -> Decision {
    let body = Bytes::copy_from_slice(body.as_bytes());
    let message = mcp::read(&body, Limits::default()).unwrap();
    let headers = MirroredHeaders::read(headers.iter().map(|(name, value)| (*name, value.as_bytes())));
    let caller = policy.agent(&format!("spiffe://acme/{agent}"));
    policy.decide(caller, &message, &headers, context(inventory))
}

/// What decisions look at, in the session `s-1`.
fn context(inventory: &Inventory) -> Context<'_> {
    Context {
        inventory,
        limits: Limits::default(),
        seal: &HERE,
        reach: Reach::EveryReplica,
        session: Some("s-1"),
    }
}

/// What went upstream, or why nothing did.
fn outcome(decision: &Decision) -> Result<String, Reason> {
    match &decision.outcome {
        Ok(permitted) => Ok(String::from_utf8(permitted.body().to_vec()).unwrap()),
        Err(refusal) => Err(refusal.reason),
    }
}

fn request(method: &str, params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#)
}

fn call(tool: &str, arguments: &str) -> String {
    request(
        "tools/call",
        &format!(r#"{{"name":"{tool}","arguments":{arguments}}}"#),
    )
}

/// A modern request: its headers, and its parameters with `_meta`.
fn modern(method: &str, params: &str) -> String {
    let comma = if params.is_empty() { "" } else { "," };
    request(
        method,
        &format!(
            r#"{{{params}{comma}"_meta":{{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{{}}}}}}"#
        ),
    )
}
