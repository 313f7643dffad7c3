//! Tokens, each verified as what one entry of `accept` says, and as nothing else.

use std::{sync::Arc, time::SystemTime};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use thiserror::Error;
use warifu::{
    Secret, TrustDomain,
    identity::Identity,
    jwt::{
        self, Claims, Confirmation, HmacKey, JwtError, MAX_TOKEN_BYTES, Profile,
        aws::{AWS_CLAIM, WebIdentity, WebIdentityError},
        jwks::Unverified,
    },
};

use super::super::{
    StartError,
    certificate::sha256,
    issuers::{Issuers, Keys, fetcher},
    refusal::Refusal,
};
use crate::{
    config::inbound::{Accept, BoundCertificate, Issuer, JwtAccept, JwtProfile, WebIdentityAccept},
    http::fetch::{AlbKeys, FetcherError},
    revocation::role_name,
    secrets::{Secrets, Source},
};

/// Longest issuer that is looked for.
const MAX_ISSUER: usize = 2048;

/// One issuer of one kind of token, with all that is pinned of it.
#[derive(Debug)]
pub(super) struct Verifier {
    /// The entry of `accept` …
    pub(super) accept: Arc<Accept>,
    /// … and its name.
    pub(super) name: String,
    /// What a caller's proof is called.
    pub(super) proof: &'static str,
    /// `iss`; a JWT-SVID needs none.
    issuer: Option<String>,
    profile: Profile,
    keys: KeysOf,
    bound: BoundCertificate,
}

/// What tokens of one kind are verified with.
#[derive(Debug)]
enum KeysOf {
    /// Bundles of trust domains; only our own where there is none.
    TrustDomains(Vec<TrustDomain>),
    /// What an issuer publishes.
    Issuer(Keys),
    /// The same, of an AWS account (and an organisation).
    Account {
        keys: Keys,
        account: String,
        org: Option<String>,
    },
    /// What load balancers publish, a key a document.
    LoadBalancers(Keys),
    /// What both sides know.
    Shared(Source),
}

/// A token that verified.
#[derive(Debug)]
pub(super) struct Verified {
    pub(super) claims: Claims,
    /// `ACCOUNT:role/NAME`, where AWS says so.
    pub(super) role: Option<String>,
}

/// Why a token proves nothing. For the audit log: the caller learns `invalid_token`.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(in crate::inbound) enum TokenError {
    #[error("the authorization header has another scheme than Bearer")]
    Scheme,
    #[error("the header of the token is not text")]
    NotText,
    #[error("no entry of accept is for tokens like this one")]
    NoEntry,
    #[error(transparent)]
    Jwt(#[from] JwtError),
    #[error(transparent)]
    Role(#[from] WebIdentityError),
    #[error("the token's subject is of another trust domain than the keys it verified with")]
    ForeignSubject,
    #[error("the token is bound to another certificate than the caller's, or the caller has none")]
    AnothersCertificate,
    #[error("the token is bound to no certificate, and its entry of accept requires that")]
    NotBound,
}

/// Why a listener can't verify what it is to accept.
#[derive(Debug, Error)]
pub(super) enum SetupError {
    #[error(transparent)]
    Fetcher(#[from] FetcherError),
}

impl Verifier {
    /// Those of one entry: none, one, or one an account.
    pub(super) fn of(
        accept: &Arc<Accept>,
        issuers: &Issuers,
        secrets: &Secrets,
    ) -> Result<Vec<Self>, SetupError> {
        match &**accept {
            Accept::Mtls { .. } | Accept::SecretHeader(_) => Ok(Vec::new()),
            Accept::Jwt(jwt) => Ok(vec![Self::of_jwt(accept, jwt, issuers, secrets)?]),
            Accept::AwsWebIdentity(aws) => Self::of_accounts(accept, aws, issuers),
        }
    }

    fn of_jwt(
        accept: &Arc<Accept>,
        jwt: &JwtAccept,
        issuers: &Issuers,
        secrets: &Secrets,
    ) -> Result<Self, SetupError> {
        let published = |issuer: &Issuer, profile: Profile| {
            let keys = KeysOf::Issuer(issuers.of(issuer, &profile)?);
            Ok::<_, SetupError>((profile, keys))
        };
        let (mut profile, keys) = match jwt.profile.clone() {
            JwtProfile::JwtSvid {
                audiences,
                trust_domains,
            } => {
                let keys = KeysOf::TrustDomains(trust_domains);
                (Profile::jwt_svid(audiences), keys)
            }
            JwtProfile::AccessToken { issuer, audiences } => {
                let algorithms = Profile::jwt_svid(Vec::new()).algorithms;
                let profile = Profile::access_token(&issuer.url, audiences, algorithms);
                published(&issuer, profile)?
            }
            JwtProfile::CognitoAccess { issuer, client_ids } => {
                let profile = Profile::cognito_access(&issuer.url, client_ids);
                published(&issuer, profile)?
            }
            JwtProfile::CognitoId { issuer, client_ids } => {
                let profile = Profile::cognito_id(&issuer.url, client_ids);
                published(&issuer, profile)?
            }
            JwtProfile::Kubernetes { issuer, audiences } => {
                let profile = Profile::kubernetes(&issuer.url, audiences);
                published(&issuer, profile)?
            }
            JwtProfile::Oidc {
                issuer,
                audiences,
                algorithms,
            } => {
                let profile = Profile::oidc(&issuer.url, audiences, algorithms);
                published(&issuer, profile)?
            }
            JwtProfile::Alb(balancer) => {
                let fetcher = fetcher(balancer.ca_bundle.clone())?;
                // All signers are of one region: the configuration was checked.
                let signer = balancer.signers.first().map_or("", String::as_str);
                let source = match &balancer.keys_url {
                    Some(url) => AlbKeys::new(fetcher, &url.to_string()),
                    None => AlbKeys::of_signer(fetcher, signer),
                };
                let place = source.base().to_owned();
                let keys = issuers.by_kid(&place, Arc::new(source));
                let profile = Profile::alb(balancer.issuer, balancer.signers, balancer.client_ids);
                (profile, KeysOf::LoadBalancers(keys))
            }
            JwtProfile::Hs256 {
                issuer,
                audiences,
                secret,
            } => {
                let keys = KeysOf::Shared(secrets.verifying(&secret));
                (Profile::hs256(issuer, audiences), keys)
            }
        };
        if let Some(longest) = jwt.max_lifetime {
            profile.max_lifetime = Some(longest.0);
        }
        // The claim is held against the connection in `check_binding`.
        profile.confirmation = Confirmation::Certificate;
        Ok(Self {
            accept: Arc::clone(accept),
            name: jwt.name.clone(),
            proof: jwt.profile.name(),
            issuer: jwt.profile.issuer().map(str::to_owned),
            profile,
            keys,
            bound: jwt.bound_certificate,
        })
    }

    fn of_accounts(
        accept: &Arc<Accept>,
        aws: &WebIdentityAccept,
        issuers: &Issuers,
    ) -> Result<Vec<Self>, SetupError> {
        let of_account = |(account, url): (&String, &String)| {
            let profile = Profile::aws_web_identity(url, &aws.audience);
            let issuer = Issuer {
                url: url.clone(),
                jwks_uri: None,
                ca_bundle: None,
            };
            Ok(Self {
                accept: Arc::clone(accept),
                name: aws.name.clone(),
                proof: "aws-web-identity",
                issuer: Some(url.clone()),
                keys: KeysOf::Account {
                    keys: issuers.of(&issuer, &profile)?,
                    account: account.clone(),
                    org: aws.org.clone(),
                },
                profile,
                bound: BoundCertificate::Checked,
            })
        };
        aws.issuers.iter().map(of_account).collect()
    }

    /// Whether its tokens come in `x-amzn-oidc-data`, and in no other header.
    pub(super) fn is_of_load_balancers(&self) -> bool {
        matches!(self.keys, KeysOf::LoadBalancers(_))
    }

    /// Has its secret at hand, where it verifies with one.
    pub(super) async fn prepare(&self) -> Result<(), StartError> {
        let KeysOf::Shared(secret) = &self.keys else {
            return Ok(());
        };
        let keys = hmac_keys(secret).await.map(drop);
        keys.map_err(|why| StartError::Secret {
            accept: self.name.clone(),
            why,
        })
    }

    /// What its issuer publishes, where it verifies with that.
    pub(super) fn published_keys(&self) -> Option<&Keys> {
        match &self.keys {
            KeysOf::TrustDomains(_) | KeysOf::Shared(_) => None,
            KeysOf::Issuer(keys) | KeysOf::Account { keys, .. } | KeysOf::LoadBalancers(keys) => {
                Some(keys)
            }
        }
    }

    /// Which keys there are now. What another generation verified is verified anew.
    pub(super) async fn generation(
        &self,
        identity: Option<&Identity>,
        now: SystemTime,
    ) -> Option<u64> {
        match &self.keys {
            KeysOf::TrustDomains(_) => identity.map(|identity| identity.generation),
            KeysOf::Issuer(keys) | KeysOf::Account { keys, .. } | KeysOf::LoadBalancers(keys) => {
                keys.generation(now)
            }
            KeysOf::Shared(secret) => {
                let live = secret.live().await.ok()?;
                let all = live.iter().flat_map(|it| sha256(it.expose().as_bytes()));
                let hash = sha256(&all.collect::<Vec<u8>>());
                hash.first_chunk().copied().map(u64::from_be_bytes)
            }
        }
    }

    /// What a token says, if it verifies; `certificate` is the SHA-256 of the caller's, where it presented one.
    pub(super) async fn verify(
        &self,
        token: &str,
        certificate: Option<&[u8; 32]>,
        identity: Option<&Identity>,
        now: SystemTime,
    ) -> Result<Verified, Refusal> {
        let verified = match &self.keys {
            KeysOf::TrustDomains(listed) => {
                let identity = identity.ok_or(Refusal::NoIdentity)?;
                let claims = of_trust_domains(token, &self.profile, listed, identity, now)?;
                Verified { claims, role: None }
            }
            KeysOf::Issuer(keys) | KeysOf::LoadBalancers(keys) => {
                let claims = self.published(keys, token, now).await?;
                Verified { claims, role: None }
            }
            KeysOf::Account { keys, account, org } => {
                let claims = self.published(keys, token, now).await?;
                of_role(claims, account, org.as_deref())?
            }
            KeysOf::Shared(secret) => {
                let claims = self.shared(secret, token, now).await?;
                Verified { claims, role: None }
            }
        };
        self.check_binding(&verified.claims, certificate)?;
        Ok(verified)
    }

    async fn published(
        &self,
        keys: &Keys,
        token: &str,
        now: SystemTime,
    ) -> Result<Claims, Refusal> {
        let verified = keys.verify(token, &self.profile, now).await;
        verified.map_err(|why| match why {
            Unverified::Refused(why) => bad(why),
            why => Refusal::NoKeys(format!("{}: {why}", self.name)),
        })
    }

    async fn shared(
        &self,
        secret: &Source,
        token: &str,
        now: SystemTime,
    ) -> Result<Claims, Refusal> {
        // What is wrong with the secret is not the token's fault.
        let unavailable = |why: String| Refusal::NoKeys(format!("{}: {why}", self.name));
        let keys = hmac_keys(secret).await.map_err(unavailable)?;
        jwt::verify_hs256(token, &self.profile, &keys, now).map_err(bad)
    }

    /// RFC 8705 §3: a token that is bound to a certificate is worth something with that one alone.
    fn check_binding(
        &self,
        claims: &Claims,
        certificate: Option<&[u8; 32]>,
    ) -> Result<(), Refusal> {
        match claims.certificate_thumbprint() {
            None if self.bound == BoundCertificate::Required => bad_token(TokenError::NotBound),
            None => Ok(()),
            Some(bound) if certificate == Some(&bound) => Ok(()),
            Some(_) => bad_token(TokenError::AnothersCertificate),
        }
    }

    /// How well a token that says this of itself fits: the issuer must be the same.
    fn fits(&self, said: &Said) -> Option<bool> {
        if self.is_of_load_balancers() || self.issuer != said.iss {
            return None;
        }
        let is_access_token = said.typ.as_deref().is_some_and(|typ| {
            typ.eq_ignore_ascii_case("at+jwt") || typ.eq_ignore_ascii_case("application/at+jwt")
        });
        let wants_access_token = self.proof == "at+jwt";
        let same_use = self
            .profile
            .token_use
            .is_none_or(|it| said.token_use.as_deref() == Some(it));
        Some(is_access_token == wants_access_token && same_use)
    }
}

/// The verifier that a bearer token is for, by what it says of itself. Nothing of that is believed: it chooses under
/// whose profile the token must verify whole.
pub(super) fn choose(verifiers: &[Verifier], token: &str) -> Result<usize, TokenError> {
    let said = Said::by(token).unwrap_or_default();
    let candidates = || {
        let fit = |(index, it): (usize, &Verifier)| Some((index, it.fits(&said)?));
        verifiers.iter().enumerate().filter_map(fit)
    };
    let of_issuer = candidates()
        .find(|(_, fits)| *fits)
        .or_else(|| candidates().next());
    // A JWT-SVID may name an issuer, and nothing is made of it.
    let svid = || {
        let mut verifiers = verifiers.iter();
        verifiers.position(|it| matches!(it.keys, KeysOf::TrustDomains(_)))
    };
    of_issuer
        .map(|(index, _)| index)
        .or_else(svid)
        .ok_or(TokenError::NoEntry)
}

async fn hmac_keys(secret: &Source) -> Result<Vec<HmacKey>, String> {
    let live = secret.live().await.map_err(|why| why.to_string())?;
    let key = |value: &crate::secrets::Value| {
        HmacKey::new(&Secret::new(value.expose().as_bytes().to_vec()))
    };
    let keys: Result<Vec<HmacKey>, JwtError> = live.iter().map(key).collect();
    keys.map_err(|why| format!("{}: {why}", secret.name()))
}

/// What a token says of itself, unverified.
#[derive(Debug, Default)]
struct Said {
    typ: Option<String>,
    iss: Option<String>,
    token_use: Option<String>,
}

impl Said {
    fn by(token: &str) -> Option<Self> {
        #[derive(Deserialize)]
        struct Header {
            typ: Option<String>,
        }
        #[derive(Deserialize)]
        struct Payload {
            iss: Option<String>,
            token_use: Option<String>,
        }
        if token.len() > MAX_TOKEN_BYTES {
            return None;
        }
        let mut parts = token.split('.');
        let (header, payload) = (parts.next()?, parts.next()?);
        let header = URL_SAFE_NO_PAD.decode(header).ok()?;
        let payload = URL_SAFE_NO_PAD.decode(payload).ok()?;
        let Header { typ } = serde_json::from_slice(&header).ok()?;
        let Payload { iss, token_use } = serde_json::from_slice(&payload).ok()?;
        Some(Self {
            typ,
            iss: iss.filter(|it| it.len() <= MAX_ISSUER),
            token_use,
        })
    }
}

/// What a JWT-SVID says, if the keys of one accepted trust domain verify it and its subject is of that one. Whose it is
/// nobody knows before: what has not verified is not read.
fn of_trust_domains(
    token: &str,
    profile: &Profile,
    listed: &[TrustDomain],
    identity: &Identity,
    now: SystemTime,
) -> Result<Claims, Refusal> {
    let own = [identity.bundle.trust_domain.clone()];
    let trust_domains = match listed {
        [] => own.as_slice(),
        listed => listed,
    };
    let (mut why, mut missing) = (JwtError::UnknownKey, None);
    for trust_domain in trust_domains {
        let Some(bundle) = identity.bundle_of(trust_domain) else {
            missing = Some(trust_domain.clone());
            continue;
        };
        match jwt::verify(token, profile, &bundle.jwt_authorities, now) {
            Ok(claims) if is_of(&claims.subject, trust_domain.as_str()) => return Ok(claims),
            Ok(_) => return bad_token(TokenError::ForeignSubject),
            Err(JwtError::UnknownKey) => {}
            Err(error) => why = error,
        }
    }
    match missing {
        // Perhaps it has the key; whoever asks again may learn more than that the token is bad.
        Some(domain) if why == JwtError::UnknownKey => Err(Refusal::NoBundle(domain)),
        _ => Err(bad(why)),
    }
}

fn is_of(spiffe_id: &str, trust_domain: &str) -> bool {
    spiffe_id
        .strip_prefix("spiffe://")
        .and_then(|rest| rest.strip_prefix(trust_domain))
        .is_some_and(|path| path.starts_with('/'))
}

/// The role, which must be of the account (and the organisation) that is pinned. What the caller itself had AWS write
/// into the token is no claim: nobody further on shall take it for one (S8).
fn of_role(mut claims: Claims, account: &str, org: Option<&str>) -> Result<Verified, Refusal> {
    let role = WebIdentity::from_claims(&claims, account, org)
        .map_err(|why| Refusal::BadToken(why.into()))?;
    if let Some(aws) = claims
        .all
        .get_mut(AWS_CLAIM)
        .and_then(|it| it.as_object_mut())
    {
        aws.remove("request_tags");
    }
    let role = role_name(&role.account, &role.role_name);
    Ok(Verified {
        claims,
        role: Some(role),
    })
}

fn bad(why: JwtError) -> Refusal {
    Refusal::BadToken(why.into())
}

fn bad_token<T>(why: TokenError) -> Result<T, Refusal> {
    Err(Refusal::BadToken(why))
}
