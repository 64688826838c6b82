//! The namespaces that nodes live in, and the cables between them.
//!
//! Each namespace is held by a process that sleeps: no name is bound anywhere, so when the cluster's processes are gone
//! the kernel removes namespaces, links, mounts and packet rules by itself. On the machine there is one end of one cable.
//!
//! ```text
//! machine: bulkheadN ──┐
//! node 0:  eth0 ───────┤ br0, in a namespace that holds nothing else
//! node 1:  eth0 ───────┘
//! ```

use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::{Context as _, Result};

use crate::{
    plan::{POD_RANGE, Plan},
    process::{Identity, Supervisor},
    run::{check, command, succeeds, wait_for},
};

/// The name of the process that holds the bridge.
const SWITCH: &str = "switch";
/// In a node's own `/run`, once the node is set up.
const READY: &str = "/run/bulkhead-node";

/// The namespaces of one node, by the process that holds them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NodeNamespaces {
    holder: Identity,
}

impl NodeNamespaces {
    /// A command that runs inside the node: its network, its mounts, its host name.
    pub(crate) fn enter(self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        // Not `ip netns exec`: that one mounts a new /sys and so hides the control groups from the kubelet.
        let mut nsenter = command("nsenter");
        nsenter
            .arg(format!("--target={}", self.holder.pid))
            .args(["--net", "--uts", "--mount", "--"])
            .arg(program);
        nsenter
    }
}

/// The name of the process that holds a node's namespaces.
fn holder(node: u8) -> String {
    format!("node-{node}-namespaces")
}

/// The names of all processes that hold namespaces.
pub(crate) fn holders(nodes: u8) -> Vec<String> {
    std::iter::once(SWITCH.to_owned())
        .chain((0..nodes).map(holder))
        .collect()
}

/// Whether a process of the cluster is one that holds namespaces.
pub(crate) fn is_holder(name: &str) -> bool {
    name == SWITCH || name.ends_with("-namespaces")
}

/// The namespaces of a node that is up.
pub(crate) fn of_node(supervisor: &Supervisor, node: u8) -> Option<NodeNamespaces> {
    supervisor
        .running(&holder(node))
        .map(|holder| NodeNamespaces { holder })
}

/// Makes the bridge and the cable from the machine to it.
pub(crate) fn ensure_switch(supervisor: &Supervisor, plan: Plan) -> Result<()> {
    let switch = hold(supervisor, SWITCH, &["--net"])?;
    let script = "ip link show br0 >/dev/null 2>&1 || \
                  { ip link set lo up && ip link add br0 type bridge forward_delay 0 && ip link set br0 up; }";
    check(enter_net(switch).args(["sh", "-c", script]))?;
    let link = plan.host_link();
    if !succeeds(command("ip").args(["link", "show", &link])) {
        connect(switch, "machine", &link, None)?;
        check(command("ip").args(["addr", "add", &format!("{}/24", plan.host()), "dev", &link]))?;
        check(command("ip").args(["link", "set", &link, "up"]))?;
    }
    Ok(())
}

/// Removes the machine's end of the cable. It goes with the namespace at the other end, but not at once.
pub(crate) fn remove_switch(plan: Plan) {
    succeeds(command("ip").args(["link", "delete", &plan.host_link()]));
}

/// Makes a node: its namespaces, its address, its routes to the pods of the others, its private folders.
pub(crate) fn ensure_node(
    supervisor: &Supervisor,
    plan: Plan,
    node: u8,
    name: &str,
    dir: &Path,
) -> Result<NodeNamespaces> {
    let kinds = ["--net", "--uts", "--mount", "--propagation=private"];
    let namespaces = NodeNamespaces {
        holder: hold(supervisor, &holder(node), &kinds)?,
    };
    if succeeds(namespaces.enter("test").args(["-e", READY])) {
        return Ok(namespaces);
    }
    let switch = hold(supervisor, SWITCH, &["--net"])?;
    connect(switch, &format!("node{node}"), "eth0", Some(namespaces.holder))?;
    let kubelet = dir.join("kubelet");
    fs::create_dir_all(&kubelet).with_context(|| format!("create {}", kubelet.display()))?;
    let script = format!(
        r#"set -e
        # Mounts made by the kubelet are seen by containers that ask for it, and by nothing outside the node.
        mount --make-rshared /
        mount -t tmpfs -o mode=755 tmpfs /run
        mount --bind "$1" /var/lib/kubelet
        mount -t tmpfs tmpfs /var/log/containers
        mount -t tmpfs tmpfs /var/lib/cni
        hostname "$2"
        ip link set lo up
        ip addr add {address}/24 dev eth0
        ip link set eth0 up
        ip route add default via {host}
        sysctl -q -w net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0
        # Outside the cluster nobody knows a way back to a pod; inside, policies have to see its own address.
        iptables -w -t nat -A POSTROUTING -s {POD_RANGE} ! -d {POD_RANGE} -j MASQUERADE
        touch {READY}"#,
        address = plan.node(node),
        host = plan.host(),
    );
    check(
        namespaces
            .enter("sh")
            .args(["-c", &script, "sh"])
            .arg(&kubelet)
            .arg(name),
    )
    .with_context(|| format!("set up the namespaces of {name}"))?;
    Ok(namespaces)
}

/// Tells a node where the pods of another are.
pub(crate) fn route_pods(namespaces: NodeNamespaces, plan: Plan, other: u8) -> Result<()> {
    let via = plan.node(other).to_string();
    check(
        namespaces
            .enter("ip")
            .args(["route", "replace", &Plan::pods(other), "via", &via]),
    )?;
    Ok(())
}

/// The process that holds new namespaces of these kinds.
fn hold(supervisor: &Supervisor, name: &str, kinds: &[&str]) -> Result<Identity> {
    let mut sleep = command("unshare");
    sleep.args(kinds).args(["--", "sleep", "infinity"]);
    let holder = supervisor.ensure(name, &sleep)?;
    // Until `unshare` has done its work the process is still in the machine's own namespaces, and whoever entered them
    // through it would change the machine.
    let namespace = |pid: &str, kind: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}"));
    let pid = holder.pid.to_string();
    let kinds: Vec<&str> = [("net", "--net"), ("mnt", "--mount"), ("uts", "--uts")]
        .iter()
        .filter(|(_, flag)| kinds.contains(flag))
        .map(|(kind, _)| *kind)
        .collect();
    wait_for(
        &format!("namespaces of {name}"),
        Duration::from_secs(5),
        Duration::from_millis(5),
        || {
            supervisor.still_runs(name)?;
            let mut apart = true;
            for kind in &kinds {
                apart &= namespace(&pid, kind)? != namespace("self", kind)?;
            }
            Ok(apart.then_some(()))
        },
    )?;
    Ok(holder)
}

fn enter_net(holder: Identity) -> Command {
    let mut nsenter = command("nsenter");
    nsenter
        .arg(format!("--target={}", holder.pid))
        .args(["--net", "--"]);
    nsenter
}

/// Lays a cable: `port` on the bridge, `name` in the namespace of `to`, or on the machine.
fn connect(switch: Identity, port: &str, name: &str, to: Option<Identity>) -> Result<()> {
    let target = to.map_or(std::process::id(), |holder| holder.pid).to_string();
    let switch = || {
        let mut ip = enter_net(switch);
        ip.arg("ip");
        ip
    };
    // What is left of an attempt that was cut short.
    succeeds(switch().args(["link", "delete", port]));
    check(switch().args([
        "link", "add", port, "type", "veth", "peer", "name", name, "netns", &target,
    ]))?;
    check(switch().args(["link", "set", port, "master", "br0", "up"]))?;
    Ok(())
}
