//! A server's pod in a line: phase, sidecar, server, restarts, node, policy.

use bulkhead_core::pod::{ENV_POLICY_REVISION, SERVER_CONTAINER, SIDECAR_CONTAINER};
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod};
use kube::ResourceExt as _;
use serde::Serialize;

/// A pod of a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodView {
    /// Name.
    pub name: String,
    /// Phase, or `Terminating`.
    pub phase: String,
    /// State of the sidecar.
    pub sidecar: String,
    /// State of the MCP server's container.
    pub server: String,
    /// Restarts of both.
    pub restarts: i32,
    /// Revision of the policy that its sidecar was started for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy_revision: Option<String>,
    /// Whether that is the revision which the operator wants.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<bool>,
    /// Node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

/// The server that a pod belongs to.
pub fn server_of(pod: &Pod) -> Option<String> {
    pod.labels().get("bulkhead.dev/server").cloned()
}

/// Makes the view of a pod of a server whose policy has this revision.
pub fn pod(pod: &Pod, wanted: Option<&str>) -> PodView {
    let status = pod.status.clone().unwrap_or_default();
    let find = |statuses: &Option<Vec<ContainerStatus>>, name: &str| {
        statuses
            .iter()
            .flatten()
            .find(|status| status.name == name)
            .cloned()
    };
    let sidecar = find(&status.init_container_statuses, SIDECAR_CONTAINER);
    let server = find(&status.container_statuses, SERVER_CONTAINER);
    let restarts = [&sidecar, &server]
        .into_iter()
        .flatten()
        .map(|status| status.restart_count)
        .sum();
    let policy_revision = policy_revision(pod);
    PodView {
        name: pod.name_any(),
        phase: match pod.metadata.deletion_timestamp {
            Some(_) => "Terminating".into(),
            None => status.phase.unwrap_or_else(|| "Unknown".into()),
        },
        sidecar: state(sidecar.as_ref()),
        server: state(server.as_ref()),
        restarts,
        current: wanted
            .zip(policy_revision.as_deref())
            .map(|(wanted, runs)| wanted == runs),
        policy_revision,
        node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        address: status.pod_ip,
    }
}

fn policy_revision(pod: &Pod) -> Option<String> {
    let containers = pod.spec.as_ref()?.init_containers.as_ref()?;
    let sidecar = containers
        .iter()
        .find(|container| container.name == SIDECAR_CONTAINER)?;
    let variable = sidecar
        .env
        .as_ref()?
        .iter()
        .find(|variable| variable.name == ENV_POLICY_REVISION)?;
    variable.value.clone()
}

/// `ready`, `started`, `running`, or what keeps it from that.
fn state(status: Option<&ContainerStatus>) -> String {
    let Some(status) = status else {
        return "waiting".into();
    };
    match status.state.clone().unwrap_or_default() {
        ContainerState { running: Some(_), .. } if status.ready => "ready".into(),
        ContainerState { running: Some(_), .. } if status.started == Some(true) => "not ready".into(),
        ContainerState { running: Some(_), .. } => "starting".into(),
        ContainerState {
            terminated: Some(ended),
            ..
        } => {
            let reason = ended.reason.unwrap_or_else(|| "ended".into());
            format!("{reason} (exit code {})", ended.exit_code)
        }
        ContainerState {
            waiting: Some(waiting),
            ..
        } => match last_exit(status) {
            Some(code) => format!(
                "{} (exit code {code})",
                waiting.reason.unwrap_or_else(|| "waiting".into())
            ),
            None => waiting.reason.unwrap_or_else(|| "waiting".into()),
        },
        _ => "waiting".into(),
    }
}

fn last_exit(status: &ContainerStatus) -> Option<i32> {
    Some(status.last_state.as_ref()?.terminated.as_ref()?.exit_code)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn status(ready: bool, started: bool, state: &Value) -> ContainerStatus {
        serde_json::from_value(json!({
            "name": "server", "image": "", "imageID": "", "ready": ready, "started": started, "restartCount": 1,
            "state": state, "lastState": {"terminated": {"exitCode": 70}},
        }))
        .unwrap()
    }

    #[test]
    fn a_container_is_told_in_a_word_or_two() {
        let running = json!({"running": {}});
        let table = [
            (Some(status(true, true, &running)), "ready"),
            (Some(status(false, true, &running)), "not ready"),
            (Some(status(false, false, &running)), "starting"),
            (
                Some(status(
                    false,
                    false,
                    &json!({"waiting": {"reason": "CrashLoopBackOff"}}),
                )),
                "CrashLoopBackOff (exit code 70)",
            ),
            (
                Some(status(
                    false,
                    false,
                    &json!({"terminated": {"reason": "Error", "exitCode": 1}}),
                )),
                "Error (exit code 1)",
            ),
            (Some(status(false, false, &json!({}))), "waiting"),
            (None, "waiting"),
        ];
        for (status, text) in table {
            assert_eq!(state(status.as_ref()), text);
        }
    }

    #[test]
    fn a_pod_of_an_older_policy_is_not_current() {
        let env = json!([{"name": "BULKHEAD_POLICY_REVISION", "value": "aaaa"}]);
        let object: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p"},
            "spec": {"containers": [], "initContainers": [{"name": "bulkhead-proxy", "env": env}]},
        }))
        .unwrap();
        for (wanted, current) in [
            (Some("aaaa"), Some(true)),
            (Some("bbbb"), Some(false)),
            (None, None),
        ] {
            assert_eq!(pod(&object, wanted).current, current, "{wanted:?}");
        }
    }

    #[test]
    fn a_pod_that_is_being_deleted_is_terminating_whatever_its_phase() {
        let object: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "deletionTimestamp": "2026-11-22T10:00:00Z"}, "status": {"phase": "Running"},
        }))
        .unwrap();
        assert_eq!(pod(&object, None).phase, "Terminating");
    }
}
