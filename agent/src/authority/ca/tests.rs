use proptest::prelude::*;
use x509_parser::{
    certificate::X509Certificate, extensions::GeneralName, parse_x509_certificate,
    x509::X509Version,
};

use super::{template::BACKDATE, *};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

fn t0() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn td() -> TrustDomain {
    TrustDomain::new("example.org").unwrap()
}

fn root(now: SystemTime, ttl: Duration) -> Root {
    let (certificate, key, _) = make_root(&td(), now, ttl).unwrap();
    Root::new(certificate, RootKey::held(&key).unwrap()).unwrap()
}

/// Under a root whose key is at hand nothing is waited for.
fn made_under(root: &Root, now: SystemTime, ttl: Duration) -> Result<Intermediate, CaError> {
    let td = td();
    let made = std::pin::pin!(Intermediate::make(&td, root, now, ttl));
    match made.poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
        std::task::Poll::Ready(made) => made,
        std::task::Poll::Pending => panic!("it waits"),
    }
}

fn subject_key() -> SubjectPublicKeyInfo {
    let key = new_key().unwrap();
    SubjectPublicKeyInfo::from_der(&rcgen::PublicKeyData::subject_public_key_info(&key)).unwrap()
}

fn leaf_of(intermediate: &Intermediate, now: SystemTime, ttl: Duration) -> Result<Leaf, CaError> {
    let wanted = Wanted {
        key: &subject_key(),
        csr: &[],
        id: &SpiffeId::new("spiffe://example.org/orders").unwrap(),
        dns: &["orders.internal".to_owned()],
        origin: None,
        ttl,
    };
    intermediate.leaf(wanted, now)
}

fn parsed(der: &CertificateDer<'static>) -> X509Certificate<'static> {
    let der: &'static [u8] = Vec::leak(der.to_vec());
    parse_x509_certificate(der).unwrap().1
}

fn uris(certificate: &X509Certificate<'_>) -> Vec<String> {
    let san = certificate.subject_alternative_name().unwrap().unwrap();
    san.value
        .general_names
        .iter()
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some((*uri).to_owned()),
            _ => None,
        })
        .collect()
}

#[test]
fn s02_a_leaf_is_an_x509_svid_and_can_sign_nothing() {
    let root = root(t0(), DAY);
    let intermediate = made_under(&root, t0(), HOUR).unwrap();
    let leaf = leaf_of(&intermediate, t0(), HOUR).unwrap();
    let leaf = parsed(&leaf.certificate);
    assert_eq!(leaf.version(), X509Version::V3);
    assert_eq!(leaf.subject().iter().count(), 0);
    assert_eq!(uris(&leaf), ["spiffe://example.org/orders"]);
    let san = leaf.subject_alternative_name().unwrap().unwrap();
    assert!(san.critical, "critical, since the subject is empty");
    assert_eq!(san.value.general_names.len(), 2);
    let constraints = leaf.basic_constraints().unwrap().unwrap();
    assert!(!constraints.value.ca && constraints.value.path_len_constraint.is_none());
    let usage = leaf.key_usage().unwrap().unwrap();
    assert!(usage.critical);
    assert_eq!(usage.value.flags, 1, "digitalSignature alone");
    let extended = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(extended.server_auth && extended.client_auth && !extended.any);
}

#[test]
fn ca_certificates_name_the_trust_domain_and_the_intermediate_ends_the_path() {
    let root = root(t0(), DAY);
    let intermediate = made_under(&root, t0(), HOUR).unwrap();
    for (certificate, path_len) in [
        (root.certificate(), None),
        (&intermediate.certificate, Some(0)),
    ] {
        let certificate = parsed(certificate);
        assert_eq!(uris(&certificate), ["spiffe://example.org"]);
        let constraints = certificate.basic_constraints().unwrap().unwrap();
        assert!(constraints.critical && constraints.value.ca);
        assert_eq!(constraints.value.path_len_constraint, path_len);
        let usage = certificate.key_usage().unwrap().unwrap().value;
        assert!(usage.key_cert_sign() && usage.crl_sign() && !usage.digital_signature());
        assert!(certificate.name_constraints().unwrap().is_none());
    }
}

#[test]
fn the_chain_verifies_and_the_root_has_the_pinned_key() {
    let root = root(t0(), DAY);
    let intermediate = made_under(&root, t0(), HOUR).unwrap();
    let leaf = leaf_of(&intermediate, t0(), HOUR).unwrap();
    let (root_cert, intermediate_cert) = (
        parsed(root.certificate()),
        parsed(&intermediate.certificate),
    );
    let leaf = parsed(&leaf.certificate);
    assert_eq!(leaf.issuer(), intermediate_cert.subject());
    assert_eq!(intermediate_cert.issuer(), root_cert.subject());
    leaf.verify_signature(Some(intermediate_cert.public_key()))
        .unwrap();
    intermediate_cert
        .verify_signature(Some(root_cert.public_key()))
        .unwrap();
    let pin = spki_sha256(root.certificate()).unwrap();
    assert_eq!(pin, digest(&SHA256, root_cert.public_key().raw).as_ref());
}

#[test]
fn two_roots_of_a_trust_domain_have_different_names() {
    let (one, other) = (root(t0(), DAY), root(t0(), DAY));
    assert_ne!(
        parsed(one.certificate()).subject().to_string(),
        parsed(other.certificate()).subject().to_string()
    );
}

#[test]
fn an_intermediate_is_stale_at_half_life_or_under_another_root() {
    let (one, other) = (root(t0(), DAY), root(t0(), DAY));
    let intermediate = made_under(&one, t0(), HOUR).unwrap();
    let minute = Duration::from_secs(60);
    assert!(!intermediate.is_stale(one.certificate(), t0() + 29 * minute));
    assert!(intermediate.is_stale(one.certificate(), t0() + 30 * minute));
    assert!(intermediate.is_stale(other.certificate(), t0()));
}

#[test]
fn nothing_is_signed_by_what_has_expired() {
    let root = root(t0(), DAY);
    let intermediate = made_under(&root, t0(), HOUR).unwrap();
    let late = leaf_of(&intermediate, t0() + HOUR, HOUR);
    assert!(matches!(late, Err(CaError::Expired("intermediate"))));
    let late = made_under(&root, t0() + DAY + BACKDATE, HOUR);
    assert!(matches!(late, Err(CaError::Expired("root"))));
}

#[test]
fn a_key_that_is_not_the_roots_is_refused() {
    let (certificate, _, _) = make_root(&td(), t0(), DAY).unwrap();
    let (_, key, _) = make_root(&td(), t0(), DAY).unwrap();
    assert!(Root::new(certificate, RootKey::held(&key).unwrap()).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn nothing_is_valid_before_or_after_its_issuer(
        root_ttl in 60u64..100_000, ttl in 1u64..200_000, leaf_ttl in 1u64..200_000,
        later in 0u64..50, nanos in 0u32..1_000_000_000,
    ) {
        let now = t0() + Duration::new(0, nanos);
        let root = root(now, Duration::from_secs(root_ttl));
        let later = now + Duration::from_secs(later);
        let intermediate =
            made_under(&root, later, Duration::from_secs(ttl)).unwrap();
        let leaf = leaf_of(&intermediate, later, Duration::from_secs(leaf_ttl)).unwrap();
        let chain = [root.certificate(), &intermediate.certificate, &leaf.certificate];
        let lives: Vec<_> = chain.iter().map(|der| parsed(der).validity().clone()).collect();
        for pair in lives.windows(2) {
            prop_assert!(pair[0].not_before <= pair[1].not_before);
            prop_assert!(pair[1].not_after <= pair[0].not_after);
        }
        prop_assert_eq!(system_time(lives[2].not_after), leaf.not_after, "told as it is");
        }
}
