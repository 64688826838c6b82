//! Plays cert-manager: what it would write for a Certificate.

use std::{
    collections::HashMap,
    fs,
    sync::{Arc, Mutex},
};

use bulkhead_api::cert_manager::Certificate;
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
};
use rcgen::{CertifiedIssuer, KeyPair};
use serde_json::json;
use tempfile::TempDir;

use crate::fixture::OPERATOR_HOST;

/// The CAs that were issued so far, by namespace and name.
pub type Authorities = Arc<Mutex<HashMap<(String, String), Arc<CertifiedIssuer<'static, KeyPair>>>>>;

/// A certificate of the operator's, as the chart has it mounted.
pub fn control_files() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let pair = rcgen::generate_simple_self_signed(vec![OPERATOR_HOST.to_owned()]).unwrap();
    for (file, content) in [
        ("tls.crt", pair.cert.pem()),
        ("tls.key", pair.signing_key.serialize_pem()),
        ("ca.pem", pair.cert.pem()),
    ] {
        fs::write(folder.path().join(file), content).unwrap();
    }
    folder
}

/// What cert-manager would write for a Certificate.
pub async fn issue(
    client: &Client,
    certificate: &Certificate,
    authorities: &Authorities,
) -> Result<(), kube::Error> {
    let (name, namespace) = (certificate.name_any(), certificate.namespace().unwrap());
    let status = serde_json::to_value(certificate).unwrap();
    if status.pointer("/status/revision").is_some() {
        return Ok(());
    }
    if certificate.spec.is_ca {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(parameters, key).unwrap();
        let pem = authority.pem();
        authorities
            .lock()
            .unwrap()
            .insert((namespace.clone(), name.clone()), Arc::new(authority));
        let resource = ApiResource {
            group: "cert-manager.io".into(),
            version: "v1".into(),
            api_version: "cert-manager.io/v1".into(),
            kind: "CertificateRequest".into(),
            plural: "certificaterequests".into(),
        };
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &namespace, &resource);
        let request = json!({
            "apiVersion": "cert-manager.io/v1",
            "kind": "CertificateRequest",
            "metadata": {
                "name": format!("{name}-1"),
                // As cert-manager does: the Certificate's labels.
                "labels": certificate.labels(),
                "annotations": {"cert-manager.io/certificate-name": name, "cert-manager.io/certificate-revision": "1"},
            },
            "spec": {"issuerRef": {"name": "selfsigned"}, "request": "UEVN"},
        });
        let parameters = PatchParams::apply("cert-manager").force();
        api.patch(&format!("{name}-1"), &parameters, &Patch::Apply(&request))
            .await?;
        let status = json!({"status": {
            "certificate": k8s_openapi::ByteString(pem.into_bytes()),
            "conditions": [{"type": "Ready", "status": "True", "reason": "Issued", "message": ""}],
        }});
        api.patch_status(
            &format!("{name}-1"),
            &PatchParams::default(),
            &Patch::Merge(&status),
        )
        .await?;
    }
    let status = json!({"status": {
        "revision": 1,
        "conditions": [{"type": "Ready", "status": "True", "reason": "Ready", "message": "",
                        "observedGeneration": certificate.metadata.generation}],
    }});
    let api: Api<Certificate> = Api::namespaced(client.clone(), &namespace);
    api.patch_status(&name, &PatchParams::default(), &Patch::Merge(&status))
        .await?;
    Ok(())
}
