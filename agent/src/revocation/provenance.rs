//! What one credential goes back to.

use rustls_pki_types::CertificateDer;
use serde_json::Value;
use warifu::{SpiffeId, identity::spki_sha256, jwt::Claims};

use super::{Origin, hex};

/// The private claim of our tokens with their lineage.
pub const LINEAGE_CLAIM: &str = "warifu_lineage";
/// The private claim of our tokens with the SHA-256 (hex) of the AWS role that attested.
pub const ROLE_CLAIM: &str = "warifu_role";

/// All by which a credential could be revoked; made once per connection, and once per token.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Provenance {
    /// The SPIFFE ID.
    pub spiffe_id: Option<Box<str>>,
    /// The lineage.
    pub lineage: Option<Box<str>>,
    /// SHA-256 of the AWS role that attested, hex.
    pub role: Option<Box<str>>,
    /// Every key that signed: of a chain's CA certificates, or the `kid` of a token's.
    pub issuers: Vec<Box<str>>,
    /// A token's `jti`.
    pub token_id: Option<Box<str>>,
}

impl Provenance {
    /// Of the peer that presented `chain`, leaf first, and proved to be `spiffe_id`. Every CA certificate it
    /// presented counts: the path that was verified is among them.
    pub fn of_chain(spiffe_id: &SpiffeId, chain: &[CertificateDer<'_>]) -> Self {
        let leaf = chain.first().and_then(|leaf| Origin::of_leaf(leaf));
        Self {
            spiffe_id: Some(spiffe_id.to_string().into()),
            lineage: leaf.as_ref().map(|origin| origin.lineage().into()),
            role: leaf.and_then(|origin| origin.role()).map(Into::into),
            issuers: issuers_of_peer(chain),
            token_id: None,
        }
    }

    /// Of a token that verified.
    pub fn of_token(claims: &Claims) -> Self {
        let text = |name: &str| claims.all.get(name).and_then(Value::as_str).map(Box::from);
        Self {
            spiffe_id: Some(claims.subject.as_str().into()),
            lineage: text(LINEAGE_CLAIM),
            role: text(ROLE_CLAIM),
            issuers: vec![claims.key_id.as_str().into()],
            token_id: text("jti"),
        }
    }
}

/// SHA-256 of the SubjectPublicKeyInfo of each certificate after the leaf, hex.
pub fn issuers_of_peer(chain: &[CertificateDer<'_>]) -> Vec<Box<str>> {
    let keys = chain.iter().skip(1).filter_map(|der| spki_sha256(der));
    keys.map(|key| hex(&key).into()).collect()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use rcgen::{
        CertificateParams, CustomExtension, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
    };
    use serde_json::json;
    use warifu::jwt::{self, KeySet, Profile, SigningKey};

    use super::*;

    #[test]
    fn a_peer_goes_back_to_its_leafs_origin_and_every_ca_it_presented() {
        let id: SpiffeId = "spiffe://example.org/orders".parse().unwrap();
        let ca_key = KeyPair::generate().unwrap();
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca_certificate = ca.self_signed(&ca_key).unwrap();
        let mut leaf = CertificateParams::default();
        leaf.subject_alt_names = vec![SanType::URI(id.to_string().as_str().try_into().unwrap())];
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let origin = Origin::new("l1", Some("123456789012:role/batch")).unwrap();
        leaf.custom_extensions = vec![CustomExtension::from_oid_content(
            Origin::oid(),
            origin.to_der(),
        )];
        let key = KeyPair::generate().unwrap();
        let leaf = leaf.signed_by(&key, &Issuer::new(ca, ca_key)).unwrap();
        let chain = [leaf.der().clone(), ca_certificate.der().clone()];

        let found = Provenance::of_chain(&id, &chain);
        assert_eq!(found.spiffe_id.as_deref(), Some(id.to_string().as_str()));
        assert_eq!(found.lineage.as_deref(), Some("l1"));
        assert_eq!(found.role.as_deref(), origin.role().as_deref());
        let ca = hex(&spki_sha256(ca_certificate.der()).unwrap());
        assert_eq!(found.issuers, [Box::from(ca.as_str())]);
        let bare = Provenance::of_chain(&id, &chain[1..]);
        assert_eq!((bare.lineage, bare.issuers.len()), (None, 0));
    }

    #[test]
    fn a_token_goes_back_to_its_key_its_id_and_its_lineage() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let key = SigningKey::generate();
        let token = jwt::sign(
            &key,
            "JWT",
            &json!({"sub": "spiffe://example.org/orders", "aud": "payments", "exp": 1_800_000_300,
                    "jti": "t1", LINEAGE_CLAIM: "l1", ROLE_CLAIM: "00ff"}),
        );
        let keys = KeySet::new(vec![key.public().clone()]);
        let profile = Profile::jwt_svid(vec!["payments".into()]);
        let claims = jwt::verify(&token, &profile, &keys, now).unwrap();
        assert_eq!(
            Provenance::of_token(&claims),
            Provenance {
                spiffe_id: Some("spiffe://example.org/orders".into()),
                lineage: Some("l1".into()),
                role: Some("00ff".into()),
                issuers: vec![key.public().kid().into()],
                token_id: Some("t1".into()),
            }
        );
    }
}
