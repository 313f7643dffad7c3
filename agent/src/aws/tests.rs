//! Real SDK calls to a scripted STS on loopback, with a clock that the test moves.

mod failover;
mod give;
mod sessions;
mod signing;
mod sts;
mod web_identity;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use ::http::{Request, header::AUTHORIZATION, request::Parts};
use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
use aws_smithy_async::time::SharedTimeSource;
use serde_json::json;

use self::sts::{Answer, Hand, Sts};
use super::{cache::Limits, roles::Timing, *};
use crate::config::{aws::Aws, outbound::RouteSigV4, value::StsRegion, value::Upstream};

const ROLE: &str = "arn:aws:iam::123456789012:role/orders-caller";
const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);

/// Quick where a test waits for failure, patient where it waits for success on a busy machine.
fn timing() -> Timing {
    Timing {
        attempts: 1,
        first_pause: Duration::from_millis(1),
        ..Timing::default()
    }
}

/// For an STS that hangs.
fn hasty() -> Timing {
    Timing {
        attempt: Duration::from_millis(200),
        call: Duration::from_millis(300),
        limits: Limits {
            patience: Duration::from_millis(20),
            ..Timing::default().limits
        },
        ..timing()
    }
}

struct World {
    clock: Hand,
    sts: Sts,
    roles: Roles,
}

impl World {
    async fn new() -> Self {
        Self::with(timing()).await
    }

    async fn with(timing: Timing) -> Self {
        let role = json!({"arn": ROLE, "session_name": "orders", "external_id": "tenant-1"});
        Self::of(timing, json!({"orders-caller": role}), |_| Vec::new()).await
    }

    /// With these roles; `failover` gets a clock for what stands in for other regions.
    async fn of(
        timing: Timing,
        roles: serde_json::Value,
        failover: impl FnOnce(&Hand) -> Vec<StsRegion>,
    ) -> Self {
        let clock = Hand::at(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        let sts = Sts::start(clock.clone()).await;
        let base = Credentials::new(
            "AKIABASE",
            "base-secret",
            Some("base-token".to_owned()),
            None,
            "test",
        );
        let settings = Aws {
            region: Some("eu-west-1".to_owned()),
            secretsmanager: Default::default(),
            sts_endpoint: Some(Upstream {
                tls: false,
                host: sts.address.ip().to_string(),
                port: sts.address.port(),
                base_path: String::new(),
            }),
            sts_failover: failover(&clock),
            roles: serde_json::from_value(roles).unwrap(),
        };
        let roles = Roles::with_provider_and_time(
            &settings,
            SharedCredentialsProvider::new(base),
            SharedTimeSource::new(clock.clone()),
            timing,
        )
        .await
        .unwrap();
        Self { clock, sts, roles }
    }

    fn signer(&self) -> Signer {
        self.signer_of("orders-caller")
    }

    /// Of a route with this role.
    fn signer_of(&self, role: &str) -> Signer {
        let route = RouteSigV4 {
            role: Some(role.parse().unwrap()),
            ..route()
        };
        Signer::new(&self.roles, &route, Some(&workload())).unwrap()
    }
}

type Change = fn(&mut RouteSigV4);

fn workload() -> warifu::SpiffeId {
    warifu::SpiffeId::new("spiffe://example.org/shop/orders").unwrap()
}

fn route() -> RouteSigV4 {
    RouteSigV4 {
        role: Some("orders-caller".parse().unwrap()),
        signed_headers: vec!["x-tenant".parse().unwrap()],
        ..RouteSigV4::new("execute-api")
    }
}

fn request(uri: &str) -> Parts {
    let request = Request::post(uri)
        .header("host", "abc.execute-api.eu-west-1.amazonaws.com")
        .header("content-type", "application/json");
    request.body(()).unwrap().into_parts().0
}

async fn signed(signer: &Signer) -> Result<String, SignError> {
    let mut parts = request("/prod/charges");
    signer.sign(&mut parts, &Payload::hash(b"{}")).await?;
    Ok(parts.headers[AUTHORIZATION].to_str().unwrap().to_owned())
}

/// Which of STS's credentials a request is signed with.
async fn key(signer: &Signer) -> String {
    let authorization = signed(signer).await.unwrap();
    let id = authorization.split("Credential=").nth(1).unwrap();
    id.split('/').next().unwrap().to_owned()
}

/// Waits until `signer` uses `wanted`: a renewal in the background has no other sign.
async fn becomes(signer: &Signer, wanted: &str) {
    while key(signer).await != wanted {
        tokio::task::yield_now().await;
    }
}

fn denied() -> Answer {
    let message = "User: arn:aws:iam::123456789012:user/agent is not authorized to perform: \
                   sts:AssumeRole on resource: arn:aws:iam::123456789012:role/orders-caller";
    Answer::Error(403, "AccessDenied", message.to_owned())
}

fn broken() -> Answer {
    Answer::Error(503, "ServiceUnavailable", "later".to_owned())
}

#[tokio::test]
async fn asks_sts_for_the_session_the_route_names() {
    let world = World::new().await;
    assert_eq!(key(&world.signer()).await, "ASIA1");
    let (head, form) = world.sts.last_request();
    assert_eq!(
        form,
        "Action=AssumeRole&Version=2011-06-15\
         &RoleArn=arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2Forders-caller\
         &RoleSessionName=orders&DurationSeconds=3600&ExternalId=tenant-1"
    );
    let authorization = head.headers[AUTHORIZATION].to_str().unwrap();
    assert!(authorization.contains("AKIABASE/"), "{authorization}");
    assert!(authorization.contains("/eu-west-1/sts/"), "{authorization}");
}

#[tokio::test]
async fn a_caller_that_goes_away_takes_the_renewal_with_it_from_nobody() {
    let world = World::new().await;
    world.sts.answer([Answer::Held(HOUR)]);
    let signer = Arc::new(world.signer());
    let first = tokio::spawn({
        let signer = signer.clone();
        async move { key(&signer).await }
    });
    world.sts.arrived().await;
    first.abort();
    world.sts.release();
    assert_eq!(key(&signer).await, "ASIA1");
    assert_eq!(world.sts.requests(), 1);
}

#[tokio::test]
async fn renews_in_the_background_ahead_of_expiry() {
    let world = World::new().await;
    let signer = world.signer();
    assert_eq!(key(&signer).await, "ASIA1");
    world.clock.advance(40 * MINUTE);
    assert_eq!(key(&signer).await, "ASIA1");
    assert_eq!(world.sts.requests(), 1);
    // In the window nobody waits: while STS has not answered, the old ones serve.
    world.clock.advance(10 * MINUTE);
    world.sts.answer([Answer::Held(HOUR)]);
    assert_eq!(key(&signer).await, "ASIA1");
    world.sts.arrived().await;
    world.sts.arrived().await;
    assert_eq!(key(&signer).await, "ASIA1");
    world.sts.release();
    becomes(&signer, "ASIA2").await;
    assert_eq!(world.sts.requests(), 2);
}

#[tokio::test]
async fn waits_for_new_credentials_in_the_last_minute() {
    let world = World::new().await;
    let signer = world.signer();
    assert_eq!(key(&signer).await, "ASIA1");
    world.clock.advance(HOUR - MINUTE);
    assert_eq!(key(&signer).await, "ASIA2");
}

#[tokio::test]
async fn s13_good_credentials_are_served_while_sts_fails_and_expired_ones_never() {
    for failure in [
        broken(),
        denied(),
        Answer::Error(400, "Throttling", "Rate exceeded".to_owned()),
        Answer::Torn,
    ] {
        let world = World::new().await;
        let signer = world.signer();
        assert_eq!(key(&signer).await, "ASIA1");
        world.sts.answer([failure.clone()]);
        // In the window, in the last minute, in the last second.
        for until_expiry in [10 * MINUTE, MINUTE / 2, Duration::from_secs(1)] {
            let expires = world.roles.status()[1].expires.unwrap();
            let now = aws_smithy_async::time::TimeSource::now(&world.clock);
            let left = expires.duration_since(now).unwrap();
            world.clock.advance(left - until_expiry);
            assert_eq!(key(&signer).await, "ASIA1", "{failure:?}");
        }
        world.clock.advance(Duration::from_secs(1));
        let error = signed(&signer).await.unwrap_err();
        assert!(
            matches!(&error, SignError::NoCredentials { role, .. } if role == ROLE),
            "{failure:?}: {error:?}"
        );
        // And it heals by itself.
        world.sts.answer([Answer::Credentials(HOUR)]);
        world.clock.advance(MINUTE);
        assert_eq!(key(&signer).await, "ASIA2", "{failure:?}");
        assert_eq!(world.roles.status()[1].last_error, None);
    }
}

#[tokio::test]
async fn s13_a_hanging_sts_delays_nobody_for_long_while_credentials_are_good() {
    let world = World::with(Timing {
        attempt: HOUR,
        call: HOUR,
        ..hasty()
    })
    .await;
    let signer = world.signer();
    assert_eq!(key(&signer).await, "ASIA1");
    world.sts.answer([Answer::Hang]);
    world.clock.advance(HOUR - MINUTE);
    let served = tokio::time::timeout(Duration::from_secs(10), key(&signer)).await;
    assert_eq!(served.unwrap(), "ASIA1");
}

#[tokio::test]
async fn s13_who_outwaits_the_old_credentials_is_told_what_became_of_the_new() {
    let world = World::with(hasty()).await;
    let signer = world.signer();
    assert_eq!(key(&signer).await, "ASIA1");
    world.sts.answer([Answer::Hang]);
    world.clock.advance(HOUR - Duration::from_secs(1));
    let mut call = Box::pin(signed(&signer));
    tokio::select! {
        biased;
        _ = &mut call => panic!("it did not wait"),
        () = std::future::ready(()) => {}
    }
    world.clock.advance(Duration::from_secs(1));
    let error = call.await.unwrap_err().to_string();
    assert!(error.contains("aws.sts_endpoint"), "{error}");
}

#[tokio::test]
async fn a_hanging_sts_is_an_error_in_bounded_time() {
    let world = World::with(hasty()).await;
    world.sts.answer([Answer::Hang]);
    let error = signed(&world.signer()).await.unwrap_err().to_string();
    assert!(error.contains(ROLE), "{error}");
    assert!(error.contains("aws.sts_endpoint"), "{error}");
}

#[tokio::test]
async fn a_failure_is_not_repeated_at_once() {
    let world = World::new().await;
    let signer = world.signer();
    world.sts.answer([denied()]);
    let first = signed(&signer).await.unwrap_err().to_string();
    for _ in 0..10 {
        let again = signed(&signer).await.unwrap_err().to_string();
        assert_eq!(again, first);
    }
    assert_eq!(world.sts.requests(), 1);
    // A corrected trust policy is noticed within seconds.
    world.sts.answer([Answer::Credentials(HOUR)]);
    world.clock.advance(Duration::from_secs(20));
    assert_eq!(key(&signer).await, "ASIA1");
}

#[tokio::test]
async fn a_refusal_says_role_answer_and_what_to_do() {
    let world = World::new().await;
    world.sts.answer([denied()]);
    let error = signed(&world.signer()).await.unwrap_err().to_string();
    for part in [
        "no credentials for arn:aws:iam::123456789012:role/orders-caller: ",
        "STS refused AssumeRole",
        "AccessDenied",
        "is not authorized to perform: sts:AssumeRole",
        "must allow sts:AssumeRole for arn:aws:iam::123456789012:user/agent",
        "external_id",
    ] {
        assert!(error.contains(part), "{part:?} is not in {error:?}");
    }
}

#[tokio::test]
async fn an_unreachable_sts_is_named() {
    let world = World::new().await;
    let World { sts, roles, .. } = world;
    let address = sts.address;
    drop(sts);
    tokio::task::yield_now().await;
    let signer = Signer::new(&roles, &route(), Some(&workload())).unwrap();
    let error = signed(&signer).await.unwrap_err().to_string();
    assert!(error.contains(&format!("http://{address}")), "{error}");
    assert!(error.contains("reachable"), "{error}");
}

#[tokio::test]
async fn the_sdk_retries_what_may_pass() {
    let timing = Timing {
        attempts: 3,
        ..timing()
    };
    let world = World::with(timing).await;
    world
        .sts
        .answer([broken(), broken(), Answer::Credentials(HOUR)]);
    assert_eq!(key(&world.signer()).await, "ASIA1");
    assert_eq!(world.sts.requests(), 3);
}

#[tokio::test]
async fn a_clock_ten_minutes_off_is_corrected_for_signatures_and_expiry() {
    let world = World::new().await;
    world.sts.set_ahead(10 * MINUTE);
    // Fifteen minutes to go by our clock; five by STS's.
    world.sts.answer([Answer::Credentials(5 * MINUTE)]);
    let signer = world.signer();
    let mut parts = request("/");
    signer.sign(&mut parts, &Payload::hash(b"")).await.unwrap();
    let now = aws_smithy_async::time::TimeSource::now(&world.clock) + 10 * MINUTE;
    let date = aws_smithy_types::DateTime::from(now);
    let expected = date
        .fmt(aws_smithy_types::date_time::Format::DateTime)
        .unwrap()
        .replace(['-', ':'], "");
    let sent = parts.headers["x-amz-date"].to_str().unwrap();
    assert_eq!(sent.get(..13), expected.get(..13));
    // Five minutes later they have expired, though not by our clock.
    world.sts.answer([broken()]);
    world.clock.advance(5 * MINUTE);
    assert!(signed(&signer).await.is_err());
}

#[tokio::test]
async fn a_wrong_clock_is_named_when_sts_refuses_the_signature() {
    let world = World::new().await;
    world.sts.set_ahead(10 * MINUTE);
    let message = "Signature expired".to_owned();
    world
        .sts
        .answer([Answer::Error(403, "SignatureDoesNotMatch", message)]);
    let error = signed(&world.signer()).await.unwrap_err().to_string();
    assert!(error.contains("clock is 600 s behind STS's"), "{error}");
}

#[tokio::test]
async fn credentials_that_have_expired_already_are_not_taken() {
    let world = World::new().await;
    world.sts.answer([Answer::Credentials(Duration::ZERO)]);
    let error = signed(&world.signer()).await.unwrap_err().to_string();
    assert!(error.contains("check this machine's clock"), "{error}");
}

#[tokio::test]
async fn renewals_and_expiry_are_measured_for_each_session() {
    let world = World::new().await;
    let mut registry = prometheus_client::registry::Registry::default();
    world.roles.register(&mut registry);
    let signer = world.signer();
    let label = format!(r#"credentials="{ROLE}",session="orders""#);
    let (role, base) = (&label, r#"credentials="the base credentials",session="""#);
    let measured = |line: &str| {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let line = format!("aws_credentials_{line}\n");
        assert!(text.contains(&line), "{line} is not in\n{text}");
    };
    measured(&format!("expires_seconds{{{role}}} 0"));
    assert_eq!(key(&signer).await, "ASIA1");
    measured(&format!("expires_seconds{{{role}}} 1800003600"));
    measured(&format!("expires_seconds{{{base}}} 0"));
    measured(&format!("renewals_total{{{role},outcome=\"renewed\"}} 1"));
    measured(&format!("renewals_total{{{base},outcome=\"renewed\"}} 1"));
    world.clock.advance(HOUR);
    for (answer, failure) in [(broken(), "failed"), (denied(), "refused")] {
        world.sts.answer([answer]);
        world.clock.advance(MINUTE);
        signed(&signer).await.unwrap_err();
        measured(&format!("renewals_total{{{role},outcome=\"{failure}\"}} 1"));
    }
    // What has expired shows when it did: alerts compare it with the time.
    measured(&format!("expires_seconds{{{role}}} 1800003600"));
}

#[tokio::test]
async fn s12_no_secret_shows_in_debug_errors_or_status() {
    let world = World::new().await;
    let signer = world.signer();
    let mut parts = request("/");
    signer.sign(&mut parts, &Payload::hash(b"")).await.unwrap();
    let held = world.roles.base().get().await.unwrap();
    // A refusal that quotes the request, as SignatureDoesNotMatch does.
    let quoting =
        "does not match base-token\nx-amz-security-token:base-token base-secret".to_owned();
    world
        .sts
        .answer([Answer::Error(403, "SignatureDoesNotMatch", quoting)]);
    world.clock.advance(HOUR);
    let error = signed(&signer).await.unwrap_err();
    let shown = format!(
        "{:?} {:?} {:?} {:?} {error} {error:?} {:?}",
        world.roles,
        signer,
        held,
        parts.headers,
        world.roles.status(),
    );
    for secret in [
        "base-secret",
        "base-token",
        "issued-secret",
        "issued-token",
        "Signature=",
    ] {
        assert!(!shown.contains(secret), "{secret} shows in {shown}");
    }
}

#[tokio::test]
async fn base_credentials_sts_does_not_accept_are_looked_for_again() {
    let world = World::new().await;
    let signer = world.signer();
    let expired = Answer::Error(403, "ExpiredToken", "expired".to_owned());
    world.sts.answer([expired]);
    let error = signed(&signer).await.unwrap_err().to_string();
    assert!(error.contains("base credentials"), "{error}");
    let before = world.roles.status()[0].obtained.unwrap();
    world.clock.advance(MINUTE);
    assert!(signed(&signer).await.is_err());
    assert!(world.roles.status()[0].obtained.unwrap() > before);
}

#[tokio::test]
async fn a_route_without_a_role_signs_with_the_base_credentials() {
    let world = World::new().await;
    let route = RouteSigV4 {
        role: None,
        ..route()
    };
    let signer = Signer::new(&world.roles, &route, None).unwrap();
    assert_eq!(key(&signer).await, "AKIABASE");
    assert_eq!(world.sts.requests(), 0);
}

#[tokio::test]
async fn refuses_a_route_aws_would_refuse() {
    let world = World::new().await;
    let refused: &[(&str, Change)] = &[
        ("role", |route| route.role = Some("nobody".parse().unwrap())),
        ("service", |r| r.service = "s3express".to_owned()),
        ("service", |r| r.service = "Execute API".to_owned()),
        ("signed_headers", |r| r.signed_headers = vec![AUTHORIZATION]),
        ("signed_headers", |r| {
            r.signed_headers = vec!["x-amz-target".parse().unwrap()];
        }),
        ("amz_headers", |r| {
            r.amz_headers = Some(vec!["x-amz-date".to_owned()])
        }),
    ];
    for (field, change) in refused {
        let mut route = route();
        change(&mut route);
        let error = Signer::new(&world.roles, &route, Some(&workload()))
            .unwrap_err()
            .to_string();
        assert!(error.starts_with(field), "{field}: {error}");
    }
}
