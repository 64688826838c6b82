//! Who tries without end, and who is tried: a tenant whose server dials, and a target that anybody may dial.

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::{Agent, apply, eventually, objects, said, setting, tenant};

/// Port of an open target.
const PORT: u16 = 7000;

/// A pod in a plain namespace without walls, which says who came.
#[derive(Debug)]
pub struct Open {
    agent: Agent,
    /// `address:port`.
    pub address: String,
}

impl Open {
    /// Starts one.
    ///
    /// # Panics
    /// When it doesn't come up.
    pub fn target(name: &str) -> Self {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "open"}});
        eventually("a namespace without walls", || apply(&namespace));
        let agent = Agent::running("open", name, &["listen", &PORT.to_string()]);
        let address = format!("{}:{PORT}", agent.ip());
        Self { agent, address }
    }

    /// Who has connected so far.
    ///
    /// # Panics
    /// When its log can't be read.
    #[allow(clippy::expect_used, reason = "a scenario fails by panicking")]
    pub fn came(&self) -> Vec<String> {
        let said = self.agent.said().expect("the target's log must be readable");
        let peers = said.iter().filter_map(|line| line["accepted"].as_str());
        peers.map(str::to_owned).collect()
    }

    /// Who has connected, once the pod `beside`, which is behind no wall, is heard too: what came before it is heard then.
    ///
    /// # Panics
    /// When that pod isn't heard: then the others' silence shows nothing.
    #[allow(clippy::expect_used, reason = "a scenario fails by panicking")]
    pub fn came_until(&self, beside: &str) -> Vec<String> {
        let control = Agent::bystander("open", beside);
        control
            .dial(&self.address)
            .expect("the target takes whoever is not behind a wall");
        let address = control.ip();
        eventually("the pod beside it is heard", || match self.came() {
            came if came.contains(&address) => Ok(came),
            came => bail!("{came:?}"),
        })
    }

    /// Whether the connection that this peer held has ended.
    pub fn ended(&self, peer: &str) -> Result<bool> {
        Ok(self.agent.said()?.iter().any(|line| line["ended"] == *peer))
    }
}

/// The pods of a tenant's server `dialler`, which dials.
#[derive(Debug)]
pub struct Dialler {
    /// The tenant.
    pub tenant: String,
}

/// One of its pods.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DiallerPod {
    /// Its UID.
    pub uid: String,
    /// Its name.
    pub name: String,
    /// Its address.
    pub ip: String,
    /// Its runtime class.
    pub runtime_class: Option<String>,
}

impl Dialler {
    /// A tenant whose only server runs the probe with these arguments, on every address, in so many replicas.
    pub fn tenant(name: &str, replicas: u32, args: &[&str]) -> Value {
        let mut spec = tenant(name);
        let args = [&["listen", "--mcp", "3000"], args].concat();
        spec["spec"]["quota"] = json!({"cpu": "4", "memory": "2Gi", "pods": 2 * replicas + 2});
        spec["spec"]["servers"] = json!([{
            "name": "dialler",
            "image": setting("BULKHEAD_E2E_IMAGE_PROBE"),
            "args": args,
            "replicas": replicas,
            "http": {"port": 3000},
            "resources": {
                "requests": {"cpu": "10m", "memory": "16Mi"},
                "limits": {"cpu": "100m", "memory": "64Mi"},
            },
        }]);
        spec
    }

    /// The server of that tenant.
    pub fn of(tenant: &str) -> Self {
        Self {
            tenant: tenant.into(),
        }
    }

    /// Its pods that run and are not on their way out.
    pub fn pods(&self) -> Result<Vec<DiallerPod>> {
        let selector = "bulkhead.dev/server=dialler";
        let mut pods = Vec::new();
        for pod in objects("pods", &self.tenant, selector)? {
            let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
            let ready = pod["status"]["conditions"]
                .as_array()
                .into_iter()
                .flatten()
                .any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
            if text("/metadata/deletionTimestamp").is_some() || !ready {
                continue;
            }
            pods.push(DiallerPod {
                uid: text("/metadata/uid").context("a UID")?,
                name: text("/metadata/name").context("a name")?,
                ip: text("/status/podIP").context("an address")?,
                runtime_class: text("/spec/runtimeClassName"),
            });
        }
        Ok(pods)
    }

    /// Its pods once there are so many that none of these is among.
    ///
    /// # Panics
    /// When they don't come.
    pub fn new_pods(&self, count: usize, old: &[DiallerPod]) -> Vec<DiallerPod> {
        eventually(&format!("{count} new pods of {}", self.tenant), || {
            let pods = self.pods()?;
            let new = pods
                .iter()
                .filter(|pod| old.iter().all(|old| old.uid != pod.uid))
                .count();
            if new == count && pods.len() == count {
                Ok(pods)
            } else {
                bail!("{new} new of {}", pods.len())
            }
        })
    }

    /// What the server of one of its pods has said.
    pub fn said(&self, pod: &DiallerPod) -> Result<Vec<Value>> {
        said(&self.tenant, &pod.name, "server")
    }

    /// Waits until a loop of this pod is under way, and returns how many of its dials succeeded.
    ///
    /// # Panics
    /// When it doesn't dial.
    pub fn successes(&self, pod: &DiallerPod) -> u64 {
        eventually(&format!("{} dials", pod.name), || successes(&self.said(pod)?))
    }
}

/// How many dials of all loops succeeded, by the last count of each; an error before the first count.
pub(crate) fn successes(said: &[Value]) -> Result<u64> {
    let mut last = std::collections::BTreeMap::new();
    for line in said {
        if let (Some(target), Some(successes)) = (line["dialled"].as_str(), line["successes"].as_u64()) {
            last.insert(target, successes);
        }
    }
    if last.is_empty() {
        bail!("no count yet");
    }
    Ok(last.values().sum())
}
