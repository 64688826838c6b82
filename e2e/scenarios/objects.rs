//! Objects, as the cluster's administrator sees and makes them, over one connection: a `kubectl` for every look and every
//! preparation took more of the machine than the operator did.

use std::{collections::HashMap, sync::LazyLock};

use anyhow::{Context, Result};
use kube::{
    Api, Client, Config, Discovery, ResourceExt,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams},
    config::{KubeConfigOptions, Kubeconfig},
    core::ApiResource,
    discovery::{ApiGroup, Scope},
};
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};

use crate::setting;

/// A connection to the cluster, and what its API server serves: by kind in lower case, and by plural.
pub(crate) struct Cluster {
    pub(crate) runtime: Runtime,
    pub(crate) client: Client,
    kinds: HashMap<String, (ApiResource, bool)>,
}

#[allow(clippy::expect_used, reason = "without its cluster no scenario says anything")]
pub(crate) static CLUSTER: LazyLock<Cluster> =
    LazyLock::new(|| Cluster::connect().expect("the cluster must be reachable"));

impl Cluster {
    fn connect() -> Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let (client, kinds) = runtime.block_on(async {
            let kubeconfig = Kubeconfig::read_from(setting("BULKHEAD_E2E_KUBECONFIG"))?;
            let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
            let client = Client::try_from(config)?;
            let served = Discovery::new(client.clone()).run().await?;
            let mut kinds = HashMap::new();
            for (resource, capabilities) in served.groups().flat_map(ApiGroup::recommended_resources) {
                let namespaced = capabilities.scope == Scope::Namespaced;
                for name in [resource.kind.to_lowercase(), resource.plural.clone()] {
                    kinds
                        .entry(name)
                        .or_insert_with(|| (resource.clone(), namespaced));
                }
            }
            anyhow::Ok((client, kinds))
        })?;
        Ok(Self {
            runtime,
            client,
            kinds,
        })
    }

    fn api(&self, kind: &str, namespace: &str) -> Result<Api<DynamicObject>> {
        let (resource, namespaced) = self.kinds.get(kind).with_context(|| format!("no kind {kind}"))?;
        let client = self.client.clone();
        Ok(if *namespaced {
            Api::namespaced_with(client, namespace, resource)
        } else {
            Api::all_with(client, resource)
        })
    }
}

/// An object, if it is there. A kind is written as for `kubectl`; one of the cluster's own has no namespace: `""`.
pub fn find(kind: &str, namespace: &str, name: &str) -> Result<Option<Value>> {
    let api = CLUSTER.api(kind, namespace)?;
    let found = CLUSTER.runtime.block_on(api.get_opt(name))?;
    Ok(found.map(serde_json::to_value).transpose()?)
}

/// An object; an error when it isn't there.
pub fn object(kind: &str, namespace: &str, name: &str) -> Result<Value> {
    find(kind, namespace, name)?.with_context(|| format!("there is no {kind} {namespace}/{name}"))
}

/// The objects of a namespace with these labels; all of them for `""`.
pub fn objects(kind: &str, namespace: &str, labels: &str) -> Result<Vec<Value>> {
    let api = CLUSTER.api(kind, namespace)?;
    let list = CLUSTER
        .runtime
        .block_on(api.list(&ListParams::default().labels(labels)))?;
    let mut objects = list.items;
    objects.sort_by_key(ResourceExt::name_any);
    Ok(objects
        .into_iter()
        .map(serde_json::to_value)
        .collect::<Result<_, _>>()?)
}

/// Applies an object, and takes fields that somebody else owns.
pub fn apply(object: &Value) -> Result<()> {
    let text = |pointer: &str| {
        object
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let (kind, name) = (text("/kind").to_lowercase(), text("/metadata/name"));
    let api = CLUSTER.api(&kind, text("/metadata/namespace"))?;
    let as_scenario = PatchParams::apply("bulkhead-scenario").force();
    let applied = CLUSTER
        .runtime
        .block_on(api.patch(name, &as_scenario, &Patch::Apply(object)));
    applied.map(drop).with_context(|| format!("apply {kind} {name}"))
}

/// Deletes an object, which may be gone, and waits for nothing.
pub fn delete(kind: &str, namespace: &str, name: &str) -> Result<()> {
    let api = CLUSTER.api(kind, namespace)?;
    match CLUSTER
        .runtime
        .block_on(api.delete(name, &DeleteParams::default()))
    {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        done => Ok(done.map(drop)?),
    }
}

/// Nothing when an object says that it is ready.
pub fn ready(kind: &str, namespace: &str, name: &str) -> Result<()> {
    let object = object(kind, namespace, name)?;
    match condition(&object, "Ready") {
        Some(ready) if ready["status"] == "True" => Ok(()),
        _ => anyhow::bail!("{}", object["status"]),
    }
}

/// A condition of an object.
pub fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    object["status"]["conditions"]
        .as_array()?
        .iter()
        .find(|condition| condition["type"] == kind)
}

/// Nothing when an object is gone, and an error with the object as long as it is there.
pub fn gone(kind: &str, namespace: &str, name: &str) -> Result<()> {
    match find(kind, namespace, name)? {
        None => Ok(()),
        Some(object) => anyhow::bail!("{object}"),
    }
}
