use std::num::NonZeroUsize;

use proptest::prelude::*;
use warifu::caller::Subject;

use super::*;
use crate::config::{inbound::Rate, value::Span};

fn some(number: usize) -> Option<NonZeroUsize> {
    NonZeroUsize::new(number)
}

fn per_second(requests: usize, burst: usize) -> PerCaller {
    PerCaller {
        rate: Some(Rate {
            requests: some(requests).unwrap(),
            every: Span(Duration::from_secs(1)),
            burst: some(burst),
        }),
        concurrency: None,
    }
}

fn by_token(proof: &str, issuer: Option<&str>, subject: &str) -> Caller {
    Caller {
        peer: None,
        subject: Some(Subject {
            proof: proof.into(),
            subject: subject.into(),
            issuer: issuer.map(Into::into),
            scopes: Vec::new(),
            claims: Default::default(),
        }),
    }
}

fn caller(name: usize) -> Caller {
    by_token("jwt-svid", None, &format!("spiffe://example.org/{name}"))
}

#[test]
fn nothing_is_kept_of_callers_where_nothing_is_limited() {
    assert!(Quotas::new(PerCaller::default()).is_none());
}

#[test]
fn s14_a_burst_passes_and_then_one_at_a_time() {
    let now = Instant::now();
    let quotas = Quotas::new(per_second(10, 3)).unwrap();
    let quota = quotas.of(&caller(1), now);
    for _ in 0..3 {
        quota.take(now).unwrap();
    }
    let wait = Duration::from_millis(100);
    assert_eq!(quota.take(now).unwrap_err(), Exceeded::Rate(wait));
    // Refused ones cost nothing.
    assert_eq!(quota.take(now).unwrap_err(), Exceeded::Rate(wait));
    let soon = now + Duration::from_millis(99);
    let wait = Duration::from_millis(1);
    assert_eq!(quota.take(soon).unwrap_err(), Exceeded::Rate(wait));
    quota.take(now + Duration::from_millis(100)).unwrap();
    assert!(quota.take(now + Duration::from_millis(100)).is_err());
    // A pause gives back the burst, and no more.
    let later = now + Duration::from_secs(60);
    for _ in 0..3 {
        quota.take(later).unwrap();
    }
    assert!(quota.take(later).is_err());
}

#[test]
fn s14_a_caller_has_so_many_requests_under_way_and_no_more() {
    let now = Instant::now();
    let limits = PerCaller {
        rate: None,
        concurrency: some(2),
    };
    let quotas = Quotas::new(limits).unwrap();
    let quota = quotas.of(&caller(1), now);
    let first = quota.take(now).unwrap();
    let _second = quota.take(now).unwrap();
    assert_eq!(quota.take(now).unwrap_err(), Exceeded::Concurrency);
    drop(first);
    let _third = quota.take(now).unwrap();
    assert_eq!(quota.take(now).unwrap_err(), Exceeded::Concurrency);
}

#[test]
fn callers_are_told_apart_by_who_they_are_not_by_how_they_come() {
    let now = Instant::now();
    let quotas = Quotas::new(per_second(1, 1)).unwrap();
    let mut by_peer = crate::inbound::authenticate::Authenticated::example()
        .who()
        .clone();
    let quota = quotas.of(&by_peer, now);
    by_peer.peer.as_mut().unwrap().cert_sha256 = "ff".repeat(32);
    by_peer.subject = caller(1).subject;
    assert!(Arc::ptr_eq(&quota, &quotas.of(&by_peer, now)));
    let others = [
        by_token("cognito-access", Some("https://a"), "b"),
        by_token("cognito-access", Some("https://b"), "b"),
        by_token("oidc", Some("https://a"), "b"),
        by_token("oidc", Some("https://a"), "c"),
        by_token("oidc", None, "c"),
    ];
    for other in &others {
        quotas.of(other, now).take(now).unwrap();
        assert!(quotas.of(other, now).take(now).is_err());
    }
}

#[test]
fn s14_callers_are_forgotten_and_those_that_ask_are_not() {
    let now = Instant::now();
    let quotas = Quotas::new(per_second(1, 1)).unwrap();
    quotas.of(&caller(0), now).take(now).unwrap();
    for name in 1..5 * HALF {
        quotas.of(&caller(name), now);
        if name % 1000 == 0 {
            assert!(quotas.of(&caller(0), now).take(now).is_err(), "{name}");
        }
    }
    assert!(quotas.lock().len() <= 2 * HALF);
}

proptest! {
    #[test]
    fn s14_no_more_pass_than_the_rate_and_the_burst(
        requests in 1usize..50,
        burst in 1usize..50,
        pauses in prop::collection::vec(0u64..200, 1..200),
    ) {
        let start = Instant::now();
        let quotas = Quotas::new(per_second(requests, burst)).unwrap();
        let quota = quotas.of(&caller(1), start);
        let (mut now, mut passed) = (start, 0usize);
        for pause in pauses {
            now += Duration::from_millis(pause);
            passed += usize::from(quota.take(now).is_ok());
            let most = burst as f64 + (now - start).as_secs_f64() * requests as f64;
            prop_assert!(passed as f64 <= most + 1e-3, "{passed} > {most}");
        }
    }
}
