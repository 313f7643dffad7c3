//! One listener takes tokens of several issuers, each by its own profile, with keys of its own; and where an issuer's
//! keys can't be had, its tokens alone are answered 503.

use std::time::Duration;

use serde_json::{Value, json};
use warifu_tests::{
    kubernetes::{Cluster, Pod},
    mesh::{Agent, App, Direct, Mesh, ORDERS, RawAnswer, Workload, until},
    oidc::{Algorithm, Issuer, Mood, claims},
    ports::free_port,
};

struct Payments {
    agent: Agent,
    app: App,
    orders: Workload,
    _mesh: Mesh,
}

impl Payments {
    /// Before an app; takes certificates, and `accept` beside them.
    async fn start(mesh: Mesh, accept: &[String]) -> Self {
        let app = mesh.app("payments").await;
        let mtls = "{mtls: {trust_domains: [example.org]}}".to_owned();
        let accept: Vec<String> = [mtls].iter().chain(accept).cloned().collect();
        let agent = mesh
            .agent("payments")
            .app(&app)
            .accept(&format!("[{}]", accept.join(", ")))
            .allow(ORDERS)
            .inbound_also("forward_claims: {sub: x-user-id}");
        Self {
            agent: agent.start().await,
            app,
            orders: mesh.workload("orders").await,
            _mesh: mesh,
        }
    }

    /// Orders asks, with a token beside its certificate.
    async fn ask(&self, token: &str) -> RawAnswer {
        self.ask_for("/charges", token).await
    }

    async fn ask_for(&self, path: &str, token: &str) -> RawAnswer {
        let identity = self.orders.identity();
        let mut direct = Direct::connect(&self.agent, Some(&identity)).await.unwrap();
        let request =
            format!("GET {path} HTTP/1.1\nhost: payments\nauthorization: Bearer {token}\n\n");
        direct.exchange(&request).await.unwrap()
    }

    /// What became of it: its status, and why it was refused.
    async fn verdict(&self, token: &str) -> (u16, String) {
        let answer = self.ask(token).await;
        let reason = answer.header("x-warifu-reason").unwrap_or_default();
        (answer.status, reason.to_owned())
    }

    /// Who the app was told called.
    fn told(&self) -> (String, String) {
        let subject = self.app.last().caller.unwrap().subject.unwrap();
        (subject.proof, subject.subject)
    }

    /// A token that is refused, and why, as the audit log has it.
    async fn why(&self, path: &str, token: &str) -> String {
        assert_eq!(self.ask_for(path, token).await.status, 401);
        let line = self
            .agent
            .audit_line("its line", |line| line["path"] == path);
        line.await["detail"].as_str().unwrap_or_default().to_owned()
    }
}

fn good() -> (u16, String) {
    (200, String::new())
}

fn invalid() -> (u16, String) {
    (401, "invalid-token".to_owned())
}

fn away() -> (u16, String) {
    (503, "no-keys".to_owned())
}

fn entry(profile: &str, issuer: &Issuer, more: &str) -> String {
    let url = issuer.url();
    format!("{{jwt: {{profile: {profile}, issuer: \"{url}\", {more}}}}}")
}

/// An access token, as RFC 9068 has it.
fn access_token(issuer: &Issuer, more: Value) -> String {
    let mut header = issuer.header(Algorithm::Es256);
    header["typ"] = "at+jwt".into();
    let mut all = json!({"client_id": "orders"});
    all.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    let claims = claims(issuer, "user-1", "payments", all);
    issuer.sign_as_is(Algorithm::Es256, &header.to_string(), &claims.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s09_each_token_is_taken_as_what_its_own_entry_says_and_as_nothing_else() {
    let (partner, cluster, other) = (
        Issuer::start().await,
        Cluster::start().await,
        Issuer::start().await,
    );
    let tls = Issuer::start_with_tls().await;
    let mesh = Mesh::start().await;
    let ca_of = |name: &str, issuer: &Issuer| {
        let ca = mesh.dir().join(name);
        std::fs::write(&ca, issuer.ca_pem().unwrap()).unwrap();
        format!("ca_bundle: \"{}\"", ca.display())
    };
    let tls_ca = ca_of("tls-ca.pem", &tls);
    let cluster_ca = ca_of("cluster-ca.pem", &cluster.issuer);
    let accept = [
        "{jwt: {profile: jwt-svid, audiences: [payments]}}".to_owned(),
        // Two kinds of one issuer.
        entry("at+jwt", &partner, "name: api, audiences: [payments]"),
        entry(
            "oidc",
            &partner,
            "name: ci, audiences: [payments, ledger], algorithms: [RS256]",
        ),
        entry(
            "kubernetes",
            &cluster.issuer,
            &format!("audiences: [payments], {cluster_ca}"),
        ),
        entry(
            "oidc",
            &tls,
            &format!("name: tls, audiences: [payments], algorithms: [ES256], {tls_ca}"),
        ),
    ];
    let payments = Payments::start(mesh, &accept).await;
    let ask = async |token: &str| payments.verdict(token).await;

    assert_eq!(ask(&payments.orders.token("payments").await).await, good());
    assert_eq!(payments.told().0, "jwt-svid");
    assert_eq!(ask(&access_token(&partner, json!({}))).await, good());
    assert_eq!(payments.told(), ("at+jwt".to_owned(), "user-1".to_owned()));
    assert_eq!(payments.app.last().headers["x-user-id"], "user-1");
    let oidc = |issuer: &Issuer, algorithm, audience: &str, more| {
        issuer.sign(algorithm, &claims(issuer, "repo:shop", audience, more))
    };
    let ci = oidc(&partner, Algorithm::Rs256, "ledger", json!({}));
    assert_eq!(ask(&ci).await, good());
    assert_eq!(payments.told(), ("oidc".to_owned(), "repo:shop".to_owned()));
    let pod = Pod::of("shop", "web");
    assert_eq!(ask(&cluster.token(&pod, "payments")).await, good());
    assert_eq!(payments.told(), ("kubernetes".to_owned(), pod.subject()));
    let behind_tls = oidc(&tls, Algorithm::Es256, "payments", json!({}));
    assert_eq!(ask(&behind_tls).await, good());

    // Each is bad where it stands, whatever it would be elsewhere.
    let mut plain = partner.header(Algorithm::Es256);
    plain["typ"] = "JWT".into();
    let of_api = claims(
        &partner,
        "user-1",
        "payments",
        json!({"client_id": "orders"}),
    );
    let bad = [
        (
            oidc(&partner, Algorithm::Es256, "payments", json!({})),
            "alg",
        ),
        (oidc(&partner, Algorithm::Rs256, "other", json!({})), "aud"),
        (
            oidc(&partner, Algorithm::Rs256, "payments", json!({"exp": 1})),
            "expired",
        ),
        (cluster.token(&pod, "ledger"), "aud"),
        (
            cluster.sign(&json!({"iss": cluster.issuer.url()})),
            "is missing",
        ),
        (
            oidc(&cluster.issuer, Algorithm::Rs256, "payments", json!({})),
            "sub",
        ),
        // As a JWT it would have to be one of ci's.
        (
            partner.sign_as_is(Algorithm::Es256, &plain.to_string(), &of_api.to_string()),
            "alg",
        ),
        // Its keys are not those of whom it says it is of.
        (
            oidc(
                &other,
                Algorithm::Rs256,
                "payments",
                json!({"iss": partner.url()}),
            ),
            "signature",
        ),
        (partner.unsigned(&of_api), "header"),
        (partner.sign_with_public_key(&of_api), "alg"),
    ];
    for (index, (token, why)) in bad.iter().enumerate() {
        let detail = payments.why(&format!("/bad/{index}"), token).await;
        assert!(detail.contains(why), "{why}: {detail}");
    }
    // Of no issuer that is listed: none of these is asked for keys (S10).
    for issuer in [json!(other.url()), json!("nobody"), json!(7), Value::Null] {
        let token = oidc(&other, Algorithm::Rs256, "payments", json!({"iss": issuer}));
        assert_eq!(ask(&token).await, invalid(), "{issuer}");
    }
    assert!(other.asked().is_empty(), "{:?}", other.asked());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s10_an_issuer_that_is_away_makes_503_of_its_own_tokens_and_of_no_others() {
    let (hangs, fails, well) = (
        Issuer::start().await,
        Issuer::start().await,
        Issuer::start().await,
    );
    hangs.is(Mood::Hanging);
    fails.is(Mood::Failing);
    let all = [&hangs, &fails, &well];
    let accept: Vec<String> = ["hangs", "fails", "well"]
        .iter()
        .zip(all)
        .map(|(name, issuer)| {
            let more = format!("name: {name}, audiences: [payments], algorithms: [RS256]");
            entry("oidc", issuer, &more)
        })
        .collect();
    // It is ready: `start` waits for that.
    let payments = Payments::start(Mesh::start().await, &accept).await;
    let token = |issuer: &Issuer| {
        issuer.sign(
            Algorithm::Rs256,
            &claims(issuer, "a", "payments", json!({})),
        )
    };
    assert_eq!(payments.verdict(&token(&well)).await, good());
    for issuer in [&fails, &hangs] {
        let answer = payments.ask(&token(issuer)).await;
        assert_eq!(answer.status, 503);
        assert_eq!(answer.header("retry-after"), Some("1"));
        assert!(answer.header("www-authenticate").is_none());
        // A flood of them has it asked no more often.
        for _ in 0..20 {
            assert_eq!(payments.verdict(&token(issuer)).await, away());
        }
        assert!(issuer.asked().len() <= 3, "{:?}", issuer.asked());
        assert_eq!(payments.verdict(&token(&well)).await, good());
    }
    let line = payments
        .agent
        .audit_line("the outage", |line| line["reason"] == "no-keys");
    let line = line.await;
    assert_eq!(line["result"], "unavailable");
    assert!(
        line["detail"].as_str().unwrap().starts_with("fails: "),
        "{line}"
    );
    let failing = format!(
        "warifu_inbound_issuer_keys_failing{{issuer=\"{}\"}}",
        fails.url()
    );
    assert_eq!(payments.agent.metric(&failing).await, 1.0);
    let keys = format!("warifu_inbound_issuer_keys{{issuer=\"{}\"}}", well.url());
    assert!(payments.agent.metric(&keys).await >= 1.0);

    // It comes back by itself, within seconds.
    fails.is(Mood::Well);
    until("the issuer is back", async || {
        (payments.verdict(&token(&fails)).await == good()).then_some(())
    })
    .await;
    // And away again: what was fetched goes on verifying, and a new key can't be told from a made-up one.
    fails.is(Mood::Failing);
    assert_eq!(payments.verdict(&token(&fails)).await, good());
    well.rotate();
    let before = well.jwks_fetches();
    until("the new key is known", async || {
        (payments.verdict(&token(&well)).await == good()).then_some(())
    })
    .await;
    let stranger = Issuer::start().await;
    stranger.rotate();
    stranger.rotate();
    for _ in 0..20 {
        let mut unknown = claims(&stranger, "a", "payments", json!({}));
        unknown["iss"] = well.url().into();
        let token = stranger.sign(Algorithm::Rs256, &unknown);
        assert_eq!(payments.verdict(&token).await, invalid());
    }
    assert!(
        well.jwks_fetches() <= before + 2,
        "unknown kids drive fetches"
    );
    assert!(stranger.asked().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn access_tokens_of_the_authority_are_verified_by_what_it_publishes() {
    let web = free_port();
    let mesh = Mesh::with(|authority| {
        let authority = authority.jwt_ttl(Duration::from_secs(300));
        authority.more(&format!(
            "tokens: {{access_token: {{issuer: \"https://tokens.example.org\"}}}}\nweb: {{listen: \"{web}\"}}"
        ))
    })
    .await;
    let app = mesh.app("payments").await;
    let accept = format!(
        "[{{mtls: {{trust_domains: [example.org]}}}}, {{jwt: {{profile: jwt-svid, audiences: [payments]}}}}, {{jwt: \
         {{profile: at+jwt, issuer: \"https://tokens.example.org\", audiences: [payments], \
         jwks_uri: \"http://{web}/keys\"}}}}]"
    );
    let payments = mesh.agent("payments").app(&app).accept(&accept);
    let payments = payments.allow(ORDERS).start().await;
    let orders = mesh
        .agent("orders")
        .route_to(
            "payments",
            &payments,
            "access_token: {audience: payments, scopes: [charges.read]}",
        )
        .route_to("ledger", &payments, "access_token: {audience: ledger}")
        .start()
        .await;
    let client = orders.client();
    let answer = client.get("http://payments/charges").send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let subject = app.last().caller.unwrap().subject.unwrap();
    assert_eq!(
        (subject.proof.as_str(), subject.issuer.as_deref()),
        ("at+jwt", Some("https://tokens.example.org"))
    );
    assert_eq!(subject.scopes, ["charges.read"]);
    // One that is meant for another service.
    let answer = client.get("http://ledger/charges").send().await.unwrap();
    assert_eq!(answer.status(), 401);
}
