//! The TLS of a listener.

use super::{Path, Problems, accept::Accepted};
use crate::config::inbound::{ClientCert, Inbound, Presents};

/// Certificates of one listener.
const MAX_CERTIFICATES: usize = 100;

pub(super) fn tls(inbound: &Inbound, accepted: &Accepted<'_>, at: &Path, problems: &mut Problems) {
    let Some(tls) = &inbound.tls else { return };
    problems.add_if(
        inbound.ext_authz.is_some(),
        at.clone(),
        "Envoy is shown our X.509-SVID, and must be one of ext_authz.peers; remove tls",
    );
    if let Presents::Files(files) = &tls.presents {
        problems.at_most(MAX_CERTIFICATES, files.len(), at.key("certificates"));
    }
    let at = at.key("client_cert");
    let mtls = !accepted.peers.is_empty();
    match tls.client_cert {
        Some(ClientCert::Required | ClientCert::Optional) => problems.add_if(
            !mtls,
            at,
            "no certificate is accepted here: add mtls with its trust_domains to accept",
        ),
        Some(ClientCert::None) => problems.add_if(
            mtls,
            at,
            "mtls in accept can prove nobody whose certificate is not asked for; expected required or optional",
        ),
        None => {}
    }
}
