//! The command lines of etcd, the API server, the controller manager and the scheduler.
//!
//! The full cluster and the API-server-only fixture start the same programs in the same way, so that a test against
//! the fixture means something for a cluster.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

use anyhow::Result;
use serde_json::{Value, json};

use crate::{
    kubeconfig::{render, write_private},
    pki::{ADMINS, Pki},
};

/// Where Services get their addresses; the first is the API server's own.
pub(crate) const SERVICE_RANGE: &str = "10.96.0.0/16";
pub(crate) const SERVICE_API: &str = "10.96.0.1";
/// The issuer of service account tokens, as clusters made by the usual installers name it.
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// How much of each request the audit log keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditLevel {
    /// Who did what to which object.
    Metadata,
    /// That, and the bodies of request and response.
    RequestResponse,
}

impl AuditLevel {
    fn name(self) -> &'static str {
        match self {
            Self::Metadata => "Metadata",
            Self::RequestResponse => "RequestResponse",
        }
    }
}

/// One control plane: its folder, where it listens, its keys.
#[derive(Clone, Debug)]
pub(crate) struct ControlPlane {
    pub(crate) name: String,
    pub(crate) dir: PathBuf,
    pub(crate) pki: Pki,
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
    pub(crate) etcd_port: u16,
    pub(crate) etcd_peer_port: u16,
    pub(crate) audit: AuditLevel,
    pub(crate) audit_log: PathBuf,
}

impl ControlPlane {
    pub(crate) fn server(&self) -> String {
        format!("https://{}:{}", self.address, self.port)
    }

    /// Issues what the control plane's own programs need and writes their configuration.
    pub(crate) fn prepare(&self) -> Result<()> {
        let names = [
            "localhost",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
        ];
        let addresses = [self.address, SERVICE_API.parse()?, [127, 0, 0, 1].into()];
        self.pki
            .ensure_server("apiserver", "kube-apiserver", &[], &names, &addresses)?;
        self.pki.ensure_client(
            "ca",
            "apiserver-kubelet-client",
            "kube-apiserver-kubelet-client",
            &[ADMINS],
        )?;
        self.pki
            .ensure_client("front-proxy-ca", "front-proxy-client", "front-proxy-client", &[])?;
        self.ensure_kubeconfig("admin", "kubernetes-admin", &[ADMINS])?;
        self.ensure_kubeconfig("controller-manager", "system:kube-controller-manager", &[])?;
        self.ensure_kubeconfig("scheduler", "system:kube-scheduler", &[])?;
        write_private(&self.audit_policy(), &format!("{:#}\n", audit_policy(self.audit)))
    }

    /// The kubeconfig of one user, issued on first use.
    pub(crate) fn ensure_kubeconfig(&self, stem: &str, user: &str, groups: &[&str]) -> Result<PathBuf> {
        let identity = self.pki.ensure_client("ca", stem, user, groups)?;
        let path = self.kubeconfig(stem);
        write_private(
            &path,
            &render(&self.name, &self.server(), &self.pki.ca_pem()?, &identity),
        )?;
        Ok(path)
    }

    pub(crate) fn kubeconfig(&self, stem: &str) -> PathBuf {
        self.dir.join("kubeconfig").join(format!("{stem}.json"))
    }

    fn audit_policy(&self) -> PathBuf {
        self.dir.join("audit-policy.json")
    }

    pub(crate) fn etcd(&self) -> Vec<String> {
        let client = format!("http://127.0.0.1:{}", self.etcd_port);
        let peer = format!("http://127.0.0.1:{}", self.etcd_peer_port);
        vec![
            "--name=default".into(),
            format!("--data-dir={}", self.dir.join("etcd").display()),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster=default={peer}"),
            // Nothing here has to survive a power cut.
            "--unsafe-no-fsync".into(),
            "--auto-compaction-retention=1h".into(),
            "--quota-backend-bytes=8589934592".into(),
            "--log-level=warn".into(),
        ]
    }

    pub(crate) fn api_server(&self) -> Vec<String> {
        let key = |file: &str| self.pki.path(file).display().to_string();
        vec![
            format!("--etcd-servers=http://127.0.0.1:{}", self.etcd_port),
            format!("--bind-address={}", self.address),
            format!("--advertise-address={}", self.address),
            format!("--secure-port={}", self.port),
            format!("--service-cluster-ip-range={SERVICE_RANGE}"),
            "--authorization-mode=Node,RBAC".into(),
            "--enable-admission-plugins=NodeRestriction".into(),
            format!("--client-ca-file={}", key("ca.crt")),
            format!("--tls-cert-file={}", key("apiserver.crt")),
            format!("--tls-private-key-file={}", key("apiserver.key")),
            format!("--kubelet-certificate-authority={}", key("ca.crt")),
            format!(
                "--kubelet-client-certificate={}",
                key("apiserver-kubelet-client.crt")
            ),
            format!("--kubelet-client-key={}", key("apiserver-kubelet-client.key")),
            "--kubelet-preferred-address-types=InternalIP".into(),
            format!("--service-account-issuer={ISSUER}"),
            format!("--service-account-key-file={}", key("sa.pub")),
            format!("--service-account-signing-key-file={}", key("sa.key")),
            format!("--requestheader-client-ca-file={}", key("front-proxy-ca.crt")),
            "--requestheader-allowed-names=front-proxy-client".into(),
            "--requestheader-username-headers=X-Remote-User".into(),
            "--requestheader-group-headers=X-Remote-Group".into(),
            "--requestheader-extra-headers-prefix=X-Remote-Extra-".into(),
            format!("--proxy-client-cert-file={}", key("front-proxy-client.crt")),
            format!("--proxy-client-key-file={}", key("front-proxy-client.key")),
            format!("--audit-policy-file={}", self.audit_policy().display()),
            format!("--audit-log-path={}", self.audit_log.display()),
            // One file: tests read it from beginning to end, so it must not be rotated under them.
            "--audit-log-maxsize=100000".into(),
            "--allow-privileged=true".into(),
            "--profiling=false".into(),
        ]
    }

    pub(crate) fn controller_manager(&self, port: u16) -> Vec<String> {
        let key = |file: &str| self.pki.path(file).display().to_string();
        let kubeconfig = self.kubeconfig("controller-manager");
        vec![
            "--bind-address=127.0.0.1".into(),
            format!("--secure-port={port}"),
            format!("--kubeconfig={}", kubeconfig.display()),
            format!("--authentication-kubeconfig={}", kubeconfig.display()),
            format!("--authorization-kubeconfig={}", kubeconfig.display()),
            format!("--client-ca-file={}", key("ca.crt")),
            format!("--root-ca-file={}", key("ca.crt")),
            format!("--cluster-signing-cert-file={}", key("ca.crt")),
            format!("--cluster-signing-key-file={}", key("ca.key")),
            format!("--service-account-private-key-file={}", key("sa.key")),
            format!("--requestheader-client-ca-file={}", key("front-proxy-ca.crt")),
            "--use-service-account-credentials=true".into(),
            // There is one: an election would only delay it.
            "--leader-elect=false".into(),
            "--allocate-node-cidrs=false".into(),
            // It makes the folder, and the usual one is the machine's.
            format!(
                "--flex-volume-plugin-dir={}",
                self.dir.join("flex-volumes").display()
            ),
            "--profiling=false".into(),
        ]
    }

    pub(crate) fn scheduler(&self) -> Vec<String> {
        let kubeconfig = self.kubeconfig("scheduler");
        vec![
            "--bind-address=127.0.0.1".into(),
            format!("--kubeconfig={}", kubeconfig.display()),
            format!("--authentication-kubeconfig={}", kubeconfig.display()),
            format!("--authorization-kubeconfig={}", kubeconfig.display()),
            "--leader-elect=false".into(),
            "--profiling=false".into(),
        ]
    }
}

fn audit_policy(level: AuditLevel) -> Value {
    json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        // Every request once, with its answer.
        "omitStages": ["RequestReceived"],
        "omitManagedFields": true,
        "rules": [
            {"level": "None", "nonResourceURLs": ["/healthz*", "/livez*", "/readyz*", "/version"]},
            {"level": level.name()},
        ],
    })
}

/// Makes `kubectl` read this kubeconfig and keep its discovery cache beside it.
pub(crate) fn kubectl(program: &Path, kubeconfig: &Path) -> std::process::Command {
    let mut command = crate::run::command(program);
    command.arg("--kubeconfig").arg(kubeconfig);
    if let Some(folder) = kubeconfig.parent() {
        command.arg("--cache-dir").arg(folder.join("cache"));
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control_plane(dir: &Path) -> ControlPlane {
        ControlPlane {
            name: "demo".into(),
            dir: dir.into(),
            pki: Pki::ensure(dir.join("pki")).unwrap(),
            address: [192, 0, 2, 7].into(),
            port: 6443,
            etcd_port: 2379,
            etcd_peer_port: 2380,
            audit: AuditLevel::Metadata,
            audit_log: dir.join("audit.log"),
        }
    }

    #[test]
    fn the_programs_agree_on_keys_and_ports() {
        let dir = tempfile::tempdir().unwrap();
        let plane = control_plane(dir.path());
        plane.prepare().unwrap();
        assert!(
            plane
                .api_server()
                .contains(&"--etcd-servers=http://127.0.0.1:2379".to_owned())
        );
        assert!(
            plane
                .etcd()
                .contains(&"--listen-client-urls=http://127.0.0.1:2379".to_owned())
        );
        for arg in plane.api_server().into_iter().chain(plane.controller_manager(0)) {
            // Those that are read, not those that are written to.
            if let Some((flag, path)) = arg.split_once("=/")
                && (flag.contains("-file") || flag.contains("kubeconfig"))
            {
                assert!(Path::new("/").join(path).exists(), "{arg}");
            }
        }
    }

    #[test]
    fn bodies_are_kept_only_when_asked_for() {
        let rules = audit_policy(AuditLevel::Metadata)["rules"].to_string();
        assert!(rules.contains("Metadata") && !rules.contains("RequestResponse"));
    }
}
