//! Rego, where rules don't reach: a policy of the user's, over what was proved and what is asked.
//!
//! It is asked where no rule decides: a `deny` that holds is final, an `allow` that holds suffices. What it says is `true`
//! or no: undefined, an error, an answer of another kind and time that runs out refuse (S16).
//!
//! It reaches nothing: no file, no host, no clock. What it may know is in its input, and that holds no credential.

use std::{
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use http::HeaderName;
use serde_json::{Map, Value, json};
use thiserror::Error;
use warifu::Caller;

use super::{Decision, Evidence, Reason, Request, RuleName, Verdict};
use crate::{http::headers::Filter, telemetry::timestamp::Timestamp};
use engine::Engine;
pub use threads::Threads;

#[cfg_attr(not(feature = "rego"), path = "rego/absent.rs")]
mod engine;
mod threads;

/// Largest input, in bytes of JSON: four times the headers that a listener takes, with a token's claims.
const MAX_INPUT: usize = 256 << 10;

/// A policy, compiled.
#[derive(Debug)]
pub struct Rego {
    engine: Engine,
    rule: RuleName,
    timeout: Duration,
    /// Headers that it does not see.
    hidden: Filter,
}

/// Why a policy is none.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct NoPolicy(String);

/// What is to be asked of a policy, about a request that no rule decides.
#[derive(Debug)]
pub struct Question {
    rego: Arc<Rego>,
    input: Result<String, Undecided>,
    /// What holds where it is not allowed.
    otherwise: Option<RuleName>,
    /// The rule in shadow that would deny it where it is.
    shadow: Option<RuleName>,
}

/// Why a policy says nothing.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Undecided {
    /// It went wrong, or said something else than yes or no.
    #[error("{0}")]
    Failed(String),
    /// It took too long.
    #[error("no answer within {0:?}")]
    Late(Duration),
    /// So many evaluations were under way that it did not come to this one in time.
    #[error("other evaluations left it no time within {0:?}")]
    Busy(Duration),
    /// Nobody could ask it, or it panicked.
    #[error("it was not evaluated to the end")]
    Gone,
    /// The request is too large to be asked about.
    #[error("the input has {0} bytes, more than {MAX_INPUT}")]
    TooLarge(usize),
}

impl Undecided {
    /// One word for metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Failed(_) | Self::Gone => "failed",
            Self::Late(_) => "late",
            Self::Busy(_) => "busy",
            Self::TooLarge(_) => "too_large",
        }
    }
}

impl Rego {
    /// Compiles `sources`, each with its name, for the rule `query`, such as `data.warifu.allow`. It sees of headers what
    /// `hidden` does not remove.
    ///
    /// # Errors
    /// What is wrong with them, and where.
    pub fn compile(
        sources: Vec<(String, String)>,
        query: &str,
        timeout: Duration,
        hidden: Filter,
    ) -> Result<Self, NoPolicy> {
        Ok(Self {
            engine: Engine::compile(sources, query).map_err(NoPolicy)?,
            rule: RuleName(query.into()),
            timeout,
            hidden,
        })
    }

    pub(super) fn question(
        self: &Arc<Self>,
        caller: &Caller,
        evidence: &Evidence,
        request: Request<'_>,
        (otherwise, shadow): (Option<RuleName>, Option<RuleName>),
    ) -> Question {
        let input = self.input(caller, evidence, request).to_string();
        Question {
            rego: Arc::clone(self),
            input: match input.len() {
                length if length > MAX_INPUT => Err(Undecided::TooLarge(length)),
                _ => Ok(input),
            },
            otherwise,
            shadow,
        }
    }

    /// The input document. What is not known is absent, and so undefined in Rego: `null` would be something.
    fn input(&self, caller: &Caller, evidence: &Evidence, request: Request<'_>) -> Value {
        let mut input = Map::new();
        if let Some(peer) = &caller.peer {
            let id = peer.spiffe_id.to_string();
            input.insert("peer".to_owned(), json!({"spiffe_id": id}));
        }
        if let Some(subject) = &caller.subject {
            let mut said = Map::new();
            let mut say = |name: &str, value: Option<&String>| {
                said.extend(value.map(|value| (name.to_owned(), Value::from(value.as_str()))));
            };
            say("proof", Some(&subject.proof));
            say("sub", Some(&subject.subject));
            say("issuer", evidence.accept.as_ref());
            say("role", evidence.role.as_ref());
            said.insert("scopes".to_owned(), json!(subject.scopes));
            said.insert("claims".to_owned(), json!(evidence.claims));
            input.insert("subject".to_owned(), said.into());
        }
        input.insert("request".to_owned(), self.request(request));
        input.into()
    }

    fn request(&self, request: Request<'_>) -> Value {
        let path = request.path.split('/').filter(|it| !it.is_empty());
        let since = request.now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut said = json!({
            "method": request.method.as_str(),
            "path": request.path,
            "segments": path.collect::<Vec<_>>(),
            "headers": self.headers(request),
            "time": Timestamp(request.now),
            "unix_time": since.as_secs(),
        });
        if let Some(said) = said.as_object_mut() {
            let host = request.host.map(|host| ("host".to_owned(), host.into()));
            let source = request.source.map(|source| source.to_canonical());
            let source = source.map(|it| ("source".to_owned(), it.to_string().into()));
            said.extend(host.into_iter().chain(source));
        }
        said
    }

    /// Each with all its lines. One that is no text is shown as well as it can be: a line that is not seen can't be denied.
    fn headers(&self, request: Request<'_>) -> Map<String, Value> {
        let names = request.headers.keys();
        let seen = names.filter(|name| !self.hidden.removes(name));
        let lines = |name: &HeaderName| {
            let lines = request.headers.get_all(name).iter();
            let lines = lines.map(|line| String::from_utf8_lossy(line.as_bytes()));
            lines.map(Value::from).collect::<Vec<_>>()
        };
        seen.map(|name| (name.to_string(), lines(name).into()))
            .collect()
    }
}

impl Question {
    /// How long an answer may take.
    pub fn timeout(&self) -> Duration {
        self.rego.timeout
    }

    /// Gives `then` what the policy says, if it does `within` this time, on one of `threads`. Where there can be none, or it
    /// panics, `then` is dropped.
    pub fn ask(
        self: Arc<Self>,
        threads: &Threads,
        within: Duration,
        then: impl FnOnce(Result<bool, Undecided>) + Send + 'static,
    ) {
        threads.run(move || {
            then(match &self.input {
                Ok(input) => self.rego.engine.evaluate(input, within),
                Err(why) => Err(why.clone()),
            });
        });
    }

    /// What is decided, as the policy said this. Silence refuses (S16).
    pub fn settle(&self, said: Result<bool, Undecided>) -> Verdict {
        let rule = self.rego.rule.clone();
        let (decision, shadow) = match said {
            Ok(true) => (Decision::Allow(rule), &self.shadow),
            Ok(false) => (Decision::Deny(Reason::NotByRego(rule)), &self.otherwise),
            Err(why) => (
                Decision::Deny(Reason::Undecided(rule, why)),
                &self.otherwise,
            ),
        };
        let shadow = shadow.clone();
        Verdict { decision, shadow }
    }
}
