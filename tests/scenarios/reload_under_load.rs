//! What a listener serves by changes again and again, while certificates and a root rotate, under a load that does not
//! notice; and it changes at once for those whom it concerns, on their open connections.

use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use http::Method;
use serde_json::json;
use warifu_agent::config::AgentFile;
use warifu_tests::{
    mesh::{
        Agent, Caller, DEADLINE, Direct, Load, MTLS_AND_JWT, Mesh, ORDERS, Told, Workload, until,
    },
    oidc::{Algorithm, Issuer, claims},
    ports::free_port,
};

/// Renewed at a third of it: every 1.2 to 1.5 seconds.
const TTL: Duration = Duration::from_secs(4);
/// From the new root's publication to the first certificate under it.
const CA: &str = "publish_ahead: 2s, intermediate_ttl: 10s";
/// Callers, each somebody of its own, and one request at a time.
const CALLERS: usize = 8;
const PAYMENTS: &str = "spiffe://example.org/payments";
const EVERYBODY: &str = r#"[{peer: "spiffe://example.org/*", to: ["* /**", "* /"]}]"#;
/// As often a third request is made, while the two before it come to be under way.
const ASKED: usize = 10;
/// Changes, at least.
const ROUNDS: usize = 24;

/// The agent's file, whose listener can be given other keys.
struct File<'a> {
    agent: &'a Agent,
    original: String,
}

impl<'a> File<'a> {
    fn of(agent: &'a Agent) -> Self {
        let original = fs::read_to_string(agent.dir.join("agent.yaml")).unwrap();
        Self { agent, original }
    }

    /// Has the agent read the file as it was at first, with `from` replaced by `to`, and serve by it.
    async fn with(&self, from: &str, to: &str) -> Result<(), String> {
        assert!(self.original.contains(from), "{}", self.original);
        let path = self.agent.dir.join("agent.yaml");
        fs::write(&path, self.original.replace(from, to)).unwrap();
        let file = AgentFile::load(&path).unwrap_or_else(|why| panic!("{why}"));
        let reloaded = self.agent.running().reload(&file.config).await;
        reloaded.map_err(|why| why.to_string())
    }
}

fn entry(issuer: &Issuer) -> String {
    let url = issuer.url();
    format!("{{jwt: {{profile: at+jwt, name: partner, issuer: \"{url}\", audiences: [payments]}}}}")
}

fn access_token(issuer: &Issuer) -> String {
    let mut header = issuer.header(Algorithm::Es256);
    header["typ"] = "at+jwt".into();
    let claims = claims(issuer, "user-1", "payments", json!({"client_id": "orders"}));
    issuer.sign_as_is(Algorithm::Es256, &header.to_string(), &claims.to_string())
}

/// Whether `root` is gone, and another in its place.
fn is_retired(mesh: &Mesh, root: &str) -> bool {
    let roots = mesh.authority.status().roots;
    roots.len() == 1 && roots[0].spki_sha256 != root
}

async fn get(caller: &mut Caller, path: &str) -> Told {
    let told = caller.ask(Method::GET, path).await;
    told.unwrap_or_else(|why| panic!("{why}"))
}

/// A request whose body does not come yet.
async fn held(agent: &Agent, who: &Workload) -> Direct {
    let mut direct = Direct::connect(agent, Some(&who.identity())).await.unwrap();
    let head = "POST /charges HTTP/1.1\r\nhost: payments\r\ncontent-length: 5\r\n\r\n";
    direct.send(head).await.unwrap();
    direct
}

/// Whether a third request is refused while two of `who` are under way, and those two have their answers after all. They
/// may not have come that far yet.
async fn limit_is_reached(agent: &Agent, who: &Arc<Workload>, load: &Load) -> Option<()> {
    let mut two = [held(agent, who).await, held(agent, who).await];
    load.answers(CALLERS).await;
    let mut third = Caller::new(who, PAYMENTS, &[agent.inbound_address()]).http2();
    let mut refused = false;
    for _ in 0..ASKED {
        refused = refused || get(&mut third, "/a").await.status == 429;
    }
    for held in &mut two {
        let sent = held.send("euros").await;
        if refused {
            sent.unwrap();
            assert_eq!(held.answer().await.unwrap().status, 200);
        }
    }
    refused.then_some(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_issuers_limits_and_headers_change_while_certificates_rotate_and_no_request_fails() {
    let partner = Issuer::start().await;
    let mesh = Mesh::with(|authority| authority.ttl(TTL).ca(CA).more("bundle_refresh_hint: 1s"));
    let mesh = mesh.await;
    let app = mesh.app("payments").await;
    let payments = mesh.agent("payments").app(&app).accept(MTLS_AND_JWT);
    let payments = payments.allow(EVERYBODY).start().await;
    let mut callers = Vec::new();
    for number in 0..CALLERS {
        let who = Arc::new(mesh.workload(&format!("caller-{number}")).await);
        let caller = Caller::new(&who, PAYMENTS, &[payments.inbound_address()]);
        callers.push(if number % 2 == 0 {
            caller
        } else {
            caller.http2()
        });
    }
    let load = Load::of(callers);
    let first_root = mesh.authority.pins()[0].clone();
    let first_generation = payments.identity().generation;

    let who = Arc::new(mesh.workload("probe").await);
    let greedy = Arc::new(mesh.workload("greedy").await);
    let token = access_token(&partner);
    let probe = || Caller::new(&who, PAYMENTS, &[payments.inbound_address()]);
    let mut probes = [probe(), probe().http2()];
    let mut with_tokens = [probe().bearer(&token), probe().http2().bearer(&token)];
    let file = File::of(&payments);
    let with_partner = format!("accept: [{}, ", entry(&partner));
    let changes = [
        "deny: [{to: [\"* /admin\"]}], accept: [",
        &with_partner,
        "limits: {per_caller: {concurrency: 2}}, accept: [",
        "timeouts: {connect: 3s}, client_cert_headers: [client-cert, client-cert-chain], accept: [",
        "max_connection_age: 30s, trusted_hops: 1, accept: [",
        "accept: [",
    ];
    let began = Instant::now();
    let mut round = 0;
    // The old root stays until nothing it signed is alive, then goes; and it goes on from there.
    while round < ROUNDS || !is_retired(&mesh, &first_root) {
        assert!(
            began.elapsed() < DEADLINE * 2,
            "the old root is still there"
        );
        let change = round * 5 % changes.len();
        file.with("accept: [", changes[change]).await.unwrap();
        if round == ROUNDS / 4 {
            mesh.authority.rotate().await;
        }
        for probe in &mut probes {
            let status = if change == 0 { 403 } else { 200 };
            assert_eq!(get(probe, "/admin").await.status, status, "round {round}");
        }
        for with_token in &mut with_tokens {
            let status = if change == 1 { 200 } else { 401 };
            let told = get(with_token, "/a").await;
            assert_eq!(told.status, status, "round {round}: {told:?}");
        }
        if change == 2 {
            // As many as it may have, and no more; nobody else has less for it.
            let refused = async || limit_is_reached(&payments, &greedy, &load).await;
            until("the limit is reached", refused).await;
        }
        load.answers(CALLERS * 4).await;
        round += 1;
    }
    let report = load.stop().await;
    assert_eq!(report.failures, [""; 0], "beside {}", report.answered);
    let renewed = payments.identity().generation - first_generation;
    println!(
        "{} requests, {round} changes, {renewed} renewals",
        report.answered
    );
    assert!(renewed > 3, "only {renewed} renewals");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s09_a_token_of_an_issuer_that_was_removed_is_refused_at_once_though_it_was_verified_before()
 {
    let partner = Issuer::start().await;
    let mesh = Mesh::start().await;
    let app = mesh.app("payments").await;
    let accept = MTLS_AND_JWT.replacen('[', &format!("[{}, ", entry(&partner)), 1);
    let payments = mesh.agent("payments").app(&app).accept(&accept);
    let payments = payments.allow(ORDERS).start().await;
    let orders = Arc::new(mesh.workload("orders").await);
    let token = access_token(&partner);
    let caller = || Caller::new(&orders, PAYMENTS, &[payments.inbound_address()]);
    let mut callers = [caller().bearer(&token), caller().http2().bearer(&token)];
    let mut own = caller().bearer(&orders.token("payments").await);
    for caller in &mut callers {
        for _ in 0..3 {
            assert_eq!(get(caller, "/a").await.status, 200);
        }
    }
    assert_eq!(get(&mut own, "/a").await.status, 200);
    let remembered = r#"warifu_inbound_tokens_total{outcome="remembered"}"#;
    assert!(
        payments.metric(remembered).await > 1.0,
        "none was remembered"
    );

    let file = File::of(&payments);
    let (with, without) = (accept.as_str(), MTLS_AND_JWT);
    for _ in 0..5 {
        file.with(with, without).await.unwrap();
        for caller in &mut callers {
            let told = get(caller, "/a").await;
            assert_eq!((told.status, told.reason.as_str()), (401, "invalid-token"));
        }
        // Other issuers' are as good as before.
        assert_eq!(get(&mut own, "/a").await.status, 200);
        file.with(with, with).await.unwrap();
        for caller in &mut callers {
            assert_eq!(get(caller, "/a").await.status, 200);
        }
    }
    for caller in callers {
        assert_eq!(
            caller.connections(),
            1,
            "it was refused on another connection"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_listeners_all_are_changed_or_none() {
    let mesh = Mesh::start().await;
    let app = mesh.app("payments").await;
    let second = format!(
        "{{listen: \"{}\", {}, accept: [{{mtls: {{trust_domains: [example.org]}}}}], max_connection_age: 59m}}",
        free_port(),
        app.forward()
    );
    let payments = mesh.agent("payments").app(&app).allow(ORDERS);
    let payments = payments.inbound(&second).start().await;
    let orders = Arc::new(mesh.workload("orders").await);
    let caller = || Caller::new(&orders, PAYMENTS, &[payments.inbound_address()]);
    let mut open = [caller(), caller().http2()];
    let load = Load::of((0..CALLERS).map(|_| caller().http2()));
    let file = File::of(&payments);
    let denied = "allow: [{peer: \"spiffe://example.org/nobody\", to: [\"GET /\"]}]";
    let allowed = format!("allow: {ORDERS}");
    let away = mesh.dir().join("away");

    for _ in 0..5 {
        // The first would be closed to orders, if the second could write its key.
        let unusable = format!("{}/context.jwks", away.display());
        let second = format!("context: {{key_file: \"{unusable}\"}}, max_connection_age: 59m");
        let path = payments.dir.join("agent.yaml");
        let wrong = file.original.replace(&allowed, denied);
        assert_ne!(wrong, file.original);
        let wrong = wrong.replace("max_connection_age: 59m", &second);
        fs::write(&path, wrong).unwrap();
        let wrong = AgentFile::load(&path).unwrap_or_else(|why| panic!("{why}"));
        let why = payments.running().reload(&wrong.config).await.unwrap_err();
        let why = why.to_string();
        assert!(
            why.starts_with("inbound[1]: ") && why.contains(&unusable),
            "{why}"
        );
        for caller in &mut open {
            assert_eq!(get(caller, "/a").await.status, 200);
        }
        load.answers(CALLERS).await;
    }
    let report = load.stop().await;
    assert_eq!(report.failures, [""; 0], "beside {}", report.answered);
    // Right again, it is.
    file.with(&allowed, denied).await.unwrap();
    for caller in &mut open {
        let told = get(caller, "/a").await;
        assert_eq!(told.status, 403, "{told:?}");
        assert_eq!(caller.connections(), 1);
    }
}
