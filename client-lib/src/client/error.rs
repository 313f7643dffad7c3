//! What can go wrong on the way through the agent, and what to do about it.

use std::{fmt, io, time::Duration};

use http::{Method, Request, StatusCode, Uri};
use thiserror::Error;

/// The error of a streamed request body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a call gave no answer. URLs are shown without their query, which may hold secrets.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The agent's address cannot be used.
    #[error(
        "the agent's address {given:?} cannot be used: {why}; \
         expected unix:/run/warifu/outbound.sock or http://127.0.0.1:4140"
    )]
    Address {
        /// What was given.
        given: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The URL cannot be called through the agent.
    #[error("cannot call {url:?} through the agent: {why}")]
    Url {
        /// The URL, without its query.
        url: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The request could not be put together.
    #[error("cannot build the request to {url:?}: {why}")]
    Build {
        /// The URL, without its query.
        url: String,
        /// What was refused.
        why: String,
    },
    /// Nobody answers at the agent's address.
    #[error(
        "cannot reach the agent at {agent}: {source}; is the agent running, and is this the \
         `outbound.listen` of its configuration? (WARIFU_OUTBOUND names another)"
    )]
    AgentUnreachable {
        /// The address that was tried.
        agent: String,
        /// Why connecting failed.
        source: io::Error,
    },
    /// The exchange with the agent broke off, or was not HTTP.
    #[error(
        "{what}: the connection to the agent at {agent} failed: {source}{}",
        hint(source)
    )]
    Connection {
        /// The agent's address.
        agent: String,
        /// Method and URL.
        what: String,
        /// What the HTTP layer says.
        source: hyper::Error,
    },
    /// The exchange took too long.
    #[error("{what}: not answered in full within {after:?}")]
    TimedOut {
        /// Method and URL.
        what: String,
        /// How long was waited.
        after: Duration,
    },
    /// An answer with an error status, from [`error_for_status`](super::Response::error_for_status)
    /// or where [`json`](super::Response::json) met an answer of the agent's own.
    #[error("{what}: answered {status}{}", by_agent(reason.as_deref()))]
    Refused {
        /// Method and URL.
        what: String,
        /// The status of the answer.
        status: StatusCode,
        /// Why, where the agent made the answer ([`REASON_HEADER`](super::REASON_HEADER)).
        reason: Option<String>,
    },
    /// The answer is larger than the limit.
    #[error("{what}: the answer is larger than {limit} bytes; stream it, or raise the limit")]
    TooLarge {
        /// Method and URL.
        what: String,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The answer is not the JSON that was expected.
    #[error("{what}: the answer is not the expected JSON: {source}")]
    Json {
        /// Method and URL.
        what: String,
        /// Where parsing stopped.
        source: serde_json::Error,
    },
}

/// A request as errors name it: method and URL, without its query. Cheap to make and to clone.
#[derive(Debug, Clone)]
pub(super) struct Exchange {
    method: Method,
    uri: Uri,
}

impl Exchange {
    pub(super) fn of<B>(request: &Request<B>) -> Self {
        Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
        }
    }
}

impl fmt::Display for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, url(&self.uri))
    }
}

/// `uri` without query and user information.
pub(super) fn url(uri: &Uri) -> String {
    let host = uri.authority().map_or("", |authority| {
        authority.as_str().rsplit('@').next().unwrap_or_default()
    });
    match uri.scheme_str() {
        Some(scheme) => format!("{scheme}://{host}{}", uri.path()),
        None => format!("{host}{}", uri.path()),
    }
}

fn by_agent(reason: Option<&str>) -> String {
    reason.map_or_else(String::new, |reason| format!(" by the agent: {reason}"))
}

fn hint(source: &hyper::Error) -> &'static str {
    if source.is_parse() {
        "; is it the agent that listens there?"
    } else {
        ""
    }
}
