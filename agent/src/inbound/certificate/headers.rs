//! What the app is told of the caller's certificate: in Envoy's format, in that of RFC 9440, both, or neither.

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue};
use rustls_pki_types::CertificateDer;

use crate::{
    config::inbound::ClientCertHeader,
    http::{
        headers::{CLIENT_CERT, CLIENT_CERT_CHAIN, XFCC},
        server::Refused,
    },
};

/// Bytes of all of them. Servers take 8 KiB (nginx, Apache, Tomcat) or 16 KiB (Node, Go takes more) of headers: what
/// would be more than all of that is told nobody, and an app that is told of some callers only is worse off than
/// without this one.
const MAX_BYTES: usize = 16 * 1024;

/// Which headers are made.
#[derive(Debug, Default)]
pub(super) struct Told {
    xfcc: bool,
    leaf: bool,
    chain: bool,
}

/// The headers of one connection.
#[derive(Debug, Clone, Default)]
pub(in crate::inbound) struct Headers(Vec<(HeaderName, HeaderValue)>);

impl Told {
    pub(super) fn new(wanted: &[ClientCertHeader]) -> Self {
        let has = |header| wanted.contains(&header);
        Self {
            xfcc: has(ClientCertHeader::Xfcc),
            leaf: has(ClientCertHeader::ClientCert),
            chain: has(ClientCertHeader::ClientCertChain),
        }
    }

    /// Of a caller that presented `chain`, leaf first, and that `xfcc` describes.
    pub(super) fn of(&self, xfcc: &str, chain: &[CertificateDer<'_>]) -> Result<Headers, Refused> {
        let (leaf, issuers) = match chain {
            [leaf, issuers @ ..] => (Some(leaf), issuers),
            [] => (None, [].as_slice()),
        };
        let leaf = leaf.filter(|_| self.leaf).map(byte_sequence);
        // A list without members is no header at all (RFC 8941 §3.1).
        let issuers = match self.chain {
            true => issuers.iter().map(byte_sequence).collect::<Vec<_>>(),
            false => Vec::new(),
        };
        let issuers = (!issuers.is_empty()).then(|| issuers.join(", "));
        let mut headers = Vec::new();
        let mut bytes = 0;
        for (name, value, literal) in [
            (XFCC, self.xfcc.then(|| xfcc.to_owned()), false),
            (CLIENT_CERT, leaf, true),
            (CLIENT_CERT_CHAIN, issuers, true),
        ] {
            let Some(value) = value else { continue };
            bytes += value.len();
            let mut value = HeaderValue::try_from(value)
                .map_err(|_| Refused("the client's certificate is not an X.509-SVID"))?;
            // An app over HTTP/2 would keep each in its table of headers, where it drives out what comes back (RFC
            // 9440 §3.1): many callers share a connection.
            value.set_sensitive(literal);
            headers.push((name, value));
        }
        match bytes > MAX_BYTES {
            true => Err(Refused(
                "the client's certificates are too long to be passed on (client_cert_headers)",
            )),
            false => Ok(Headers(headers)),
        }
    }
}

impl Headers {
    /// Tells the app.
    pub(in crate::inbound) fn insert(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.0 {
            headers.insert(name, value.clone());
        }
    }
}

/// As structured fields have it (RFC 8941 §3.3.5).
fn byte_sequence(certificate: &CertificateDer<'_>) -> String {
    format!(":{}:", STANDARD.encode(certificate))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &[ClientCertHeader] = &[
        ClientCertHeader::Xfcc,
        ClientCertHeader::ClientCert,
        ClientCertHeader::ClientCertChain,
    ];

    fn told(
        wanted: &[ClientCertHeader],
        chain: &[usize],
    ) -> Result<Vec<(String, String)>, Refused> {
        let chain: Vec<_> = chain
            .iter()
            .map(|length| CertificateDer::from(vec![0xff; *length]))
            .collect();
        let headers = Told::new(wanted).of("URI=spiffe://example.org/orders", &chain)?;
        let shown = |(name, value): &(HeaderName, HeaderValue)| {
            (name.to_string(), value.to_str().unwrap().to_owned())
        };
        Ok(headers.0.iter().map(shown).collect())
    }

    #[test]
    fn only_the_headers_asked_for_are_made() {
        let names = |wanted| -> Vec<String> {
            let told = told(wanted, &[3, 3]).unwrap();
            told.into_iter().map(|(name, _)| name).collect()
        };
        assert_eq!(names(&[]), [""; 0]);
        assert_eq!(
            names(&[ClientCertHeader::Xfcc]),
            ["x-forwarded-client-cert"]
        );
        assert_eq!(names(&[ClientCertHeader::ClientCert]), ["client-cert"]);
        assert_eq!(
            names(ALL),
            [
                "x-forwarded-client-cert",
                "client-cert",
                "client-cert-chain"
            ]
        );
    }

    #[test]
    fn a_chain_holds_what_is_above_the_leaf_and_is_absent_where_nothing_is() {
        let values = |chain: &[usize]| -> Vec<String> {
            let told = told(ALL, chain).unwrap();
            told.into_iter().skip(1).map(|(_, value)| value).collect()
        };
        assert_eq!(values(&[1, 2, 3]), [":/w==:", "://8=:, :////:"]);
        assert_eq!(values(&[1]), [":/w==:"]);
    }

    #[test]
    fn s14_certificates_that_no_server_would_take_as_headers_end_the_connection() {
        assert!(told(ALL, &[900, 600, 600]).is_ok());
        let why = told(ALL, &[900, 6000, 6000]).unwrap_err().to_string();
        assert!(why.contains("too long to be passed on"), "{why}");
        // Who is told nothing of it is not concerned.
        assert!(told(&[ClientCertHeader::Xfcc], &[900, 6000, 6000]).is_ok());
    }
}
