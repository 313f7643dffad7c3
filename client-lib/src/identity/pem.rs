//! Writing PEM (RFC 7468), for tools that read files.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustls_pki_types::CertificateDer;
use zeroize::Zeroizing;

/// RFC 7468 §2: lines of base64 hold 64 characters.
const LINE: usize = 64;

/// Certificates, one after the other.
pub(super) fn certificates(chain: &[CertificateDer<'_>]) -> String {
    chain.iter().map(|der| encode("CERTIFICATE", der)).collect()
}

/// One block. The intermediate text is wiped: it may be a key.
pub(super) fn encode(label: &str, der: &[u8]) -> String {
    let body = Zeroizing::new(STANDARD.encode(der));
    // Room for everything at once, so that no half-written copy of a key is left behind by growing.
    let mut text = String::with_capacity(body.len() + body.len() / LINE + 2 * label.len() + 64);
    text.push_str(&format!("-----BEGIN {label}-----\n"));
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, next) = rest.split_at_checked(LINE).unwrap_or((rest, ""));
        text.push_str(line);
        text.push('\n');
        rest = next;
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}
