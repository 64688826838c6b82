use clap::Parser;
use serde_json::Value;

use super::*;

const TENANT: &str = "
apiVersion: bulkhead.dev/v1alpha1
kind: McpTenant
metadata: {name: acme}
spec:
  identity: {tenantId: 7f9c0d5e}
  quota: {cpu: '2', memory: 2Gi, pods: 8}
  agents: [{name: billing, roles: [reader], egress: []}]
  servers:
  - name: crm
    image: registry.example.com/crm:1
    replicas: 2
    http: {port: 3000}
    tools: [{name: list_invoices, roles: [reader]}]
";

fn settings() -> Settings {
    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        settings: Settings,
    }
    Flags::parse_from(["x"]).settings
}

fn one(text: &str) -> McpTenant {
    let mut tenants = documents::tenants(text).unwrap();
    assert_eq!(tenants.len(), 1);
    tenants.remove(0)
}

fn children() -> Vec<Value> {
    rendered(&one(TENANT), &settings()).unwrap().unwrap()
}

#[test]
fn a_rendering_is_in_the_order_of_application_namespaces_first_deployments_last() {
    let kinds: Vec<_> = children()
        .iter()
        .map(|object| object["kind"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(kinds.first().map(String::as_str), Some("Namespace"));
    assert_eq!(kinds.last().map(String::as_str), Some("Deployment"));
    let at = |kind: &str| kinds.iter().position(|other| other == kind).unwrap();
    assert!(
        at("NetworkPolicy") < at("Deployment") && at("Certificate") < at("Deployment"),
        "{kinds:?}"
    );
}

#[test]
fn what_is_not_known_offline_is_left_out_and_told_at_the_top() {
    let children = children();
    let trust = children
        .iter()
        .find(|object| object["metadata"]["name"] == "bulkhead-trust");
    assert_eq!(trust, None);
    assert_eq!(children[0]["metadata"].get("ownerReferences"), None);
    assert!(
        written(&children, Format::Yaml)
            .unwrap()
            .starts_with("# Rendered")
    );
}

#[test]
fn yaml_and_json_hold_the_same_objects() {
    let children = children();
    let yaml: Vec<Value> = serde_saphyr::from_multiple(&written(&children, Format::Yaml).unwrap()).unwrap();
    let yaml: Vec<_> = yaml.into_iter().filter(|document| !document.is_null()).collect();
    let json: Value = serde_json::from_str(&written(&children, Format::Json).unwrap()).unwrap();
    assert_eq!(Value::Array(yaml), json["items"]);
    assert_eq!(json["items"], Value::Array(children));
}

#[test]
fn what_the_operator_would_refuse_is_refused_with_its_reason() {
    let tenant = one(&TENANT.replace("cpu: '2'", "cpu: plenty"));
    let problems = rendered(&tenant, &settings()).unwrap().unwrap_err();
    assert!(
        problems.iter().any(|problem| problem.path == "spec.quota.cpu"),
        "{problems:?}"
    );
}

#[test]
fn a_misspelt_field_is_refused_by_its_path() {
    let table = [
        (
            TENANT.replace("roles: [reader]}]\n", "role: [reader]}]\n"),
            "spec.servers[0].tools[0].role",
        ),
        (
            TENANT.replace("  identity:", "  isolatoin: {tier: Sandbox}\n  identity:"),
            "spec.isolatoin",
        ),
    ];
    for (text, path) in table {
        let error = format!("{:#}", documents::tenants(&text).unwrap_err());
        assert!(error.ends_with(&format!("unknown field {path}")), "{error}");
    }
}

#[test]
fn an_empty_value_is_no_unknown_field() {
    assert!(documents::tenants(&TENANT.replace("egress: []", "egress: [], attributes: {}")).is_ok());
}

#[test]
fn documents_and_lists_of_tenants_are_read_and_nothing_else() {
    let list = format!("kind: List\nitems:\n- {}", TENANT.trim().replace('\n', "\n  "));
    let table = [
        (format!("{TENANT}---\n{TENANT}"), 2),
        (list, 1),
        ("---\n".into(), 0),
    ];
    for (text, count) in table {
        assert_eq!(documents::tenants(&text).unwrap().len(), count, "{text}");
    }
    let error = documents::tenants("apiVersion: v1\nkind: Secret\n")
        .unwrap_err()
        .to_string();
    assert!(error.contains("Secret of v1"), "{error}");
    assert!(documents::tenants("a: [").is_err());
}
