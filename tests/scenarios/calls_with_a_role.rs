//! A program with an IAM role and no agent, such as a Lambda, calls a service behind one: by the client library alone.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use http::Request;
use serde_json::json;
use warifu::{
    Secret, TrustDomain,
    aws::{
        Authority, Credentials, CredentialsError, Obtaining, Role, SessionKeys, TokenError,
        TokenSource,
    },
};
use warifu_tests::{
    aws::{Principal, REGION, Session, StsMood, WebIdentitySts},
    mesh::{Agent, App, Direct, Mesh, RawAnswer, until},
    peers::Ministack,
    ports::free_port,
};

const ACCOUNT: &str = "123456789012";
const OTHER_ACCOUNT: &str = "999999999999";

/// The keys of a session, which may be replaced.
#[derive(Debug, Clone)]
struct Keys(Arc<Mutex<Option<SessionKeys>>>);

impl Keys {
    fn of(id: &str, secret: &str, token: &str) -> Self {
        Self(Arc::new(Mutex::new(Some(SessionKeys {
            access_key_id: id.to_owned(),
            secret_access_key: Secret::new(secret.to_owned()),
            session_token: Secret::new(token.to_owned()),
            expires_at: None,
        }))))
    }

    fn of_session(session: &Session) -> Self {
        let (id, secret) = (&session.access_key_id, &session.secret_access_key);
        Self::of(id, secret, &session.session_token)
    }

    fn are(&self, others: &Self) {
        *self.0.lock().unwrap() = others.0.lock().unwrap().clone();
    }
}

impl Credentials for Keys {
    fn keys(&self) -> Obtaining<'_> {
        let keys = self.0.lock().unwrap().clone();
        Box::pin(async { keys.ok_or_else(|| CredentialsError::new("none; make some")) })
    }
}

fn domain() -> TrustDomain {
    TrustDomain::new("example.org").unwrap()
}

/// Payments, before an app; who calls it from here has no certificate.
struct Payments {
    agent: Agent,
    app: App,
    mesh: Mesh,
}

impl Payments {
    async fn start(mesh: Mesh, accept: &str, allow: &str) -> Self {
        let app = mesh.app("payments").await;
        let agent = mesh.agent("payments").app(&app);
        let agent = agent.accept(accept).allow(allow).start().await;
        Self { agent, app, mesh }
    }

    /// Asks with what the library attaches.
    async fn ask(&self, tokens: &TokenSource) -> Result<RawAnswer, TokenError> {
        let url = format!("https://{}/charges", self.agent.inbound_address());
        let mut request = Request::get(url).body(()).unwrap();
        tokens.authorize(&mut request).await?;
        let token = request.headers()["authorization"].clone();
        assert!(!format!("{token:?} {tokens:?}").contains("eyJ"), "S12");
        let line = format!(
            "GET /charges HTTP/1.1\nhost: payments\nauthorization: {}\n\n",
            token.to_str().unwrap()
        );
        let mut direct = Direct::connect(&self.agent, None).await.unwrap();
        Ok(direct.exchange(&line).await.unwrap())
    }

    /// Its status, and why.
    async fn verdict(&self, tokens: &TokenSource) -> (u16, String) {
        let answer = self.ask(tokens).await.unwrap();
        let reason = answer.header("x-warifu-reason").unwrap_or_default();
        (answer.status, reason.to_owned())
    }

    /// Who the app was told called: how it was proved, and whom.
    fn told(&self) -> (String, String) {
        let subject = self.app.last().caller.unwrap().subject.unwrap();
        (subject.proof, subject.subject)
    }
}

/// AWS signs who calls.
struct Signed {
    sts: WebIdentitySts,
    payments: Payments,
}

impl Signed {
    async fn start() -> Self {
        let sts = WebIdentitySts::start().await;
        let (issuer, _) = (sts.issuer(ACCOUNT).await, sts.issuer(OTHER_ACCOUNT).await);
        let accept = format!(
            "[{{aws-web-identity: {{audience: \"warifu:example.org:call:payments\", \
             issuers: {{\"{ACCOUNT}\": \"{}\"}}, org: o-abc1234567}}}}]",
            issuer.url()
        );
        let allow =
            format!("[{{subject: {{role: \"{ACCOUNT}:role/svc-*\"}}, to: [\"GET /charges\"]}}]");
        let payments = Payments::start(Mesh::start().await, &accept, &allow).await;
        Self { sts, payments }
    }

    fn role(&self, keys: &Keys) -> Role {
        let role = Role::new(REGION, keys.clone()).unwrap();
        role.sts_endpoint(&self.sts.url()).unwrap()
    }

    /// Tokens for payments, of the session of `principal`.
    fn tokens(&self, principal: Principal) -> TokenSource {
        let keys = Keys::of_session(&self.sts.session(principal));
        self.role(&keys)
            .web_identity(&domain(), "payments")
            .unwrap()
    }

    /// Why there is none.
    async fn why(&self, tokens: &TokenSource) -> TokenError {
        self.payments.ask(tokens).await.unwrap_err()
    }
}

fn orders() -> Principal {
    Principal::role(ACCOUNT, "/team/", "svc-orders")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_calls_with_one_token_of_awss_for_many_calls() {
    let world = Signed::start().await;
    let tokens = world.tokens(orders());
    let asking = (0..50).map(|_| world.payments.ask(&tokens));
    for answer in futures_util::future::join_all(asking).await {
        assert_eq!(answer.unwrap().status, 200);
    }
    let told = ("aws-web-identity", "123456789012:role/svc-orders");
    assert_eq!(
        world.payments.told(),
        (told.0.to_owned(), told.1.to_owned())
    );
    let asked = world.sts.asked();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert_eq!(
        asked[0]["Audience.member.1"],
        "warifu:example.org:call:payments"
    );
    assert!(!asked[0].contains_key("Audience.member.2"));
    let left = tokens
        .expires_at()
        .unwrap()
        .duration_since(SystemTime::now());
    assert!(left.unwrap() > Duration::from_secs(240));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s08_another_role_account_or_service_is_refused() {
    let world = Signed::start().await;
    let role = |name: &str| Principal::role(ACCOUNT, "/", name);
    let verdict = async |tokens: &TokenSource| world.payments.verdict(tokens).await;
    let refused = verdict(&world.tokens(role("batch"))).await;
    assert_eq!(refused, (403, "denied".to_owned()));
    let invalid = (401, "invalid-token".to_owned());
    let elsewhere = Principal::role(OTHER_ACCOUNT, "/", "svc-orders");
    assert_eq!(verdict(&world.tokens(elsewhere)).await, invalid);
    let keys = Keys::of_session(&world.sts.session(orders()));
    let ledger = world.role(&keys).web_identity(&domain(), "ledger");
    assert_eq!(verdict(&ledger.unwrap()).await, invalid);
    let abroad = TrustDomain::new("partner.example").unwrap();
    let abroad = world.role(&keys).web_identity(&abroad, "payments");
    assert_eq!(verdict(&abroad.unwrap()).await, invalid);
    assert_eq!(world.payments.app.count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_sts_refuses_says_what_to_do() {
    let world = Signed::start().await;
    let of = |principal: Principal| world.tokens(principal);
    let limited = Principal {
        audiences: vec!["warifu:example.org:call:ledger".into()],
        ..orders()
    };
    let ended = Principal {
        session: Duration::ZERO,
        ..orders()
    };
    let nearly = Principal {
        session: Duration::from_secs(30),
        ..orders()
    };
    for (tokens, code, advice) in [
        (of(limited), "AccessDenied", "sts:IdentityTokenAudience"),
        (
            of(ended),
            "ExpiredToken",
            "give those of a session that goes on",
        ),
        (
            of(nearly),
            "SessionDurationEscalationException",
            "ends within a minute",
        ),
    ] {
        let why = world.why(&tokens).await;
        assert!(why.is_refusal(), "{why}");
        let why = why.to_string();
        assert!(why.contains(code) && why.contains(advice), "{why}");
    }
    let session = world.sts.session(orders());
    for (keys, code) in [
        (
            Keys::of(&session.access_key_id, "wrong", &session.session_token),
            "SignatureDoesNotMatch",
        ),
        (
            Keys::of(&session.access_key_id, &session.secret_access_key, "wrong"),
            "InvalidClientTokenId",
        ),
    ] {
        let tokens = world.role(&keys).web_identity(&domain(), "payments");
        let why = world.why(&tokens.unwrap()).await.to_string();
        assert!(why.contains(code), "{why}");
        for secret in [&session.secret_access_key, &session.session_token] {
            assert!(!why.contains(secret.as_str()), "S12: {why}");
        }
    }
    // A token for a minute, where the session's end is not known beforehand and near.
    let short = Principal {
        session: Duration::from_secs(120),
        ..orders()
    };
    let tokens = of(short);
    assert_eq!(world.payments.ask(&tokens).await.unwrap().status, 200);
    let left = tokens
        .expires_at()
        .unwrap()
        .duration_since(SystemTime::now());
    assert!(left.unwrap() <= Duration::from_secs(60));

    world.sts.is(StsMood::Disabled);
    let why = world.why(&of(orders())).await.to_string();
    assert!(
        why.contains("aws iam enable-outbound-web-identity-federation"),
        "{why}"
    );
    assert!(why.contains("Role::exchange"), "{why}");
    let none = Keys(Arc::default());
    let none = world.role(&none).web_identity(&domain(), "payments");
    let why = world.why(&none.unwrap()).await.to_string();
    assert!(why.contains("none; make some"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s13_while_sts_is_away_what_is_held_is_used_and_without_it_the_error_says_so() {
    let world = Signed::start().await;
    let held = world.tokens(orders());
    assert_eq!(world.payments.ask(&held).await.unwrap().status, 200);
    for mood in [StsMood::Failing, StsMood::Throttling, StsMood::Torn] {
        world.sts.is(mood);
        let why = world.why(&world.tokens(orders())).await;
        assert!(!why.is_refusal(), "{mood:?}: {why}");
        assert!(why.to_string().contains("STS at http://127.0.0.1"), "{why}");
        assert_eq!(world.payments.ask(&held).await.unwrap().status, 200);
    }
    // And it heals, for who asked in vain.
    let keys = Keys(Arc::default());
    let tokens = world.role(&keys).web_identity(&domain(), "payments");
    let tokens = tokens.unwrap();
    world.why(&tokens).await;
    world.sts.is(StsMood::Well);
    keys.are(&Keys::of_session(&world.sts.session(orders())));
    until("a token is had again", async || {
        world.payments.ask(&tokens).await.ok()
    })
    .await;
    let nobody = Role::new(REGION, keys).unwrap();
    let nobody = nobody.sts_endpoint(&format!("http://{}", free_port()));
    let tokens = nobody.unwrap().web_identity(&domain(), "payments");
    let why = world.why(&tokens.unwrap()).await.to_string();
    assert!(
        why.contains("cannot reach STS") && why.contains("interface endpoint"),
        "{why}"
    );
}

/// The role is proved to the authority, which gives its own tokens.
struct Exchanged {
    ministack: Ministack,
    payments: Payments,
}

const RULES: &str = r#"
- {attestor: bootstrap, match: {service: "*"}, id: "/{service}", ttl: TTL}
- {attestor: aws, match: {account: "000000000000", role: "svc-*"}, id: "/roles/{role}", ttl: TTL, jwt_ttl: JWT_TTL,
   audiences: [payments, ledger], scopes: [charges.read, charges.write]}
"#;

impl Exchanged {
    async fn start() -> Self {
        Self::of_accounts(Ministack::ACCOUNT).await
    }

    async fn of_accounts(accounts: &str) -> Self {
        let ministack = Ministack::start().await.unwrap();
        let web = free_port();
        let attestor = format!(
            "{{kind: aws-caller-identity, accounts: [\"{accounts}\"], sts_endpoints: {{{}: \"{}\"}}}}",
            Ministack::REGION,
            ministack.endpoint()
        );
        let tokens = format!(
            "tokens: {{access_token: {{issuer: \"https://tokens.example.org\"}}}}\nweb: {{listen: \"{web}\"}}"
        );
        let mesh = Mesh::with(|it| it.attestor("aws", &attestor).rules(RULES).more(&tokens)).await;
        let accept = format!(
            "[{{jwt: {{profile: at+jwt, issuer: \"https://tokens.example.org\", audiences: [payments], \
             jwks_uri: \"http://{web}/keys\"}}}}]"
        );
        let allow = "[{subject: {scope: charges.read, claims: {sub: \"spiffe://example.org/roles/svc-orders\"}}, \
                     to: [\"GET /charges\"]}]";
        let payments = Payments::start(mesh, &accept, allow).await;
        Self {
            ministack,
            payments,
        }
    }

    /// A role of this name, which may do nothing: GetCallerIdentity needs no permission.
    async fn role(&self, name: &str) -> Role {
        let root = format!("arn:aws:iam::{}:root", Ministack::ACCOUNT);
        let trust =
            json!([{"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": root}}]);
        let may = json!([{"Effect": "Deny", "Action": "*", "Resource": "*"}]);
        let arn = self.ministack.create_role(name, trust, may).await.unwrap();
        let keys = self.ministack.assume_role(&arn, "i-1").await.unwrap();
        let (id, secret) = (&keys.access_key_id, &keys.secret_access_key);
        Role::new(Ministack::REGION, Keys::of(id, secret, &keys.session_token)).unwrap()
    }

    fn authority(&self) -> Authority {
        let authority = &self.payments.mesh.authority;
        let pins: Vec<&str> = authority.pins().iter().map(String::as_str).collect();
        Authority::pinned(&authority.url(), &domain(), &pins).unwrap()
    }

    async fn why(&self, role: &Role, audience: &str, scopes: &[&str]) -> TokenError {
        let tokens = role.exchange(&self.authority(), audience, scopes).unwrap();
        self.payments.ask(&tokens).await.unwrap_err()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s07_a_role_that_may_do_nothing_in_iam_calls_with_a_token_of_the_authority() {
    let world = Exchanged::start().await;
    let (authority, role) = (world.authority(), world.role("svc-orders").await);
    let tokens = role.exchange(&authority, "payments", &["charges.read"]);
    let tokens = tokens.unwrap();
    let asking = (0..50).map(|_| world.payments.ask(&tokens));
    for answer in futures_util::future::join_all(asking).await {
        assert_eq!(answer.unwrap().status, 200);
    }
    let told = ("at+jwt", "spiffe://example.org/roles/svc-orders");
    assert_eq!(
        world.payments.told(),
        (told.0.to_owned(), told.1.to_owned())
    );
    let caller = world.payments.app.last().caller.unwrap();
    assert_eq!(caller.subject.unwrap().scopes, ["charges.read"]);
    let lines = world.payments.mesh.authority.audit("exchange");
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(lines[0]["facts"]["role"], "svc-orders");
    let left = tokens
        .expires_at()
        .unwrap()
        .duration_since(SystemTime::now());
    let left = left.unwrap();
    assert!(left > Duration::from_secs(240) && left <= Duration::from_secs(300));
    // All that the rule grants, where no scope is named.
    let all = role.exchange(&authority, "payments", &[]).unwrap();
    assert_eq!(world.payments.ask(&all).await.unwrap().status, 200);
    let caller = world.payments.app.last().caller.unwrap();
    assert_eq!(
        caller.subject.unwrap().scopes,
        ["charges.read", "charges.write"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s07_what_no_rule_grants_is_refused_by_the_authority_and_the_rest_by_the_listener() {
    let world = Exchanged::start().await;
    let orders = world.role("svc-orders").await;
    for (role, audience, scopes, code) in [
        (world.role("batch").await, "payments", &[][..], "no_rule"),
        (orders.clone(), "billing", &[], "audience_refused"),
        (orders.clone(), "payments", &["admin"], "scope_refused"),
    ] {
        let why = world.why(&role, audience, scopes).await;
        assert!(why.is_refusal(), "{why}");
        let said = why.to_string();
        assert!(
            matches!(why, TokenError::Refused { code: it, .. } if it == code),
            "{said}"
        );
    }
    let authority = world.authority();
    let invalid = (401, "invalid-token".to_owned());
    let ledger = orders.exchange(&authority, "ledger", &[]).unwrap();
    assert_eq!(world.payments.verdict(&ledger).await, invalid);
    let denied = (403, "denied".to_owned());
    let admin = world.role("svc-admin").await;
    let admin = admin.exchange(&authority, "payments", &[]).unwrap();
    assert_eq!(world.payments.verdict(&admin).await, denied);
    // Keys that are no session's.
    let nobody = Keys::of("ASIAEXAMPLE000000000", "hunter2", "session");
    let nobody = Role::new(Ministack::REGION, nobody).unwrap();
    let why = world.why(&nobody, "payments", &[]).await.to_string();
    assert!(
        why.contains("invalid_evidence") && why.contains("STS of us-east-1 refused it"),
        "{why}"
    );
    assert!(!why.contains("hunter2"));
    assert_eq!(world.payments.app.count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_of_an_account_that_is_not_listed_gets_no_token() {
    let world = Exchanged::of_accounts(ACCOUNT).await;
    let role = world.role("svc-orders").await;
    let why = world.why(&role, "payments", &[]).await.to_string();
    assert!(why.contains("account 000000000000 is not among"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s13_while_the_authority_or_its_sts_is_away_what_is_held_is_used_and_the_error_says_who() {
    let world = Exchanged::start().await;
    let (authority, role) = (world.authority(), world.role("svc-orders").await);
    let held = role.exchange(&authority, "payments", &[]).unwrap();
    assert_eq!(world.payments.ask(&held).await.unwrap().status, 200);

    // Another authority than the one that is known.
    let url = world.payments.mesh.authority.url();
    let pin = "a7".repeat(32);
    let other = Authority::pinned(&url, &domain(), &[&pin]).unwrap();
    let asked = role.exchange(&other, "payments", &[]).unwrap();
    let why = world.payments.ask(&asked).await.unwrap_err();
    assert!(matches!(why, TokenError::NotTheAuthority { .. }), "{why}");
    assert!(why.to_string().contains("compare the pins"), "{why}");

    let Exchanged {
        ministack,
        payments,
    } = world;
    drop(ministack);
    let ask_anew = async |payments: &Payments| {
        let tokens = role.exchange(&authority, "payments", &[]).unwrap();
        payments.ask(&tokens).await.unwrap_err()
    };
    let why = ask_anew(&payments).await;
    assert!(
        matches!(&why, TokenError::Unavailable { code, .. } if code == "evidence_unavailable"),
        "{why}"
    );
    assert!(why.to_string().contains("STS of us-east-1"), "{why}");
    let mut payments = payments;
    payments.mesh.authority.stop();
    let why = ask_anew(&payments).await;
    assert!(!why.is_refusal());
    let why = why.to_string();
    assert!(
        why.contains(&format!("cannot reach the authority at {url}"))
            && why.contains("does it run"),
        "{why}"
    );
    assert_eq!(payments.ask(&held).await.unwrap().status, 200);
    assert!(
        !format!("{:?}", payments.agent.audit()).contains("eyJ"),
        "S12"
    );
}
