//! What a client asked for, and what it has of it.

use std::collections::{BTreeMap, BTreeSet};

use tonic::Status;
use warifu::identity::Identity;

use super::{
    super::{asker::Asker, proto::google::rpc},
    metrics::Metrics,
    secrets::{Secrets, TYPE_URL},
};

/// Most names asked for on a stream. Envoy opens a stream for each secret; who takes the bundles of all trust domains
/// one by one takes ten.
const MAX_NAMES: usize = 256;

/// Stands for everything, beside names or instead of them (xDS protocol, "wildcard").
const EVERYTHING: &str = "*";

/// Name to version.
pub(super) type Versions = BTreeMap<String, String>;

/// What a client asked for, and what it has of it.
#[derive(Debug)]
pub(super) struct Subscription {
    asker: Asker,
    metrics: Metrics,
    names: BTreeSet<String>,
    everything: bool,
    /// What it was sent last, whether it took it or not: what it rejected is not sent again.
    pub(super) sent: Versions,
    /// How many responses were sent; the last one's nonce.
    responses: u64,
    /// The response that was rejected last.
    rejected: u64,
}

impl Subscription {
    pub(super) fn new(asker: Asker, metrics: Metrics) -> Self {
        Self {
            asker,
            metrics,
            names: BTreeSet::new(),
            everything: false,
            sent: Versions::new(),
            responses: 0,
            rejected: 0,
        }
    }

    /// Asks for further names.
    ///
    /// # Errors
    /// When they are too many.
    pub(super) fn add(&mut self, names: impl IntoIterator<Item = String>) -> Result<(), Status> {
        for name in names {
            if name == EVERYTHING {
                self.everything = true;
            } else if !name.is_empty() {
                self.names.insert(name);
            }
            if self.names.len() > MAX_NAMES {
                return Err(Status::invalid_argument(format!(
                    "more than {MAX_NAMES} secrets on one stream; open another for the rest"
                )));
            }
        }
        Ok(())
    }

    pub(super) fn add_everything(&mut self) {
        self.everything = true;
    }

    /// Asks for `name` no more.
    pub(super) fn remove(&mut self, name: &str) {
        if name == EVERYTHING {
            self.everything = false;
        } else {
            self.names.remove(name);
        }
    }

    /// Asks for nothing any more.
    pub(super) fn clear(&mut self) {
        self.names.clear();
        self.everything = false;
    }

    /// Forgets what was sent of what is not asked for any more: asked for again, it is sent again.
    pub(super) fn forget_the_rest(&mut self) {
        if !self.everything {
            let names = &self.names;
            self.sent.retain(|name, _| names.contains(name));
        }
    }

    /// The versions of all that was asked for.
    ///
    /// # Errors
    /// A name that is none of this workload's ends the stream, as it does at SPIRE. Envoy opens a stream for each
    /// secret, logs what ends it, and asks again with a back-off: whoever runs it reads why, nothing else is held up,
    /// and a trust domain that is federated with later is found. An answer without the secret would be rejected as
    /// broken, and no answer at all would tell nobody.
    pub(super) fn wanted(&self, identity: &Identity) -> Result<Versions, Status> {
        let secrets = Secrets(identity);
        let mut names = self.names.clone();
        if self.everything {
            names.extend(secrets.names());
        }
        let versions = names.into_iter().map(|name| match secrets.find(&name) {
            Some(found) => Ok((name, found.version())),
            None => Err(unknown(&name, &secrets)),
        });
        versions.collect()
    }

    /// The nonce of a response that is about to be sent.
    pub(super) fn next_nonce(&mut self) -> String {
        self.metrics.pushed();
        self.responses += 1;
        self.responses.to_string()
    }

    /// Whether `nonce` is of an earlier response than the last.
    pub(super) fn is_stale(&self, nonce: &str) -> bool {
        !nonce.is_empty() && nonce != self.responses.to_string()
    }

    /// Counts and logs that a response was rejected, once each.
    pub(super) fn rejected(&mut self, nonce: &str, why: &rpc::Status) {
        if self.responses == self.rejected || self.is_stale(nonce) {
            return;
        }
        self.rejected = self.responses;
        let secrets = self.sent.keys();
        self.metrics.rejected(&self.asker, secrets, &why.message);
    }
}

/// The type of resource asked for: this service has one.
///
/// # Errors
/// When it is another.
pub(super) fn of_our_type(type_url: &str) -> Result<(), Status> {
    match type_url {
        "" | TYPE_URL => Ok(()),
        _ => Err(Status::invalid_argument(format!(
            "this service has resources of the type {TYPE_URL} only"
        ))),
    }
}

fn unknown(name: &str, secrets: &Secrets<'_>) -> Status {
    let name: String = name.chars().take(100).collect();
    let own = secrets.0.svid.id();
    Status::permission_denied(format!(
        "no secret {name:?} for {own}; there are default, ROOTCA, ALL, its own SPIFFE IDs, \
         and spiffe:// with a trust domain that is its own or federated with it"
    ))
}
