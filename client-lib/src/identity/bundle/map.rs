//! Bundles of several trust domains in one document (SPIFFE Trust Domain and Bundle specification,
//! "bundle map"): side by side, and never one.

use serde_json::{Map, Value};

use super::{BundleError, TrustBundle, json};
use crate::TrustDomain;

/// Longest map accepted, in bytes.
pub const MAX_MAP_BYTES: usize = 4 * 1024 * 1024;

/// Most trust domains accepted in one map.
pub const MAX_TRUST_DOMAINS: usize = 1000;

impl TrustBundle {
    /// The map of these. Of two bundles of one trust domain, the last counts.
    pub fn map_to_json<'a>(bundles: impl IntoIterator<Item = &'a Self>) -> String {
        let by_name: Map<String, Value> = bundles
            .into_iter()
            .map(|bundle| (bundle.trust_domain.to_string(), bundle.to_value()))
            .collect();
        Value::Object(Map::from_iter([(
            "trust_domains".to_owned(),
            Value::Object(by_name),
        )]))
        .to_string()
    }

    /// Parses a map: all of it, or nothing.
    ///
    /// # Errors
    /// When it is no map, names a trust domain twice or in a form that is none, or a bundle in it breaks
    /// a MUST of its specification.
    pub fn map_from_json(json: &[u8]) -> Result<Vec<Self>, BundleError> {
        let malformed = |what: String| BundleError::Malformed(what);
        if json.len() > MAX_MAP_BYTES {
            return Err(malformed("it is longer than 4 MiB".to_owned()));
        }
        let document = json::parse_object(json).map_err(|why| malformed(why.to_string()))?;
        let by_name = document
            .get("trust_domains")
            .and_then(Value::as_object)
            .ok_or_else(|| malformed("it has no trust_domains".to_owned()))?;
        if by_name.len() > MAX_TRUST_DOMAINS {
            return Err(malformed("it has more than 1000 trust domains".to_owned()));
        }
        let bundles = by_name.iter().map(|(name, bundle)| {
            let trust_domain = TrustDomain::new(name)
                .ok()
                // A second spelling would be a second bundle of one trust domain.
                .filter(|domain| domain.as_str() == name)
                .ok_or_else(|| malformed(format!("{name:?} is no trust domain's name")))?;
            let members = bundle
                .as_object()
                .ok_or_else(|| malformed(format!("the bundle of {name} is no JSON object")))?;
            Self::from_members(trust_domain, members)
        });
        bundles.collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::jwt::{KeySet, SigningKey};

    fn bundle(name: &str, sequence: u64) -> TrustBundle {
        let key = SigningKey::generate();
        TrustBundle {
            trust_domain: TrustDomain::new(name).unwrap(),
            x509_authorities: vec![],
            jwt_authorities: KeySet::new(vec![key.public().clone()]),
            sequence,
            refresh_hint: std::time::Duration::from_secs(300),
        }
    }

    #[test]
    fn what_was_written_is_read_and_bundles_stay_apart() {
        let bundles = [bundle("a.example", 7), bundle("b.example", 1)];
        let json = TrustBundle::map_to_json(&bundles);
        assert_eq!(
            TrustBundle::map_from_json(json.as_bytes()).unwrap(),
            bundles
        );
        let empty = TrustBundle::map_to_json([]);
        assert_eq!(empty, r#"{"trust_domains":{}}"#);
        assert_eq!(TrustBundle::map_from_json(empty.as_bytes()).unwrap(), []);
    }

    #[test]
    fn a_map_is_read_whole_or_not_at_all() {
        let good = r#"{"keys":[]}"#;
        for map in [
            "[]".to_owned(),
            "{}".to_owned(),
            r#"{"trust_domains":[]}"#.to_owned(),
            format!(r#"{{"trust_domains":{{"a.example":{good},"a.example":{good}}}}}"#),
            format!(r#"{{"trust_domains":{{"a.example":{good},"b.example":{{}}}}}}"#),
            format!(r#"{{"trust_domains":{{"A.example":{good}}}}}"#),
            format!(r#"{{"trust_domains":{{"spiffe://a.example":{good}}}}}"#),
            format!(r#"{{"trust_domains":{{"":{good}}}}}"#),
            format!(r#"{{"trust_domains":{{"a.example":[{good}]}}}}"#),
            format!("{{\"trust_domains\":{{}}{}}}", " ".repeat(MAX_MAP_BYTES)),
        ] {
            let start: String = map.chars().take(80).collect();
            assert!(
                TrustBundle::map_from_json(map.as_bytes()).is_err(),
                "{start}"
            );
        }
    }

    proptest! {
        #[test]
        fn s17_no_bytes_panic_the_map_parser(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = TrustBundle::map_from_json(&bytes);
        }
    }
}
