//! `sts:GetWebIdentityToken`: AWS signs who calls.
//! <https://docs.aws.amazon.com/STS/latest/APIReference/API_GetWebIdentityToken.html>

use std::{
    fmt::Write,
    time::{Duration, SystemTime},
};

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{AUTHORIZATION, CONTENT_TYPE},
};

use super::{
    Role, SessionKeys, TokenError,
    cache::{Mint, Minted, Minting},
    https::{Answer, Connection, Failed, Origin, public_roots},
    sigv4::{Signing, timestamp},
};
use crate::Secret;

/// How long a token lives: AWS's own default. Whoever steals one has no longer.
const LIFE: Duration = Duration::from_secs(300);

/// The shortest there is, for a session that is nearly over.
const SHORTEST: Duration = Duration::from_secs(60);

/// A token may not outlive the session. What STS reckons as the session's end is a call's time later than ours.
const SESSION_MARGIN: Duration = Duration::from_secs(5);

/// The cheapest to verify, by far, and the only one that an ALB takes; AWS does the signing.
const ALGORITHM: &str = "RS256";

const FORM: &str = "application/x-www-form-urlencoded; charset=utf-8";

/// Most of AWS's own words that an error repeats.
const MAX_WORDS: usize = 300;

/// Tokens for one audience.
#[derive(Debug)]
pub(super) struct WebIdentity {
    pub(super) role: Role,
    pub(super) audience: String,
}

/// What STS answered in place of a token.
struct Refusal {
    status: u16,
    code: String,
    message: String,
}

impl Mint for WebIdentity {
    fn mint(&self) -> Minting<'_> {
        Box::pin(self.token())
    }
}

impl WebIdentity {
    async fn token(&self) -> Result<Minted, TokenError> {
        let keys = self.role.credentials.keys().await?;
        let sts = self.role.sts();
        let left = keys.expires_at.map_or(LIFE, |end| {
            let left = end.duration_since(SystemTime::now()).unwrap_or_default();
            left.saturating_sub(SESSION_MARGIN)
        });
        // Less than a minute may be left of the session: STS has the last word.
        let life = LIFE.min(left).max(SHORTEST);
        let refusal = match self.ask(&sts, &keys, life).await? {
            Ok(minted) => return Ok(minted),
            // Of keys from the environment only STS knows when they end.
            Err(refusal) if refusal.would_outlive() && life > SHORTEST => {
                match self.ask(&sts, &keys, SHORTEST).await? {
                    Ok(minted) => return Ok(minted),
                    Err(refusal) => refusal,
                }
            }
            Err(refusal) => refusal,
        };
        Err(refusal.explain(&sts, &keys))
    }

    async fn ask(
        &self,
        sts: &Origin,
        keys: &SessionKeys,
        life: Duration,
    ) -> Result<Result<Minted, Refusal>, TokenError> {
        let unreachable = |why: Failed| TokenError::Unreachable {
            whom: format!("STS at {sts}"),
            why: match why {
                Failed::Unreachable(why) | Failed::Untrusted(why) => why,
            },
            check: "may this program connect there? In a VPC without a NAT gateway it needs an interface endpoint of STS",
        };
        let (headers, body) = self.request(sts, keys, life)?;
        let mut connection = Connection::open(sts, public_roots()?)
            .await
            .map_err(unreachable)?;
        let answer = connection.post("/", headers, body.into()).await;
        let Answer { status, body, .. } = answer.map_err(unreachable)?;
        let text = String::from_utf8_lossy(&body);
        if status.as_u16() != 200 {
            return Ok(Err(Refusal {
                status: status.as_u16(),
                code: element(&text, "Code").unwrap_or("no code").to_owned(),
                message: element(&text, "Message").unwrap_or_default().to_owned(),
            }));
        }
        match element(&text, "WebIdentityToken").filter(|token| is_jws(token)) {
            Some(token) => Ok(Ok(Minted {
                token: Secret::new(token.to_owned()),
                life,
            })),
            None => Err(TokenError::NotUnderstood {
                by: format!("STS at {sts}"),
                why: "it has no whole token".to_owned(),
            }),
        }
    }

    fn request(
        &self,
        sts: &Origin,
        keys: &SessionKeys,
        life: Duration,
    ) -> Result<(HeaderMap, String), TokenError> {
        let body = format!(
            "Action=GetWebIdentityToken&Version=2011-06-15&Audience.member.1={}&DurationSeconds={}&SigningAlgorithm={ALGORITHM}",
            escaped(&self.audience),
            life.as_secs()
        );
        let (host, date) = (sts.authority(), timestamp(SystemTime::now()));
        let token = keys.session_token.expose();
        let signed = [
            ("content-type", FORM),
            ("host", &host),
            ("x-amz-date", &date),
            ("x-amz-security-token", token),
        ];
        let signing = Signing {
            keys,
            region: &self.role.region,
            service: "sts",
            date: &date,
        };
        let mut headers = HeaderMap::new();
        let mut set = |name: HeaderName, value: &str| {
            let mut value = HeaderValue::try_from(value).map_err(|_| {
                TokenError::setting("the role's keys have characters that no header can have")
            })?;
            value.set_sensitive(true);
            headers.insert(name, value);
            Ok::<_, TokenError>(())
        };
        set(CONTENT_TYPE, FORM)?;
        set(HeaderName::from_static("x-amz-date"), &date)?;
        set(HeaderName::from_static("x-amz-security-token"), token)?;
        set(AUTHORIZATION, &signing.authorization(&signed, &body))?;
        Ok((headers, body))
    }
}

impl Refusal {
    /// Whether the session ends before the token would have.
    fn would_outlive(&self) -> bool {
        self.code.starts_with("SessionDurationEscalation")
    }

    fn explain(self, sts: &Origin, keys: &SessionKeys) -> TokenError {
        let by = format!("STS at {sts}");
        let message = words(&self.message, keys);
        // AWS has the suffix in some places, and not in others.
        let kind = self.code.strip_suffix("Exception").unwrap_or(&self.code);
        let is_busy = matches!(
            kind,
            "Throttling" | "Throttled" | "RequestLimitExceeded" | "SlowDown" | "TooManyRequests"
        );
        if !(400..500).contains(&self.status) || self.status == 429 || is_busy {
            return TokenError::Unavailable {
                by,
                code: self.code,
                message,
                retry_after: None,
            };
        }
        let advice = match kind {
            "OutboundWebIdentityFederationDisabled" => {
                "An administrator of the account enables it once (`aws iam enable-outbound-web-identity-federation`); \
                 without it, `Role::exchange` gets the authority's tokens"
            }
            "SessionDurationEscalation" => {
                "The role's session ends within a minute, the shortest a token can live: give the keys of a newer session"
            }
            "JWTPayloadSizeExceeded" => {
                "The role's session has too many or too long tags: use fewer"
            }
            "AccessDenied" => {
                "The role's policies must allow sts:GetWebIdentityToken, for this audience where they limit \
                 sts:IdentityTokenAudience"
            }
            "ExpiredToken" => {
                "The keys have ended: give those of a session that goes on (`aws-config` renews them by itself)"
            }
            "InvalidClientTokenId" | "UnrecognizedClient" => {
                "The keys are none of this partition's, or not of now: are AWS_REGION and the keys of one account?"
            }
            "SignatureDoesNotMatch" | "RequestExpired" | "IncompleteSignature" => {
                "Is the secret access key whole, and this machine's clock right?"
            }
            "InvalidAction" | "UnknownOperation" => {
                "This partition or endpoint has no GetWebIdentityToken: `Role::exchange` gets the authority's tokens"
            }
            _ => "See the role's policies, and the region",
        };
        TokenError::Refused {
            by,
            code: self.code,
            message: format!("{message}. {advice}"),
        }
    }
}

/// STS's own words, as far as they may be shown: a wrong signature is answered with all that should have been signed,
/// session token included (S12).
fn words(message: &str, keys: &SessionKeys) -> String {
    let line = message.lines().next().unwrap_or_default();
    let mut shown: String = line.chars().filter(|it| !it.is_control()).collect();
    for secret in [&keys.secret_access_key, &keys.session_token] {
        if !secret.expose().is_empty() {
            shown = shown.replace(secret.expose().as_str(), "***");
        }
    }
    shown
        .chars()
        .take(MAX_WORDS)
        .collect::<String>()
        .trim_end_matches('.')
        .to_owned()
}

/// What stands in the one element of this name. What is read here has no entities: tokens are base64url, codes are words,
/// and messages are for people.
fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    let (content, after) = rest.split_once(&format!("</{name}>"))?;
    (!after.contains(&format!("<{name}>"))).then_some(content)
}

/// Whether a text has the three parts of a signed token (RFC 7515 §7.1). Its verifier has the last word.
fn is_jws(text: &str) -> bool {
    let is_base64url = |part: &str| {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        !part.is_empty() && part.bytes().all(allowed)
    };
    text.split('.').count() == 3 && text.split('.').all(is_base64url)
}

/// As a form has it.
fn escaped(text: &str) -> String {
    text.bytes().fold(String::new(), |mut form, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                form.push(char::from(byte));
            }
            byte => {
                // Writing to a string can't fail.
                let _ = write!(form, "%{byte:02X}");
            }
        }
        form
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys() -> SessionKeys {
        SessionKeys {
            access_key_id: "ASIAEXAMPLE".into(),
            secret_access_key: Secret::new("hunter2".into()),
            session_token: Secret::new("of-the-session".into()),
            expires_at: None,
        }
    }

    #[test]
    fn s12_what_sts_repeats_of_a_request_is_not_shown() {
        let refusal = Refusal {
            status: 403,
            code: "SignatureDoesNotMatch".into(),
            message: "It does not match of-the-session.\n\nThe Canonical String should have been\nof-the-session".into(),
        };
        let sts = Origin::https("sts.eu-west-1.amazonaws.com".into());
        let why = refusal.explain(&sts, &keys()).to_string();
        assert!(!why.contains("of-the-session"), "{why}");
        assert!(!why.contains("Canonical"), "{why}");
        assert!(why.contains("clock"), "{why}");
    }

    #[test]
    fn half_an_answer_is_no_token() {
        let whole = "<R><WebIdentityToken>a.b.c</WebIdentityToken></R>";
        assert_eq!(element(whole, "WebIdentityToken"), Some("a.b.c"));
        assert_eq!(element(&whole[..24], "WebIdentityToken"), None);
        assert_eq!(element(&whole.repeat(2), "WebIdentityToken"), None);
        assert!(is_jws("a.b.c"));
        for other in ["", "a.b", "a.b.", "a.b.c.d", "a.b.c\r\n", "a.b.é", "a.b.="] {
            assert!(!is_jws(other), "{other:?}");
        }
    }

    proptest! {
        #[test]
        fn s17_no_answer_panics(xml in "(<|>|/|Code|a|é){0,20}") {
            let _ = element(&xml, "Code");
            let _ = words(&xml, &keys());
        }
    }
}
