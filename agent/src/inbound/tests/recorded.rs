//! What is written down and counted of requests.

use std::collections::BTreeSet;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::*;
use crate::config::inbound::Rule;

impl Fixture {
    /// What is measured, as Prometheus reads it.
    fn metrics(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        text
    }
}

fn shadow(name: &str, to: &str) -> Rule {
    Rule {
        name: Some(name.to_owned()),
        shadow: true,
        ..allow(Some(ORDERS), None, to)
    }
}

#[tokio::test]
async fn what_a_rule_in_shadow_would_have_done_is_written_down_and_counted_and_not_done() {
    let mut fixture = Fixture::with(OK, |config| {
        config.allow = vec![
            allow(Some(ORDERS), None, "GET /charges/*"),
            shadow("refunds", "GET /refunds"),
        ];
        config.deny = vec![shadow("secrets", "GET /charges/secret")];
    })
    .await;
    let mut orders = fixture.caller(ORDERS).await;
    for (path, result, denied_by, allowed_by) in [
        ("/charges/1", "allowed", None, None),
        ("/charges/secret", "allowed", Some("secrets"), None),
        ("/refunds", "denied", None, Some("refunds")),
        ("/other", "denied", None, None),
    ] {
        let status = orders.get(path).await.status();
        assert_eq!(
            status,
            if result == "allowed" { 200 } else { 403 },
            "{path}"
        );
        let line = fixture.audited();
        let said = |name: &str| line.get(name).and_then(serde_json::Value::as_str);
        assert_eq!(said("path"), Some(path));
        assert_eq!(said("result"), Some(result));
        assert_eq!(said("shadow_denied_by"), denied_by, "{path}");
        assert_eq!(said("shadow_allowed_by"), allowed_by, "{path}");
        let rule = (result == "allowed").then_some("allow[0]");
        assert_eq!(said("rule"), rule, "{path}");
    }
    for _ in 0..2 {
        fixture.seen().await;
    }
    assert!(fixture.nothing_seen());
    let metrics = fixture.metrics();
    let counted: BTreeSet<_> = metrics
        .lines()
        .filter(|line| line.starts_with("inbound_shadow_total"))
        .collect();
    assert_eq!(
        counted,
        BTreeSet::from([
            "inbound_shadow_total{rule=\"refunds\",would=\"allow\"} 1",
            "inbound_shadow_total{rule=\"secrets\",would=\"deny\"} 1",
        ])
    );
}

#[tokio::test]
async fn a_request_that_a_rule_in_shadow_would_have_denied_has_its_line_in_every_sample() {
    let fixture = Fixture::sampled(NonZeroU32::MAX, |config| {
        config.deny = vec![shadow("secrets", "GET /charges/secret")];
    })
    .await;
    let mut orders = fixture.caller(ORDERS).await;
    for path in ["/first", "/charges/1", "/charges/secret", "/charges/1"] {
        assert_eq!(orders.get(path).await.status(), 200);
    }
    let lines = fixture.audit.all();
    let paths: Vec<_> = lines.iter().map(|line| line["path"].clone()).collect();
    assert_eq!(paths, ["/first", "/charges/secret"]);
}

/// Strangers choose methods, paths, hosts, headers, tokens and names of keys, and callers their own names.
#[tokio::test]
async fn s14_no_label_of_a_metric_is_a_strangers_to_choose() {
    let fixture = Fixture::with(OK, accept_tokens).await;
    let series = || -> BTreeSet<String> {
        let metrics = fixture.metrics();
        let counted = metrics.lines().filter(|line| !line.starts_with('#'));
        let named = counted.filter_map(|line| line.rsplit_once(' '));
        named.map(|(series, _)| series.to_owned()).collect()
    };
    let ask = async |odd: String| {
        let id = format!("spiffe://example.org/{odd}");
        let token = fixture.ca.token(&id, &odd, json!({ "iss": odd }));
        let header = json!({"alg": "ES256", "typ": "JWT", "kid": odd}).to_string();
        let unknown = format!("{}.e30.AAAA", URL_SAFE_NO_PAD.encode(header));
        for (line, headers) in [
            (format!("{} /a", odd.to_uppercase()), String::new()),
            (format!("GET /{odd}?{odd}"), format!("{odd}: {odd}\r\n")),
            (format!("GET /{odd}/../x"), String::new()),
            (
                "GET /a".into(),
                format!("authorization: Bearer {token}\r\n"),
            ),
            (
                "GET /a".into(),
                format!("authorization: Bearer {unknown}\r\n"),
            ),
            ("GET /a".into(), format!("authorization: {odd} x\r\n")),
            (
                "GET /a".into(),
                format!("upgrade: {odd}\r\nconnection: upgrade\r\n"),
            ),
            ("GET /a".into(), format!("transfer-encoding: {odd}\r\n")),
        ] {
            for id in [ORDERS, &id] {
                let mut caller = fixture.caller(id).await;
                let request = format!("{line} HTTP/1.1\r\nhost: {odd}.example\r\n{headers}\r\n");
                caller.send(&request).await;
                let _ = caller.response().await;
            }
        }
    };
    ask("odd-1".into()).await;
    let before = series();
    for number in 2..6 {
        ask(format!("odd-{number}")).await;
    }
    let after = series();
    let new: Vec<_> = after.difference(&before).collect();
    assert!(new.is_empty(), "{new:?}");
    assert!(
        after
            .iter()
            .all(|name| !name.to_lowercase().contains("odd-"))
    );
    // They were counted.
    for reason in ["bad-path", "denied", "invalid-token"] {
        let name = format!("inbound_refused_total{{reason=\"{reason}\"}}");
        assert!(after.contains(&name), "{after:?}");
    }
}
