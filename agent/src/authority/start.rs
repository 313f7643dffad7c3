//! From a configuration to what issues: what is wrong with it is found first, then keys and state are
//! loaded, from wherever they are.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use aws_types::SdkConfig;
use prometheus_client::registry::Registry;
use thiserror::Error;

use super::{
    admin::Administrators,
    attestors::{AttestorError, Attestors},
    federation::{Federation, FederationError},
    issue::Issuing,
    keyring::Keyring,
    keys::{Kek, KeyError},
    limits,
    live::Live,
    maintain::{self, MaintainError},
    metrics::Metrics,
    revocation::{self, RevokeError, Revoked},
    rules::{RuleError, Rules},
    settings::{Settings, SettingsError},
    state::{Document, DynamoDb, Memory, Sqlite, Store, StoreError},
    web::CertificateError,
};
use crate::{
    aws::{self, SetupError},
    config::{
        AuthorityConfig,
        authority::{CaKey, State},
        private::{self, PrivateError},
    },
    http::server::BindError,
    telemetry::{audit::Audit, ready::Condition},
};

/// The database, in the directory of the keys.
pub(super) const STATE_FILE: &str = "state.db";
/// Pause before keys and state are looked for again while AWS is away; doubled each time, up to …
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// … this: the agents of a whole cluster may be waiting.
const LONGEST_RETRY: Duration = Duration::from_secs(10);

/// Why an authority could not start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// A socket.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A rule.
    #[error(transparent)]
    Rule(#[from] RuleError),
    /// A span.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// An attestor.
    #[error(transparent)]
    Attestor(#[from] AttestorError),
    /// The CA's directory.
    #[error("ca.path: {0}")]
    Directory(#[from] PrivateError),
    /// Key and state don't go together.
    #[error("{0}")]
    Combination(&'static str),
    /// Another trust domain.
    #[error(transparent)]
    Federation(#[from] FederationError),
    /// The certificate of the web listener.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The key-encryption key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Region or TLS, of key or state in AWS.
    #[error(transparent)]
    Aws(#[from] SetupError),
    /// The state store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is in it.
    #[error(transparent)]
    State(#[from] MaintainError),
    /// The revocation list in it.
    #[error(transparent)]
    Revocations(#[from] RevokeError),
}

/// Everything but the sockets and what is behind the network.
#[derive(Debug)]
pub(super) struct Prepared {
    config: AuthorityConfig,
    rules: Rules,
    settings: Settings,
    attestors: Attestors,
    federation: Federation,
    audit: Audit,
    metrics: Metrics,
    /// Where anything of it is in AWS.
    aws: Option<SdkConfig>,
}

impl Prepared {
    pub(super) async fn new(
        config: &AuthorityConfig,
        audit: Audit,
        registry: &mut Registry,
    ) -> Result<Self, StartError> {
        let rules = Rules::compile(
            &config.trust_domain,
            &config.rules,
            &config.attestors,
            &config.dns_names,
        )?;
        let settings = Settings::new(config, &rules)?;
        let metrics = Metrics::new(registry);
        let needs_aws = matches!(config.state, State::Dynamodb { .. })
            || matches!(config.ca.key, CaKey::AwsKms { .. } | CaKey::AcmPca { .. });
        Ok(Self {
            config: config.clone(),
            rules,
            settings,
            attestors: Attestors::new(&config.trust_domain, &config.attestors, &metrics)?,
            federation: Federation::new(&config.federation)?,
            audit,
            metrics,
            aws: match needs_aws {
                true => Some(aws::sdk(&config.aws, registry).await?),
                false => None,
            },
        })
    }

    /// The keys, the store and what they hold; tries again while AWS is away.
    pub(super) async fn load(self, condition: &Condition) -> Result<Issuing, StartError> {
        let mut pause = FIRST_RETRY;
        let mut trouble = None;
        loop {
            let why = match self.try_load(SystemTime::now()).await {
                Ok(loaded) => return Ok(self.issuing(loaded)),
                Err(why) if self.aws.is_some() && why.is_outage() => why.to_string(),
                Err(why) => return Err(why),
            };
            condition.unmet(&why);
            if trouble.as_ref() != Some(&why) {
                tracing::warn!(%why, "keys and state can't be loaded yet; will keep trying");
            }
            trouble = Some(why);
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_RETRY);
        }
    }

    pub(super) async fn try_load(&self, now: SystemTime) -> Result<Loaded, StartError> {
        let (keyring, store) = self.open().await?;
        self.with(keyring, store, now).await
    }

    /// One of those that share `store`.
    pub(super) async fn with(
        &self,
        keyring: Keyring,
        store: Arc<dyn Store>,
        now: SystemTime,
    ) -> Result<Loaded, StartError> {
        keyring.check().await?;
        let live = maintain::first(&*store, &self.settings, &keyring, now).await?;
        self.metrics.live(&live);
        self.federation.load(&*store).await?;
        let revoked = revocation::first(&*store, &live, &self.metrics, now).await?;
        Ok((keyring, store, live, revoked))
    }

    pub(super) fn issuing(self, (keyring, store, live, revoked): Loaded) -> Issuing {
        Issuing {
            settings: self.settings,
            attestors: self.attestors,
            limits: limits::PerAccount::new(self.config.attestations_per_second),
            rules: self.rules,
            administrators: Administrators::new(&self.config.administrators),
            keyring,
            store,
            live: ArcSwap::from_pointee(live),
            federation: self.federation,
            revoked: ArcSwap::from_pointee(revoked),
            audit: self.audit,
            metrics: self.metrics,
        }
    }

    /// The keys and the store, as configured.
    pub(super) async fn open(&self) -> Result<(Keyring, Arc<dyn Store>), StartError> {
        let key = &self.config.ca.key;
        let dir = key.dir();
        if let Some(dir) = dir {
            private::ensure_dir(dir)?;
        }
        let (store, there_is_state): (Arc<dyn Store>, _) = match (&self.config.state, dir) {
            (State::Sqlite, Some(dir)) => {
                let (store, there_is_state) = open_sqlite(dir).await?;
                (Arc::new(store), there_is_state)
            }
            (State::Dynamodb { table }, _) if !matches!(key, CaKey::Memory) => {
                let sdk = self.aws.as_ref();
                let sdk = sdk.ok_or(StartError::Combination("AWS is not set up"))?;
                let store = DynamoDb::open(sdk, table).await?;
                let there_is_state = store.load(Document::CaState).await?.is_some();
                (Arc::new(store), there_is_state)
            }
            (State::Memory, None) if matches!(key, CaKey::Memory) => {
                (Arc::new(Memory::default()), false)
            }
            (State::Memory, _) => {
                return Err(StartError::Combination(
                    "state is memory and the keys outlive the process: new roots at every start; expected \
                     state: sqlite, or dynamodb",
                ));
            }
            (_, _) if matches!(key, CaKey::Memory) => {
                return Err(StartError::Combination(
                    "ca.key is memory and the state outlives the process: state that no key opens after a \
                     restart; expected state: memory",
                ));
            }
            (_, _) => {
                return Err(StartError::Combination(
                    "state: sqlite lives in the directory of the keys, and there is none (ca.path); expected \
                     state: dynamodb",
                ));
            }
        };
        // Where replicas share the directory, whoever makes the key first, its key counts.
        let kek = dir
            .map(|dir| Kek::on_disk(dir, there_is_state))
            .transpose()?;
        let td = &self.config.trust_domain;
        let keyring = match (&self.aws, kek) {
            (Some(sdk), kek) => Keyring::aws(key, kek, sdk, td, &self.metrics)?,
            (None, Some(kek)) => Keyring::held(kek),
            (None, None) => Keyring::held(Kek::ephemeral()?),
        };
        Ok((keyring, store))
    }
}

/// What a start gets from elsewhere.
type Loaded = (Keyring, Arc<dyn Store>, Live, Revoked);

async fn open_sqlite(dir: &Path) -> Result<(Sqlite, bool), StartError> {
    let path = dir.join(STATE_FILE);
    // A start makes the database before the key, so a key without one is what was left of a CA: new
    // roots would be known to no agent.
    let lost = Kek::is_on_disk(dir);
    let opened = tokio::task::spawn_blocking(move || match lost {
        true => Sqlite::reopen(&path),
        false => Sqlite::open(&path).map(Some),
    });
    let opened = opened
        .await
        .map_err(|why| StoreError::Failed(why.to_string()))?;
    let store = opened?.ok_or(KeyError::StateMissing)?;
    let there_is_state = store.load(Document::CaState).await?.is_some();
    Ok((store, there_is_state))
}

impl StartError {
    /// Whether it may pass by itself.
    pub(super) fn is_outage(&self) -> bool {
        match self {
            Self::Key(why) => why.is_outage(),
            Self::State(why) => why.is_outage(),
            Self::Store(why) => why.is_outage(),
            Self::Revocations(why) => why.is_outage(),
            _ => false,
        }
    }
}
