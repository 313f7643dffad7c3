//! An act of administration is carried out, written down, and answered, in this order.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::Response;
use serde::Serialize;
use serde_json::{Value, json};

use super::{Act, JoinTokenAnswer};
use crate::{
    attest::wire::ErrorCode,
    authority::{
        api,
        denied::Denied,
        issue::Issuing,
        join_token::{self, JoinTokenError, NewJoinToken},
        maintain::RotateError,
        rules::Facts,
        status::Status,
    },
    http::body::Body,
    telemetry::timestamp::Timestamp,
};

/// Who administers.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub(super) enum By {
    /// A user of this machine, as the kernel says.
    Uid { uid: u32 },
    /// What evidence proved.
    Proven { attestor: String, facts: Facts },
    /// Nothing was proved.
    Nobody {},
}

/// What was done: the answer, and what the audit log keeps of it. No secrets in the latter.
struct Done {
    answer: Response<Body>,
    result: Value,
}

/// A line of the audit log.
#[derive(Serialize)]
struct Line<'a> {
    time: Timestamp,
    /// Which act: `join-token`, `revoke`, … or `administration` where it did not get that far.
    event: &'static str,
    /// `done` or `refused`.
    decision: &'static str,
    /// Where it came from, if not from this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    remote: Option<&'a str>,
    by: &'a By,
    /// What was asked for.
    #[serde(skip_serializing_if = "Value::is_null")]
    act: Value,
    #[serde(skip_serializing_if = "Value::is_null")]
    result: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<Refused<'a>>,
}

#[derive(Serialize)]
struct Refused<'a> {
    code: ErrorCode,
    why: &'a str,
}

/// Carries out what `by` may ask for. `remote` is where it came from, if not from this machine.
pub(super) async fn carry_out(
    issuing: Arc<Issuing>,
    by: By,
    remote: Option<String>,
    act: Act,
    now: SystemTime,
) -> Result<Response<Body>, Denied> {
    // By itself: who hangs up in the middle must not keep what was done from being written down.
    let carried_out = tokio::spawn(async move {
        let done = issuing.perform(&act, now).await;
        let remote = remote.as_deref();
        match done {
            Ok(done) => {
                let (event, about) = (act.name(), about(&act));
                let line = Line {
                    time: Timestamp(now),
                    event,
                    decision: "done",
                    remote,
                    by: &by,
                    act: about,
                    result: done.result,
                    refused: None,
                };
                let written = issuing.audit.write_and_wait(&line).await;
                issuing.metrics.decided("administration", "done");
                match (written, &act) {
                    (Ok(()), _) => Ok(done.answer),
                    // These are in force by now, and who asked has to know.
                    (Err(why), Act::Revoke(_) | Act::Rotate) => {
                        tracing::error!(%why, event, "the audit line of an administrator's act could not be written");
                        Ok(done.answer)
                    }
                    (Err(why), _) => Err(Denied::failed("writing the audit log", &why)),
                }
            }
            Err(why) => {
                refused(&issuing, &by, remote, Some(&act), &why, now).await;
                Err(why)
            }
        }
    });
    carried_out
        .await
        .map_err(|why| Denied::failed("carrying it out", &why))?
}

/// Writes down what was not done.
pub(super) async fn refused(
    issuing: &Issuing,
    by: &By,
    remote: Option<&str>,
    act: Option<&Act>,
    why: &Denied,
    now: SystemTime,
) {
    issuing
        .metrics
        .decided("administration", &why.code.to_string());
    let line = Line {
        time: Timestamp(now),
        event: act.map_or("administration", Act::name),
        decision: "refused",
        remote,
        by,
        act: act.map_or(Value::Null, about),
        result: Value::Null,
        refused: Some(Refused {
            code: why.code,
            why: &why.message,
        }),
    };
    match by {
        // A stranger's request waits for nothing.
        By::Nobody {} => issuing.audit.write(&line),
        By::Uid { .. } | By::Proven { .. } => {
            if let Err(why) = issuing.audit.write_and_wait(&line).await {
                tracing::error!(%why, "the audit line of a refused act could not be written");
            }
        }
    }
}

/// An act as the audit log has it: all of it but evidence.
fn about(act: &Act) -> Value {
    match act {
        Act::JoinToken(it) => json!(it),
        Act::Revoke(it) => json!(it),
        Act::Explain(it) => match &it.evidence {
            None => json!(it),
            Some(evidence) => json!({"evidence": evidence.kind()}),
        },
        Act::Revocations | Act::Rotate | Act::Status => Value::Null,
    }
}

impl Issuing {
    async fn perform(&self, act: &Act, now: SystemTime) -> Result<Done, Denied> {
        let done = |answer: Response<Body>, result: Value| Ok(Done { answer, result });
        match act {
            Act::JoinToken(asked) => {
                let ttl = Duration::from_secs(asked.ttl);
                let facts = asked.facts.clone();
                let made = self.create_join_token(&asked.attestor, facts, ttl, now);
                let made = JoinTokenAnswer::from(made.await?);
                let result = json!({
                    "expires_at": Timestamp(SystemTime::UNIX_EPOCH + Duration::from_secs(made.expires_at)),
                    "spiffe_id": made.spiffe_id,
                });
                done(api::json(&made), result)
            }
            Act::Revoke(change) => {
                let changed = self.revoke(change, now).await?;
                let until = changed.entry.until.map(Duration::from_secs);
                let until = until.map(|until| Timestamp(SystemTime::UNIX_EPOCH + until));
                let result = json!({"number": changed.number, "until": until});
                done(api::json(&changed), result)
            }
            Act::Revocations => done(api::json(&self.revocations()), Value::Null),
            Act::Rotate => {
                self.rotate(now).await?;
                done(api::json(&self.status()), Value::Null)
            }
            Act::Explain(asked) => {
                let explained = self.explain(asked, now).await?;
                let result =
                    json!({"spiffe_id": explained.granted.as_ref().map(|it| &it.spiffe_id)});
                done(api::json(&explained), result)
            }
            Act::Status => done(api::json(&self.status()), Value::Null),
        }
    }

    /// Makes a join token that attests `facts` once, within `ttl`.
    pub(in crate::authority) async fn create_join_token(
        &self,
        attestor: &str,
        facts: Facts,
        ttl: Duration,
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
                .map(|grants| grants.first.spiffe_id.to_string())
                .map_err(|why| why.to_string()),
        })
    }

    /// What there is.
    pub(in crate::authority) fn status(&self) -> Status {
        Status::of(
            &self.live.load(),
            &self.revoked.load().list,
            &self.federation,
            &self.settings,
        )
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
