//! Minting: JWT-SVIDs and access tokens (RFC 9068), of keys and issuers of their own.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Serialize;
use warifu::{Secret, jwt};

use super::{Asked, Issuing, audit};
use crate::{
    attest::{
        proof,
        wire::{self, ErrorCode},
    },
    authority::{
        attestors::Presented,
        audit::Who,
        denied::Denied,
        keys,
        record::{Record, unix},
        rules::{Grant, Grants},
    },
    telemetry::timestamp::Timestamp,
};

/// Most of a SPIFFE ID that an error repeats, in characters.
const SHOWN: usize = 256;

/// RFC 9068 §2.1.
const ACCESS_TOKEN: &str = "at+jwt";

/// The claims of a JWT-SVID.
#[derive(Serialize)]
struct JwtSvidClaims<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    aud: &'a [String],
    #[serde(flatten)]
    of: OfAnyToken<'a>,
}

/// The claims of an access token (RFC 9068 §2.2). It has one audience: whoever gets it can't go on to
/// another service with it.
#[derive(Serialize)]
struct AccessClaims<'a> {
    iss: &'a str,
    aud: &'a str,
    /// The same as `sub`: no user is behind these tokens.
    client_id: &'a str,
    #[serde(flatten)]
    of: OfAnyToken<'a>,
}

#[derive(Serialize)]
struct OfAnyToken<'a> {
    sub: &'a str,
    exp: u64,
    iat: u64,
    jti: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    warifu_lineage: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    warifu_role: Option<String>,
}

/// What any token has that is minted now on a record.
struct Token {
    subject: String,
    id: String,
    issued_at: u64,
    expires_at: u64,
    lineage: String,
    role: Option<String>,
}

impl Issuing {
    pub(in crate::authority) async fn jwt_svid(
        &self,
        asked: Asked<'_>,
        request: &wire::JwtSvidRequest,
    ) -> Result<wire::JwtSvid, Denied> {
        let mut who = Who::default();
        let result = self.try_jwt_svid(asked.now, request, &mut who);
        self.decided("jwt-svid", asked, who, result).await
    }

    pub(in crate::authority) async fn access_token(
        &self,
        asked: Asked<'_>,
        request: &wire::AccessTokenRequest,
    ) -> Result<wire::AccessToken, Denied> {
        let mut who = Who::default();
        let result = self.try_access_token(asked.now, request, &mut who);
        self.decided("access-token", asked, who, result).await
    }

    /// An access token for evidence: for a caller that has no agent, and so no record.
    pub(in crate::authority) async fn exchange(
        &self,
        asked: Asked<'_>,
        request: wire::ExchangeRequest,
    ) -> Result<wire::AccessToken, Denied> {
        let mut who = Who::default();
        let result = self.try_exchange(asked, request, &mut who).await;
        self.decided("exchange", asked, who, result).await
    }

    fn try_jwt_svid(
        &self,
        now: SystemTime,
        request: &wire::JwtSvidRequest,
        who: &mut Who,
    ) -> Result<(wire::JwtSvid, audit::Issued), Denied> {
        let (challenge, record) = (&request.challenge, &request.record);
        check_audiences(&request.audiences)?;
        let transcript = proof::jwt_svid(
            self.trust_domain(),
            challenge,
            &request.audiences,
            request.spiffe_id.as_deref(),
            record,
        );
        let record = self.held(now, challenge, record, &request.proof, &transcript, who)?;
        let grants = self.entitled(&record.attestor, &record.facts, &record.lineage)?;
        let grant = match &request.spiffe_id {
            None => &grants.first,
            Some(id) => self.granted(&grants, id)?,
        };
        for audience in &request.audiences {
            self.check_audience(audience, grant)?;
        }
        self.mint_jwt_svid(&record, grant, &request.audiences, now)
    }

    /// What goes with the identity `id`, where it is among those the rules grant now (S5).
    fn granted<'a>(&self, grants: &'a Grants, id: &str) -> Result<&'a Grant, Denied> {
        if let Some(grant) = grants.of(id) {
            return Ok(grant);
        }
        // One that is granted, and revoked, is not among them either.
        self.refuse_revoked_id(id)?;
        // What was asked for is not repeated at any length.
        let id: String = id.chars().take(SHOWN).collect();
        Err(Denied::new(
            ErrorCode::IdentityRefused,
            format!(
                "{} is not granted {id:?} as well: add it to `also` of rules[{}]",
                grants.first.spiffe_id, grants.first.rule
            ),
        ))
    }

    fn try_access_token(
        &self,
        now: SystemTime,
        request: &wire::AccessTokenRequest,
        who: &mut Who,
    ) -> Result<(wire::AccessToken, audit::Issued), Denied> {
        let (challenge, record) = (&request.challenge, &request.record);
        check_audiences(std::slice::from_ref(&request.audience))?;
        let transcript = proof::access_token(
            self.trust_domain(),
            challenge,
            record,
            &request.audience,
            &request.scopes,
        );
        let record = self.held(now, challenge, record, &request.proof, &transcript, who)?;
        let grants = self.entitled(&record.attestor, &record.facts, &record.lineage)?;
        let grant = grants.first;
        self.check_audience(&request.audience, &grant)?;
        let scopes = granted_scopes(&request.scopes, &grant)?;
        self.mint_access_token(&record, &grant, &request.audience, scopes, now)
    }

    async fn try_exchange(
        &self,
        asked: Asked<'_>,
        request: wire::ExchangeRequest,
        who: &mut Who,
    ) -> Result<(wire::AccessToken, audit::Issued), Denied> {
        let (now, challenge) = (asked.now, &request.challenge);
        check_audiences(std::slice::from_ref(&request.audience))?;
        let transcript = |thumbprint: &str| {
            proof::exchange(
                self.trust_domain(),
                challenge,
                thumbprint,
                &request.evidence,
                &request.audience,
                &request.scopes,
            )
        };
        let renewal_key = request.renewal_key;
        let renewal_key = self.prover(now, challenge, renewal_key, &request.proof, transcript)?;
        // Evidence that is good once is not spent for a token that would not be granted.
        let scopes = |grant: &Grant| {
            self.check_audience(&request.audience, grant)?;
            granted_scopes(&request.scopes, grant)
        };
        let presented = Presented {
            evidence: &request.evidence,
            renewal_key: &renewal_key,
            challenge: &request.challenge,
            remote: asked.remote,
            now,
        };
        let (record, grants) = self
            .prove(presented, None, who, |grant| scopes(grant).map(drop))
            .await?;
        let scopes = scopes(&grants.first)?;
        self.mint_access_token(&record, &grants.first, &request.audience, scopes, now)
    }

    fn check_audience(&self, audience: &str, grant: &Grant) -> Result<(), Denied> {
        // `warifu:TD:attest:…` and the like are evidence to others of this authority's kind.
        let is_internal = audience.strip_prefix("warifu:").is_some_and(
            |rest| !matches!(rest.split_once(':'), Some((_, to)) if to.starts_with("call:")),
        );
        if !is_internal && grant.allows_audience(audience) {
            return Ok(());
        }
        Err(Denied::new(
            ErrorCode::AudienceRefused,
            format!(
                "{} may not have a token for audience {audience:?}: add it to `audiences` of {}",
                grant.spiffe_id,
                grant.origin()
            ),
        ))
    }

    fn mint_jwt_svid(
        &self,
        record: &Record,
        grant: &Grant,
        audiences: &[String],
        now: SystemTime,
    ) -> Result<(wire::JwtSvid, audit::Issued), Denied> {
        let live = self.live.load();
        let token = self.token(record, grant, now)?;
        let claims = JwtSvidClaims {
            iss: self.settings.jwt_issuer.as_deref(),
            aud: audiences,
            of: token.claims(&grant.scopes),
        };
        let signed = jwt::sign(&live.jwt_key, "JWT", &claims);
        let svid = wire::JwtSvid {
            token: Secret::new(signed),
            expires_at: token.expires_at,
        };
        Ok((svid, token.audited(grant, audiences)))
    }

    fn mint_access_token(
        &self,
        record: &Record,
        grant: &Grant,
        audience: &str,
        scopes: Vec<String>,
        now: SystemTime,
    ) -> Result<(wire::AccessToken, audit::Issued), Denied> {
        let live = self.live.load();
        let (Some(issuer), Some(key)) = (&self.settings.access_issuer, &live.access_key) else {
            return Err(no_access_tokens());
        };
        let token = self.token(record, grant, now)?;
        let claims = AccessClaims {
            iss: issuer,
            aud: audience,
            client_id: &token.subject,
            of: token.claims(&scopes),
        };
        let signed = jwt::sign(key, ACCESS_TOKEN, &claims);
        let audited = token.audited(grant, &[audience.to_owned()]);
        let granted = wire::AccessToken {
            token: Secret::new(signed),
            expires_at: token.expires_at,
            scopes,
        };
        Ok((granted, audited))
    }

    fn token(&self, record: &Record, grant: &Grant, now: SystemTime) -> Result<Token, Denied> {
        let random = keys::random::<16>().map_err(|why| Denied::failed("minting a token", &why))?;
        let origin = self.origin(record)?;
        Ok(Token {
            subject: grant.spiffe_id.to_string(),
            id: URL_SAFE_NO_PAD.encode(random.expose()),
            issued_at: unix(now),
            expires_at: unix(now) + grant.jwt_ttl.as_secs().max(1),
            lineage: origin.lineage().to_owned(),
            role: origin.role(),
        })
    }
}

impl Token {
    fn claims(&self, scopes: &[String]) -> OfAnyToken<'_> {
        OfAnyToken {
            sub: &self.subject,
            exp: self.expires_at,
            iat: self.issued_at,
            jti: &self.id,
            scope: (!scopes.is_empty()).then(|| scopes.join(" ")),
            warifu_lineage: &self.lineage,
            warifu_role: self.role.clone(),
        }
    }

    fn audited(&self, grant: &Grant, audiences: &[String]) -> audit::Issued {
        let expires_at = SystemTime::UNIX_EPOCH + Duration::from_secs(self.expires_at);
        audit::Issued {
            rule: grant.rule,
            spiffe_id: self.subject.clone(),
            serial: None,
            jti: Some(self.id.clone()),
            audiences: audiences.to_vec(),
            further: vec![],
            expires_at: Timestamp(expires_at),
        }
    }
}

pub(in crate::authority) fn no_access_tokens() -> Denied {
    Denied::new(
        ErrorCode::NotFound,
        "this authority mints no access tokens: `tokens.access_token` of its configuration names no issuer",
    )
}

/// What is asked for, if the rule grants all of it; all it grants, where nothing is asked for (S5).
fn granted_scopes(asked: &[String], grant: &Grant) -> Result<Vec<String>, Denied> {
    if asked.is_empty() {
        return Ok(grant.scopes.clone());
    }
    match asked.iter().find(|scope| !grant.scopes.contains(scope)) {
        None => Ok(grant
            .scopes
            .iter()
            .filter(|scope| asked.contains(scope))
            .cloned()
            .collect()),
        Some(scope) => Err(Denied::new(
            ErrorCode::ScopeRefused,
            format!(
                "{} may not have a token with scope {scope:?}: add it to `scopes` of {}",
                grant.spiffe_id,
                grant.origin()
            ),
        )),
    }
}

fn check_audiences(audiences: &[String]) -> Result<(), Denied> {
    let is_usable = |audience: &String| {
        (1..=wire::MAX_AUDIENCE).contains(&audience.len())
            && !audience.chars().any(char::is_control)
    };
    let distinct = audiences.iter().collect::<BTreeSet<_>>().len();
    if (1..=wire::MAX_AUDIENCES).contains(&audiences.len())
        && distinct == audiences.len()
        && audiences.iter().all(is_usable)
    {
        return Ok(());
    }
    Err(Denied::new(
        ErrorCode::BadRequest,
        format!(
            "audiences: expected 1 to {}, each once, of 1 to {} bytes without control characters",
            wire::MAX_AUDIENCES,
            wire::MAX_AUDIENCE
        ),
    ))
}
