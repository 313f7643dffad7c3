//! Asking for tokens.

use std::time::SystemTime;

use http::HeaderValue;
use warifu::{
    Secret,
    jwt::{KeySet, SigningKey},
};

use super::{Client, MakeEvidence};
use crate::attest::{
    ClientError, proof,
    wire::{self, Base64},
};

/// A JWT-SVID with its expiry.
#[derive(Debug, Clone)]
pub struct MintedJwt {
    /// The compact JWS.
    pub token: Secret<String>,
    /// When it expires.
    pub expires_at: SystemTime,
}

/// An access token with what it is good for.
#[derive(Debug, Clone)]
pub struct AccessToken {
    /// The compact JWS.
    pub token: Secret<String>,
    /// When it expires.
    pub expires_at: SystemTime,
    /// The scopes it has.
    pub scopes: Vec<String>,
}

/// What verifies the authority's access tokens.
#[derive(Debug, Clone)]
pub struct AccessTokenKeys {
    /// Their `iss`.
    pub issuer: String,
    /// The keys.
    pub keys: KeySet,
}

impl Client {
    /// A JWT-SVID for exactly `audiences`, of the identity `spiffe_id`, or of the first.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn jwt_svid(
        &self,
        record: &str,
        audiences: &[String],
        spiffe_id: Option<&str>,
        renewal_key: &SigningKey,
    ) -> Result<MintedJwt, ClientError> {
        let svid: wire::JwtSvid = self
            .challenged(wire::JWT_SVID, |challenge| {
                let transcript =
                    proof::jwt_svid(&self.trust_domain, &challenge, audiences, spiffe_id, record);
                Ok(wire::JwtSvidRequest {
                    proof: Base64(renewal_key.sign_raw(&transcript)),
                    challenge,
                    record: record.to_owned(),
                    audiences: audiences.to_vec(),
                    spiffe_id: spiffe_id.map(str::to_owned),
                })
            })
            .await?;
        Ok(MintedJwt {
            token: svid.token,
            expires_at: self.time(svid.expires_at)?,
        })
    }

    /// An access token for `audience`, with `scopes`, or all that the rule grants where there are none.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn access_token(
        &self,
        record: &str,
        audience: &str,
        scopes: &[String],
        renewal_key: &SigningKey,
    ) -> Result<AccessToken, ClientError> {
        let token = self
            .challenged(wire::ACCESS_TOKEN, |challenge| {
                let transcript =
                    proof::access_token(&self.trust_domain, &challenge, record, audience, scopes);
                Ok(wire::AccessTokenRequest {
                    proof: Base64(renewal_key.sign_raw(&transcript)),
                    challenge,
                    record: record.to_owned(),
                    audience: audience.to_owned(),
                    scopes: scopes.to_vec(),
                })
            })
            .await?;
        self.granted_token(token)
    }

    /// As [`access_token`](Self::access_token), with what `evidence` makes of a challenge, and no record.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn exchange_for_token(
        &self,
        evidence: &MakeEvidence,
        audience: &str,
        scopes: &[String],
        renewal_key: &SigningKey,
    ) -> Result<AccessToken, ClientError> {
        let public = renewal_key.public();
        let token = self
            .challenged(wire::EXCHANGE, |challenge| {
                let evidence = evidence(&challenge)?;
                let transcript = proof::exchange(
                    &self.trust_domain,
                    &challenge,
                    &public.thumbprint(),
                    &evidence,
                    audience,
                    scopes,
                );
                Ok(wire::ExchangeRequest {
                    proof: Base64(renewal_key.sign_raw(&transcript)),
                    challenge,
                    evidence,
                    renewal_key: public.to_json("sig"),
                    audience: audience.to_owned(),
                    scopes: scopes.to_vec(),
                })
            })
            .await?;
        self.granted_token(token)
    }

    /// Issuer and keys of access tokens and their `ETag`; `None` if they are still those with this `etag`.
    ///
    /// # Errors
    /// See [`ClientError`]; refused as [`NotFound`](wire::ErrorCode::NotFound) where the authority mints none.
    pub async fn access_token_keys(
        &self,
        etag: Option<&HeaderValue>,
    ) -> Result<Option<(AccessTokenKeys, Option<HeaderValue>)>, ClientError> {
        let path = wire::ACCESS_TOKEN_KEYS;
        let Some((body, etag)) = self.get(path, etag).await? else {
            return Ok(None);
        };
        let broken = |why: String| self.target.broken(format!("{path}: {why}"));
        let published: wire::AccessTokenKeys =
            serde_json::from_slice(&body).map_err(|why| broken(why.to_string()))?;
        let keys = KeySet::from_jwks(&body, "sig").map_err(|why| broken(why.to_string()))?;
        let issuer = published.issuer;
        Ok(Some((AccessTokenKeys { issuer, keys }, etag)))
    }

    fn granted_token(&self, token: wire::AccessToken) -> Result<AccessToken, ClientError> {
        Ok(AccessToken {
            token: token.token,
            expires_at: self.time(token.expires_at)?,
            scopes: token.scopes,
        })
    }
}
