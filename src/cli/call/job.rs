//! The Job in which something runs as an agent: a pod of the agent's, with the agent's certificate and token, for a while.

use std::{collections::BTreeMap, time::Duration};

use bulkhead_core::{pod, tokens};
use k8s_openapi::{
    api::{
        batch::v1::{Job, JobSpec},
        core::v1::{
            Capabilities, ConfigMapVolumeSource, Container, EnvVar, PodSecurityContext, PodSpec,
            PodTemplateSpec, ProjectedVolumeSource, ResourceRequirements, SeccompProfile, SecretVolumeSource,
            SecurityContext, ServiceAccountTokenProjection, Volume, VolumeMount, VolumeProjection,
        },
    },
    apimachinery::pkg::api::resource::Quantity,
};
use kube::api::ObjectMeta;

use super::trace::Trace;
use crate::agent_call::{ENV_REQUEST, Request};

/// User of the container: not the sidecar's, and not root.
const UID: i64 = 65_532;

/// For how long the token is good, in seconds: the least that the API server gives.
const TOKEN_SECONDS: i64 = 600;

/// A Job that nobody deleted is gone after this time.
const KEEP_FINISHED_SECONDS: i32 = 60;

/// The only container of a call's Job.
pub const CALL: &str = "call";

/// What the Job's pod does.
#[derive(Clone, Debug, PartialEq)]
pub enum Work {
    /// One call.
    Call(Request),
    /// The way in for clients elsewhere.
    Connect {
        /// The server's endpoint.
        url: String,
        /// The port by which clients name their end.
        port: u16,
    },
}

impl Work {
    /// The name of the only container, and of the component.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Call(_) => CALL,
            Self::Connect { .. } => "connect",
        }
    }
}

/// What a Job depends on.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The tenant's name.
    pub tenant: String,
    /// The agent's name.
    pub agent: String,
    /// The runtime class of the tenant's pods, if its tier has one.
    pub runtime_class: Option<String>,
    /// The image with `kubectl-bulkhead`.
    pub image: String,
    /// When the Job is given up.
    pub timeout: Duration,
    /// What the pod does.
    pub work: Work,
}

/// The namespace of a tenant's agents.
pub fn namespace(tenant: &str) -> String {
    format!("{tenant}-agents")
}

/// The Job. Its name is made of the trace, so that the two are found by each other.
pub fn build(plan: &Plan, trace: &Trace) -> serde_json::Result<Job> {
    let labels = labels(plan);
    Ok(Job {
        metadata: ObjectMeta {
            name: Some(format!("{}-{}", plan.work.name(), &trace.id()[..12])),
            namespace: Some(namespace(&plan.tenant)),
            labels: Some(labels.clone()),
            ..ObjectMeta::default()
        },
        spec: Some(JobSpec {
            // A call may have had its effect when its pod fails: it is never repeated.
            backoff_limit: Some(0),
            active_deadline_seconds: Some(seconds(plan.timeout) + 15),
            ttl_seconds_after_finished: Some(KEEP_FINISHED_SECONDS),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(labels),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod(plan)?),
            },
            ..JobSpec::default()
        }),
        status: None,
    })
}

fn labels(plan: &Plan) -> BTreeMap<String, String> {
    [
        ("app.kubernetes.io/managed-by", "kubectl-bulkhead"),
        ("app.kubernetes.io/component", plan.work.name()),
        ("bulkhead.dev/tenant", &plan.tenant),
        ("bulkhead.dev/agent", &plan.agent),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}

fn pod(plan: &Plan) -> serde_json::Result<PodSpec> {
    Ok(PodSpec {
        service_account_name: Some(plan.agent.clone()),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        restart_policy: Some("Never".into()),
        runtime_class_name: plan.runtime_class.clone(),
        termination_grace_period_seconds: Some(5),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(UID),
            run_as_group: Some(UID),
            // Lets the user read the key, which is readable for its group only.
            fs_group: Some(UID),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".into(),
                localhost_profile: None,
            }),
            ..PodSecurityContext::default()
        }),
        containers: vec![container(plan)?],
        volumes: Some(vec![
            Volume {
                name: "tls".into(),
                secret: Some(SecretVolumeSource {
                    secret_name: Some(format!("{}-tls", plan.agent)),
                    default_mode: Some(0o440),
                    ..SecretVolumeSource::default()
                }),
                ..Volume::default()
            },
            Volume {
                name: "trust".into(),
                config_map: Some(ConfigMapVolumeSource {
                    name: "bulkhead-trust".into(),
                    default_mode: Some(0o444),
                    ..ConfigMapVolumeSource::default()
                }),
                ..Volume::default()
            },
            Volume {
                name: "token".into(),
                projected: Some(ProjectedVolumeSource {
                    default_mode: Some(0o440),
                    sources: Some(vec![VolumeProjection {
                        service_account_token: Some(ServiceAccountTokenProjection {
                            audience: Some(tokens::audience(&plan.tenant)),
                            expiration_seconds: Some(TOKEN_SECONDS),
                            path: pod::TOKEN_FILE.into(),
                            ..ServiceAccountTokenProjection::default()
                        }),
                        ..VolumeProjection::default()
                    }]),
                    ..ProjectedVolumeSource::default()
                }),
                ..Volume::default()
            },
        ]),
        ..PodSpec::default()
    })
}

fn container(plan: &Plan) -> serde_json::Result<Container> {
    let (args, env) = match &plan.work {
        Work::Call(request) => {
            let request = EnvVar {
                name: ENV_REQUEST.into(),
                value: Some(unexpandable(&serde_json::to_string(request)?)),
                ..EnvVar::default()
            };
            (vec!["agent-call".into()], Some(vec![request]))
        }
        Work::Connect { url, port } => {
            let port = port.to_string();
            let args = ["agent-connect", "--url", url, "--port", &port];
            (args.map(str::to_owned).into(), None)
        }
    };
    Ok(Container {
        name: plan.work.name().into(),
        image: Some(plan.image.clone()),
        image_pull_policy: Some("IfNotPresent".into()),
        args: Some(args),
        env,
        resources: Some(ResourceRequirements {
            requests: Some(amounts("10m", "32Mi")),
            limits: Some(amounts("500m", "128Mi")),
            ..ResourceRequirements::default()
        }),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities {
                drop: Some(vec!["ALL".into()]),
                add: None,
            }),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(vec![
            mount("tls", pod::TLS_DIR),
            mount("trust", pod::TRUST_DIR),
            mount("token", pod::TOKEN_DIR),
        ]),
        ..Container::default()
    })
}

fn mount(name: &str, path: &str) -> VolumeMount {
    VolumeMount {
        name: name.into(),
        mount_path: path.into(),
        read_only: Some(true),
        ..VolumeMount::default()
    }
}

fn amounts(cpu: &str, memory: &str) -> BTreeMap<String, Quantity> {
    [("cpu", cpu), ("memory", memory), ("ephemeral-storage", "16Mi")]
        .map(|(resource, amount)| (resource.to_owned(), Quantity(amount.to_owned())))
        .into()
}

/// JSON that the kubelet leaves alone: in a pod's environment `$(NAME)` stands for a variable, and `$$` for `$`. In JSON
/// a `$` is always inside a string, where it can be written as an escape.
fn unexpandable(json: &str) -> String {
    json.replace('$', "\\u0024")
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn request(arguments: &Value) -> Request {
        Request {
            url: "https://crm.acme.svc:8443/mcp".into(),
            traceparent: Trace::for_test().parent(),
            timeout_seconds: 30,
            tool: Some("list_invoices".into()),
            arguments: arguments.as_object().unwrap().clone(),
        }
    }

    fn plan() -> Plan {
        Plan {
            tenant: "acme".into(),
            agent: "billing".into(),
            runtime_class: None,
            image: "cli:1".into(),
            timeout: Duration::from_secs(30),
            work: Work::Call(request(&json!({"limit": 3}))),
        }
    }

    #[test]
    fn a_call_is_a_restricted_pod_of_the_agent() {
        let labels = json!({
            "app.kubernetes.io/component": "call",
            "app.kubernetes.io/managed-by": "kubectl-bulkhead",
            "bulkhead.dev/agent": "billing",
            "bulkhead.dev/tenant": "acme",
        });
        let request = r#"{"url":"https://crm.acme.svc:8443/mcp","traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01","timeoutSeconds":30,"tool":"list_invoices","arguments":{"limit":3}}"#;
        let expected = json!({
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": "call-0af7651916cd", "namespace": "acme-agents", "labels": labels},
            "spec": {
                "backoffLimit": 0,
                "activeDeadlineSeconds": 45,
                "ttlSecondsAfterFinished": 60,
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {
                        "serviceAccountName": "billing",
                        "automountServiceAccountToken": false,
                        "enableServiceLinks": false,
                        "restartPolicy": "Never",
                        "terminationGracePeriodSeconds": 5,
                        "securityContext": {
                            "runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532,
                            "seccompProfile": {"type": "RuntimeDefault"},
                        },
                        "containers": [{
                            "name": "call",
                            "image": "cli:1",
                            "imagePullPolicy": "IfNotPresent",
                            "args": ["agent-call"],
                            "env": [{"name": "BULKHEAD_CALL", "value": request}],
                            "resources": {
                                "requests": {"cpu": "10m", "memory": "32Mi", "ephemeral-storage": "16Mi"},
                                "limits": {"cpu": "500m", "memory": "128Mi", "ephemeral-storage": "16Mi"},
                            },
                            "securityContext": {
                                "allowPrivilegeEscalation": false,
                                "readOnlyRootFilesystem": true,
                                "capabilities": {"drop": ["ALL"]},
                            },
                            "volumeMounts": [
                                {"name": "tls", "mountPath": "/etc/bulkhead/tls", "readOnly": true},
                                {"name": "trust", "mountPath": "/etc/bulkhead/trust", "readOnly": true},
                                {"name": "token", "mountPath": "/etc/bulkhead/token", "readOnly": true},
                            ],
                        }],
                        "volumes": [
                            {"name": "tls", "secret": {"secretName": "billing-tls", "defaultMode": 0o440}},
                            {"name": "trust", "configMap": {"name": "bulkhead-trust", "defaultMode": 0o444}},
                            {"name": "token", "projected": {"defaultMode": 0o440, "sources": [{"serviceAccountToken":
                                {"audience": "bulkhead:acme", "expirationSeconds": 600, "path": "token"}}]}},
                        ],
                    },
                },
            },
        });
        let job = build(&plan(), &Trace::for_test()).unwrap();
        assert_eq!(serde_json::to_value(job).unwrap(), expected);
    }

    #[test]
    fn a_way_in_is_the_same_pod_with_another_program() {
        let job = |work| {
            let job = build(&Plan { work, ..plan() }, &Trace::for_test()).unwrap();
            (
                job.metadata.name.unwrap(),
                job.spec.unwrap().template.spec.unwrap(),
            )
        };
        let (_, call) = job(plan().work);
        let (name, mut connect) = job(Work::Connect {
            url: "https://crm.acme.svc:8443/mcp".into(),
            port: 9000,
        });
        assert_eq!(name, "connect-0af7651916cd");
        let container = &mut connect.containers[0];
        let args = [
            "agent-connect",
            "--url",
            "https://crm.acme.svc:8443/mcp",
            "--port",
            "9000",
        ];
        assert_eq!(container.args.as_deref(), Some(&args.map(str::to_owned)[..]));
        assert_eq!((container.name.as_str(), &container.env), ("connect", &None));
        container.name = "call".into();
        container.args.clone_from(&call.containers[0].args);
        container.env.clone_from(&call.containers[0].env);
        assert_eq!(connect, call);
    }

    #[test]
    fn a_sandboxed_tenants_call_runs_in_its_sandbox() {
        let job = build(
            &Plan {
                runtime_class: Some("gvisor".into()),
                ..plan()
            },
            &Trace::for_test(),
        )
        .unwrap();
        let pod = job.spec.unwrap().template.spec.unwrap();
        assert_eq!(pod.runtime_class_name.as_deref(), Some("gvisor"));
    }

    #[test]
    fn arguments_reach_the_pod_as_they_are_whatever_the_kubelet_expands() {
        let mut plan = plan();
        let arguments = json!({"q": "$(PATH) $$ $(BULKHEAD_CALL)", "$(K)": "'; rm -rf / #`\n"});
        plan.work = Work::Call(request(&arguments));
        let job = build(&plan, &Trace::for_test()).unwrap();
        let pod = job.spec.unwrap().template.spec.unwrap();
        let value = pod.containers[0].env.as_ref().unwrap()[0].value.clone().unwrap();
        assert!(!value.contains('$'), "{value}");
        assert_eq!(
            serde_json::from_str::<Value>(&value).unwrap()["arguments"],
            arguments
        );
    }
}
