//! Where the authority is, and what it is known by.

use std::sync::Arc;

use rustls::ClientConfig;

use super::{TokenError, https::Origin};
use crate::{
    SpiffeId, TrustDomain,
    tls::{self, Anchors},
};

/// An authority. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Authority {
    pub(super) origin: Origin,
    pub(super) trust_domain: TrustDomain,
    pub(super) tls: Arc<ClientConfig>,
}

impl Authority {
    /// The one at `url` (`https://host[:port]`), known by the SHA-256 of its roots' public keys, 64 hex digits each:
    /// what it logs at start, and agents have as `authority.root_spki_sha256`. List the next root's beside today's before
    /// it is used.
    ///
    /// # Errors
    /// Something has another form, or there is no pin.
    pub fn pinned(
        url: &str,
        trust_domain: &TrustDomain,
        pins: &[&str],
    ) -> Result<Self, TokenError> {
        let spki_sha256 = pins.iter().map(|it| pin(it)).collect::<Result<_, _>>()?;
        let anchors = Anchors {
            spki_sha256,
            ..Anchors::default()
        };
        Self::new(url, trust_domain, &anchors)
    }

    /// The one at `url`, whose certificate is `spiffe://TD/warifu/authority` and ends in `anchors`.
    ///
    /// # Errors
    /// The URL has another form, or there is no anchor.
    pub fn new(
        url: &str,
        trust_domain: &TrustDomain,
        anchors: &Anchors,
    ) -> Result<Self, TokenError> {
        let origin = Origin::parse(url)?;
        if !origin.is_https() {
            return Err(TokenError::setting(format!(
                "{url:?} is no authority's URL; expected https://host[:port]"
            )));
        }
        let expected = SpiffeId::new(format!("spiffe://{trust_domain}/warifu/authority"))
            .map_err(|why| TokenError::setting(why.to_string()))?;
        let mut tls = tls::bootstrap_client_config(anchors, &expected)
            .map_err(|why| TokenError::setting(why.to_string()))?;
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            origin,
            trust_domain: trust_domain.clone(),
            tls: Arc::new(tls),
        })
    }
}

fn pin(text: &str) -> Result<[u8; 32], TokenError> {
    let bad = || {
        TokenError::setting(format!(
            "{text:?} is no pin; expected the SHA-256 of a root's public key in 64 hex digits"
        ))
    };
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|it| it.to_digit(16).and_then(|it| u8::try_from(it).ok()))
        .collect();
    let digits = digits.ok_or_else(bad)?;
    let bytes: Vec<u8> = digits
        .chunks_exact(2)
        .map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit))
        .collect();
    match digits.len() {
        64 => bytes.try_into().map_err(|_| bad()),
        _ => Err(bad()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_64_hex_digits() {
        let pin_of = |text: &str| pin(text).ok();
        assert_eq!(pin_of(&"a7".repeat(32)), Some([0xa7; 32]));
        assert_eq!(pin_of(&"A7".repeat(32)), Some([0xa7; 32]));
        for bad in [
            "",
            "a7",
            &"a7".repeat(33),
            &"g7".repeat(32),
            &"é".repeat(32),
        ] {
            assert_eq!(pin_of(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn s19_an_authority_is_asked_over_tls_and_known_beforehand() {
        let domain = TrustDomain::new("example.org").unwrap();
        let pin = "a7".repeat(32);
        let made = |url: &str, pins: &[&str]| Authority::pinned(url, &domain, pins).is_ok();
        assert!(made("https://authority.internal:8443", &[&pin]));
        assert!(!made("https://authority.internal:8443", &[]));
        assert!(!made("http://127.0.0.1:8443", &[&pin]));
        assert!(!made("https://authority.internal/path", &[&pin]));
    }
}
