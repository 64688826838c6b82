//! The one interface to a cluster, whichever kind it is.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use anyhow::{Result, bail};

use crate::{
    Paths,
    context::{Existing, Load},
    local::Local,
    node::Node,
    oci,
    record::UpOptions,
    run,
};

/// A Kubernetes cluster: one of this machine's own, or one that somebody already has.
#[derive(Clone, Debug)]
pub struct Cluster {
    backend: Backend,
}

#[derive(Clone, Debug)]
enum Backend {
    Local(Local),
    Existing(Existing),
}

impl Cluster {
    /// The cluster of this name, made of processes of this machine. It need not be up yet.
    pub fn local(name: &str) -> Result<Self> {
        Ok(Self {
            backend: Backend::Local(Local::new(Paths::from_env()?, name)?),
        })
    }

    /// The cluster of a kubeconfig context, with the way in which images get there.
    pub fn existing(context: &str, load: Option<Load>) -> Result<Self> {
        Ok(Self {
            backend: Backend::Existing(Existing::new(Paths::from_env()?, context, load)),
        })
    }

    /// Brings it up, or makes sure that it is.
    pub fn up(&self, options: &UpOptions) -> Result<()> {
        match &self.backend {
            Backend::Local(local) => local.up(options),
            Backend::Existing(existing) => existing.up(options),
        }
    }

    /// Removes a local cluster. An existing one is not ours to remove.
    pub fn down(&self) -> Result<()> {
        match &self.backend {
            Backend::Local(local) => local.down(),
            Backend::Existing(existing) => {
                existing.down();
                Ok(())
            }
        }
    }

    /// Makes the image in an archive known to the nodes, and says what it is called there.
    pub fn load_image(&self, archive: &Path) -> Result<String> {
        match &self.backend {
            Backend::Local(local) => {
                let reference = oci::reference(archive)?;
                local.load_image(archive)?;
                Ok(reference)
            }
            Backend::Existing(existing) => existing.load_image(archive),
        }
    }

    /// The kubeconfig of the administrator.
    pub fn kubeconfig(&self) -> Result<PathBuf> {
        match &self.backend {
            Backend::Local(local) => local.kubeconfig(),
            Backend::Existing(existing) => existing.kubeconfig(),
        }
    }

    /// The kubeconfig of any other user, who has the rights that are bound to these names.
    pub fn user_kubeconfig(&self, user: &str, groups: &[&str]) -> Result<PathBuf> {
        match &self.backend {
            Backend::Local(local) => local.user_kubeconfig(user, groups),
            Backend::Existing(existing) => existing.user_kubeconfig(user, groups),
        }
    }

    /// `kubectl` as the administrator.
    pub fn kubectl(&self) -> Result<Command> {
        match &self.backend {
            Backend::Local(local) => local.kubectl(),
            Backend::Existing(existing) => existing.kubectl(),
        }
    }

    /// Runs a program in a node's network and mounts, and collects what it writes.
    pub fn exec(&self, node: &str, argv: &[&str]) -> Result<Output> {
        run::output(&mut self.command(node, argv)?)
    }

    /// A command that runs in a node's network and mounts.
    pub fn command(&self, node: &str, argv: &[&str]) -> Result<Command> {
        let [program, rest @ ..] = argv else {
            bail!("nothing to run")
        };
        match &self.backend {
            Backend::Local(local) => {
                let mut command =
                    local.with_node(
                        local.node_number(node)?,
                        |node: &Node<'_>| Ok(node.enter(program)),
                    )?;
                command.args(rest);
                Ok(command)
            }
            Backend::Existing(existing) => bail!(
                "{existing} gives no way into its nodes: use `kubectl debug node/{node}`, or a local cluster for what needs it"
            ),
        }
    }

    /// The names of the nodes.
    pub fn nodes(&self) -> Result<Vec<String>> {
        let names =
            run::check(
                self.kubectl()?
                    .args(["get", "nodes", "-o", "jsonpath={.items[*].metadata.name}"]),
            )?;
        Ok(names.split_whitespace().map(str::to_owned).collect())
    }

    /// The machine's own address on the cluster's network. What listens there is outside the cluster, and pods reach it.
    pub fn machine_address(&self) -> Result<Ipv4Addr> {
        match &self.backend {
            Backend::Local(local) => Ok(local.existing()?.plan().host()),
            Backend::Existing(existing) => {
                bail!("{existing} has no network in common with this machine that we know of")
            }
        }
    }

    /// The API server's audit log: one JSON object per line, metadata only.
    pub fn audit_log(&self) -> Result<PathBuf> {
        match &self.backend {
            Backend::Local(local) => Ok(local.audit_log()),
            Backend::Existing(existing) => bail!("{existing} keeps its audit log to itself"),
        }
    }

    /// Where every component of the cluster writes its log.
    pub fn logs_dir(&self) -> Result<PathBuf> {
        match &self.backend {
            Backend::Local(local) => Ok(local.logs()),
            Backend::Existing(existing) => bail!("{existing} keeps its logs to itself"),
        }
    }

    /// The state of the cluster in lines for a person, and whether it is up.
    pub fn status(&self) -> Result<(Vec<String>, bool)> {
        match &self.backend {
            Backend::Local(local) => local.status(),
            Backend::Existing(existing) => Ok(existing.status()),
        }
    }

    /// The folders that this cluster uses.
    pub fn paths(&self) -> &Paths {
        match &self.backend {
            Backend::Local(local) => &local.paths,
            Backend::Existing(existing) => &existing.paths,
        }
    }
}
