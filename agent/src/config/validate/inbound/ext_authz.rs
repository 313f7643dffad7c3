//! Envoy's external authorization.

use super::{Path, Problems};
use crate::config::{
    inbound::{ExtAuthz, Inbound},
    outbound::Protocol,
    value::Listen,
};

/// Whoever may ask here may have decisions on callers it names: it must have proved itself.
pub(super) fn ext_authz(
    inbound: &Inbound,
    ext_authz: &ExtAuthz,
    at: &Path,
    problems: &mut Problems,
) {
    let here = at.key("ext_authz");
    let ExtAuthz { clients, peers } = ext_authz;
    match &inbound.listen {
        Listen::Unix(_) => {
            problems.add_if(
                clients.is_everyone(),
                here.key("clients"),
                "expected whom Envoy runs as, such as clients: {uids: [101]}: whoever asks is believed",
            );
            problems.add_if(
                !peers.is_empty(),
                here.key("peers"),
                "no certificate is presented on a unix socket: give clients",
            );
        }
        Listen::Tcp(_) => {
            problems.add_if(
                peers.is_empty(),
                here.key("peers"),
                "expected the SPIFFE IDs of the Envoys that may ask, such as \
                 peers: [\"spiffe://example.org/envoy\"]: whoever asks is believed",
            );
            problems.add_if(
                !clients.is_everyone(),
                here.key("clients"),
                "processes can be told apart on a unix socket only: give peers",
            );
        }
    }
    problems.add_if(
        inbound.app_protocol != Protocol::default(),
        at.key("app_protocol"),
        "there is no app behind ext_authz: Envoy forwards",
    );
    problems.add_if(
        inbound.limits.body.is_some(),
        at.key("limits").key("body"),
        "Envoy sends no bodies here: limit them there, with the buffer filter",
    );
}
