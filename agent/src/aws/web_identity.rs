//! `sts:GetWebIdentityToken`: a JWT of AWS's that says which role asked for it, for one audience.
//!
//! <https://docs.aws.amazon.com/STS/latest/APIReference/API_GetWebIdentityToken.html>

use aws_sdk_sts::{error::SdkError, operation::get_web_identity_token::GetWebIdentityTokenError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use thiserror::Error;
use warifu::Secret;

use super::{
    Roles,
    error::{BAD_BASE, chain, is_busy, scrub},
};

/// Of the two there are (RS256, ES384) the cheapest to verify, by far: an RSA verification is a small power, one on
/// P-384 two multiplications of points. The verifier serves every agent; AWS does the signing.
const ALGORITHM: &str = "RS256";

/// The shortest there is, seconds. It is presented at once, and whoever steals it has as long.
const SECONDS: i32 = 60;

/// Why there is no token.
#[derive(Debug, Clone, Error)]
#[error("{why}")]
pub struct TokenError {
    why: String,
    refused: bool,
}

impl TokenError {
    /// Whether AWS decided so, and did not merely fail.
    pub fn is_refusal(&self) -> bool {
        self.refused
    }
}

impl Roles {
    /// A token for exactly `audience`, of the role whose session the base credentials are.
    ///
    /// # Errors
    /// See [`TokenError`]; it says what to do.
    pub async fn web_identity_token(&self, audience: &str) -> Result<Secret<String>, TokenError> {
        let base = self.base();
        let held = base.get().await.map_err(|why| TokenError {
            why: why.to_string(),
            refused: false,
        })?;
        let asked = self.sts().get_web_identity_token();
        let answer = asked
            .audience(audience)
            .signing_algorithm(ALGORITHM)
            .duration_seconds(SECONDS)
            .send()
            .await;
        let keys = &held.credentials;
        let secrets = [
            keys.secret_access_key(),
            keys.session_token().unwrap_or_default(),
        ];
        let answer = answer.map_err(|why| {
            let (error, doubtful) = explain(&why, &secrets, keys.session_token().is_some());
            if doubtful {
                base.doubt(&held);
            }
            error
        })?;
        // The SDK takes what it finds in half an answer for a whole one.
        let token = answer.web_identity_token.filter(|token| is_jws(token));
        let whole = answer.expiration.and(token);
        whole.map(Secret::new).ok_or_else(|| TokenError {
            why: "STS answered GetWebIdentityToken without a whole token; is aws.sts_endpoint an STS?".into(),
            refused: false,
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
        return (
            TokenError {
                why,
                refused: false,
            },
            false,
        );
    };
    let status = answer.raw().status().as_u16();
    let code = answer.err().code().unwrap_or("without a code").to_owned();
    let message = scrub(answer.err().message().unwrap_or_default(), secrets);
    // AWS has the suffix in some places, and not in others.
    let kind = code.strip_suffix("Exception").unwrap_or(&code);
    if status >= 500 || status == 429 || is_busy(&code) {
        let why = format!(
            "GetWebIdentityToken failed: STS answered {status} {code}: {message}. It is tried again"
        );
        return (
            TokenError {
                why,
                refused: false,
            },
            false,
        );
    }
    let doubtful = BAD_BASE.contains(&code.as_str()) || kind == "SessionDurationEscalation";
    let advice = match kind {
        "OutboundWebIdentityFederationDisabled" => {
            "An administrator of the account enables it once: `aws iam enable-outbound-web-identity-federation` \
             (and gives the issuer it answers to the authority), or use `attestation: aws-caller-identity`"
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
            "The base credentials are long-term keys: only a role's session is attested"
        }
        "InvalidAction" | "UnknownOperation" => {
            "This partition or endpoint has no GetWebIdentityToken: use `attestation: aws-caller-identity`"
        }
        _ if doubtful => {
            "The base credentials this agent runs with are not accepted by STS: are they current, and of this \
             partition?"
        }
        _ => "See the role's policies, and aws.region",
    };
    let why = format!("STS refused GetWebIdentityToken: {code}: {message}. {advice}");
    // A session about to end, or keys that have just ended, are replaced: nobody decided anything.
    let refused = kind != "SessionDurationEscalation" && !kind.starts_with("ExpiredToken");
    (TokenError { why, refused }, doubtful)
}
