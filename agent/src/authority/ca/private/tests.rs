use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose as Purpose, IsCa, Issuer, KeyUsagePurpose as Usage, SanType,
    SubjectPublicKeyInfo,
};
use warifu::SpiffeId;

use super::*;
use crate::authority::ca::{new_key, template};

const HOUR: Duration = Duration::from_secs(3600);

fn t0() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

/// A private CA under a root of its own, whose templates a test can change.
struct Private {
    root: CertificateDer<'static>,
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Private {
    fn new() -> Self {
        let ca = |name: &str| {
            let mut params = CertificateParams::default();
            params.distinguished_name = DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![Usage::KeyCertSign];
            params.not_before = t0().into();
            params.not_after = (t0() + HOUR * 1000).into();
            params
        };
        let root_key = new_key().unwrap();
        let root = ca("root").self_signed(&root_key).unwrap();
        let key = new_key().unwrap();
        let params = ca("private");
        let issuer = Issuer::new(ca("root"), root_key);
        let certificate = params.signed_by(&key, &issuer).unwrap();
        Self {
            root: root.into(),
            certificate: certificate.into(),
            issuer: Issuer::new(params, key),
        }
    }

    fn answer(&self, params: &CertificateParams, key: &impl rcgen::PublicKeyData) -> Answer {
        let certificate = params.signed_by(key, &self.issuer).unwrap();
        Answer {
            certificate: certificate.into(),
            chain: vec![self.certificate.clone(), self.root.clone()],
        }
    }
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

fn origin() -> Origin {
    Origin::new("lineage", None).unwrap()
}

/// What becomes of a leaf that is as it should be but for `tweak`.
fn leaf(tweak: impl FnOnce(&mut CertificateParams)) -> Result<Leaf, String> {
    let private = Private::new();
    let key = new_key().unwrap();
    answered_leaf(&private, &key, |params| {
        tweak(params);
        private.answer(params, &key)
    })
}

fn answered_leaf(
    private: &Private,
    key: &KeyPair,
    answer: impl FnOnce(&mut CertificateParams) -> Answer,
) -> Result<Leaf, String> {
    let now = t0() + HOUR;
    let (id, origin) = (
        SpiffeId::new("spiffe://example.org/orders").unwrap(),
        origin(),
    );
    let wanted = Wanted {
        key: &SubjectPublicKeyInfo::from_der(&key.subject_public_key_info()).unwrap(),
        csr: &[],
        id: &id,
        dns: &["orders.internal".to_owned()],
        origin: Some(&origin),
        ttl: HOUR,
    };
    let asked = Validity::new(now, HOUR);
    let mut params = template::leaf(&id, wanted.dns, wanted.origin, asked).unwrap();
    params
        .distinguished_name
        .push(DnType::OrganizationName, SUBJECT);
    // As the template EndEntityCertificate has it.
    params.key_usages.push(Usage::KeyEncipherment);
    leaf_of(answer(&mut params), wanted, asked, &private.root, now)
}

/// What becomes of an intermediate that is as it should be but for `tweak`.
fn intermediate(tweak: impl FnOnce(&mut CertificateParams)) -> Result<Validity, String> {
    let private = Private::new();
    let td = TrustDomain::new("example.org").unwrap();
    let key = new_key().unwrap();
    let validity = Validity::new(t0() + HOUR, HOUR);
    let asked = template::intermediate(&td, &key, validity).unwrap();
    let mut params = asked.clone();
    // As the template SubordinateCACertificate_PathLen0 has it.
    params.key_usages.push(Usage::DigitalSignature);
    tweak(&mut params);
    let wanted = Subordinate {
        trust_domain: &td,
        key: &key,
        params: &asked,
        validity,
    };
    let answer = private.answer(&params, &key);
    wanted
        .checked(answer, &private.root)
        .map(|(_, above, validity)| {
            assert_eq!(above, [private.certificate]);
            validity
        })
}

#[test]
fn a_leaf_as_it_was_asked_for_is_taken_with_what_is_above_it() {
    let leaf = leaf(|_| {}).unwrap();
    assert_eq!(leaf.above.len(), 1, "the root is not sent");
    assert_eq!(leaf.not_after, t0() + HOUR * 2);
    assert_eq!(leaf.serial.len(), 32);
}

#[test]
fn s02_a_leaf_that_an_agent_would_refuse_is_refused_here() {
    type Tweak = fn(&mut CertificateParams);
    let tweaks: [(&str, Tweak); 9] = [
        ("2 URI SANs", |leaf| {
            leaf.subject_alt_names
                .push(uri("spiffe://example.org/payments"))
        }),
        ("spiffe://example.org/payments", |leaf| {
            leaf.subject_alt_names[0] = uri("spiffe://example.org/payments");
        }),
        ("0 URI SANs", |leaf| {
            leaf.subject_alt_names.remove(0);
        }),
        ("CA certificate", |leaf| {
            leaf.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)
        }),
        ("no basic constraints", |leaf| leaf.is_ca = IsCa::NoCa),
        ("keyCertSign", |leaf| {
            leaf.key_usages.push(Usage::KeyCertSign)
        }),
        ("digitalSignature", |leaf| {
            leaf.key_usages = vec![Usage::KeyEncipherment]
        }),
        ("clientAuth", |leaf| {
            leaf.extended_key_usages = vec![Purpose::ServerAuth]
        }),
        ("is none that an agent takes", |leaf| {
            leaf.not_after = (t0() + HOUR / 2).into()
        }),
    ];
    for (reason, tweak) in tweaks {
        let why = leaf(tweak).unwrap_err();
        assert!(why.contains(reason), "{why}");
    }
}

#[test]
fn a_leaf_that_says_more_or_lives_longer_than_was_asked_for_is_refused() {
    type Tweak = fn(&mut CertificateParams);
    let tweaks: [(&str, Tweak); 9] = [
        ("longer than asked", |leaf| {
            leaf.not_after = (t0() + HOUR * 2 + TOLERANCE * 2).into()
        }),
        ("long before", |leaf| leaf.not_before = t0().into()),
        ("other.internal", |leaf| {
            let name = SanType::DnsName("other.internal".try_into().unwrap());
            leaf.subject_alt_names.push(name);
        }),
        ("IPAddress", |leaf| {
            leaf.subject_alt_names
                .push(SanType::IpAddress([10, 0, 0, 1].into()));
        }),
        ("orders.internal", |leaf| {
            leaf.subject_alt_names.pop();
        }),
        ("usages beside", |leaf| {
            leaf.extended_key_usages.push(Purpose::CodeSigning)
        }),
        ("usages beside", |leaf| {
            leaf.extended_key_usages
                .push(Purpose::Other(vec![1, 3, 6, 1, 5, 5, 7, 3, 17]));
        }),
        ("no extended key usage", |leaf| {
            leaf.extended_key_usages.clear()
        }),
        ("lacks the extension", |leaf| leaf.custom_extensions.clear()),
    ];
    for (reason, tweak) in tweaks {
        let why = leaf(tweak).unwrap_err();
        assert!(why.contains(reason), "{why}");
    }
    let named = leaf(|leaf| {
        leaf.distinguished_name.push(DnType::CommonName, "admin");
    });
    assert!(named.unwrap_err().contains("CN=admin"));
    assert!(leaf(|leaf| leaf.not_after = (t0() + HOUR * 2 + TOLERANCE).into()).is_ok());
}

#[test]
fn a_leaf_for_another_key_or_of_another_root_is_refused() {
    let private = Private::new();
    let (key, other) = (new_key().unwrap(), new_key().unwrap());
    let why = answered_leaf(&private, &key, |params| private.answer(params, &other));
    assert!(why.unwrap_err().contains("another key"));
    let foreign = Private::new();
    let why = answered_leaf(&private, &key, |params| foreign.answer(params, &key));
    assert!(why.unwrap_err().contains("another root"));
    // It claims to be of the published root.
    let why = answered_leaf(&private, &key, |params| Answer {
        chain: vec![foreign.certificate.clone(), private.root.clone()],
        ..foreign.answer(params, &key)
    });
    assert!(why.unwrap_err().contains("is none that an agent takes"));
    let why = answered_leaf(&private, &key, |params| Answer {
        chain: vec![],
        ..private.answer(params, &key)
    });
    assert!(why.unwrap_err().contains("another root"));
}

#[test]
fn an_intermediate_as_it_was_asked_for_is_taken_and_a_shorter_one_told_as_it_is() {
    let validity = intermediate(|_| {}).unwrap();
    assert_eq!(validity.not_after, t0() + HOUR * 2);
    let shorter = intermediate(|it| it.not_after = (t0() + HOUR + HOUR / 2).into()).unwrap();
    assert_eq!(shorter.not_after, t0() + HOUR + HOUR / 2);
}

#[test]
fn an_intermediate_that_could_sign_more_or_longer_than_was_asked_for_is_refused() {
    type Tweak = fn(&mut CertificateParams);
    let tweaks: [(&str, Tweak); 9] = [
        ("path length of 0", |it| {
            it.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)
        }),
        ("path length of 0", |it| {
            it.is_ca = IsCa::Ca(BasicConstraints::Constrained(1))
        }),
        ("no CA", |it| it.is_ca = IsCa::ExplicitNoCa),
        ("no basic constraints", |it| it.is_ca = IsCa::NoCa),
        ("keyCertSign", |it| {
            it.key_usages = vec![Usage::DigitalSignature]
        }),
        ("keyCertSign", |it| it.key_usages.clear()),
        ("longer than asked", |it| {
            it.not_after = (t0() + HOUR * 24 * 365).into()
        }),
        ("spiffe://example.com", |it| {
            it.subject_alt_names = vec![uri("spiffe://example.com")]
        }),
        ("subject alternative names", |it| {
            it.subject_alt_names.clear()
        }),
    ];
    for (reason, tweak) in tweaks {
        let why = intermediate(tweak).unwrap_err();
        assert!(why.contains(reason), "{why}");
    }
    let renamed = intermediate(|it| {
        it.distinguished_name = DistinguishedName::new();
        it.distinguished_name.push(DnType::CommonName, "other");
    });
    assert!(renamed.unwrap_err().contains("CN=other"));
}
