//! Envoy asks the agent beside it what it may let pass (`ext_authz`): the configuration of `docs/envoy.md`, as it stands.

use std::{
    fs,
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use serde_json::Value;
use warifu::{
    identity::Identity,
    tls::{self, ExpectedPeer},
};
use warifu_agent::{config::value::Moment, revocation::Kind};
use warifu_tests::{
    mesh::{Agent, App, Direct, Mesh, RawAnswer, Workload, until},
    peers::Envoy,
    ports::free_port,
};

use super::sds_envoy::{Bootstrap, with_socket};

const ALLOW: &str = r#"[{peer: "spiffe://example.org/orders", to: ["GET /charges/**", "GET /charges", "POST /charges"]}]"#;
const ACCEPT: &str =
    "[{mtls: {trust_domains: [example.org]}}, {jwt: {profile: jwt-svid, audiences: [payments]}}]";

/// Of Envoy's connection to the agent, which must be payments' own.
const MTLS: &str = r#"    transport_socket:
      name: envoy.transport_sockets.tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        common_tls_context:
          alpn_protocols: [h2]
          tls_params: {tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3}
          tls_params: {tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3}
          tls_certificate_sds_secret_configs: [{name: default, sds_config: *warifu}]
          combined_validation_context:
            default_validation_context:
              match_typed_subject_alt_names: [{san_type: URI, matcher: {exact: "spiffe://example.org/payments"}}]
            validation_context_sds_secret_config: {name: ROOTCA, sds_config: *warifu}
"#;

/// Payments: an app, Envoy before it, the agent beside it.
struct Payments {
    envoy: Envoy,
    agent: Agent,
    app: App,
    mesh: Mesh,
}

impl Payments {
    async fn open() -> Self {
        Self::open_with("").await
    }

    async fn open_to(who: &str) -> Self {
        Self::open_at(None, who, "").await
    }

    /// With what more `rules` say.
    async fn open_with(rules: &str) -> Self {
        let uid = warifu::caller::own_uid().unwrap();
        Self::open_at(None, &format!("clients: {{uids: [{uid}]}}"), rules).await
    }

    /// Over TCP, where `peer` may ask.
    async fn open_over_tcp(peer: &str) -> Self {
        let listen = free_port();
        let who = format!("peers: [\"spiffe://example.org/{peer}\"]");
        Self::open_at(Some(listen), &who, "").await
    }

    /// In permissive mode, for so long.
    async fn open_to_all(ahead: Duration) -> Self {
        let until = Moment(SystemTime::now() + ahead);
        Self::open_with(&format!(", permissive: {{until: \"{until}\"}}")).await
    }

    async fn open_at(tcp: Option<SocketAddr>, who: &str, more: &str) -> Self {
        // What is revoked is known a second later.
        let mesh = Mesh::with(|authority| authority.more("bundle_refresh_hint: 1s")).await;
        let app = mesh.plain_app().await;
        let authz = mesh.dir().join("authz.sock");
        let listen = match tcp {
            Some(address) => address.to_string(),
            None => format!("unix:{}", authz.display()),
        };
        let agent = with_socket(&mesh, mesh.agent("payments"), "payments").inbound(&format!(
            "{{listen: \"{listen}\", ext_authz: {{{who}}}, accept: {ACCEPT}, allow: {ALLOW}, \
              forward_claims: {{sub: x-user-id}}{more}}}"
        ));
        let agent = agent.start().await;
        let mut bootstrap = Bootstrap::asking(&mesh, "payments").app(&app.url());
        bootstrap = match tcp {
            None => bootstrap.with("/run/warifu/authz.sock", authz.to_str().unwrap()),
            Some(address) => bootstrap
                .with(
                    "pipe: {path: /run/warifu/authz.sock}",
                    &format!(
                        "socket_address: {{address: 127.0.0.1, port_value: {}}}",
                        address.port()
                    ),
                )
                .with("  - name: app\n", &format!("{MTLS}  - name: app\n")),
        };
        let mut envoy = bootstrap.launch(&mesh.dir().join("envoy")).await;
        envoy.serves().await.unwrap();
        Self {
            envoy,
            agent,
            app,
            mesh,
        }
    }

    /// A connection of `caller`'s.
    async fn connect(&self, caller: &Identity) -> Direct {
        let id = self.agent.id.parse().unwrap();
        let config = tls::client_config(caller, &caller.bundle, ExpectedPeer::Id(id)).unwrap();
        let address = self.envoy.listener("inbound");
        Direct::connect_to(address, config).await.unwrap()
    }

    async fn orders(&self) -> (Workload, Direct) {
        let orders = self.mesh.workload("orders").await;
        let direct = self.connect(&orders.identity()).await;
        (orders, direct)
    }

    async fn revoke_orders(&self) {
        let id = "spiffe://example.org/orders";
        self.mesh.authority.revoke(Kind::SpiffeId, id).await;
    }

    async fn audit_line(&self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let line = |line: &Value| line["event"] == "ext-authz" && is(line);
        self.agent.audit_line(what, line).await
    }
}

fn reason(answer: &RawAnswer) -> &str {
    answer.header("x-warifu-reason").unwrap_or_default()
}

async fn ask(caller: &mut Direct, line: &str, headers: &str) -> RawAnswer {
    let request = format!("{line} HTTP/1.1\nhost: payments\n{headers}\n");
    caller.exchange(&request).await.unwrap()
}

/// What `line` is answered from when it is no longer allowed.
async fn refused(caller: &mut Direct, line: &str) -> RawAnswer {
    until("the caller is refused", async || {
        let again = ask(caller, line, "").await;
        (again.status != 200).then_some(again)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoy_lets_pass_what_the_rules_allow_and_tells_the_app_who_calls() {
    let payments = Payments::open().await;
    let (orders, mut caller) = payments.orders().await;
    let token = orders.token("payments").await;
    let forged = "x-warifu-caller: forged\nx-warifu-context: forged\nx_warifu_caller: forged\nX-User-Id: forged\nx-user-id: forged\n\
        x-forwarded-client-cert: URI=spiffe://example.org/admin\nclient-cert: forged\nx-http-method-override: DELETE\n\
        x-original-url: /admin\n";

    let headers = format!("{forged}authorization: Bearer {token}\n");
    let answer = ask(&mut caller, "GET /charges?page=2", &headers).await;
    assert_eq!(answer.status, 200, "{}", answer.head);
    let seen = payments.app.last();
    assert_eq!(seen.target, "/charges?page=2");
    let one = |name: &str| {
        let lines: Vec<_> = seen.headers.get_all(name).iter().collect();
        assert_eq!(lines.len(), 1, "{name}: {lines:?}");
        lines[0].to_str().unwrap().to_owned()
    };
    let told = warifu::caller::decode(&seen.headers["x-warifu-caller"]).unwrap();
    one("x-warifu-caller");
    assert_eq!(
        told.peer_id().unwrap().to_string(),
        "spiffe://example.org/orders"
    );
    assert_eq!(told.subject.unwrap().subject, "spiffe://example.org/orders");
    assert_eq!(one("x-user-id"), "spiffe://example.org/orders");
    let xfcc = one("x-forwarded-client-cert");
    assert!(xfcc.ends_with(";URI=spiffe://example.org/orders"), "{xfcc}");
    for gone in [
        "authorization",
        "x-warifu-context",
        "x_warifu_caller",
        "client-cert",
        "x-http-method-override",
        "x-original-url",
    ] {
        assert!(
            !seen.headers.contains_key(gone),
            "{gone}: {:?}",
            seen.headers
        );
    }
    let line = payments
        .audit_line("the request that passed", |line| {
            line["result"] == "allowed"
        })
        .await;
    assert_eq!(line["peer"], "spiffe://example.org/orders");
    assert_eq!(line["path"], "/charges");
    assert_eq!(line["rule"], "allow[0]");
    assert_eq!(line["remote"], "127.0.0.1");
    assert_eq!(
        payments.agent.metric("warifu_inbound_passed_total").await,
        1.0
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s16_envoy_refuses_what_no_rule_allows_and_every_bad_token() {
    let payments = Payments::open().await;
    let (orders, mut caller) = payments.orders().await;
    let denied = ask(&mut caller, "DELETE /charges/1", "").await;
    assert_eq!((denied.status, reason(&denied)), (403, "denied"));
    let foreign = orders.token("billing").await;
    for token in ["forged", &foreign] {
        let headers = format!("authorization: Bearer {token}\n");
        let refused = ask(&mut caller, "GET /charges", &headers).await;
        assert_eq!((refused.status, reason(&refused)), (401, "invalid-token"));
        let challenge = refused.header("www-authenticate");
        assert_eq!(challenge, Some("Bearer error=\"invalid_token\""));
    }
    let good = orders.token("payments").await;
    let twice = format!("authorization: Bearer {good}\nauthorization: Bearer {good}\n");
    let refused = ask(&mut caller, "GET /charges", &twice).await;
    // Envoy makes one line of the two.
    assert_eq!((refused.status, reason(&refused)), (401, "invalid-token"));

    let nobody = payments.mesh.workload("nobody").await;
    let mut caller = payments.connect(&nobody.identity()).await;
    let denied = ask(&mut caller, "GET /charges", "").await;
    assert_eq!((denied.status, reason(&denied)), (403, "denied"));
    let line = payments.audit_line("nobody's request", |line| {
        line["peer"] == "spiffe://example.org/nobody"
    });
    assert_eq!(line.await["result"], "denied");
    assert!(payments.app.seen().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoy_lets_pass_what_the_policy_allows_where_no_rule_decides() {
    let dir = tempfile::tempdir().unwrap();
    let policy = dir.path().join("policy.rego");
    let text = "package warifu\n\nallow if {\n    input.request.segments[0] == \"reports\"\n    \
        endswith(input.subject.claims.sub, concat(\"\", [\"/\", input.request.segments[1]]))\n    input.request.headers[\"x-stage\"] == [\"live\"]\n}\n\n\
        allow if {\n    input.request.path == \"/broken\"\n    to_number(input.request.path) > 0\n}\n";
    fs::write(&policy, text).unwrap();
    let rego = format!(", rego: {{files: [\"{}\"], timeout: 5s}}", policy.display());
    let payments = Payments::open_with(&rego).await;
    let (orders, mut caller) = payments.orders().await;
    let token = orders.token("payments").await;
    let of = |stage: &str| format!("authorization: Bearer {token}\nx-stage: {stage}\n");
    let own = "GET /reports/orders";
    let answer = ask(&mut caller, own, &of("live")).await;
    assert_eq!(answer.status, 200, "{}", answer.head);
    let line = payments.audit_line("the request that passed", |line| {
        line["result"] == "allowed"
    });
    assert_eq!(line.await["rule"], "data.warifu.allow");
    for (line, headers, expected) in [
        ("GET /reports/others", of("live"), "denied"),
        (own, of("test"), "denied"),
        (own, String::new(), "denied"),
        ("GET /broken", of("live"), "policy-failed"),
    ] {
        let refused = ask(&mut caller, line, &headers).await;
        let refused = (refused.status, reason(&refused).to_owned());
        assert_eq!(refused, (403, expected.to_owned()), "{line} {headers}");
    }
    // Rules come first.
    let ruled = ask(&mut caller, "GET /charges", "").await;
    assert_eq!(ruled.status, 200, "{}", ruled.head);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s16_in_permissive_mode_envoy_lets_pass_what_would_be_refused_and_the_app_hears_of_nobody()
{
    let payments = Payments::open_to_all(Duration::from_secs(3600)).await;
    let (orders, mut caller) = payments.orders().await;
    let forged = "x-warifu-caller: forged\nx-warifu-context: forged\nx-user-id: forged\n\
        x-forwarded-client-cert: URI=spiffe://example.org/admin\n";
    let good = format!("Bearer {}", orders.token("payments").await);
    for (line, authorization, path, why) in [
        ("DELETE /charges/1", None, "/charges/1", "denied"),
        ("DELETE /charges/2", Some(&*good), "/charges/2", "denied"),
        (
            "GET /charges",
            Some("Bearer bad"),
            "/charges",
            "invalid-token",
        ),
        (
            "GET /charges/3",
            Some("Basic dTpw"),
            "/charges/3",
            "invalid-token",
        ),
    ] {
        let shown = authorization.map(|it| format!("authorization: {it}\n"));
        let headers = format!("{forged}{}", shown.unwrap_or_default());
        let answer = ask(&mut caller, line, &headers).await;
        assert_eq!(answer.status, 200, "{line}: {}", answer.head);
        let seen = payments.app.last().headers;
        for ours in [
            "x-warifu-caller",
            "x-warifu-context",
            "x-user-id",
            "x-forwarded-client-cert",
        ] {
            assert!(!seen.contains_key(ours), "{line}: {seen:?}");
        }
        // As if there were no agent.
        let kept = seen.get("authorization").map(|it| it.to_str().unwrap());
        assert_eq!(kept, authorization, "{line}");
        let written = |line: &Value| line["path"] == path;
        let written = payments.audit_line("what was let pass", written).await;
        assert_eq!(written["result"], "let-pass", "{written}");
        assert_eq!(written["reason"], why, "{written}");
    }
    let let_pass = "warifu_inbound_let_pass_total{reason=\"denied\"}";
    assert_eq!(payments.agent.metric(let_pass).await, 2.0);
    // Whom it knows it tells of; and what is no question of who calls is refused.
    let answer = ask(&mut caller, "GET /charges/4", forged).await;
    assert_eq!(answer.status, 200);
    let told = warifu::caller::decode(&payments.app.last().headers["x-warifu-caller"]).unwrap();
    assert_eq!(
        told.peer_id().unwrap().to_string(),
        "spiffe://example.org/orders"
    );
    let refused = ask(&mut caller, "GET /charges/1;admin", "").await;
    assert_eq!((refused.status, reason(&refused)), (400, "bad-path"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s16_in_permissive_mode_a_revoked_caller_is_refused_all_the_same() {
    let payments = Payments::open_to_all(Duration::from_secs(3600)).await;
    let (_orders, mut caller) = payments.orders().await;
    assert_eq!(ask(&mut caller, "DELETE /charges/1", "").await.status, 200);
    payments.revoke_orders().await;
    let refused = refused(&mut caller, "DELETE /charges/1").await;
    assert_eq!((refused.status, reason(&refused)), (403, "revoked"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s11_envoy_forwards_no_path_that_is_not_in_normal_form() {
    let payments = Payments::open().await;
    let (orders, _) = payments.orders().await;
    for path in [
        "/charges/..%2fadmin",
        "/charges//1",
        "/charges/%2e%2e/admin",
        "/charges/1;admin",
        "/charges/%41",
        "/charges/%5cadmin",
        "/charges/%00",
        "/charges/a%2Fb",
    ] {
        // Envoy closes a connection over which such a thing came.
        let mut caller = payments.connect(&orders.identity()).await;
        let refused = ask(&mut caller, &format!("GET {path}"), "").await;
        // Envoy makes some of them normal by itself, and is then asked for what it made.
        match refused.status {
            200 => {
                let seen = payments.app.last().target;
                let normal = warifu_agent::http::path::normal_form(&seen).unwrap();
                assert_eq!(normal, seen, "{path}");
                assert!(seen.starts_with("/charges/"), "{path}: {seen}");
            }
            status => assert!([400, 403].contains(&status), "{path}: {}", refused.head),
        }
    }
    let mut caller = payments.connect(&orders.identity()).await;
    let normal = ask(&mut caller, "GET /charges/%3B", "").await;
    assert_eq!(normal.status, 200, "{}", normal.head);
    let refused = ask(&mut caller, "GET /charges/1;admin", "").await;
    assert_eq!((refused.status, reason(&refused)), (400, "bad-path"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_caller_is_refused_on_its_open_connection_to_envoy() {
    let payments = Payments::open().await;
    let (_orders, mut caller) = payments.orders().await;
    assert_eq!(ask(&mut caller, "GET /charges", "").await.status, 200);
    payments.revoke_orders().await;
    let refused = refused(&mut caller, "GET /charges").await;
    assert_eq!((refused.status, reason(&refused)), (403, "revoked"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s20_who_is_not_listed_is_not_answered_and_envoy_lets_nothing_pass() {
    let payments = Payments::open_to("clients: {uids: [64999]}").await;
    let (_orders, mut caller) = payments.orders().await;
    let refused = ask(&mut caller, "GET /charges", "").await;
    assert_eq!(refused.status, 503, "{}", refused.head);
    assert!(payments.app.seen().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tcp_only_the_listed_envoy_is_answered() {
    // Envoy asks with the identity of the workload that it stands before.
    for (who, status) in [("payments", 200), ("somebody", 503)] {
        let payments = Payments::open_over_tcp(who).await;
        let (_orders, mut caller) = payments.orders().await;
        let answer = ask(&mut caller, "GET /charges", "").await;
        assert_eq!(answer.status, status, "{who}: {}", answer.head);
        if status != 200 {
            assert!(payments.app.seen().is_empty());
            let refused = |line: &Value| line["event"] == "inbound-connection";
            let line = payments
                .agent
                .audit_line("Envoy's connection", refused)
                .await;
            assert_eq!(line["result"], "refused");
        }
    }
}
