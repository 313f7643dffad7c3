//! Bodies in pieces, each with its length and a signature or checksum: `aws-chunked` uploads and event streams.
//!
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html>

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{AsHeaderName, CONTENT_ENCODING},
};

use super::SignError;

const CONTENT_SHA256: HeaderName = HeaderName::from_static("x-amz-content-sha256");
const DECODED_LENGTH: HeaderName = HeaderName::from_static("x-amz-decoded-content-length");

/// How the hash begins where there is none of the whole body: `STREAMING-AWS4-HMAC-SHA256-PAYLOAD`,
/// `STREAMING-UNSIGNED-PAYLOAD-TRAILER` and their kin.
const STREAMING: &[u8] = b"STREAMING-";
const AWS_CHUNKED: &[u8] = b"aws-chunked";

/// Refuses a request whose body is in pieces: without the headers that say so, which are always removed,
/// the service would take the pieces' lengths and signatures for content.
///
/// Needs no body, so it can be asked before that is read. Signing asks in any case.
///
/// # Errors
/// [`SignError::Unsignable`].
pub fn refuse_streamed(headers: &HeaderMap) -> Result<(), SignError> {
    if headers.contains_key(DECODED_LENGTH)
        || lines(headers, CONTENT_SHA256).any(is_streaming)
        || lines(headers, CONTENT_ENCODING).any(names_aws_chunked)
    {
        return Err(SignError::Unsignable(
            "its body comes in pieces that the app's AWS SDK signed or checksummed (aws-chunked), \
             and this route signs whole bodies; have the SDK send it whole (chunked encoding off, \
             AWS_REQUEST_CHECKSUM_CALCULATION=when_required)"
                .to_owned(),
        ));
    }
    Ok(())
}

fn lines(headers: &HeaderMap, name: impl AsHeaderName) -> impl Iterator<Item = &[u8]> {
    headers.get_all(name).iter().map(HeaderValue::as_bytes)
}

fn is_streaming(line: &[u8]) -> bool {
    let start = line.get(..STREAMING.len());
    start.is_some_and(|start| start.eq_ignore_ascii_case(STREAMING))
}

fn names_aws_chunked(line: &[u8]) -> bool {
    line.split(|byte| *byte == b',')
        .any(|coding| coding.trim_ascii().eq_ignore_ascii_case(AWS_CHUNKED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s06_a_body_in_signed_pieces_is_refused() {
        for (name, value) in [
            (CONTENT_SHA256, "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"),
            (CONTENT_SHA256, "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"),
            (CONTENT_SHA256, "STREAMING-UNSIGNED-PAYLOAD-TRAILER"),
            (CONTENT_SHA256, "STREAMING-AWS4-HMAC-SHA256-EVENTS"),
            (CONTENT_SHA256, "streaming-aws4-ecdsa-p256-sha256-payload"),
            (CONTENT_ENCODING, "aws-chunked"),
            (CONTENT_ENCODING, "gzip ,\tAWS-Chunked"),
            (DECODED_LENGTH, "11"),
        ] {
            let mut headers = HeaderMap::new();
            headers.append(&name, HeaderValue::from_static("gzip"));
            headers.append(&name, HeaderValue::from_static(value));
            let error = refuse_streamed(&headers).unwrap_err().to_string();
            assert!(error.contains("aws-chunked"), "{name}: {value}: {error}");
        }
    }

    #[test]
    fn whole_bodies_are_signed_whatever_the_app_says_of_their_hash() {
        for (name, value) in [
            (CONTENT_SHA256, "UNSIGNED-PAYLOAD"),
            (CONTENT_SHA256, ""),
            (CONTENT_ENCODING, "gzip, br"),
            (CONTENT_ENCODING, "not-aws-chunked"),
        ] {
            let headers = HeaderMap::from_iter([(name, HeaderValue::from_static(value))]);
            refuse_streamed(&headers).unwrap();
        }
    }
}
