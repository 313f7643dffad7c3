//! The X.509-SVID (SPIFFE X509-SVID specification).

use std::{fmt, sync::Arc, time::SystemTime};

use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use thiserror::Error;
use zeroize::Zeroizing;

use super::{
    leaf::{self, Leaf, LeafError},
    pem,
};
use crate::{Secret, SpiffeId};

/// Longest chain accepted, leaf included: what the verifiers of peers accept too.
pub const MAX_CHAIN: usize = 8;

/// A certificate chain with exactly one SPIFFE ID in its leaf, and the leaf's private key.
///
/// The key is wiped when this is dropped, and `Debug` doesn't show it.
pub struct X509Svid {
    leaf: Leaf,
    key: Zeroizing<PrivatePkcs8KeyDer<'static>>,
    /// The chain, and the key in the form TLS signs with; parsed once, shared by every TLS configuration.
    certified: Arc<CertifiedKey>,
}

/// Why bytes are not an X.509-SVID.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SvidError {
    /// The chain is empty.
    #[error("the certificate chain is empty")]
    EmptyChain,
    /// The chain is longer than [`MAX_CHAIN`].
    #[error("the certificate chain has {0} certificates, at most {MAX_CHAIN} are accepted")]
    ChainTooLong(usize),
    /// The leaf breaks a MUST of the X509-SVID specification.
    #[error("the leaf is no X.509-SVID: {0}")]
    Leaf(#[from] LeafError),
    /// A certificate after the leaf can't have signed anything.
    #[error("certificate {0} of the chain (the leaf is 0) is not a CA certificate")]
    NotCa(usize),
    /// The private key can't be read.
    #[error("the private key is not one in PKCS#8 that TLS can sign with")]
    Key,
    /// The private key belongs to another certificate.
    #[error("the private key is not that of the leaf")]
    KeyMismatch,
}

impl X509Svid {
    /// Parses `chain` (DER, leaf first, intermediates after it, no root) and `key` (PKCS#8 DER).
    ///
    /// # Errors
    /// When the leaf breaks a MUST of the X509-SVID specification, or the key is not the leaf's.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivatePkcs8KeyDer<'static>,
    ) -> Result<Self, SvidError> {
        let key = Zeroizing::new(key);
        let (first, rest) = chain.split_first().ok_or(SvidError::EmptyChain)?;
        if chain.len() > MAX_CHAIN {
            return Err(SvidError::ChainTooLong(chain.len()));
        }
        let leaf = Leaf::parse(first)?;
        for (index, der) in rest.iter().enumerate() {
            leaf::parse(der)
                .and_then(|certificate| leaf::ca_path_length(&certificate))
                .ok_or(SvidError::NotCa(index + 1))?;
        }
        let signer = crate::tls::provider()
            .key_provider
            .load_private_key(PrivateKeyDer::Pkcs8(key.clone_key()))
            .map_err(|_| SvidError::Key)?;
        let certified = CertifiedKey::new(chain, signer);
        certified.keys_match().map_err(|_| SvidError::KeyMismatch)?;
        Ok(Self {
            leaf,
            key,
            certified: Arc::new(certified),
        })
    }

    /// The identity the leaf proves.
    pub fn id(&self) -> &SpiffeId {
        &self.leaf.id
    }

    /// Leaf first, then intermediates; DER.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }

    /// The leaf's private key.
    pub fn key(&self) -> &PrivatePkcs8KeyDer<'static> {
        &self.key
    }

    /// When the leaf becomes valid.
    pub fn not_before(&self) -> SystemTime {
        self.leaf.not_before
    }

    /// When the leaf expires.
    pub fn not_after(&self) -> SystemTime {
        self.leaf.not_after
    }

    /// The chain as PEM (RFC 7468), leaf first.
    pub fn chain_pem(&self) -> String {
        pem::certificates(self.chain())
    }

    /// The private key as PEM (`PRIVATE KEY`, PKCS#8).
    pub fn key_pem(&self) -> Secret<String> {
        Secret::new(pem::encode("PRIVATE KEY", self.key.secret_pkcs8_der()))
    }

    /// What rustls presents.
    pub(crate) fn certified(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }
}

impl Clone for X509Svid {
    fn clone(&self) -> Self {
        Self {
            leaf: self.leaf.clone(),
            key: Zeroizing::new(self.key.clone_key()),
            certified: Arc::clone(&self.certified),
        }
    }
}

impl fmt::Debug for X509Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("X509Svid")
            .field("id", &self.id().to_string())
            .field("not_after", &self.not_after())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use proptest::{prelude::*, sample::Index};
    use rcgen::{IsCa, KeyUsagePurpose, date_time_ymd};

    use super::*;
    use crate::identity::{spki_sha256, test_ca::TestCa};

    const ORDERS: &str = "spiffe://example.org/orders";

    #[test]
    fn an_svid_says_whose_it_is_and_until_when() {
        let intermediate = TestCa::root().intermediate(|_| {});
        let (chain, key) = intermediate.leaf(ORDERS, |leaf| {
            leaf.not_before = date_time_ymd(2026, 1, 1);
            leaf.not_after = date_time_ymd(2026, 1, 2);
        });
        let svid = X509Svid::new(chain.clone(), key.clone_key()).unwrap();
        assert_eq!(svid.id().to_string(), ORDERS);
        assert_eq!(svid.chain(), chain);
        assert_eq!(svid.key().secret_pkcs8_der(), key.secret_pkcs8_der());
        assert_eq!(
            svid.not_before(),
            SystemTime::from(date_time_ymd(2026, 1, 1))
        );
        assert_eq!(
            svid.not_after(),
            SystemTime::from(date_time_ymd(2026, 1, 2))
        );
    }

    #[test]
    fn s02_a_leaf_that_breaks_a_rule_is_no_svid() {
        let ca = TestCa::root();
        let make = |tweak: fn(&mut rcgen::CertificateParams)| {
            let (chain, key) = ca.leaf(ORDERS, tweak);
            match X509Svid::new(chain, key) {
                Err(SvidError::Leaf(error)) => error,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(
            make(|leaf| leaf.subject_alt_names.clear()),
            LeafError::UriSans(0)
        );
        assert_eq!(
            make(|leaf| leaf.is_ca = IsCa::NoCa),
            LeafError::NoBasicConstraints
        );
        assert_eq!(make(|leaf| leaf.key_usages.clear()), LeafError::NoKeyUsage);
    }

    #[test]
    fn refuses_a_key_that_is_not_the_leafs() {
        let ca = TestCa::root();
        let (chain, _) = ca.leaf(ORDERS, |_| {});
        let (_, other) = ca.leaf(ORDERS, |_| {});
        let error = X509Svid::new(chain.clone(), other).unwrap_err();
        assert!(matches!(error, SvidError::KeyMismatch), "{error}");
        let error = X509Svid::new(chain, b"no key"[..].into()).unwrap_err();
        assert!(matches!(error, SvidError::Key), "{error}");
    }

    #[test]
    fn refuses_an_empty_and_an_endless_chain_and_one_of_leaves() {
        let ca = TestCa::root();
        let (chain, key) = ca.leaf(ORDERS, |_| {});
        let new = |chain| X509Svid::new(chain, key.clone_key()).unwrap_err();
        assert!(matches!(new(Vec::new()), SvidError::EmptyChain));
        let mut long = chain.clone();
        long.resize(MAX_CHAIN + 1, ca.certificate.der().clone());
        assert!(matches!(new(long), SvidError::ChainTooLong(9)));
        let leaves = [chain.clone(), chain.clone()].concat();
        assert!(matches!(new(leaves), SvidError::NotCa(1)));
        let weak = ca.intermediate(|ca| ca.key_usages = vec![KeyUsagePurpose::CrlSign]);
        let chain = vec![chain[0].clone(), weak.certificate.der().clone()];
        assert!(matches!(new(chain), SvidError::NotCa(1)));
    }

    #[test]
    fn s12_the_private_key_does_not_show_in_debug() {
        let svid = TestCa::root().svid(ORDERS);
        let text = format!("{svid:?} {:?}", svid.key_pem());
        let secret = &svid.key().secret_pkcs8_der()[36..52];
        let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(text.contains(ORDERS), "{text}");
        for form in [hex, STANDARD.encode(secret), format!("{secret:?}")] {
            assert!(!text.contains(&form), "{text}");
        }
    }

    #[test]
    fn pem_holds_the_der_in_lines_of_64() {
        let svid = TestCa::root().intermediate(|_| {}).svid(ORDERS);
        let blocks = |pem: &str, label: &str| -> Vec<Vec<u8>> {
            pem.split_terminator(&format!("-----END {label}-----\n"))
                .map(|block| {
                    let body = block
                        .strip_prefix(&format!("-----BEGIN {label}-----\n"))
                        .unwrap();
                    assert!(body.lines().all(|line| line.len() <= 64));
                    STANDARD.decode(body.replace('\n', "")).unwrap()
                })
                .collect()
        };
        let chain: Vec<_> = svid.chain().iter().map(|der| der.to_vec()).collect();
        assert_eq!(blocks(&svid.chain_pem(), "CERTIFICATE"), chain);
        let key = blocks(svid.key_pem().expose(), "PRIVATE KEY");
        assert_eq!(key, [svid.key().secret_pkcs8_der()]);
    }

    #[test]
    fn a_key_is_known_by_its_hash_whatever_certificate_holds_it() {
        let ca = TestCa::root();
        let (chain, key) = ca.leaf(ORDERS, |_| {});
        let pair = rcgen::KeyPair::try_from(key.secret_pkcs8_der()).unwrap();
        let again = rcgen::CertificateParams::default().self_signed(&pair);
        assert_eq!(spki_sha256(&chain[0]), spki_sha256(again.unwrap().der()));
        assert_ne!(spki_sha256(&chain[0]), spki_sha256(ca.certificate.der()));
        assert_eq!(spki_sha256(b"no certificate"), None);
    }

    proptest! {
        #[test]
        fn s17_no_bytes_panic_the_leaf_parser(
            noise in proptest::collection::vec(any::<u8>(), 0..200),
            changes in proptest::collection::vec((any::<Index>(), any::<u8>()), 1..4),
            cut in any::<Index>(),
        ) {
            let _ = Leaf::parse(&noise);
            let (chain, _) = TestCa::root().leaf(ORDERS, |_| {});
            let mut der = chain[0].to_vec();
            let _ = Leaf::parse(&der[..cut.index(der.len())]);
            for (position, byte) in changes {
                let position = position.index(der.len());
                der[position] = byte;
            }
            let _ = (Leaf::parse(&der), spki_sha256(&der));
        }
    }
}
