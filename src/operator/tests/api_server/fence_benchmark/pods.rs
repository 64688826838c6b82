//! Checks on what a pod may be.

use http::Method;
use serde_json::{Value, json};

use super::{Bench, Outcome, Row, passed_unless};
use crate::{
    fixture::agent_pod,
    people::{PLAIN, send},
};

/// A pod that the benchmark wants refused: what is merged into a good one, and what the refusal must speak of.
type Pod = (Value, &'static str);

const WHO: &str = "developer";
const HOW: &str =
    "such a pod in the agents' namespace: Pod Security refuses it; to an admin every pod is refused";

impl Bench<'_> {
    /// The checks that make one pod, in the order in which they are reported.
    pub(super) async fn pods(&self, wanted: &[&str]) -> Vec<Row> {
        let mut rows = Vec::new();
        for (id, title, pods) in bad_pods() {
            if wanted.contains(&title) {
                rows.push(Row {
                    id,
                    title,
                    who: WHO,
                    how: HOW,
                    outcome: self.refused(&pods).await,
                });
            }
        }
        rows
    }

    /// Each of these pods is refused to everybody of the tenant, and for its own sake.
    async fn refused(&self, pods: &[Pod]) -> Outcome {
        let mut found = Vec::new();
        for (change, about) in pods {
            let pod = changed(change);
            self.control_pod(&pod).await;
            let (code, said) = self.by_developer(&pod).await;
            match code {
                403 => assert!(
                    said.contains("violates PodSecurity") && said.contains(about),
                    "{said}"
                ),
                _ => found.push(format!("a pod with {about} is accepted")),
            }
            self.refused_to_others(&pod).await;
        }
        passed_unless(&found)
    }

    /// A developer's pod is good but for what a check puts into it.
    pub(super) async fn good_pod(&self) {
        let (code, said) = self.by_developer(&changed(&json!({}))).await;
        assert_eq!(code, 201, "{said}");
    }

    pub(super) async fn by_developer(&self, pod: &Value) -> (u16, String) {
        let path = "/api/v1/namespaces/umbra-agents/pods?dryRun=All";
        send(&self.people.developer, Method::POST, path, pod).await
    }

    pub(super) async fn control_pod(&self, pod: &Value) {
        let path = format!("/api/v1/namespaces/{PLAIN}/pods?dryRun=All");
        let (code, said) = send(&self.fixture.admin, Method::POST, &path, pod).await;
        assert_eq!(code, 201, "the control: {said}");
    }

    async fn refused_to_others(&self, pod: &Value) {
        for (client, namespace) in [
            (&self.people.admin, "umbra"),
            (&self.people.admin, "umbra-agents"),
            (&self.people.developer, "umbra"),
        ] {
            let path = format!("/api/v1/namespaces/{namespace}/pods?dryRun=All");
            let (code, said) = send(client, Method::POST, &path, pod).await;
            assert_eq!(code, 403, "{said}");
        }
    }

    /// No image of a pod is taken from the node without asking the registry whether this tenant may have it.
    pub(super) async fn always_pulled(&self) -> Outcome {
        let mut found = Vec::new();
        for policy in ["Never", "IfNotPresent"] {
            let pod = changed(&json!({"spec": {"containers": [{"imagePullPolicy": policy}]}}));
            self.control_pod(&pod).await;
            if self.by_developer(&pod).await.0 == 201 {
                found.push(format!("`imagePullPolicy: {policy}`"));
            }
        }
        if found.is_empty() {
            return Outcome::Passed;
        }
        Outcome::NotMet(format!("{} is accepted; see below", found.join(", ")))
    }

    /// Kinds of volumes that are neither a claim nor the pod's own.
    pub(super) async fn other_storage(&self) -> Outcome {
        let mut found = Vec::new();
        for (kind, source) in [
            ("nfs", json!({"server": "192.0.2.1", "path": "/"})),
            (
                "iscsi",
                json!({"targetPortal": "192.0.2.1", "iqn": "iqn.2026-01.example:a", "lun": 0}),
            ),
            ("hostPath", json!({"path": "/"})),
            ("csi", json!({"driver": "inline.example.com"})),
        ] {
            let mut volume = json!({"name": "v"});
            volume[kind] = source;
            let pod = changed(&json!({"spec": {"volumes": [volume]}}));
            self.control_pod(&pod).await;
            if self.by_developer(&pod).await.0 == 201 {
                found.push(format!("an inline volume of type `{kind}` is accepted"));
            }
        }
        passed_unless(&found)
    }
}

/// A developer's pod with this change.
fn changed(change: &Value) -> Value {
    let mut pod = agent_pod();
    pod["metadata"]["name"] = "tried".into();
    merge(&mut pod, change);
    pod
}

fn merge(into: &mut Value, change: &Value) {
    match (into, change) {
        (Value::Object(into), Value::Object(change)) => {
            for (key, value) in change {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (Value::Array(into), Value::Array(change)) if !into.is_empty() => {
            for (into, change) in into.iter_mut().zip(change) {
                merge(into, change);
            }
        }
        (into, change) => *into = change.clone(),
    }
}

fn bad_pods() -> Vec<(&'static str, &'static str, Vec<Pod>)> {
    let context = |context: Value| json!({"spec": {"containers": [{"securityContext": context}]}});
    vec![
        (
            "MTB-PL1-BC-CPI-3",
            "Block add capabilities",
            vec![(
                context(json!({"capabilities": {"add": ["SETPCAP"]}})),
                "unrestricted capabilities",
            )],
        ),
        (
            "MTB-PL1-BC-CPI-4",
            "Require run as non-root user",
            vec![
                (
                    json!({"spec": {"securityContext": {"runAsNonRoot": false}}}),
                    "runAsNonRoot != true",
                ),
                (context(json!({"runAsUser": 0})), "runAsUser=0"),
            ],
        ),
        (
            "MTB-PL1-BC-CPI-5",
            "Block privileged containers",
            vec![(
                context(json!({"privileged": true, "allowPrivilegeEscalation": true})),
                "privileged",
            )],
        ),
        (
            "MTB-PL1-BC-CPI-6",
            "Block privilege escalation",
            vec![(
                context(json!({"allowPrivilegeEscalation": true})),
                "allowPrivilegeEscalation != false",
            )],
        ),
        (
            "MTB-PL1-BC-HI-1",
            "Block use of host path volumes",
            vec![(
                json!({"spec": {"volumes": [{"name": "host", "hostPath": {"path": "/"}}]}}),
                "hostPath",
            )],
        ),
        (
            "MTB-PL1-BC-HI-3",
            "Block use of host networking and ports",
            vec![
                (json!({"spec": {"hostNetwork": true}}), "host namespaces"),
                (
                    json!({"spec": {"containers": [{"ports": [{"containerPort": 8086, "hostPort": 8086}]}]}}),
                    "hostPort",
                ),
            ],
        ),
        (
            "MTB-PL1-BC-HI-4",
            "Block use of host PID",
            vec![(json!({"spec": {"hostPID": true}}), "host namespaces")],
        ),
        (
            "MTB-PL1-BC-HI-5",
            "Block use of host IPC",
            vec![(json!({"spec": {"hostIPC": true}}), "host namespaces")],
        ),
    ]
}
