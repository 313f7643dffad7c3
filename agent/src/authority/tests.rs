//! The authority as a whole: first by itself with time handed in, then over its sockets with real agents.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rcgen::{CertificateParams, KeyPair};
use warifu::{Secret, SpiffeId, TrustDomain, jwt::SigningKey};

use super::{
    attestors::Attestors,
    denied::Denied,
    issue::{Asked, Issuing},
    keyring::Keyring,
    keys::Kek,
    rules::Rules,
    start::STATE_FILE,
    state::{Document, Sqlite, Store, StoreError},
    *,
};
use crate::{
    attest::{
        proof,
        wire::{self, Base64, ErrorCode, Evidence},
    },
    config::{
        agent::AuthorityRef,
        authority::{Attestor, Ca, CaKey, Rule, State, Tokens},
        aws::Aws,
        private,
        value::{HttpsOrigin, Span},
    },
    telemetry::{audit::Lines, metrics},
};

mod agents;
mod federation;
mod front_door;
mod identities;
mod in_kms;
mod issuing;
mod lines;
mod revocations;
mod rotations;
mod tokens;
mod web;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
const MINUTE: Duration = Duration::from_secs(60);

fn td() -> TrustDomain {
    TrustDomain::new("example.org").unwrap()
}

/// A memory CA for `orders` and `payments`, administered in `dir`.
fn config(dir: &Path) -> AuthorityConfig {
    let span = |span| Span(span);
    AuthorityConfig {
        trust_domain: td(),
        listen: ([127, 0, 0, 1], 0).into(),
        admin: Listen::Unix(dir.join("authority.sock")),
        ca: Ca {
            key: CaKey::Memory,
            root_ttl: span(DAY * 30),
            intermediate_ttl: span(HOUR * 2),
            publish_ahead: span(HOUR),
        },
        attestors: BTreeMap::from([("join".to_owned(), Attestor::JoinToken)]),
        rules: vec![Rule {
            attestor: "join".into(),
            r#match: BTreeMap::from([("service".to_owned(), "*".parse().unwrap())]),
            id: "/{service}".parse().unwrap(),
            also: vec![],
            ttl: span(HOUR),
            jwt_ttl: span(MINUTE * 5),
            dns: vec!["{service}.internal".parse().unwrap()],
            audiences: vec!["payments".into()],
            scopes: vec!["charges.read".into(), "charges.write".into()],
            shared: false,
        }],
        administrators: vec![],
        aws: Aws::default(),
        tokens: Tokens::default(),
        web: None,
        federation: vec![],
        state: State::Memory,
        replicas: 1,
        max_attestation_age: span(DAY),
        attestations_per_second: 1000,
        bundle_refresh_hint: span(MINUTE * 5),
        dns_names: vec!["authority.internal".into()],
        probes: None,
        audit_file: None,
    }
}

fn facts(service: &str) -> Facts {
    Facts::from([("service".to_owned(), service.to_owned())])
}

/// Issuing without sockets.
struct World {
    issuing: Issuing,
    lines: Lines,
    now: SystemTime,
}

impl World {
    async fn new(config: &AuthorityConfig) -> Self {
        Self::at(config, SystemTime::now()).await.unwrap()
    }

    async fn at(config: &AuthorityConfig, now: SystemTime) -> Result<Self, StartError> {
        let (audit, lines) = Audit::memory();
        let prepared = Prepared::new(config, audit, &mut metrics::registry()).await?;
        let loaded = prepared.try_load(now).await?;
        Ok(Self {
            issuing: prepared.issuing(loaded),
            lines,
            now,
        })
    }

    /// One of the replicas that share `store`.
    async fn sharing(
        config: &AuthorityConfig,
        keyring: Keyring,
        store: Arc<dyn Store>,
        now: SystemTime,
    ) -> Result<Self, StartError> {
        let (audit, lines) = Audit::memory();
        let mut registry = metrics::registry();
        let prepared = Prepared::new(config, audit, &mut registry).await?;
        let loaded = prepared.with(keyring, store, now).await?;
        Ok(Self {
            issuing: prepared.issuing(loaded),
            lines,
            now,
        })
    }

    /// Lets time pass, as maintenance sees it.
    async fn later(&mut self, span: Duration) {
        self.now += span;
        self.issuing.maintain(self.now).await.unwrap();
    }

    fn asked(&self) -> Asked<'static> {
        Asked {
            now: self.now,
            remote: "192.0.2.1:4711",
        }
    }

    fn challenge(&self) -> String {
        self.issuing.challenge(self.now).unwrap().challenge
    }

    async fn token(&self, service: &str) -> Secret<String> {
        self.issuing
            .create_join_token("join", facts(service), HOUR, self.now)
            .await
            .unwrap()
            .token
    }

    async fn attest(&self, agent: &Agent, token: &Secret<String>) -> Result<wire::Issued, Denied> {
        let request = agent.attest(&self.challenge(), token);
        self.issuing.attest(self.asked(), request).await
    }

    async fn renew(&self, agent: &Agent, record: &str) -> Result<wire::Issued, Denied> {
        let request = agent.renew(&self.challenge(), record);
        self.issuing.renew(self.asked(), &request).await
    }

    async fn jwt(
        &self,
        agent: &Agent,
        record: &str,
        audience: &str,
    ) -> Result<wire::JwtSvid, Denied> {
        let request = agent.jwt(&self.challenge(), record, &[audience]);
        self.issuing.jwt_svid(self.asked(), &request).await
    }
}

/// A running authority with its surroundings.
struct Running {
    authority: Authority,
    readiness: Readiness,
    lines: Lines,
    config: AuthorityConfig,
    dir: tempfile::TempDir,
}

impl Running {
    async fn start(change: impl FnOnce(&mut AuthorityConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(dir.path());
        change(&mut config);
        let (audit, lines) = Audit::memory();
        let (authority, readiness) = started_with(&config, audit).await.unwrap();
        Self {
            authority,
            readiness,
            lines,
            config,
            dir,
        }
    }

    /// What an agent is told of it.
    fn as_seen(&self) -> AuthorityRef {
        AuthorityRef {
            url: HttpsOrigin {
                host: self.authority.address().ip().to_string(),
                port: self.authority.address().port(),
            },
            root_spki_sha256: self.authority.root_pins(),
            bundle: None,
        }
    }

    async fn token(&self, service: &str) -> Secret<String> {
        let made = self
            .authority
            .create_join_token("join", facts(service), HOUR);
        made.await.unwrap().token
    }
}

async fn started(config: &AuthorityConfig) -> Result<(Authority, Readiness), StartError> {
    started_with(config, Audit::discard()).await
}

async fn started_with(
    config: &AuthorityConfig,
    audit: Audit,
) -> Result<(Authority, Readiness), StartError> {
    let readiness = Readiness::default();
    let mut registry = metrics::registry();
    let servers = server::Metrics::new(&mut registry);
    let parts = Parts {
        audit,
        readiness: &readiness,
        registry: &mut registry,
        servers: &servers,
    };
    Ok((start(config, parts).await?, readiness))
}

/// An agent's keys, and requests made with them.
struct Agent {
    renewal: SigningKey,
    leaf: KeyPair,
}

impl Agent {
    fn new() -> Self {
        Self {
            renewal: SigningKey::generate(),
            leaf: KeyPair::generate().unwrap(),
        }
    }

    fn csr(&self) -> Vec<u8> {
        let params = CertificateParams::new(vec!["wanted.example".to_owned()]).unwrap();
        params.serialize_request(&self.leaf).unwrap().der().to_vec()
    }

    fn attest(&self, challenge: &str, token: &Secret<String>) -> wire::AttestRequest {
        let evidence = Evidence::JoinToken {
            token: token.clone(),
        };
        let csr = self.csr();
        let public = self.renewal.public();
        let said = proof::attest(
            &td(),
            challenge,
            &csr,
            &public.thumbprint(),
            &evidence,
            None,
        );
        wire::AttestRequest {
            challenge: challenge.to_owned(),
            evidence,
            csr: Base64(csr),
            renewal_key: public.to_json("sig"),
            record: None,
            proof: Base64(self.renewal.sign_raw(&said)),
        }
    }

    fn renew(&self, challenge: &str, record: &str) -> wire::RenewRequest {
        let csr = self.csr();
        let said = proof::renew(&td(), challenge, &csr, record);
        wire::RenewRequest {
            challenge: challenge.to_owned(),
            record: record.to_owned(),
            csr: Base64(csr),
            proof: Base64(self.renewal.sign_raw(&said)),
        }
    }

    /// A token of the identity `id`.
    fn jwt_of(
        &self,
        id: &str,
        challenge: &str,
        record: &str,
        audience: &str,
    ) -> wire::JwtSvidRequest {
        let audiences = vec![audience.to_owned()];
        let said = proof::jwt_svid(&td(), challenge, &audiences, Some(id), record);
        wire::JwtSvidRequest {
            challenge: challenge.to_owned(),
            record: record.to_owned(),
            audiences,
            spiffe_id: Some(id.to_owned()),
            proof: Base64(self.renewal.sign_raw(&said)),
        }
    }

    fn jwt(&self, challenge: &str, record: &str, audiences: &[&str]) -> wire::JwtSvidRequest {
        let audiences: Vec<String> = audiences.iter().map(|&a| a.to_owned()).collect();
        let said = proof::jwt_svid(&td(), challenge, &audiences, None, record);
        wire::JwtSvidRequest {
            challenge: challenge.to_owned(),
            record: record.to_owned(),
            audiences,
            spiffe_id: None,
            proof: Base64(self.renewal.sign_raw(&said)),
        }
    }
}

fn code<T: std::fmt::Debug>(result: Result<T, Denied>) -> ErrorCode {
    result.unwrap_err().code
}

fn id(path: &str) -> SpiffeId {
    SpiffeId::new(format!("spiffe://example.org{path}")).unwrap()
}
