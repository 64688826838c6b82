//! Each thing that is refused, with its reason and place; and what is accepted beside it.

use serde_json::{Value, json};

use super::*;
use crate::build::fixture;

fn verdict(tenant: Value, observed: &Observed) -> Vec<Invalid> {
    validate(&fixture::typed(tenant), &fixture::settings(), observed)
        .err()
        .unwrap_or_default()
}

/// The fixture with one value replaced; a null removes it.
fn with(pointer: &str, value: Value) -> Value {
    let mut tenant = fixture::tenant();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = tenant
        .pointer_mut(parent)
        .unwrap_or_else(|| panic!("the fixture has no {parent}"));
    match parent {
        Value::Object(fields) if value.is_null() => drop(fields.remove(key)),
        Value::Object(fields) => drop(fields.insert(key.to_owned(), value)),
        Value::Array(items) if key == "-" => items.push(value),
        Value::Array(items) => items[key.parse::<usize>().unwrap()] = value,
        _ => panic!("{pointer} leads nowhere"),
    }
    tenant
}

#[test]
fn a_tenant_that_uses_every_field_is_accepted() {
    assert_eq!(verdict(fixture::tenant(), &fixture::observed()), []);
}

#[test]
#[allow(clippy::too_many_lines, reason = "a table of cases")]
fn what_is_wrong_is_refused_with_its_reason_and_place() {
    use Reason::*;
    let egress = |to: Value| json!([{"to": to, "ports": [443]}]);
    let server = "/spec/servers/0";
    let cases = [
        (
            "/metadata/name".to_owned(),
            json!("kube-public"),
            InvalidName,
            "metadata.name",
        ),
        (
            "/metadata/name".to_owned(),
            json!("umbra-agents"),
            InvalidName,
            "metadata.name",
        ),
        (
            "/metadata/name".to_owned(),
            json!("control"),
            InvalidName,
            "metadata.name",
        ),
        (
            "/metadata/name".to_owned(),
            json!("a.b"),
            InvalidName,
            "metadata.name",
        ),
        (
            "/spec/identity/tenantId".to_owned(),
            json!(""),
            InvalidValue,
            "spec.identity.tenantId",
        ),
        (
            "/spec/isolation/tier".to_owned(),
            json!("Namespace"),
            InvalidValue,
            "spec.isolation.sandbox",
        ),
        (
            "/spec/isolation/sandbox".to_owned(),
            json!(null),
            InvalidValue,
            "spec.isolation.sandbox",
        ),
        (
            "/spec/isolation/sandbox/runtimeClassName".to_owned(),
            json!("kata"),
            RuntimeClassNotFound,
            "spec.isolation.sandbox.runtimeClassName",
        ),
        (
            "/spec/quota/cpu".to_owned(),
            json!("many"),
            InvalidResources,
            "spec.quota.cpu",
        ),
        (
            "/spec/quota/memory".to_owned(),
            json!("0"),
            InvalidResources,
            "spec.quota.memory",
        ),
        (
            "/spec/quota/pods".to_owned(),
            json!(2),
            QuotaTooSmall,
            "spec.quota.pods",
        ),
        (
            "/spec/quota/cpu".to_owned(),
            json!("2499m"),
            QuotaTooSmall,
            "spec.quota.cpu",
        ),
        (
            "/spec/quota/memory".to_owned(),
            json!("1279Mi"),
            QuotaTooSmall,
            "spec.quota.memory",
        ),
        (
            "/spec/quota/ephemeralStorage".to_owned(),
            json!("none"),
            InvalidResources,
            "spec.quota.ephemeralStorage",
        ),
        (
            "/spec/quota/ephemeralStorage".to_owned(),
            json!("2303Mi"),
            QuotaTooSmall,
            "spec.quota.ephemeralStorage",
        ),
        (
            "/spec/certificates/duration".to_owned(),
            json!("1d"),
            InvalidCertificateLifetime,
            "spec.certificates.duration",
        ),
        (
            "/spec/certificates/renewBefore".to_owned(),
            json!("12h"),
            InvalidCertificateLifetime,
            "spec.certificates.renewBefore",
        ),
        (
            "/spec/certificates".to_owned(),
            json!({"duration": "24h", "renewBefore": "23h51m"}),
            InvalidCertificateLifetime,
            "spec.certificates.renewBefore",
        ),
        (
            "/spec/certificates/renewBefore".to_owned(),
            json!("299s"),
            InvalidCertificateLifetime,
            "spec.certificates.renewBefore",
        ),
        (
            "/spec/agents/0/name".to_owned(),
            json!("default"),
            InvalidName,
            "spec.agents[0].name",
        ),
        (
            "/spec/agents/0/name".to_owned(),
            json!("clerk"),
            DuplicateName,
            "spec.agents[1]",
        ),
        (
            "/spec/agents/0/attributes".to_owned(),
            json!({}),
            UnknownReference,
            "spec.servers[0].tools[0].arguments.forced[desk]",
        ),
        (
            "/spec/agents/0/egress".to_owned(),
            egress(json!({"cidr": "169.254.169.254/32"})),
            ForbiddenPeer,
            "spec.agents[0].egress[0].to.cidr",
        ),
        (
            format!("{server}/name"),
            json!("ledgers"),
            DuplicateName,
            "spec.servers[1]",
        ),
        (
            format!("{server}/name"),
            json!("7notes"),
            InvalidName,
            "spec.servers[0].name",
        ),
        (
            format!("{server}/image"),
            json!(""),
            InvalidValue,
            "spec.servers[0].image",
        ),
        (
            format!("{server}/replicas"),
            json!(0),
            InvalidValue,
            "spec.servers[0].replicas",
        ),
        (
            format!("{server}/http/port"),
            json!(8444),
            InvalidValue,
            "spec.servers[0].http.port",
        ),
        (
            format!("{server}/http/path"),
            json!("rpc"),
            InvalidValue,
            "spec.servers[0].http.path",
        ),
        (
            format!("{server}/runAsUser"),
            json!(0),
            InvalidValue,
            "spec.servers[0].runAsUser",
        ),
        (
            format!("{server}/runAsUser"),
            json!(64_532),
            InvalidValue,
            "spec.servers[0].runAsUser",
        ),
        (
            format!("{server}/env/2/secretKeyRef/name"),
            json!("notes-tls"),
            ReservedObject,
            "spec.servers[0].env[2].secretKeyRef.name",
        ),
        (
            format!("{server}/env/2/secretKeyRef/name"),
            json!("servers-ca-x7k2p"),
            ReservedObject,
            "spec.servers[0].env[2].secretKeyRef.name",
        ),
        (
            format!("{server}/imagePullSecrets/0/name"),
            json!("servers-ca"),
            ReservedObject,
            "spec.servers[0].imagePullSecrets[0].name",
        ),
        (
            format!("{server}/env/0/value"),
            json!(null),
            InvalidValue,
            "spec.servers[0].env[0]",
        ),
        (
            format!("{server}/probes/startup/exec"),
            json!(null),
            InvalidValue,
            "spec.servers[0].probes.startup",
        ),
        (
            format!("{server}/probes/liveness/httpGet/port"),
            json!(9464),
            InvalidValue,
            "spec.servers[0].probes.liveness.httpGet.port",
        ),
        (
            format!("{server}/resources/requests/cpu"),
            json!("1001m"),
            InvalidResources,
            "spec.servers[0].resources.requests",
        ),
        (
            format!("{server}/resources/limits/gpus"),
            json!("1"),
            InvalidResources,
            "spec.servers[0].resources.limits",
        ),
        (
            format!("{server}/volumes/0/mountPath"),
            json!("/run/secrets/x"),
            InvalidValue,
            "spec.servers[0].volumes[0].mountPath",
        ),
        (
            format!("{server}/volumes/0/mountPath"),
            json!("/var/../etc"),
            InvalidValue,
            "spec.servers[0].volumes[0].mountPath",
        ),
        (
            format!("{server}/volumes/0/mountPath"),
            json!("/"),
            InvalidValue,
            "spec.servers[0].volumes[0].mountPath",
        ),
        (
            format!("{server}/volumes/0/name"),
            json!("a-b"),
            InvalidName,
            "spec.servers[0].volumes[0].name",
        ),
        (
            format!("{server}/volumes/0/sizeLimit"),
            json!(null),
            InvalidValue,
            "spec.servers[0].volumes[0]",
        ),
        (
            "/spec/servers/1/volumes/1/mountPath".to_owned(),
            json!("/data"),
            DuplicateName,
            "spec.servers[1].volumes[1]",
        ),
        (
            "/spec/servers/1/replicas".to_owned(),
            json!(2),
            InvalidValue,
            "spec.servers[1].volumes",
        ),
        (
            format!("{server}/egress/0/ports"),
            json!([]),
            InvalidValue,
            "spec.servers[0].egress[0].ports",
        ),
        (
            format!("{server}/egress"),
            egress(json!({"namespace": "stores"})),
            ForbiddenPeer,
            "spec.servers[0].egress[0].to.podLabels",
        ),
        (
            format!("{server}/egress"),
            egress(json!({})),
            InvalidValue,
            "spec.servers[0].egress[0].to",
        ),
        (
            format!("{server}/egress"),
            egress(json!({"cidr": "203.0.113.7/24"})),
            InvalidValue,
            "spec.servers[0].egress[0].to.cidr",
        ),
        (
            format!("{server}/egress"),
            egress(json!({"cidr": "10.0.0.0/8"})),
            ForbiddenPeer,
            "spec.servers[0].egress[0].to.cidr",
        ),
        (
            format!("{server}/egress"),
            egress(json!({"namespace": "umbra-agents", "podLabels": {"a": "b"}})),
            ForbiddenPeer,
            "spec.servers[0].egress[0].to.namespace",
        ),
        (
            format!("{server}/egress"),
            egress(json!({"namespace": "penumbra", "podLabels": {"a": "b"}})),
            ForbiddenPeer,
            "spec.servers[0].egress[0].to.namespace",
        ),
        (
            format!("{server}/clients/0/namespace"),
            json!("control"),
            ForbiddenPeer,
            "spec.servers[0].clients[0].namespace",
        ),
        (
            format!("{server}/clients/0/podLabels"),
            json!({}),
            ForbiddenPeer,
            "spec.servers[0].clients[0].podLabels",
        ),
        (
            format!("{server}/clients/0/podLabels"),
            json!({"a b": "c"}),
            InvalidValue,
            "spec.servers[0].clients[0].podLabels",
        ),
        (
            format!("{server}/tools/1/name"),
            json!("find_notes"),
            DuplicateName,
            "spec.servers[0].tools[1]",
        ),
        (
            format!("{server}/tools/0/arguments/forced/region/attribute"),
            json!("planet"),
            UnknownReference,
            "spec.servers[0].tools[0].arguments.forced[region]",
        ),
        (
            format!("{server}/tools/0/results/owned/equals"),
            json!({"attribute": "planet"}),
            UnknownReference,
            "spec.servers[0].tools[0].results.owned.equals",
        ),
        (
            format!("{server}/tools/0/arguments/forced/kind/int"),
            json!(1),
            InvalidToolRule,
            "spec.servers[0].tools[0].arguments.forced[kind]",
        ),
        (
            format!("{server}/tools/0/arguments/bounds/query/pattern"),
            json!("a)|(b"),
            InvalidToolRule,
            "spec.servers[0].tools[find_notes].bounds[query]",
        ),
        (
            format!("{server}/tools/0/arguments/bounds/query/pattern"),
            json!("(?=a)"),
            InvalidToolRule,
            "spec.servers[0].tools[find_notes].bounds[query]",
        ),
        (
            format!("{server}/tools/0/arguments/bounds/limit/minimum"),
            json!(101),
            InvalidToolRule,
            "spec.servers[0].tools[find_notes].bounds[limit]",
        ),
    ];
    for (pointer, value, reason, path) in cases {
        let found = verdict(with(&pointer, value.clone()), &fixture::observed());
        let what = format!("{pointer} = {value}: {found:#?}");
        assert!(
            found
                .iter()
                .any(|invalid| invalid.reason == reason && invalid.path == path),
            "{what}"
        );
        assert!(found.iter().all(|invalid| !invalid.message.is_empty()), "{what}");
    }
}

#[test]
fn what_is_only_just_right_is_accepted() {
    for (pointer, value) in [
        ("/spec/quota/cpu", json!("2500m")),
        ("/spec/quota/memory", json!("1280Mi")),
        ("/spec/quota/pods", json!(3)),
        ("/spec/quota/ephemeralStorage", json!("2304Mi")),
        ("/spec/certificates/renewBefore", json!("5m")),
        ("/spec/agents/0/name", json!("7scout")),
        ("/spec/servers/0/http/port", json!(8442)),
        ("/spec/servers/0/resources/requests/cpu", json!("1")),
        ("/spec/servers/0/volumes/0/mountPath", json!("/etc/bulkheads")),
        ("/spec/servers/0/clients/0/namespace", json!("penumbra-east")),
    ] {
        assert_eq!(
            verdict(with(pointer, value.clone()), &fixture::observed()),
            [],
            "{pointer} = {value}"
        );
    }
}

#[test]
fn ephemeral_storage_that_is_left_out_is_some_per_pod_and_never_too_little() {
    let given = |pods: u32, limit: &str| {
        let mut tenant = with("/spec/quota/pods", pods.into());
        tenant["spec"]["servers"][0]["resources"]["limits"]["ephemeral-storage"] = limit.into();
        let valid = fixture::validated(tenant, &fixture::settings(), &fixture::observed());
        valid.quota.ephemeral_storage.to_string()
    };
    assert_eq!(given(5, "1Gi"), "5Gi");
    assert_eq!(given(3, "8Gi"), "16640Mi", "two of 8Gi and one of 256Mi");
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let mut tenant = with("/spec/quota/cpu", json!("many"));
    tenant["spec"]["servers"][0]["runAsUser"] = json!(0);
    tenant["spec"]["agents"][1]["name"] = json!("default");
    let found = verdict(tenant, &fixture::observed());
    let paths: Vec<&str> = found.iter().map(|invalid| invalid.path.as_str()).collect();
    for path in [
        "spec.quota.cpu",
        "spec.servers[0].runAsUser",
        "spec.agents[1].name",
    ] {
        assert!(paths.contains(&path), "{path} in {paths:?}");
    }
}

#[test]
fn a_refused_peer_reads_the_same_whoever_it_belongs_to() {
    let message = |namespace: &str| {
        let peer = json!({"namespace": namespace, "podLabels": {"a": "b"}});
        let found = verdict(with("/spec/servers/0/clients/0", peer), &fixture::observed());
        found[0].message.replace(namespace, "…")
    };
    let [own, operator, other] = ["umbra", "control", "penumbra"].map(message);
    assert_eq!(own, operator);
    assert_eq!(own, other);
}

#[test]
fn what_the_cluster_did_not_show_is_not_checked() {
    assert_eq!(verdict(fixture::tenant(), &Observed::default()), []);
    let none = Observed {
        runtime_classes: Some([].into()),
        ..Observed::default()
    };
    assert_eq!(
        verdict(fixture::tenant(), &none)[0].reason,
        Reason::RuntimeClassNotFound
    );
}
