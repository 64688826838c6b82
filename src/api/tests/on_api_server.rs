//! The CRD on a real API server: it is taken without a warning, every row of `rules.yaml` is decided as it says, and the
//! greatest object fits.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Clippy sees no tests in these helpers.

#[path = "support/maximum.rs"]
mod maximum;
#[path = "support/table.rs"]
mod table;

use bulkhead_api::McpTenant;
use bulkhead_cluster::{ApiServer, Paths, cert_manager_definitions};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client, Config, CustomResourceExt as _, Resource as _, ResourceExt as _,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    runtime::{conditions::is_crd_established, wait::await_condition},
};
use serde_json::Value;
use table::{Row, Table};

/// An API server with the CRD.
struct Fixture {
    client: Client,
    _server: ApiServer,
}

impl Fixture {
    async fn start() -> Self {
        let server = ApiServer::start().expect("an API server");
        let kubeconfig = Kubeconfig::read_from(server.kubeconfig_path()).unwrap();
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .unwrap();
        let client = Client::try_from(config).unwrap();
        let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
        let crd = crds
            .create(&PostParams::default(), &McpTenant::crd())
            .await
            .expect("the API server takes the CRD");
        await_condition(crds, &crd.name_any(), is_crd_established())
            .await
            .unwrap();
        Self {
            client,
            _server: server,
        }
    }

    /// Makes the kinds known that cert-manager brings.
    async fn know_cert_manager(&self) {
        let crds: Api<CustomResourceDefinition> = Api::all(self.client.clone());
        let text = cert_manager_definitions(&Paths::from_env().unwrap()).unwrap();
        let definitions: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
        for definition in definitions.into_iter().filter(|document| !document.is_null()) {
            let crd = serde_json::from_value(definition).unwrap();
            let crd = crds.create(&PostParams::default(), &crd).await.unwrap();
            await_condition(crds.clone(), &crd.name_any(), is_crd_established())
                .await
                .unwrap();
        }
    }

    /// Objects as anybody may write them: more than the Rust types can hold.
    fn tenants(&self) -> Api<DynamicObject> {
        Api::all_with(
            self.client.clone(),
            &kube::core::ApiResource::erase::<McpTenant>(&()),
        )
    }
}

fn object(value: Value) -> DynamicObject {
    serde_json::from_value(value).expect("an object has a kind and a name")
}

fn dry_run() -> PostParams {
    PostParams {
        dry_run: true,
        ..PostParams::default()
    }
}

#[tokio::test]
async fn the_api_server_decides_every_row_as_the_table_says() {
    let fixture = Fixture::start().await;
    let tenants = fixture.tenants();
    let table = Table::read();
    let mut wrong = Vec::new();
    for row in &table.rows {
        let old = match &row.old {
            Some(old) => Some(
                tenants
                    .create(&PostParams::default(), &object(table.object(old)))
                    .await
                    .unwrap(),
            ),
            None => None,
        };
        for changes in row.accept.iter().chain(&row.reject) {
            let mut new = object(table.object(changes));
            let outcome = match &old {
                Some(old) => {
                    new.metadata.resource_version = old.resource_version();
                    tenants.replace(&new.name_any(), &dry_run(), &new).await
                }
                None => tenants.create(&dry_run(), &new).await,
            };
            let accepted = row.accept.iter().any(|accept| std::ptr::eq(accept, changes));
            if let Some(problem) = compare(row, accepted, outcome) {
                wrong.push(format!(
                    "“{}” (by {:?}), {changes:?}: {problem}",
                    row.about, row.by
                ));
            }
        }
        if let Some(old) = old {
            tenants
                .delete(&old.name_any(), &DeleteParams::default())
                .await
                .unwrap();
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn compare(row: &Row, accepted: bool, outcome: kube::Result<DynamicObject>) -> Option<String> {
    match (accepted, outcome) {
        (true, Ok(_)) => None,
        (true, Err(error)) => Some(format!("should be accepted, but: {error}")),
        (false, Ok(_)) => Some("should be refused".to_owned()),
        (false, Err(kube::Error::Api(status)))
            if status.code == 422 && status.message.contains(&row.says) =>
        {
            None
        }
        (false, Err(error)) => Some(format!("refused otherwise than with “{}”: {error}", row.says)),
    }
}

/// For real and not as a dry run: etcd has a say.
#[tokio::test]
async fn the_object_at_its_maxima_is_accepted() {
    let fixture = Fixture::start().await;
    let greatest = maximum::tenant();
    let size = serde_json::to_vec(&greatest).unwrap().len();
    assert!(size > 1_000_000, "{size} bytes are no maximum");
    println!("the greatest object has {size} bytes");
    let written = fixture
        .tenants()
        .patch("greatest", &PatchParams::apply("test"), &Patch::Apply(&greatest))
        .await
        .unwrap_or_else(|error| panic!("{size} bytes: {error}"));
    let tenant: McpTenant = written.try_parse().expect("what is accepted can be read");
    assert_eq!(tenant.spec.servers.len(), 16);
    assert_eq!(tenant.spec.servers[15].tools.len(), 128);
    assert_eq!(tenant.spec.agents.len(), 64);
    // And it can be changed: transition rules cost too.
    let mut changed = greatest;
    changed["spec"]["attributes"]["a"] = "changed".into();
    fixture
        .tenants()
        .patch("greatest", &PatchParams::apply("test"), &Patch::Apply(&changed))
        .await
        .unwrap();
}

#[tokio::test]
async fn one_more_than_each_maximum_is_refused() {
    let fixture = Fixture::start().await;
    for (list, more) in [
        (
            "/spec/servers",
            serde_json::json!({"name": "more", "image": "more", "http": {"port": 1}}),
        ),
        ("/spec/servers/0/tools", serde_json::json!({"name": "more"})),
        ("/spec/agents", serde_json::json!({"name": "more"})),
        ("/spec/agents/0/roles", "more".into()),
        ("/spec/servers/0/tools/0/roles", "more".into()),
        (
            "/spec/issuers",
            serde_json::json!({"name": "more", "url": "https://more.example.com", "audiences": ["more"]}),
        ),
        ("/spec/issuers/0/audiences", "more".into()),
        ("/spec/issuers/0/roles", serde_json::json!({"roles": ["more"]})),
        (
            "/spec/agents/0/clients",
            serde_json::json!({"issuer": "issuer-0", "id": "more"}),
        ),
        ("/spec/servers/0/hostnames", "more.example.com".into()),
        (
            "/spec/admins",
            serde_json::json!({"kind": "User", "name": "more"}),
        ),
    ] {
        let mut greatest = maximum::tenant();
        greatest
            .pointer_mut(list)
            .and_then(Value::as_array_mut)
            .expect(list)
            .push(more);
        let error = fixture
            .tenants()
            .create(&dry_run(), &object(greatest))
            .await
            .expect_err(list);
        assert!(error.to_string().contains("Too many"), "{list}: {error}");
    }
}

#[tokio::test]
async fn the_samples_are_accepted_under_strict_validation() {
    let fixture = Fixture::start().await;
    for sample in ["acme", "globex"] {
        let path = format!(
            "{}/../../manifests/samples/{sample}.yaml",
            env!("CARGO_MANIFEST_DIR")
        );
        let value: Value = serde_saphyr::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let strict = PatchParams::apply("test").validation_strict();
        let written = fixture
            .tenants()
            .patch(sample, &strict, &Patch::Apply(&value))
            .await;
        let tenant: McpTenant = written
            .unwrap_or_else(|error| panic!("{sample}: {error}"))
            .try_parse()
            .unwrap();
        assert_eq!(tenant.meta().name.as_deref(), Some(sample));
    }
}

/// What people without Helm apply, field by field, as the API server reads it.
#[tokio::test]
async fn the_install_manifest_is_accepted_under_strict_validation() {
    let fixture = Fixture::start().await;
    fixture.know_cert_manager().await;
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../manifests/install.yaml");
    let documents: Vec<Value> = serde_saphyr::from_multiple(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert!(documents.len() > 10);
    for document in documents {
        let object = object(document);
        let types = object.types.as_ref().unwrap();
        let kind = kube::core::GroupVersionKind::try_from(types).unwrap();
        let (resource, capabilities) = kube::discovery::pinned_kind(&fixture.client, &kind)
            .await
            .unwrap();
        let api: Api<DynamicObject> = match (capabilities.scope, object.metadata.namespace.as_deref()) {
            (kube::discovery::Scope::Namespaced, Some(namespace)) => {
                Api::namespaced_with(fixture.client.clone(), namespace, &resource)
            }
            _ => Api::all_with(fixture.client.clone(), &resource),
        };
        let strict = PatchParams::apply("install").force().validation_strict();
        if let Err(error) = api
            .patch(&object.name_any(), &strict, &Patch::Apply(&object))
            .await
        {
            panic!("{} {}: {error}", types.kind, object.name_any());
        }
    }
}
