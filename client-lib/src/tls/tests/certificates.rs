//! S2: every broken certificate is refused by our server and by our client alike.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose as Purpose,
    IsCa, KeyUsagePurpose as Usage, SanType, date_time_ymd,
};

use super::*;
use crate::identity::test_ca::{extension, uri};

/// id-ce-keyUsage and id-ce-subjectAltName.
const KEY_USAGE: u64 = 15;
const SUBJECT_ALT_NAME: u64 = 17;

/// A leaf that is good but for `tweak` must be refused both ways, for `reason`.
fn assert_refused(reason: &str, tweak: impl FnOnce(&mut CertificateParams)) {
    let ca = TestCa::root();
    assert_chain_refused(reason, &ca.bundle("example.org"), ca.leaf(ORDERS, tweak));
}

fn assert_chain_refused(reason: &str, bundle: &TrustBundle, chain: Chain) {
    for met in meet(bundle, chain) {
        let error = met.expect_err(reason);
        assert!(error.contains(reason), "refused, but because: {error}");
    }
}

#[test]
fn a_good_leaf_is_accepted_both_ways() {
    let ca = TestCa::root();
    let met = meet(&ca.bundle("example.org"), ca.leaf(ORDERS, |_| {}));
    assert_eq!(met, [Ok(()), Ok(())]);
}

#[test]
fn a_leaf_with_dns_names_beside_its_id_is_accepted() {
    let ca = TestCa::root();
    let chain = ca.leaf(ORDERS, |leaf| {
        let name = "orders.internal".try_into().unwrap();
        leaf.subject_alt_names.push(SanType::DnsName(name));
    });
    assert_eq!(meet(&ca.bundle("example.org"), chain), [Ok(()), Ok(())]);
}

#[test]
fn s02_two_uri_sans_are_refused() {
    assert_refused("it has 2 URI SANs", |leaf| {
        leaf.subject_alt_names.push(uri(PAYMENTS));
    });
}

#[test]
fn s02_a_second_spelling_of_a_spiffe_id_is_refused() {
    for spelling in ["spiffe://eXample.org/orders", "SPIFFE://example.org/orders"] {
        assert_refused(
            "canonical form, which would be spiffe://example.org/orders",
            |leaf| {
                leaf.subject_alt_names = vec![uri(spelling)];
            },
        );
    }
}

#[test]
fn s02_a_second_uri_san_counts_even_if_it_is_no_text() {
    assert_refused("it has 2 URI SANs", |leaf| {
        leaf.subject_alt_names.clear();
        let mut names = vec![0x30, 0];
        for name in [ORDERS.as_bytes(), b"\xff\xfe"] {
            names.push(0x86);
            names.push(u8::try_from(name.len()).unwrap());
            names.extend(name);
        }
        names[1] = u8::try_from(names.len() - 2).unwrap();
        let san = extension(SUBJECT_ALT_NAME, false, &names);
        leaf.custom_extensions.push(san);
    });
}

#[test]
fn s02_no_uri_san_is_refused() {
    assert_refused("it has 0 URI SANs", |leaf| leaf.subject_alt_names.clear());
}

#[test]
fn s02_two_san_extensions_are_refused() {
    assert_refused("not a well-formed X.509 certificate", |leaf| {
        let id = PAYMENTS.as_bytes();
        let length = u8::try_from(id.len()).unwrap();
        let names = [&[0x30, length + 2, 0x86, length], id].concat();
        leaf.custom_extensions
            .push(extension(SUBJECT_ALT_NAME, false, &names));
    });
}

#[test]
fn s02_a_uri_that_is_no_spiffe_id_is_refused() {
    for bad in [
        "https://example.org/orders",
        "spiffe://example.org/orders/",
        "spiffe://example.org/a/../b",
        "spiffe://example.org/a%2fb",
        "spiffe://example.org:443/orders",
        "spiffe://user@example.org/orders",
    ] {
        assert_refused("not a SPIFFE ID", |leaf| {
            leaf.subject_alt_names = vec![uri(bad)];
        });
    }
}

#[test]
fn s02_the_id_of_a_trust_domain_is_refused() {
    assert_refused("has no path", |leaf| {
        leaf.subject_alt_names = vec![uri("spiffe://example.org")];
    });
}

#[test]
fn s02_an_empty_subject_needs_a_critical_san() {
    assert_refused("SAN extension not critical", |leaf| {
        leaf.distinguished_name = DistinguishedName::new();
        leaf.subject_alt_names.clear();
        let id = ORDERS.as_bytes();
        let length = u8::try_from(id.len()).unwrap();
        let names = [&[0x30, length + 2, 0x86, length], id].concat();
        leaf.custom_extensions
            .push(extension(SUBJECT_ALT_NAME, false, &names));
    });
}

#[test]
fn s02_a_ca_certificate_is_no_leaf() {
    assert_refused("it is a CA certificate", |leaf| {
        leaf.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    });
}

#[test]
fn s02_a_leaf_that_does_not_say_it_is_no_ca_is_refused() {
    assert_refused("it has no basic constraints", |leaf| {
        leaf.is_ca = IsCa::NoCa;
    });
}

#[test]
fn s02_a_missing_key_usage_is_refused() {
    assert_refused("it has no key usage", |leaf| leaf.key_usages.clear());
}

#[test]
fn s02_a_key_usage_without_digital_signature_is_refused() {
    assert_refused("lacks digitalSignature", |leaf| {
        leaf.key_usages = vec![Usage::KeyEncipherment];
    });
}

#[test]
fn s02_key_cert_sign_and_crl_sign_are_refused() {
    for usage in [Usage::KeyCertSign, Usage::CrlSign] {
        assert_refused("keyCertSign or cRLSign", |leaf| {
            leaf.key_usages = vec![Usage::DigitalSignature, usage];
        });
    }
}

#[test]
fn s02_a_key_usage_that_is_not_critical_is_refused() {
    assert_refused("key usage is not critical", |leaf| {
        leaf.key_usages.clear();
        let digital_signature = [3, 2, 7, 0x80];
        leaf.custom_extensions
            .push(extension(KEY_USAGE, false, &digital_signature));
    });
}

#[test]
fn s02_an_extended_key_usage_for_one_side_only_is_refused() {
    for purpose in [Purpose::ServerAuth, Purpose::ClientAuth] {
        assert_refused("lacks serverAuth or clientAuth", |leaf| {
            leaf.extended_key_usages = vec![purpose];
        });
    }
}

#[test]
fn s02_an_expired_leaf_is_refused() {
    assert_refused("expired", |leaf| leaf.not_after = date_time_ymd(2020, 1, 1));
}

#[test]
fn s02_a_leaf_that_is_not_valid_yet_is_refused() {
    assert_refused("not valid yet", |leaf| {
        leaf.not_before = date_time_ymd(4000, 1, 1);
    });
}

#[test]
fn s02_an_expired_intermediate_is_refused() {
    let root = TestCa::root();
    let expired = root.intermediate(|ca| ca.not_after = date_time_ymd(2020, 1, 1));
    let chain = expired.leaf(ORDERS, |_| {});
    assert_chain_refused("expired", &root.bundle("example.org"), chain);
}

#[test]
fn s02_an_expired_root_is_refused() {
    let root = TestCa::root_with(|ca| ca.not_after = date_time_ymd(2020, 1, 1));
    let chain = root.leaf(ORDERS, |_| {});
    assert_chain_refused("expired", &root.bundle("example.org"), chain);
}

#[test]
fn s02_a_root_that_is_not_in_the_bundle_is_refused() {
    let chain = TestCa::root().leaf(ORDERS, |_| {});
    // It has the name of the one that is, which is all a certificate says of its issuer.
    let bundle = TestCa::root().bundle("example.org");
    assert_chain_refused("BadSignature", &bundle, chain);
    let renamed = TestCa::root_with(|ca| {
        ca.distinguished_name
            .push(rcgen::DnType::CommonName, "another");
    });
    let bundle = renamed.bundle("example.org");
    let chain = TestCa::root().leaf(ORDERS, |_| {});
    assert_chain_refused("UnknownIssuer", &bundle, chain);
}

#[test]
fn s02_a_bundle_without_roots_refuses_everyone() {
    let root = TestCa::root();
    let mut bundle = root.bundle("example.org");
    bundle.x509_authorities.clear();
    assert_chain_refused("UnknownIssuer", &bundle, root.leaf(ORDERS, |_| {}));
}

#[test]
fn s02_the_path_length_of_an_intermediate_is_kept() {
    let root = TestCa::root();
    let last = root.intermediate(|ca| ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
    let met = meet(&root.bundle("example.org"), last.leaf(ORDERS, |_| {}));
    assert_eq!(met, [Ok(()), Ok(())]);
    let one_too_many = last.intermediate(|_| {}).leaf(ORDERS, |_| {});
    assert_chain_refused("PathLen", &root.bundle("example.org"), one_too_many);
}

#[test]
fn s02_the_path_length_of_a_root_is_kept() {
    let root = TestCa::root_with(|ca| ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
    let bundle = root.bundle("example.org");
    assert_eq!(meet(&bundle, root.leaf(ORDERS, |_| {})), [Ok(()), Ok(())]);
    let chain = root.intermediate(|_| {}).leaf(ORDERS, |_| {});
    assert_chain_refused("PathLen", &bundle, chain);
}

#[test]
fn s02_an_intermediate_without_key_cert_sign_is_refused() {
    let root = TestCa::root();
    let weak = root.intermediate(|ca| ca.key_usages = vec![Usage::DigitalSignature]);
    let chain = weak.leaf(ORDERS, |_| {});
    assert_chain_refused("EndEntityUsedAsCa", &root.bundle("example.org"), chain);
}

#[test]
fn s02_a_leaf_cannot_issue_leaves() {
    let root = TestCa::root();
    let greedy = root.intermediate(|leaf| {
        leaf.is_ca = IsCa::ExplicitNoCa;
        leaf.key_usages = vec![Usage::DigitalSignature];
        leaf.subject_alt_names = vec![uri(PAYMENTS)];
    });
    let chain = greedy.leaf(ORDERS, |_| {});
    assert_chain_refused("EndEntityUsedAsCa", &root.bundle("example.org"), chain);
}

#[test]
fn s02_a_leaf_in_the_bundle_is_no_root() {
    let root = TestCa::root_with(|leaf| {
        leaf.is_ca = IsCa::ExplicitNoCa;
        leaf.key_usages = vec![Usage::DigitalSignature];
    });
    let chain = root.leaf(ORDERS, |_| {});
    assert_chain_refused("UnknownIssuer", &root.bundle("example.org"), chain);
}

#[test]
fn s02_more_certificates_than_a_chain_has_are_refused() {
    let root = TestCa::root();
    let (mut chain, key) = root.leaf(ORDERS, |_| {});
    while chain.len() <= crate::identity::MAX_CHAIN {
        chain.push(root.intermediate(|_| {}).certificate.der().clone());
    }
    assert_chain_refused("at most 8", &root.bundle("example.org"), (chain, key));
}

#[test]
fn s02_the_key_of_another_leaf_does_not_prove_this_one() {
    let root = TestCa::root();
    let (chain, _) = root.leaf(ORDERS, |_| {});
    let (_, key) = root.leaf(PAYMENTS, |_| {});
    let bundle = root.bundle("example.org");
    assert_chain_refused("BadSignature", &bundle, (chain, key));
}
