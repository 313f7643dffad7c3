//! A listener that asks a Rego policy where its rules don't decide.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use tempfile::TempDir;

use super::{
    permissive::permissive,
    revoked::{ENDLESS, breaks_off, http2, stream},
    websocket::{AGREED, BYTES, HANDSHAKE},
    *,
};
use crate::{
    config::{inbound as config, inbound::Rego, value::Span},
    http::still::CHECK_EVERY,
    policy::Undecided,
};

/// A policy in a file of its own.
pub(super) struct Written {
    _directory: TempDir,
    file: PathBuf,
}

impl Written {
    pub(super) fn new(rules: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("policy.rego");
        fs::write(&file, format!("package warifu\n\n{rules}\n")).unwrap();
        Self {
            _directory: directory,
            file,
        }
    }

    /// Where no rule decides; there is none, but for `/plain`.
    pub(super) fn asked(&self, config: &mut config::Inbound, timeout: Duration) {
        config.rego = Some(Rego {
            files: vec![self.file.clone()],
            query: "data.warifu.allow".to_owned(),
            timeout: Span(timeout),
        });
        config.allow = vec![allow(Some(ORDERS), None, "GET /plain")];
    }
}

/// Longer than by default: the machine that tests may be busy.
pub(super) const PATIENT: Duration = Duration::from_secs(5);

/// Sixty million steps and more, for `/slow`.
const SLOW: &str =
    "l := [0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29]
    allow if input.request.path == \"/quick\"
    allow if {
        input.request.path == \"/slow\"
        some a in l; some b in l; some c in l; some d in l; some e in l; some f in l
        a + b + c + d + e + f < 0
    }";

fn metric(fixture: &Fixture, line: &str) -> bool {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &fixture.registry).unwrap();
    text.lines().any(|it| it == line)
}

/// How often the policy said this, or nothing for this reason.
fn said(fixture: &Fixture, outcome: &str) -> u32 {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &fixture.registry).unwrap();
    let line = format!("inbound_rego_total{{outcome=\"{outcome}\"}} ");
    let times = text.lines().find_map(|it| it.strip_prefix(&line));
    times.map_or(0, |times| times.parse().unwrap())
}

#[tokio::test]
async fn a_policy_decides_by_the_claims_of_a_token_and_the_audit_line_names_it() {
    let written = Written::new(
        "allow if {
            input.subject.issuer == \"jwt-svid\"
            input.subject.claims.tenant.id == input.request.segments[1]
            \"charges.read\" in input.subject.scopes
            input.request.headers[\"x-stage\"] == [\"live\"]
        }",
    );
    let mut fixture = Fixture::with(OK, |config| {
        accept_tokens(config);
        written.asked(config, PATIENT);
    })
    .await;
    let mut orders = fixture.caller(ORDERS).await;
    let web = "spiffe://example.org/web";
    let claims = json!({"scope": "charges.read", "tenant": {"id": "acme"}});
    let token = fixture.ca.token(web, "payments", claims);
    let with_token = format!("authorization: Bearer {token}\r\nx-stage: live\r\n");

    let answer = orders.get_with("/tenants/acme", &with_token).await;
    assert_eq!(answer.status(), 200);
    fixture.seen().await;
    let line = fixture.audited();
    assert_eq!(
        json!([line["result"], line["rule"], line["subject"]]),
        json!(["allowed", "data.warifu.allow", web])
    );

    let answer = orders.get_with("/tenants/umbrella", &with_token).await;
    assert_eq!(answer.status(), 403);
    assert_eq!(answer.all("x-warifu-reason"), ["denied"]);
    let line = fixture.audited();
    assert_eq!(
        json!([line["result"], line["rule"], line["reason"], line["detail"]]),
        json!([
            "denied",
            "data.warifu.allow",
            "denied",
            "not_allowed_by_rego"
        ])
    );
    // Rules come first: this one needs no token, and no policy.
    assert_eq!(orders.get("/plain").await.status(), 200);
    assert_eq!(fixture.audited()["rule"], "allow[0]");
    assert_eq!(said(&fixture, "allowed"), 1);
    assert_eq!(said(&fixture, "not_allowed"), 1);
    assert!(metric(
        &fixture,
        r#"inbound_refused_total{reason="denied"} 1"#
    ));
}

#[tokio::test]
async fn s16_a_policy_that_says_nothing_is_403_with_its_reason_in_the_audit_line_alone() {
    let written = Written::new("allow if to_number(input.request.path) > 0");
    let mut fixture = Fixture::with(OK, |config| written.asked(config, PATIENT)).await;
    let mut orders = fixture.caller(ORDERS).await;
    let answer = orders.get("/charges").await;
    assert_eq!(answer.status(), 403);
    assert_eq!(answer.all("x-warifu-reason"), ["policy-failed"]);
    assert!(!answer.body.contains("policy.rego"), "{}", answer.body);
    assert!(fixture.nothing_seen());
    let line = fixture.audited();
    assert_eq!(line["rule"], "data.warifu.allow");
    let detail = line["detail"].as_str().unwrap();
    assert!(detail.contains("policy.rego:3:"), "{detail}");
    assert!(detail.contains("could not parse"), "{detail}");
    assert!(metric(
        &fixture,
        r#"inbound_refused_total{reason="policy-failed"} 1"#
    ));
    assert_eq!(said(&fixture, "failed"), 1);
}

#[tokio::test]
async fn s16_a_policy_without_an_end_is_403_in_its_time_and_keeps_no_other_request_waiting() {
    let written = Written::new(SLOW);
    let limit = Duration::from_millis(1500);
    let fixture = Fixture::with(OK, |config| written.asked(config, limit)).await;
    let mut others = fixture.caller(ORDERS).await;
    let mut twenty = async || {
        let began = Instant::now();
        for _ in 0..20 {
            assert_eq!(others.get("/plain").await.status(), 200);
        }
        began.elapsed()
    };
    let alone = twenty().await;
    let mut orders = fixture.caller(ORDERS).await;
    orders
        .send("GET /slow HTTP/1.1\r\nhost: payments\r\n\r\n")
        .await;
    let began = Instant::now();
    let places = &fixture.handle.inbound.environment.evaluations.places;
    while places.available_permits() == Evaluations::default().places.available_permits() {
        assert!(began.elapsed() < limit, "it was never begun");
        tokio::task::yield_now().await;
    }
    // One thread runs the callers, the agent and the app: were it the policy's, too, nobody would have an answer.
    let beside = twenty().await;
    let before = began.elapsed();
    assert!(before < limit, "{before:?}, alone it was {alone:?}");
    // Nearly: the machine has other things to do as well.
    assert!(
        beside < 10 * alone + limit / 10,
        "{beside:?}, alone it was {alone:?}"
    );
    let answer = orders.response().await.unwrap();
    let took = began.elapsed();
    assert_eq!(answer.status(), 403);
    assert_eq!(answer.all("x-warifu-reason"), ["policy-failed"]);
    assert!(took >= limit - Duration::from_millis(100), "{took:?}");
    assert!(took < limit + Duration::from_millis(1000), "{took:?}");
    let line = fixture.audit.all().pop().unwrap();
    assert_eq!(line["detail"], "no answer within 1.5s");
    assert_eq!(said(&fixture, "late"), 1);
    // Its place is free again.
    assert_eq!(orders.get("/quick").await.status(), 200);
}

#[tokio::test]
async fn s14_where_all_places_for_evaluations_are_taken_the_answer_is_503() {
    let written = Written::new("allow := true");
    let limit = Duration::from_millis(50);
    let fixture = Fixture::with(OK, |config| written.asked(config, limit)).await;
    let places = Arc::clone(&fixture.handle.inbound.environment.evaluations.places);
    let all = u32::try_from(places.available_permits()).unwrap();
    assert!(all > 0);
    let taken = places.acquire_many(all).await.unwrap();
    let mut orders = fixture.caller(ORDERS).await;
    let answer = orders.get("/charges").await;
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.all("x-warifu-reason"), ["policy-busy"]);
    assert_eq!(answer.all("retry-after"), ["1"]);
    assert_eq!(said(&fixture, "busy"), 1);
    // Rules need no place.
    assert_eq!(orders.get("/plain").await.status(), 200);
    // Nor does anybody wait for one behind more than there can be places for in time.
    let queue = Arc::clone(&fixture.handle.inbound.environment.evaluations.queue);
    let all = u32::try_from(queue.available_permits()).unwrap();
    let waiting = queue.acquire_many(all).await.unwrap();
    drop(taken);
    assert_eq!(orders.get("/charges").await.status(), 503);
    drop(waiting);
    let until = Instant::now() + fixture::DEADLINE;
    while orders.get("/charges").await.status() != 200 {
        assert!(Instant::now() < until);
    }
}

#[tokio::test]
async fn s17_an_evaluation_that_panics_says_nothing_and_gives_its_place_back() {
    let evaluations = Evaluations::default();
    let free = evaluations.places.available_permits();
    let panics = |_, then| {
        let thread = std::thread::spawn(move || {
            let _then = then;
            panic!("as a bug of the engine would");
        });
        thread.join().unwrap_err();
    };
    let said = evaluations.within(PATIENT, panics).await;
    assert_eq!(said, Err(Undecided::Gone));
    assert_eq!(evaluations.places.available_permits(), free);
}

#[tokio::test]
async fn an_open_stream_is_asked_about_again_and_ends_when_the_policy_no_longer_allows_it() {
    let watch = "allow if {
        input.request.path == \"/charges/watch\"
        input.peer.spiffe_id == \"spiffe://example.org/orders\"
        input.request.host == \"payments\"
    }";
    let written = Written::new(watch);
    let fixture = Fixture::with(ENDLESS, |config| written.asked(config, PATIENT)).await;
    let mut orders = http2(&fixture).await;
    let mut body = stream(&mut orders).await;
    let next = tokio::time::timeout(CHECK_EVERY + Duration::from_secs(1), body.frame()).await;
    assert!(next.is_err(), "{next:?}");
    assert!(said(&fixture, "allowed") >= 2);

    let refuses = Written::new(&watch.replace("watch", "other"));
    fixture
        .reload(|config| refuses.asked(config, PATIENT))
        .await;
    breaks_off(body).await;
}

#[tokio::test]
async fn an_open_stream_goes_on_where_nobody_has_time_to_ask_about_it_and_is_asked_about_later() {
    let written = Written::new("allow := true");
    let limit = Duration::from_secs(1);
    let fixture = Fixture::with(ENDLESS, |config| written.asked(config, limit)).await;
    let places = Arc::clone(&fixture.handle.inbound.environment.evaluations.places);
    let all = u32::try_from(places.available_permits()).unwrap();
    let mut orders = http2(&fixture).await;
    let mut body = stream(&mut orders).await;
    let taken = places.acquire_many(all).await.unwrap();
    let next = tokio::time::timeout(2 * CHECK_EVERY, body.frame()).await;
    assert!(next.is_err(), "{next:?}");
    assert!(said(&fixture, "busy") >= 1);
    let refuses = Written::new("allow := false");
    fixture
        .reload(|config| refuses.asked(config, PATIENT))
        .await;
    drop(taken);
    breaks_off(body).await;
}

#[tokio::test]
async fn s14_however_many_streams_are_asked_about_one_at_a_time_is_before_a_request() {
    let evaluations = Evaluations::default();
    let room = evaluations.queue.available_permits();
    let all = u32::try_from(evaluations.places.available_permits()).unwrap();
    let places = Arc::clone(&evaluations.places);
    let taken = places.acquire_many(all).await.unwrap();
    let streams: Vec<_> = (0..100)
        .map(|_| {
            let evaluations = evaluations.clone();
            tokio::spawn(async move {
                let answer = evaluations.within(PATIENT, |_, then| then(Ok(true)));
                evaluations.in_turn(answer).await
            })
        })
        .collect();
    // Each goes as far as it can.
    tokio::task::yield_now().await;
    assert_eq!(evaluations.queue.available_permits(), room - 1);
    drop(taken);
    for stream in streams {
        assert_eq!(stream.await.unwrap(), Ok(true));
    }
}

#[tokio::test]
async fn s16_an_open_stream_ends_when_the_policy_fails() {
    let written = Written::new("allow := true");
    let fixture = Fixture::with(ENDLESS, |config| written.asked(config, PATIENT)).await;
    let mut orders = http2(&fixture).await;
    let body = stream(&mut orders).await;
    let fails = Written::new("allow if to_number(input.request.path) > 0");
    fixture.reload(|config| fails.asked(config, PATIENT)).await;
    breaks_off(body).await;
}

#[tokio::test]
async fn a_stream_that_a_rule_allows_lives_on_beside_a_new_policy_and_ends_where_only_that_could_allow_it()
 {
    let fixture = Fixture::with(ENDLESS, |_| {}).await;
    let mut orders = http2(&fixture).await;
    let mut body = stream(&mut orders).await;
    let written = Written::new("allow := true");
    let ruled = |config: &mut config::Inbound| {
        written.asked(config, PATIENT);
        config.allow = vec![allow(Some(ORDERS), None, "* /**")];
    };
    fixture.reload(ruled).await;
    let next = tokio::time::timeout(CHECK_EVERY + Duration::from_secs(1), body.frame()).await;
    assert!(next.is_err(), "{next:?}");
    // Its headers were not kept: what the policy would say of them can't be known.
    fixture
        .reload(|config| written.asked(config, PATIENT))
        .await;
    breaks_off(body).await;
}

#[tokio::test]
async fn a_policy_that_does_not_compile_at_a_reload_changes_nothing() {
    let written = Written::new("allow if input.request.path == \"/charges\"");
    let fixture = Fixture::with(OK, |config| written.asked(config, PATIENT)).await;
    let mut orders = fixture.caller(ORDERS).await;
    let mut asked = async |path: &str| orders.get(path).await.status();
    assert_eq!(asked("/charges").await, 200);
    let wrong = Written::new("allow if {");
    let with_more = |config: &mut config::Inbound| {
        wrong.asked(config, PATIENT);
        config.allow = vec![allow(Some(ORDERS), None, "* /**")];
    };
    let error = fixture.try_reload(with_more).await.unwrap_err();
    let place = format!("inbound.rego: {}:4:1: ", wrong.file.display());
    assert!(error.to_string().starts_with(&place), "{error}");
    assert_eq!(asked("/charges").await, 200);
    assert_eq!(asked("/plain").await, 200);
    // Its rules are not in force either.
    assert_eq!(asked("/other").await, 403);
    let other = Written::new("allow if input.request.path == \"/other\"");
    let reloaded = fixture.try_reload(|config| other.asked(config, PATIENT));
    reloaded.await.unwrap();
    assert_eq!(asked("/charges").await, 403);
    assert_eq!(asked("/other").await, 200);
}

#[tokio::test]
async fn s04_a_websocket_is_asked_about_again_and_ends_when_the_policy_no_longer_allows_it() {
    let written = Written::new("allow if input.request.headers.upgrade == [\"websocket\"]");
    let fixture = Fixture::with(AGREED, |config| written.asked(config, PATIENT)).await;
    let mut orders = fixture.caller(ORDERS).await;
    assert_eq!(orders.ask(HANDSHAKE).await.status(), 101);
    let next = tokio::time::timeout(CHECK_EVERY + Duration::from_secs(1), orders.response());
    assert!(next.await.is_err());
    assert_eq!(orders.ask(BYTES).await.status(), 101);
    let refuses = Written::new("allow if input.request.headers.upgrade == [\"h2c\"]");
    fixture
        .reload(|config| refuses.asked(config, PATIENT))
        .await;
    assert!(orders.response().await.is_none());
}

#[tokio::test]
async fn permissive_mode_lets_pass_what_the_policy_refuses_and_says_so() {
    let written = Written::new("allow if to_number(input.request.path) > 0");
    let mut fixture = Fixture::with(OK, |config| {
        permissive(config, Duration::from_secs(3600));
        written.asked(config, PATIENT);
    })
    .await;
    let mut orders = fixture.caller(ORDERS).await;
    assert_eq!(orders.get("/charges").await.status(), 200);
    assert!(fixture.seen().await.all("x-warifu-caller").is_empty());
    let line = fixture.audited();
    assert_eq!(
        json!([line["result"], line["reason"], line["rule"]]),
        json!(["let-pass", "policy-failed", "data.warifu.allow"])
    );
}

#[tokio::test]
async fn s12_the_secret_header_of_a_listener_is_not_shown_to_its_policy() {
    let mut config = fixture::config(Forward::Unix(Path::new("/nowhere").to_owned()));
    let written = Written::new("allow if not input.request.headers[\"x-custom-auth\"]");
    written.asked(&mut config, PATIENT);
    proofs::accept_secret(&mut config, Path::new("/etc/secret"));
    let policy = policy_of(&config).unwrap();
    let mut headers = http::HeaderMap::new();
    headers.insert("x-custom-auth", "s3cret".parse().unwrap());
    let caller = warifu::Caller {
        peer: Some(warifu::caller::Peer {
            spiffe_id: ORDERS.parse().unwrap(),
            cert_sha256: String::new(),
        }),
        subject: None,
    };
    let request = crate::policy::Request {
        method: &Method::GET,
        path: "/a",
        host: None,
        headers: &headers,
        source: None,
        now: SystemTime::now(),
    };
    let explained = policy.explain(&caller, &Default::default(), request);
    let decision = explained.verdict.decision;
    assert!(
        matches!(decision, crate::policy::Decision::Allow(_)),
        "{decision:?}"
    );
}

#[test]
fn a_policy_that_is_not_there_or_none_is_a_mistake_that_names_file_and_line() {
    let mut config = fixture::config(Forward::Unix(Path::new("/nowhere").to_owned()));
    let written = Written::new("allow if {");
    written.asked(&mut config, PATIENT);
    let error = policy_of(&config).unwrap_err().to_string();
    let file = written.file.display().to_string();
    assert!(error.starts_with(&format!("rego: {file}:4:1: ")), "{error}");
    fs::write(&written.file, " ".repeat(257 << 10)).unwrap();
    let error = policy_of(&config).unwrap_err().to_string();
    assert!(error.contains("larger than 256 KiB"), "{error}");
    fs::remove_file(&written.file).unwrap();
    let error = policy_of(&config).unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("rego.files: {file}: No such file")),
        "{error}"
    );
}
