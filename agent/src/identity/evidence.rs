//! What this agent presents: evidence is gathered anew for each attestation, a renewal's included.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use tokio::time::timeout;
use warifu::{Secret, TrustDomain, jwt::PublicJwk};

use crate::{
    attest::{
        ClientError, MakeEvidence, bearer,
        wire::{self, CallerIdentityProof, Evidence},
    },
    aws::{CallError, CallSigner, Roles},
    config::{
        agent::Attestation,
        value::{SecretFile, Span},
    },
    telemetry::timestamp::Timestamp,
};

/// Longest token the authority reads.
const MAX_TOKEN: usize = 8 * 1024;

/// Where evidence comes from.
#[derive(Debug)]
pub struct Gatherer {
    attestation: Attestation,
    trust_domain: TrustDomain,
    /// Where the attestation is one of AWS's.
    roles: Option<Roles>,
}

/// What can be presented, as far as it can be made without a challenge.
pub(super) type Gathered = Box<MakeEvidence>;

impl Gatherer {
    /// `roles` are those of this process, for an attestation of AWS's.
    pub fn new(attestation: Attestation, trust_domain: TrustDomain, roles: Option<Roles>) -> Self {
        Self {
            attestation,
            trust_domain,
            roles,
        }
    }

    /// Whether it is spent when it is used: then only the record renews.
    pub(super) fn is_spent_once(&self) -> bool {
        matches!(self.attestation, Attestation::JoinToken { .. })
    }

    /// Whether AWS is asked for it, which has limits for all who ask.
    pub(super) fn asks_aws(&self) -> bool {
        matches!(
            self.attestation,
            Attestation::AwsWebIdentity | Attestation::AwsCallerIdentity
        )
    }

    /// Evidence for `renewal_key`, read and asked for anew: files and credentials are replaced while an agent runs.
    ///
    /// # Errors
    /// [`ClientError::NoEvidence`]: it cannot be had now, or not within `patience`. [`ClientError::EvidenceRefused`]: who gives it decided
    /// against.
    pub async fn gather(
        &self,
        renewal_key: &PublicJwk,
        patience: Duration,
    ) -> Result<Gathered, ClientError> {
        let gathered = timeout(patience, self.gathered(renewal_key)).await;
        gathered.map_err(|_| {
            let (kind, patience) = (self.kind(), Span(patience));
            ClientError::NoEvidence(format!(
                "{kind}: no evidence could be had within {patience}"
            ))
        })?
    }

    async fn gathered(&self, renewal_key: &PublicJwk) -> Result<Gathered, ClientError> {
        match &self.attestation {
            Attestation::JoinToken { token } => {
                let what = "the join token";
                let token = read(token.clone(), what).await.map_err(|why| {
                    ClientError::NoEvidence(format!(
                        "attestation.join-token.token: {why}; write a token there (`warifu authority join-token` makes one)"
                    ))
                })?;
                Ok(bearer(Evidence::JoinToken { token }))
            }
            Attestation::Kubernetes { token_file } => {
                let token = token(token_file, "kubernetes").await?;
                Ok(bearer(Evidence::Kubernetes { token }))
            }
            Attestation::Oidc { token_file } => {
                let token = token(token_file, "oidc").await?;
                Ok(bearer(Evidence::Oidc { token }))
            }
            Attestation::AwsWebIdentity => {
                let audience =
                    wire::attest_audience(&self.trust_domain, &wire::key_hash(renewal_key));
                let token = self.roles()?.attestation_token(&audience).await;
                let token = token.map_err(|why| match why.is_refusal() {
                    true => ClientError::EvidenceRefused(format!("aws-web-identity: {why}")),
                    false => ClientError::NoEvidence(format!("aws-web-identity: {why}")),
                })?;
                Ok(bearer(Evidence::AwsWebIdentity { token }))
            }
            Attestation::AwsCallerIdentity => {
                let signer = self.roles()?.call_signer().await;
                let signer = signer.map_err(no_call)?;
                Ok(caller_identity(signer, renewal_key))
            }
        }
    }

    /// Says which evidence was refused: the authority doesn't know where it came from.
    pub fn name(&self, why: ClientError) -> ClientError {
        let from = match &self.attestation {
            Attestation::JoinToken { token } => token.to_string(),
            Attestation::Kubernetes { token_file } | Attestation::Oidc { token_file } => {
                token_file.display().to_string()
            }
            Attestation::AwsWebIdentity | Attestation::AwsCallerIdentity => return why,
        };
        match why {
            ClientError::Refused {
                authority,
                code: code @ wire::ErrorCode::InvalidEvidence,
                message,
            } => ClientError::Refused {
                authority,
                code,
                message: format!("{message} (this one was read from {from})"),
            },
            why => why,
        }
    }

    fn kind(&self) -> &'static str {
        match self.attestation {
            Attestation::JoinToken { .. } => "join-token",
            Attestation::AwsWebIdentity => "aws-web-identity",
            Attestation::AwsCallerIdentity => "aws-caller-identity",
            Attestation::Kubernetes { .. } => "kubernetes",
            Attestation::Oidc { .. } => "oidc",
        }
    }

    fn roles(&self) -> Result<&Roles, ClientError> {
        self.roles.as_ref().ok_or_else(|| {
            ClientError::NoEvidence("this agent was started without AWS credentials".into())
        })
    }
}

/// A proof over each challenge, by the credentials of now.
fn caller_identity(signer: CallSigner, renewal_key: &PublicJwk) -> Gathered {
    let (signer, key) = (Arc::new(signer), wire::key_hash(renewal_key));
    Box::new(move |challenge| {
        let call = signer
            .sign(&format!("{key}.{challenge}"))
            .map_err(no_call)?;
        Ok(Evidence::AwsCallerIdentity(CallerIdentityProof {
            region: call.region,
            access_key_id: call.access_key_id,
            date: call.date,
            session_token: call.session_token,
            signature: call.signature,
        }))
    })
}

fn no_call(why: CallError) -> ClientError {
    ClientError::NoEvidence(format!("aws-caller-identity: {why}"))
}

/// The token in a file that somebody else keeps fresh.
async fn token(path: &Path, kind: &str) -> Result<Secret<String>, ClientError> {
    let missing =
        |why: String| ClientError::NoEvidence(format!("attestation.{kind}.token_file: {why}"));
    let reference = SecretFile(path.to_owned());
    let token = read(reference, "the token").await.map_err(missing)?;
    let path = path.display();
    if token.expose().len() > MAX_TOKEN {
        let why = format!(
            "the token in {path} is longer than {MAX_TOKEN} bytes, more than an authority reads"
        );
        return Err(missing(why));
    }
    let is_one_word = token.expose().bytes().all(|b| b.is_ascii_graphic());
    if !is_one_word {
        return Err(missing(format!(
            "{path} holds more than a token: expected it alone, on one line"
        )));
    }
    // Not the authority's verdict: it would be a refusal, and nobody has refused anything.
    if let Some(end) = expiry(token.expose()).filter(|end| *end <= SystemTime::now()) {
        return Err(missing(format!(
            "the token in {path} expired at {}, and whoever writes it has not replaced it",
            Timestamp(end)
        )));
    }
    Ok(token)
}

async fn read(reference: SecretFile, what: &str) -> Result<Secret<String>, String> {
    let read = tokio::task::spawn_blocking(move || reference.read()).await;
    read.map_err(|why| format!("reading {what}: {why}"))?
        .map_err(|why| why.to_string())
}

/// `exp` of a JWT, if it looks like one. Nothing is verified: it is our own.
fn expiry(token: &str) -> Option<SystemTime> {
    let payload = token.split('.').nth(1)?;
    let payload = URL_SAFE_NO_PAD.decode(payload).ok()?;
    let payload: serde_json::Value = serde_json::from_slice(&payload).ok()?;
    let end = payload.get("exp")?.as_u64()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(end))
}

#[cfg(test)]
mod tests {
    use warifu::jwt::SigningKey;

    use super::*;

    fn jwt(exp: &str) -> String {
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        format!(
            "{}.{}.c2ln",
            part("{}"),
            part(&format!("{{\"exp\":{exp}}}"))
        )
    }

    async fn gathered(content: Option<&[u8]>) -> Result<Evidence, String> {
        let dir = tempfile::tempdir().unwrap();
        let token_file = dir.path().join("token");
        if let Some(content) = content {
            std::fs::write(&token_file, content).unwrap();
        }
        let attestation = Attestation::Kubernetes { token_file };
        let gatherer = Gatherer::new(attestation, "example.org".parse().unwrap(), None);
        let key = SigningKey::generate();
        match gatherer.gather(key.public(), Duration::from_secs(10)).await {
            Ok(make) => make("challenge").map_err(|why| why.to_string()),
            Err(ClientError::NoEvidence(why)) => Err(why),
            Err(why) => panic!("{why:?}"),
        }
    }

    #[tokio::test]
    async fn a_token_files_errors_name_the_file_and_are_no_refusals() {
        let long = "a".repeat(MAX_TOKEN + 1);
        let huge = vec![b'a'; 100 * 1024];
        for (content, said) in [
            (None, "must exist"),
            (Some("".as_bytes()), "is empty"),
            (Some(b"\xff\xfe"), "not UTF-8"),
            (Some(long.as_bytes()), "longer than 8192 bytes"),
            (Some(&huge), "larger than 64 KiB"),
            (Some(b"a.b.c d.e.f"), "more than a token"),
            (Some(b"a.b.c\nd.e.f\n"), "more than a token"),
            (
                Some(jwt("1000000000").as_bytes()),
                "expired at 2001-09-09T01:46:40.000Z",
            ),
        ] {
            let why = gathered(content).await.unwrap_err();
            assert!(
                why.contains(said) && why.contains("/token"),
                "{said}: {why}"
            );
            assert!(
                why.starts_with("attestation.kubernetes.token_file"),
                "{why}"
            );
            assert!(!why.contains("a.b.c"), "S12: {why}");
        }
    }

    #[tokio::test]
    async fn a_token_is_presented_as_it_is() {
        for content in [jwt("4000000000"), jwt("\"soon\""), "opaque".into()] {
            let evidence = gathered(Some(format!("{content}\n").as_bytes()))
                .await
                .unwrap();
            let Evidence::Kubernetes { token } = evidence else {
                panic!("{evidence:?}")
            };
            assert_eq!(*token.expose(), content);
        }
    }
}
