//! The loop that obtains, renews and follows the bundle. It ends only with its handle.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use http::HeaderValue;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until},
};
use warifu::{
    SpiffeId,
    identity::{Identity, TrustBundle},
    jwt::SigningKey,
};

use super::{
    Settings, Status,
    access_keys::{self, AccessKeys},
    clock, csr,
    evidence::Gatherer,
    issued::Issued,
    metrics::Metrics,
    publisher::{MAX_SLEEP, Publisher},
    revocations::{Follower, Revocations},
    rotation::{self, Failure},
    vault::{Attested, Vault},
};
use crate::{
    attest::{AccessToken, Client, ClientError, Credentials, MintedJwt, wire::ErrorCode},
    telemetry::timestamp::Timestamp,
};

/// The bundle is asked for at least this often, whatever its hint says.
const MAX_POLL: Duration = Duration::from_secs(3600);
/// And at most this often.
const MIN_POLL: Duration = Duration::from_secs(1);

/// Evidence takes a call to AWS at most, with the SDK's attempts and the renewal of its credentials.
const GATHER_TIMEOUT: Duration = Duration::from_secs(25);
/// Even an identity about to expire leaves the time of an answer.
const LEAST_GATHER_TIMEOUT: Duration = Duration::from_secs(1);

/// What the task and its handles share.
#[derive(Debug)]
pub(super) struct Shared {
    client: Client,
    /// Proves every request of this lineage; never leaves the agent.
    renewal_key: SigningKey,
    /// The current attestation record.
    record: Mutex<Option<String>>,
    access_keys: AccessKeys,
    status: watch::Sender<Status>,
    wake: Notify,
    warned_of_skew: AtomicBool,
}

impl Shared {
    pub(super) fn new(client: Client, renewal_key: SigningKey) -> Self {
        Self {
            client,
            renewal_key,
            record: Mutex::new(None),
            access_keys: AccessKeys::default(),
            status: watch::Sender::new(Status::default()),
            wake: Notify::new(),
            warned_of_skew: AtomicBool::new(false),
        }
    }

    pub(super) async fn mint_jwt(
        &self,
        audiences: &[String],
        spiffe_id: Option<&SpiffeId>,
    ) -> Result<MintedJwt, ClientError> {
        let (record, key) = (self.record()?, &self.renewal_key);
        let id = spiffe_id.map(SpiffeId::to_string);
        let minting = self.client.jwt_svid(&record, audiences, id.as_deref(), key);
        minting.await
    }

    pub(super) async fn mint_access_token(
        &self,
        audience: &str,
        scopes: &[String],
    ) -> Result<AccessToken, ClientError> {
        let (record, key) = (self.record()?, &self.renewal_key);
        let client = &self.client;
        client.access_token(&record, audience, scopes, key).await
    }

    fn record(&self) -> Result<String, ClientError> {
        lock(&self.record).clone().ok_or_else(|| {
            let why = self.status.borrow().last_error.clone();
            let why = why
                .as_deref()
                .unwrap_or("the first attestation is under way");
            ClientError::Local(format!("this agent has no identity yet: {why}"))
        })
    }

    pub(super) fn access_keys(&self) -> &AccessKeys {
        &self.access_keys
    }

    pub(super) fn renew_now(&self) {
        self.wake.notify_one();
    }

    pub(super) fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }
}

/// The task's own state.
#[derive(Debug)]
pub(super) struct Task {
    shared: Arc<Shared>,
    publisher: Publisher,
    evidence: Gatherer,
    vault: Arc<Vault>,
    attested: Option<Attested>,
    metrics: Metrics,
    failures: u32,
    /// By the wall clock, as certificates are.
    renew_at: Option<SystemTime>,
    /// After a failure; by the monotonic clock, so that a corrected clock does not delay it.
    retry_at: Option<Instant>,
    poll_at: Option<Instant>,
    /// Of the bundles that were had last.
    etag: Option<HeaderValue>,
    /// Those of other trust domains.
    federated: Arc<[TrustBundle]>,
    revocations: Revocations,
    follower: Follower,
    access_keys: access_keys::Follower,
}

impl Task {
    pub(super) fn new(
        settings: &Settings,
        shared: Arc<Shared>,
        publisher: Publisher,
        revocations: Revocations,
        vault: Vault,
        attested: Option<Attested>,
        metrics: Metrics,
    ) -> Self {
        if let Some(attested) = &attested {
            shared.client.trust(&attested.bundle);
            metrics.attested(attested.expires_at);
            let until = Some(attested.expires_at);
            shared
                .status
                .send_modify(|status| status.attested_until = until);
        }
        let vault = Arc::new(vault);
        let follower = Follower::new(revocations.clone(), Arc::clone(&vault), &shared.client);
        let access_keys =
            access_keys::Follower::new(shared.access_keys.clone(), Arc::clone(&vault));
        Self {
            shared,
            publisher,
            evidence: Gatherer::new(
                settings.attestation.clone(),
                settings.trust_domain.clone(),
                settings.aws.clone(),
            ),
            vault,
            attested,
            metrics,
            failures: 0,
            renew_at: None,
            retry_at: Some(Instant::now()),
            poll_at: None,
            etag: None,
            federated: Arc::default(),
            revocations,
            follower,
            access_keys,
        }
    }

    pub(super) async fn run(mut self) {
        loop {
            let asked = tokio::select! {
                () = self.shared.wake.notified() => true,
                () = sleep_until(self.next()) => false,
            };
            let now = Instant::now();
            if asked
                || self.retry_at.is_some_and(|at| at <= now)
                || self.renew_at.is_some_and(|at| at <= SystemTime::now())
            {
                self.attempt().await;
            } else if self.poll_at.is_some_and(|at| at <= now) {
                self.poll().await;
            }
        }
    }

    /// When something is due, or the clock should be looked at again.
    fn next(&self) -> Instant {
        let now = Instant::now();
        let renew_at = self
            .renew_at
            .map(|at| now + at.duration_since(SystemTime::now()).unwrap_or_default());
        [self.retry_at, self.poll_at, renew_at]
            .into_iter()
            .flatten()
            .fold(now + MAX_SLEEP, Instant::min)
    }

    /// Obtains or renews once, and plans what comes next.
    async fn attempt(&mut self) {
        self.retry_at = None;
        match self.obtain().await {
            Ok(()) => {
                self.failures = 0;
                self.publisher.succeeded();
                self.metrics.attempted("issued");
                self.shared.status.send_modify(|status| {
                    status.last_error = None;
                    status.failures = 0;
                    status.refused = false;
                });
                self.warn_of_skew();
            }
            Err(why) => self.failed(&why),
        }
        let next_attempt = self.renew_at.or_else(|| {
            let wait = self.retry_at?.saturating_duration_since(Instant::now());
            Some(SystemTime::now() + wait)
        });
        let status = &self.shared.status;
        status.send_modify(|status| status.next_attempt = next_attempt);
    }

    /// Notes a failure and plans the next attempt. What is published stays (S13).
    fn failed(&mut self, why: &ClientError) {
        let refused = why.denies_an_identity();
        self.failures = self.failures.saturating_add(1);
        self.metrics.attempted(if why.is_refusal() {
            "refused"
        } else {
            "failed"
        });
        let identity = self.publisher.current();
        let remaining = identity.map(|identity| {
            let left = identity.first_expiry().duration_since(SystemTime::now());
            left.unwrap_or_default()
        });
        let failure = Failure {
            count: self.failures,
            // What only a person changes, or what is asked of more than our own authority, can wait a little.
            refused: why.is_refusal()
                || matches!(why, ClientError::Clock { .. })
                || matches!(why, ClientError::NoEvidence(_)) && self.evidence.asks_aws(),
            retry_after: why.retry_after(),
        };
        let wait = rotation::retry_in(failure, remaining, rotation::random());
        self.renew_at = None;
        self.retry_at = Some(Instant::now() + wait);

        let why = match self.shared.client.skew() {
            Some(skew) if !matches!(why, ClientError::Clock { .. }) => format!("{why} ({skew})"),
            _ => why.to_string(),
        };
        self.publisher.failed(&why);
        // The same trouble every second is one line, not a flood.
        if self.shared.status.borrow().last_error.as_deref() != Some(&why) {
            tracing::warn!(%why, serving_the_last_identity = remaining.is_some(), "no new X.509-SVID; will keep trying");
        }
        self.shared.status.send_modify(|status| {
            status.last_error = Some(why);
            status.failures = self.failures;
            status.refused = refused;
        });
    }

    /// Attests, again and again where evidence can be had again; else renews while the attestation record holds.
    async fn obtain(&mut self) -> Result<(), ClientError> {
        let (key, csr) = csr::make()?;
        let (credentials, bridging) = match self.attested.clone() {
            Some(attested) if self.evidence.is_spent_once() => {
                (self.renew_or_attest(&attested, &csr).await?, None)
            }
            Some(attested) => self.attest_or_bridge(&attested, &csr).await?,
            None => (self.attest(None, &csr).await?, None),
        };
        self.accept(credentials, key).await?;
        self.note_bridging(bridging);
        Ok(())
    }

    /// For evidence that is spent: only where the record renews nothing any more may there be new evidence.
    async fn renew_or_attest(
        &self,
        attested: &Attested,
        csr: &[u8],
    ) -> Result<Credentials, ClientError> {
        match self.renew(attested, csr).await {
            Err(why)
                if matches!(
                    why.refusal(),
                    Some(ErrorCode::InvalidRecord | ErrorCode::InvalidProof | ErrorCode::Revoked)
                ) =>
            {
                // Once, not at every attempt: what comes of attesting is told anyway.
                if self.failures == 0 {
                    tracing::warn!(%why, "the attestation record renews nothing any more; attesting anew");
                }
                self.attest(None, csr).await
            }
            outcome => outcome,
        }
    }

    /// For evidence that can be had again: it decides, for and against. Only where there is no verdict the record
    /// renews, and the reason is returned, too. See docs/adr/0009.
    async fn attest_or_bridge(
        &self,
        attested: &Attested,
        csr: &[u8],
    ) -> Result<(Credentials, Option<String>), ClientError> {
        let why = match self.attest(Some(&attested.record), csr).await {
            Ok(credentials) => return Ok((credentials, None)),
            Err(why) if why.leaves_it_to_the_record() => why,
            // Perhaps it is only the lineage; whoever can still prove itself may start another.
            Err(why) if why.refusal() == Some(ErrorCode::Revoked) => {
                tracing::warn!(%why, "attesting anew, without the record");
                return Ok((self.attest(None, csr).await?, None));
            }
            Err(why) => return Err(why),
        };
        if attested.expires_at <= SystemTime::now() {
            return Err(why);
        }
        match self.renew(attested, csr).await {
            Ok(credentials) => Ok((credentials, Some(why.to_string()))),
            // The evidence is what somebody must see to.
            Err(record) if record.refusal() == Some(ErrorCode::InvalidRecord) => Err(why),
            Err(record) => Err(record),
        }
    }

    async fn attest(&self, record: Option<&str>, csr: &[u8]) -> Result<Credentials, ClientError> {
        let key = &self.shared.renewal_key;
        let gathering = self.evidence.gather(key.public(), self.patience());
        let evidence = gathering.await?;
        let client = &self.shared.client;
        let attesting = client.attest(&evidence, record, csr, key);
        attesting.await.map_err(|why| self.evidence.name(why))
    }

    async fn renew(&self, attested: &Attested, csr: &[u8]) -> Result<Credentials, ClientError> {
        let (client, key) = (&self.shared.client, &self.shared.renewal_key);
        client.renew(&attested.record, csr, key).await
    }

    /// How long evidence is waited for: what holds an identity up must leave time for the record to renew it.
    fn patience(&self) -> Duration {
        let identity = self.publisher.current();
        let left = identity.map(|identity| {
            let left = identity.svid.not_after().duration_since(SystemTime::now());
            left.unwrap_or_default() / 4
        });
        left.map_or(GATHER_TIMEOUT, |left| {
            left.clamp(LEAST_GATHER_TIMEOUT, GATHER_TIMEOUT)
        })
    }

    /// Tells when bridging begins and ends, and why, in one line each.
    fn note_bridging(&self, bridging: Option<String>) {
        let was = self.shared.status.borrow().bridging.clone();
        match (&was, &bridging) {
            (None, Some(why)) => tracing::warn!(
                why,
                attested_until = ?self.attested.as_ref().map(|it| Timestamp(it.expires_at).to_string()),
                "renewed with the attestation record, because no evidence could be presented"
            ),
            (Some(_), None) => tracing::info!("evidence is presented again"),
            _ => {}
        }
        if bridging.is_some() {
            self.metrics.attempted("bridged");
        }
        self.shared
            .status
            .send_modify(|status| status.bridging = bridging);
    }

    /// Checks what was granted, keeps it, publishes it.
    async fn accept(
        &mut self,
        credentials: Credentials,
        key: rustls_pki_types::PrivatePkcs8KeyDer<'static>,
    ) -> Result<(), ClientError> {
        let known = self.attested.as_ref().map(|it| &it.bundle);
        let bundle = newest(known, credentials.bundle);
        // First of all: the join token is spent, and this record is what is left of it.
        self.keep(Attested {
            record: credentials.record,
            expires_at: credentials.record_expires_at,
            bundle: bundle.clone(),
        })
        .await;
        let issued = Issued::new(credentials.chain, credentials.further, key, &bundle);
        let issued = issued.map_err(|why| ClientError::Broken {
            authority: self.shared.client.authority().to_owned(),
            why,
        })?;
        let now = SystemTime::now();
        let is_first = self.publisher.current().is_none();
        let Issued { svid, further } = &issued;
        clock::check(svid, now, self.shared.client.skew(), is_first)?;
        let renew_at = issued.renew_at(now, rotation::random());
        tracing::info!(
            spiffe_id = %svid.id(),
            further = further.len(),
            not_after = %Timestamp(svid.not_after()),
            renewal = %Timestamp(renew_at),
            attested_until = %Timestamp(credentials.record_expires_at),
            "X.509-SVID issued"
        );
        self.renew_at = Some(renew_at);
        // Before anybody is let in.
        self.follower.first(&self.shared.client, &bundle).await;
        let bundle = self.first_bundles(bundle).await;
        self.plan_poll(bundle.refresh_hint);
        let federated = Arc::clone(&self.federated);
        // What the authority had not heard of yet, when it issued.
        let further = self.follower.without_revoked(issued.further.into());
        self.publisher
            .publish(issued.svid, further, bundle, federated);
        // After the identity, which needs none of them.
        self.access_keys.first(&self.shared.client).await;
        Ok(())
    }

    /// Follows the bundle between renewals.
    async fn poll(&mut self) {
        self.poll_at = None;
        let Some(identity) = self.publisher.current() else {
            return;
        };
        let mut hint = identity.bundle.refresh_hint;
        match self.bundles().await {
            Ok(None) => {}
            Ok(Some(bundle)) => {
                hint = bundle.refresh_hint;
                self.follow(&identity, bundle).await;
            }
            // Not a failure of the identity: the next renewal brings the bundle along, too.
            Err(why) => tracing::debug!(%why, "the trust bundle could not be refreshed"),
        }
        self.access_keys.poll(&self.shared.client).await;
        // After the bundle, which has the key that signed the list.
        if let Some(identity) = self.publisher.current() {
            let client = &self.shared.client;
            self.follower.poll(client, &identity.bundle).await;
            if self.follower.is_issuer_revoked(&identity) {
                tracing::warn!("the key that signed this X.509-SVID is revoked; renewing at once");
                self.renew_at = Some(SystemTime::now());
            }
            let further = self.follower.without_revoked(Arc::clone(&identity.further));
            if further.len() < identity.further.len() {
                tracing::warn!("a further identity is revoked; it is not served any more");
                self.publisher.republish(&identity, further);
            }
        }
        self.plan_poll(hint);
    }

    /// The bundles of all trust domains, where they changed: keeps the others' and returns our own.
    async fn bundles(&mut self) -> Result<Option<TrustBundle>, ClientError> {
        let client = &self.shared.client;
        let Some((bundles, etag)) = client.bundles(self.etag.as_ref()).await? else {
            return Ok(None);
        };
        let (mut own, mut others): (Vec<_>, Vec<_>) = bundles
            .into_iter()
            .partition(|bundle| bundle.trust_domain == *client.trust_domain());
        let Some(own) = own.pop() else {
            return Err(ClientError::Broken {
                authority: client.authority().to_owned(),
                why: "its own trust bundle is not among those it publishes".to_owned(),
            });
        };
        others.sort_by(|a, b| a.trust_domain.cmp(&b.trust_domain));
        self.etag = etag;
        self.federated = others.into();
        Ok(Some(own))
    }

    /// With the first identity come the bundles of other trust domains, if they can be had: whoever asks for it is
    /// told of all at once. Returns the newer of our own.
    async fn first_bundles(&mut self, bundle: TrustBundle) -> TrustBundle {
        if self.etag.is_some() {
            return bundle;
        }
        match self.bundles().await {
            Ok(Some(own)) => newest(Some(&bundle), own),
            Ok(None) => bundle,
            Err(why) => {
                tracing::debug!(%why, "the bundles of other trust domains could not be had yet");
                bundle
            }
        }
    }

    /// Publishes what is new of the bundles.
    async fn follow(&mut self, identity: &Identity, bundle: TrustBundle) {
        let known = &identity.bundle;
        let bundle = match bundle.sequence < known.sequence {
            true => {
                tracing::debug!(
                    known = known.sequence,
                    offered = bundle.sequence,
                    "ignoring an older trust bundle, from a replica that is behind"
                );
                known.clone()
            }
            false => bundle,
        };
        let is_new = bundle.to_json() != known.to_json();
        if !is_new && same(&self.federated, &identity.federated) {
            return;
        }
        if is_new {
            tracing::info!(sequence = bundle.sequence, "the trust bundle changed");
            if let Some(mut attested) = self.attested.clone() {
                attested.bundle = bundle.clone();
                self.keep(attested).await;
            }
        } else {
            let others = self.federated.len();
            tracing::info!(others, "the bundles of other trust domains changed");
        }
        let (svid, further) = (identity.svid.clone(), Arc::clone(&identity.further));
        let federated = Arc::clone(&self.federated);
        self.publisher.publish(svid, further, bundle, federated);
    }

    async fn keep(&mut self, attested: Attested) {
        self.shared.client.trust(&attested.bundle);
        *lock(&self.shared.record) = Some(attested.record.clone());
        let until = Some(attested.expires_at);
        let status = &self.shared.status;
        status.send_modify(|status| status.attested_until = until);
        self.metrics.attested(attested.expires_at);
        self.attested = Some(attested.clone());
        let vault = Arc::clone(&self.vault);
        // Syncing a file may block for long.
        let _ = tokio::task::spawn_blocking(move || vault.keep(&attested)).await;
    }

    /// A poll that is planned already is not put off: renewals may come more often than polls, and bring no
    /// revocation list.
    fn plan_poll(&mut self, hint: Duration) {
        let wait = self.revocations.poll_in(hint).clamp(MIN_POLL, MAX_POLL);
        let at = Instant::now() + rotation::jittered(wait, rotation::random());
        self.poll_at = Some(self.poll_at.map_or(at, |planned| planned.min(at)));
    }

    /// Once each time the clocks part.
    fn warn_of_skew(&self) {
        let skew = self.shared.client.skew();
        let warned = self
            .shared
            .warned_of_skew
            .swap(skew.is_some(), Ordering::Relaxed);
        if let (Some(skew), false) = (skew, warned) {
            tracing::warn!("{skew}; certificates and tokens fail when clocks differ: correct it");
        }
    }
}

/// The bundle that came with a certificate, or the known one if that is newer: the replica that issued may be behind.
/// A bundle that has no root in common with the known one is no older one, but another CA's.
fn newest(known: Option<&TrustBundle>, offered: TrustBundle) -> TrustBundle {
    let Some(known) = known else {
        return offered;
    };
    let mut roots = known.x509_authorities.iter();
    let is_related = roots.any(|root| offered.x509_authorities.contains(root));
    if offered.sequence < known.sequence && is_related {
        tracing::debug!(
            known = known.sequence,
            offered = offered.sequence,
            "keeping the newer trust bundle: the replica that issued is behind"
        );
        return known.clone();
    }
    offered
}

/// Whether these are the same bundles, in the same order.
fn same(a: &[TrustBundle], b: &[TrustBundle]) -> bool {
    let mut both = a.iter().zip(b);
    a.len() == b.len()
        && both.all(|(a, b)| a.trust_domain == b.trust_domain && a.to_json() == b.to_json())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use rustls_pki_types::CertificateDer;
    use warifu::jwt::KeySet;

    use super::*;

    fn bundle(sequence: u64, roots: &[u8]) -> TrustBundle {
        TrustBundle {
            trust_domain: "example.org".parse().unwrap(),
            x509_authorities: roots
                .iter()
                .map(|root| CertificateDer::from(vec![*root]))
                .collect(),
            jwt_authorities: KeySet::default(),
            sequence,
            refresh_hint: Duration::from_secs(300),
        }
    }

    #[test]
    fn a_replica_that_is_behind_takes_no_root_away_and_another_ca_is_followed() {
        let known = bundle(7, &[1, 2]);
        let kept = |offered| newest(Some(&known), offered).sequence;
        assert_eq!(kept(bundle(6, &[1])), 7);
        assert_eq!(kept(bundle(8, &[2, 3])), 8);
        assert_eq!(kept(bundle(7, &[1, 2])), 7);
        assert_eq!(kept(bundle(1, &[9])), 1, "an authority that was made anew");
        assert_eq!(newest(None, bundle(1, &[9])).sequence, 1);
    }
}
