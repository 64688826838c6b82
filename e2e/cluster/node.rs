//! What runs on a node, and how it is told: containerd, the kubelet, kube-proxy, kube-router.

use std::{
    ffi::OsString,
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::{
    control_plane::SERVICE_RANGE,
    kubeconfig::write_private,
    namespaces::NodeNamespaces,
    plan::{POD_RANGE, Plan, SERVICE_DNS},
    process::Supervisor,
    run::{succeeds, wait_for},
};

/// Where containerd answers, in the node's own `/run`.
const CONTAINERD: &str = "/run/containerd/containerd.sock";

/// One node of a running cluster, ready to start programs in.
pub(crate) struct Node<'a> {
    pub(crate) number: u8,
    pub(crate) name: String,
    pub(crate) address: Ipv4Addr,
    pub(crate) dir: PathBuf,
    pub(crate) logs: PathBuf,
    pub(crate) namespaces: NodeNamespaces,
    pub(crate) supervisor: &'a Supervisor,
    pub(crate) programs: &'a Programs,
}

/// The folders that the programs of a node come from, and what they are told about images.
pub(crate) struct Programs {
    pub(crate) kubernetes: PathBuf,
    pub(crate) containerd: PathBuf,
    pub(crate) cni: PathBuf,
    pub(crate) kube_router: Option<PathBuf>,
    pub(crate) gvisor: Option<PathBuf>,
    pub(crate) pause_image: String,
}

/// The name of a node's program among the cluster's.
pub(crate) fn component(node: u8, program: &str) -> String {
    format!("node-{node}-{program}")
}

impl Node<'_> {
    /// A command inside the node that finds the node's own programs.
    pub(crate) fn enter(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = self.namespaces.enter(program);
        command.env("PATH", self.search_path());
        // So that `ctr` needs no flags.
        command
            .env("CONTAINERD_ADDRESS", CONTAINERD)
            .env("CONTAINERD_NAMESPACE", "k8s.io");
        command
    }

    fn search_path(&self) -> OsString {
        let mut folders = vec![self.programs.containerd.clone(), self.programs.kubernetes.clone()];
        folders.extend(self.programs.gvisor.clone());
        folders.extend(["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from));
        // Folders come from paths of ours: none has a colon, or nothing else would have worked either.
        std::env::join_paths(folders).unwrap_or_default()
    }

    pub(crate) fn ensure_containerd(&self) -> Result<()> {
        let name = component(self.number, "containerd");
        if self.supervisor.running(&name).is_none() {
            let network = self.dir.join("cni");
            write_private(
                &network.join("10-bulkhead.conflist"),
                &format!("{:#}\n", cni_config(self.number)),
            )?;
            let gvisor = self.programs.gvisor.as_ref().map(|_| self.dir.join("runsc.toml"));
            if let Some(path) = &gvisor {
                // The platform that needs no virtualization.
                write_private(path, "[runsc_config]\nplatform = \"systrap\"\n")?;
            }
            let config = self.dir.join("containerd.toml");
            write_private(&config, &self.containerd_config(&network, gvisor.as_deref()))?;
            let mut containerd = self.enter(self.programs.containerd.join("containerd"));
            containerd.arg("--config").arg(&config);
            self.supervisor.ensure(&name, &containerd)?;
        }
        self.wait("containerd", || {
            Ok(succeeds(self.enter("ctr").arg("version")).then_some(()))
        })
    }

    /// Makes an image archive known to this node.
    pub(crate) fn load_image(&self, archive: &Path) -> Result<()> {
        crate::run::check(self.enter("ctr").args(["images", "import"]).arg(archive))
            .with_context(|| format!("load {} into {}", archive.display(), self.name))?;
        Ok(())
    }

    pub(crate) fn ensure_kubelet(
        &self,
        pki: &crate::pki::Pki,
        kubeconfig: &Path,
        cgroup: &str,
    ) -> Result<()> {
        let name = component(self.number, "kubelet");
        if self.supervisor.running(&name).is_some() {
            return Ok(());
        }
        let stem = component(self.number, "kubelet-server");
        let user = format!("system:node:{}", self.name);
        pki.ensure_server(
            &stem,
            &user,
            &["system:nodes"],
            &[&self.name],
            &[self.address.into()],
        )?;
        let resolv = self.dir.join("resolv.conf");
        // The machine's own servers and search list are none of the pods' business.
        write_private(&resolv, "# Nothing outside the cluster has a name here.\n")?;
        let config = self.dir.join("kubelet.json");
        let text = self.kubelet_config(
            cgroup,
            &[
                &pki.path("ca.crt"),
                &pki.path(&format!("{stem}.crt")),
                &pki.path(&format!("{stem}.key")),
            ],
            &resolv,
        );
        write_private(&config, &format!("{text:#}\n"))?;
        let mut kubelet = self.enter(self.programs.kubernetes.join("kubelet"));
        kubelet
            .arg(format!("--config={}", config.display()))
            .arg(format!("--kubeconfig={}", kubeconfig.display()))
            .arg(format!("--hostname-override={}", self.name))
            .arg(format!("--node-ip={}", self.address));
        self.supervisor.ensure(&name, &kubelet)?;
        Ok(())
    }

    pub(crate) fn ensure_kube_proxy(&self, kubeconfig: &Path) -> Result<()> {
        let name = component(self.number, "kube-proxy");
        let config = self.dir.join("kube-proxy.json");
        write_private(
            &config,
            &format!("{:#}\n", kube_proxy_config(&self.name, kubeconfig)),
        )?;
        let mut proxy = self.enter(self.programs.kubernetes.join("kube-proxy"));
        proxy.arg(format!("--config={}", config.display()));
        self.supervisor.ensure(&name, &proxy)?;
        Ok(())
    }

    /// Starts the enforcement of `NetworkPolicy`. The Node object has to be there: kube-router does not wait for it.
    pub(crate) fn ensure_kube_router(&self, kubeconfig: &Path) -> Result<()> {
        let Some(program) = &self.programs.kube_router else {
            return Ok(());
        };
        let mut router = self.enter(program);
        router
            .args([
                "--run-router=false",
                "--run-service-proxy=false",
                "--run-firewall=true",
                "--enable-cni=false",
            ])
            .args(["--health-port=0", "--metrics-port=0"])
            .arg(format!("--service-cluster-ip-range={SERVICE_RANGE}"))
            .arg(format!("--kubeconfig={}", kubeconfig.display()))
            .arg(format!("--hostname-override={}", self.name));
        self.supervisor
            .ensure(&component(self.number, "kube-router"), &router)?;
        Ok(())
    }

    fn wait(&self, program: &str, mut ready: impl FnMut() -> Result<Option<()>>) -> Result<()> {
        let name = component(self.number, program);
        wait_for(
            &format!("{name} ready"),
            Duration::from_mins(1),
            Duration::from_millis(100),
            || {
                self.supervisor.still_runs(&name)?;
                ready()
            },
        )
    }

    fn containerd_config(&self, network: &Path, runsc: Option<&Path>) -> String {
        let gvisor = runsc.map_or_else(String::new, |config| {
            format!(
                r#"
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runsc]
    runtime_type = "io.containerd.runsc.v1"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runsc.options]
      TypeUrl = "io.containerd.runsc.v1.options"
      ConfigPath = "{}"
"#,
                config.display()
            )
        });
        format!(
            r#"version = 3
root = "{root}"
state = "/run/containerd"
# The first would make /opt/containerd on the machine.
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.nri.v1.nri"]

[grpc]
  address = "{CONTAINERD}"

[plugins."io.containerd.cri.v1.images"]
  snapshotter = "{snapshotter}"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "{pause}"

[plugins."io.containerd.cri.v1.runtime"]
  # A score below our own may only be set with CAP_SYS_RESOURCE.
  restrict_oom_score_adj = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["{cni}"]
    conf_dir = "{network}"
    use_internal_loopback = true
  [plugins."io.containerd.cri.v1.runtime".containerd]
    default_runtime_name = "runc"
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
      SystemdCgroup = false
{gvisor}"#,
            root = self.dir.join("containerd").display(),
            snapshotter = snapshotter(&self.dir),
            pause = self.programs.pause_image,
            cni = self.programs.cni.display(),
            network = network.display(),
        )
    }

    fn kubelet_config(&self, cgroup: &str, [ca, certificate, key]: &[&PathBuf; 3], resolv: &Path) -> Value {
        json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": self.address,
            "authentication": {
                "anonymous": {"enabled": false},
                "webhook": {"enabled": true},
                "x509": {"clientCAFile": ca},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": certificate,
            "tlsPrivateKeyFile": key,
            "containerRuntimeEndpoint": format!("unix://{CONTAINERD}"),
            "clusterDomain": "cluster.local",
            "clusterDNS": [SERVICE_DNS],
            "resolvConf": resolv,
            "podLogsDir": self.logs.join(component(self.number, "pods")),
            "volumePluginDir": "/var/lib/kubelet/volume-plugins",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": cgroup,
            "failCgroupV1": false,
            "failSwapOn": false,
            // Images are loaded by hand and cannot be fetched again, so a full disk must not remove them.
            "imageGCHighThresholdPercent": 100,
            "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
            "serializeImagePulls": false,
            // How soon a renewed Secret or a changed ConfigMap shows in a volume.
            "syncFrequency": "10s",
            "nodeStatusUpdateFrequency": "5s",
        })
    }
}

/// Overlay does not stack on an overlay, as in a container; there, plain copies do.
fn snapshotter(dir: &Path) -> &'static str {
    const OVERLAYFS: i64 = 0x794c_7630;
    let kind = rustix::fs::statfs(dir).map(|stat| stat.f_type);
    if kind.is_ok_and(|kind| kind == OVERLAYFS) {
        "native"
    } else {
        "overlayfs"
    }
}

/// Every pod has a cable of its own to the node, so that all traffic is routed and passes the chain where policies are
/// enforced. Over a bridge, pods of one node would talk past it.
fn cni_config(node: u8) -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "bulkhead",
        "plugins": [
            {
                "type": "ptp",
                "ipam": {
                    "type": "host-local",
                    "dataDir": "/run/cni",
                    "ranges": [[{"subnet": Plan::pods(node)}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    })
}

fn kube_proxy_config(node: &str, kubeconfig: &Path) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": kubeconfig},
        "hostnameOverride": node,
        "mode": "iptables",
        "clusterCIDR": POD_RANGE,
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        // These limits are the machine's; zero leaves them alone.
        "conntrack": {
            "maxPerCore": 0,
            "min": 0,
            "tcpEstablishedTimeout": "0s",
            "tcpCloseWaitTimeout": "0s",
        },
    })
}

/// Makes the folders that a node's programs expect.
pub(crate) fn ensure_folders(dir: &Path) -> Result<()> {
    for folder in ["kubelet", "containerd", "cni"] {
        let path = dir.join(folder);
        fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_node_gives_addresses_from_its_own_range() {
        let range = |node| cni_config(node)["plugins"][0]["ipam"]["ranges"][0][0]["subnet"].clone();
        assert_eq!(range(0), "10.244.0.0/24");
        assert_ne!(range(0), range(1));
    }

    #[test]
    fn kube_proxy_leaves_the_machines_limits_alone() {
        let config = kube_proxy_config("demo-0", Path::new("/kubeconfig"));
        assert_eq!(config["conntrack"]["maxPerCore"], 0);
        assert_eq!(config["hostnameOverride"], "demo-0");
    }
}
