//! Who calls: what the connection proved, joined with what a bearer token proves (RFC 6750).

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use http::{HeaderMap, HeaderName, HeaderValue, header::AUTHORIZATION};
use serde_json::Value;
use thiserror::Error;
use warifu::{
    Caller, TrustDomain,
    caller::{self, CallerError, Subject},
    identity::Identity,
    jwt::{self, Claims, JwtError, Profile},
};

use super::{
    CALLER,
    cache::Cache,
    certificate::{Proved, hex, sha256},
    record::TokenMetrics,
    refusal::Refusal,
};
use crate::{
    config::inbound::{self as config, Accept, JwtProfile},
    http::server::Refused,
    identity,
    policy::{Evidence, PROOF_JWT_SVID},
    revocation::{List, Provenance},
};

/// A caller and the headers that tell the app of it; made once, for many requests.
#[derive(Debug)]
pub(super) struct Authenticated {
    who: Caller,
    /// What rules see of it beyond that.
    evidence: Evidence,
    /// [`CALLER`].
    header: HeaderValue,
    claims: Vec<(HeaderName, HeaderValue)>,
    /// The SPIFFE ID of the peer, as the audit log shows it.
    pub(super) peer: Option<String>,
    /// The SHA-256 of the token, as the audit log shows it.
    pub(super) token: Option<String>,
    /// The SHA-256 of the peer's certificate, or zeros.
    certificate: [u8; 32],
    /// What the peer's certificate goes back to …
    peer_is: Option<Arc<Provenance>>,
    /// … and what the token does.
    token_is: Option<Provenance>,
    /// The number of the revocation list that has neither: asked once per list, not once per request.
    cleared: AtomicU64,
}

/// How callers of a listener prove themselves inside a request.
#[derive(Debug)]
pub(super) struct Authenticator {
    identity: identity::Current,
    /// Whether the listener accepts tokens, and which.
    tokens: Option<Tokens>,
}

#[derive(Debug)]
struct Tokens {
    profile: Profile,
    /// Whose; only our own where empty.
    trust_domains: Vec<TrustDomain>,
    /// Claim → header.
    forward_claims: BTreeMap<String, HeaderName>,
    verified: Cache,
    metrics: TokenMetrics,
}

/// Why a token proves nothing. For the audit log: the caller learns `invalid_token`.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum TokenError {
    #[error("the authorization header has another scheme than Bearer")]
    Scheme,
    #[error("the authorization header is not text")]
    NotText,
    #[error(transparent)]
    Jwt(#[from] JwtError),
    #[error("the token's subject is of another trust domain than the keys it verified with")]
    ForeignSubject,
}

/// Why a token was not verified.
enum Unverified {
    Refused(TokenError),
    NoBundle(TrustDomain),
}

impl Authenticated {
    /// Whom a certificate proved.
    pub(super) fn by_certificate(proved: Proved) -> Result<Self, Refused> {
        let unusable = Refused("the client's SPIFFE ID is too long to be passed on");
        let peer_id = proved.peer.spiffe_id.to_string();
        let who = Caller {
            peer: Some(proved.peer),
            subject: None,
        };
        Ok(Self {
            header: caller::encode(&who).map_err(|_| unusable)?,
            who,
            evidence: Evidence::default(),
            claims: Vec::new(),
            peer: Some(peer_id),
            token: None,
            certificate: proved.certificate,
            peer_is: Some(Arc::new(proved.provenance)),
            token_is: None,
            cleared: AtomicU64::new(0),
        })
    }

    /// The same, and what a token proved.
    fn with_subject(
        peer: Option<&Self>,
        subject: Subject,
        claims: Vec<(HeaderName, HeaderValue)>,
        evidence: Evidence,
        token_is: Provenance,
        token: &[u8; 32],
    ) -> Result<Self, CallerError> {
        let who = Caller {
            peer: peer.and_then(|peer| peer.who.peer.clone()),
            subject: Some(subject),
        };
        Ok(Self {
            header: caller::encode(&who)?,
            who,
            evidence,
            claims,
            peer: peer.and_then(|peer| peer.peer.clone()),
            token: Some(hex(token)),
            certificate: peer.map(|peer| peer.certificate).unwrap_or_default(),
            peer_is: peer.and_then(|peer| peer.peer_is.clone()),
            token_is: Some(token_is),
            cleared: AtomicU64::new(0),
        })
    }

    /// The caller.
    pub(super) fn who(&self) -> &Caller {
        &self.who
    }

    /// What was proved of it beyond that.
    pub(super) fn evidence(&self) -> &Evidence {
        &self.evidence
    }

    /// Refuses a caller whose certificate or token goes back to what `list` revokes.
    pub(super) fn refuse_revoked(&self, list: &List) -> Result<(), Refusal> {
        // Number 0 is empty: nothing was ever revoked.
        if list.number() == self.cleared.load(Ordering::Relaxed) || list.is_empty() {
            return Ok(());
        }
        if let Some(kind) = self.peer_is.as_ref().and_then(|it| list.revokes(it)) {
            return Err(Refusal::PeerRevoked(kind));
        }
        if let Some(kind) = self.token_is.as_ref().and_then(|it| list.revokes(it)) {
            return Err(Refusal::TokenRevoked(kind));
        }
        self.cleared.store(list.number(), Ordering::Relaxed);
        Ok(())
    }

    /// Tells the app.
    pub(super) fn insert(&self, headers: &mut HeaderMap) {
        headers.insert(CALLER, self.header.clone());
        for (name, value) in &self.claims {
            headers.insert(name, value.clone());
        }
    }
}

impl Authenticator {
    pub(super) fn new(
        config: &config::Inbound,
        identity: identity::Current,
        metrics: TokenMetrics,
    ) -> Self {
        // At most one: the configuration was checked.
        let jwt = config.accept.iter().find_map(|accept| match accept {
            Accept::Mtls { .. } => None,
            Accept::Jwt(jwt) => Some(jwt),
        });
        let tokens = jwt.map(|jwt| Tokens {
            profile: match jwt.profile {
                JwtProfile::JwtSvid => Profile::jwt_svid(jwt.audiences.clone()),
            },
            trust_domains: jwt.trust_domains.clone(),
            forward_claims: config.forward_claims.clone(),
            verified: Cache::default(),
            metrics,
        });
        Self { identity, tokens }
    }

    /// Whether `authorization` is ours to read, and to remove.
    pub(super) fn takes_tokens(&self) -> bool {
        self.tokens.is_some()
    }

    /// Who sends a request with `headers` over a connection that proved `peer`.
    pub(super) fn authenticate(
        &self,
        peer: Option<&Arc<Authenticated>>,
        headers: &HeaderMap,
    ) -> Result<Arc<Authenticated>, Refusal> {
        let nobody = || peer.cloned().ok_or(Refusal::Unauthenticated);
        let Some(tokens) = &self.tokens else {
            return nobody();
        };
        let mut lines = headers.get_all(AUTHORIZATION).iter();
        match (lines.next(), lines.next()) {
            (None, _) => nobody(),
            (Some(_), Some(_)) => Err(Refusal::TwoAuthorizations),
            (Some(line), None) => {
                let identity = self.identity.borrow().clone().ok_or(Refusal::NoIdentity)?;
                tokens.verify(peer.map(|peer| &**peer), line, &identity, SystemTime::now())
            }
        }
    }
}

impl Tokens {
    /// Whom the token in `line` proves, together with `peer`.
    fn verify(
        &self,
        peer: Option<&Authenticated>,
        line: &HeaderValue,
        identity: &Identity,
        now: SystemTime,
    ) -> Result<Arc<Authenticated>, Refusal> {
        let refuse = |error| {
            self.metrics.refused.inc();
            Refusal::BadToken(error)
        };
        let token = bearer(line).map_err(refuse)?;
        let hash = sha256(token.as_bytes());
        let key = [hash, peer.map(|peer| peer.certificate).unwrap_or_default()];
        if let Some(caller) = self.verified.find(&key, identity.generation, now) {
            self.metrics.remembered.inc();
            return Ok(caller);
        }
        let claims = match self.claims(token, identity, now) {
            Ok(claims) => claims,
            Err(Unverified::Refused(error)) => return Err(refuse(error)),
            Err(Unverified::NoBundle(domain)) => return Err(Refusal::NoBundle(domain)),
        };
        let until = claims.expires_at;
        let token_is = Provenance::of_token(&claims);
        let (subject, headers, evidence) = self.subject(claims);
        let caller = Arc::new(Authenticated::with_subject(
            peer, subject, headers, evidence, token_is, &hash,
        )?);
        self.verified
            .insert(key, identity.generation, Arc::clone(&caller), until);
        self.metrics.verified.inc();
        Ok(caller)
    }

    /// What a token says, if the keys of one accepted trust domain verify it and its subject is of that one. Whose it
    /// is nobody knows before: what has not verified is not read.
    fn claims(
        &self,
        token: &str,
        identity: &Identity,
        now: SystemTime,
    ) -> Result<Claims, Unverified> {
        let own = [identity.bundle.trust_domain.clone()];
        let trust_domains = match self.trust_domains.as_slice() {
            [] => own.as_slice(),
            listed => listed,
        };
        let (mut why, mut missing) = (JwtError::UnknownKey, None);
        for trust_domain in trust_domains {
            let Some(bundle) = identity.bundle_of(trust_domain) else {
                missing = Some(trust_domain.clone());
                continue;
            };
            match jwt::verify(token, &self.profile, &bundle.jwt_authorities, now) {
                Ok(claims) if is_of(&claims.subject, trust_domain.as_str()) => return Ok(claims),
                Ok(_) => return Err(Unverified::Refused(TokenError::ForeignSubject)),
                Err(JwtError::UnknownKey) => {}
                Err(error) => why = error,
            }
        }
        match missing {
            // Perhaps it has the key; whoever asks again may learn more than that the token is bad.
            Some(domain) if why == JwtError::UnknownKey => Err(Unverified::NoBundle(domain)),
            _ => Err(Unverified::Refused(why.into())),
        }
    }

    /// The subject, the headers its claims go into, and what rules see of it.
    fn subject(&self, claims: Claims) -> (Subject, Vec<(HeaderName, HeaderValue)>, Evidence) {
        let mut forwarded = BTreeMap::new();
        let mut headers = Vec::new();
        for (claim, name) in &self.forward_claims {
            let Some(text) = claims.all.get(claim).and_then(as_text) else {
                continue;
            };
            // A value no header can hold (a line end) is left out; the app sees no header then.
            if let Ok(value) = HeaderValue::from_bytes(text.as_bytes()) {
                headers.push((name.clone(), value));
            }
            forwarded.insert(claim.clone(), text);
        }
        let subject = Subject {
            proof: PROOF_JWT_SVID.to_owned(),
            subject: claims.subject,
            issuer: claims.issuer,
            scopes: claims.scopes,
            claims: forwarded,
        };
        let evidence = Evidence {
            claims: claims.all,
            accept: Some(PROOF_JWT_SVID.to_owned()),
            role: None,
        };
        (subject, headers, evidence)
    }
}

/// The token of `authorization: Bearer TOKEN` (RFC 6750 §2.1); the scheme in any case (RFC 9110 §11.1).
fn bearer(line: &HeaderValue) -> Result<&str, TokenError> {
    let line = line.to_str().map_err(|_| TokenError::NotText)?;
    let (scheme, token) = line.split_once(' ').ok_or(TokenError::Scheme)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(TokenError::Scheme);
    }
    Ok(token.trim_start_matches(' '))
}

fn is_of(spiffe_id: &str, trust_domain: &str) -> bool {
    spiffe_id
        .strip_prefix("spiffe://")
        .and_then(|rest| rest.strip_prefix(trust_domain))
        .is_some_and(|path| path.starts_with('/'))
}

/// A claim as header text: strings as they are, lists joined by spaces as `scope` is, others as JSON.
fn as_text(claim: &Value) -> Option<String> {
    match claim {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        Value::Array(items) if items.iter().all(Value::is_string) => Some(
            items
                .iter()
                .filter_map(Value::as_str)
                .collect::<Vec<_>>()
                .join(" "),
        ),
        other => Some(other.to_string()),
    }
}

#[cfg(test)]
impl Authenticated {
    pub(super) fn example() -> Self {
        Self::by_certificate(Proved::example()).unwrap()
    }
}
