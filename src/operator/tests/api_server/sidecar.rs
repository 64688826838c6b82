//! Plays sidecars: the client half of the control protocol, with a token that the API server made and a certificate of a
//! tenant's own CA.

use std::sync::Arc;

use bulkhead_control::{
    ALPN, SidecarReport,
    client::{self, ClientError},
};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::{Api, api::PostParams};
use rcgen::{CertificateParams, KeyPair, SanType};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::{net::TcpStream, sync::mpsc, task::JoinHandle};
use tokio_rustls::TlsConnector;

use crate::fixture::{Fixture, OPERATOR_HOST, Operator};

/// A sidecar that reports. Dropping it breaks the connection.
pub struct Sidecar {
    reports: mpsc::UnboundedSender<SidecarReport>,
    call: Option<JoinHandle<Result<(), ClientError>>>,
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        if let Some(call) = &self.call {
            call.abort();
        }
    }
}

/// Who a sidecar says that it is.
#[derive(Clone)]
pub struct Papers {
    /// Of which server the token is, and for whom.
    pub token: String,
    /// Signs the certificate: namespace and name.
    pub authority: (String, String),
    /// What the certificate is of.
    pub spiffe_id: String,
}

impl Papers {
    /// Of the sidecar of a server's pod.
    pub async fn of(fixture: &Fixture, tenant: &str, server: &str, pod: &str) -> Self {
        Self {
            token: token(
                fixture,
                tenant,
                server,
                Some(pod),
                bulkhead_core::control::AUDIENCE,
            )
            .await,
            authority: (tenant.to_owned(), "servers-ca".to_owned()),
            spiffe_id: format!("spiffe://{tenant}.cluster.local/ns/{tenant}/sa/{server}"),
        }
    }
}

/// A token of a service account, bound to a pod of it or to nothing.
pub async fn token(
    fixture: &Fixture,
    namespace: &str,
    account: &str,
    pod: Option<&str>,
    audience: &str,
) -> String {
    let bound = match pod {
        Some(name) => {
            let pod = fixture.api("", "Pod", Some(namespace)).get(name).await.unwrap();
            Some(BoundObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Pod".into()),
                name: Some(name.into()),
                uid: pod.metadata.uid,
            })
        }
        None => None,
    };
    let request = TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: Some(vec![audience.into()]),
            bound_object_ref: bound,
            expiration_seconds: Some(600),
            ..TokenRequestSpec::default()
        }),
        ..TokenRequest::default()
    };
    let accounts: Api<ServiceAccount> = Api::namespaced(fixture.admin.clone(), namespace);
    let made = accounts
        .create_token_request(account, &PostParams::default(), &request)
        .await
        .unwrap();
    made.status.unwrap().token.unwrap()
}

impl Sidecar {
    /// Calls the operator with these papers.
    pub async fn call(fixture: &Fixture, operator: &Operator, papers: &Papers) -> Self {
        let tls = tls(fixture, &operator.control_roots(), papers);
        let stream = TcpStream::connect(operator.control).await.unwrap();
        let name = ServerName::try_from(OPERATOR_HOST).unwrap();
        let stream = TlsConnector::from(tls).connect(name, stream).await.unwrap();
        let (reports, receiver) = mpsc::unbounded_channel();
        let token = papers.token.clone();
        let call = tokio::spawn(async move {
            let said = futures::stream::unfold(receiver, async |mut receiver| {
                Some((receiver.recv().await?, receiver))
            });
            let mut call = client::call(stream, OPERATOR_HOST, &token, said).await?;
            while call.parts().await?.is_some() {}
            Ok(())
        });
        Self {
            reports,
            call: Some(call),
        }
    }

    /// Says this. A call that has ended hears nothing.
    pub fn says(&self, report: SidecarReport) {
        let _ = self.reports.send(report);
    }

    /// How the operator ended the call.
    pub async fn ended(mut self) -> Result<(), ClientError> {
        self.call.take().unwrap().await.unwrap()
    }
}

fn tls(fixture: &Fixture, operator_roots: &str, papers: &Papers) -> Arc<ClientConfig> {
    let mut parameters = CertificateParams::default();
    parameters.subject_alt_names = vec![SanType::URI(papers.spiffe_id.as_str().try_into().unwrap())];
    let key = KeyPair::generate().unwrap();
    let authority = fixture.authorities.lock().unwrap()[&papers.authority].clone();
    let certificate = parameters.signed_by(&key, &*authority).unwrap();
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(operator_roots.as_bytes()).unwrap())
        .unwrap();
    let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
    let mut tls = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![certificate.der().clone()], key)
        .unwrap();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    Arc::new(tls)
}
