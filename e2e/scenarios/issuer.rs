//! An issuer of persons' access tokens in the cluster, with a certificate of cert-manager's.

use anyhow::{Context, Result};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::{Agent, apply, eventually, object, ready, setting};

/// A running issuer.
#[derive(Debug)]
pub struct Issuer {
    namespace: String,
    /// Its authority, PEM.
    pub authority: String,
}

impl Issuer {
    /// Starts one in a namespace of its own.
    ///
    /// # Panics
    /// When it doesn't come up.
    #[allow(clippy::expect_used, reason = "a scenario fails by panicking")]
    pub fn start(namespace: &str) -> Self {
        for object in objects(namespace) {
            eventually(&format!("{} of {namespace}", object["kind"]), || apply(&object));
        }
        for certificate in ["server", "signing"] {
            eventually(&format!("{certificate} of {namespace}"), || {
                ready("certificate", namespace, certificate)
            });
        }
        let secret = object("secret", namespace, "server").expect("the certificate is issued");
        let authority = secret["data"]["ca.crt"]
            .as_str()
            .map(|text| STANDARD.decode(text));
        let authority = authority.expect("the issuer's authority").expect("base64");
        eventually("the issuer", || apply(&pod(namespace)));
        eventually("the issuer runs", || ready("pod", namespace, "issuer"));
        Self {
            namespace: namespace.to_owned(),
            authority: String::from_utf8(authority).expect("PEM"),
        }
    }

    /// `iss` of its tokens.
    pub fn url(&self) -> String {
        url(&self.namespace)
    }

    /// A token that claims this.
    pub fn sign(&self, claims: &Value) -> Result<String> {
        let issuer = Agent::existing(&self.namespace, "issuer");
        let key = "/etc/issuer/signing/tls.key";
        let answers = issuer.probe(&["sign", "--key", key, &claims.to_string()])?;
        let token = answers.first().and_then(|answer| answer["token"].as_str());
        token.map(str::to_owned).context("a token")
    }
}

fn url(namespace: &str) -> String {
    format!("https://issuer.{namespace}.svc:8443")
}

fn objects(namespace: &str) -> Vec<Value> {
    let meta = |name: &str| json!({"name": name, "namespace": namespace});
    let issuer = |name: &str, spec: Value| json!({"apiVersion": "cert-manager.io/v1", "kind": "Issuer", "metadata": meta(name), "spec": spec});
    let certificate = |name: &str, by: &str, more: Value| {
        let mut spec = json!({
            "secretName": name, "issuerRef": {"name": by}, "commonName": format!("{name} of {namespace}"),
            "privateKey": {"algorithm": "ECDSA", "size": 256, "encoding": "PKCS8"},
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            spec[key] = value.clone();
        }
        json!({"apiVersion": "cert-manager.io/v1", "kind": "Certificate", "metadata": meta(name), "spec": spec})
    };
    vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}),
        issuer("selfsigned", json!({"selfSigned": {}})),
        certificate("authority", "selfsigned", json!({"isCA": true})),
        issuer("authority", json!({"ca": {"secretName": "authority"}})),
        certificate(
            "server",
            "authority",
            json!({"dnsNames": [format!("issuer.{namespace}.svc")]}),
        ),
        // Only its key is of use.
        certificate("signing", "selfsigned", json!({})),
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": meta("issuer"),
            "spec": {"selector": {"app": "issuer"}, "ports": [{"port": 8443, "targetPort": 8443}]},
        }),
    ]
}

fn pod(namespace: &str) -> Value {
    let mount =
        |name: &str| json!({"name": name, "mountPath": format!("/etc/issuer/{name}"), "readOnly": true});
    let volume = |name: &str| json!({"name": name, "secret": {"secretName": name}});
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "issuer", "namespace": namespace, "labels": {"app": "issuer"}},
        "spec": {
            "automountServiceAccountToken": false,
            "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": "probe",
                "image": setting("BULKHEAD_E2E_IMAGE_PROBE"),
                "imagePullPolicy": "IfNotPresent",
                "args": ["issue", "--url", url(namespace), "--identity", "/etc/issuer/server", "--key", "/etc/issuer/signing/tls.key"],
                "readinessProbe": {"tcpSocket": {"port": 8443}, "periodSeconds": 1},
                "volumeMounts": [mount("server"), mount("signing")],
            }],
            "volumes": [volume("server"), volume("signing")],
        },
    })
}
