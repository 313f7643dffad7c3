//! What the authority issues, judged by libraries that know nothing of it.

use std::fs;

use rustls_pki_types::CertificateDer;
use serde_json::json;
use spiffe::{JwtBundle, JwtBundleSet, JwtSvid, TrustDomain, X509Bundle, X509Svid};
use warifu_tests::{
    mesh::{Mesh, TRUST_DOMAIN},
    peers::{self, write_identity},
};

/// Before a rotation, and amid one: as many roots, and token keys, are published.
const ROOTS: [usize; 2] = [1, 2];

/// A mesh whose authority has a host name, an identity of *orders* and a token of it for *payments*, in
/// `svid.pem`, `key.pem`, `bundle.pem`, `bundle.json` and `token.jwt` of `issued/`.
async fn issued(roots: usize) -> Mesh {
    let mesh = Mesh::with(|authority| authority.more("dns_names: [localhost]")).await;
    if roots == 2 {
        mesh.authority.rotate().await;
    }
    let orders = mesh.workload("orders").await;
    let dir = mesh.dir().join("issued");
    write_identity(&dir, &orders.identity()).unwrap();
    fs::write(dir.join("token.jwt"), orders.token("payments").await).unwrap();
    mesh
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_accepts_certificate_token_and_bundle_and_refuses_what_it_must() {
    for roots in ROOTS {
        python_accepts(&issued(roots).await, roots).await;
    }
}

async fn python_accepts(mesh: &Mesh, roots: usize) {
    let dir = mesh.dir().join("issued");
    let bundle_url = mesh.authority.url().replace("127.0.0.1", "localhost") + "/v1/bundle";
    let args = [dir.to_str().unwrap(), TRUST_DOMAIN, "payments", &bundle_url];
    let said = peers::run_python("judge.py", &args).await.unwrap().json();

    // X509Svid.parse, then pyca/cryptography's path validation, which needs the intermediate.
    assert_eq!(said["x509_id"], "spiffe://example.org/orders");
    assert_eq!(
        said["verified_names"],
        json!(["spiffe://example.org/orders"])
    );
    assert_eq!(said["chain_length"], 3);
    assert_eq!(said["without_intermediate"], "VerificationError");

    // The bundle document, fetched from a server that proved itself by host name and root.
    assert_eq!(said["content_type"], "application/json");
    assert_eq!(said["uses"], json!(["jwt-svid", "x509-svid"]));
    let entry = json!({"certificates": 1, "kid": null});
    assert_eq!(said["x509_entries"], json!(vec![entry; roots]));
    assert_eq!(said["jwt_entries"], roots);
    assert!(said["sequence"].as_u64().unwrap() > 0, "{said}");
    assert!(said["refresh_hint"].as_u64().unwrap() > 0, "{said}");

    // JwtSvid.parse_and_validate and PyJWT. The header has what the specification allows and no more.
    assert_eq!(said["jwt_id"], "spiffe://example.org/orders");
    assert_eq!(said["jwt_audience"], json!(["payments"]));
    let header = said["jwt_header"].as_object().unwrap();
    let names: Vec<&String> = header.keys().collect();
    assert_eq!(names, ["alg", "kid", "typ"]);
    assert_eq!(
        (&header["alg"], &header["typ"]),
        (&json!("ES256"), &json!("JWT"))
    );
    let claims = &said["claims"];
    assert_eq!(claims["sub"], "spiffe://example.org/orders");
    for time in ["iat", "exp"] {
        assert!(claims[time].is_u64(), "{time} is no whole number: {claims}");
    }
    assert_eq!(said["other_audience"], "InvalidTokenError");
    assert_eq!(said["forged"], "InvalidSignatureError");
}

#[cfg(feature = "peers-system")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openssl_verifies_the_chain_strictly_for_both_sides_of_tls() {
    let mesh = issued(2).await;
    let dir = mesh.dir().join("issued");
    let path = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let (svid, roots) = (path("svid.pem"), path("bundle.pem"));
    let openssl = peers::installed("openssl").unwrap();
    let verify = async |purpose: &str, untrusted: &[&str]| {
        let mut args = vec!["verify", "-x509_strict", "-purpose", purpose];
        args.extend(["-no-CApath", "-no-CAstore", "-CAfile", &roots]);
        args.extend_from_slice(untrusted);
        args.push(&svid);
        peers::run("openssl", &openssl, &args, "").await.unwrap()
    };
    for purpose in ["sslserver", "sslclient"] {
        let ended = verify(purpose, &["-untrusted", &svid]).await;
        assert!(ended.success, "{purpose}: {}", ended.stderr);
        assert!(
            ended.stdout.trim_end().ends_with(": OK"),
            "{}",
            ended.stdout
        );
    }
    // The chain needs its intermediate, and the certificate is good for TLS alone.
    assert!(!verify("sslserver", &[]).await.success);
    assert!(!verify("smimesign", &["-untrusted", &svid]).await.success);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_crate_spiffe_accepts_certificate_token_and_bundle() {
    for roots in ROOTS {
        let mesh = issued(roots).await;
        let orders = mesh.workload("orders").await;
        let identity = orders.identity();
        let concatenated = |all: &[CertificateDer<'_>]| -> Vec<u8> {
            all.iter().flat_map(|der| der.iter().copied()).collect()
        };
        let chain = concatenated(identity.svid.chain());
        let svid = X509Svid::parse_from_der(&chain, identity.svid.key().secret_pkcs8_der());
        let svid = svid.unwrap();
        assert_eq!(svid.spiffe_id().to_string(), "spiffe://example.org/orders");

        let domain = TrustDomain::new(TRUST_DOMAIN).unwrap();
        let bundle = concatenated(&identity.bundle.x509_authorities);
        let bundle = X509Bundle::parse_from_der(domain.clone(), &bundle).unwrap();
        assert_eq!(bundle.authorities().len(), roots);

        let mut jwt_bundle = JwtBundle::new(domain.clone());
        for key in identity.bundle.jwt_authorities.iter() {
            let jwk = key.to_json("jwt-svid").to_string();
            jwt_bundle.add_jwk_authority_json(jwk.as_bytes()).unwrap();
        }
        assert_eq!(jwt_bundle.jwt_authorities().count(), roots);
        let mut bundles = JwtBundleSet::new();
        bundles.add_bundle(jwt_bundle);
        let token = orders.token("payments").await;
        let jwt = JwtSvid::parse_and_validate(&token, &bundles, &["payments"]).unwrap();
        assert_eq!(jwt.spiffe_id().to_string(), "spiffe://example.org/orders");
        JwtSvid::parse_and_validate(&token, &bundles, &["another"]).unwrap_err();
    }
}

#[cfg(feature = "peers-go")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn go_spiffe_accepts_certificate_token_and_bundle() {
    for roots in ROOTS {
        let mesh = issued(roots).await;
        let dir = mesh.dir().join("issued");
        let judged = peers::go("judge", &dir, &["-audience", "payments"]).await;
        let said = judged.unwrap().json();
        assert_eq!(said["x509_id"], "spiffe://example.org/orders");
        assert_eq!(said["chain_length"], 3);
        assert_eq!(said["jwt_id"], "spiffe://example.org/orders");
        assert_eq!(said["jwt_audience"], json!(["payments"]));
        assert_eq!(said["other_audience_refused"], true);
        assert_eq!(said["x509_authorities"], roots);
        assert_eq!(said["jwt_authorities"], roots);
        assert!(said["sequence"].as_u64().unwrap() > 0, "{said}");
        assert!(said["refresh_hint_seconds"].as_u64().unwrap() > 0, "{said}");
    }
}
