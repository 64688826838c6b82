//! The start of a local cluster: what waits for what, and what goes on at once.
//!
//! Nothing in Kubernetes waits by itself for what it needs: the kubelet ends without containerd's socket, kube-router
//! without its Node, the controller manager without the API server's first roles. So the order is here.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::{
    control_plane::ControlPlane,
    images::Image,
    local::Local,
    manifests, namespaces,
    node::{Node, Programs, component, ensure_folders},
    parts::{self, Part},
    plan::Plan,
    process::Supervisor,
    record::Record,
    run::{at_once, check, check_with_input, succeeds, tail, wait_for},
};

pub(crate) struct Start<'a> {
    local: &'a Local,
    record: &'a Record,
    supervisor: &'a Supervisor,
    images: [&'a Image; 2],
    plane: ControlPlane,
    programs: Programs,
    plan: Plan,
}

impl<'a> Start<'a> {
    pub(crate) fn new(
        local: &'a Local,
        record: &'a Record,
        supervisor: &'a Supervisor,
        pause: &'a Image,
        coredns: &'a Image,
    ) -> Result<Self> {
        Ok(Self {
            local,
            record,
            supervisor,
            images: [pause, coredns],
            plane: local.plane(record)?,
            programs: Self::programs(local, record, &pause.reference)?,
            plan: record.plan(),
        })
    }

    /// Where the programs of this cluster's nodes are.
    pub(crate) fn programs(local: &Local, record: &Record, pause_image: &str) -> Result<Programs> {
        let folder = |part: &str| Part::named(part)?.binaries(&local.paths);
        Ok(Programs {
            kubernetes: folder("kubernetes")?,
            containerd: folder("containerd")?,
            cni: folder("cni")?,
            kube_router: if record.network_policy {
                Some(parts::program(&local.paths, "kube-router")?)
            } else {
                None
            },
            gvisor: if record.gvisor {
                Some(folder("gvisor")?)
            } else {
                None
            },
            pause_image: pause_image.to_owned(),
        })
    }

    pub(crate) fn run(&self) -> Result<()> {
        self.plane.prepare()?;
        let nodes = self.namespaces()?;
        let first = nodes.first().context("a cluster has a node")?;
        // The API server takes the longest; images are unpacked meanwhile.
        let steps: [Job<'_>; 2] = [
            Box::new(|| self.api_server(first)),
            Box::new(|| at_once(&nodes, |node| self.containerd(node)).map(drop)),
        ];
        at_once(steps, |step| step())?;
        let steps: [Job<'_>; 3] = [
            Box::new(|| self.controllers(first)),
            Box::new(|| self.objects()),
            Box::new(|| at_once(&nodes, |node| self.node(node)).map(drop)),
        ];
        at_once(steps, |step| step())?;
        self.wait_until_ready()
    }

    fn namespaces(&self) -> Result<Vec<Node<'_>>> {
        namespaces::ensure_switch(self.supervisor, self.plan)?;
        let mut nodes = Vec::new();
        for number in 0..self.record.nodes {
            let dir = self.local.dir().join(format!("node-{number}"));
            ensure_folders(&dir)?;
            let name = self.local.node_name(number);
            let namespaces = namespaces::ensure_node(self.supervisor, self.plan, number, &name, &dir)?;
            nodes.push((number, name, dir, namespaces));
        }
        for (number, _, _, namespaces) in &nodes {
            for other in (0..self.record.nodes).filter(|other| other != number) {
                namespaces::route_pods(*namespaces, self.plan, other)?;
            }
        }
        Ok(nodes
            .into_iter()
            .map(|(number, name, dir, namespaces)| Node {
                number,
                name,
                address: self.plan.node(number),
                dir,
                logs: self.local.logs(),
                namespaces,
                supervisor: self.supervisor,
                programs: &self.programs,
            })
            .collect())
    }

    fn api_server(&self, node: &Node<'_>) -> Result<()> {
        let mut etcd = node.enter(parts::program(&self.local.paths, "etcd")?);
        etcd.args(self.plane.etcd());
        self.supervisor.ensure("etcd", &etcd)?;
        let mut server = node.enter(self.programs.kubernetes.join("kube-apiserver"));
        server.args(self.plane.api_server());
        self.supervisor.ensure("kube-apiserver", &server)?;
        let address = (self.plane.address, self.plane.port).into();
        self.wait("kube-apiserver", || {
            let second = Duration::from_secs(1);
            if std::net::TcpStream::connect_timeout(&address, second).is_err() {
                return Ok(false);
            }
            Ok(succeeds(self.local.kubectl()?.args(["get", "--raw=/readyz"])))
        })
    }

    fn containerd(&self, node: &Node<'_>) -> Result<()> {
        node.ensure_containerd()?;
        self.images
            .iter()
            .try_for_each(|image| node.load_image(&image.archive))
    }

    fn controllers(&self, node: &Node<'_>) -> Result<()> {
        let mut manager = node.enter(self.programs.kubernetes.join("kube-controller-manager"));
        manager.args(self.plane.controller_manager(10257));
        self.supervisor.ensure("kube-controller-manager", &manager)?;
        let mut scheduler = node.enter(self.programs.kubernetes.join("kube-scheduler"));
        scheduler.args(self.plane.scheduler());
        self.supervisor.ensure("kube-scheduler", &scheduler)?;
        Ok(())
    }

    fn objects(&self) -> Result<()> {
        let mut objects = manifests::kube_router();
        objects.extend(manifests::coredns(&self.images[1].reference));
        if self.record.gvisor {
            objects.extend(manifests::gvisor());
        }
        let mut kubectl = self.local.kubectl()?;
        kubectl.args([
            "apply",
            "--server-side",
            "--force-conflicts",
            "--field-manager=bulkhead-cluster",
            "-f",
            "-",
        ]);
        check_with_input(&mut kubectl, manifests::list(&objects).as_bytes())
            .context("apply the cluster's own objects")?;
        Ok(())
    }

    fn node(&self, node: &Node<'_>) -> Result<()> {
        let identity = |program: &str, user: &str, groups: &[&str]| -> Result<PathBuf> {
            self.plane
                .ensure_kubeconfig(&component(node.number, program), user, groups)
        };
        let kubelet = identity(
            "kubelet",
            &format!("system:node:{}", node.name),
            &["system:nodes"],
        )?;
        let cgroup = self.record.cgroups()?.ensure_node(node.number)?;
        node.ensure_kubelet(&self.plane.pki, &kubelet, &cgroup)?;
        node.ensure_kube_proxy(&identity("kube-proxy", "system:kube-proxy", &[])?)?;
        self.wait(&component(node.number, "kubelet"), || {
            Ok(succeeds(
                self.local
                    .kubectl()?
                    .args(["get", "node", &node.name, "-o", "name"]),
            ))
        })?;
        let range = Plan::pods(node.number);
        let patch = json!({"spec": {"podCIDR": range, "podCIDRs": [range]}}).to_string();
        check(
            self.local
                .kubectl()?
                .args(["patch", "node", &node.name, "--type=merge", "--patch", &patch]),
        )?;
        node.ensure_kube_router(&identity("kube-router", manifests::KUBE_ROUTER, &[])?)
    }

    fn wait_until_ready(&self) -> Result<()> {
        let ready = check(self.local.kubectl()?.args([
            "wait",
            "--for=condition=Ready",
            "nodes",
            "--all",
            "--timeout=120s",
        ]))
        .and_then(|_| {
            let rollout = [
                "rollout",
                "status",
                "deployment/coredns",
                "--namespace=kube-system",
                "--timeout=120s",
            ];
            check(self.local.kubectl()?.args(rollout))
        });
        for name in self.record.components() {
            self.supervisor.still_runs(&name)?;
        }
        ready.with_context(|| {
            let log = self.supervisor.log(&component(0, "kubelet"));
            format!("{}:\n{}", log.display(), tail(&log, 10))
        })?;
        Ok(())
    }

    fn wait(&self, name: &str, mut ready: impl FnMut() -> Result<bool>) -> Result<()> {
        let log = self.supervisor.log(name);
        wait_for(
            &format!("{name} ready"),
            Duration::from_mins(3),
            Duration::from_millis(150),
            || {
                self.supervisor.still_runs(name)?;
                Ok(ready()?.then_some(()))
            },
        )
        .with_context(|| format!("{}:\n{}", log.display(), tail(&log, 15)))
    }
}

type Job<'a> = Box<dyn FnOnce() -> Result<()> + Send + 'a>;
