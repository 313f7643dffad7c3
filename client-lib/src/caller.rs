//! Who called: the caller the agent verified, and the tower layer that hands it to a service.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::SpiffeId;

pub mod context;
mod layer;

pub use layer::{CallerLayer, CallerService};

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
