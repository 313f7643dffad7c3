//! Where parts meet that don't know each other: the authority's tokens for outbound routes, and
//! role sessions named after the SPIFFE ID.

use std::{collections::BTreeMap, future::Future, pin::Pin, sync::OnceLock, time::Duration};

use http::request::Parts;
use warifu::Secret;

use crate::{
    attest::{ClientError, wire::ErrorCode},
    aws::{self, IdentityTokens, Payload, Presigned, Roles, SessionError, SignError, Signer},
    config::{
        self,
        aws::{Aws, RoleFrom, WebIdentity},
        outbound::RouteSigV4,
        value::ManagedSecret,
    },
    identity,
    outbound::{Sign, Signing},
    secrets::{Reading, Stage, Vault, VaultError},
    token::{Mint, MintError, Minted, Minting, Objection, Source, Tokens, Wanted},
};

/// Tokens from the authority.
#[derive(Debug)]
pub(super) struct FromAuthority(pub(super) identity::Handle);

impl Mint for FromAuthority {
    fn mint(&self, wanted: Wanted) -> Minting {
        let identity = self.0.clone();
        Box::pin(async move {
            let minted = match &wanted {
                Wanted::AwsWebIdentity(_) => {
                    return Err(MintError::Unavailable {
                        audience: wanted.audience().into_owned(),
                        why: "the authority gives no such token; please report this".to_owned(),
                    });
                }
                Wanted::JwtSvid { audiences, of } => {
                    let minting = identity.mint_jwt(audiences, of.as_ref());
                    minting.await.map(|it| Minted {
                        token: it.token,
                        expires_at: it.expires_at,
                        scopes: Vec::new(),
                    })
                }
                Wanted::AccessToken { audience, scopes } => {
                    let scopes: Vec<String> = scopes.iter().cloned().collect();
                    let minting = identity.mint_access_token(audience, &scopes);
                    minting.await.map(|it| Minted {
                        token: it.token,
                        expires_at: it.expires_at,
                        scopes: it.scopes,
                    })
                }
                // Has a source of its own, which never comes here.
                Wanted::Oauth(_) => return Err(not_the_authoritys(&wanted)),
            };
            minted.map_err(|error| not_minted(&wanted, &error))
        })
    }
}

fn not_the_authoritys(wanted: &Wanted) -> MintError {
    MintError::Unavailable {
        audience: wanted.audience().into_owned(),
        why: "the authority gives no tokens of other issuers".to_owned(),
    }
}

fn not_minted(wanted: &Wanted, error: &ClientError) -> MintError {
    let audience = wanted.audience().into_owned();
    let why = error.to_string();
    if !error.denies_a_token() {
        return MintError::Unavailable { audience, why };
    }
    let to = match error.refusal() {
        Some(ErrorCode::AudienceRefused) => Objection::Audience,
        Some(ErrorCode::ScopeRefused) => Objection::Scope,
        _ => Objection::Any,
    };
    MintError::Refused { audience, to, why }
}

/// Secrets of AWS Secrets Manager. Where a role reads them, its session is named after the workload, which is known when
/// it has an identity.
#[derive(Debug)]
pub(super) struct FromSecretsManager {
    roles: Roles,
    settings: config::secretsmanager::SecretsManager,
    identity: identity::Current,
    client: OnceLock<aws::SecretsManager>,
}

impl FromSecretsManager {
    pub(super) fn new(
        roles: Roles,
        settings: config::secretsmanager::SecretsManager,
        identity: identity::Current,
    ) -> Self {
        Self {
            roles,
            settings,
            identity,
            client: OnceLock::new(),
        }
    }

    fn client(&self) -> Result<aws::SecretsManager, VaultError> {
        if let Some(client) = self.client.get() {
            return Ok(client.clone());
        }
        let unavailable = |why: String| VaultError {
            why,
            refused: false,
        };
        let identity = self.identity.borrow().clone();
        let workload = identity.as_ref().map(|it| it.svid.id());
        let role = self.settings.role.as_ref();
        let session = role.map(|role| self.roles.session(role, workload));
        let session = session
            .transpose()
            .map_err(|why: SessionError| unavailable(why.to_string()))?;
        let endpoint = self.settings.endpoint.as_ref();
        let client = aws::SecretsManager::new(&self.roles, session, endpoint);
        Ok(self.client.get_or_init(|| client).clone())
    }
}

impl Vault for FromSecretsManager {
    fn read(&self, secret: ManagedSecret, stage: Stage) -> Reading {
        let client = self.client();
        Box::pin(async move {
            let read = client?.read(&secret.id, stage.label()).await;
            read.map_err(|why| VaultError {
                refused: !why.is_outage(),
                why: why.to_string(),
            })
        })
    }
}

/// JWT-SVIDs for roles that are assumed with them.
#[derive(Debug)]
pub(super) struct JwtSvids(BTreeMap<String, Source>);

impl JwtSvids {
    /// For every audience that `settings` names; kept at hand as those of routes are.
    pub(super) fn new(settings: &Aws, tokens: &Tokens) -> Self {
        let audiences = settings.roles.values().filter_map(|role| match &role.from {
            RoleFrom::WebIdentity(WebIdentity::Audience(audience)) => Some(audience),
            _ => None,
        });
        let source = |audience: &String| {
            let source = tokens.source(Wanted::jwt_svid(audience));
            (audience.clone(), source)
        };
        Self(audiences.map(source).collect())
    }
}

impl IdentityTokens for JwtSvids {
    fn token<'a>(
        &'a self,
        audience: &'a str,
    ) -> Pin<Box<dyn Future<Output = Result<Secret<String>, String>> + Send + 'a>> {
        Box::pin(async move {
            let source = self.0.get(audience);
            let source = source.ok_or_else(|| format!("no role names the audience {audience}"))?;
            let token = source.token().await.map_err(|why| why.to_string())?;
            Ok(Secret::new(token.expose().to_owned()))
        })
    }
}

/// A signer whose role session is named after the workload, which is known when it has an identity.
#[derive(Debug)]
pub(super) struct NamedSigner {
    roles: Roles,
    route: RouteSigV4,
    identity: identity::Current,
    signer: OnceLock<Signer>,
}

impl NamedSigner {
    pub(super) fn new(roles: Roles, route: RouteSigV4, identity: identity::Current) -> Self {
        Self {
            roles,
            route,
            identity,
            signer: OnceLock::new(),
        }
    }

    fn signer(&self) -> Result<&Signer, SignError> {
        if let Some(signer) = self.signer.get() {
            return Ok(signer);
        }
        let identity = self.identity.borrow().clone();
        let workload = identity.as_ref().map(|it| it.svid.id());
        let signer = Signer::new(&self.roles, &self.route, workload).map_err(|why| {
            let role = self.route.role.as_ref();
            SignError::NoCredentials {
                role: role.map(ToString::to_string).unwrap_or_default(),
                why: why.to_string(),
            }
        })?;
        Ok(self.signer.get_or_init(|| signer))
    }
}

impl Sign for NamedSigner {
    fn sign<'a>(&'a self, parts: &'a mut Parts, payload: &'a Payload) -> Signing<'a, ()> {
        Box::pin(async move { self.signer()?.sign(parts, payload).await })
    }

    fn presign<'a>(
        &'a self,
        parts: &'a mut Parts,
        payload: &'a Payload,
        longest: Duration,
    ) -> Signing<'a, Presigned> {
        Box::pin(async move { self.signer()?.presign(parts, payload, longest).await })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: ErrorCode) -> MintError {
        let wanted = Wanted::access_token("payments", std::collections::BTreeSet::new());
        let error = ClientError::Refused {
            authority: "https://authority.example.org".to_owned(),
            code,
            message: "why".to_owned(),
        };
        not_minted(&wanted, &error)
    }

    #[test]
    fn a_decision_is_a_refusal_and_what_attesting_again_mends_is_not() {
        for (code, objection) in [
            (ErrorCode::AudienceRefused, Objection::Audience),
            (ErrorCode::ScopeRefused, Objection::Scope),
            (ErrorCode::NoRule, Objection::Any),
            (ErrorCode::Revoked, Objection::Any),
            (ErrorCode::NotFound, Objection::Any),
        ] {
            match refused(code) {
                MintError::Refused { to, .. } => assert_eq!(to, objection, "{code}"),
                passing => panic!("{code}: {passing}"),
            }
        }
        for code in [
            ErrorCode::InvalidRecord,
            ErrorCode::InvalidProof,
            ErrorCode::InvalidChallenge,
        ] {
            let error = refused(code);
            assert!(matches!(error, MintError::Unavailable { .. }), "{error}");
            assert!(error.to_string().contains("why"), "{error}");
        }
    }
}
