//! In which headers the app is told of the caller's certificate.

use super::{Path, Problems};
use crate::config::inbound::{ClientCertHeader, Inbound};

pub(super) fn client_cert_headers(inbound: &Inbound, at: &Path, problems: &mut Problems) {
    let headers = &inbound.client_cert_headers;
    for (index, header) in headers.iter().enumerate() {
        let at = at.index(index);
        problems.add_if(
            headers.iter().take(index).any(|other| other == header),
            at.clone(),
            "this header is listed already",
        );
        if *header != ClientCertHeader::ClientCertChain {
            continue;
        }
        problems.add_if(
            !headers.contains(&ClientCertHeader::ClientCert),
            at.clone(),
            "expected client-cert beside it: a chain without its end says nothing (RFC 9440, section 2.3)",
        );
        problems.add_if(
            inbound.ext_authz.is_some(),
            at,
            "Envoy shows the caller's certificate alone: where its app needs the chain, have Envoy forward it",
        );
    }
}
