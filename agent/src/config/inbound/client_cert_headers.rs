//! In which headers the app is told of the caller's certificate.

use schemars::JsonSchema;
use serde::Deserialize;

/// A header that says which certificate the caller presented. None of them is ever taken from the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ClientCertHeader {
    /// `x-forwarded-client-cert`, Envoy's: our SPIFFE ID, the certificate's hash, the caller's SPIFFE ID.
    Xfcc,
    /// `client-cert` (RFC 9440 §2.2): the certificate itself, some 900 bytes.
    ClientCert,
    /// `client-cert-chain` (RFC 9440 §2.3): the certificates between it and the root.
    ClientCertChain,
}

/// The one that needs no parser of certificates, and is short.
pub(super) fn default() -> Vec<ClientCertHeader> {
    vec![ClientCertHeader::Xfcc]
}
