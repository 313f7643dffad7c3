//! The caller as a header value: one line of JSON, base64url without padding.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use http::HeaderValue;
use thiserror::Error;

use super::Caller;

/// Largest caller, in bytes of JSON. Encoded, in either header, it stays below the 8 KiB that
/// common servers allow a header line.
pub const MAX_CALLER_JSON: usize = 4 * 1024;

/// The same, after base64: four characters for every three bytes.
const MAX_ENCODED: usize = MAX_CALLER_JSON.div_ceil(3) * 4;

/// Why a caller cannot be encoded or decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CallerError {
    /// Neither peer nor subject: nobody was authenticated.
    #[error("the caller has neither a peer nor a subject")]
    Nobody,
    /// Above [`MAX_CALLER_JSON`]; fewer or shorter claims must be forwarded.
    #[error("the caller is larger than {MAX_CALLER_JSON} bytes of JSON; forward fewer claims")]
    TooLarge,
    /// Not base64url without padding.
    #[error("the caller is not base64url without padding")]
    NotBase64,
    /// Not the JSON of a caller.
    #[error("the caller is not the JSON of a caller")]
    NotJson,
}

/// `caller` as the value of [`CALLER_HEADER`](super::context::CALLER_HEADER).
///
/// The value is shared when cloned, so where only the connection proves the caller it can be made
/// once a connection and cloned for each request.
///
/// # Errors
/// The caller is nobody, or too large.
pub fn encode(caller: &Caller) -> Result<HeaderValue, CallerError> {
    let json = to_json(caller)?;
    HeaderValue::try_from(BASE64_URL_SAFE_NO_PAD.encode(json)).map_err(|_| CallerError::NotBase64)
}

/// Reads what [`encode`] wrote. Members it does not know are ignored, so that an agent may be newer
/// than the app.
///
/// # Errors
/// Too large, not base64url without padding, not a caller.
pub fn decode(value: &HeaderValue) -> Result<Caller, CallerError> {
    if value.len() > MAX_ENCODED {
        return Err(CallerError::TooLarge);
    }
    let json = BASE64_URL_SAFE_NO_PAD
        .decode(value.as_bytes())
        .map_err(|_| CallerError::NotBase64)?;
    let caller = serde_json::from_slice(&json).map_err(|_| CallerError::NotJson)?;
    somebody(&caller)?;
    Ok(caller)
}

/// The JSON of a caller that may be passed on.
pub(super) fn to_json(caller: &Caller) -> Result<Vec<u8>, CallerError> {
    somebody(caller)?;
    let json = serde_json::to_vec(caller).map_err(|_| CallerError::NotJson)?;
    if json.len() > MAX_CALLER_JSON {
        return Err(CallerError::TooLarge);
    }
    Ok(json)
}

/// Refuses the caller that names nobody.
pub(super) fn somebody(caller: &Caller) -> Result<(), CallerError> {
    if caller.peer.is_none() && caller.subject.is_none() {
        return Err(CallerError::Nobody);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::caller::{Peer, Subject, tests::orders};

    fn raw(json: &str) -> HeaderValue {
        BASE64_URL_SAFE_NO_PAD.encode(json).try_into().unwrap()
    }

    #[test]
    fn s16_a_caller_that_is_nobody_is_neither_encoded_nor_decoded() {
        let nobody = Caller {
            peer: None,
            subject: None,
        };
        assert_eq!(encode(&nobody), Err(CallerError::Nobody));
        assert_eq!(decode(&raw("{}")), Err(CallerError::Nobody));
        assert_eq!(decode(&raw("[]")), Err(CallerError::Nobody));
        assert_eq!(
            decode(&raw(r#"{"user":"admin"}"#)),
            Err(CallerError::Nobody)
        );
    }

    #[test]
    fn a_caller_larger_than_the_bound_is_refused_on_both_sides() {
        let mut large = orders();
        large.subject.as_mut().unwrap().claims =
            BTreeMap::from([("groups".to_owned(), "x".repeat(MAX_CALLER_JSON))]);
        assert_eq!(encode(&large), Err(CallerError::TooLarge));
        let value = HeaderValue::try_from("A".repeat(MAX_ENCODED + 1)).unwrap();
        assert_eq!(decode(&value), Err(CallerError::TooLarge));
    }

    #[test]
    fn s03_a_header_in_any_other_form_is_not_a_caller() {
        let good = encode(&orders()).unwrap();
        let good = good.to_str().unwrap();
        for (value, error) in [
            (String::new(), CallerError::NotJson),
            ("spiffe://example.org/orders".into(), CallerError::NotBase64),
            (format!("{good}="), CallerError::NotBase64),
            (format!(" {good}"), CallerError::NotBase64),
            (format!("{good},{good}"), CallerError::NotBase64),
            ("e30K".repeat(2), CallerError::NotJson),
        ] {
            let value = HeaderValue::try_from(value).unwrap();
            assert_eq!(decode(&value), Err(error), "{value:?}");
        }
        for json in [
            r#"{"peer":{"spiffe_id":"orders","cert_sha256":"00"}}"#,
            r#"{"peer":{"spiffe_id":"spiffe://example.org/a"}}"#,
            r#"{"peer":{"spiffe_id":"spiffe://a/b","cert_sha256":"0"},"peer":null}"#,
        ] {
            assert_eq!(decode(&raw(json)), Err(CallerError::NotJson), "{json}");
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_the_same_caller(
            path in "[a-z0-9]{1,20}",
            cert_sha256 in "[0-9a-f]{64}",
            subject in ".{0,60}",
            scopes in proptest::collection::vec("[!-~]{1,12}", 0..4),
            claims in proptest::collection::btree_map(".{0,12}", ".{0,40}", 0..4),
        ) {
            let caller = Caller {
                peer: Some(Peer {
                    spiffe_id: format!("spiffe://example.org/{path}").parse().unwrap(),
                    cert_sha256,
                }),
                subject: Some(Subject {
                    proof: "jwt-svid".into(),
                    subject,
                    issuer: None,
                    scopes,
                    claims,
                }),
            };
            prop_assert_eq!(decode(&encode(&caller).unwrap()), Ok(caller));
        }

        #[test]
        fn s17_no_header_value_makes_decoding_panic(bytes in proptest::collection::vec(32u8..=255, 0..200)) {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                let _ = decode(&value);
            }
        }
    }
}
