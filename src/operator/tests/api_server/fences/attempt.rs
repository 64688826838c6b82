//! One attempt at a tenant's walls: a request, as somebody, and what comes of it.

use std::collections::BTreeMap;

use http::{Method, Request};
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicyBinding;
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, PostParams},
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::fixture::{Fixture, USER, agent_pod, chart, until};

/// One request of `writes.yaml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Write {
    pub what: String,
    #[serde(rename = "as", default = "root")]
    pub user: String,
    #[serde(rename = "POST")]
    post: Option<String>,
    #[serde(rename = "PATCH")]
    patch: Option<String>,
    #[serde(rename = "DELETE")]
    delete: Option<String>,
    #[serde(rename = "CONNECT")]
    connect: Option<String>,
    #[serde(default)]
    pub body: Value,
    /// Code of the fence that must refuse it.
    pub refused: Option<String>,
    /// Whether the request must pass without the fences; it needn't where something else refuses it too.
    #[serde(default = "yes")]
    pub control: bool,
}

impl Write {
    /// Method and path.
    pub fn request(&self, claim: &str) -> (Method, String) {
        let (method, path) = [
            (Method::POST, &self.post),
            (Method::PATCH, &self.patch),
            (Method::DELETE, &self.delete),
            (Method::GET, &self.connect),
        ]
        .into_iter()
        .find_map(|(method, path)| path.as_deref().map(|path| (method, path)))
        .unwrap();
        let mut path = path
            .replace("{claim}", claim)
            .replace("{ns}", "/api/v1/namespaces");
        if let Some(rest) = path.strip_prefix("{apis}/") {
            let mut parts = rest.splitn(3, '/');
            let [group, version, rest] = [(); 3].map(|()| parts.next().unwrap());
            path = format!("/apis/{group}/{version}/namespaces/{rest}");
        }
        if method != Method::GET {
            path += "?dryRun=All";
        }
        (method, path)
    }
}

/// One pod of `pods.yaml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pod {
    pub r#in: String,
    pub what: String,
    pub change: BTreeMap<String, Value>,
    #[serde(default)]
    pub allowed: bool,
}

fn root() -> String {
    "root".to_owned()
}

fn yes() -> bool {
    true
}

/// What came of a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Passed,
    /// By a fence, with its message.
    Refused(String),
    /// By anything else.
    Failed(String),
}

/// The pods of `pods.yaml`.
pub struct Pods {
    pub server: Value,
    pub table: Vec<Pod>,
}

impl Pods {
    pub fn new(server: Value) -> Self {
        Self {
            server,
            table: serde_saphyr::from_str(include_str!("pods.yaml")).unwrap(),
        }
    }

    pub fn base(&self, part: &str) -> Value {
        if part == "servers" {
            return self.server.clone();
        }
        let mut pod = agent_pod();
        pod["metadata"]["labels"] = json!({"bulkhead.dev/agent": "scout"});
        pod["spec"]["serviceAccountName"] = json!("scout");
        pod["spec"]["volumes"] = json!([{"name": "identity", "secret": {"secretName": "scout-tls"}}]);
        pod
    }
}

impl Fixture {
    /// Puts the chart's fences up, with these values, and waits until they hold.
    pub async fn fence(&self, values: &[&str]) {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "probe-agents", "labels": {"bulkhead.dev/tenant": "probe"}}});
        let namespaces = self.api("", "Namespace", None);
        namespaces
            .create(
                &PostParams::default(),
                &serde_json::from_value(namespace).unwrap(),
            )
            .await
            .unwrap();
        let templates = [
            "break-glass",
            "claims",
            "namespaces",
            "objects",
            "operator",
            "pods",
            "tenants",
            "writers",
        ];
        let templates = templates.map(|name| format!("fences/{name}.yaml"));
        self.kubectl_apply(&chart(&templates.each_ref().map(|name| &**name), values));
        self.until_fenced(true).await;
    }

    /// Takes the fences down, and waits until they no longer hold.
    pub async fn unfence(&self) {
        let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(self.admin.clone());
        bindings
            .delete_collection(&DeleteParams::default(), &ListParams::default())
            .await
            .unwrap();
        self.until_fenced(false).await;
    }

    /// The API server follows its policies some time after they change, in the order in which they did. So one request for
    /// the last of them, `bulkhead-writers`, which no other refuses, tells of all that came before it.
    async fn until_fenced(&self, wanted: bool) {
        let claim = named(&json!({}), "claim-probe");
        let trust = named(&json!({}), "bulkhead-trust");
        for (path, body) in [
            ("/api/v1/namespaces/bulkhead-system/configmaps?dryRun=All", &claim),
            (
                "/api/v1/namespaces?dryRun=All",
                &json!({"metadata": {"name": "more", "labels": {"bulkhead.dev/tenant": "more"}}}),
            ),
            ("/api/v1/namespaces/probe-agents/configmaps?dryRun=All", &trust),
        ] {
            until("the API server follows the fences", async || {
                let outcome = self.ask("root", &Method::POST, path, body).await;
                let fenced = matches!(outcome, Outcome::Refused(_));
                if fenced == wanted {
                    Ok(())
                } else {
                    Err(format!("{path}: {outcome:?}"))
                }
            })
            .await;
        }
    }

    /// Namespaces from before the fences: one that Pod Security doesn't look at, one of a sandboxed tenant's.
    pub async fn namespaces_of_old_times(&self) {
        let namespaces = self.api("", "Namespace", None);
        for (tenant, annotations) in [
            ("lax", json!({})),
            ("boxed", json!({"bulkhead.dev/runtime-class": "gvisor"})),
        ] {
            let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {
                "name": format!("{tenant}-agents"), "labels": {"bulkhead.dev/tenant": tenant}, "annotations": annotations,
            }});
            namespaces
                .create(
                    &PostParams::default(),
                    &serde_json::from_value(namespace).unwrap(),
                )
                .await
                .unwrap();
        }
        for class in ["gvisor", "other"] {
            let class = json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": class}, "handler": class});
            let classes = self.api("node.k8s.io", "RuntimeClass", None);
            classes
                .create(&PostParams::default(), &serde_json::from_value(class).unwrap())
                .await
                .unwrap();
        }
    }

    pub async fn try_write(&self, write: &Write, claim: &str) -> Outcome {
        let (method, path) = write.request(claim);
        let outcome = self.ask(&write.user, &method, &path, &write.body).await;
        match outcome {
            // Past the fences there is no kubelet to connect to.
            Outcome::Failed(said) if write.connect.is_some() && !said.contains("forbidden") => {
                Outcome::Passed
            }
            outcome => outcome,
        }
    }

    pub async fn try_pod(&self, pods: &Pods, pod: &Pod) -> Outcome {
        let mut object = named(&pods.base(&pod.r#in), "candidate");
        for (pointer, value) in &pod.change {
            set(&mut object, pointer, value);
        }
        let (user, namespace) = match &*pod.r#in {
            "servers" => ("replicaset-controller", "umbra".to_owned()),
            "agents" => ("root", "umbra-agents".to_owned()),
            tenant => ("root", format!("{tenant}-agents")),
        };
        let path = format!("/api/v1/namespaces/{namespace}/pods?dryRun=All");
        self.ask(user, &Method::POST, &path, &object).await
    }

    /// Asks as somebody whom RBAC refuses nothing, but for the two that are there to be refused.
    pub async fn ask(&self, user: &str, method: &Method, path: &str, body: &Value) -> Outcome {
        let (name, group) = match user {
            "root" => ("root".to_owned(), "system:masters"),
            "operator" => (USER.to_owned(), "system:masters"),
            "break-glass" => ("on-call".to_owned(), "bulkhead:break-glass"),
            "namespace-admin" | "secrets-writer" => (user.to_owned(), "test:namespace-admins"),
            node if node.starts_with("system:node:") => (node.to_owned(), "system:nodes"),
            user if user.contains(':') => (user.to_owned(), "system:masters"),
            controller => (
                format!("system:serviceaccount:kube-system:{controller}"),
                "system:masters",
            ),
        };
        let mut headers = vec![("Impersonate-User", &*name), ("Impersonate-Group", group)];
        if ["system:nodes", "bulkhead:break-glass"].contains(&group) {
            headers.push(("Impersonate-Group", "system:masters"));
        }
        match self
            .admin
            .request_text(request(method, path, body, Some(&headers)))
            .await
        {
            Ok(_) => Outcome::Passed,
            Err(kube::Error::Api(status)) if status.message.contains("ValidatingAdmissionPolicy") => {
                Outcome::Refused(status.message.clone())
            }
            Err(error) => Outcome::Failed(error.to_string()),
        }
    }

    /// A client with a real token of an account, and nothing else.
    pub async fn with_token_of(&self, namespace: &str, account: &str) -> Client {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
        let token: Value = self
            .admin
            .request(request(&Method::POST, &path, &json!({"spec": {}}), None))
            .await
            .unwrap();
        self.client_with_token(token["status"]["token"].as_str().unwrap())
            .await
    }
}

pub fn request(
    method: &Method,
    path: &str,
    body: &Value,
    headers: Option<&[(&str, &str)]>,
) -> Request<Vec<u8>> {
    let kind = if method == Method::PATCH {
        "application/merge-patch+json"
    } else {
        "application/json"
    };
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", kind);
    for (name, value) in headers.into_iter().flatten() {
        request = request.header(*name, *value);
    }
    let body = if body.is_null() {
        Vec::new()
    } else {
        serde_json::to_vec(body).unwrap()
    };
    request.body(body).unwrap()
}

pub fn named(object: &Value, name: &str) -> Value {
    let mut object = object.clone();
    object["metadata"]["name"] = json!(name);
    object
}

/// Sets a value at a JSON pointer (RFC 6901); null removes what is there, `-` appends to a list.
fn set(object: &mut Value, pointer: &str, value: &Value) {
    let (parent, last) = pointer.rsplit_once('/').unwrap();
    match object
        .pointer_mut(parent)
        .unwrap_or_else(|| panic!("{pointer} leads nowhere"))
    {
        Value::Array(items) if last == "-" => items.push(value.clone()),
        Value::Array(items) => items[last.parse::<usize>().unwrap()] = value.clone(),
        Value::Object(fields) if value.is_null() => {
            fields
                .remove(last)
                .unwrap_or_else(|| panic!("{pointer}: nothing to remove"));
        }
        Value::Object(fields) => {
            fields.insert(last.to_owned(), value.clone());
        }
        other => panic!("{pointer} leads into {other}"),
    }
}

pub fn pass(outcome: &Outcome) {
    assert_eq!(*outcome, Outcome::Passed);
}
