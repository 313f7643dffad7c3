//! `aws-caller-identity`: STS says whose signature it is, over a request that is ours (S7).
//!
//! The agent hands in five values of its signature. Each is held to the characters it can have; method, host, path,
//! body and headers are made here, with the renewal key's hash and the challenge among what must have been signed.
//! So there is no request to smuggle, and the proof is worth nothing with another key or for another challenge.
//!
//! Asking STS spends the time of a place in a small pool, and (where the signature is good) the quota of the
//! *caller's* account.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use http::{Request, StatusCode, header::CONTENT_TYPE};
use warifu::aws::{is_region, partition, sts_host};

use super::{Presented, Proven, places::Places};
use crate::{
    attest::wire::{self, CallerIdentityProof, ErrorCode},
    authority::{challenge, denied::Denied, metrics::Metrics, rules::Facts},
    aws::SignedCall,
    config::{
        authority::CallerIdentityAttestor,
        value::{Span, Upstream},
    },
    http::fetch::{Fetcher, FetcherError, Limits},
};

mod answer;
mod replay;

use answer::{Caller, NoCaller};
use replay::Noted;

/// Calls to STS at once. It answers in some 20 ms, so this is more than a thousand a second, twice what it takes
/// from one account.
const PLACES: usize = 32;
/// STS answers in well under a second. Below the time a request to us may take: its agent is told what is away.
const LIMITS: Limits = Limits {
    connect: Duration::from_secs(2),
    total: Duration::from_secs(5),
    // It is below 1 KiB.
    answer: 16 * 1024,
};
/// How far a signature's date may be from our clock. STS allows five minutes itself; the challenge is a minute old
/// at most, so this only tells a wrong clock from a wrong signature.
const DATE_WITHIN: Duration = Duration::from_secs(5 * 60);

/// Longest session token. STS's are below 4 KiB, and have been growing.
const MAX_TOKEN: usize = 8 * 1024;

/// The attestor.
#[derive(Debug)]
pub(super) struct CallerIdentity {
    name: String,
    accounts: BTreeSet<String>,
    endpoints: BTreeMap<String, Upstream>,
    fetcher: Fetcher,
    places: Places,
    presented: Mutex<replay::Presented>,
    metrics: Metrics,
}

impl CallerIdentity {
    /// The configured one, called `name`.
    ///
    /// # Errors
    /// When TLS can't be set up.
    pub(super) fn new(
        name: &str,
        config: &CallerIdentityAttestor,
        metrics: &Metrics,
    ) -> Result<Self, FetcherError> {
        Ok(Self {
            name: name.to_owned(),
            accounts: config.accounts.iter().cloned().collect(),
            endpoints: config.sts_endpoints.clone(),
            fetcher: Fetcher::web_pki()?.limited(LIMITS),
            places: Places::new("asking STS", PLACES),
            presented: Mutex::default(),
            metrics: metrics.clone(),
        })
    }

    /// Whose signature `proof` is, over the renewal key and the challenge it was presented with.
    pub(super) async fn prove(
        &self,
        proof: &CallerIdentityProof,
        presented: Presented<'_>,
    ) -> Result<Proven, Denied> {
        let call = checked(proof, presented.now)?;
        let endpoint = self.endpoint(&call.region)?;
        let binding = binding(&presented);
        let request = call
            .request(&endpoint, &binding)
            .map_err(|_| invalid("it cannot be put into a request"))?;

        let place = self.places.enter(presented.remote).inspect_err(|_| {
            self.metrics.attestor_turned_away(&self.name);
        })?;
        self.note(&binding, presented.now)?;
        let answer = self.fetcher.send(request).await.map_err(|why| {
            tracing::warn!(attestor = self.name, %why, "asking STS failed");
            Denied::evidence_unavailable(format!("STS of {} cannot be asked now", call.region))
        })?;
        drop(place);

        let (status, headers) = (answer.status(), answer.headers());
        let content_type = headers.get(CONTENT_TYPE).and_then(|it| it.to_str().ok());
        let caller = answer::read(status, content_type.unwrap_or_default(), answer.body())
            .map_err(|why| self.refused(&call.region, &endpoint, why))?;
        let facts = facts(&caller, &call.region)?;
        self.check_account(&facts)?;
        Ok(Proven {
            attestor: self.name.clone(),
            facts,
            lineage: None,
            single_use: None,
        })
    }

    /// Where the STS of a region is asked. A region of no known partition must be configured.
    fn endpoint(&self, region: &str) -> Result<String, Denied> {
        match (self.endpoints.get(region), partition(region)) {
            (Some(endpoint), _) => Ok(endpoint.to_string()),
            (None, Some(_)) => Ok(format!("https://{}", sts_host(region))),
            (None, None) => Err(invalid(&format!(
                "region {region} is of no partition this version knows; name its endpoint in `sts_endpoints` of \
                 attestor {:?}",
                self.name
            ))),
        }
    }

    /// Refuses what was presented before. The code makes an agent ask for another challenge: it may have sent the
    /// request again because the connection broke.
    fn note(&self, binding: &str, now: SystemTime) -> Result<(), Denied> {
        let mut id = [0; 32];
        id.copy_from_slice(digest(&SHA256, binding.as_bytes()).as_ref());
        let mut presented = self
            .presented
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match presented.note(id, now + challenge::LIFE + challenge::SKEW, now) {
            Noted::New => Ok(()),
            Noted::Again => Err(Denied::new(
                ErrorCode::InvalidChallenge,
                "challenge: evidence was presented with it already; ask for another",
            )),
            Noted::Full => Err(Denied::evidence_unavailable(
                "too many proofs were presented within a minute; ask again",
            )),
        }
    }

    fn refused(&self, region: &str, endpoint: &str, why: NoCaller) -> Denied {
        match why {
            NoCaller::Refused(code) => invalid(&format!(
                "STS of {region} refused it: {code}{}",
                advice(&code)
            )),
            NoCaller::Busy(code) => {
                Denied::evidence_unavailable(format!("STS of {region} cannot answer now: {code}"))
            }
            NoCaller::NotUnderstood(why) => {
                tracing::warn!(
                    attestor = self.name,
                    endpoint,
                    why,
                    "the answer is none of STS's"
                );
                Denied::evidence_unavailable(format!(
                    "what answers for STS of {region} is not understood"
                ))
            }
        }
    }

    fn check_account(&self, facts: &Facts) -> Result<(), Denied> {
        let account = facts.get("account").map_or("", String::as_str);
        if self.accounts.contains(account) {
            return Ok(());
        }
        Err(invalid(&format!(
            "account {account} is not among `accounts` of attestor {:?}",
            self.name
        )))
    }
}

/// What an answer of 200 says of a request for `region`.
pub(in crate::authority) fn facts_of_answer(
    content_type: &str,
    body: &[u8],
    region: &str,
) -> Option<Facts> {
    let caller = answer::read(StatusCode::OK, content_type, body).ok()?;
    facts(&caller, region).ok()
}

/// The request that is made of a proof.
pub(in crate::authority) fn request_of_proof(
    proof: &CallerIdentityProof,
    binding: &str,
    now: SystemTime,
) -> Option<Request<Bytes>> {
    let call = checked(proof, now).ok()?;
    let endpoint = format!("https://{}", sts_host(&call.region));
    call.request(&endpoint, binding).ok()
}

/// `<hash of the renewal key>.<challenge>`: inserted by us, so that a signature over anything else fails.
fn binding(presented: &Presented<'_>) -> String {
    format!(
        "{}.{}",
        wire::key_hash(presented.renewal_key),
        presented.challenge
    )
}

/// The proof, when each value has only characters and length that it can have: none can end a header, a line of
/// the signature's scope, or a host name.
fn checked(proof: &CallerIdentityProof, now: SystemTime) -> Result<SignedCall, Denied> {
    let is = |text: &str, length: std::ops::RangeInclusive<usize>, allowed: fn(u8) -> bool| {
        length.contains(&text.len()) && text.bytes().all(allowed)
    };
    let CallerIdentityProof {
        region,
        access_key_id,
        date,
        session_token,
        signature,
    } = proof;
    for (field, good, expected) in [
        (
            "region",
            is_region(region),
            "an AWS region such as eu-west-1",
        ),
        (
            "access_key_id",
            is(access_key_id, 16..=128, |b| {
                b.is_ascii_uppercase() || b.is_ascii_digit()
            }),
            "16 to 128 capitals and digits",
        ),
        (
            "session_token",
            is(session_token.expose(), 1..=MAX_TOKEN, |b| {
                b.is_ascii_alphanumeric() || b"+/=-._~".contains(&b)
            }),
            "1 to 8192 characters of base64: only a role's session attests, and has one always",
        ),
        (
            "signature",
            is(
                signature,
                64..=64,
                |b| matches!(b, b'0'..=b'9' | b'a'..=b'f'),
            ),
            "64 lower-case hex digits",
        ),
    ] {
        if !good {
            return Err(invalid(&format!("{field}: expected {expected}")));
        }
    }
    let call = SignedCall {
        region: region.clone(),
        access_key_id: access_key_id.clone(),
        date: date.clone(),
        session_token: session_token.clone(),
        signature: signature.clone(),
    };
    let signed_at = call
        .signed_at()
        .ok_or_else(|| invalid("date: expected YYYYMMDD'T'HHMMSS'Z'"))?;
    let apart = |a: SystemTime, b: SystemTime| a.duration_since(b).unwrap_or_default();
    let off = apart(signed_at, now).max(apart(now, signed_at));
    if off > DATE_WITHIN {
        return Err(invalid(&format!(
            "date: more than {} from the authority's clock; compare the clocks",
            Span(DATE_WITHIN)
        )));
    }
    Ok(call)
}

/// `arn:P:sts::ACCOUNT:assumed-role/NAME/SESSION` and what goes with it. Users, the root user and federated users
/// attest nothing: their keys are long-lived, or their names chosen by whoever federated them.
fn facts(caller: &Caller, region: &str) -> Result<Facts, Denied> {
    let Caller {
        arn,
        user_id,
        account,
    } = caller;
    let is_name = |text: &str, least: usize| {
        (least..=64).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"_+=,.@-".contains(&b))
    };
    let mut parts = arn.splitn(6, ':');
    let mut next = || parts.next().unwrap_or_default();
    let (prefix, arn_partition, service, none, arn_account, resource) =
        (next(), next(), next(), next(), next(), next());
    let Some(session) = resource.strip_prefix("assumed-role/") else {
        return Err(invalid(
            "STS says it is not a role's session; users, the root user and federated users are not attested",
        ));
    };
    let lying = || {
        tracing::warn!(region, "STS's answer contradicts itself");
        Denied::evidence_unavailable("what STS answered contradicts itself")
    };
    let (role, session) = session.split_once('/').ok_or_else(lying)?;
    let (principal_id, user_session) = user_id.split_once(':').ok_or_else(lying)?;
    let expected = partition(region).map_or(arn_partition, |it| it.id);
    let is_sound = (prefix, service, none) == ("arn", "sts", "")
        && arn_partition == expected
        && is_name(arn_partition, 3)
        && arn_account == account
        && account.len() == 12
        && account.bytes().all(|b| b.is_ascii_digit())
        && is_name(role, 1)
        && is_name(session, 2)
        && user_session == session
        && principal_id.starts_with("AROA")
        && (16..=128).contains(&principal_id.len())
        && principal_id
            .bytes()
            .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
    if !is_sound {
        return Err(lying());
    }
    let facts = [
        ("account", account.as_str()),
        ("partition", arn_partition),
        ("role", role),
        ("session", session),
        ("principal_id", principal_id),
        ("region", region),
    ];
    Ok(facts
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect())
}

fn advice(code: &str) -> &'static str {
    match code {
        "SignatureDoesNotMatch"
        | "InvalidSignature"
        | "InvalidSignatureException"
        | "IncompleteSignature" => {
            "; it was not made over this request: by another version, or changed on its way"
        }
        "ExpiredToken" | "ExpiredTokenException" => "; the role's session has ended",
        "InvalidClientTokenId" | "UnrecognizedClientException" => {
            "; the credentials are unknown there: does the role exist, and is the region's STS active in its account?"
        }
        _ => "",
    }
}

fn invalid(why: &str) -> Denied {
    Denied::new(
        ErrorCode::InvalidEvidence,
        format!("aws-caller-identity: {why}"),
    )
}

#[cfg(test)]
mod tests;
