//! A signature in the query: a URL that whoever has it may call, until it expires.
//!
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html>

use std::time::Duration;

use http::request::Parts;

use super::{
    Key, Payload, Recipe, SignError, body::Bodies, canonical::escaped, headers, set_target,
};

/// What must be sent with a presigned URL, as it is: names and values.
type Presigned = Vec<(String, String)>;

impl Recipe {
    /// Signs prepared `parts` in the query, for `expires` from `date`, and says which headers beside `host` the
    /// signature demands. `payload` counts where the service signs bodies.
    pub(in crate::aws) fn presign(
        &self,
        key: &Key,
        date: &str,
        expires: Duration,
        parts: &mut Parts,
        payload: &Payload,
    ) -> Result<Presigned, SignError> {
        let unsigned = Payload::unsigned();
        let payload = match self.profile.bodies {
            Bodies::Hashed => payload,
            // Whoever calls the URL sends what it likes.
            Bodies::AsSaid { .. } | Bodies::Unsigned => &unsigned,
        };
        let signed = headers::signed(&parts.headers, &self.extras);
        let names: Vec<&str> = signed.iter().map(|(name, _)| *name).collect();
        let seconds = expires.as_secs().to_string();
        let mut pairs = vec![
            ("X-Amz-Algorithm", key.algorithm().to_owned()),
            ("X-Amz-Credential", escaped(key.credential())),
            ("X-Amz-Date", date.to_owned()),
            ("X-Amz-Expires", seconds),
            ("X-Amz-SignedHeaders", escaped(&names.join(";"))),
        ];
        if let Some(set) = self.regions.set() {
            pairs.push(("X-Amz-Region-Set", escaped(set)));
        }
        if let Some(token) = key.token() {
            let token = token.to_str().unwrap_or_default();
            pairs.push(("X-Amz-Security-Token", escaped(token)));
        }
        let query = parts.uri.query().unwrap_or_default();
        // Canonical, so each pair has its `=`.
        let own = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.extend(own.map(|(name, value)| (name, value.to_owned())));
        pairs.sort_unstable();
        let pairs: Vec<String> = pairs
            .into_iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let query = pairs.join("&");

        let (canonical, _) = self.canonical_request(parts, &query, payload);
        let signature = key.sign(date, canonical.as_bytes())?;
        let demanded = signed
            .iter()
            .filter(|(name, _)| *name != "host")
            .map(|(name, value)| {
                let value = String::from_utf8_lossy(value).into_owned();
                ((*name).to_owned(), value)
            })
            .collect();
        let target = format!("{}?{query}&X-Amz-Signature={signature}", parts.uri.path());
        set_target(parts, target)?;
        Ok(demanded)
    }
}
