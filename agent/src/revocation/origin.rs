//! A private extension of our leaves: the attestation they go back to. Not critical, so that whoever
//! doesn't know it passes over it (RFC 5280 §4.2).
//!
//! ```text
//! OID 2.25.1576509132
//! Origin ::= SEQUENCE {
//!     lineage UTF8String (SIZE (1..64)),
//!     role    OCTET STRING (SIZE (32)) OPTIONAL }   -- SHA-256 of ACCOUNT:role/NAME
//! ```

use aws_lc_rs::digest::{SHA256, digest};
use thiserror::Error;

use super::hex;

/// The arcs of the extension's OID. Below 2³¹, each of them: Go reads no larger ones, and takes a
/// certificate with such an extension for malformed (docs/adr/0012).
const OID: [u64; 3] = [2, 25, 1_576_509_132];
/// The same in DER, without tag and length.
const OID_DER: [u8; 6] = [0x69, 0x85, 0xef, 0xde, 0xbd, 0x4c];

/// Longest lineage: ours have 22 characters.
const MAX_LINEAGE: usize = 64;

const SEQUENCE: u8 = 0x30;
const UTF8_STRING: u8 = 0x0c;
const OCTET_STRING: u8 = 0x04;

/// What an attestation left in what it led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The lineage: of everything that goes back to one attestation.
    lineage: String,
    /// SHA-256 of the AWS role that attested, as [`role_name`] writes it.
    role: Option<[u8; 32]>,
}

/// Why there can be no such origin.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("a lineage has 1 to {MAX_LINEAGE} bytes, this one {0}")]
pub struct OriginError(usize);

/// How a role is named: `ACCOUNT:role/NAME`. Its path is not part of it: STS does not tell it.
pub fn role_name(account: &str, role: &str) -> String {
    format!("{account}:role/{role}")
}

impl Origin {
    /// Of `lineage`, and of the role with this name.
    ///
    /// # Errors
    /// When the lineage has no or too many bytes.
    pub fn new(lineage: &str, role: Option<&str>) -> Result<Self, OriginError> {
        if !(1..=MAX_LINEAGE).contains(&lineage.len()) {
            return Err(OriginError(lineage.len()));
        }
        Ok(Self {
            lineage: lineage.to_owned(),
            role: role.map(sha256),
        })
    }

    /// The lineage.
    pub fn lineage(&self) -> &str {
        &self.lineage
    }

    /// SHA-256 of the role's name, lower-case hex.
    pub fn role(&self) -> Option<String> {
        self.role.map(|hash| hex(&hash))
    }

    /// SHA-256 of a role's name, lower-case hex: as it is published.
    pub fn hash_of_role(name: &str) -> String {
        hex(&sha256(name))
    }

    /// The arcs of the extension's OID.
    pub fn oid() -> &'static [u64] {
        &OID
    }

    /// The extension's content, DER.
    pub fn to_der(&self) -> Vec<u8> {
        let mut content = tlv(UTF8_STRING, self.lineage.as_bytes());
        if let Some(role) = &self.role {
            content.extend(tlv(OCTET_STRING, role));
        }
        tlv(SEQUENCE, &content)
    }

    /// From the extension's content. `None` where it is not exactly that.
    pub fn from_der(der: &[u8]) -> Option<Self> {
        let (content, rest) = read(SEQUENCE, der)?;
        let (lineage, role) = read(UTF8_STRING, content)?;
        let lineage = std::str::from_utf8(lineage).ok()?;
        let (role, end) = match role {
            [] => (None, role),
            _ => {
                let (role, end) = read(OCTET_STRING, role)?;
                (Some(role.try_into().ok()?), end)
            }
        };
        let fits = (1..=MAX_LINEAGE).contains(&lineage.len());
        (rest.is_empty() && end.is_empty() && fits).then(|| Self {
            lineage: lineage.to_owned(),
            role,
        })
    }

    /// From a leaf. `None` where it has none that can be read: an older leaf, or another issuer's.
    pub fn of_leaf(leaf: &[u8]) -> Option<Self> {
        let (_, leaf) = x509_parser::parse_x509_certificate(leaf).ok()?;
        let extension = leaf
            .extensions()
            .iter()
            .find(|extension| extension.oid.as_bytes() == OID_DER)?;
        Self::from_der(extension.value)
    }
}

fn sha256(text: &str) -> [u8; 32] {
    // A SHA-256 has 32 bytes.
    digest(&SHA256, text.as_bytes())
        .as_ref()
        .try_into()
        .unwrap_or_default()
}

/// Tag, length in one byte, value: nothing here has 128 bytes (64 and 32, and four of their heads).
fn tlv(tag: u8, value: &[u8]) -> Vec<u8> {
    let length = u8::try_from(value.len()).unwrap_or(0x7f);
    [&[tag, length], value].concat()
}

/// The value of the first element, which must have this tag and a short length, and what comes after it.
fn read(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&[found, length], rest) = der.split_first_chunk()?;
    (found == tag && length < 0x80).then_some(())?;
    rest.split_at_checked(usize::from(length))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, CustomExtension, KeyPair};

    use super::*;

    fn role() -> String {
        role_name("123456789012", "batch")
    }

    #[test]
    fn a_leaf_tells_its_lineage_and_a_hash_of_its_role() {
        let origin = Origin::new("lineage-1", Some(&role())).unwrap();
        let mut params = CertificateParams::default();
        let extension = CustomExtension::from_oid_content(Origin::oid(), origin.to_der());
        params.custom_extensions.push(extension);
        let leaf = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        assert_eq!(Origin::of_leaf(leaf.der()), Some(origin.clone()));
        // printf 123456789012:role/batch | sha256sum
        let hash = "df79da968ad17720b08bb26b9604fb201b4e9ea1ff7fc5225b996aea0489264f";
        assert_eq!(origin.role().unwrap(), hash);
        assert_eq!(Origin::hash_of_role(&role()), hash);

        params = CertificateParams::default();
        let leaf = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        assert_eq!(Origin::of_leaf(leaf.der()), None);
        assert_eq!(Origin::of_leaf(b"no certificate"), None);
    }

    #[test]
    fn an_extension_is_read_in_one_way_only() {
        let good = Origin::new("l", Some(&role())).unwrap().to_der();
        assert!(Origin::from_der(&good).is_some());
        for end in 0..good.len() {
            assert_eq!(Origin::from_der(&good[..end]), None, "cut at {end}");
        }
        assert_eq!(Origin::from_der(&[&good[..], &[0]].concat()), None);
        assert_eq!(Origin::from_der(&[0x30, 0x02, 0x0c, 0x00]), None, "empty");
        let short_role = [0x30, 0x06, 0x0c, 0x01, b'l', 0x04, 0x01, 0xff];
        assert_eq!(Origin::from_der(&short_role), None);
        let long_form = [0x30, 0x81, 0x03, 0x0c, 0x01, b'l'];
        assert_eq!(Origin::from_der(&long_form), None);
    }

    #[test]
    fn a_lineage_without_bytes_or_with_too_many_is_refused() {
        assert!(Origin::new("", None).is_err());
        assert!(Origin::new(&"l".repeat(65), None).is_err());
        let longest = Origin::new(&"l".repeat(64), Some(&role())).unwrap();
        assert_eq!(Origin::from_der(&longest.to_der()), Some(longest));
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(lineage in "[A-Za-z0-9_-]{1,64}", with_role in any::<bool>()) {
            let role = role();
            let origin = Origin::new(&lineage, with_role.then_some(role.as_str())).unwrap();
            prop_assert_eq!(Origin::from_der(&origin.to_der()), Some(origin));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(origin) = Origin::from_der(&bytes) {
                prop_assert_eq!(origin.to_der(), bytes);
            }
        }
    }
}
