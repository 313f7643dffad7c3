//! Client certificates that a good CA signed and that must be refused (S2), for peers to present.

use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose as Usage, SanType};
use warifu_tests::{
    listener::{Leaf, Listener, TestCa, uri},
    mesh::until,
};

/// Each with a name and words of the reason in the audit log.
pub(crate) fn all(ca: &TestCa) -> Vec<(&'static str, Leaf, &'static str)> {
    let hours = |count: u64| Duration::from_secs(3600 * count);
    let now = SystemTime::now();
    vec![
        (
            "expired",
            ca.leaf(|leaf| {
                leaf.not_before = (now - hours(2)).into();
                leaf.not_after = (now - hours(1)).into();
            }),
            "expired",
        ),
        (
            "not-yet-valid",
            ca.leaf(|leaf| leaf.not_before = (now + hours(1)).into()),
            "not valid yet",
        ),
        (
            "ca",
            ca.leaf(|leaf| leaf.is_ca = IsCa::Ca(BasicConstraints::Constrained(0))),
            "CA",
        ),
        (
            "key-cert-sign",
            ca.leaf(|leaf| leaf.key_usages.push(Usage::KeyCertSign)),
            "keyCertSign",
        ),
        (
            "no-key-usage",
            ca.leaf(|leaf| leaf.key_usages.clear()),
            "key usage",
        ),
        (
            "server-only",
            ca.leaf(|leaf| {
                leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            }),
            "extended key usage",
        ),
        (
            "two-ids",
            ca.leaf(|leaf| leaf.subject_alt_names.push(uri("payments"))),
            "URI",
        ),
        (
            "no-id",
            ca.leaf(|leaf| {
                leaf.subject_alt_names = vec![SanType::DnsName("orders".try_into().unwrap())];
            }),
            "URI",
        ),
        (
            "other-trust-domain",
            ca.leaf(|leaf| {
                let id = "spiffe://partner.example/orders".try_into().unwrap();
                leaf.subject_alt_names = vec![SanType::URI(id)];
            }),
            "trust domain",
        ),
        ("self-signed", ca.self_signed(), "UnknownIssuer"),
        // Its names are those of the good CA.
        ("other-ca", TestCa::new().leaf(|_| {}), "BadSignature"),
    ]
}

/// Waits until the audit log has `count` refused connections; the last one says `reason`.
pub(crate) async fn refused(listener: &Listener, count: usize, reason: &str) {
    let seen = async || {
        let mut lines = listener.audit.all();
        lines.retain(|line| line["event"] == "inbound-connection");
        (lines.len() == count).then(|| lines.pop())?
    };
    let line = until(&format!("refusal {count} is in the audit log"), seen).await;
    let detail = line["detail"].as_str().unwrap();
    assert!(detail.contains(reason), "expected {reason}: {line}");
}
