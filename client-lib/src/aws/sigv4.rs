//! Signature Version 4 for the one request that STS is asked with: `POST /`, a form, no query. Nothing of it is the
//! app's, so nothing needs to be brought into canonical form.
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>

use std::{
    fmt::Write,
    time::{Duration, SystemTime},
};

use aws_lc_rs::{
    digest::{SHA256, digest},
    hmac::{self, HMAC_SHA256},
};
use zeroize::Zeroizing;

use super::SessionKeys;
use crate::calendar::date_of;

/// Whose signature, for whom, and when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Signing<'a> {
    pub(super) keys: &'a SessionKeys,
    pub(super) region: &'a str,
    pub(super) service: &'a str,
    /// [`timestamp`].
    pub(super) date: &'a str,
}

impl Signing<'_> {
    /// 64 hex digits over `headers`, which are sorted, by lower-case name, and `body`.
    pub(super) fn signature(&self, headers: &[(&str, &str)], body: &str) -> String {
        let mut canonical = Zeroizing::new("POST\n/\n\n".to_owned());
        for (name, value) in headers {
            // Writing to a string can't fail.
            let _ = writeln!(canonical, "{name}:{value}");
        }
        let _ = write!(
            canonical,
            "\n{}\n{}",
            names(headers),
            sha256(body.as_bytes())
        );
        let to_sign = format!(
            "AWS4-HMAC-SHA256\n{}\n{}\n{}",
            self.date,
            self.scope(),
            sha256(canonical.as_bytes())
        );
        let first = Zeroizing::new(format!("AWS4{}", self.keys.secret_access_key.expose()));
        let steps = [self.day(), self.region, self.service, "aws4_request"];
        let key = steps
            .into_iter()
            .fold(mac_key(first.as_bytes()), |key, step| {
                mac_key(hmac::sign(&key, step.as_bytes()).as_ref())
            });
        hex(hmac::sign(&key, to_sign.as_bytes()).as_ref())
    }

    /// The whole of the header `authorization`.
    pub(super) fn authorization(&self, headers: &[(&str, &str)], body: &str) -> String {
        format!(
            "AWS4-HMAC-SHA256 Credential={}/{}, SignedHeaders={}, Signature={}",
            self.keys.access_key_id,
            self.scope(),
            names(headers),
            self.signature(headers, body)
        )
    }

    fn scope(&self) -> String {
        let (day, region, service) = (self.day(), self.region, self.service);
        format!("{day}/{region}/{service}/aws4_request")
    }

    fn day(&self) -> &str {
        self.date.get(..8).unwrap_or_default()
    }
}

/// `YYYYMMDD'T'HHMMSS'Z'`.
pub(super) fn timestamp(time: SystemTime) -> String {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = date_of(days);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

fn names(headers: &[(&str, &str)]) -> String {
    let names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
    names.join(";")
}

fn mac_key(bytes: &[u8]) -> hmac::Key {
    hmac::Key::new(HMAC_SHA256, bytes)
}

fn sha256(bytes: &[u8]) -> String {
    hex(digest(&SHA256, bytes).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Secret;

    #[test]
    fn the_signature_is_awss() {
        let keys = SessionKeys {
            access_key_id: "AKIDEXAMPLE".into(),
            secret_access_key: Secret::new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".into()),
            session_token: Secret::new(String::new()),
            expires_at: None,
        };
        let signing = Signing {
            keys: &keys,
            region: "us-east-1",
            service: "service",
            date: "20150830T123600Z",
        };
        let body = "Param1=value1";
        let hash = sha256(body.as_bytes());
        // `post-x-www-form-urlencoded` of AWS's own test suite.
        let headers = [
            ("content-length", "13"),
            ("content-type", "application/x-www-form-urlencoded"),
            ("host", "example.amazonaws.com"),
            ("x-amz-content-sha256", &hash),
            ("x-amz-date", "20150830T123600Z"),
        ];
        assert_eq!(
            signing.authorization(&headers, body),
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
             SignedHeaders=content-length;content-type;host;x-amz-content-sha256;x-amz-date, \
             Signature=d3875051da38690788ef43de4db0d8f280229d82040bfac253562e56c3f20e0b"
        );
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "19700101T000000Z"),
            (951_782_399, "20000228T235959Z"),
            (951_782_400, "20000229T000000Z"),
            (951_868_800, "20000301T000000Z"),
            (1_440_938_160, "20150830T123600Z"),
            (1_795_184_603, "20261120T142323Z"),
            (4_107_542_400, "21000301T000000Z"),
            (4_107_542_399, "21000228T235959Z"),
        ] {
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            assert_eq!(timestamp(time), text);
        }
    }
}
