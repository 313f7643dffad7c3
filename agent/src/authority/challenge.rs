//! Challenges: stateless, so that any replica accepts what another gave.

use std::time::{Duration, SystemTime};

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use warifu::TrustDomain;

use super::keys::{self, KeyError};

/// How long a challenge is good: a slow agent's round trip and its key's making, many times over.
pub(super) const LIFE: Duration = Duration::from_secs(60);
/// How far ahead another replica's clock may be.
pub(super) const SKEW: Duration = Duration::from_secs(5);

const TIME_BYTES: usize = 8;
const RANDOM_BYTES: usize = 16;

/// The keys that authenticate challenges.
#[derive(Debug)]
pub(super) struct Keys {
    /// Makes them …
    current: hmac::Key,
    /// … and these are accepted too: the one before, and the one to come, which another replica may
    /// use already.
    others: Vec<hmac::Key>,
}

impl Keys {
    /// From the bytes of the current one and of the others.
    pub(super) fn new<'a>(current: &[u8], others: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let key = |bytes: &[u8]| hmac::Key::new(hmac::HMAC_SHA256, bytes);
        Self {
            current: key(current),
            others: others.into_iter().map(key).collect(),
        }
    }
}

/// A fresh one: time, randomness, and a MAC over both.
pub(super) fn make(
    keys: &Keys,
    trust_domain: &TrustDomain,
    now: SystemTime,
) -> Result<String, KeyError> {
    let random = keys::random::<RANDOM_BYTES>()?;
    let mut bytes = millis(now).to_be_bytes().to_vec();
    bytes.extend(random.expose());
    let tag = hmac::sign(&keys.current, &message(trust_domain, &bytes));
    bytes.extend(tag.as_ref());
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// Whether `challenge` is one of ours and still good.
pub(super) fn is_good(
    keys: &Keys,
    trust_domain: &TrustDomain,
    challenge: &str,
    now: SystemTime,
) -> bool {
    let Ok(bytes) = URL_SAFE_NO_PAD.decode(challenge) else {
        return false;
    };
    let Some((signed, tag)) = bytes.split_at_checked(TIME_BYTES + RANDOM_BYTES) else {
        return false;
    };
    let Some(made_at) = signed.first_chunk().map(|time| u64::from_be_bytes(*time)) else {
        return false;
    };
    let age = i128::from(millis(now)) - i128::from(made_at);
    let allowed = -(SKEW.as_millis() as i128)..LIFE.as_millis() as i128;
    // The MAC in any case: how long this takes says nothing.
    let message = message(trust_domain, signed);
    let is_by = |key| hmac::verify(key, &message, tag).is_ok();
    let ours = is_by(&keys.current) || keys.others.iter().any(is_by);
    ours && allowed.contains(&age)
}

fn message(trust_domain: &TrustDomain, signed: &[u8]) -> Vec<u8> {
    let mut message = format!("warifu challenge\n{trust_domain}\n").into_bytes();
    message.extend(signed);
    message
}

fn millis(time: SystemTime) -> u64 {
    super::rotation::to_millis(time)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(byte: u8) -> Keys {
        Keys::new(&[byte; 32], [])
    }

    fn td(name: &str) -> TrustDomain {
        TrustDomain::new(name).unwrap()
    }

    fn t0() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    #[test]
    fn a_challenge_expires_after_a_minute() {
        let made = make(&key(1), &td("example.org"), t0()).unwrap();
        let good = |now| is_good(&key(1), &td("example.org"), &made, now);
        assert!(good(t0()) && good(t0() + LIFE - Duration::from_millis(1)));
        assert!(!good(t0() + LIFE));
        assert!(good(t0() - SKEW), "made by a replica that is ahead");
        assert!(!good(t0() - SKEW - Duration::from_millis(1)));
    }

    #[test]
    fn a_challenge_of_the_key_before_and_of_the_one_to_come_is_accepted() {
        let keys = Keys::new(&[1; 32], [[0; 32].as_slice(), &[2; 32]]);
        for byte in [0, 1, 2] {
            let made = make(&key(byte), &td("example.org"), t0()).unwrap();
            assert!(is_good(&keys, &td("example.org"), &made, t0()), "{byte}");
        }
        let made = make(&keys, &td("example.org"), t0()).unwrap();
        assert!(is_good(&key(1), &td("example.org"), &made, t0()));
    }

    #[test]
    fn another_key_or_trust_domain_made_none_of_ours() {
        let made = make(&key(1), &td("example.org"), t0()).unwrap();
        assert!(!is_good(&key(2), &td("example.org"), &made, t0()));
        assert!(!is_good(&key(1), &td("example.com"), &made, t0()));
    }

    proptest! {
        #[test]
        fn s17_no_text_passes_or_panics(text in "\\PC{0,120}") {
            prop_assert!(!is_good(&key(1), &td("example.org"), &text, t0()));
        }

        #[test]
        fn a_changed_challenge_is_refused(at in 0usize..56, bit in 0u8..8) {
            let made = make(&key(1), &td("example.org"), t0()).unwrap();
            let mut bytes = URL_SAFE_NO_PAD.decode(made).unwrap();
            bytes[at] ^= 1 << bit;
            let changed = URL_SAFE_NO_PAD.encode(bytes);
            prop_assert!(!is_good(&key(1), &td("example.org"), &changed, t0()));
        }
    }
}
