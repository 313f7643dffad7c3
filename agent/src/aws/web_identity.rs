//! `sts:GetWebIdentityToken`: a JWT of AWS's that says which role asked for it, for one audience.
//!
//! <https://docs.aws.amazon.com/STS/latest/APIReference/API_GetWebIdentityToken.html>

use std::time::{Duration, SystemTime};

use aws_sdk_sts::{error::SdkError, operation::get_web_identity_token::GetWebIdentityTokenError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use thiserror::Error;
use warifu::Secret;

use super::{
    RoleSession, Roles,
    error::{BAD_BASE, chain, is_busy, scrub},
};
use crate::config::outbound::WebIdentityAlgorithm;

/// For attestation the cheapest to verify, by far: an RSA verification is a small power, one on
/// P-384 two multiplications of points. The verifier serves every agent; AWS does the signing.
const ALGORITHM: WebIdentityAlgorithm = WebIdentityAlgorithm::Rs256;

/// The shortest there is. For attestation it is presented at once, and whoever steals it has as long.
const SHORTEST: Duration = Duration::from_secs(60);

/// A token may not outlive the session. What STS reckons as the session's end is a call's time later than ours.
const MARGIN: Duration = Duration::from_secs(5);

/// What is refused for reasons that AWS gives a name, which may be shown.
const CODES: &[&str] = &[
    "AccessDenied",
    "InvalidAction",
    "JWTPayloadSizeExceededException",
    "OutboundWebIdentityFederationDisabledException",
    "ValidationError",
];

/// A token to be had.
#[derive(Debug, Clone, Copy)]
pub struct WebIdentity<'a> {
    /// For whom.
    pub audiences: &'a [String],
    /// Whose; the base credentials' where absent.
    pub role: Option<&'a RoleSession>,
    /// How long it lives at most.
    pub life: Duration,
    /// What it is signed with.
    pub algorithm: WebIdentityAlgorithm,
    /// Whose STS gives it; this agent's region where absent.
    pub region: Option<&'a str>,
}

/// A token.
#[derive(Debug, Clone)]
pub struct WebIdentityToken {
    /// The compact JWS.
    pub token: Secret<String>,
    /// When it expires, by this machine's clock.
    pub expires_at: SystemTime,
}

/// Why there is no token.
#[derive(Debug, Clone, Error)]
#[error("{why}")]
pub struct TokenError {
    why: String,
    code: Option<&'static str>,
    refused: bool,
}

impl TokenError {
    fn passing(why: String) -> Self {
        Self {
            why,
            code: None,
            refused: false,
        }
    }

    /// Whether AWS decided so, and did not merely fail.
    pub fn is_refusal(&self) -> bool {
        self.refused
    }

    /// AWS's name for why, where it is one of those that are known.
    pub fn code(&self) -> Option<&'static str> {
        self.code
    }
}

impl Roles {
    /// A token for attestation, for exactly `audience`, of the role whose session the base credentials are.
    ///
    /// # Errors
    /// See [`TokenError`]; it says what to do.
    pub async fn attestation_token(&self, audience: &str) -> Result<Secret<String>, TokenError> {
        let wanted = WebIdentity {
            audiences: &[audience.to_owned()],
            role: None,
            life: SHORTEST,
            algorithm: ALGORITHM,
            region: None,
        };
        self.web_identity_token(&wanted).await.map(|it| it.token)
    }

    /// A token, which lives no longer than the session of the role.
    ///
    /// # Errors
    /// See [`TokenError`]; it says what to do.
    pub async fn web_identity_token(
        &self,
        wanted: &WebIdentity<'_>,
    ) -> Result<WebIdentityToken, TokenError> {
        let credentials = match wanted.role {
            Some(session) => self.credentials(session),
            None => self.base(),
        };
        let held = credentials
            .get()
            .await
            .map_err(|why| TokenError::passing(why.to_string()))?;
        let keys = &held.credentials;
        let left = keys
            .expiry()
            .map(|end| end.duration_since(self.clock().now()).unwrap_or_default());
        let left = left.map_or(wanted.life, |left| left.saturating_sub(MARGIN));
        // Less than a minute is left of a session that could not be renewed only: STS has the last word.
        let mut life = wanted.life.min(left).max(SHORTEST);
        let sts = self.regional_sts(wanted.region, &credentials);
        let answer = loop {
            let asked = sts.get_web_identity_token();
            let answer = asked
                .set_audience(Some(wanted.audiences.to_vec()))
                .signing_algorithm(wanted.algorithm.name())
                .duration_seconds(i32::try_from(life.as_secs()).unwrap_or(i32::MAX))
                .send()
                .await;
            match answer {
                // Of credentials from the environment only STS knows when they end.
                Err(why) if life > SHORTEST && would_outlive(&why) => life = SHORTEST,
                answer => break answer,
            }
        };
        let secrets = [
            keys.secret_access_key(),
            keys.session_token().unwrap_or_default(),
        ];
        let answer = answer.map_err(|why| {
            let (error, doubtful) = explain(&why, &secrets, keys.session_token().is_some());
            if doubtful {
                credentials.doubt(&held);
            }
            error
        })?;
        // The SDK takes what it finds in half an answer for a whole one.
        let token = answer.web_identity_token.filter(|token| is_jws(token));
        let expires = answer
            .expiration
            .and_then(|it| SystemTime::try_from(it).ok());
        let (Some(token), Some(expires)) = (token, expires) else {
            let why = "STS answered GetWebIdentityToken without a whole token; is aws.sts_endpoint an STS?";
            return Err(TokenError::passing(why.into()));
        };
        // AWS's clock is not ours.
        let left = expires
            .duration_since(self.clock().now())
            .unwrap_or_default();
        Ok(WebIdentityToken {
            token: Secret::new(token),
            expires_at: self.clock().uncorrected() + left,
        })
    }
}

/// Whether a text has the three parts of a signed token (RFC 7515 §7.1). Its verifier has the last word.
fn is_jws(text: &str) -> bool {
    let is_base64url = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    };
    text.split('.').count() == 3 && text.split('.').all(is_base64url)
}

/// Whether the session ends before the token would have.
fn would_outlive(error: &SdkError<GetWebIdentityTokenError, HttpResponse>) -> bool {
    let code = error
        .as_service_error()
        .and_then(ProvideErrorMetadata::code);
    code.is_some_and(|code| code.starts_with("SessionDurationEscalation"))
}

/// What went wrong, and whether other base credentials may fare better.
fn explain(
    error: &SdkError<GetWebIdentityTokenError, HttpResponse>,
    secrets: &[&str],
    is_session: bool,
) -> (TokenError, bool) {
    let SdkError::ServiceError(answer) = error else {
        let why = format!(
            "GetWebIdentityToken failed: {}. Is the STS endpoint (aws.sts_endpoint, or the region's) reachable \
             from here?",
            scrub(&chain(error), secrets)
        );
        return (TokenError::passing(why), false);
    };
    let status = answer.raw().status().as_u16();
    let code = answer.err().code().unwrap_or("without a code").to_owned();
    let message = scrub(answer.err().message().unwrap_or_default(), secrets);
    // AWS has the suffix in some places, and not in others.
    let kind = code.strip_suffix("Exception").unwrap_or(&code);
    if !(400..500).contains(&status) || status == 429 || is_busy(&code) {
        let why = format!(
            "GetWebIdentityToken failed: STS answered {status} {code}: {message}. It is tried again"
        );
        return (TokenError::passing(why), false);
    }
    let doubtful = BAD_BASE.contains(&code.as_str()) || kind == "SessionDurationEscalation";
    let advice = match kind {
        "OutboundWebIdentityFederationDisabled" => {
            "An administrator of the account enables it once: `aws iam enable-outbound-web-identity-federation` \
             (and gives the issuer it answers to whoever verifies the tokens); to attest, there is \
             `attestation: aws-caller-identity` as well"
        }
        "SessionDurationEscalation" => {
            "The role's session ends within a minute, the shortest a token can live: its credentials are renewed, \
             and it is tried again"
        }
        "JWTPayloadSizeExceeded" => "The role's session has too many or too long tags: use fewer",
        "AccessDenied" if is_session => {
            "The role's policies must allow sts:GetWebIdentityToken, for this audience where they limit \
             sts:IdentityTokenAudience"
        }
        "AccessDenied" => {
            "The base credentials are long-term keys: only a role's session has such tokens"
        }
        "InvalidAction" | "UnknownOperation" => {
            "This partition or endpoint has no GetWebIdentityToken; to attest, use `attestation: aws-caller-identity`"
        }
        _ if doubtful => {
            "The credentials it was asked with are not accepted by STS: are they current, and of this partition?"
        }
        _ => "See the role's policies, and aws.region",
    };
    let why = format!("STS refused GetWebIdentityToken: {code}: {message}. {advice}");
    // A session about to end, or keys that have just ended, are replaced: nobody decided anything.
    let refused = kind != "SessionDurationEscalation" && !kind.starts_with("ExpiredToken");
    let known = CODES.iter().find(|known| **known == code).copied();
    let error = TokenError {
        why,
        code: known,
        refused,
    };
    (error, doubtful)
}
