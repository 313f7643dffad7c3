//! Administration, over a unix socket of the authority's own user: join tokens, rotation, status.

use std::{collections::BTreeMap, fmt, sync::Arc, time::SystemTime};

use http::{Method, Request, Response};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use warifu::Secret;

use super::{
    api,
    denied::Denied,
    issue::Issuing,
    join_token::{self, JoinTokenError, NewJoinToken},
    maintain::RotateError,
    record::unix,
    revocation::Change,
    rules::{Facts, Outcome},
    status::Status,
};
use crate::{
    attest::wire::{ErrorCode, secret_string},
    http::{
        body::Body,
        server::{Connection, Opened, Refused, Remote, Service},
    },
};

pub mod client;

const JOIN_TOKENS: &str = "/v1/join-tokens";
const ROTATE: &str = "/v1/rotate";
const REVOCATIONS: &str = "/v1/revocations";
const STATUS: &str = "/v1/status";
const EXPLAIN: &str = "/v1/explain";

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

/// Asks what the rules make of facts.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExplainRequest {
    /// Whose facts.
    pub attestor: String,
    /// The facts.
    #[serde(default)]
    pub facts: BTreeMap<String, String>,
}

/// What the rules make of facts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExplainAnswer {
    /// One line for each rule, in order.
    pub rules: Vec<String>,
}

/// The service behind the socket.
#[derive(Debug)]
pub(super) struct Administration(pub(super) Arc<Issuing>);

impl Service for Administration {
    type Session = Issuing;

    fn open(&self, connection: Connection) -> Result<Opened<Issuing>, Refused> {
        let us = rustix::process::geteuid().as_raw();
        match connection.remote {
            // The socket's mode says the same; a mode can be changed by mistake.
            Remote::Unix { uid: Some(uid) } if uid == us || uid == 0 => Ok(Opened {
                session: Arc::clone(&self.0),
                expires: None,
            }),
            _ => Err(Refused(
                "administration is for the authority's own user and root",
            )),
        }
    }

    async fn call(issuing: Arc<Issuing>, request: Request<Incoming>) -> Response<Body> {
        answer(&issuing, request)
            .await
            .unwrap_or_else(|why| api::denied(&why))
    }
}

async fn answer(issuing: &Issuing, request: Request<Incoming>) -> Result<Response<Body>, Denied> {
    let now = SystemTime::now();
    match request.uri().path() {
        JOIN_TOKENS => {
            api::expect(&request, &Method::POST)?;
            let asked: JoinTokenRequest = api::read(request).await?;
            let ttl = std::time::Duration::from_secs(asked.ttl);
            let made = issuing
                .create_join_token(&asked.attestor, asked.facts, ttl, now)
                .await?;
            Ok(api::json(&JoinTokenAnswer::from(made)))
        }
        ROTATE => {
            api::expect(&request, &Method::POST)?;
            issuing.rotate(now).await?;
            Ok(api::json(&issuing.status()))
        }
        REVOCATIONS if request.method() == Method::GET => Ok(api::json(&issuing.revocations())),
        REVOCATIONS => {
            api::expect(&request, &Method::POST)?;
            let change: Change = api::read(request).await?;
            Ok(api::json(
                &issuing.revoke("admin socket", &change, now).await?,
            ))
        }
        STATUS => {
            api::expect(&request, &Method::GET)?;
            Ok(api::json(&issuing.status()))
        }
        EXPLAIN => {
            api::expect(&request, &Method::POST)?;
            let asked: ExplainRequest = api::read(request).await?;
            let outcomes = issuing.rules.explain(&asked.attestor, &asked.facts);
            let rules = outcomes.iter().map(Outcome::to_string).collect();
            Ok(api::json(&ExplainAnswer { rules }))
        }
        path => Err(api::not_found(path)),
    }
}

impl Issuing {
    /// Makes a join token that attests `facts` once, within `ttl`.
    pub(super) async fn create_join_token(
        &self,
        attestor: &str,
        facts: Facts,
        ttl: std::time::Duration,
        now: SystemTime,
    ) -> Result<NewJoinToken, JoinTokenError> {
        if !self.attestors.takes_join_tokens(attestor) {
            return Err(JoinTokenError::Attestor(attestor.to_owned()));
        }
        let leads_to = self.rules.decide(attestor, &facts);
        let (token, kept) = join_token::make(attestor, facts, ttl, now)?;
        let expires_at = kept.expires_at;
        self.store.put_join_token(kept, now).await?;
        Ok(NewJoinToken {
            token,
            expires_at,
            leads_to: leads_to
                .map(|grant| grant.spiffe_id.to_string())
                .map_err(|why| why.to_string()),
        })
    }

    /// What there is.
    pub(super) fn status(&self) -> Status {
        Status::of(
            &self.live.load(),
            &self.revoked.load().list,
            &self.federation,
            &self.settings,
        )
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

impl From<JoinTokenError> for Denied {
    fn from(why: JoinTokenError) -> Self {
        match why {
            JoinTokenError::Store(why) => Self::busy(why.to_string()),
            why => Self::new(ErrorCode::BadRequest, why.to_string()),
        }
    }
}

impl From<RotateError> for Denied {
    fn from(why: RotateError) -> Self {
        match why {
            RotateError::UnderWay { .. } => Self::new(ErrorCode::Conflict, why.to_string()),
            RotateError::Maintain(why) => Self::busy(why.to_string()),
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
