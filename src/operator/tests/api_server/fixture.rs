//! An API server with everything that the operator needs, and an operator on it.

use std::{fs, net::SocketAddr, path::PathBuf, process::Command, sync::Arc, time::Duration};

use bulkhead_api::{McpTenant, cert_manager::Certificate};
use bulkhead_cluster::{ApiServer, Paths, cert_manager_definitions, program};
use bulkhead_operator::{
    run::{self, Ended, Options},
    settings::Settings,
};
use clap::Parser;
use futures::StreamExt;
use k8s_openapi::{
    api::core::v1::Namespace, apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, Config,
    api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams},
    config::{AuthInfo, KubeConfigOptions, Kubeconfig},
    runtime::{WatchStreamExt, conditions::is_crd_established, wait::await_condition, watcher},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    audit::{self, Request},
    cert_manager::{self, Authorities},
};

pub const NAMESPACE: &str = "bulkhead-system";
pub const OPERATOR_HOST: &str = "bulkhead-operator.bulkhead-system.svc";
pub const CERT_MANAGER: &str = "system:serviceaccount:cert-manager:cert-manager";
pub const USER: &str = "system:serviceaccount:bulkhead-system:bulkhead-operator";

/// Generous: two processors may be shared with everything else that is being tested.
const DEADLINE: Duration = Duration::from_mins(2);

/// An API server with the definitions, the chart's rights, and a cert-manager that issues at once.
pub struct Fixture {
    pub server: ApiServer,
    pub admin: Client,
    /// The CAs that were issued so far, by namespace and name.
    pub authorities: Authorities,
    issuing: Option<(CancellationToken, DropGuard)>,
}

/// A running operator. Dropping it tells it to stop.
pub struct Operator {
    pub address: SocketAddr,
    /// Where sidecars report while it leads.
    pub control: SocketAddr,
    /// Its certificate for that, and the key; PEM.
    files: TempDir,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), Ended>>,
}

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    options: Options,
}

impl Fixture {
    pub async fn start() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        // Shown by the test harness when a test fails.
        let _ = tracing_subscriber::fmt()
            .with_test_writer()
            .with_ansi(false)
            .with_env_filter("bulkhead_operator=info,bulkhead_operator::watch=off")
            .try_init();
        let server =
            tokio::task::spawn_blocking(|| ApiServer::start().unwrap().with_controller_manager().unwrap());
        let server = server.await.unwrap();
        let admin = client(server.kubeconfig_path()).await;
        let mut fixture = Self {
            server,
            admin,
            authorities: Arc::default(),
            issuing: None,
        };
        for namespace in [NAMESPACE, "databases"] {
            let namespaces: Api<Namespace> = Api::all(fixture.admin.clone());
            let namespace = serde_json::from_value(json!({"metadata": {"name": namespace}})).unwrap();
            namespaces
                .create(&PostParams::default(), &namespace)
                .await
                .unwrap();
        }
        let own = fs::read_to_string(repository().join("crds/bulkhead.dev_mcptenants.yaml")).unwrap();
        let others = cert_manager_definitions(&Paths::from_env().unwrap()).unwrap();
        for definitions in [own, others] {
            fixture.define(&definitions).await;
        }
        fixture.kubectl_apply(&chart_rights());
        fixture.start_issuing();
        fixture
    }

    /// Starts an operator and waits until it is ready.
    pub async fn operator(&self, flags: &[&str]) -> Operator {
        let kubeconfig = self
            .server
            .user_kubeconfig(USER, &["system:serviceaccounts"])
            .unwrap();
        let client = client(kubeconfig).await;
        let files = cert_manager::control_files();
        // Free a moment ago. The operator itself binds it, once it leads.
        let control = TcpListener::bind("127.0.0.1:0")
            .await
            .unwrap()
            .local_addr()
            .unwrap();
        let (folder, address) = (files.path().to_str().unwrap(), control.to_string());
        let own = [
            "operator",
            "--operator-namespace",
            NAMESPACE,
            "--lease-duration",
            "5s",
            "--control-dir",
            folder,
            "--control-listen",
            &address,
        ];
        let flags = own.iter().chain(flags);
        let Cli { settings, options } = Cli::parse_from(flags);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(run::run(client, settings, options, listener, shutdown.clone()));
        Operator {
            address,
            control,
            files,
            shutdown,
            task,
        }
    }

    /// A client of a person in these groups, to whom only their bindings apply.
    pub async fn person(&self, name: &str, groups: &[&str]) -> Client {
        client(self.server.user_kubeconfig(name, groups).unwrap()).await
    }

    pub async fn apply(&self, tenant: &Value) {
        let api: Api<McpTenant> = Api::all(self.admin.clone());
        let name = tenant["metadata"]["name"].as_str().unwrap();
        api.patch(name, &PatchParams::apply("test").force(), &Patch::Apply(tenant))
            .await
            .unwrap();
    }

    pub async fn tenant(&self, name: &str) -> Option<McpTenant> {
        Api::<McpTenant>::all(self.admin.clone())
            .get_opt(name)
            .await
            .unwrap()
    }

    /// Status and reason of a tenant's condition.
    pub async fn condition(&self, tenant: &str, type_: &str) -> Option<(String, String)> {
        let status = self.tenant(tenant).await?.status?;
        let condition = status
            .conditions
            .into_iter()
            .find(|condition| condition.type_ == type_)?;
        Some((condition.status, condition.reason))
    }

    pub async fn until_condition(&self, tenant: &str, type_: &str, status: &str, reason: &str) {
        let wanted = Some((status.to_owned(), reason.to_owned()));
        until(&format!("{tenant}: {type_}={status}, {reason}"), async || {
            let condition = self.condition(tenant, type_).await;
            if condition == wanted {
                Ok(())
            } else {
                Err(format!("{condition:?}"))
            }
        })
        .await;
    }

    /// Objects of any kind, as the administrator sees them.
    pub fn api(&self, group: &str, kind: &str, namespace: Option<&str>) -> Api<DynamicObject> {
        let plural = match kind {
            "NetworkPolicy" => "networkpolicies".to_owned(),
            "RuntimeClass" => "runtimeclasses".to_owned(),
            _ => format!("{}s", kind.to_lowercase()),
        };
        let resource = ApiResource {
            group: group.to_owned(),
            version: "v1".to_owned(),
            api_version: if group.is_empty() {
                "v1".to_owned()
            } else {
                format!("{group}/v1")
            },
            kind: kind.to_owned(),
            plural,
        };
        match namespace {
            Some(namespace) => Api::namespaced_with(self.admin.clone(), namespace, &resource),
            None => Api::all_with(self.admin.clone(), &resource),
        }
    }

    /// What the operator asked of the API server so far.
    pub fn requests(&self) -> Vec<Request> {
        audit::requests(&self.server.audit_log(), USER)
    }

    /// A client with this token and nothing else.
    pub async fn client_with_token(&self, token: &str) -> Client {
        let mut kubeconfig = Kubeconfig::read_from(self.server.kubeconfig_path()).unwrap();
        for user in &mut kubeconfig.auth_infos {
            user.auth_info = Some(AuthInfo {
                token: Some(token.to_owned().into()),
                ..AuthInfo::default()
            });
        }
        client_of(kubeconfig).await
    }

    /// Waits until the operator has written nothing for as long as it takes to read the log twice a second apart.
    pub async fn until_quiet(&self) {
        let mut before = usize::MAX;
        until("the operator is quiet", async || {
            let now = audit::writes(&self.requests()).len();
            let quiet = now == before;
            before = now;
            tokio::time::sleep(Duration::from_secs(1)).await;
            if quiet {
                Ok(())
            } else {
                Err(format!("{now} writes"))
            }
        })
        .await;
    }

    pub fn kubectl_apply(&self, manifest: &str) {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), manifest).unwrap();
        let mut kubectl = self.server.kubectl().unwrap();
        let output = kubectl
            .args(["apply", "--server-side", "-f"])
            .arg(file.path())
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// Makes kinds known, and waits until they are served. Not by `kubectl wait`, which fails at once on a definition that has no
    /// conditions yet (kubernetes/kubernetes issue 66439).
    async fn define(&self, manifest: &str) {
        let crds: Api<CustomResourceDefinition> = Api::all(self.admin.clone());
        let definitions: Vec<Option<Value>> = serde_saphyr::from_multiple(manifest).unwrap();
        for definition in definitions.into_iter().flatten() {
            let name = definition["metadata"]["name"].as_str().unwrap().to_owned();
            crds.patch(&name, &PatchParams::apply("test"), &Patch::Apply(&definition))
                .await
                .unwrap();
            let established = await_condition(crds.clone(), &name, is_crd_established());
            tokio::time::timeout(DEADLINE, established)
                .await
                .expect("the definition is taken")
                .unwrap();
        }
    }

    /// Plays cert-manager: every Certificate is ready, and every CA has its request.
    pub fn start_issuing(&mut self) {
        let stop = CancellationToken::new();
        let told = stop.clone();
        let authorities = Arc::clone(&self.authorities);
        let kubeconfig = self
            .server
            .user_kubeconfig(CERT_MANAGER, &["system:masters"])
            .unwrap();
        tokio::spawn(async move {
            let client = client(kubeconfig).await;
            let certificates = watcher(
                Api::<Certificate>::all(client.clone()),
                watcher::Config::default(),
            );
            let mut events = certificates
                .default_backoff()
                .touched_objects()
                .take_until(told.cancelled_owned())
                .boxed();
            while let Some(event) = events.next().await {
                match event {
                    Ok(certificate) => {
                        if let Err(error) = cert_manager::issue(&client, &certificate, &authorities).await {
                            // A namespace that goes takes its certificates along.
                            eprintln!("not issued: {error}");
                        }
                    }
                    Err(error) => eprintln!("certificates: {error}"),
                }
            }
        });
        self.issuing = Some((stop.clone(), stop.drop_guard()));
    }

    pub fn stop_issuing(&mut self) {
        self.issuing = None;
    }
}

impl Operator {
    /// Tells it to stop and waits until it has.
    pub async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap().unwrap();
    }

    /// What its certificate for sidecars chains to, PEM.
    pub fn control_roots(&self) -> String {
        fs::read_to_string(self.files.path().join("ca.pem")).unwrap()
    }

    /// How it ends by itself.
    pub async fn ended(self) -> Result<(), Ended> {
        self.task.await.unwrap()
    }
}

/// Tries until it holds.
pub async fn until<T>(what: &str, mut holds: impl AsyncFnMut() -> Result<T, String>) -> T {
    let end = tokio::time::Instant::now() + DEADLINE;
    loop {
        match holds().await {
            Ok(value) => return value,
            Err(last) => assert!(
                tokio::time::Instant::now() < end,
                "never came true: {what}; last: {last}"
            ),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A tenant with one of everything.
pub fn tenant(name: &str, tenant_id: &str) -> Value {
    json!({
        "apiVersion": "bulkhead.dev/v1alpha1",
        "kind": "McpTenant",
        "metadata": {"name": name},
        "spec": {
            "identity": {"tenantId": tenant_id},
            "admins": [{"kind": "Group", "name": "seers"}],
            "developers": [{"kind": "Group", "name": "makers"}],
            "quota": {"cpu": "4", "memory": "4Gi", "pods": 10},
            "agents": [{
                "name": "scout",
                "roles": ["reader"],
                "egress": [{"to": {"cidr": "203.0.113.0/24"}, "ports": [443]}],
            }],
            "servers": [
                {
                    "name": "notes",
                    "image": "registry.example.com/notes@sha256:0000000000000000000000000000000000000000000000000000000000000000",
                    "replicas": 2,
                    "http": {"port": 3000},
                    "resources": {"limits": {"cpu": "0.5", "memory": "256Mi"}},
                    "egress": [{"to": {"namespace": "databases", "podLabels": {"app": "postgres"}}, "ports": [5432]}],
                    "tools": [{"name": "search", "roles": ["reader"], "arguments": {"forced": {"tenant": {"identity": "tenantId"}}}}],
                },
                {
                    "name": "files",
                    "image": "registry.example.com/files@sha256:0000000000000000000000000000000000000000000000000000000000000000",
                    "http": {"port": 3000},
                    "volumes": [
                        {"name": "data", "mountPath": "/data", "persistent": {"size": "1024Mi"}},
                        {"name": "tmp", "mountPath": "/tmp", "sizeLimit": "64Mi"},
                    ],
                    "tools": [{"name": "read", "roles": ["reader"]}],
                },
            ],
        },
    })
}

/// A pod as a developer may run it in the agents' namespace, without any label of ours.
pub fn agent_pod() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "agent"},
        "spec": {
            "securityContext": {"runAsNonRoot": true, "runAsUser": 1, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "agent", "image": "x", "securityContext": {
                "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
            }}],
        },
    })
}

pub async fn client(kubeconfig: PathBuf) -> Client {
    client_of(Kubeconfig::read_from(kubeconfig).unwrap()).await
}

async fn client_of(kubeconfig: Kubeconfig) -> Client {
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .unwrap();
    Client::try_from(config).unwrap()
}

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// What the chart grants.
fn chart_rights() -> String {
    chart(
        &[
            "rbac/operator.yaml",
            "rbac/tenant.yaml",
            "rbac/secrets-writer.yaml",
        ],
        &[],
    )
}

/// Templates of the chart, rendered with these `--set` values.
pub fn chart(templates: &[&str], values: &[&str]) -> String {
    let helm = program(&Paths::from_env().unwrap(), "helm").unwrap();
    let mut helm = Command::new(helm);
    helm.args(["template", "bulkhead", "--namespace", NAMESPACE])
        .arg(repository().join("charts/bulkhead"));
    for template in templates {
        helm.args(["--show-only", &format!("templates/{template}")]);
    }
    for value in values {
        helm.args(["--set", value]);
    }
    let output = helm.output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}
