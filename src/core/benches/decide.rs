//! What one decision costs: a body read, decided and rewritten, as for every request of an agent; and its answer filtered.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a benchmark; criterion's macros write its main"
)]

use std::hint::black_box;

use bulkhead_core::{
    json::Limits,
    mcp::{self, Inventory, MirroredHeaders},
    policy::{Channel, CompiledPolicy, Context, Decision},
};
use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const AGENT: &str = "spiffe://acme.cluster.local/ns/acme-agents/sa/billing";

/// A policy of `tools` tools, each with a forced and a bounded argument.
fn policy(tools: usize) -> CompiledPolicy {
    let tools: Vec<_> = (0..tools)
        .map(|number| {
            serde_json::json!({
                "name": format!("tool_{number}"),
                "roles": ["reader"],
                "forced": {"tenant_id": {"string": "7f9c0d5e-1b7a-4c57-9f6e-2f3f0a1c0001"}, "location_id": {"agent": "locationId"}},
                "bounds": {"limit": {"maximum": 100}},
            })
        })
        .collect();
    let document = serde_json::json!({
        "format": 1,
        "tenant": {"name": "acme", "uid": "u"},
        "server": "ledger",
        "hostnames": ["ledger.acme.svc"],
        "upstream": {"port": 3000, "path": "/mcp"},
        "agents": [{"name": "billing", "spiffeId": AGENT, "roles": ["reader"], "attributes": {"locationId": "nyc-01"}}],
        "tools": tools,
    });
    compile(&document)
}

/// A policy with one tool, whose results are filtered.
fn filtering() -> CompiledPolicy {
    let owned = serde_json::json!({"path": "$.rows", "field": "tenant_id", "equals": {"string": "acme"}});
    compile(&serde_json::json!({
        "format": 1,
        "tenant": {"name": "acme", "uid": "u"},
        "server": "ledger",
        "hostnames": ["ledger.acme.svc"],
        "upstream": {"port": 3000, "path": "/mcp"},
        "agents": [{"name": "billing", "spiffeId": AGENT, "roles": ["reader"]}],
        "tools": [{"name": "tool_0", "roles": ["reader"], "results": {"owned": owned}}],
    }))
}

fn compile(document: &serde_json::Value) -> CompiledPolicy {
    CompiledPolicy::from_json(document.to_string().as_bytes()).unwrap()
}

/// A call with an argument of `bytes` bytes that no rule names.
fn call(tool: &str, bytes: usize) -> Bytes {
    let call = serde_json::json!({
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": tool, "arguments": {"limit": 10, "tenant_id": "another's", "text": "x".repeat(bytes)}},
    });
    Bytes::from(call.to_string())
}

/// The answer to a call: so many records, every second one another tenant's, with their text copy.
fn answer(records: usize) -> Bytes {
    let record = |number| {
        let owner = if number % 2 == 0 { "acme" } else { "globex" };
        serde_json::json!({"id": number, "tenant_id": owner, "amount": "912.40", "note": "x".repeat(80)})
    };
    let rows = serde_json::json!({"rows": (0..records).map(record).collect::<Vec<_>>()});
    let answer = serde_json::json!({"jsonrpc": "2.0", "id": 1, "result": {
        "content": [{"type": "text", "text": rows.to_string()}], "structuredContent": rows
    }});
    Bytes::from(answer.to_string())
}

fn decide(policy: &CompiledPolicy, body: &Bytes, inventory: &Inventory) -> Decision {
    let limits = Limits::default();
    let message = mcp::read(body, limits).unwrap();
    let headers = MirroredHeaders::read([("mcp-protocol-version", b"2025-11-25".as_slice())]);
    let context = Context::offline(inventory, limits);
    policy.decide(policy.agent(AGENT), &message, &headers, context)
}

fn decisions(criterion: &mut Criterion) {
    let inventory = Inventory::default();

    let mut group = criterion.benchmark_group("rewritten call, by its size");
    let sixteen = policy(16);
    for bytes in [64, 4 << 10, 64 << 10] {
        let body = call("tool_7", bytes);
        assert!(decide(&sixteen, &body, &inventory).outcome.is_ok());
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_with_input(BenchmarkId::from_parameter(bytes), &body, |bencher, body| {
            bencher.iter(|| black_box(decide(&sixteen, body, &inventory)));
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("rewritten call, by the policy's tools");
    let body = call("tool_0", 64);
    for tools in [1, 16, 128] {
        let policy = policy(tools);
        group.bench_with_input(BenchmarkId::from_parameter(tools), &policy, |bencher, policy| {
            bencher.iter(|| black_box(decide(policy, &body, &inventory)));
        });
    }
    group.finish();

    let body = call("no_such_tool", 64);
    assert!(decide(&sixteen, &body, &inventory).outcome.is_err());
    criterion.bench_function("refused call", |bencher| {
        bencher.iter(|| black_box(decide(&sixteen, &body, &inventory)));
    });
}

fn answers(criterion: &mut Criterion) {
    let inventory = Inventory::default();
    let context = Context::offline(&inventory, Limits::default());
    let mut group = criterion.benchmark_group("answer, by its records");
    for (what, policy) in [("passed", policy(1)), ("filtered", filtering())] {
        let permitted = decide(&policy, &call("tool_0", 64), &inventory).outcome.unwrap();
        for records in [2, 100] {
            let body = answer(records);
            group.throughput(Throughput::Bytes(body.len() as u64));
            group.bench_with_input(BenchmarkId::new(what, records), &body, |bencher, body| {
                let channel = || Channel::Answer(permitted.expected().unwrap());
                bencher.iter(|| black_box(policy.answer(policy.agent(AGENT), channel(), body, context)));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, decisions, answers);
criterion_main!(benches);
