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
    identity::{TrustBundle, X509Svid},
    jwt::SigningKey,
};

use super::{
    Settings, Status, clock, csr,
    metrics::Metrics,
    publisher::{MAX_SLEEP, Publisher},
    rotation::{self, Failure},
    vault::{Attested, Vault},
};
use crate::{
    attest::{
        Client, ClientError, Credentials, MintedJwt, bearer,
        wire::{ErrorCode, Evidence},
    },
    config::agent::Attestation,
    telemetry::timestamp::Timestamp,
};

/// The bundle is asked for at least this often, whatever its hint says.
const MAX_POLL: Duration = Duration::from_secs(3600);
/// And at most this often.
const MIN_POLL: Duration = Duration::from_secs(1);

/// What the task and its handles share.
#[derive(Debug)]
pub(super) struct Shared {
    client: Client,
    /// Proves every request of this lineage; never leaves the agent.
    renewal_key: SigningKey,
    /// The current attestation record.
    record: Mutex<Option<String>>,
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
            status: watch::Sender::new(Status::default()),
            wake: Notify::new(),
            warned_of_skew: AtomicBool::new(false),
        }
    }

    pub(super) async fn mint_jwt(&self, audience: &str) -> Result<MintedJwt, ClientError> {
        let record = lock(&self.record).clone().ok_or_else(|| {
            let why = self.status.borrow().last_error.clone();
            let why = why
                .as_deref()
                .unwrap_or("the first attestation is under way");
            ClientError::Local(format!("this agent has no identity yet: {why}"))
        })?;
        self.client
            .jwt_svid(&record, audience, &self.renewal_key)
            .await
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
    attestation: Attestation,
    vault: Arc<Vault>,
    attested: Option<Attested>,
    metrics: Metrics,
    failures: u32,
    /// By the wall clock, as certificates are.
    renew_at: Option<SystemTime>,
    /// After a failure; by the monotonic clock, so that a corrected clock does not delay it.
    retry_at: Option<Instant>,
    poll_at: Option<Instant>,
    etag: Option<HeaderValue>,
}

impl Task {
    pub(super) fn new(
        settings: &Settings,
        shared: Arc<Shared>,
        publisher: Publisher,
        vault: Vault,
        attested: Option<Attested>,
        metrics: Metrics,
    ) -> Self {
        if let Some(attested) = &attested {
            shared.client.trust(&attested.bundle);
        }
        Self {
            shared,
            publisher,
            attestation: settings.attestation.clone(),
            vault: Arc::new(vault),
            attested,
            metrics,
            failures: 0,
            renew_at: None,
            retry_at: Some(Instant::now()),
            poll_at: None,
            etag: None,
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
        self.failures = self.failures.saturating_add(1);
        self.metrics.attempted(if why.is_refusal() {
            "refused"
        } else {
            "failed"
        });
        let identity = self.publisher.current();
        let remaining = identity.map(|identity| {
            let left = identity.svid.not_after().duration_since(SystemTime::now());
            left.unwrap_or_default()
        });
        let failure = Failure {
            count: self.failures,
            refused: why.is_refusal() || matches!(why, ClientError::Clock { .. }),
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
        });
    }

    /// Renews while the attestation record holds, attests where there is none (any more).
    async fn obtain(&mut self) -> Result<(), ClientError> {
        let (key, csr) = csr::make()?;
        let shared = Arc::clone(&self.shared);
        if let Some(attested) = &self.attested {
            match shared
                .client
                .renew(&attested.record, &csr, &shared.renewal_key)
                .await
            {
                Ok(credentials) => return self.accept(credentials, key).await,
                Err(why)
                    if matches!(
                        why.refusal(),
                        Some(ErrorCode::InvalidRecord | ErrorCode::InvalidProof)
                    ) =>
                {
                    // Once, not at every attempt: what comes of attesting is told anyway.
                    if self.failures == 0 {
                        tracing::warn!(%why, "the attestation record renews nothing any more; attesting anew");
                    }
                }
                Err(why) => return Err(why),
            }
        }
        let evidence = self.evidence().await?;
        let credentials = shared
            .client
            .attest(&bearer(evidence), None, &csr, &shared.renewal_key)
            .await
            .map_err(|why| self.name_evidence(why))?;
        self.accept(credentials, key).await
    }

    /// Read anew each time: whoever replaces a spent token need not restart the agent.
    async fn evidence(&self) -> Result<Evidence, ClientError> {
        match self.attestation.clone() {
            Attestation::JoinToken { token } => {
                let read = tokio::task::spawn_blocking(move || token.read()).await;
                let token = read
                    .map_err(|why| ClientError::Local(format!("reading the join token: {why}")))?
                    .map_err(|why| {
                        ClientError::Local(format!(
                            "attestation.join-token.token: {why}; write a token there \
                             (`warifu authority join-token` makes one)"
                        ))
                    })?;
                Ok(Evidence::JoinToken { token })
            }
            Attestation::AwsWebIdentity
            | Attestation::AwsCallerIdentity
            | Attestation::Kubernetes { .. }
            | Attestation::Oidc { .. } => Err(ClientError::Local(
                "this attestation is not built yet".into(),
            )),
        }
    }

    /// Says which evidence was refused: the authority doesn't know where it came from.
    fn name_evidence(&self, why: ClientError) -> ClientError {
        match (why, &self.attestation) {
            (
                ClientError::Refused {
                    authority,
                    code: code @ ErrorCode::InvalidEvidence,
                    message,
                },
                Attestation::JoinToken { token },
            ) => ClientError::Refused {
                authority,
                code,
                message: format!("{message} (this one was read from {token})"),
            },
            (why, _) => why,
        }
    }

    /// Checks what was granted, keeps it, publishes it.
    async fn accept(
        &mut self,
        credentials: Credentials,
        key: rustls_pki_types::PrivatePkcs8KeyDer<'static>,
    ) -> Result<(), ClientError> {
        // First of all: the join token is spent, and this record is what is left of it.
        self.keep(Attested {
            record: credentials.record,
            expires_at: credentials.record_expires_at,
            bundle: credentials.bundle.clone(),
        })
        .await;
        let svid = X509Svid::new(credentials.chain, key).map_err(|why| ClientError::Broken {
            authority: self.shared.client.authority().to_owned(),
            why: format!("what it issued is not an X.509-SVID of ours: {why}"),
        })?;
        if !svid.id().is_member_of(&credentials.bundle.trust_domain) {
            return Err(ClientError::Broken {
                authority: self.shared.client.authority().to_owned(),
                why: format!("it issued {}, of another trust domain", svid.id()),
            });
        }
        let now = SystemTime::now();
        let is_first = self.publisher.current().is_none();
        clock::check(&svid, now, self.shared.client.skew(), is_first)?;
        let renew_at =
            rotation::renew_at(now, svid.not_before(), svid.not_after(), rotation::random());
        tracing::info!(
            spiffe_id = %svid.id(),
            not_after = %Timestamp(svid.not_after()),
            renewal = %Timestamp(renew_at),
            attested_until = %Timestamp(credentials.record_expires_at),
            "X.509-SVID issued"
        );
        self.renew_at = Some(renew_at);
        self.plan_poll(credentials.bundle.refresh_hint);
        self.publisher.publish(svid, credentials.bundle);
        Ok(())
    }

    /// Follows the bundle between renewals.
    async fn poll(&mut self) {
        self.poll_at = None;
        let Some(identity) = self.publisher.current() else {
            return;
        };
        let mut hint = identity.bundle.refresh_hint;
        match self.shared.client.bundle(self.etag.as_ref()).await {
            Ok(None) => {}
            Ok(Some((bundle, etag))) => {
                hint = bundle.refresh_hint;
                self.etag = etag;
                self.follow(&identity.svid, &identity.bundle, bundle).await;
            }
            // Not a failure of the identity: the next renewal brings the bundle along, too.
            Err(why) => tracing::debug!(%why, "the trust bundle could not be refreshed"),
        }
        self.plan_poll(hint);
    }

    async fn follow(&mut self, svid: &X509Svid, known: &TrustBundle, bundle: TrustBundle) {
        if bundle.sequence < known.sequence {
            tracing::debug!(
                known = known.sequence,
                offered = bundle.sequence,
                "ignoring an older trust bundle, from a replica that is behind"
            );
            return;
        }
        if bundle.to_json() == known.to_json() {
            return;
        }
        let again = X509Svid::new(svid.chain().to_vec(), svid.key().clone_key());
        let Ok(svid) = again else { return };
        tracing::info!(sequence = bundle.sequence, "the trust bundle changed");
        if let Some(mut attested) = self.attested.clone() {
            attested.bundle = bundle.clone();
            self.keep(attested).await;
        }
        self.publisher.publish(svid, bundle);
    }

    async fn keep(&mut self, attested: Attested) {
        self.shared.client.trust(&attested.bundle);
        *lock(&self.shared.record) = Some(attested.record.clone());
        let until = Some(attested.expires_at);
        let status = &self.shared.status;
        status.send_modify(|status| status.attested_until = until);
        self.attested = Some(attested.clone());
        let vault = Arc::clone(&self.vault);
        // Syncing a file may block for long.
        let _ = tokio::task::spawn_blocking(move || vault.keep(&attested)).await;
    }

    fn plan_poll(&mut self, hint: Duration) {
        let wait = hint.clamp(MIN_POLL, MAX_POLL);
        self.poll_at = Some(Instant::now() + rotation::jittered(wait, rotation::random()));
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
