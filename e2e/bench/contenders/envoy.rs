//! Envoy: with tokens, and with its filter for MCP.

use std::{fs, process::Command};

use anyhow::Result;
use bulkhead_core::tokens;
use serde_json::{Value, json};

use super::Stage;
use crate::{
    call::{AGENT, TOOL},
    contender::Contender,
    pki::ISSUER,
};

/// What is asked of it.
#[derive(Clone, Copy)]
pub(super) enum Work {
    /// Who calls: certificate and token.
    Token,
    /// And what is called; with a log.
    Mcp,
}

/// Tools that may be called: as many as the sidecar's policy has.
const TOOLS: [&str; 3] = [TOOL, "search_notes", "get_invoice"];

pub(super) fn start(name: &'static str, stage: &Stage<'_>, work: Work) -> Result<Contender> {
    let (file, slot, said) = match work {
        Work::Token => (
            "envoy-token",
            3,
            "mTLS, the caller's SPIFFE ID, its token (ES256) verified",
        ),
        Work::Mcp => (
            "envoy-mcp",
            4,
            "the same with the token cached; strict MCP filter, a list of tools, access log",
        ),
    };
    let address = stage.plan.address(slot);
    let configuration = stage.folder.join(format!("{file}.json"));
    fs::write(&configuration, bootstrap(stage, work, address.port()).to_string())?;
    let mut command = Command::new(&stage.plan.envoy);
    command
        .args(["--disable-hot-restart", "--log-level", "warn", "--concurrency"])
        .arg(stage.plan.workers.to_string())
        .arg("--config-path")
        .arg(&configuration);
    let process = stage.run(file, &mut command, address)?;
    let tls = Some(stage.pki.client_config()?);
    Contender::new(name, said, address, tls, stage.pki, process)
}

fn typed(name: &str, message: &str, mut config: Value) -> Value {
    config["@type"] = json!(format!("type.googleapis.com/{message}"));
    json!({"name": name, "typed_config": config})
}

fn address(port: u16) -> Value {
    json!({"socket_address": {"address": "127.0.0.1", "port_value": port}})
}

fn bootstrap(stage: &Stage<'_>, work: Work, port: u16) -> Value {
    let file = |name: &str| json!({"filename": stage.pki.folder.join(name)});
    let tls = typed(
        "tls",
        "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        json!({"require_client_certificate": true, "common_tls_context": {
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_3"},
            "tls_certificates": [{"certificate_chain": file("server.crt"), "private_key": file("server.key")}],
            "validation_context": {
                "trusted_ca": file("ca.crt"),
                "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": AGENT}}],
            },
        }}),
    );
    let mut manager = json!({
        "stat_prefix": "bench",
        "http_filters": filters(stage, work),
        "route_config": {"virtual_hosts": [{"name": "server", "domains": ["*"], "routes": [
            {"match": {"prefix": "/"}, "route": {"cluster": "server"}}
        ]}]},
    });
    if matches!(work, Work::Mcp) {
        manager["access_log"] = json!([typed(
            "log",
            "envoy.extensions.access_loggers.file.v3.FileAccessLog",
            json!({"path": stage.folder.join("envoy-access.log"), "log_format": {"json_format": {
                "at": "%START_TIME%", "peer": "%DOWNSTREAM_PEER_URI_SAN%", "code": "%RESPONSE_CODE%",
                "method": "%DYNAMIC_METADATA(envoy.filters.http.mcp:method)%",
                "tool": "%DYNAMIC_METADATA(envoy.filters.http.mcp:params:name)%",
                "took": "%DURATION%",
            }}}),
        )]);
    }
    let manager = typed(
        "http",
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        manager,
    );
    json!({"static_resources": {
        "listeners": [{"name": "in", "address": address(port), "filter_chains": [
            {"transport_socket": tls, "filters": [manager]}
        ]}],
        "clusters": [{"name": "server", "type": "STATIC", "load_assignment": {"cluster_name": "server", "endpoints": [
            {"lb_endpoints": [{"endpoint": {"address": address(stage.upstream.port())}}]}
        ]}}],
    }})
}

fn filters(stage: &Stage<'_>, work: Work) -> Vec<Value> {
    let mut provider = json!({
        "issuer": ISSUER, "audiences": [tokens::audience("acme")],
        "local_jwks": {"filename": stage.pki.folder.join("jwks.json")},
    });
    if matches!(work, Work::Mcp) {
        provider["jwt_cache_config"] = json!({"jwt_cache_size": 100});
    }
    let mut filters = vec![typed(
        "envoy.filters.http.jwt_authn",
        "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
        json!({"providers": {"issuer": provider}, "rules": [
            {"match": {"prefix": "/"}, "requires": {"provider_name": "issuer"}}
        ]}),
    )];
    if matches!(work, Work::Mcp) {
        filters.push(typed(
            "envoy.filters.http.mcp",
            "envoy.extensions.filters.http.mcp.v3.Mcp",
            json!({"traffic_mode": "REJECT_NO_MCP", "reject_duplicate_keys": true,
                "request_storage_mode": "DYNAMIC_METADATA"}),
        ));
        let is = |path: &[&str], value: &str| {
            let path: Vec<_> = path.iter().map(|key| json!({"key": key})).collect();
            json!({"metadata": {"filter": "envoy.filters.http.mcp", "path": path, "value": {"string_match": {"exact": value}}}})
        };
        let tools: Vec<_> = TOOLS.iter().map(|tool| is(&["params", "name"], tool)).collect();
        filters.push(typed(
            "envoy.filters.http.rbac",
            "envoy.extensions.filters.http.rbac.v3.RBAC",
            json!({"rules": {"action": "ALLOW", "policies": {"tools": {
                "permissions": [{"and_rules": {"rules": [is(&["method"], "tools/call"), {"or_rules": {"rules": tools}}]}}],
                "principals": [{"authenticated": {"principal_name": {"exact": AGENT}}}],
            }}}}),
        ));
    }
    filters.push(typed(
        "envoy.filters.http.router",
        "envoy.extensions.filters.http.router.v3.Router",
        json!({}),
    ));
    filters
}
