//! The local cluster: what is recorded of it, and how it comes up and goes down.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    AuditLevel, Paths,
    api_server::user_stem,
    control_plane::{ControlPlane, kubectl},
    host, images, machine, namespaces,
    node::Node,
    parts,
    pki::Pki,
    plan::Numbers,
    process::{self, Identity, Supervisor},
    record::{Record, UpOptions},
    run::{self, at_once, wait_for},
    start::Start,
};

/// A cluster of this machine, by name.
#[derive(Clone, Debug)]
pub(crate) struct Local {
    pub(crate) paths: Paths,
    pub(crate) name: String,
}

impl Local {
    pub(crate) fn new(paths: Paths, name: &str) -> Result<Self> {
        let plain = |character: char| {
            character.is_ascii_lowercase() || character.is_ascii_digit() || character == '-'
        };
        ensure!(
            !name.is_empty() && name.len() <= 40 && name.chars().all(plain) && !name.starts_with('-'),
            "a cluster's name has lower case letters, digits and hyphens, 40 at most: {name:?}"
        );
        Ok(Self {
            paths,
            name: name.to_owned(),
        })
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.paths.cluster(&self.name)
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.dir().join("logs")
    }

    pub(crate) fn record(&self) -> Option<Record> {
        serde_json::from_str(&fs::read_to_string(self.record_path()).ok()?).ok()
    }

    fn record_path(&self) -> PathBuf {
        self.dir().join("cluster.json")
    }

    /// The record, or an error that says how to get one.
    pub(crate) fn existing(&self) -> Result<Record> {
        self.record()
            .with_context(|| format!("there is no cluster {0}: run `up --name {0}`", self.name))
    }

    pub(crate) fn node_name(&self, node: u8) -> String {
        format!("{}-{node}", self.name)
    }

    pub(crate) fn plane(&self, record: &Record) -> Result<ControlPlane> {
        let dir = self.dir();
        Ok(ControlPlane {
            name: self.name.clone(),
            pki: Pki::ensure(dir.join("pki"))?,
            address: record.plan().node(0).into(),
            port: 6443,
            etcd_port: 2379,
            etcd_peer_port: 2380,
            audit: AuditLevel::Metadata,
            audit_log: self.audit_log(),
            dir,
        })
    }

    pub(crate) fn audit_log(&self) -> PathBuf {
        self.logs().join("audit.log")
    }

    pub(crate) fn supervisor(&self, record: &Record) -> Result<Supervisor> {
        Supervisor::new(
            self.dir().join("processes"),
            self.logs(),
            record.cgroups()?.system()?,
        )
    }

    pub(crate) fn kubeconfig(&self) -> Result<PathBuf> {
        self.existing()?;
        Ok(self.dir().join("kubeconfig/admin.json"))
    }

    pub(crate) fn user_kubeconfig(&self, user: &str, groups: &[&str]) -> Result<PathBuf> {
        self.plane(&self.existing()?)?
            .ensure_kubeconfig(&user_stem(user, groups), user, groups)
    }

    pub(crate) fn kubectl(&self) -> Result<Command> {
        Ok(kubectl(
            &parts::program(&self.paths, "kubectl")?,
            &self.kubeconfig()?,
        ))
    }

    /// Brings the cluster up, or makes sure that it is.
    pub(crate) fn up(&self, options: &UpOptions) -> Result<()> {
        host::ensure_root("a local cluster")?;
        for (folder, variable) in [
            (&self.paths.state, "BULKHEAD_STATE"),
            (&self.paths.cache, "BULKHEAD_CACHE"),
        ] {
            ensure!(
                !folder.starts_with("/run"),
                "{variable}: nodes have a /run of their own, and would not see {}",
                folder.display()
            );
        }
        let start = Instant::now();
        let _lock = self.lock()?;
        let had = self.record();
        if let Some(had) = &had
            && Record::with(Some(had), had.number, options)? == *had
            && self.is_healthy(had)?
        {
            eprintln!("cluster {} is up", self.name);
            return Ok(());
        }
        let wanted = Record::with(had.as_ref(), 0, options)?;
        host::ensure_node_programs()?;
        crate::builder::build(&self.paths, &wanted.parts()?)?;
        host::load_kernel_modules();

        let numbers = Numbers::of_this_machine();
        let number = numbers.claim(&self.dir(), had.as_ref().map(|had| had.number))?;
        let record = Record { number, ..wanted };
        if had.is_none() {
            // Logs of the last cluster of this name; those of a failure were there to be read until now.
            let _ = fs::remove_dir_all(self.dir());
        }
        crate::kubeconfig::write_private(&self.record_path(), &serde_json::to_string_pretty(&record)?)?;
        machine::prepare(&numbers.shared())?;
        eprintln!("starting cluster {} with {} nodes", self.name, record.nodes);
        self.start(&record)
            .with_context(|| format!("logs are in {}", self.logs().display()))?;
        eprintln!(
            "cluster {} is up after {:.0} s",
            self.name,
            start.elapsed().as_secs_f32()
        );
        Ok(())
    }

    fn start(&self, record: &Record) -> Result<()> {
        let supervisor = self.supervisor(record)?;
        if supervisor
            .names()
            .iter()
            .any(|name| namespaces::is_holder(name) && supervisor.running(name).is_none())
        {
            // Whatever else still runs, runs in namespaces that nobody can enter any more.
            self.stop(record)?;
            // The group of the cluster's programs went with the last of them.
            record.cgroups()?.system()?;
        }
        let pause = images::of_program(&self.paths, "pause", "pause")?;
        let coredns = images::of_program(&self.paths, "coredns", "coredns")?;
        Start::new(self, record, &supervisor, &pause, &coredns)?.run()
    }

    /// Whether everything that was started runs, and answers.
    pub(crate) fn is_healthy(&self, record: &Record) -> Result<bool> {
        let supervisor = self.supervisor(record)?;
        // Asked first: without its network, the API server's address leads out of this machine.
        if record
            .components()
            .iter()
            .any(|name| supervisor.running(name).is_none())
        {
            return Ok(false);
        }
        let conditions = "jsonpath={.items[*].status.conditions[?(@.type=='Ready')].status}";
        let said =
            run::check(
                self.kubectl()?
                    .args(["get", "nodes", "--request-timeout=5s", "-o", conditions]),
            );
        let ready = said.is_ok_and(|said| {
            let nodes: Vec<&str> = said.split_whitespace().collect();
            nodes.len() == usize::from(record.nodes) && nodes.iter().all(|status| *status == "True")
        });
        Ok(ready)
    }

    /// Removes the cluster and everything that it made; its logs stay until the next `up`.
    pub(crate) fn down(&self) -> Result<()> {
        let Some(record) = self.record() else {
            eprintln!("there is no cluster {}", self.name);
            return Ok(());
        };
        host::ensure_root("a local cluster")?;
        let _lock = self.lock()?;
        self.stop(&record)?;
        for entry in fs::read_dir(self.dir())? {
            let path = entry?.path();
            // The record goes last: without it nobody would know what is left to be removed.
            if path == self.logs() || path == self.record_path() {
                continue;
            }
            remove(&path)?;
        }
        let numbers = Numbers::of_this_machine();
        fs::remove_file(self.record_path())?;
        numbers.release(record.number, &self.dir())?;
        eprintln!(
            "cluster {} is down; its logs are in {}",
            self.name,
            self.logs().display()
        );
        Ok(())
    }

    /// Ends every process of the cluster. Data stays.
    fn stop(&self, record: &Record) -> Result<()> {
        let supervisor = self.supervisor(record)?;
        let plan = record.plan();
        // Kubelets first, or they would start again what is ended next; etcd last, because an API server that has lost
        // it does not leave by itself.
        let running = |wanted: &dyn Fn(&str) -> bool| -> Vec<Identity> {
            supervisor
                .names()
                .iter()
                .filter(|name| wanted(name))
                .filter_map(|name| supervisor.running(name))
                .collect()
        };
        let patience = Duration::from_secs(2);
        process::end(&running(&|name| name.ends_with("kubelet")), patience);
        process::end(
            &running(&|name| name != "etcd" && !namespaces::is_holder(name)),
            patience,
        );
        process::end(&running(&|name| name == "etcd"), patience);
        let cgroups = record.cgroups()?;
        wait_for(
            "the end of all processes",
            Duration::from_secs(30),
            Duration::from_millis(50),
            || {
                let listed: Vec<Identity> =
                    cgroups.processes().into_iter().filter_map(Identity::of).collect();
                // Listed again after they were identified: a number that went to a stranger in between is not in the group.
                let still = cgroups.processes();
                for process in listed {
                    if still.contains(&process.pid) {
                        process.signal(rustix::process::Signal::KILL);
                    }
                }
                if still.is_empty() {
                    cgroups.remove();
                }
                Ok((!cgroups.any_left()).then_some(()))
            },
        )?;
        namespaces::remove_switch(plan);
        for name in supervisor.names() {
            supervisor.end(&name, Duration::ZERO);
        }
        Ok(())
    }

    fn lock(&self) -> Result<fs::File> {
        let path = self
            .paths
            .state
            .join("clusters")
            .join(format!("{}.lock", self.name));
        host::lock(&path, &format!("another command on cluster {}", self.name))
    }

    /// A node that is up, for one thing to be done in it.
    pub(crate) fn with_node<T>(&self, number: u8, act: impl FnOnce(&Node<'_>) -> Result<T>) -> Result<T> {
        let record = self.existing()?;
        let supervisor = self.supervisor(&record)?;
        let programs = Start::programs(self, &record, "")?;
        let name = self.node_name(number);
        let Some(namespaces) = namespaces::of_node(&supervisor, number) else {
            bail!("node {name} is not up: run `up --name {}`", self.name);
        };
        act(&Node {
            number,
            name,
            address: record.plan().node(number),
            dir: self.dir().join(format!("node-{number}")),
            logs: self.logs(),
            namespaces,
            supervisor: &supervisor,
            programs: &programs,
        })
    }

    /// Loads an image archive into every node.
    pub(crate) fn load_image(&self, archive: &Path) -> Result<()> {
        let nodes = self.existing()?.nodes;
        at_once(0..nodes, |number| {
            self.with_node(number, |node| node.load_image(archive))
        })?;
        Ok(())
    }

    /// The number of a node by its name.
    pub(crate) fn node_number(&self, name: &str) -> Result<u8> {
        let nodes = self.existing()?.nodes;
        (0..nodes)
            .find(|node| self.node_name(*node) == name)
            .with_context(|| {
                let names: Vec<String> = (0..nodes).map(|node| self.node_name(node)).collect();
                format!(
                    "cluster {} has no node {name}: there are {}",
                    self.name,
                    names.join(", ")
                )
            })
    }
}

/// Removes a file or a folder. Mounts in a namespace that has just ended are let go a moment later.
fn remove(path: &Path) -> Result<()> {
    wait_for(
        &format!("removing {}", path.display()),
        Duration::from_secs(10),
        Duration::from_millis(200),
        || {
            let outcome = if path.is_dir() {
                fs::remove_dir_all(path)
            } else {
                fs::remove_file(path)
            };
            match outcome {
                Ok(()) => Ok(Some(())),
                Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => Ok(None),
                Err(error) => Err(error).with_context(|| format!("remove {}", path.display())),
            }
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_be_no_host_name_are_refused() {
        let paths = Paths {
            cache: "/c".into(),
            state: "/s".into(),
            parts: "/p".into(),
        };
        assert!(Local::new(paths.clone(), "demo-2").is_ok());
        for name in ["", "Demo", "a/b", "-x", "a_b"] {
            assert!(Local::new(paths.clone(), name).is_err(), "{name}");
        }
    }
}
