//! Who called: the caller the agent verified, and the tower layer that hands it to a service.
//!
//! ```text
//!  agent ──unix socket, agent's uid checked───▶ x-warifu-caller  ─┐
//!        ──or TCP, signed by the agent────────▶ x-warifu-context ─┴▶ CallerLayer ─▶ Caller ─▶ app
//! ```
//!
//! A header alone proves nothing: any process that can connect to the app can write one. So the
//! layer believes the agent only where something else vouches for it, and refuses the request
//! otherwise; there is no mode without proof.
//!
//! - [`CallerLayer::over_unix`]: the kernel told the uid of the process that connected
//!   ([`PeerCred`]), and it is the agent's. [`AppSocket`] is a listener that asks.
//! - [`CallerLayer::signed_context`]: for apps that listen on TCP. The request carries a short-lived
//!   JWS, made by the agent for this request, verified with the key the agent wrote to a file.

use std::collections::BTreeMap;

use http::Extensions;
use serde::{Deserialize, Serialize};

use crate::SpiffeId;

mod codec;
pub mod context;
mod key_file;
mod layer;
mod unix;

pub use codec::{CallerError, MAX_CALLER_JSON, decode, encode};
pub use key_file::KeyFileError;
pub use layer::{CallerFuture, CallerLayer, CallerService, Refused};
pub use unix::{AppSocket, PeerCred, own_uid};

/// The authenticated party of an inbound request. Either part may be absent; never both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// Who the TLS connection proved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<Peer>,
    /// Who a token or an IAM proof proved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Subject>,
}

/// The party at the other end of the TLS connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Its SPIFFE ID.
    #[serde(with = "spiffe_id")]
    pub spiffe_id: SpiffeId,
    /// SHA-256 of its leaf certificate (DER), lower-case hex.
    pub cert_sha256: String,
}

/// The party a credential inside the request names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// How it was proved: the profile of the token (`jwt-svid`, …).
    pub proof: String,
    /// `sub`.
    pub subject: String,
    /// `iss`, where the profile has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Granted scopes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// Claims the agent was configured to forward.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub claims: BTreeMap<String, String>,
}

impl Caller {
    /// The caller of a request that passed the [`CallerLayer`]; `None` where none ran.
    pub fn from_extensions(extensions: &Extensions) -> Option<&Self> {
        extensions.get()
    }

    /// The SPIFFE ID the TLS connection proved, if it proved one.
    pub fn peer_id(&self) -> Option<&SpiffeId> {
        self.peer.as_ref().map(|peer| &peer.spiffe_id)
    }

    /// The scopes a token granted; empty without a token.
    pub fn scopes(&self) -> &[String] {
        self.subject
            .as_ref()
            .map_or(&[], |subject| subject.scopes.as_slice())
    }

    /// Whether a token granted `scope`.
    pub fn has_scope(&self, scope: &str) -> bool {
        self.scopes().iter().any(|granted| granted == scope)
    }
}

/// `SpiffeId` as a string.
mod spiffe_id {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::SpiffeId;

    pub(super) fn serialize<S: Serializer>(id: &SpiffeId, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(id)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<SpiffeId, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        SpiffeId::new(&*text).map_err(D::Error::custom)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Orders, proved by its certificate and by a token.
    pub(crate) fn orders() -> Caller {
        Caller {
            peer: Some(Peer {
                spiffe_id: "spiffe://example.org/orders".parse().unwrap(),
                cert_sha256: "ab".repeat(32),
            }),
            subject: Some(Subject {
                proof: "jwt-svid".into(),
                subject: "spiffe://example.org/orders".into(),
                issuer: None,
                scopes: vec!["charges.read".into()],
                claims: BTreeMap::new(),
            }),
        }
    }

    #[test]
    fn a_service_asks_who_called_and_what_was_granted() {
        let mut extensions = Extensions::new();
        assert_eq!(Caller::from_extensions(&extensions), None);
        extensions.insert(orders());
        let caller = Caller::from_extensions(&extensions).unwrap();
        assert_eq!(
            caller.peer_id().unwrap().to_string(),
            "spiffe://example.org/orders"
        );
        assert_eq!(caller.scopes(), ["charges.read"]);
        assert!(caller.has_scope("charges.read"));
        assert!(!caller.has_scope("charges"));
    }
}
