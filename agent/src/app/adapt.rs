//! Where parts meet that don't know each other: the authority's tokens for outbound routes, and
//! role sessions named after the SPIFFE ID.

use std::{sync::OnceLock, time::Duration};

use http::request::Parts;

use crate::{
    attest::{ClientError, wire::ErrorCode},
    aws::{self, Payload, Presigned, RoleSession, Roles, SignError, Signer},
    config::{self, defaults::ROLE_SESSION, outbound::RouteSigV4, value::ManagedSecret},
    identity,
    outbound::{Sign, Signing},
    secrets::{Reading, Stage, Vault, VaultError},
    token::{Mint, MintError, Minted, Minting, Objection, Wanted},
};

/// Tokens from the authority.
#[derive(Debug)]
pub(super) struct FromAuthority(pub(super) identity::Handle);

impl Mint for FromAuthority {
    fn mint(&self, wanted: Wanted) -> Minting {
        let identity = self.0.clone();
        Box::pin(async move {
            let minted = match &wanted {
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
        let session = match &self.settings.role {
            None => None,
            Some(role) => {
                let name = {
                    let identity = self.identity.borrow();
                    aws::session_name(None, identity.as_ref().map(|it| it.svid.id()))
                };
                let name = name.ok_or_else(|| {
                    unavailable(
                        "this agent has no identity yet, and the role session that reads secrets is named after it"
                            .to_owned(),
                    )
                })?;
                let session = RoleSession::new(role, &name, None, ROLE_SESSION);
                Some(session.map_err(|why| unavailable(why.to_string()))?)
            }
        };
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
        let session_name = {
            let identity = self.identity.borrow();
            let id = identity.as_ref().map(|it| it.svid.id());
            aws::session_name(self.route.session_name.as_deref(), id)
        };
        let session_name = session_name.ok_or_else(|| {
            self.unnamed("this agent has no identity yet, and the role session is named after it")
        })?;
        let signer = Signer::new(&self.roles, &self.route, &session_name)
            .map_err(|error| self.unnamed(&error.to_string()))?;
        Ok(self.signer.get_or_init(|| signer))
    }

    fn unnamed(&self, why: &str) -> SignError {
        SignError::NoCredentials {
            role: self.route.role.clone().unwrap_or_default(),
            why: why.to_owned(),
        }
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
