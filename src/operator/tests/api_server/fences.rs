//! The fences: admission policies of the chart, on the real API server. Each attack is refused by the fence that is
//! meant to refuse it, and the same request passes where the fences are taken away. What the cluster's own controllers
//! have to write, they write.

mod attempt;

use http::Method;
use kube::api::{ListParams, PostParams};
use serde_json::{Value, json};

use attempt::{Outcome, Pods, Write, named, pass, request};

use crate::fixture::{Fixture, NAMESPACE, tenant, until};

/// Two who may write Secrets wherever they are, and one of them tenants' too.
const PEOPLE: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: test-secrets}
rules: [{apiGroups: [""], resources: [secrets], verbs: ["*"]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: test-secrets}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: test-secrets}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: "test:namespace-admins"}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: test-secrets-writer}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "bulkhead:secrets-writer"}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: secrets-writer}]
"#;

#[tokio::test(flavor = "multi_thread")]
async fn nobody_but_who_must_writes_in_a_tenants_namespaces() {
    let fixture = Fixture::start().await;
    fixture.namespaces_of_old_times().await;
    fixture.fence(&[]).await;
    // The operator itself works behind the fences, with the chart's rights alone.
    let operator = fixture.operator(&[]).await;
    fixture.apply(&tenant("umbra", "u-1")).await;
    fixture
        .until_condition("umbra", "CertificatesReady", "True", "AsSpecified")
        .await;
    let deployments = fixture.api("apps", "Deployment", Some("umbra"));
    let deployment = until("the operator's Deployment", async || {
        deployments.get("notes").await.map_err(|error| error.to_string())
    })
    .await;
    fixture.until_quiet().await;
    fixture.kubectl_apply(PEOPLE);
    operator.stop().await;

    let claim = fixture
        .api("", "ConfigMap", Some(NAMESPACE))
        .list(&ListParams::default().labels("bulkhead.dev/claim"))
        .await
        .unwrap()
        .items[0]
        .metadata
        .name
        .clone()
        .unwrap();
    let server_pod = json!({"metadata": deployment.data["spec"]["template"]["metadata"], "spec": deployment.data["spec"]["template"]["spec"]});
    let pods = Pods::new(server_pod);
    // What the table's rows speak of.
    let path = "/api/v1/namespaces/umbra/pods";
    for name in ["runs", "waits"] {
        let pod = named(&pods.base("servers"), name);
        pass(
            &fixture
                .ask("replicaset-controller", &Method::POST, path, &pod)
                .await,
        );
    }
    let bound = json!({"metadata": {"name": "runs"}, "target": {"kind": "Node", "name": "n1"}});
    let binding = format!("{path}/runs/binding");
    pass(
        &fixture
            .ask("system:kube-scheduler", &Method::POST, &binding, &bound)
            .await,
    );
    let agent = named(&pods.base("agents"), "agent");
    let path = "/api/v1/namespaces/umbra-agents/pods";
    pass(&fixture.ask("root", &Method::POST, path, &agent).await);
    nobody_was_refused(&fixture);

    let beside = format!("{path}?dryRun=All", path = "/api/v1/namespaces/umbra/pods");
    let like_it = named(&pods.base("servers"), "like-it");
    let outcome = fixture.ask("root", &Method::POST, &beside, &like_it).await;
    assert!(
        matches!(&outcome, Outcome::Refused(said) if said.contains(": FenceWriter")),
        "a pod with a server's labels, by an administrator: {outcome:?}"
    );

    let writes: Vec<Write> = serde_saphyr::from_str(include_str!("fences/writes.yaml")).unwrap();
    let mut wrong = Vec::new();
    for write in &writes {
        let outcome = fixture.try_write(write, &claim).await;
        let right = match (&write.refused, &outcome) {
            (None, Outcome::Passed) => true,
            (Some(code), Outcome::Refused(said)) => said.contains(&format!(": {code}")),
            _ => false,
        };
        if !right {
            wrong.push(format!("{}: {outcome:?}", write.what));
        }
    }
    for pod in &pods.table {
        let outcome = fixture.try_pod(&pods, pod).await;
        let right = match &outcome {
            Outcome::Passed => pod.allowed,
            Outcome::Refused(said) => !pod.allowed && said.contains("FencePod: "),
            Outcome::Failed(_) => false,
        };
        if !right {
            wrong.push(format!("{} pod, {}: {outcome:?}", pod.r#in, pod.what));
        }
    }
    assert!(wrong.is_empty(), "with the fences on:\n{}", wrong.join("\n"));
    emergencies_are_recorded(&fixture);

    // The control: without the fences each of these attacks succeeds.
    fixture.unfence().await;
    pass(&fixture.ask("root", &Method::POST, &beside, &like_it).await);
    for write in writes
        .iter()
        .filter(|write| write.refused.is_some() && write.control)
    {
        let outcome = fixture.try_write(write, &claim).await;
        if outcome != Outcome::Passed {
            wrong.push(format!("{}: {outcome:?}", write.what));
        }
    }
    for pod in pods.table.iter().filter(|pod| !pod.allowed) {
        let outcome = fixture.try_pod(&pods, pod).await;
        if outcome != Outcome::Passed {
            wrong.push(format!("{} pod, {}: {outcome:?}", pod.r#in, pod.what));
        }
    }
    assert!(wrong.is_empty(), "without the fences:\n{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_named_by_digest_and_come_from_where_the_platform_says() {
    let fixture = Fixture::start().await;
    fixture
        .fence(&[
            "fences.images.requireDigest=true",
            "fences.images.allowed={registry.example.com/}",
        ])
        .await;
    let path = "/apis/bulkhead.dev/v1alpha1/mcptenants?dryRun=All";
    let mut umbra = tenant("umbra", "u-1");
    pass(&fixture.ask("root", &Method::POST, path, &umbra).await);
    for image in [
        "registry.example.com/notes:1",
        "elsewhere.example.com/notes@sha256:0000000000000000000000000000000000000000000000000000000000000000",
    ] {
        umbra["spec"]["servers"][0]["image"] = json!(image);
        until(&format!("{image} is refused"), async || {
            match fixture.ask("root", &Method::POST, path, &umbra).await {
                Outcome::Refused(said) if said.contains("FenceImage: ") => Ok(()),
                outcome => Err(format!("{outcome:?}")),
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thief_with_the_operators_token_gets_nowhere() {
    let fixture = Fixture::start().await;
    fixture.fence(&[]).await;
    let accounts = fixture.api("", "ServiceAccount", Some(NAMESPACE));
    let account = serde_json::from_value(
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "bulkhead-operator"}}),
    );
    accounts
        .create(&PostParams::default(), &account.unwrap())
        .await
        .unwrap();
    let thief = fixture.with_token_of(NAMESPACE, "bulkhead-operator").await;
    let writes: Vec<Write> = serde_saphyr::from_str(include_str!("fences/token.yaml")).unwrap();
    for write in &writes {
        let (method, path) = write.request("");
        let impersonated = [
            ("Impersonate-User", "root"),
            ("Impersonate-Group", "system:masters"),
        ];
        let headers = (write.what == "being somebody else").then_some(&impersonated[..]);
        let error = thief
            .request_text(request(&method, &path, &write.body, headers))
            .await
            .expect_err(&write.what);
        assert!(
            matches!(&error, kube::Error::Api(status) if [403, 422].contains(&status.code)),
            "{}: {error}",
            write.what
        );
    }
    // It is the operator's token all the same: what the operator does, it does.
    let read = request(
        &Method::GET,
        "/apis/bulkhead.dev/v1alpha1/mcptenants",
        &Value::Null,
        None,
    );
    thief.request_text(read).await.unwrap();
}

/// Nobody who works on tenants was refused anything so far: the operator, cert-manager, the cluster's controllers.
fn nobody_was_refused(fixture: &Fixture) {
    let log = std::fs::read_to_string(fixture.server.audit_log()).unwrap();
    let refused: Vec<Value> = log
        .lines()
        .filter(|line| line.contains("validation.policy.admission.k8s.io/validation_failure"))
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|event: &Value| event["impersonatedUser"].is_null())
        .map(|event: Value| {
            json!([
                event["user"]["username"],
                event["requestURI"],
                event["responseStatus"]["message"]
            ])
        })
        .collect();
    assert!(refused.is_empty(), "{refused:#?}");
}

/// The API server's audit log has who used the emergency's rights, and for what.
fn emergencies_are_recorded(fixture: &Fixture) {
    let log = std::fs::read_to_string(fixture.server.audit_log()).unwrap();
    let recorded = |part: &str| {
        log.lines().any(|line| {
            line.contains("validation.policy.admission.k8s.io/validation_failure")
                && line.contains("BreakGlass: on-call")
                && line.contains(part)
        })
    };
    for part in [
        "CONNECT pods/exec umbra/runs",
        "UPDATE pods/ephemeralcontainers umbra/runs",
        "DELETE namespaces",
    ] {
        assert!(recorded(part), "{part} is not on record");
    }
    assert!(
        log.lines().any(
            |line| line.contains("validation.policy.admission.k8s.io/validation_failure")
                && line.contains("FenceWriter: root may not CONNECT pods/exec")
        ),
        "a refusal is on record too"
    );
}
