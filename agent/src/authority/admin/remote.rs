//! Administration from afar: evidence says who asks, `administrators` what they may.

use std::{sync::Arc, time::SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::Response;

use super::{
    Act,
    act::{self, By},
};
use crate::{
    attest::{
        proof,
        wire::{AdminRequest, ErrorCode, Evidence},
    },
    authority::{
        attestors::Presented,
        challenge,
        denied::Denied,
        issue::{Asked, Issuing},
        keys,
        rules::Facts,
        state::{Claim, Claimed},
    },
    config::{
        authority::{AdminAction, Administrator},
        value::Glob,
    },
    http::body::Body,
    revocation::{Origin, Provenance},
};

/// Who may do what. Nobody may do anything unless it is said (S16).
#[derive(Debug, Default)]
pub(in crate::authority) struct Administrators(Vec<Known>);

#[derive(Debug)]
struct Known {
    attestor: String,
    matches: Vec<(String, Glob)>,
    may: Vec<AdminAction>,
}

impl Administrators {
    pub(in crate::authority) fn new(configured: &[Administrator]) -> Self {
        let known = configured.iter().map(|it| Known {
            attestor: it.attestor.clone(),
            matches: it.r#match.clone().into_iter().collect(),
            may: it.may.clone(),
        });
        Self(known.collect())
    }

    /// Whether whoever has these facts may do that.
    fn check(&self, attestor: &str, facts: &Facts, action: AdminAction) -> Result<(), Denied> {
        let mut may: Vec<AdminAction> = self
            .0
            .iter()
            .filter(|known| known.is(attestor, facts))
            .flat_map(|known| known.may.iter().copied())
            .collect();
        if may.contains(&action) {
            return Ok(());
        }
        may.sort_by_key(|action| action.name());
        may.dedup();
        let names: Vec<&str> = may.iter().map(|action| action.name()).collect();
        Err(Denied::new(
            ErrorCode::NotAllowed,
            match names.as_slice() {
                [] => format!(
                    "what attestor {attestor:?} proved is nobody who administers: none of the authority's \
                     `administrators` matches"
                ),
                names => format!(
                    "this administrator may {}, and not {}; see `may` of the authority's `administrators`",
                    names.join(", "),
                    action.name()
                ),
            },
        ))
    }
}

impl Known {
    fn is(&self, attestor: &str, facts: &Facts) -> bool {
        let has =
            |(fact, glob): &(String, Glob)| facts.get(fact).is_some_and(|it| glob.matches(it));
        self.attestor == attestor && self.matches.iter().all(has)
    }
}

/// Does what the request asks for, if who sent it may.
pub(in crate::authority) async fn administer(
    issuing: &Arc<Issuing>,
    asked: Asked<'_>,
    request: AdminRequest,
) -> Result<Response<Body>, Denied> {
    let (mut by, mut act) = (By::Nobody {}, None);
    match admit(issuing, asked, request, &mut by, &mut act).await {
        Ok(admitted) => {
            let (issuing, remote) = (Arc::clone(issuing), Some(asked.remote.to_owned()));
            act::carry_out(issuing, by, remote, admitted, asked.now).await
        }
        Err(why) => {
            act::refused(
                issuing,
                &by,
                Some(asked.remote),
                act.as_ref(),
                &why,
                asked.now,
            )
            .await;
            Err(why)
        }
    }
}

/// The act, if it may be carried out. `by` and `asked_for` become what is known of it, for the audit log.
async fn admit(
    issuing: &Issuing,
    asked: Asked<'_>,
    request: AdminRequest,
    by: &mut By,
    asked_for: &mut Option<Act>,
) -> Result<Act, Denied> {
    let now = asked.now;
    let evidence = &request.evidence;
    let (challenge, act) = (&request.challenge, &request.act.0);
    let trust_domain = issuing.trust_domain();
    let transcript = |key: &str| proof::admin(trust_domain, challenge, key, evidence, act);
    let key = request.renewal_key;
    let key = issuing.prover(now, challenge, key, &request.proof, transcript)?;
    let act: Act = serde_json::from_slice(act)
        .map_err(|why| Denied::new(ErrorCode::BadRequest, format!("act: {why}")))?;
    *asked_for = Some(act.clone());
    if let Evidence::JoinToken { .. } = evidence {
        return Err(Denied::new(
            ErrorCode::NotAllowed,
            "a join token is no evidence of an administrator, who could make another with it; use another attestor",
        ));
    }

    let presented = Presented {
        evidence,
        renewal_key: &key,
        challenge,
        remote: asked.remote,
        now,
    };
    let proven = issuing.attestors.prove(presented, &*issuing.store).await?;
    *by = By::Proven {
        attestor: proven.attestor.clone(),
        facts: proven.facts.clone(),
    };
    issuing.take_of_account(&proven.attestor, &proven.facts, now)?;
    issuing
        .administrators
        .check(&proven.attestor, &proven.facts, act.action())?;
    // Whoever stole the session of a role that is revoked must not take that back.
    let role = issuing.attestors.role(&proven.attestor, &proven.facts);
    issuing.refuse_revoked(&Provenance {
        role: role.map(|role| Origin::hash_of_role(&role).into()),
        ..Provenance::default()
    })?;
    // From here on the request is used up, and so is evidence that is good once.
    issuing.use_up(challenge, now).await?;
    if let Some(single_use) = proven.single_use {
        issuing.spend(single_use, key.thumbprint(), now).await?;
    }
    Ok(act)
}

impl Issuing {
    /// One act for each challenge: a request that is sent again does nothing.
    async fn use_up(&self, challenge: &str, now: SystemTime) -> Result<(), Denied> {
        let mut id = [0; 32];
        let text = format!("warifu admin challenge\n{challenge}");
        id.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
        // Whoever asks, even by the same key, is another.
        let random =
            keys::random::<16>().map_err(|why| Denied::failed("taking a request", &why))?;
        let claim = Claim {
            id,
            holder: URL_SAFE_NO_PAD.encode(random.expose()),
            until: now + challenge::LIFE + challenge::SKEW,
        };
        match self.store.claim(claim, now).await? {
            Claimed::Yours => Ok(()),
            Claimed::Another => Err(Denied::new(
                ErrorCode::Replayed,
                "challenge: this request was taken already, and may have been carried out: the audit log and \
                 `warifu authority status` say so",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn administrators() -> Administrators {
        let administrator =
            |attestor: &str, demands: &[(&str, &str)], may: &[AdminAction]| Administrator {
                attestor: attestor.to_owned(),
                r#match: demands
                    .iter()
                    .map(|(k, v)| ((*k).to_owned(), v.parse().unwrap()))
                    .collect(),
                may: may.to_vec(),
            };
        Administrators::new(&[
            administrator(
                "ci",
                &[("sub", "repo:platform/*")],
                &[AdminAction::Revoke, AdminAction::Status],
            ),
            administrator(
                "ci",
                &[("sub", "repo:platform/ops"), ("ref", "main")],
                &[AdminAction::Rotate],
            ),
        ])
    }

    fn check(attestor: &str, facts: &[(&str, &str)], action: AdminAction) -> Result<(), String> {
        let facts = facts
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        administrators()
            .check(attestor, &facts, action)
            .map_err(|why| why.message)
    }

    #[test]
    fn s16_nobody_administers_unless_it_is_said() {
        let ops = [("sub", "repo:platform/ops"), ("ref", "main")];
        assert_eq!(check("ci", &ops, AdminAction::Revoke), Ok(()));
        assert_eq!(check("ci", &ops, AdminAction::Rotate), Ok(()));
        let refused = check("ci", &ops, AdminAction::JoinToken).unwrap_err();
        assert!(
            refused.contains("may revoke, rotate, status, and not join-token"),
            "{refused}"
        );
        let refused = check("ci", &ops[..1], AdminAction::Rotate).unwrap_err();
        assert!(refused.contains("and not rotate"), "{refused}");
        for (attestor, facts) in [
            ("other", &ops[..]),
            ("ci", &[("sub", "repo:shop/ops")]),
            ("ci", &[]),
        ] {
            let refused = check(attestor, facts, AdminAction::Status).unwrap_err();
            assert!(refused.contains("nobody who administers"), "{refused}");
        }
        let none = Administrators::default().check("ci", &Facts::new(), AdminAction::Status);
        assert!(none.is_err());
    }
}
