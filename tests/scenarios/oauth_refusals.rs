//! The OAuth 2.0 token endpoint, asked for what it should not give: every error of RFC 6749 §5.2 and RFC 8707, and
//! requests that are no local client's.

use std::{fs, time::Duration};

use rustix::process::{getgid, getuid};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use warifu_tests::{
    mesh::{Agent, Mesh, until},
    oauth::{Endpoint, FORM, SECRET, basic, encoded, secret_file},
};

const RULES: &str = r#"
- {attestor: bootstrap, match: {service: "*"}, id: "/{service}", audiences: [payments, ledger], scopes: [charges.read, charges.write, refunds]}
"#;

async fn mesh() -> Mesh {
    Mesh::with(|authority| {
        authority
            .rules(RULES)
            .more("tokens: {access_token: {issuer: \"https://tokens.example.org\"}}")
    })
    .await
}

/// On loopback, with a client; `more` are further keys of `local.oauth`.
async fn on_loopback(mesh: &Mesh, more: &str) -> Agent {
    let secret = secret_file(mesh.dir(), SECRET);
    let oauth = format!(
        "local: {{oauth: {{listen: \"127.0.0.1:0\", client: {{id: app, secret: \"file:{secret}\"}}{more}}}}}"
    );
    mesh.agent("orders").more(&oauth).start().await
}

/// On a unix socket.
async fn on_unix(mesh: &Mesh, name: &str, more: &str) -> Agent {
    let socket = mesh.dir().join(format!("{name}-oauth.sock"));
    let socket = socket.display();
    let oauth = format!("local: {{oauth: {{listen: \"unix:{socket}\", {more}}}}}");
    mesh.agent(name).more(&oauth).start().await
}

/// Asks with the client's own credentials.
async fn asks(endpoint: &Endpoint, form: &str) -> (u16, String) {
    let basic = basic("app", SECRET);
    let answer = endpoint.ask(&[("authorization", &basic)], form).await;
    (answer.status, answer.error())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s05_only_audiences_and_scopes_of_the_configuration_and_of_the_rule_are_minted() {
    let mesh = mesh().await;
    let agent = on_loopback(
        &mesh,
        ", audiences: [payments, billing], scopes: [charges.read, charges.write, charges.delete]",
    )
    .await;
    let endpoint = Endpoint::of(&agent);
    for (parameters, error) in [
        // Not of the configuration, whatever the rule says.
        ("&audience=ledger", "invalid_target"),
        ("&resource=ledger", "invalid_target"),
        ("&audience=Payments", "invalid_target"),
        ("&audience=payments&scope=refunds", "invalid_scope"),
        ("&scope=charges.read+refunds", "invalid_scope"),
        // Not of the rule, whatever the configuration says.
        ("&audience=billing&scope=charges.read", "invalid_target"),
        ("&audience=payments&scope=charges.delete", "invalid_scope"),
        ("", "invalid_scope"),
        // Nobody's.
        ("&resource=payments&audience=billing", "invalid_target"),
        ("&resource=payments&resource=payments", "invalid_target"),
        ("&scope=charges.read++charges.write", "invalid_scope"),
        ("&scope=%22", "invalid_scope"),
    ] {
        let form = format!("{FORM}{parameters}");
        assert_eq!(
            asks(&endpoint, &form).await,
            (400, error.to_owned()),
            "{parameters}"
        );
    }
    assert_eq!(agent.metric("warifu_token_mints_total").await, 0.0);
    // What both name is given, and the answer says what it is good for.
    let basic = basic("app", SECRET);
    let form = format!("{FORM}&scope=charges.read&resource=payments");
    let answer = endpoint.ask(&[("authorization", &basic)], &form).await;
    answer.token();
    assert_eq!(answer.json()["scope"], "charges.read");
    let line = mesh.authority.audit("access-token").pop().unwrap();
    assert_eq!(line["audiences"], serde_json::json!(["payments"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_other_error_has_its_code_and_says_what_to_do() {
    let mesh = mesh().await;
    let agent = on_loopback(&mesh, ", audiences: [payments]").await;
    let endpoint = Endpoint::of(&agent);
    let basic = basic("app", SECRET);
    for (form, error) in [
        ("", "invalid_request"),
        ("scope=charges.read", "invalid_request"),
        ("grant_type=", "invalid_request"),
        (
            "grant_type=client_credentials&grant_type=client_credentials",
            "invalid_request",
        ),
        ("grant_type=client_credentials&x=1&x=2", "invalid_request"),
        ("grant_type=client_credentials&scope=%zz", "invalid_request"),
        (
            "grant_type=authorization_code&code=x",
            "unsupported_grant_type",
        ),
        ("grant_type=refresh_token", "unsupported_grant_type"),
        ("grant_type=Client_Credentials", "unsupported_grant_type"),
    ] {
        assert_eq!(
            asks(&endpoint, form).await,
            (400, error.to_owned()),
            "{form}"
        );
    }
    let both = format!("{FORM}&client_id=app&client_secret={}", encoded(SECRET));
    assert_eq!(
        asks(&endpoint, &both).await,
        (400, "invalid_request".to_owned())
    );

    // Everything about the request but its form.
    let host = endpoint.host();
    let send = async |method: &str, target: &str, headers: &[(&str, &str)], form: &str| {
        let mut all = vec![("host", host.as_str()), ("authorization", basic.as_str())];
        all.extend(headers);
        endpoint.send(method, target, &all, form).await
    };
    let form_type = ("content-type", "application/x-www-form-urlencoded");
    for headers in [
        &[][..],
        &[("content-type", "application/json")],
        &[("content-type", "text/plain")],
        &[form_type, form_type],
        &[form_type, ("content-encoding", "gzip")],
    ] {
        let answer = send("POST", "/oauth2/token", headers, FORM).await;
        assert_eq!(
            (answer.status, answer.error().as_str()),
            (400, "invalid_request"),
            "{headers:?}"
        );
    }
    let with_charset = (
        "content-type",
        "Application/X-WWW-Form-URLEncoded; charset=UTF-8",
    );
    send("POST", "/oauth2/token", &[with_charset], FORM)
        .await
        .token();
    let query = send("POST", &format!("/oauth2/token?{FORM}"), &[form_type], "").await;
    assert_eq!(
        (query.status, query.error().as_str()),
        (400, "invalid_request")
    );
    for (method, path, allow) in [
        ("GET", "/oauth2/token", "POST"),
        ("PUT", "/oauth2/token", "POST"),
        ("OPTIONS", "/oauth2/token", "POST"),
        ("POST", "/oauth2/jwks", "GET, HEAD"),
        (
            "DELETE",
            "/.well-known/oauth-authorization-server",
            "GET, HEAD",
        ),
    ] {
        let answer = send(method, path, &[form_type], "").await;
        assert_eq!(
            (answer.status, answer.headers["allow"].as_str()),
            (405, allow),
            "{method} {path}"
        );
        assert_eq!(answer.error(), "invalid_request");
    }
    let log = agent.metric("warifu_local_oauth_requests_total{outcome=\"unsupported-grant-type\"}");
    assert_eq!(log.await, 3.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workload_without_tokens_is_told_that_it_is_decided() {
    // An authority that mints no access tokens at all.
    let mesh = Mesh::start().await;
    let agent = on_unix(&mesh, "orders", "audiences: [payments]").await;
    let endpoint = Endpoint::of(&agent);
    let answer = endpoint.ask(&[], FORM).await;
    assert_eq!(
        (answer.status, answer.error().as_str()),
        (400, "unauthorized_client")
    );
    assert!(
        answer.body.contains("tokens.access_token"),
        "{}",
        answer.body
    );
    assert_eq!(endpoint.get("/oauth2/jwks").await.status, 503);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s20_on_loopback_only_the_clients_own_credentials_are_taken() {
    let mesh = mesh().await;
    let agent = on_loopback(&mesh, ", audiences: [payments]").await;
    let endpoint = Endpoint::of(&agent);
    let posted = |id: &str, secret: &str| {
        format!(
            "{FORM}&client_id={}&client_secret={}",
            encoded(id),
            encoded(secret)
        )
    };
    // As RFC 6749 has it, as most clients send it, and in the form.
    for authorization in [basic("app", SECRET), basic("app", &encoded(SECRET))] {
        endpoint
            .ask(&[("authorization", &authorization)], FORM)
            .await
            .token();
    }
    endpoint.ask(&[], &posted("app", SECRET)).await.token();

    let refused = async |headers: &[(&str, &str)], form: &str| {
        let answer = endpoint.ask(headers, form).await;
        assert_eq!(answer.error(), "invalid_client", "{answer:?}");
        assert_eq!(answer.status, 401);
        assert_eq!(answer.headers["www-authenticate"], "Basic realm=\"warifu\"");
        assert!(!answer.body.contains("S+cret"), "S12");
    };
    refused(&[], FORM).await;
    refused(&[], &format!("{FORM}&client_id=app")).await;
    for authorization in [
        basic("app", ""),
        basic("other", SECRET),
        basic("app", &SECRET[1..]),
        "Basic !".to_owned(),
        "Bearer x".to_owned(),
    ] {
        refused(&[("authorization", &authorization)], FORM).await;
    }
    refused(&[], &posted("app", "guess")).await;
    refused(&[], &posted("other", SECRET)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s14_who_guesses_the_secret_is_slowed_down_and_the_client_is_not_locked_out() {
    let mesh = mesh().await;
    let agent = on_loopback(&mesh, ", audiences: [payments]").await;
    let endpoint = Endpoint::of(&agent);
    let guess = basic("app", "a guess that is as long as a secret is");
    let slowed = until("guesses are slowed down", async || {
        let answer = endpoint.ask(&[("authorization", &guess)], FORM).await;
        (answer.status == 429).then_some(answer)
    });
    let slowed = slowed.await;
    assert_eq!(slowed.error(), "invalid_client");
    assert_eq!(slowed.headers["retry-after"], "2");
    let basic = basic("app", SECRET);
    endpoint
        .ask(&[("authorization", &basic)], FORM)
        .await
        .token();
    // And none of it costs the authority anything.
    assert_eq!(mesh.authority.audit("access-token").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_secret_is_rotated_without_a_restart() {
    let mesh = mesh().await;
    let agent = on_loopback(&mesh, ", audiences: [payments]").await;
    let endpoint = Endpoint::of(&agent);
    let next = SECRET.replace("cret", "cond");
    let ask = async |secret: &str| {
        let basic = basic("app", secret);
        endpoint
            .ask(&[("authorization", &basic)], FORM)
            .await
            .status
    };
    assert_eq!((ask(SECRET).await, ask(&next).await), (200, 401));
    let beside = mesh.dir().join("next");
    fs::write(&beside, &next).unwrap();
    fs::rename(&beside, mesh.dir().join("client-secret")).unwrap();
    assert_eq!((ask(SECRET).await, ask(&next).await), (401, 200));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s20_web_pages_proxies_foreign_hosts_and_other_spellings_are_refused() {
    let mesh = mesh().await;
    let agent = on_loopback(&mesh, ", audiences: [payments]").await;
    let endpoint = Endpoint::of(&agent);
    let (host, basic) = (endpoint.host(), basic("app", SECRET));
    let good = [
        ("host", host.as_str()),
        ("authorization", &basic),
        ("content-type", "application/x-www-form-urlencoded"),
    ];
    endpoint
        .send("POST", "/oauth2/token", &good, FORM)
        .await
        .token();
    for more in [
        ("origin", "https://evil.example"),
        ("origin", "null"),
        ("x-forwarded-for", "10.0.0.1"),
        ("forwarded", "for=10.0.0.1"),
        ("via", "1.1 proxy"),
        ("host", host.as_str()),
    ] {
        let headers = [&good[..], &[more]].concat();
        let answer = endpoint.send("POST", "/oauth2/token", &headers, FORM).await;
        // hyper itself refuses a second Host.
        assert!([400, 403].contains(&answer.status), "{more:?}: {answer:?}");
        assert!(!answer.body.contains("access_token"), "{more:?}");
    }
    for foreign in ["rebound.example", "127.0.0.1", "10.0.0.1:80", "localhost"] {
        let headers = [("host", foreign), good[1], good[2]];
        for (method, path) in [("POST", "/oauth2/token"), ("GET", "/oauth2/jwks")] {
            let answer = endpoint.send(method, path, &headers, FORM).await;
            assert_eq!(
                (answer.status, answer.error().as_str()),
                (403, "invalid_request"),
                "{foreign}"
            );
        }
    }
    for path in [
        "//oauth2/token",
        "/oauth2//token",
        "/oauth2/token/",
        "/oauth2/./token",
        "/x/../oauth2/token",
        "/oauth2/%74oken",
        "/oauth2%2ftoken",
        "/oauth2/token;a=b",
        "/OAUTH2/token",
        "/",
    ] {
        let answer = endpoint.send("POST", path, &good, FORM).await;
        assert_eq!(
            (answer.status, answer.error().as_str()),
            (404, "invalid_request"),
            "{path}"
        );
    }
    let absolute = "http://rebound.example/oauth2/token";
    let answer = endpoint.send("POST", absolute, &good, FORM).await;
    assert_eq!(answer.status, 403, "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s20_on_a_unix_socket_the_kernel_says_who_asks() {
    let mesh = mesh().await;
    let (uid, gid) = (getuid().as_raw(), getgid().as_raw());
    let audiences = "audiences: [payments]";
    let everyone = on_unix(&mesh, "everyone", audiences).await;
    let user = on_unix(
        &mesh,
        "user",
        &format!("clients: {{uids: [{uid}]}}, {audiences}"),
    )
    .await;
    let group = on_unix(
        &mesh,
        "group",
        &format!("clients: {{gids: [{gid}]}}, {audiences}"),
    )
    .await;
    for agent in [&everyone, &user, &group] {
        // Clients that cannot do without credentials may send any: they count for nothing here.
        let endpoint = Endpoint::of(agent);
        endpoint.ask(&[], FORM).await.token();
        let any = basic("any", "thing");
        endpoint.ask(&[("authorization", &any)], FORM).await.token();
        endpoint
            .ask(&[], &format!("{FORM}&client_id=any"))
            .await
            .token();
    }
    let other = format!(
        "clients: {{uids: [{}], gids: [{}]}}, {audiences}",
        uid + 1,
        gid + 1
    );
    let other = on_unix(&mesh, "other", &other).await;
    let endpoint = Endpoint::of(&other);
    let answer = endpoint.ask(&[], FORM).await;
    assert_eq!(
        (answer.status, answer.error().as_str()),
        (403, "unauthorized_client")
    );
    assert_eq!(endpoint.get("/oauth2/jwks").await.status, 403);
    // A client that is configured must be shown here, too.
    let secret = secret_file(mesh.dir(), SECRET);
    let both = format!("client: {{id: app, secret: \"file:{secret}\"}}, {audiences}");
    let both = on_unix(&mesh, "both", &both).await;
    let endpoint = Endpoint::of(&both);
    assert_eq!(endpoint.ask(&[], FORM).await.status, 401);
    let basic = basic("app", SECRET);
    endpoint
        .ask(&[("authorization", &basic)], FORM)
        .await
        .token();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s14_a_form_that_is_too_large_or_too_slow_gets_an_answer_and_blocks_nobody() {
    let mesh = mesh().await;
    let agent = on_loopback(&mesh, ", audiences: [payments]").await;
    let endpoint = Endpoint::of(&agent);
    let basic = basic("app", SECRET);
    let large = format!("{FORM}&x={}", "x".repeat(17 * 1024));
    let answer = endpoint.ask(&[("authorization", &basic)], &large).await;
    assert_eq!(
        (answer.status, answer.error().as_str()),
        (413, "invalid_request")
    );
    // A client that never finishes its form.
    let host = endpoint.host();
    let mut slow = TcpStream::connect(&host).await.unwrap();
    let head = format!(
        "POST /oauth2/token HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/x-www-form-urlencoded\r\n\
         content-length: 100\r\n\r\ngrant"
    );
    slow.write_all(head.as_bytes()).await.unwrap();
    endpoint
        .ask(&[("authorization", &basic)], FORM)
        .await
        .token();
    let mut status = [0; 12];
    let reading = slow.read_exact(&mut status);
    tokio::time::timeout(Duration::from_secs(20), reading)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&status, b"HTTP/1.1 408");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_issuer_of_the_metadata_is_where_it_was_found_and_the_tokens_issuer_is_told_beside_it()
{
    let mesh = mesh().await;
    let agent = on_loopback(&mesh, ", audiences: [payments], scopes: [charges.read]").await;
    let endpoint = Endpoint::of(&agent);
    let path = "/.well-known/oauth-authorization-server";
    let metadata = until("the agent knows the tokens' issuer", async || {
        let metadata = endpoint.get(path).await.json();
        metadata["warifu_access_token_issuer"]
            .is_string()
            .then_some(metadata)
    });
    let metadata = metadata.await;
    // RFC 8414 §3.3: what the client put into the URL, whichever of our names that was.
    assert_eq!(metadata["issuer"], endpoint.url(""));
    assert_eq!(metadata["token_endpoint"], endpoint.url("/oauth2/token"));
    assert_eq!(metadata["jwks_uri"], endpoint.url("/oauth2/jwks"));
    assert_eq!(
        metadata["scopes_supported"],
        serde_json::json!(["charges.read"])
    );
    let port = endpoint.host().rsplit(':').next().unwrap().to_owned();
    let localhost = format!("localhost:{port}");
    let other = endpoint
        .send("GET", path, &[("host", &localhost)], "")
        .await
        .json();
    assert_eq!(other["issuer"], format!("http://{localhost}"));
    // RFC 9068 §4: what the tokens say.
    assert_eq!(
        metadata["warifu_access_token_issuer"],
        "https://tokens.example.org"
    );

    let unix = on_unix(&mesh, "unix", "audiences: [payments]").await;
    let metadata: Value = Endpoint::of(&unix).get(path).await.json();
    assert_eq!(metadata["issuer"], "http://localhost");
    let methods = &metadata["token_endpoint_auth_methods_supported"];
    assert_eq!(*methods, serde_json::json!(["none"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s12_neither_secret_nor_token_shows_where_operators_look() {
    let mesh = mesh().await;
    let agent = on_loopback(&mesh, ", audiences: [payments], scopes: [charges.read]").await;
    let endpoint = Endpoint::of(&agent);
    let basic = basic("app", SECRET);
    let token = endpoint
        .ask(&[("authorization", &basic)], FORM)
        .await
        .token();
    let status = agent.status().await;
    let oauth = &status["local"]["oauth"];
    assert_eq!(oauth["listen"], endpoint.host());
    assert_eq!(oauth["audiences"], serde_json::json!(["payments"]));
    let held = &status["tokens"][0];
    assert_eq!(held["kind"], "access-token");
    assert_eq!(held["audience"], "payments");
    assert_eq!(held["scopes"], serde_json::json!(["charges.read"]));
    assert!(held["expires"].is_string(), "{held}");
    let (_, metrics) = agent.probe("/metrics").await;
    let shown = format!("{status}{metrics}{:?}", agent.audit());
    let signature = token.rsplit('.').next().unwrap();
    assert!(
        !shown.contains(signature) && !shown.contains("S+cret"),
        "{shown}"
    );
}
