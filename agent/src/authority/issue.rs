//! Issuing: every decision, from challenge to audit line. Time is handed in.

use std::{sync::Arc, time::SystemTime};

use arc_swap::ArcSwap;
use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rcgen::{PublicKeyData, SubjectPublicKeyInfo};
use warifu::{
    TrustDomain,
    jwt::{Algorithm, PublicJwk},
};

use super::{
    admin::Administrators,
    attestors::{Attestors, Presented, Proven, SingleUse},
    audit::{self, Line, Who},
    ca::{self, Leaf, Wanted},
    challenge,
    denied::Denied,
    federation::Federation,
    join_token::{self, Unusable},
    keyring::Keyring,
    keys,
    limits::PerAccount,
    live::Live,
    metrics::Metrics,
    record::{Record, unix},
    revocation::Revoked,
    rules::{Facts, Grant, Grants, Rules},
    settings::Settings,
    state::{Claim, Claimed, Store},
};
use crate::{
    attest::{
        proof,
        wire::{self, Base64, ErrorCode},
    },
    revocation::{Origin, Provenance},
    telemetry::{audit::Audit, timestamp::Timestamp},
};

pub(super) mod tokens;

/// What issuing needs; shared by the front door, administration and maintenance.
#[derive(Debug)]
pub(super) struct Issuing {
    pub(super) settings: Settings,
    pub(super) attestors: Attestors,
    pub(super) rules: Rules,
    pub(super) administrators: Administrators,
    pub(super) limits: PerAccount,
    pub(super) keyring: Keyring,
    pub(super) store: Arc<dyn Store>,
    pub(super) live: ArcSwap<Live>,
    pub(super) federation: Federation,
    pub(super) revoked: ArcSwap<Revoked>,
    pub(super) audit: Audit,
    pub(super) metrics: Metrics,
}

/// One request: when and from where.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) now: SystemTime,
    pub(super) remote: &'a str,
}

impl Issuing {
    pub(super) fn challenge(&self, now: SystemTime) -> Result<wire::Challenge, Denied> {
        let live = self.live.load();
        let challenge = challenge::make(&live.challenge_keys, self.trust_domain(), now)
            .map_err(|why| Denied::failed("making a challenge", &why))?;
        Ok(wire::Challenge {
            challenge,
            expires_in: challenge::LIFE.as_secs(),
            time: unix(now),
        })
    }

    pub(super) async fn attest(
        &self,
        asked: Asked<'_>,
        request: wire::AttestRequest,
    ) -> Result<wire::Issued, Denied> {
        let mut who = Who::default();
        let result = self.try_attest(asked, request, &mut who).await;
        self.decided("attest", asked, who, result).await
    }

    pub(super) async fn renew(
        &self,
        asked: Asked<'_>,
        request: &wire::RenewRequest,
    ) -> Result<wire::Issued, Denied> {
        let mut who = Who::default();
        let result = self.try_renew(asked.now, request, &mut who).await;
        self.decided("renew", asked, who, result).await
    }

    pub(super) fn trust_domain(&self) -> &TrustDomain {
        &self.settings.trust_domain
    }

    async fn try_attest(
        &self,
        asked: Asked<'_>,
        request: wire::AttestRequest,
        who: &mut Who,
    ) -> Result<(wire::Issued, audit::Issued), Denied> {
        let (now, challenge) = (asked.now, &request.challenge);
        let transcript = |thumbprint: &str| {
            proof::attest(
                self.trust_domain(),
                challenge,
                &request.csr.0,
                thumbprint,
                &request.evidence,
                request.record.as_deref(),
            )
        };
        let renewal_key = request.renewal_key;
        let renewal_key = self.prover(now, challenge, renewal_key, &request.proof, transcript)?;
        let subject_key = subject_key(&request.csr, &renewal_key)?;

        let presented = Presented {
            evidence: &request.evidence,
            renewal_key: &renewal_key,
            challenge: &request.challenge,
            remote: asked.remote,
            now,
        };
        let record = request.record.as_deref();
        let (record, grants) = self.prove(presented, record, who, |_| Ok(())).await?;
        self.certify(&record, &grants, (&subject_key, &request.csr), now)
            .await
    }

    /// What evidence entitles to, and the record of it. Evidence that is good once is spent last: what
    /// would not be granted must not cost it. `is_granted` says whether what is asked for would be.
    async fn prove(
        &self,
        presented: Presented<'_>,
        record: Option<&str>,
        who: &mut Who,
        is_granted: impl FnOnce(&Grant) -> Result<(), Denied>,
    ) -> Result<(Record, Grants), Denied> {
        let Presented {
            renewal_key, now, ..
        } = presented;
        let proven = self.attestors.prove(presented, &*self.store).await?;
        let lineage = match &proven.lineage {
            Some(lineage) => lineage.clone(),
            None => match self.lineage_of(record, &proven, renewal_key, now) {
                Some(lineage) => lineage,
                None => new_lineage()?,
            },
        };
        *who = Who {
            attestor: Some(proven.attestor.clone()),
            facts: Some(proven.facts.clone()),
            lineage: Some(lineage.clone()),
        };
        self.take_of_account(&proven.attestor, &proven.facts, now)?;
        let grants = self.entitled(&proven.attestor, &proven.facts, &lineage)?;
        is_granted(&grants.first)?;
        if let Some(single_use) = proven.single_use {
            self.spend(single_use, renewal_key.thumbprint(), now)
                .await?;
        }
        let record = Record {
            lineage,
            attestor: proven.attestor,
            facts: proven.facts,
            attested_at: now,
            expires_at: now + self.settings.max_attestation_age,
            renewal_key: renewal_key.clone(),
        };
        Ok((record, grants))
    }

    async fn try_renew(
        &self,
        now: SystemTime,
        request: &wire::RenewRequest,
        who: &mut Who,
    ) -> Result<(wire::Issued, audit::Issued), Denied> {
        let (challenge, record) = (&request.challenge, &request.record);
        let transcript = proof::renew(self.trust_domain(), challenge, &request.csr.0, record);
        let record = self.held(now, challenge, record, &request.proof, &transcript, who)?;
        let subject_key = subject_key(&request.csr, &record.renewal_key)?;
        let grants = self.entitled(&record.attestor, &record.facts, &record.lineage)?;
        self.certify(&record, &grants, (&subject_key, &request.csr), now)
            .await
    }

    /// Writes the audit line, and only then lets go of what was issued.
    async fn decided<T>(
        &self,
        event: &'static str,
        asked: Asked<'_>,
        who: Who,
        result: Result<(T, audit::Issued), Denied>,
    ) -> Result<T, Denied> {
        let time = Timestamp(asked.now);
        match result {
            Ok((granted, issued)) => {
                let line = Line::issued(event, time, asked.remote, who, issued);
                if let Err(why) = self.audit.write_and_wait(&line).await {
                    self.metrics
                        .decided(event, &ErrorCode::Unavailable.to_string());
                    return Err(Denied::failed("writing the audit log", &why));
                }
                self.metrics.decided(event, "issued");
                Ok(granted)
            }
            Err(why) => {
                self.metrics.decided(event, &why.code.to_string());
                let line = Line::refused(event, time, asked.remote, who, &why);
                self.audit.write(&line);
                Err(why)
            }
        }
    }

    /// One attestation of those its account may have.
    pub(super) fn take_of_account(
        &self,
        attestor: &str,
        facts: &Facts,
        now: SystemTime,
    ) -> Result<(), Denied> {
        let taken = self.limits.take(attestor, facts, now);
        taken.map_err(|wait| Denied::too_many(attestor, wait))
    }

    /// The renewal key of a request with evidence, once it is shown that it signed the request's `transcript`, which
    /// is made of its thumbprint, and lately.
    pub(super) fn prover(
        &self,
        now: SystemTime,
        challenge: &str,
        renewal_key: serde_json::Value,
        proof: &Base64,
        transcript: impl FnOnce(&str) -> Vec<u8>,
    ) -> Result<PublicJwk, Denied> {
        self.check_challenge(challenge, now)?;
        let key = self::renewal_key(renewal_key)?;
        check_proof(&key, &transcript(&key.thumbprint()), proof)?;
        Ok(key)
    }

    /// The record of a request without evidence, once it is shown that the key it is bound to signed the request's
    /// `transcript`, and lately.
    fn held(
        &self,
        now: SystemTime,
        challenge: &str,
        record: &str,
        proof: &Base64,
        transcript: &[u8],
        who: &mut Who,
    ) -> Result<Record, Denied> {
        self.check_challenge(challenge, now)?;
        let record = self.record(record, now, who)?;
        check_proof(&record.renewal_key, transcript, proof)?;
        Ok(record)
    }

    fn check_challenge(&self, challenge: &str, now: SystemTime) -> Result<(), Denied> {
        let live = self.live.load();
        if challenge::is_good(&live.challenge_keys, self.trust_domain(), challenge, now) {
            return Ok(());
        }
        Err(Denied::new(
            ErrorCode::InvalidChallenge,
            format!(
                "challenge: not one of this authority's, or older than {:?}; ask {} for another",
                challenge::LIFE,
                wire::CHALLENGE
            ),
        ))
    }

    /// The record behind a request, if it (still) holds.
    fn record(&self, record: &str, now: SystemTime, who: &mut Who) -> Result<Record, Denied> {
        let live = self.live.load();
        let invalid = |why: String| {
            Denied::new(
                ErrorCode::InvalidRecord,
                format!("record: {why}; attest again, with evidence"),
            )
        };
        let mut record = Record::verify(record, &live.record_keys, self.trust_domain(), now)
            .map_err(|why| invalid(why.to_string()))?;
        *who = Who {
            attestor: Some(record.attestor.clone()),
            facts: Some(record.facts.clone()),
            lineage: Some(record.lineage.clone()),
        };
        // The configuration of today counts, where it grants less than that of the day it was signed.
        let end = record.attested_at + self.settings.max_attestation_age;
        record.expires_at = record.expires_at.min(end);
        if record.expires_at <= now {
            return Err(invalid("older than `max_attestation_age`".into()));
        }
        if !self.attestors.has(&record.attestor) {
            let why = format!("attestor {:?} is not configured any more", record.attestor);
            return Err(invalid(why));
        }
        Ok(record)
    }

    /// The lineage that goes on: `record` holds, the same key holds it, and what the same attestor proved then
    /// is the same to the rules. Anything else begins a new one; it is no reason to refuse what was proved now.
    pub(super) fn lineage_of(
        &self,
        record: Option<&str>,
        proven: &Proven,
        renewal_key: &PublicJwk,
        now: SystemTime,
    ) -> Option<String> {
        let record = self.record(record?, now, &mut Who::default()).ok()?;
        let same = record.renewal_key == *renewal_key
            && record.attestor == proven.attestor
            && self
                .rules
                .same(&proven.attestor, &proven.facts, &record.facts);
        same.then_some(record.lineage)
    }

    /// What the rules grant to `facts`, if nothing of it is revoked. A further identity that is revoked is left out:
    /// the workload has the others yet.
    pub(super) fn entitled(
        &self,
        attestor: &str,
        facts: &Facts,
        lineage: &str,
    ) -> Result<Grants, Denied> {
        let mut grants = self.rules.decide(attestor, facts)?;
        self.refuse_revoked(&self.provenance(&grants.first, attestor, facts, Some(lineage)))?;
        grants.further.retain(|grant| {
            let id = grant.spiffe_id.to_string();
            self.refuse_revoked_id(&id).is_ok()
        });
        Ok(grants)
    }

    /// Refuses a SPIFFE ID that is revoked as such.
    pub(super) fn refuse_revoked_id(&self, spiffe_id: &str) -> Result<(), Denied> {
        self.refuse_revoked(&Provenance {
            spiffe_id: Some(spiffe_id.into()),
            ..Provenance::default()
        })
    }

    /// What a grant goes back to, as revocation sees it.
    pub(super) fn provenance(
        &self,
        grant: &Grant,
        attestor: &str,
        facts: &Facts,
        lineage: Option<&str>,
    ) -> Provenance {
        let role = self.attestors.role(attestor, facts);
        Provenance {
            spiffe_id: Some(grant.spiffe_id.to_string().into()),
            lineage: lineage.map(Into::into),
            role: role.map(|role| Origin::hash_of_role(&role).into()),
            ..Provenance::default()
        }
    }

    /// Gives evidence that may be used once to the renewal key with `thumbprint` (S15).
    pub(super) async fn spend(
        &self,
        single_use: SingleUse,
        thumbprint: String,
        now: SystemTime,
    ) -> Result<(), Denied> {
        let (id, until) = match single_use {
            SingleUse::JoinToken { hash, until } => (hash, until),
            SingleUse::Token { id, until } => (id, until),
        };
        let claim = Claim {
            id,
            holder: thumbprint,
            until,
        };
        match (self.store.claim(claim, now).await?, single_use) {
            (Claimed::Yours, _) => Ok(()),
            (Claimed::Another, SingleUse::JoinToken { .. }) => {
                Err(join_token::denied(Unusable::Used))
            }
            (Claimed::Another, SingleUse::Token { .. }) => Err(Denied::new(
                ErrorCode::InvalidEvidence,
                "this token was used by another agent already; get a new one from its issuer",
            )),
        }
    }

    async fn certify(
        &self,
        record: &Record,
        grants: &Grants,
        (subject_key, csr): (&SubjectPublicKeyInfo, &Base64),
        now: SystemTime,
    ) -> Result<(wire::Issued, audit::Issued), Denied> {
        let live = self.live.load_full();
        let origin = self.origin(record)?;
        let sign = async |grant: &Grant| {
            let wanted = Wanted {
                key: subject_key,
                csr: &csr.0,
                id: &grant.spiffe_id,
                dns: &grant.dns,
                origin: Some(&origin),
                ttl: grant.ttl,
            };
            let leaf = live.signer.leaf(wanted, now).await;
            leaf.map_err(|why| Denied::failed("signing a certificate", &why))
        };
        let chain = |leaf: &Leaf| {
            let chain = std::iter::once(&leaf.certificate).chain(&leaf.above);
            chain.map(|der| Base64(der.to_vec())).collect()
        };
        let first = sign(&grants.first).await?;
        let mut audit = audit::Issued {
            rule: grants.first.rule,
            spiffe_id: grants.first.spiffe_id.to_string(),
            serial: Some(first.serial.clone()),
            jti: None,
            audiences: vec![],
            further: vec![],
            expires_at: Timestamp(first.not_after),
        };
        // A certificate for each, of one key: docs/adr/0015.
        let mut further = Vec::with_capacity(grants.further.len());
        for grant in &grants.further {
            let leaf = sign(grant).await?;
            let spiffe_id = grant.spiffe_id.to_string();
            further.push(wire::Further {
                spiffe_id: spiffe_id.clone(),
                hint: grant.hint.clone(),
                chain: chain(&leaf),
            });
            audit.further.push(audit::Further {
                spiffe_id,
                serial: leaf.serial,
                expires_at: Timestamp(leaf.not_after),
            });
        }
        let issued = wire::Issued {
            spiffe_id: audit.spiffe_id.clone(),
            chain: chain(&first),
            further,
            bundle: live.bundle_text.clone(),
            record: record.sign(&live.record_key, self.trust_domain()),
            record_expires_at: unix(record.expires_at),
        };
        Ok((issued, audit))
    }

    /// What is issued on `record` goes back to, for whoever has a revocation list.
    fn origin(&self, record: &Record) -> Result<Origin, Denied> {
        let role = self.attestors.role(&record.attestor, &record.facts);
        Origin::new(&record.lineage, role.as_deref())
            .map_err(|why| Denied::failed("naming the lineage", &why))
    }
}

/// The renewal key of a request. It goes by its thumbprint: a `kid` of the agent's is not kept.
fn renewal_key(mut jwk: serde_json::Value) -> Result<PublicJwk, Denied> {
    if let Some(members) = jwk.as_object_mut() {
        members.remove("kid");
    }
    PublicJwk::from_json(&jwk)
        .ok()
        .filter(|key| key.algorithm() == Algorithm::ES256)
        .ok_or_else(|| {
            Denied::new(
                ErrorCode::BadRequest,
                "renewal_key: expected a public P-256 JWK",
            )
        })
}

/// The key to certify. Not the renewal key, which never leaves the agent: this one is the workload's, and whoever
/// is given it must not be able to renew.
fn subject_key(csr: &Base64, renewal_key: &PublicJwk) -> Result<SubjectPublicKeyInfo, Denied> {
    let key = ca::public_key(&csr.0)?;
    let hash = digest(&SHA256, &key.subject_public_key_info());
    if hash.as_ref() == renewal_key.spki_sha256() {
        return Err(Denied::new(
            ErrorCode::InvalidCsr,
            "csr: its key is the renewal key; make a key for each certificate: the renewal key stays with the agent",
        ));
    }
    Ok(key)
}

fn check_proof(key: &PublicJwk, transcript: &[u8], proof: &Base64) -> Result<(), Denied> {
    if key.verify_raw(transcript, &proof.0) {
        return Ok(());
    }
    Err(Denied::new(
        ErrorCode::InvalidProof,
        "proof: not an ES256 signature by the renewal key over this request; only the agent that attested can renew",
    ))
}

/// The lineage of what evidence leads to that may be had again.
fn new_lineage() -> Result<String, Denied> {
    let random = keys::random::<16>().map_err(|why| Denied::failed("making a lineage", &why))?;
    Ok(URL_SAFE_NO_PAD.encode(random.expose()))
}
