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
    let quotas = Quotas::default();
    let limits = Limits::default();
    let places = quotas.place(Some(&caller(1)), &limits, Instant::now());
    drop(places.unwrap());
    assert_eq!(quotas.lock().len(), 0);
}

#[test]
fn s14_a_burst_passes_and_then_one_at_a_time() {
    let now = Instant::now();
    let (limits, quotas) = (per_second(10, 3), Quotas::default());
    let quota = quotas.of(&caller(1), now);
    for _ in 0..3 {
        quota.take(limits, now).unwrap();
    }
    let wait = Duration::from_millis(100);
    assert_eq!(quota.take(limits, now).unwrap_err(), Exceeded::Rate(wait));
    // Refused ones cost nothing.
    assert_eq!(quota.take(limits, now).unwrap_err(), Exceeded::Rate(wait));
    let soon = now + Duration::from_millis(99);
    let wait = Duration::from_millis(1);
    assert_eq!(quota.take(limits, soon).unwrap_err(), Exceeded::Rate(wait));
    quota
        .take(limits, now + Duration::from_millis(100))
        .unwrap();
    assert!(
        quota
            .take(limits, now + Duration::from_millis(100))
            .is_err()
    );
    // A pause gives back the burst, and no more.
    let later = now + Duration::from_secs(60);
    for _ in 0..3 {
        quota.take(limits, later).unwrap();
    }
    assert!(quota.take(limits, later).is_err());
}

#[test]
fn s14_a_caller_has_so_many_requests_under_way_and_no_more() {
    let now = Instant::now();
    let limits = PerCaller {
        rate: None,
        concurrency: some(2),
    };
    let quotas = Quotas::default();
    let quota = quotas.of(&caller(1), now);
    let first = quota.take(limits, now).unwrap();
    let _second = quota.take(limits, now).unwrap();
    assert_eq!(quota.take(limits, now).unwrap_err(), Exceeded::Concurrency);
    drop(first);
    let _third = quota.take(limits, now).unwrap();
    assert_eq!(quota.take(limits, now).unwrap_err(), Exceeded::Concurrency);
}

#[test]
fn callers_are_told_apart_by_who_they_are_not_by_how_they_come() {
    let now = Instant::now();
    let (limits, quotas) = (per_second(1, 1), Quotas::default());
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
        quotas.of(other, now).take(limits, now).unwrap();
        assert!(quotas.of(other, now).take(limits, now).is_err());
    }
}

#[test]
fn s14_callers_are_forgotten_and_those_that_ask_are_not() {
    let now = Instant::now();
    let (limits, quotas) = (per_second(1, 1), Quotas::default());
    quotas.of(&caller(0), now).take(limits, now).unwrap();
    for name in 1..5 * HALF {
        quotas.of(&caller(name), now);
        if name % 1000 == 0 {
            assert!(
                quotas.of(&caller(0), now).take(limits, now).is_err(),
                "{name}"
            );
        }
    }
    assert!(quotas.lock().len() <= 2 * HALF);
}

#[test]
fn s14_what_was_used_up_counts_under_new_limits_and_nobody_pays_longer_than_they_take() {
    let now = Instant::now();
    let quotas = Quotas::default();
    let quota = quotas.of(&caller(1), now);
    let hourly = Rate {
        requests: some(2).unwrap(),
        every: Span(Duration::from_secs(3600)),
        burst: None,
    };
    let slow = PerCaller {
        rate: Some(hourly),
        concurrency: None,
    };
    let first = quota.take(slow, now).unwrap();
    let second = quota.take(slow, now).unwrap();
    assert!(quota.take(slow, now).is_err());
    // Raised, it has not to wait for an hour; nor is all forgiven.
    let fast = per_second(10, 3);
    let wait = Duration::from_millis(100);
    assert_eq!(quota.take(fast, now).unwrap_err(), Exceeded::Rate(wait));
    let third = quota.take(fast, now + wait).unwrap();
    // Those that are under way count as soon as somebody counts them.
    let one = PerCaller {
        rate: None,
        concurrency: some(3),
    };
    assert_eq!(quota.take(one, now).unwrap_err(), Exceeded::Concurrency);
    drop((first, second, third));
    quota.take(one, now).unwrap();
}

#[test]
fn s14_fewer_places_of_a_listener_are_fewer_at_once() {
    let now = Instant::now();
    let quotas = Quotas::default();
    let limits = |most| Limits {
        concurrency: some(most),
        ..Limits::default()
    };
    let held: Vec<_> = (0..3)
        .map(|_| quotas.place(None, &limits(3), now).unwrap())
        .collect();
    assert!(quotas.place(None, &limits(3), now).is_err());
    let more = quotas.place(None, &limits(4), now).unwrap();
    assert!(quotas.place(None, &limits(2), now).is_err());
    drop((held, more));
    quotas.place(None, &limits(1), now).unwrap();
}

proptest! {
    #[test]
    fn s14_no_more_pass_than_the_rate_and_the_burst(
        requests in 1usize..50,
        burst in 1usize..50,
        pauses in prop::collection::vec(0u64..200, 1..200),
    ) {
        let start = Instant::now();
        let (limits, quotas) = (per_second(requests, burst), Quotas::default());
        let quota = quotas.of(&caller(1), start);
        let (mut now, mut passed) = (start, 0usize);
        for pause in pauses {
            now += Duration::from_millis(pause);
            passed += usize::from(quota.take(limits, now).is_ok());
            let most = burst as f64 + (now - start).as_secs_f64() * requests as f64;
            prop_assert!(passed as f64 <= most + 1e-3, "{passed} > {most}");
        }
    }
}
