//! Secret headers: who knows one of its two live values is the entry's subject.

use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use http::{HeaderName, HeaderValue};

use super::super::{StartError, certificate::sha256, refusal::Refusal};
use crate::{
    config::inbound::Accept,
    secrets::{Secrets, Source},
};

/// What a caller's proof is called.
pub(super) const PROOF: &str = "secret-header";

/// An entry of `accept`.
#[derive(Debug)]
pub(super) struct SecretHeader {
    /// The entry of `accept` …
    pub(super) accept: Arc<Accept>,
    /// … and its name.
    pub(super) name: String,
    pub(super) header: HeaderName,
    pub(super) subject: String,
    secret: Source,
}

impl SecretHeader {
    /// That of an entry, where it is one of these.
    pub(super) fn of(accept: &Arc<Accept>, secrets: &Secrets) -> Option<Self> {
        let Accept::SecretHeader(header) = &**accept else {
            return None;
        };
        Some(Self {
            accept: Arc::clone(accept),
            name: header.name.clone(),
            header: header.header.clone(),
            subject: header.subject.clone(),
            secret: secrets.verifying(&header.secret),
        })
    }

    /// Has its secret at hand.
    pub(super) async fn prepare(&self) -> Result<(), StartError> {
        let live = self.secret.live().await.map(drop);
        live.map_err(|why| StartError::Secret {
            accept: self.name.clone(),
            why: why.to_string(),
        })
    }

    /// Whether `line` is one of the live values. How long this takes says nothing of them: hashes of one length are
    /// compared, all of them, in constant time.
    pub(super) async fn is(&self, line: &HeaderValue) -> Result<bool, Refusal> {
        let live = self.secret.live().await;
        let live = live.map_err(|why| Refusal::NoKeys(format!("{}: {why}", self.name)))?;
        let presented = sha256(line.as_bytes());
        Ok(live.iter().fold(false, |known, value| {
            let value = sha256(value.expose().as_bytes());
            verify_slices_are_equal(&presented, &value).is_ok() | known
        }))
    }
}
