//! Routes with `oauth`: tokens of a provider that looks at client authentication as strictly as the RFCs say, by each of
//! the ways there are; and what a provider refuses is said as its refusal, and goes nowhere.

use std::fs;

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    rsa,
    signature::{Ed25519KeyPair, KeyPair},
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use jsonwebtoken::Algorithm;
use rcgen::{
    BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair as CertificateKey, KeyUsagePurpose,
    SanType,
};
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};
use warifu::{SpiffeId, jwt::SigningKey};
use warifu_tests::{
    mesh::{Mesh, text, until},
    oauth_provider::{Provider, Registered},
};

const SECRET: &str = "hunter2 & a: long/secret+";

fn pem(der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n")
}

/// A key of each kind: its PEM, JWK and algorithm.
fn keys() -> Vec<(String, Value, Algorithm)> {
    let mut keys = Vec::new();
    let ec = SigningKey::generate();
    let jwk = ec.public().to_json("sig");
    keys.push((pem(ec.to_pkcs8().expose()), jwk, Algorithm::ES256));
    let rsa = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).unwrap();
    let der: Pkcs8V1Der<'_> = rsa.as_der().unwrap();
    for (name, algorithm) in [("RS256", Algorithm::RS256), ("PS256", Algorithm::PS256)] {
        let key = SigningKey::rsa_from_pkcs8(der.as_ref()).unwrap();
        let mut jwk = key.public().to_json("sig");
        jwk["alg"] = name.into();
        keys.push((pem(der.as_ref()), jwk, algorithm));
    }
    let ed = Ed25519KeyPair::generate().unwrap();
    let x = URL_SAFE_NO_PAD.encode(ed.public_key().as_ref());
    let mut jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": x, "alg": "EdDSA"});
    let read = warifu::jwt::PublicJwk::from_json(&jwk).unwrap();
    jwk["kid"] = read.thumbprint().into();
    let der = ed.to_pkcs8v1().unwrap();
    keys.push((pem(der.as_ref()), jwk, Algorithm::EdDSA));
    keys
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s05_a_token_is_had_by_each_way_of_authenticating_and_goes_to_its_route_alone() {
    let mesh = Mesh::start().await;
    let app = mesh.plain_app().await;
    let (plain, tls) = (Provider::start().await, Provider::start_with_tls().await);
    let file = |name: &str, text: &str| {
        let path = mesh.dir().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let secret = file("secret", SECRET);
    let ca = file("ca.pem", tls.ca_pem());
    let mut ways = vec![
        (
            "basic",
            &plain,
            format!("client: {{id: \"a:b\", client_secret_basic: \"file:{secret}\"}}"),
        ),
        (
            "post",
            &plain,
            format!("client: {{id: post, client_secret_post: \"file:{secret}\"}}"),
        ),
        (
            "spiffe",
            &tls,
            format!("client: {{spiffe_jwt: {{}}}}, ca_bundle: {ca}"),
        ),
        (
            "tls",
            &tls,
            format!("client: {{tls_client_auth: {{}}}}, ca_bundle: {ca}"),
        ),
    ];
    // Basic encodes the colon.
    plain.register("a:b", Registered::Basic(vec![SECRET.into()]));
    plain.register("post", Registered::Post(vec![SECRET.into()]));
    for (pem, jwk, algorithm) in keys() {
        let name = match algorithm {
            Algorithm::ES256 => "es256",
            Algorithm::RS256 => "rs256",
            Algorithm::PS256 => "ps256",
            _ => "eddsa",
        };
        let key = file(&format!("{name}.pem"), &pem);
        let rsa = if name == "ps256" { ", rsa: PS256" } else { "" };
        plain.register(name, Registered::PrivateKeyJwt { jwk, algorithm });
        ways.push((
            name,
            &plain,
            format!("client: {{id: {name}, private_key_jwt: {{key: \"file:{key}\"{rsa}}}}}"),
        ));
    }
    let mut agent = mesh.agent("orders");
    for (name, provider, more) in &ways {
        agent = agent.route(&format!(
            "{{host: {name}, upstream: \"{}\", oauth: {{token_url: \"{}\", issuer: \"{}\", scopes: [read, write], {more}}}}}",
            app.url(),
            provider.token_url(),
            provider.issuer()
        ));
    }
    let agent = agent.start_unready().await;
    agent.ready().await;
    let identity = agent.identity();
    let id = SpiffeId::new(&agent.id).unwrap();
    let keys = identity.bundle.jwt_authorities.clone();
    tls.register(
        "spiffe",
        Registered::SpiffeJwt {
            id: id.clone(),
            keys,
        },
    );
    let roots = identity.bundle.x509_authorities.clone();
    tls.register(&agent.id, Registered::Tls { id, roots });

    let client = agent.client();
    for (name, provider, _) in &ways {
        let call = async || {
            let request = client
                .get(&format!("http://{name}/"))
                .header("authorization", "mine");
            let answer = request.send().await.unwrap();
            (answer.status() == 200).then_some(())
        };
        until(&format!("{name}: {:?}", provider.refused()), call).await;
        let seen = app.last();
        let mut lines = seen.headers.get_all("authorization").iter();
        let token = lines.next().unwrap().to_str().unwrap().to_owned();
        assert!(lines.next().is_none());
        let issued = provider.issued();
        assert!(
            issued.iter().any(|it| token == format!("Bearer {it}")),
            "{name}: {token}"
        );
    }
    // One a route, however often each is called, and never another's.
    for (name, _, _) in &ways {
        for _ in 0..5 {
            client.get(&format!("http://{name}/")).send().await.unwrap();
        }
    }
    assert_eq!(plain.issued().len() + tls.issued().len(), ways.len());
    let status = agent.status().await;
    let shown = status.to_string();
    assert!(shown.contains("client_secret_basic") && !shown.contains("hunter2"));
    let spiffe = status["tokens"].as_array().unwrap().iter();
    let mut spiffe = spiffe.filter(|it| it["kind"] == "oauth");
    assert_eq!(spiffe.next().unwrap()["granted"], json!(["read", "write"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s12_what_a_provider_refuses_is_502_with_its_error_and_nothing_else_it_said() {
    let mesh = Mesh::start().await;
    let app = mesh.plain_app().await;
    let provider = Provider::start().await;
    let secret = mesh.dir().join("secret");
    fs::write(&secret, SECRET).unwrap();
    let (secret, key) = (secret.display(), mesh.dir().join("key.pem"));
    fs::write(&key, &keys()[0].0).unwrap();
    let (_, other, algorithm) = keys().swap_remove(0);
    provider.register("known", Registered::Post(vec!["another".into()]));
    provider.register("right", Registered::Post(vec![SECRET.into()]));
    provider.register(
        "signed",
        Registered::PrivateKeyJwt {
            jwk: other,
            algorithm,
        },
    );
    let mut agent = mesh.agent("orders");
    for (name, scopes, client) in [
        (
            "wrong",
            "read",
            format!("id: known, client_secret_post: \"file:{secret}\""),
        ),
        (
            "scope",
            "forbidden",
            format!("id: right, client_secret_post: \"file:{secret}\""),
        ),
        (
            "key",
            "read",
            format!(
                "id: signed, private_key_jwt: {{key: \"file:{}\"}}",
                key.display()
            ),
        ),
        ("nobody", "read", "id: nobody, spiffe_jwt: {}".to_owned()),
    ] {
        agent = agent.route(&format!(
            "{{host: {name}, upstream: \"{}\", oauth: {{token_url: \"{}\", issuer: \"{}\", scopes: [{scopes}], client: {{{client}}}}}}}",
            app.url(),
            provider.token_url(),
            provider.issuer()
        ));
    }
    let agent = agent.start().await;
    let client = agent.client();
    for (name, error) in [
        ("wrong", "invalid_client"),
        ("scope", "invalid_scope"),
        ("key", "invalid_client"),
        ("nobody", "invalid_client"),
    ] {
        let answer = client.get(&format!("http://{name}/")).send().await.unwrap();
        assert_eq!(answer.status(), 502, "{name}");
        assert_eq!(answer.headers()["x-warifu-reason"], "token-denied");
        let said = text(&answer.bytes().await.unwrap());
        assert!(said.contains(error), "{said}");
        assert!(
            !said.contains("hunter2") && !said.contains("wrong by"),
            "{said}"
        );
    }
    assert_eq!(app.count(), 0);
    assert!(provider.issued().is_empty());
    // A refusal stands for a while: a flood of requests is not one at the provider.
    let asked = provider.asked();
    for _ in 0..100 {
        let answer = client.get("http://wrong/").send().await.unwrap();
        assert_eq!(answer.status(), 502);
    }
    assert!(provider.asked() <= asked + 1);
    let status = agent.status().await.to_string();
    assert!(status.contains("invalid_client") && !status.contains("hunter2"));
}

/// A certificate authority of the provider's own.
struct Ca {
    issuer: Issuer<'static, CertificateKey>,
    root: CertificateDer<'static>,
    pem: String,
}

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = CertificateKey::generate().unwrap();
        let root = params.self_signed(&key).unwrap();
        Self {
            root: root.der().clone(),
            pem: root.pem(),
            issuer: Issuer::new(params, key),
        }
    }

    /// A client's certificate and key, as PEM.
    fn client(&self, id: &str) -> (String, String) {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = CertificateKey::generate().unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        (leaf.pem(), key.serialize_pem())
    }
}

/// RFC 8705 §2.1, with a certificate that the provider gave out: it is renewed in its files, and so are those that the
/// provider's own is verified with.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_certificate_of_files_and_a_ca_bundle_are_read_anew_for_each_token() {
    const ID: &str = "spiffe://partner.example/clients/orders";
    let mesh = Mesh::start().await;
    let app = mesh.plain_app().await;
    let provider = Provider::start_with_tls().await;
    // Each token is asked for when the one before is nearly over.
    provider.expires_in(Some(2));
    let (ca, other) = (Ca::new(), Ca::new());
    let id = SpiffeId::new(ID).unwrap();
    let roots = vec![ca.root.clone()];
    provider.register("orders-client", Registered::Tls { id, roots });
    let path = |name: &str| mesh.dir().join(name).display().to_string();
    let put = |(certificate, key): (String, String)| {
        // The key first: whoever reads in between finds two that don't belong together, and asks again.
        fs::write(path("client.key"), key).unwrap();
        fs::write(path("client.pem"), certificate).unwrap();
    };
    put(ca.client(ID));
    fs::write(path("ca.pem"), provider.ca_pem()).unwrap();
    let agent = mesh.agent("orders").route(&format!(
        "{{host: partner, upstream: \"{}\", oauth: {{token_url: \"{}\", ca_bundle: {}, \
         client: {{id: orders-client, tls_client_auth: {{certificate: {}, key: {}}}}}}}}}",
        app.url(),
        provider.token_url(),
        path("ca.pem"),
        path("client.pem"),
        path("client.key"),
    ));
    let agent = agent.start().await;
    let client = agent.client();
    let status = async || {
        let answer = client.get("http://partner/").send().await.unwrap();
        answer.status().as_u16()
    };
    let becomes = async |what: &str, expected: u16| {
        let is = async || (status().await == expected).then_some(());
        until(&format!("{what}: {:?}", provider.refused()), is).await;
    };
    assert_eq!(status().await, 200, "{:?}", provider.refused());
    let token = app.last().headers["authorization"].clone();
    assert_eq!(token, format!("Bearer {}", provider.issued()[0]));

    // A certificate of nobody the provider knows, and one of another client, are refused as they are presented.
    for (files, said) in [
        (other.client(ID), "chain"),
        (
            ca.client("spiffe://partner.example/clients/other"),
            "clients/other",
        ),
    ] {
        put(files);
        until(said, async || {
            status().await;
            let mut refused = provider.refused().into_iter();
            refused.any(|why| why.contains(said)).then_some(())
        })
        .await;
        // Once the token in hand is over.
        becomes(said, 502).await;
    }
    put(ca.client(ID));
    becomes("its own again", 200).await;

    // A file that can't be used changes nothing; one with another CA in it is followed, and the provider not believed.
    fs::write(path("ca.pem"), "nonsense").unwrap();
    let issued = provider.issued().len();
    until("tokens with the CA of before", async || {
        status().await;
        (provider.issued().len() > issued + 1).then_some(())
    })
    .await;
    fs::write(path("ca.pem"), &other.pem).unwrap();
    becomes("a provider of another CA", 503).await;
    fs::write(path("ca.pem"), provider.ca_pem()).unwrap();
    becomes("its own CA again", 200).await;
}
