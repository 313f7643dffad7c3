//! Administration: over a unix socket of the authority's own user, or from afar by whom `administrators` name.
//!
//! ```text
//! unix socket, whose peer the kernel names ─┐
//!                                           ├──▶ Act ──▶ carried out ──▶ audit line ──▶ answer
//! front door, evidence + proof ─ may it? ───┘
//! ```

use std::{collections::BTreeMap, fmt, sync::Arc, time::SystemTime};

use http::{Method, Request, Response};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use warifu::Secret;

use super::{
    api, denied::Denied, issue::Issuing, join_token::NewJoinToken, record::unix, revocation::Change,
};
use crate::{
    attest::wire::{Evidence, secret_string},
    config::authority::AdminAction,
    http::{
        body::Body,
        server::{Connection, Opened, Process, Refused, Remote, Service},
    },
};

mod act;
pub mod client;
mod explain;
mod remote;

pub use explain::{Bound, ExplainAnswer, Granted, GrantedAlso, OfAttestor, OfRule};
pub(super) use remote::{Administrators, administer};

use act::By;

const JOIN_TOKENS: &str = "/v1/join-tokens";
const ROTATE: &str = "/v1/rotate";
const REVOCATIONS: &str = "/v1/revocations";
const STATUS: &str = "/v1/status";
const EXPLAIN: &str = "/v1/explain";

/// An act of administration, as it is asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    /// Make a join token. Answers [`JoinTokenAnswer`].
    JoinToken(JoinTokenRequest),
    /// Revoke, or take back. Answers [`super::Changed`].
    Revoke(Change),
    /// Show what is revoked. Answers [`super::Revocations`].
    Revocations,
    /// Start the rotation of root and keys. Answers [`super::Status`].
    Rotate,
    /// Say what the rules make of facts or evidence. Answers [`ExplainAnswer`].
    Explain(ExplainRequest),
    /// Show what there is. Answers [`super::Status`].
    Status,
}

/// Asks for a join token.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinTokenRequest {
    /// The attestor, of kind `join-token`.
    pub attestor: String,
    /// What the token attests.
    #[serde(default)]
    pub facts: BTreeMap<String, String>,
    /// How long it may be used, in seconds.
    pub ttl: u64,
}

/// A join token.
#[derive(Clone, Serialize, Deserialize)]
pub struct JoinTokenAnswer {
    /// Shown once, here.
    #[serde(with = "secret_string")]
    pub token: Secret<String>,
    /// Unix seconds.
    pub expires_at: u64,
    /// What its facts lead to by today's rules.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spiffe_id: Option<String>,
    /// Why they lead to nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

/// Asks what the rules make of facts, or of what evidence proves: one of the two.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExplainRequest {
    /// Whose facts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attestor: Option<String>,
    /// The facts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub facts: BTreeMap<String, String>,
    /// Evidence, as an agent presents it. It is not spent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
}

/// The service behind the socket.
#[derive(Debug)]
pub(super) struct Administration(pub(super) Arc<Issuing>);

/// Somebody of this machine.
#[derive(Debug)]
pub(super) struct Session {
    issuing: Arc<Issuing>,
    uid: u32,
}

impl Act {
    /// What an administrator must be allowed to do for it.
    pub fn action(&self) -> AdminAction {
        match self {
            Self::JoinToken(_) => AdminAction::JoinToken,
            Self::Revoke(_) | Self::Revocations => AdminAction::Revoke,
            Self::Rotate => AdminAction::Rotate,
            Self::Explain(_) => AdminAction::Explain,
            Self::Status => AdminAction::Status,
        }
    }

    /// What the audit log calls it.
    fn name(&self) -> &'static str {
        match self {
            Self::JoinToken(_) => "join-token",
            Self::Revoke(change) if change.undo => "unrevoke",
            Self::Revoke(_) => "revoke",
            Self::Revocations => "revocations",
            Self::Rotate => "rotate",
            Self::Explain(_) => "explain",
            Self::Status => "status",
        }
    }
}

impl Service for Administration {
    type Session = Session;

    fn open(&self, connection: Connection) -> Result<Opened<Session>, Refused> {
        let us = rustix::process::geteuid().as_raw();
        match connection.remote {
            // The socket's mode says the same; a mode can be changed by mistake.
            Remote::Unix(Some(Process { uid, .. })) if uid == us || uid == 0 => Ok(Opened {
                session: Arc::new(Session {
                    issuing: Arc::clone(&self.0),
                    uid,
                }),
                expires: None,
            }),
            _ => Err(Refused(
                "administration is for the authority's own user and root",
            )),
        }
    }

    async fn call(session: Arc<Session>, request: Request<Incoming>) -> Response<Body> {
        answer(&session, request)
            .await
            .unwrap_or_else(|why| api::denied(&why))
    }
}

async fn answer(session: &Session, request: Request<Incoming>) -> Result<Response<Body>, Denied> {
    let act = read(request).await?;
    let by = By::Uid { uid: session.uid };
    let issuing = Arc::clone(&session.issuing);
    act::carry_out(issuing, by, None, act, SystemTime::now()).await
}

/// What is asked for, by its path.
async fn read(request: Request<Incoming>) -> Result<Act, Denied> {
    let path = request.uri().path().to_owned();
    match path.as_str() {
        JOIN_TOKENS => {
            api::expect(&request, &Method::POST)?;
            Ok(Act::JoinToken(api::read(request).await?))
        }
        ROTATE => {
            api::expect(&request, &Method::POST)?;
            Ok(Act::Rotate)
        }
        REVOCATIONS if request.method() == Method::GET => Ok(Act::Revocations),
        REVOCATIONS => {
            api::expect(&request, &Method::POST)?;
            Ok(Act::Revoke(api::read(request).await?))
        }
        STATUS => {
            api::expect(&request, &Method::GET)?;
            Ok(Act::Status)
        }
        EXPLAIN => {
            api::expect(&request, &Method::POST)?;
            Ok(Act::Explain(api::read(request).await?))
        }
        path => Err(api::not_found(path)),
    }
}

impl From<NewJoinToken> for JoinTokenAnswer {
    fn from(made: NewJoinToken) -> Self {
        Self {
            token: made.token,
            expires_at: unix(made.expires_at),
            spiffe_id: made.leads_to.clone().ok(),
            warning: made.leads_to.err(),
        }
    }
}

impl fmt::Debug for JoinTokenAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinTokenAnswer")
            .field("token", &self.token)
            .field("expires_at", &self.expires_at)
            .field("spiffe_id", &self.spiffe_id)
            .field("warning", &self.warning)
            .finish()
    }
}
