//! Two tenants and the people around them, who ask the API server for things.

use http::{Method, Request, header};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::{Api, Client, api::PostParams};
use serde_json::{Value, json};

use crate::fixture::{Fixture, Operator, agent_pod, tenant, until};

pub const TENANTS: &str = "/apis/bulkhead.dev/v1alpha1/mcptenants";
/// A namespace of nobody's, without any wall.
pub const PLAIN: &str = "databases";

/// The people around the tenants `umbra` and `corona`.
pub struct People {
    /// An admin of `umbra`.
    pub admin: Client,
    /// A developer of `umbra`.
    pub developer: Client,
    /// An admin of `corona`.
    pub stranger: Client,
    /// Somebody whom the API server knows and no tenant names.
    pub nobody: Client,
}

impl People {
    /// Makes both tenants, and a pod in each namespace of `umbra`, and waits until people have their rights.
    pub async fn around_two_tenants(fixture: &Fixture) -> (Self, Operator) {
        let operator = fixture.operator(&[]).await;
        for name in ["umbra", "corona"] {
            fixture.apply(&tenant_of_its_own(name)).await;
        }
        let people = Self {
            admin: fixture.person("ada", &["umbra-seers"]).await,
            developer: fixture.person("dev", &["umbra-makers"]).await,
            stranger: fixture.person("eve", &["corona-seers"]).await,
            nobody: fixture.person("joe", &["strangers"]).await,
        };
        for (client, path) in [
            (&people.admin, format!("{TENANTS}/umbra")),
            (&people.developer, format!("{TENANTS}/umbra")),
            (&people.stranger, format!("{TENANTS}/corona")),
            (&people.admin, "/api/v1/namespaces/umbra/pods".to_owned()),
            (&people.admin, "/api/v1/namespaces/umbra-agents/pods".to_owned()),
            (&people.stranger, "/api/v1/namespaces/corona/pods".to_owned()),
            (
                &people.stranger,
                "/api/v1/namespaces/corona-agents/pods".to_owned(),
            ),
            (
                &people.developer,
                "/api/v1/namespaces/umbra-agents/pods".to_owned(),
            ),
        ] {
            until(&path, async || match ask(client, Method::GET, &path).await {
                (200, _) => Ok(()),
                answer => Err(format!("{answer:?}")),
            })
            .await;
        }
        for namespace in ["umbra", "umbra-agents"] {
            // A new quota refuses everything until it has been counted.
            until("a pod to look at", async || {
                let path = format!("/api/v1/namespaces/{namespace}/pods");
                match send(&fixture.admin, Method::POST, &path, &agent_pod()).await {
                    (201 | 409, _) => Ok(()),
                    answer => Err(format!("{answer:?}")),
                }
            })
            .await;
        }
        for (kind, group, name, namespace) in [
            ("Deployment", "apps", "files", "umbra"),
            ("Deployment", "apps", "files", "corona"),
            ("ConfigMap", "", "bulkhead-trust", "umbra-agents"),
        ] {
            let api = fixture.api(group, kind, Some(namespace));
            until(&format!("{kind} {namespace}/{name}"), async || {
                match api.get_opt(name).await.unwrap() {
                    Some(_) => Ok(()),
                    None => Err("not there".to_owned()),
                }
            })
            .await;
        }
        fixture.until_quiet().await;
        (people, operator)
    }
}

/// A tenant whose people are nobody else's.
pub fn tenant_of_its_own(name: &str) -> Value {
    let mut tenant = tenant(name, &format!("id-of-{name}"));
    for (role, group) in [("admins", "seers"), ("developers", "makers")] {
        tenant["spec"][role] = json!([{"kind": "Group", "name": format!("{name}-{group}")}]);
    }
    tenant
}

/// A request without a body that says anything. Answers the code, and the text or what the refusal says.
pub async fn ask(client: &Client, method: Method, path: &str) -> (u16, String) {
    send(client, method, path, &json!({})).await
}

/// A request.
pub async fn send(client: &Client, method: Method, path: &str, body: &Value) -> (u16, String) {
    let created = method == Method::POST;
    let content = if method == Method::PATCH {
        "application/merge-patch+json"
    } else {
        "application/json"
    };
    let body = match method {
        Method::GET => Vec::new(),
        // With a body the API server reads no options from the path. No test deletes in earnest by this way.
        Method::DELETE => json!({"apiVersion": "v1", "kind": "DeleteOptions", "dryRun": ["All"]})
            .to_string()
            .into_bytes(),
        _ => body.to_string().into_bytes(),
    };
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::CONTENT_TYPE, content)
        .body(body)
        .unwrap();
    match client.request_text(request).await {
        Ok(text) => (if created { 201 } else { 200 }, text),
        Err(kube::Error::Api(status)) => (status.code, status.message),
        Err(error) => panic!("{path}: {error}"),
    }
}

/// What `kubectl auth can-i` asks: `resource` with its group and, after `/`, subresource.
pub async fn may(
    client: &Client,
    verb: &str,
    group: &str,
    resource: &str,
    name: &str,
    namespace: &str,
) -> bool {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                verb: given(verb),
                group: given(group),
                resource: given(resource),
                subresource: given(subresource),
                name: given(name),
                namespace: given(namespace),
                ..ResourceAttributes::default()
            }),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let answer = reviews.create(&PostParams::default(), &review).await.unwrap();
    answer.status.is_some_and(|status| status.allowed)
}
