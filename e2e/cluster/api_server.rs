//! An API server and nothing else, for tests of controllers: etcd and kube-apiserver on loopback, gone with the value.

use std::{
    fs,
    net::{Ipv4Addr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    AuditLevel, Paths,
    control_plane::{ControlPlane, kubectl},
    parts,
    pki::Pki,
    ports::Port,
    run::{self, command, tail, wait_for},
};

/// Controllers that make an API server behave as clients expect, and that touch no node and no pod of their own accord.
const CONTROLLERS: &str = "namespace-controller,garbage-collector-controller,serviceaccount-controller,\
                           serviceaccount-token-controller,root-ca-certificate-publisher-controller,\
                           persistentvolumeclaim-protection-controller,\
                           clusterrole-aggregation-controller,resourcequota-controller,\
                           validatingadmissionpolicy-status-controller";

/// A running API server with its own etcd. Dropping it ends both and removes their data; so does the end of the
/// process that holds it, however it ends.
#[derive(Debug)]
pub struct ApiServer {
    paths: Paths,
    plane: ControlPlane,
    // Ended in this order: an API server without its etcd does not leave by itself.
    processes: Vec<Process>,
    /// Theirs, held for them.
    ports: Vec<Port>,
    dir: tempfile::TempDir,
}

impl ApiServer {
    /// Starts one that keeps only metadata in its audit log.
    pub fn start() -> Result<Self> {
        Self::start_with(AuditLevel::Metadata)
    }

    /// Starts one with this audit level.
    pub fn start_with(audit: AuditLevel) -> Result<Self> {
        let paths = Paths::from_env()?;
        // Asked first, so that a machine without them hears what to run, not which file is missing.
        for program in ["etcd", "kube-apiserver", "kubectl", "kube-controller-manager"] {
            parts::program(&paths, program)?;
        }
        let dir = tempfile::Builder::new()
            .prefix("bulkhead-api-server-")
            .tempdir()?;
        let ports = [Port::reserve()?, Port::reserve()?, Port::reserve()?];
        let [port, etcd_port, etcd_peer_port] = ports.each_ref().map(Port::number);
        let plane = ControlPlane {
            name: "api-server".into(),
            dir: dir.path().to_owned(),
            pki: Pki::ensure(dir.path().join("pki"))?,
            address: Ipv4Addr::LOCALHOST.into(),
            port,
            etcd_port,
            etcd_peer_port,
            audit,
            audit_log: dir.path().join("audit.log"),
        };
        plane.prepare()?;
        let mut server = Self {
            paths,
            plane,
            processes: Vec::new(),
            ports: ports.into(),
            dir,
        };
        let args = server.plane.etcd();
        server.spawn("etcd", &args)?;
        let mut args = server.plane.api_server();
        args.extend([
            // Loopback is no address for an endpoint, and there is nobody to follow it.
            "--endpoint-reconciler-type=none".into(),
            // Without its controllers no namespace would get the account that this plugin insists on.
            "--disable-admission-plugins=ServiceAccount".into(),
        ]);
        server.spawn("kube-apiserver", &args)?;
        server.wait_until_ready()?;
        Ok(server)
    }

    /// Adds the controllers that finish what the API server starts: the deletion of namespaces, garbage collection,
    /// service accounts, quotas, aggregated cluster roles (`view`, `edit` and `admin` are empty without them). None of
    /// them makes pods.
    pub fn with_controller_manager(mut self) -> Result<Self> {
        let port = Port::reserve()?;
        let mut args = self.plane.controller_manager(port.number());
        self.ports.push(port);
        args.push(format!("--controllers={CONTROLLERS}"));
        self.spawn("kube-controller-manager", &args)?;
        let account = [
            "get",
            "serviceaccount",
            "default",
            "--namespace=default",
            "--output=name",
        ];
        self.wait("kube-controller-manager", |server| {
            Ok(run::succeeds(server.kubectl()?.args(account)).then_some(()))
        })?;
        Ok(self)
    }

    /// A kubeconfig whose user may do everything.
    pub fn kubeconfig_path(&self) -> PathBuf {
        self.plane.kubeconfig("admin")
    }

    /// A kubeconfig for a user of this name in these groups, to whom only their own bindings apply.
    pub fn user_kubeconfig(&self, user: &str, groups: &[&str]) -> Result<PathBuf> {
        self.plane
            .ensure_kubeconfig(&user_stem(user, groups), user, groups)
    }

    /// The audit log: one JSON object per line.
    pub fn audit_log(&self) -> PathBuf {
        self.plane.audit_log.clone()
    }

    /// `kubectl` with the rights of the administrator.
    pub fn kubectl(&self) -> Result<std::process::Command> {
        Ok(kubectl(
            &parts::program(&self.paths, "kubectl")?,
            &self.kubeconfig_path(),
        ))
    }

    fn spawn(&mut self, program: &str, args: &[String]) -> Result<()> {
        let log = self.log(program);
        let process = Process::spawn(&parts::program(&self.paths, program)?, args, &log)?;
        self.processes.insert(0, process);
        Ok(())
    }

    fn log(&self, program: &str) -> PathBuf {
        self.dir.path().join(format!("{program}.log"))
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let address = (self.plane.address, self.plane.port).into();
        self.wait("kube-apiserver", |server| {
            // A connection costs nothing; kubectl costs a tenth of a second of processor, so it comes second.
            if TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_err() {
                return Ok(None);
            }
            Ok(run::succeeds(server.kubectl()?.args(["get", "--raw=/readyz"])).then_some(()))
        })
    }

    fn wait(&mut self, program: &str, mut ready: impl FnMut(&Self) -> Result<Option<()>>) -> Result<()> {
        let log = self.log(program);
        let answer = wait_for(
            &format!("{program} ready"),
            Duration::from_mins(2),
            Duration::from_millis(50),
            || {
                for process in &mut self.processes {
                    process.still_runs()?;
                }
                ready(self)
            },
        );
        answer.with_context(|| format!("the end of {program}'s log:\n{}", tail(&log, 15)))
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        // One by one, before the folder they write to is removed.
        for process in self.processes.drain(..) {
            drop(process);
        }
    }
}

/// A file name for the identity of a user: the same for the same user in the same groups.
pub(crate) fn user_stem(user: &str, groups: &[&str]) -> String {
    let mut stem = format!("user-{user}");
    for group in groups {
        stem.push('+');
        stem.push_str(group);
    }
    stem.replace(
        |character: char| !character.is_ascii_alphanumeric() && !"-+.".contains(character),
        "_",
    )
}

/// A child process that cannot outlive this one.
///
/// `Drop` does not run when a process is killed, nor for a value in a `static`. So a shell waits at the end of a pipe
/// whose other end only this process holds: when the pipe closes, for whatever reason, the shell ends the child.
#[derive(Debug)]
struct Process {
    name: String,
    log: PathBuf,
    child: Child,
    guard: Child,
    /// Held, never written to.
    pipe: Option<ChildStdin>,
}

impl Process {
    fn spawn(program: &Path, args: &[String], log: &Path) -> Result<Self> {
        let file = fs::File::create(log).with_context(|| format!("write {}", log.display()))?;
        let child = command(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        let folder = log.parent().context("a log has a folder")?;
        let guard = command("sh")
            // It must survive the Ctrl-C that ends its parent.
            .args([
                "-c",
                r#"trap "" INT TERM HUP; read -r _; kill -KILL "$1"; rm -rf "$2""#,
                "guard",
            ])
            .arg(child.id().to_string())
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let mut process = match guard {
            Ok(guard) => Self {
                name: program
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned(),
                log: log.to_owned(),
                child,
                guard,
                pipe: None,
            },
            Err(error) => {
                let mut child = child;
                let _ = child.kill();
                let _ = child.wait();
                return Err(error).context("start the shell that guards a child");
            }
        };
        process.pipe = process.guard.stdin.take();
        Ok(process)
    }

    fn still_runs(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended ({status}):\n{}", self.name, tail(&self.log, 15));
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The guard goes first: once the child is gone, its number may be another process's.
        let _ = self.guard.kill();
        let _ = self.guard.wait();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_without_a_group_and_one_with_are_two_files() {
        assert_ne!(user_stem("jane", &[]), user_stem("jane", &["people"]));
        assert_eq!(
            user_stem("system:serviceaccount:a:b", &[]),
            "user-system_serviceaccount_a_b"
        );
    }
}
