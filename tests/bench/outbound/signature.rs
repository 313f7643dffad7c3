//! Verifies a SigV4 signature, from what the backend saw: none of our signing code is used here.
//!
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>

use aws_lc_rs::{digest, hmac};

/// What is signed with.
#[derive(Clone)]
pub(crate) struct Keys {
    pub(crate) id: String,
    pub(crate) secret: String,
}

/// Whether `head`, a request without a query, carries a good signature of itself and of `body`.
pub(super) fn verify(
    head: &str,
    body: &[u8],
    keys: &Keys,
    region: &str,
    service: &str,
) -> Result<(), String> {
    let mut lines = head.split("\r\n");
    let mut start = lines.next().unwrap_or_default().split(' ');
    let (method, path) = (
        start.next().unwrap_or_default(),
        start.next().unwrap_or_default(),
    );
    let fields: Vec<(String, &str)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim()))
        .collect();
    let one = |wanted: &str| {
        let mut found = fields.iter().filter(|(name, _)| name == wanted);
        match (found.next(), found.next()) {
            (Some((_, value)), None) => Ok(*value),
            (None, _) => Err(format!("no {wanted}")),
            (Some(_), Some(_)) => Err(format!("more than one {wanted}")),
        }
    };
    let authorization = one("authorization")?;
    let rest = authorization
        .strip_prefix("AWS4-HMAC-SHA256 ")
        .ok_or("another scheme")?;
    let part = |wanted: &str| {
        rest.split(',')
            .filter_map(|part| part.trim().split_once('='))
            .find(|(name, _)| *name == wanted)
            .map(|(_, value)| value)
            .ok_or(format!("no {wanted}"))
    };
    let (date, signed) = (one("x-amz-date")?, part("SignedHeaders")?);
    let day = date.get(..8).ok_or("a date that is none")?;
    let scope = format!("{day}/{region}/{service}/aws4_request");
    if part("Credential")? != format!("{}/{scope}", keys.id) {
        return Err("another scope".to_owned());
    }
    if !signed.split(';').any(|name| name == "host") {
        return Err("host is not signed".to_owned());
    }
    let mut canonical = format!("{method}\n{path}\n\n");
    for name in signed.split(';') {
        canonical.push_str(&format!("{name}:{}\n", one(name)?));
    }
    canonical.push_str(&format!(
        "\n{signed}\n{}",
        hex(digest::digest(&digest::SHA256, body).as_ref())
    ));
    let hashed = hex(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref());
    let text = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{hashed}");
    let mut key = format!("AWS4{}", keys.secret).into_bytes();
    for part in [day, region, service, "aws4_request"] {
        key = mac(&key, part);
    }
    if part("Signature")? != hex(&mac(&key, &text)) {
        return Err("the signature does not fit".to_owned());
    }
    Ok(())
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    hmac::sign(&key, text.as_bytes()).as_ref().to_vec()
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `post-vanilla` of AWS's test suite for Signature Version 4.
    const HEAD: &str = "POST / HTTP/1.1\r\nHost:example.amazonaws.com\r\nX-Amz-Date:20150830T123600Z\r\n\
        Authorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
        SignedHeaders=host;x-amz-date, \
        Signature=5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b\r\n";

    fn verified(head: &str, body: &[u8]) -> Result<(), String> {
        let keys = Keys {
            id: "AKIDEXAMPLE".to_owned(),
            secret: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned(),
        };
        verify(head, body, &keys, "us-east-1", "service")
    }

    #[test]
    fn a_signature_of_aws_verifies() {
        assert_eq!(verified(HEAD, b""), Ok(()));
    }

    #[test]
    fn another_body_path_or_header_does_not() {
        let wrong = Err("the signature does not fit".to_owned());
        assert_eq!(verified(HEAD, b"x"), wrong);
        assert_eq!(verified(&HEAD.replace("POST / ", "POST /x "), b""), wrong);
        assert_eq!(
            verified(&HEAD.replace("example.a", "example.b"), b""),
            wrong
        );
    }
}
