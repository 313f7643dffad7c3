//! What the world may read, over a real socket.

use std::fs;

use http::{Method, Request, StatusCode, header};
use rcgen::{BasicConstraints, CertifiedIssuer, IsCa};
use serde_json::Value;
use warifu::{
    identity::TrustBundle,
    jwt::{Algorithm, KeySet, Profile, jwks},
};

use super::*;
use crate::{
    config::authority::{TokenAlgorithm, TokenIssuer, Web, WebTls},
    http::fetch::{Fetcher, OidcKeys},
};

const ACCESS_ISSUER: &str = "https://tokens.example.org/access";
const SVID_ISSUER: &str = "https://tokens.example.org";

fn published(config: &mut AuthorityConfig) {
    let issuer = |issuer: &str, algorithm| {
        Some(TokenIssuer {
            issuer: issuer.into(),
            algorithm,
        })
    };
    config.tokens = Tokens {
        jwt_svid: issuer(SVID_ISSUER, TokenAlgorithm::Es256),
        access_token: issuer(ACCESS_ISSUER, TokenAlgorithm::Rs256),
    };
    config.web = Some(Web {
        listen: ([127, 0, 0, 1], 0).into(),
        tls: None,
    });
}

fn url(running: &Running, path: &str) -> String {
    format!("http://{}{path}", running.authority.web().unwrap())
}

async fn json(running: &Running, path: &str) -> Value {
    let body = Fetcher::web_pki().unwrap().get(&url(running, path)).await;
    serde_json::from_slice(&body.unwrap()).unwrap()
}

#[tokio::test]
async fn the_bundle_is_for_the_world_what_it_is_for_agents() {
    let running = Running::start(published).await;
    let body = Fetcher::web_pki()
        .unwrap()
        .get(&url(&running, "/bundle"))
        .await;
    let bundle = TrustBundle::from_json(td(), &body.unwrap()).unwrap();
    assert_eq!(bundle, running.authority.issuing.live.load().bundle);
}

#[tokio::test]
async fn each_issuer_has_its_own_document_and_keys_at_the_path_of_its_url() {
    let running = Running::start(published).await;
    for (base, issuer, algorithm) in [
        ("", SVID_ISSUER, "ES256"),
        ("/access", ACCESS_ISSUER, "RS256"),
    ] {
        let path = format!("{base}/.well-known/openid-configuration");
        let document = json(&running, &path).await;
        assert_eq!(document["issuer"], issuer);
        assert_eq!(document["jwks_uri"], format!("{issuer}/keys"));
        let algorithms = &document["id_token_signing_alg_values_supported"];
        assert_eq!(*algorithms, serde_json::json!([algorithm]));
        let keys = json(&running, &format!("{base}/keys")).await;
        assert_eq!(keys["keys"].as_array().unwrap().len(), 1);
        assert_eq!(keys["keys"][0]["alg"], algorithm);
        assert_eq!(keys["keys"][0]["use"], "sig");
        let members = keys["keys"][0].as_object().unwrap();
        assert!(
            ["d", "p", "q"]
                .iter()
                .all(|name| !members.contains_key(*name))
        );
    }
}

#[tokio::test]
async fn s09_the_keys_of_access_tokens_are_in_no_bundle_and_not_among_those_of_jwt_svids() {
    let running = Running::start(published).await;
    let access = json(&running, "/access/keys").await;
    let kid = access["keys"][0]["kid"].as_str().unwrap().to_owned();
    for path in ["/bundle", "/keys"] {
        let other = json(&running, path).await.to_string();
        assert!(!other.contains(&kid), "{path}: {other}");
    }
}

#[tokio::test]
async fn a_verifier_that_follows_the_issuer_url_verifies_our_tokens() {
    // The issuer's URL must lead to the listener, whose port is known only when it is bound.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let issuer = format!("http://{port}/access");
    let running = Running::start(|config| {
        published(config);
        let web = config.web.as_mut().unwrap();
        web.listen = port;
        let access = config.tokens.access_token.as_mut().unwrap();
        access.issuer.clone_from(&issuer);
    })
    .await;
    let client = crate::attest::Client::new(&td(), &running.as_seen()).unwrap();
    let agent = Agent::new();
    let evidence = crate::attest::bearer(Evidence::JoinToken {
        token: running.token("orders").await,
    });
    let token = client
        .exchange_for_token(&*evidence, "payments", &[], &agent.renewal)
        .await;
    let token = token.unwrap();

    let profile = Profile::access_token(&issuer, vec!["payments".to_owned()], Algorithm::ALL);
    let keys = OidcKeys::new(Fetcher::web_pki().unwrap(), &issuer, None);
    let cache = jwks::Cache::new(Arc::new(keys), profile.algorithms.clone());
    let claims = cache.verify(token.token.expose(), &profile, SystemTime::now());
    assert_eq!(claims.await.unwrap().subject, "spiffe://example.org/orders");
}

#[tokio::test]
async fn documents_are_read_with_get_and_head_and_nothing_else_is_there() {
    let running = Running::start(published).await;
    let fetcher = Fetcher::web_pki().unwrap();
    let ask = async |method: Method, path: &str, known: Option<&str>| {
        let mut request = Request::builder().method(method).uri(url(&running, path));
        if let Some(known) = known {
            request = request.header(header::IF_NONE_MATCH, known);
        }
        fetcher
            .send(request.body(bytes::Bytes::new()).unwrap())
            .await
            .unwrap()
    };
    let got = ask(Method::GET, "/keys", None).await;
    assert_eq!(got.headers()[header::CACHE_CONTROL], "public, max-age=300");
    assert_eq!(got.headers()[header::CONTENT_TYPE], "application/json");
    let etag = got.headers()[header::ETAG].to_str().unwrap().to_owned();
    let head = ask(Method::HEAD, "/keys", None).await;
    assert_eq!((head.status(), head.body().len()), (StatusCode::OK, 0));
    assert_eq!(head.headers()[header::ETAG], etag);
    let same = ask(Method::GET, "/keys", Some(&etag)).await;
    assert_eq!(
        (same.status(), same.body().len()),
        (StatusCode::NOT_MODIFIED, 0)
    );
    let written = ask(Method::POST, "/keys", None).await;
    assert_eq!(written.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(written.headers()[header::ALLOW], "GET, HEAD");
    for path in [
        "/",
        "/v1/bundle",
        "/v1/challenge",
        "/keys/",
        "//keys",
        "/access",
    ] {
        let none = ask(Method::GET, path, None).await;
        assert_eq!(none.status(), StatusCode::NOT_FOUND, "{path}");
    }
}

#[tokio::test]
async fn without_issuers_the_world_reads_the_bundle_only() {
    let running = Running::start(|config| {
        published(config);
        config.tokens = Tokens::default();
    })
    .await;
    let fetcher = Fetcher::web_pki().unwrap();
    assert!(fetcher.get(&url(&running, "/bundle")).await.is_ok());
    assert!(fetcher.get(&url(&running, "/keys")).await.is_err());
}

#[tokio::test]
async fn a_certificate_that_is_replaced_serves_the_next_connection() {
    let ca = web_ca();
    let files = tempfile::tempdir().unwrap();
    let tls = WebTls {
        certificate: files.path().join("tls.crt"),
        key: files.path().join("tls.key"),
    };
    write_certificate(&tls, &ca, "127.0.0.1");
    let running = Running::start(|config| {
        published(config);
        config.web.as_mut().unwrap().tls = Some(tls.clone());
    })
    .await;
    let ca_file = files.path().join("ca.pem");
    fs::write(&ca_file, ca.pem()).unwrap();
    let fetcher = Fetcher::ca_file(ca_file).unwrap();
    let url = url(&running, "/bundle").replace("http://", "https://");
    assert!(fetcher.get(&url).await.is_ok());
    let plain = Fetcher::web_pki()
        .unwrap()
        .get(&url.replace("https://", "http://"))
        .await;
    assert!(plain.is_err(), "{plain:?}");

    // Another name's: the next handshake presents it, and a client refuses it.
    let reload = || running.authority.reload_certificate();
    write_certificate(&tls, &ca, "another.example");
    assert!(reload().unwrap());
    assert!(!reload().unwrap(), "nothing new");
    assert!(fetcher.get(&url).await.is_err());
    write_certificate(&tls, &ca, "127.0.0.1");
    assert!(reload().unwrap());
    assert!(fetcher.get(&url).await.is_ok());

    // Half written: the last good one stays.
    fs::write(&tls.certificate, "-----BEGIN").unwrap();
    assert!(reload().is_err());
    assert!(fetcher.get(&url).await.is_ok());
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_is_named_at_start() {
    let ca = web_ca();
    let files = tempfile::tempdir().unwrap();
    let tls = WebTls {
        certificate: files.path().join("tls.crt"),
        key: files.path().join("tls.key"),
    };
    let failure = async || {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(dir.path());
        published(&mut config);
        config.web.as_mut().unwrap().tls = Some(tls.clone());
        started(&config).await.unwrap_err().to_string()
    };
    let missing = failure().await;
    assert!(missing.contains("web.tls.certificate"), "{missing}");
    write_certificate(&tls, &ca, "127.0.0.1");
    let good = fs::read(&tls.key).unwrap();

    fs::write(&tls.key, KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let other = failure().await;
    assert!(other.contains("web.tls.key"), "{other}");
    fs::write(&tls.key, good).unwrap();
    set_mode(&tls.key, 0o644);
    let open = failure().await;
    assert!(open.contains("chmod 600"), "{open}");
}

#[tokio::test]
async fn what_is_published_follows_a_rotation() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    published(&mut config);
    let mut world = World::new(&config).await;
    let kids = |world: &World, path: &str| {
        let live = world.issuing.live.load();
        let page = live.pages.get(path).unwrap();
        let keys = KeySet::from_jwks(&page.body, "sig").unwrap();
        keys.iter()
            .map(|key| key.kid().to_owned())
            .collect::<Vec<_>>()
    };
    let before = kids(&world, "/access/keys");
    let for_agents = |world: &World| {
        let live = world.issuing.live.load();
        let page = live.access_keys_page.clone().unwrap();
        let issuer: Value = serde_json::from_slice(&page.body).unwrap();
        assert_eq!(issuer["issuer"], ACCESS_ISSUER);
        let keys = KeySet::from_jwks(&page.body, "sig").unwrap();
        keys.iter()
            .map(|key| key.kid().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(for_agents(&world), before);
    world.issuing.rotate(world.now).await.unwrap();
    assert_eq!(for_agents(&world), kids(&world, "/access/keys"));
    let during = kids(&world, "/access/keys");
    assert_eq!((before.len(), during.len()), (1, 2));
    assert!(during.contains(&before[0]));
    world.later(HOUR * 2).await;
    world.later(HOUR * 2).await;
    let after = kids(&world, "/access/keys");
    assert_eq!(after.len(), 1);
    assert_ne!(before, after);
}

fn web_ca() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn write_certificate(files: &WebTls, ca: &CertifiedIssuer<'_, KeyPair>, name: &str) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let leaf = params.signed_by(&key, ca).unwrap();
    fs::write(&files.certificate, leaf.pem()).unwrap();
    fs::write(&files.key, key.serialize_pem()).unwrap();
    set_mode(&files.key, 0o600);
}

fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}
