//! An agent of a tenant: a pod in the agents' namespace with the agent's own certificate and token.

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::{Kubectl, apply, dialler::successes, eventually, exec, object, ready, said, setting};

const PROBE: &str = "/usr/local/bin/bulkhead-probe";

/// Where the probe finds what proves an agent.
pub const PROOF: [&str; 4] = [
    "--identity",
    "/etc/bulkhead/identity",
    "--token",
    "/etc/bulkhead/token/token",
];

/// A pod that runs probes. It is an agent when it has a certificate.
#[derive(Clone, Debug)]
pub struct Agent {
    namespace: String,
    pod: String,
}

impl Agent {
    /// Starts a pod for an agent of a tenant and waits until it reaches the tenant's servers.
    ///
    /// # Panics
    /// When the pod doesn't come up.
    pub fn start(tenant: &str, agent: &str) -> Self {
        let namespace = format!("{tenant}-agents");
        Self::start_with(
            &namespace,
            &format!("probe-{agent}"),
            agent,
            &format!("{agent}-tls"),
        )
        .reaching(tenant)
    }

    /// Waits until the network lets it through: plugins learn of a new pod's address some time after it runs.
    #[allow(clippy::expect_used, reason = "a scenario fails by panicking")]
    fn reaching(self, tenant: &str) -> Self {
        let servers = object("mcptenant", "", tenant).expect("the agent's tenant")["spec"]["servers"].take();
        for server in servers.as_array().into_iter().flatten() {
            let name = server["name"].as_str().unwrap_or_default();
            let target = format!("{name}.{tenant}.svc:8443");
            eventually(&format!("{} reaches {target}", self.pod), || self.dial(&target));
        }
        self
    }

    /// Starts a pod under a service account with the certificate of any Secret of that namespace.
    ///
    /// # Panics
    /// When the pod doesn't come up.
    pub fn start_with(namespace: &str, name: &str, account: &str, identity: &str) -> Self {
        let pod = pod(namespace, name, account, Some(identity), &["wait"]);
        Self::run_pod(apply, namespace, name, &pod)
    }

    /// Starts a pod for an agent as a person: that person makes the pod, the scenario looks into it.
    ///
    /// # Panics
    /// When the person may not, or the pod doesn't come up.
    pub fn start_by(person: &Kubectl, tenant: &str, agent: &str, name: &str) -> Self {
        let namespace = format!("{tenant}-agents");
        let pod = pod(&namespace, name, agent, Some(&format!("{agent}-tls")), &["wait"]);
        Self::run_pod(|pod| person.apply(pod).map(drop), &namespace, name, &pod).reaching(tenant)
    }

    /// Starts a pod that is no agent: no certificate, in any namespace.
    ///
    /// # Panics
    /// When the pod doesn't come up.
    pub fn bystander(namespace: &str, name: &str) -> Self {
        let pod = pod(namespace, name, "default", None, &["wait"]);
        Self::run_pod(apply, namespace, name, &pod)
    }

    /// Starts a pod that is no agent and runs this of the probe.
    ///
    /// # Panics
    /// When the pod doesn't come up.
    pub fn running(namespace: &str, name: &str, args: &[&str]) -> Self {
        let pod = pod(namespace, name, "default", None, args);
        Self::run_pod(apply, namespace, name, &pod)
    }

    /// A pod that runs already.
    pub(crate) fn existing(namespace: &str, pod: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            pod: pod.to_owned(),
        }
    }

    /// The pod's address.
    ///
    /// # Panics
    /// When it has none.
    pub fn ip(&self) -> String {
        eventually("a pod's address", || -> Result<String> {
            let pod = object("pod", &self.namespace, &self.pod)?;
            let ip = pod["status"]["podIP"].as_str().map(str::to_owned);
            ip.context("none yet")
        })
    }

    /// How many dials of its loops succeeded so far.
    ///
    /// # Panics
    /// When it doesn't dial.
    pub fn successes(&self) -> u64 {
        eventually(&format!("{} dials", self.pod), || successes(&self.said()?))
    }

    /// What it has said so far, a JSON object a line.
    pub fn said(&self) -> Result<Vec<Value>> {
        said(&self.namespace, &self.pod, "probe")
    }

    fn run_pod(make: impl Fn(&Value) -> Result<()>, namespace: &str, name: &str, pod: &Value) -> Self {
        eventually(&format!("pod {namespace}/{name} applied"), || make(pod));
        eventually(&format!("pod {namespace}/{name} running"), || {
            ready("pod", namespace, name)
        });
        Self {
            namespace: namespace.into(),
            pod: name.into(),
        }
    }

    /// Starts a steady load in a pod of its own, which [`Load::end`] ends.
    ///
    /// # Panics
    /// When the pod can't be made.
    pub fn load(tenant: &str, agent: &str, url: &str, body: &Value, expect: &str) -> Load {
        let namespace = format!("{tenant}-agents");
        let name = format!("load-{agent}");
        let body = body.to_string();
        let mut args = vec!["load", "--url", url];
        args.extend(PROOF);
        args.extend(["--expect", expect, &body]);
        let mut pod = pod(&namespace, &name, agent, Some(&format!("{agent}-tls")), &args);
        pod["spec"]["restartPolicy"] = json!("Never");
        eventually("load applied", || apply(&pod));
        let load = Load { namespace, pod: name };
        eventually("calls of the load", || match load.so_far()? {
            report if report["ok"].as_u64() > Some(0) => Ok(()),
            report => bail!("{report}"),
        });
        load
    }

    /// Dials `host:port`. `Ok(())` when it was accepted, an error when it was not.
    ///
    /// # Panics
    /// When the probe didn't answer: that is no refusal.
    #[allow(clippy::expect_used, reason = "a scenario fails by panicking")]
    pub fn dial(&self, target: &str) -> Result<()> {
        let answer = self
            .probe(&["dial", target, "--attempts", "3"])
            .expect("the probe must run");
        dialled(target, &answer)
    }

    /// Opens an MCP session and posts these messages in it; an answer each, or one `error`.
    pub fn rpc(&self, url: &str, messages: &[Value]) -> Result<Vec<Value>> {
        let bodies: Vec<String> = messages.iter().map(Value::to_string).collect();
        self.raw(url, &bodies.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// The same with bodies that needn't be JSON.
    pub fn raw(&self, url: &str, bodies: &[&str]) -> Result<Vec<Value>> {
        self.raw_with(url, &PROOF, bodies)
    }

    /// The same by what proves no agent, or another way than the agents'.
    pub fn raw_with(&self, url: &str, flags: &[&str], bodies: &[&str]) -> Result<Vec<Value>> {
        let mut args = vec!["rpc", "--url", url];
        args.extend(flags);
        args.extend(bodies);
        self.probe(&args)
    }

    /// One `tools/call`, and its JSON-RPC answer.
    pub fn call(&self, url: &str, tool: &str, arguments: &Value) -> Result<Value> {
        let message = call_message(tool, Some(arguments));
        let mut answers = self.rpc(url, &[message])?;
        let answer = answers.pop().context("the probe must answer")?;
        if answer.get("error").is_some() {
            bail!("{}", answer["error"]);
        }
        Ok(answer["body"].clone())
    }

    /// The names of the tools that this agent is shown.
    pub fn tools(&self, url: &str) -> Result<Vec<Value>> {
        let list = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"});
        let answers = self.rpc(url, &[list])?;
        answers
            .first()
            .and_then(|answer| answer["body"]["result"]["tools"].as_array().cloned())
            .with_context(|| format!("no list of tools in {answers:?}"))
    }

    /// Runs the probe in the pod and reads its lines.
    pub fn probe(&self, args: &[&str]) -> Result<Vec<Value>> {
        let text = exec(&self.namespace, &self.pod, &[&[PROBE], args].concat())?;
        text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    }
}

/// What a probe's `dial` said: `Ok(())` when the target accepted.
///
/// # Panics
/// When it said nothing.
#[allow(clippy::expect_used, reason = "a scenario fails by panicking")]
pub fn dialled(target: &str, answer: &[Value]) -> Result<()> {
    let answer = answer.first().expect("the probe must answer");
    if answer["connected"] == true {
        Ok(())
    } else {
        bail!("{target}: {}", answer["error"])
    }
}

/// A `tools/call` message; `None` leaves `arguments` out.
pub fn call_message(tool: &str, arguments: Option<&Value>) -> Value {
    let mut message = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool}});
    if let Some(arguments) = arguments {
        message["params"]["arguments"] = arguments.clone();
    }
    message
}

/// A steady load in a pod of its own.
#[derive(Debug)]
pub struct Load {
    namespace: String,
    pod: String,
}

impl Load {
    /// What came of it so far: `ok`, `failed`, `failures`, `serials`.
    pub fn so_far(&self) -> Result<Value> {
        let mut said = said(&self.namespace, &self.pod, "probe")?;
        said.pop().context("it has said nothing yet")
    }

    /// Ends the load and returns its last report.
    ///
    /// # Panics
    /// When the load doesn't end, or no call of it succeeded: then it shows nothing.
    pub fn end(&self) -> Value {
        // The container may be gone with all that runs in it before this one has said how it went.
        let asked = exec(&self.namespace, &self.pod, &[PROBE, "end"]);
        let report = eventually(&format!("the load's end, asked for: {asked:?}"), || {
            match self.so_far()? {
                report if report["ended"] == true => Ok(report),
                report => bail!("{report}"),
            }
        });
        assert!(report["ok"].as_u64() > Some(0), "calls were made: {report}");
        report
    }
}

/// A source of a projected volume: the pod's own token for an audience.
fn token(path: &str, audience: &str) -> Value {
    json!({"serviceAccountToken": {"path": path, "audience": audience, "expirationSeconds": 600}})
}

fn pod(namespace: &str, name: &str, account: &str, identity: Option<&str>, args: &[&str]) -> Value {
    let mut pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"bulkhead.dev/agent": account}},
        "spec": {
            "serviceAccountName": account,
            "automountServiceAccountToken": false,
            "terminationGracePeriodSeconds": 1,
            "securityContext": {"runAsNonRoot": true, "runAsUser": 10_001, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "probe",
                "image": setting("BULKHEAD_E2E_IMAGE_PROBE"),
                "imagePullPolicy": "IfNotPresent",
                "args": args,
                "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"cpu": "200m", "memory": "64Mi"}},
                "securityContext": {"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}},
            }],
        },
    });
    if let Some(identity) = identity {
        pod["spec"]["containers"][0]["volumeMounts"] = json!([
            {"name": "identity", "mountPath": "/etc/bulkhead/identity", "readOnly": true},
            {"name": "trust", "mountPath": "/etc/bulkhead/trust", "readOnly": true},
            {"name": "token", "mountPath": "/etc/bulkhead/token", "readOnly": true},
        ]);
        pod["spec"]["volumes"] = json!([
            {"name": "identity", "secret": {"secretName": identity}},
            {"name": "trust", "configMap": {"name": "bulkhead-trust"}},
            {"name": "token", "projected": {"sources": [
                token("token", &format!("bulkhead:{}", namespace.trim_end_matches("-agents"))),
                // What the same agent would show elsewhere.
                token("elsewhere", "https://elsewhere.example"),
            ]}},
        ]);
    }
    // A tenant in a sandbox has its agents' pods there too: its namespace says in which.
    if let Ok(annotated) = object("namespace", "", namespace)
        && let Some(class) = annotated["metadata"]["annotations"]["bulkhead.dev/runtime-class"].as_str()
    {
        pod["spec"]["runtimeClassName"] = json!(class);
    }
    pod
}
