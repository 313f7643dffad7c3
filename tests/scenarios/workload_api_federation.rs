//! An app sees the trust domains its authority is federated with, and may have their tokens verified.

use std::{fs, sync::Arc, time::SystemTime};

use http::Response;
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose};
use rustls_pki_types::PrivateKeyDer;
use spiffe::{JwtSource, TrustDomain, WorkloadApiClient, X509Source};
use warifu::{
    identity::TrustBundle,
    jwt::{KeySet, SigningKey, sign},
};
use warifu_tests::mesh::Mesh;

type Ca = CertifiedIssuer<'static, KeyPair>;

fn ca() -> Ca {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Serves `body` over HTTPS, with a certificate of `web`; its URL.
async fn endpoint(web: &Ca, body: String) -> String {
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, web).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf.der().clone()],
            PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        )
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/bundle", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(stream) = acceptor.accept(stream).await else {
                continue;
            };
            let body = body.clone();
            let answer = hyper::service::service_fn(move |_| {
                let answer = Response::builder()
                    .header("content-type", "application/json")
                    .body(Full::<bytes::Bytes>::from(body.clone()));
                async move { answer }
            });
            tokio::spawn(async move {
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), answer)
                    .await;
            });
        }
    });
    url
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bundles_of_a_partner_are_told_and_its_tokens_validated() {
    let (web, root, key) = (ca(), ca(), SigningKey::generate());
    let partner = TrustBundle {
        trust_domain: "partner.example".parse().unwrap(),
        x509_authorities: vec![root.der().clone()],
        jwt_authorities: KeySet::new(vec![key.public().clone()]),
        sequence: 1,
        refresh_hint: std::time::Duration::from_secs(300),
    };
    let url = endpoint(&web, partner.to_json()).await;
    let files = tempfile::tempdir().unwrap();
    let ca_file = files.path().join("web.pem");
    fs::write(&ca_file, web.pem()).unwrap();
    let mesh = Mesh::with(|authority| {
        authority.more(&format!(
            "federation: [{{trust_domain: partner.example, profile: https_web, url: \"{url}\", ca_file: {}}}]",
            ca_file.display()
        ))
    })
    .await;
    let socket = format!("unix:{}/workload.sock", mesh.dir().display());
    let local = format!("local: {{workload_api: {{listen: \"{socket}\"}}}}");
    let _agent = mesh.agent("orders").more(&local).start().await;

    let x509 = X509Source::builder()
        .endpoint(&socket)
        .build()
        .await
        .unwrap();
    let jwt = JwtSource::builder()
        .endpoint(&socket)
        .build()
        .await
        .unwrap();
    let domain = TrustDomain::new("partner.example").unwrap();
    let told = async || {
        let x509 = x509.bundle_set().ok()?.get(&domain)?;
        let jwt = jwt.bundle_set().ok()?.get(&domain)?;
        Some((x509, jwt))
    };
    let (told, _) = warifu_tests::mesh::until("the partner's bundles", told).await;
    assert_eq!(told.authorities().len(), 1);

    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    let token = |subject: &str| {
        let claims =
            serde_json::json!({"sub": subject, "aud": ["orders"], "exp": now.as_secs() + 300});
        sign(&key, "JWT", &claims)
    };
    let client = WorkloadApiClient::connect_to(&socket).await.unwrap();
    let valid = client
        .validate_jwt_token("orders", &token("spiffe://partner.example/shop"))
        .await;
    assert_eq!(
        valid.unwrap().spiffe_id().to_string(),
        "spiffe://partner.example/shop"
    );
    // A partner's key vouches for its own alone.
    let forged = token("spiffe://example.org/payments");
    client
        .validate_jwt_token("orders", &forged)
        .await
        .unwrap_err();
}
