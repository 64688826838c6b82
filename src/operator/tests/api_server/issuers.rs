//! The issuers of persons' tokens: their keys come to the sidecars' mounted trust, and go on being there; what isn't to be
//! asked isn't; and no two tenants take one token.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    ServerConfig,
    pki_types::{PrivateKeyDer, pem::PemObject},
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_rustls::TlsAcceptor;

use crate::fixture::{Fixture, NAMESPACE, tenant, until};

const DISCOVERY: &str = "/.well-known/openid-configuration";

/// What an issuer answers, by path.
type Answers = Arc<Mutex<Vec<(String, Answer)>>>;

#[derive(Clone)]
enum Answer {
    Json(Value),
    Redirect(String),
    Endless,
}

/// An issuer's server, on loopback, with a certificate of its own authority.
struct Server {
    address: SocketAddr,
    authority: String,
    answers: Answers,
    asked: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    async fn start() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let leaf = CertificateParams::new(names)
            .unwrap()
            .signed_by(&key, &authority)
            .unwrap();
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(
                vec![leaf.der().clone()],
                PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap(),
            )
            .unwrap();
        let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (answers, asked) = (Answers::default(), Arc::default());
        let task = tokio::spawn(serve(
            listener,
            Arc::new(config),
            Arc::clone(&answers),
            Arc::clone(&asked),
        ));
        Self {
            address,
            authority: authority.pem(),
            answers,
            asked,
            task,
        }
    }

    fn url(&self, path: &str) -> String {
        format!("https://127.0.0.1:{}{path}", self.address.port())
    }

    fn answer(&self, path: &str, answer: Answer) {
        let mut answers = self.answers.lock().unwrap();
        answers.retain(|(known, _)| known != path);
        answers.push((path.to_owned(), answer));
    }

    /// An issuer at this path, with keys of these ids.
    fn publish(&self, path: &str, kids: &[&str]) {
        let told = json!({"issuer": self.url(path), "jwks_uri": self.url(&format!("{path}/keys"))});
        self.answer(&format!("{path}{DISCOVERY}"), Answer::Json(told));
        let keys: Vec<_> = kids.iter().map(|kid| key(kid)).collect();
        self.answer(&format!("{path}/keys"), Answer::Json(json!({"keys": keys})));
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// As a tenant names it.
    fn named(&self, name: &str, path: &str) -> Value {
        json!({
            "name": name, "url": self.url(path), "audiences": [format!("api://{name}")],
            "certificateAuthority": self.authority, "roles": [{"roles": ["reader"]}],
        })
    }
}

/// A key as issuers publish them, with more than is needed.
fn key(kid: &str) -> Value {
    json!({"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": kid, "x": "x", "y": "y", "x5c": ["MII"], "d": "secret"})
}

/// The same as it is passed on.
fn passed_on(kid: &str) -> Value {
    json!({"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": kid, "x": "x", "y": "y"})
}

async fn serve(
    listener: TcpListener,
    config: Arc<ServerConfig>,
    answers: Answers,
    asked: Arc<Mutex<Vec<String>>>,
) {
    let acceptor = TlsAcceptor::from(config);
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, answers, asked) = (acceptor.clone(), Arc::clone(&answers), Arc::clone(&asked));
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            let service = service_fn(move |request: Request<Incoming>| {
                let path = request.uri().path().to_owned();
                asked.lock().unwrap().push(path.clone());
                let known = answers
                    .lock()
                    .unwrap()
                    .iter()
                    .find(|(known, _)| *known == path)
                    .cloned();
                async move { Ok::<_, Infallible>(response(known.map(|(_, answer)| answer))) }
            });
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

fn response(answer: Option<Answer>) -> Response<Full<Bytes>> {
    let full = |text: String| Full::new(Bytes::from(text));
    match answer {
        None => Response::builder().status(404).body(full(String::new())),
        Some(Answer::Json(value)) => Response::builder().body(full(value.to_string())),
        Some(Answer::Redirect(to)) => Response::builder()
            .status(302)
            .header(header::LOCATION, to)
            .body(full(String::new())),
        Some(Answer::Endless) => {
            Response::builder().body(full(format!("{{\"issuer\":\"{}\"}}", "x".repeat(1 << 20))))
        }
    }
    .unwrap()
}

/// The issuers in the mounted trust of a tenant, by URL, with their keys.
async fn mounted(fixture: &Fixture, tenant: &str) -> Vec<(String, Vec<Value>)> {
    let maps = fixture.api("", "ConfigMap", Some(tenant));
    let map = maps.get_opt("bulkhead-trust").await.unwrap();
    let text = map.and_then(|map| Some(map.data["data"]["tokens.json"].as_str()?.to_owned()));
    let document: Value = serde_json::from_str(&text.unwrap_or_else(|| "{}".to_owned())).unwrap();
    let issuers = document["issuers"].as_array().cloned().unwrap_or_default();
    let pairs = issuers.into_iter().map(|issuer| {
        let keys = issuer["keys"].as_array().unwrap().clone();
        (issuer["issuer"].as_str().unwrap().to_owned(), keys)
    });
    pairs.collect()
}

async fn until_mounted(fixture: &Fixture, tenant: &str, wanted: &[(String, Vec<Value>)]) {
    until(&format!("{tenant} has the keys of its issuers"), async || {
        let mounted = mounted(fixture, tenant).await;
        if mounted == wanted {
            Ok(())
        } else {
            Err(format!("{mounted:?}"))
        }
    })
    .await;
}

async fn until_enforced_says(fixture: &Fixture, tenant: &str, words: &[&str]) {
    until(&format!("{tenant} says {words:?}"), async || {
        let status = fixture.tenant(tenant).await.unwrap().status.unwrap_or_default();
        let condition = status
            .conditions
            .into_iter()
            .find(|condition| condition.type_ == "PolicyEnforced");
        let message = condition.map(|condition| condition.message).unwrap_or_default();
        if words.iter().all(|word| message.contains(word)) {
            Ok(())
        } else {
            Err(message)
        }
    })
    .await;
}

fn with_issuers(name: &str, issuers: &[Value]) -> Value {
    let mut tenant = tenant(name, &format!("id-of-{name}"));
    tenant["spec"]["issuers"] = json!(issuers);
    tenant
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuers_keys_are_mounted_and_stay_when_it_is_gone() {
    let fixture = Fixture::start().await;
    let server = Server::start().await;
    server.publish("/umbra", &["k1"]);
    let operator = fixture.operator(&["--issuer-cidrs", "127.0.0.0/8"]).await;
    fixture
        .apply(&with_issuers("umbra", &[server.named("umbra", "/umbra")]))
        .await;
    let has = |kids: &[&str]| {
        vec![(
            server.url("/umbra"),
            kids.iter().map(|kid| passed_on(kid)).collect::<Vec<_>>(),
        )]
    };
    until_mounted(&fixture, "umbra", &has(&["k1"])).await;
    operator.stop().await;

    // The issuer can't be asked when the operator comes back: what sidecars have, they keep.
    server.answers.lock().unwrap().clear();
    let before = server.asked().len();
    let operator = fixture.operator(&["--issuer-cidrs", "127.0.0.0/8"]).await;
    until("the issuer is asked again", async || {
        if server.asked().len() > before {
            Ok(())
        } else {
            Err("not yet".to_owned())
        }
    })
    .await;
    // What else is changed about the tenant comes through, and its keys stay.
    let mut changed = with_issuers("umbra", &[server.named("umbra", "/umbra")]);
    changed["spec"]["agents"] = json!([{"name": "another", "roles": ["reader"]}]);
    fixture.apply(&changed).await;
    let agents = fixture.api("", "ServiceAccount", Some("umbra-agents"));
    until("the new agent's account", async || {
        agents
            .get_opt("another")
            .await
            .unwrap()
            .map(|_| ())
            .ok_or_else(String::new)
    })
    .await;
    assert_eq!(mounted(&fixture, "umbra").await, has(&["k1"]));
    operator.stop().await;

    server.publish("/umbra", &["k3", "k2"]);
    let operator = fixture.operator(&["--issuer-cidrs", "127.0.0.0/8"]).await;
    until_mounted(&fixture, "umbra", &has(&["k2", "k3"])).await;

    // An issuer that is no longer named is no longer believed.
    fixture.apply(&with_issuers("umbra", &[])).await;
    until_mounted(&fixture, "umbra", &[]).await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_to_be_asked_is_not_and_what_is_wrong_is_said() {
    let fixture = Fixture::start().await;
    let server = Server::start().await;
    server.publish("/good", &["k1"]);
    // Without a range that the platform allows, loopback is none of a tenant's business.
    let operator = fixture.operator(&[]).await;
    fixture
        .apply(&with_issuers("umbra", &[server.named("good", "/good")]))
        .await;
    until_enforced_says(
        &fixture,
        "umbra",
        &[
            "Persons' tokens are refused",
            "good",
            "not public",
            "issuers.cidrs",
        ],
    )
    .await;
    let named_by_name = server
        .named("good", "/good")
        .to_string()
        .replace("127.0.0.1", "localhost");
    fixture
        .apply(&with_issuers(
            "umbra",
            &[serde_json::from_str(&named_by_name).unwrap()],
        ))
        .await;
    until_enforced_says(&fixture, "umbra", &["good", "not public", "issuers.cidrs"]).await;
    assert_eq!(server.asked(), Vec::<String>::new());
    operator.stop().await;

    let elsewhere = server.url("/good");
    server.publish("/another", &["k1"]);
    server.answer(
        &format!("/another{DISCOVERY}"),
        Answer::Json(json!({"issuer": elsewhere, "jwks_uri": server.url("/good/keys")})),
    );
    server.answer(
        &format!("/moved{DISCOVERY}"),
        Answer::Redirect(format!("{elsewhere}{DISCOVERY}")),
    );
    server.answer(&format!("/endless{DISCOVERY}"), Answer::Endless);
    server.answer(
        &format!("/plain{DISCOVERY}"),
        Answer::Json(json!({"issuer": server.url("/plain"), "jwks_uri": "http://127.0.0.1:1/keys"})),
    );
    server.publish("/secret", &[]);
    server.answer(
        "/secret/keys",
        Answer::Json(json!({"keys": [{"kty": "oct", "kid": "k", "k": "c2VjcmV0"}, {"kty": "EC"}]})),
    );
    let operator = fixture.operator(&["--issuer-cidrs", "127.0.0.0/30"]).await;
    for (path, words) in [
        ("another", "tells of another issuer"),
        ("moved", "answers 302"),
        ("endless", "longer than 256 KiB"),
        ("plain", "no https URL"),
        ("secret", "no public keys"),
        ("nowhere", "answers 404"),
    ] {
        fixture
            .apply(&with_issuers("umbra", &[server.named(path, &format!("/{path}"))]))
            .await;
        until_enforced_says(&fixture, "umbra", &[path, words]).await;
        assert_eq!(mounted(&fixture, "umbra").await, [], "{path}");
    }
    // Another name than the certificate's: which it has is not told.
    let other_name = server
        .named("good", "/good")
        .to_string()
        .replace("127.0.0.1", "127.0.0.2");
    fixture
        .apply(&with_issuers(
            "umbra",
            &[serde_json::from_str(&other_name).unwrap()],
        ))
        .await;
    until_enforced_says(&fixture, "umbra", &["good", "certificate is for another name"]).await;
    let status = json!(fixture.tenant("umbra").await.unwrap().status).to_string();
    assert!(!status.contains("localhost"), "{status}");
    // What another server answers is not told either.
    server.answer(&format!("/prying{DISCOVERY}"), Answer::Json(json!("a secret")));
    fixture
        .apply(&with_issuers("umbra", &[server.named("prying", "/prying")]))
        .await;
    until_enforced_says(&fixture, "umbra", &["prying", "isn't what it must be"]).await;
    let status = json!(fixture.tenant("umbra").await.unwrap().status).to_string();
    assert!(!status.contains("a secret"), "{status}");
    // Another authority than the one that is named.
    let mut stranger = server.named("good", "/good");
    stranger["certificateAuthority"] = json!(Server::start().await.authority);
    fixture.apply(&with_issuers("umbra", &[stranger])).await;
    until_enforced_says(&fixture, "umbra", &["good", "can't be asked", "certificate"]).await;
    // The control, and one that is wrong beside it.
    fixture
        .apply(&with_issuers(
            "umbra",
            &[server.named("good", "/good"), server.named("nowhere", "/nowhere")],
        ))
        .await;
    until_mounted(&fixture, "umbra", &[(server.url("/good"), vec![passed_on("k1")])]).await;
    until_enforced_says(&fixture, "umbra", &["of the issuers nowhere (", "answers 404"]).await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_in_a_strangers_namespace_are_nobodys() {
    let fixture = Fixture::start().await;
    let server = Server::start().await;
    // Who has a namespace of a tenant's name puts keys of its own there, for the issuer that another tenant trusts.
    let namespaces = fixture.api("", "Namespace", None);
    let namespace = json!({"metadata": {"name": "corona"}});
    let parameters = kube::api::PostParams::default();
    namespaces
        .create(&parameters, &serde_json::from_value(namespace).unwrap())
        .await
        .unwrap();
    let document = json!({
        "format": 1, "serviceAccounts": {"issuer": "x", "keys": []},
        "issuers": [{"issuer": server.url("/corp"), "keys": [passed_on("forged")]}],
    });
    let map = json!({
        "metadata": {"name": "bulkhead-trust", "labels": {"app.kubernetes.io/managed-by": "bulkhead"}},
        "data": {"tokens.json": document.to_string()},
    });
    let maps = fixture.api("", "ConfigMap", Some("corona"));
    maps.create(&parameters, &serde_json::from_value(map).unwrap())
        .await
        .unwrap();
    let mut named = server.named("corp", "/corp");
    fixture.apply(&with_issuers("corona", &[named.clone()])).await;
    named["audiences"] = json!(["api://umbra"]);
    fixture.apply(&with_issuers("umbra", &[named])).await;
    let operator = fixture.operator(&["--issuer-cidrs", "127.0.0.0/8"]).await;
    fixture
        .until_condition("corona", "Accepted", "False", "NamespaceTaken")
        .await;
    until_enforced_says(&fixture, "umbra", &["corp", "answers 404"]).await;
    assert_eq!(mounted(&fixture, "umbra").await, []);
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_two_tenants_take_tokens_of_one_audience() {
    let fixture = Fixture::start().await;
    let server = Server::start().await;
    server.publish("/corp", &["k1"]);
    let operator = fixture.operator(&["--issuer-cidrs", "127.0.0.0/8"]).await;
    let issuer = |audiences: &[&str]| {
        let mut issuer = server.named("corp", "/corp");
        issuer["audiences"] = json!(audiences);
        issuer
    };
    fixture
        .apply(&with_issuers("umbra", &[issuer(&["api://a", "api://b"])]))
        .await;
    fixture
        .until_condition("umbra", "Accepted", "True", "Valid")
        .await;
    fixture
        .apply(&with_issuers("corona", &[issuer(&["api://c", "api://b"])]))
        .await;
    fixture
        .until_condition("corona", "Accepted", "False", "AudienceTaken")
        .await;
    let status = fixture.tenant("corona").await.unwrap().status.unwrap();
    assert!(!json!(status).to_string().contains("umbra"), "{status:?}");
    let namespaces = fixture.api("", "Namespace", None);
    assert!(namespaces.get_opt("corona").await.unwrap().is_none());

    // Of the same issuer another audience is another's; and what a tenant gives up, another may have.
    fixture
        .apply(&with_issuers("umbra", &[issuer(&["api://a"])]))
        .await;
    fixture
        .until_condition("corona", "Accepted", "True", "Valid")
        .await;
    let claims = fixture.api("", "ConfigMap", Some(NAMESPACE));
    let labelled = kube::api::ListParams::default().labels("bulkhead.dev/claim=audience");
    let claims = claims.list(&labelled).await.unwrap();
    assert_eq!(claims.items.len(), 3, "{claims:#?}");
    operator.stop().await;
}
