//! What the authority publishes, read by clients that know its URL and nothing else.

use std::fs;

use serde_json::{Value, json};
use warifu::Secret;
use warifu_agent::attest::wire::Evidence;
use warifu_tests::{mesh::Mesh, peers, ports::free_port};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pyjwt_verifies_tokens_of_both_issuers_by_discovery_and_neither_as_the_other() {
    let web = free_port();
    let (svid_issuer, access_issuer) = (format!("http://{web}"), format!("http://{web}/access"));
    let mesh = Mesh::with(|authority| {
        authority.more(&format!(
            "web: {{listen: \"{web}\"}}
tokens:
  jwt_svid: {{issuer: \"{svid_issuer}\"}}
  access_token: {{issuer: \"{access_issuer}\", algorithm: RS256}}"
        ))
    })
    .await;
    let svid = mesh.workload("orders").await.token("payments").await;
    let token = Secret::new(mesh.authority.join_token("billing").await);
    let evidence = Evidence::JoinToken { token };
    let access = mesh.claimant().access_token(evidence, "payments").await;
    let file = |name: &str, token: &str| {
        let path = mesh.dir().join(name);
        fs::write(&path, token).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (svid, access) = (file("svid.jwt", &svid), file("access.jwt", &access));
    let verify = async |issuer: &str, token: &str, other: &str| -> Value {
        let args = [issuer, "payments", token, other];
        peers::run_python("oidc.py", &args).await.unwrap().json()
    };

    let said = verify(&access_issuer, &access, &svid).await;
    assert_eq!(said["header"]["typ"], "at+jwt");
    assert_eq!(said["algorithms"], json!(["RS256"]));
    let claims = &said["claims"];
    assert_eq!(claims["client_id"], "spiffe://example.org/billing");
    assert_eq!(claims["sub"], claims["client_id"]);
    assert_eq!(claims["scope"], "charges.read");
    assert_eq!(said["other"], "KeyError", "no such key");

    let said = verify(&svid_issuer, &svid, &access).await;
    assert_eq!(said["header"]["typ"], "JWT");
    assert_eq!(said["algorithms"], json!(["ES256"]));
    assert_eq!(said["claims"]["sub"], "spiffe://example.org/orders");
    assert_eq!(said["other"], "KeyError", "no such key");
    assert_eq!(said["cache_control"], "public, max-age=300");
}

#[cfg(feature = "peers-go")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn go_spiffe_federates_with_us_by_either_profile() {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use std::os::unix::fs::PermissionsExt;

    let files = tempfile::tempdir().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &ca).unwrap();
    let path = |name: &str| files.path().join(name);
    fs::write(path("tls.crt"), leaf.pem()).unwrap();
    fs::write(path("tls.key"), key.serialize_pem()).unwrap();
    fs::set_permissions(path("tls.key"), fs::Permissions::from_mode(0o600)).unwrap();
    let web = free_port();
    let dir = files.path().display();
    let mesh = Mesh::with(|authority| {
        authority.more(&format!(
            "web: {{listen: \"{web}\", tls: {{certificate: {dir}/tls.crt, key: {dir}/tls.key}}}}"
        ))
    })
    .await;
    let identity = mesh.workload("orders").await.identity();
    peers::write_identity(files.path(), &identity).unwrap();
    fs::write(path("web.pem"), ca.pem()).unwrap();
    let federate = async |url: &str, endpoint: &str| {
        let args = ["-url", url, "-expect", endpoint];
        peers::go("federate", files.path(), &args).await.unwrap()
    };

    let web = format!("https://{web}/bundle");
    let spiffe = format!("{}/v1/bundle", mesh.authority.url());
    let authority = "spiffe://example.org/warifu/authority";
    for (url, endpoint) in [(&web, ""), (&spiffe, authority)] {
        let said = federate(url, endpoint).await.json();
        assert_eq!(said["trust_domain"], "example.org");
        assert_eq!(said["x509_authorities"], 1);
        assert_eq!(said["jwt_authorities"], 1);
        assert_eq!(said["sequence"], identity.bundle.sequence);
        assert_eq!(said["refresh_hint_seconds"], 300);
    }
    // Whoever expects another finds out.
    let other = federate(&spiffe, "spiffe://example.org/orders").await;
    assert!(!other.success, "{other:?}");
}
