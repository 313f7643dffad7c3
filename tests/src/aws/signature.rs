//! SigV4 as a service checks it, written from the specification alone: the agent's signer is not asked.
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>

use std::time::{Duration, SystemTime};

use aws_lc_rs::{
    digest::{SHA256, digest},
    hmac::{self, HMAC_SHA256},
};
use bytes::Bytes;
use http::{HeaderMap, Request, header::AUTHORIZATION};
use warifu_agent::telemetry::timestamp::Timestamp;

/// How far STS lets a signer's clock be off.
const SKEW: Duration = Duration::from_secs(5 * 60);

/// What a signature says of itself. Nothing in it is believed yet.
#[derive(Debug)]
pub(super) struct Claimed {
    /// Whose key.
    pub(super) access_key_id: String,
    date: String,
    region: String,
    service: String,
    signed_headers: Vec<String>,
    signature: String,
}

impl Claimed {
    /// Reads `Authorization`.
    pub(super) fn read(headers: &HeaderMap) -> Option<Self> {
        let mut lines = headers.get_all(AUTHORIZATION).iter();
        let (line, None) = (lines.next()?.to_str().ok()?, lines.next()) else {
            return None;
        };
        let rest = line.strip_prefix("AWS4-HMAC-SHA256 ")?;
        let mut parts = rest.split(',').map(str::trim);
        let credential = parts.next()?.strip_prefix("Credential=")?;
        let signed = parts.next()?.strip_prefix("SignedHeaders=")?;
        let signature = parts.next()?.strip_prefix("Signature=")?;
        let scope: Vec<&str> = credential.split('/').collect();
        let [key, date, region, service, "aws4_request"] = scope.as_slice() else {
            return None;
        };
        parts.next().is_none().then(|| Self {
            access_key_id: (*key).to_owned(),
            date: (*date).to_owned(),
            region: (*region).to_owned(),
            service: (*service).to_owned(),
            signed_headers: signed.split(';').map(str::to_owned).collect(),
            signature: signature.to_owned(),
        })
    }

    /// Whether `secret` made it, for STS in `region`, over this request, about now.
    pub(super) fn verify(
        &self,
        request: &Request<Bytes>,
        secret: &str,
        region: &str,
        now: SystemTime,
    ) -> Result<(), String> {
        let headers = request.headers();
        let date = header(headers, "x-amz-date").ok_or("x-amz-date is not there once")?;
        if self.region != region || self.service != "sts" {
            return Err(format!(
                "Credential should be scoped to {region} and sts, not {} and {}.",
                self.region, self.service
            ));
        }
        if !date.starts_with(&self.date) {
            return Err("Date in Credential scope does not match".to_owned());
        }
        let near = |time: SystemTime| compact(time - SKEW) <= date && date <= compact(time + SKEW);
        if !near(now) {
            return Err(format!(
                "Signature expired: {date} is not near {}",
                compact(now)
            ));
        }
        let must = headers.keys().map(http::HeaderName::as_str).filter(|name| {
            *name == "host" || (name.starts_with("x-amz-") && *name != "x-amzn-trace-id")
        });
        for name in must {
            if !self.signed_headers.iter().any(|signed| signed == name) {
                return Err(format!("'{name}' must be a 'SignedHeader'"));
            }
        }
        let expected = self.sign(request, secret, &date)?;
        match expected == self.signature {
            true => Ok(()),
            false => Err(
                "The request signature we calculated does not match the signature you provided."
                    .to_owned(),
            ),
        }
    }

    fn sign(&self, request: &Request<Bytes>, secret: &str, date: &str) -> Result<String, String> {
        // STS is asked at `/` without a query, always: nothing to normalise.
        let (path, query) = (request.uri().path(), request.uri().query());
        let body = hex(digest(&SHA256, request.body()).as_ref());
        self.sign_canonical(
            request,
            secret,
            date,
            path,
            query.unwrap_or_default(),
            &body,
        )
    }

    fn sign_canonical(
        &self,
        request: &Request<Bytes>,
        secret: &str,
        date: &str,
        path: &str,
        query: &str,
        body: &str,
    ) -> Result<String, String> {
        if !self.signed_headers.is_sorted() {
            return Err("SignedHeaders are not sorted".to_owned());
        }
        let mut canonical_headers = String::new();
        for name in &self.signed_headers {
            let value =
                header(request.headers(), name).ok_or(format!("{name} is not there once"))?;
            let value: Vec<&str> = value.split(' ').filter(|word| !word.is_empty()).collect();
            canonical_headers.push_str(&format!("{name}:{}\n", value.join(" ")));
        }
        let canonical = format!(
            "{}\n{path}\n{query}\n{canonical_headers}\n{}\n{body}",
            request.method(),
            self.signed_headers.join(";"),
        );
        let scope = format!(
            "{}/{}/{}/aws4_request",
            self.date, self.region, self.service
        );
        let to_sign = format!(
            "AWS4-HMAC-SHA256\n{date}\n{scope}\n{}",
            hex(digest(&SHA256, canonical.as_bytes()).as_ref()),
        );
        let first = format!("AWS4{secret}").into_bytes();
        let steps = [&self.date, &self.region, &self.service, "aws4_request"];
        let key = steps.iter().fold(first, |key, step| mac(&key, step));
        Ok(hex(&mac(&key, &to_sign)))
    }
}

/// Whether this request is signed by `secret`, all that must be is signed, and it is sent in the one form that is:
/// whoever builds the canonical form again, from what arrives, gets what was signed.
pub(crate) fn check(request: &Request<Bytes>, secret: &str) -> Result<(), String> {
    let claimed = Claimed::read(request.headers()).ok_or("no signature")?;
    let headers = request.headers();
    let date = header(headers, "x-amz-date").ok_or("x-amz-date is not there once")?;
    for name in headers.keys().map(http::HeaderName::as_str) {
        let amz = name.starts_with("x-amz-") || name.starts_with("x-amzn-");
        let must = name == "host" || name == "content-type" || amz;
        let is = claimed.signed_headers.iter().any(|signed| signed == name);
        if must && name != "x-amzn-trace-id" && !is {
            return Err(format!("{name} is not signed"));
        }
    }
    let path = request.uri().path();
    let segments: Vec<Vec<u8>> = path.split('/').map(unescaped).collect();
    let canonical_path = if claimed.service == "s3" {
        let once: Vec<String> = segments.iter().map(|segment| escaped(segment)).collect();
        let once = once.join("/");
        if once != path {
            return Err(format!("the key {once} was sent as {path}"));
        }
        once
    } else {
        let (first, rest) = segments.split_first().ok_or("no path")?;
        let inner = rest
            .split_last()
            .map(|(_, inner)| inner)
            .unwrap_or_default();
        let dots = |segment: &Vec<u8>| segment == b"." || segment == b"..";
        if !first.is_empty() || inner.iter().any(Vec::is_empty) || segments.iter().any(dots) {
            return Err(format!("{path} is not normal"));
        }
        path.split('/')
            .map(|segment| escaped(segment.as_bytes()))
            .collect::<Vec<_>>()
            .join("/")
    };
    let query = request.uri().query().unwrap_or_default();
    let mut pairs: Vec<(String, String)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (escaped(&unescaped(name)), escaped(&unescaped(value)))
        })
        .collect();
    pairs.sort();
    let pairs: Vec<String> = pairs.iter().map(|(n, v)| format!("{n}={v}")).collect();
    if pairs.join("&") != query {
        return Err(format!("the query {} was sent as {query}", pairs.join("&")));
    }
    let stands = header(headers, "x-amz-content-sha256");
    let stands = stands.unwrap_or_else(|| hex(digest(&SHA256, request.body()).as_ref()));
    let expected =
        claimed.sign_canonical(request, secret, &date, &canonical_path, query, &stands)?;
    match expected == claimed.signature {
        true => Ok(()),
        false => Err("the signature is another request's".to_owned()),
    }
}

/// What `text` is when its escapes are undone; what is no escape stays.
fn unescaped(text: &str) -> Vec<u8> {
    let mut rest = text.as_bytes();
    let mut bytes = Vec::new();
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|it| std::str::from_utf8(it).ok());
        match digits.and_then(|it| u8::from_str_radix(it, 16).ok()) {
            Some(octet) if byte == b'%' => {
                bytes.push(octet);
                rest = after.get(2..).unwrap_or_default();
            }
            _ => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    bytes
}

fn escaped(bytes: &[u8]) -> String {
    let one = |byte: &u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
            char::from(*byte).to_string()
        }
        byte => format!("%{byte:02X}"),
    };
    bytes.iter().map(one).collect()
}

/// The value of a header that is there once.
pub(super) fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?.to_owned();
    values.next().is_none().then_some(value)
}

fn mac(key: &[u8], message: &str) -> Vec<u8> {
    let key = hmac::Key::new(HMAC_SHA256, key);
    hmac::sign(&key, message.as_bytes()).as_ref().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `YYYYMMDD'T'HHMMSS'Z'`.
fn compact(time: SystemTime) -> String {
    let text = Timestamp(time).to_string();
    let digits: String = text
        .chars()
        .filter(|c| c.is_ascii_digit() || *c == 'T')
        .take("YYYYMMDDTHHMMSS".len())
        .collect();
    format!("{digits}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From `get-vanilla` of AWS's own test suite, with a region and service of its own.
    #[test]
    fn agrees_with_the_vector_of_aws() {
        let request = Request::get("/")
            .header("host", "example.amazonaws.com")
            .header("x-amz-date", "20150830T123600Z")
            .body(Bytes::new())
            .unwrap();
        let claimed = Claimed {
            access_key_id: "AKIDEXAMPLE".into(),
            date: "20150830".into(),
            region: "us-east-1".into(),
            service: "service".into(),
            signed_headers: vec!["host".into(), "x-amz-date".into()],
            signature: String::new(),
        };
        let secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
        let signature = claimed.sign(&request, secret, "20150830T123600Z");
        assert_eq!(
            signature.unwrap(),
            "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"
        );
    }
}
