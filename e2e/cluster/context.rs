//! A cluster that somebody already has, named by its kubeconfig context.

use std::{
    fmt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use crate::{
    Paths, UpOptions,
    api_server::user_stem,
    control_plane::kubectl,
    host, images,
    kubeconfig::write_private,
    oci, parts,
    run::{check, command},
};

/// How an image gets into a cluster that is not ours.
#[derive(Clone, Debug)]
pub enum Load {
    /// A command that takes the path of an archive as its last word: `kind load image-archive`.
    Command(String),
    /// A registry and a path in it, which the cluster's nodes can pull from and we can push to.
    Registry(String),
}

/// A context and the way in which images get there.
#[derive(Clone, Debug)]
pub(crate) struct Existing {
    pub(crate) paths: Paths,
    context: String,
    load: Option<Load>,
}

impl fmt::Display for Existing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the cluster of context {}", self.context)
    }
}

impl Existing {
    pub(crate) fn new(paths: Paths, context: &str, load: Option<Load>) -> Self {
        Self {
            paths,
            context: context.to_owned(),
            load,
        }
    }

    /// Nothing is started. What would fail later is asked now.
    pub(crate) fn up(&self, options: &UpOptions) -> Result<()> {
        ensure!(
            options.nodes.is_none() && !options.no_network_policy && !options.gvisor,
            "{self} is as it is: nodes, network and runtimes are chosen where it was made"
        );
        let version = check(
            self.kubectl()?
                .args(["version", "--request-timeout=10s", "-o", "json"]),
        )
        .with_context(|| format!("{self} does not answer"))?;
        let version: Value = serde_json::from_str(&version)?;
        let may = check(
            self.kubectl()?
                .args(["auth", "can-i", "*", "*", "--all-namespaces"]),
        );
        ensure!(
            may.is_ok(),
            "{self} answers, but its user is no administrator, and an operator needs one to be installed"
        );
        eprintln!(
            "{self} answers: Kubernetes {}",
            version["serverVersion"]["gitVersion"].as_str().unwrap_or("?")
        );
        Ok(())
    }

    pub(crate) fn down(&self) {
        eprintln!("{self} is not ours to remove: nothing done");
    }

    pub(crate) fn load_image(&self, archive: &Path) -> Result<String> {
        let archive = std::path::absolute(archive)?;
        let reference = oci::reference(&archive)?;
        match &self.load {
            Some(Load::Command(line)) => {
                // Through a shell, so that a person can write it as they would type it.
                check(
                    command("sh")
                        .args(["-c", &format!("{line} \"$1\""), "sh"])
                        .arg(&archive),
                )
                .with_context(|| format!("load {} with: {line}", archive.display()))?;
                Ok(reference)
            }
            Some(Load::Registry(registry)) => {
                let pushed = in_registry(registry, &reference);
                let buildah = images::buildah(&self.paths)?;
                check(Command::new(&buildah).args(["pull", "--quiet", &oci::transport(&archive)?]))?;
                let mut push = Command::new(&buildah);
                push.args(["push", "--quiet", "--retry=2"]);
                if is_loopback(registry) {
                    // Nobody has a certificate for it, and nobody is in between.
                    push.arg("--tls-verify=false");
                }
                check(push.arg(&reference).arg(format!("docker://{pushed}")))
                    .with_context(|| format!("push {reference} to {registry}"))?;
                Ok(pushed)
            }
            None => bail!(
                "how images get into {self} was not said: --load 'kind load image-archive', or --registry HOST/PATH"
            ),
        }
    }

    /// The one context, by itself in a file, so that nobody depends on which is the current one.
    pub(crate) fn kubeconfig(&self) -> Result<PathBuf> {
        let view = [
            "config",
            "view",
            "--raw",
            "--minify",
            "--flatten",
            "-o",
            "json",
            "--context",
            &self.context,
        ];
        let text = check(command(self.kubectl_program()?).args(view))
            .with_context(|| format!("no kubeconfig has a context {}", self.context))?;
        let path = self.dir().join("admin.json");
        write_private(&path, &text)?;
        Ok(path)
    }

    /// The administrator acting as another user, because we cannot issue certificates for this cluster. Rights are those
    /// of that user; the audit log names both.
    pub(crate) fn user_kubeconfig(&self, user: &str, groups: &[&str]) -> Result<PathBuf> {
        let mut config: Value = serde_json::from_str(&std::fs::read_to_string(self.kubeconfig()?)?)?;
        let entry = config["users"][0]["user"]
            .as_object_mut()
            .context("the context has a user")?;
        entry.insert("as".into(), json!(user));
        entry.insert("as-groups".into(), json!(groups));
        let path = self.dir().join(format!("{}.json", user_stem(user, groups)));
        write_private(&path, &config.to_string())?;
        Ok(path)
    }

    pub(crate) fn kubectl(&self) -> Result<Command> {
        Ok(kubectl(&self.kubectl_program()?, &self.kubeconfig()?))
    }

    fn kubectl_program(&self) -> Result<PathBuf> {
        host::find("kubectl")
            .or_else(|| parts::program(&self.paths, "kubectl").ok())
            .context("no kubectl on the PATH, and none is built: install one, or run: make cluster-tools")
    }

    /// The nodes, and whether the cluster answers.
    pub(crate) fn status(&self) -> (Vec<String>, bool) {
        let nodes = self
            .kubectl()
            .and_then(|mut kubectl| check(kubectl.args(["get", "nodes", "--request-timeout=5s"])));
        match nodes {
            Ok(nodes) => (nodes.lines().map(str::to_owned).collect(), true),
            Err(_) => (vec![format!("{self} does not answer")], false),
        }
    }

    fn dir(&self) -> PathBuf {
        let plain = |character: char| {
            if character.is_ascii_alphanumeric() {
                character
            } else {
                '-'
            }
        };
        self.paths
            .state
            .join("contexts")
            .join(self.context.chars().map(plain).collect::<String>())
    }
}

/// What an image is called after it was pushed: the last part of its name, under the registry's path.
fn in_registry(registry: &str, reference: &str) -> String {
    let name = reference.rsplit('/').next().unwrap_or(reference);
    format!("{}/{name}", registry.trim_end_matches('/'))
}

fn is_loopback(registry: &str) -> bool {
    let authority = registry.split('/').next().unwrap_or_default();
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    host == "localhost"
        || host
            .parse::<std::net::Ipv4Addr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_trusted_without_a_certificate() {
        assert!(is_loopback("localhost:5000/team") && is_loopback("127.0.0.1:5000"));
        assert!(!is_loopback("registry.example/localhost") && !is_loopback("localhost.example:5000"));
    }

    #[test]
    fn an_image_keeps_its_last_name_in_a_registry() {
        assert_eq!(
            in_registry("registry.example/team/", "localhost/bulkhead-proxy:1"),
            "registry.example/team/bulkhead-proxy:1"
        );
        assert_eq!(
            in_registry("registry.example", "proxy:1"),
            "registry.example/proxy:1"
        );
    }
}
