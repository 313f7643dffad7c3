//! What of a body is signed: decided by what the app says of it, and what the service takes, before a byte is read.
//!
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-auth-using-authorization-header.html>

use std::fmt;

use aws_lc_rs::digest;
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{AsHeaderName, CONTENT_ENCODING},
};

use super::SignError;

pub(super) const CONTENT_SHA256: HeaderName = HeaderName::from_static("x-amz-content-sha256");
const DECODED_LENGTH: HeaderName = HeaderName::from_static("x-amz-decoded-content-length");
const TRAILER: HeaderName = HeaderName::from_static("x-amz-trailer");

const UNSIGNED: &str = "UNSIGNED-PAYLOAD";
const UNSIGNED_TRAILER: &str = "STREAMING-UNSIGNED-PAYLOAD-TRAILER";
/// How the hash begins where there is none of the whole body.
const STREAMING: &str = "STREAMING-";
const AWS_CHUNKED: &[u8] = b"aws-chunked";
/// What may follow an unsigned body in pieces.
const CHECKSUM: &str = "x-amz-checksum-";

/// What a service takes instead of a body's hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bodies {
    /// Nothing: every body is held until it is hashed.
    Hashed,
    /// What the app says, or `unsigned` where it says nothing: S3. TLS, which S19 demands, is then what protects it.
    AsSaid {
        /// Nothing said means unsigned, instead of hashed.
        unsigned: bool,
    },
    /// No signature over a body at all: VPC Lattice.
    Unsigned,
}

/// What stands for the body in the signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload(Kind);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    /// Its SHA-256 in lower-case hex.
    Hash(String),
    Unsigned,
    UnsignedTrailer,
}

/// Hashes a body as it comes, so that a long one keeps nobody waiting at its end.
#[derive(Clone)]
pub struct Hasher(digest::Context);

/// How a body is to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// Held whole, and hashed: [`Hasher`].
    Hold,
    /// As it comes: what stands for it is known.
    Stream(Payload),
}

impl Payload {
    /// Signs `body`.
    pub fn hash(body: &[u8]) -> Self {
        Self(Kind::Hash(hex_sha256(body)))
    }

    pub(super) const fn unsigned() -> Self {
        Self(Kind::Unsigned)
    }

    pub(super) fn as_str(&self) -> &str {
        match &self.0 {
            Kind::Hash(hash) => hash,
            Kind::Unsigned => UNSIGNED,
            Kind::UnsignedTrailer => UNSIGNED_TRAILER,
        }
    }

    /// For `x-amz-content-sha256`.
    pub(super) fn header(&self) -> Result<HeaderValue, SignError> {
        match &self.0 {
            Kind::Hash(hash) => {
                HeaderValue::from_str(hash).map_err(|why| SignError::Unsignable(why.to_string()))
            }
            Kind::Unsigned => Ok(HeaderValue::from_static(UNSIGNED)),
            Kind::UnsignedTrailer => Ok(HeaderValue::from_static(UNSIGNED_TRAILER)),
        }
    }
}

impl Hasher {
    /// Of a body of which nothing came yet.
    pub fn new() -> Self {
        Self(digest::Context::new(&digest::SHA256))
    }

    /// The next piece.
    pub fn update(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }

    /// Signs the body: that was all of it.
    pub fn finish(self) -> Payload {
        Payload(Kind::Hash(hex(self.0.finish().as_ref())))
    }
}

impl Default for Hasher {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher")
    }
}

impl Bodies {
    /// How the body of a request with these headers is to be sent.
    pub(super) fn plan(self, headers: &HeaderMap) -> Result<Plan, SignError> {
        let said = Said::of(headers)?;
        match (self, said) {
            (Self::Hashed, Said::Nothing | Said::Hash(_) | Said::Unsigned | Said::Other) => {
                Ok(Plan::Hold)
            }
            (Self::Unsigned, Said::Nothing | Said::Hash(_) | Said::Unsigned | Said::Other) => {
                Ok(Plan::Stream(Payload::unsigned()))
            }
            (Self::AsSaid { unsigned: false }, Said::Nothing) => Ok(Plan::Hold),
            (Self::AsSaid { unsigned: true }, Said::Nothing)
            | (Self::AsSaid { .. }, Said::Unsigned) => Ok(Plan::Stream(Payload::unsigned())),
            // Not computed again: the service does, and refuses a body that is another.
            (Self::AsSaid { .. }, Said::Hash(hash)) => Ok(Plan::Stream(Payload(Kind::Hash(hash)))),
            (Self::AsSaid { .. }, Said::UnsignedTrailer) => {
                Ok(Plan::Stream(Payload(Kind::UnsignedTrailer)))
            }
            (Self::AsSaid { .. }, Said::Other) => Err(unsignable(
                "x-amz-content-sha256 is neither 64 lower-case hex digits, UNSIGNED-PAYLOAD nor \
                 STREAMING-UNSIGNED-PAYLOAD-TRAILER",
            )),
            (Self::Hashed | Self::Unsigned, Said::UnsignedTrailer) => Err(unsignable(
                "its body comes in pieces with a checksum behind (aws-chunked), which only S3 takes; have the SDK \
                 send it whole (AWS_REQUEST_CHECKSUM_CALCULATION=when_required)",
            )),
            (_, Said::SignedPieces) => Err(unsignable(
                "its body comes in pieces that the app's AWS SDK signed with keys of its own (STREAMING-AWS4-…), and \
                 the agent, which holds the real ones, does not take them apart; have the SDK send it whole or \
                 unsigned (payload signing, or chunked encoding, off)",
            )),
            (_, Said::Contradiction) => Err(unsignable(
                "its body is in pieces (aws-chunked, x-amz-decoded-content-length, x-amz-trailer) by some of its \
                 headers and not by x-amz-content-sha256; send it whole, or as STREAMING-UNSIGNED-PAYLOAD-TRAILER \
                 with x-amz-decoded-content-length and a checksum as its x-amz-trailer",
            )),
        }
    }
}

/// What the app says of its body.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Nothing,
    Hash(String),
    Unsigned,
    /// In pieces, with a checksum behind them.
    UnsignedTrailer,
    /// In pieces with a signature each.
    SignedPieces,
    /// One header says pieces, another doesn't.
    Contradiction,
    Other,
}

impl Said {
    fn of(headers: &HeaderMap) -> Result<Self, SignError> {
        let in_pieces = headers.contains_key(DECODED_LENGTH)
            || headers.contains_key(TRAILER)
            || lines(headers, CONTENT_ENCODING).any(names_aws_chunked);
        let mut said = headers.get_all(CONTENT_SHA256).iter();
        let (first, more) = (said.next(), said.next());
        let Some(first) = first else {
            return Ok(if in_pieces {
                Self::Contradiction
            } else {
                Self::Nothing
            });
        };
        if more.is_some() {
            return Err(unsignable("x-amz-content-sha256 is repeated"));
        }
        let text = first.to_str().unwrap_or_default().trim();
        if text.eq_ignore_ascii_case(UNSIGNED_TRAILER) {
            let whole = headers.contains_key(DECODED_LENGTH)
                && lines(headers, TRAILER).all(names_checksums);
            return Ok(if whole {
                Self::UnsignedTrailer
            } else {
                Self::Contradiction
            });
        }
        let start = text.get(..STREAMING.len());
        if start.is_some_and(|start| start.eq_ignore_ascii_case(STREAMING)) {
            return Ok(Self::SignedPieces);
        }
        if in_pieces {
            return Ok(Self::Contradiction);
        }
        let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        Ok(match text {
            UNSIGNED => Self::Unsigned,
            hash if hash.len() == 64 && hash.bytes().all(is_hex) => Self::Hash(hash.to_owned()),
            _ => Self::Other,
        })
    }
}

/// Displays what stands for the body.
impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// SHA-256 in lower-case hex.
pub(super) fn hex_sha256(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

/// Lower-case hex.
pub(super) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        for nibble in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
        }
    }
    text
}

fn lines(headers: &HeaderMap, name: impl AsHeaderName) -> impl Iterator<Item = &[u8]> {
    headers.get_all(name).iter().map(HeaderValue::as_bytes)
}

fn names_aws_chunked(line: &[u8]) -> bool {
    line.split(|byte| *byte == b',')
        .any(|coding| coding.trim_ascii().eq_ignore_ascii_case(AWS_CHUNKED))
}

/// A trailer is not signed, so nothing may come behind a body but what proves it whole.
fn names_checksums(line: &[u8]) -> bool {
    line.split(|byte| *byte == b',').all(|name| {
        let start = name.trim_ascii().get(..CHECKSUM.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(CHECKSUM.as_bytes()))
    })
}

fn unsignable(why: &str) -> SignError {
    SignError::Unsignable(why.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const S3: Bodies = Bodies::AsSaid { unsigned: false };
    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const TRAILING: &[(&str, &str)] = &[
        ("x-amz-content-sha256", UNSIGNED_TRAILER),
        ("content-encoding", "aws-chunked"),
        ("x-amz-decoded-content-length", "11"),
        ("x-amz-trailer", "x-amz-checksum-crc32"),
    ];

    fn headers(said: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in said {
            let name = HeaderName::try_from(*name).unwrap();
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn streamed(bodies: Bodies, said: &[(&str, &str)]) -> String {
        match bodies.plan(&headers(said)) {
            Ok(Plan::Stream(payload)) => payload.to_string(),
            other => panic!("{said:?}: {other:?}"),
        }
    }

    #[test]
    fn s3_streams_as_the_app_says_and_holds_what_it_says_nothing_of() {
        let sha = |value| [("x-amz-content-sha256", value)];
        assert_eq!(S3.plan(&HeaderMap::new()).unwrap(), Plan::Hold);
        assert_eq!(streamed(S3, &sha("UNSIGNED-PAYLOAD")), UNSIGNED);
        assert_eq!(streamed(S3, &sha(EMPTY)), EMPTY);
        assert_eq!(streamed(S3, TRAILING), UNSIGNED_TRAILER);
        let unsigned = Bodies::AsSaid { unsigned: true };
        assert_eq!(streamed(unsigned, &[]), UNSIGNED);
        assert_eq!(streamed(unsigned, &sha(EMPTY)), EMPTY);
        for said in ["", "unsigned", &EMPTY[1..]] {
            assert!(S3.plan(&headers(&sha(said))).is_err(), "{said}");
        }
        let (said, name) = (EMPTY.to_uppercase(), "x-amz-content-sha256");
        assert!(S3.plan(&headers(&[(name, &said)])).is_err());
        let twice = [(name, EMPTY), (name, UNSIGNED)];
        assert!(S3.plan(&headers(&twice)).is_err());
    }

    #[test]
    fn lattice_signs_no_body_and_all_others_sign_each() {
        for said in ["UNSIGNED-PAYLOAD", EMPTY, "anything"] {
            let said = [("x-amz-content-sha256", said)];
            assert_eq!(streamed(Bodies::Unsigned, &said), UNSIGNED);
            assert_eq!(Bodies::Hashed.plan(&headers(&said)).unwrap(), Plan::Hold);
        }
        assert_eq!(streamed(Bodies::Unsigned, &[]), UNSIGNED);
        assert!(Bodies::Hashed.plan(&headers(TRAILING)).is_err());
        assert!(Bodies::Unsigned.plan(&headers(TRAILING)).is_err());
    }

    #[test]
    fn s06_a_body_in_signed_pieces_is_refused() {
        for bodies in [S3, Bodies::Hashed, Bodies::Unsigned] {
            for said in [
                "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
                "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
                "STREAMING-AWS4-HMAC-SHA256-EVENTS",
                "streaming-aws4-ecdsa-p256-sha256-payload",
            ] {
                let said = [("x-amz-content-sha256", said)];
                let error = bodies.plan(&headers(&said)).unwrap_err().to_string();
                assert!(error.contains("STREAMING-AWS4"), "{error}");
            }
        }
    }

    #[test]
    fn s06_pieces_that_one_header_hides_from_another_are_refused() {
        for said in [
            &[("content-encoding", "gzip ,\tAWS-Chunked")][..],
            &[("x-amz-decoded-content-length", "11")],
            &[("x-amz-trailer", "x-amz-checksum-crc32")],
            &[
                ("x-amz-content-sha256", EMPTY),
                ("content-encoding", "aws-chunked"),
            ],
            &[("x-amz-content-sha256", UNSIGNED_TRAILER)],
            &[
                ("x-amz-content-sha256", UNSIGNED_TRAILER),
                ("x-amz-decoded-content-length", "11"),
                ("x-amz-trailer", "x-amz-checksum-crc32,x-amz-security-token"),
            ],
        ] {
            for bodies in [S3, Bodies::Hashed, Bodies::Unsigned] {
                let error = bodies.plan(&headers(said)).unwrap_err().to_string();
                assert!(error.contains("pieces"), "{said:?}: {error}");
            }
        }
        let gzip = headers(&[("content-encoding", "gzip, br, not-aws-chunked")]);
        assert_eq!(Bodies::Hashed.plan(&gzip).unwrap(), Plan::Hold);
    }
}
