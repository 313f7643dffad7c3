//! Whole agents against a whole authority.

use std::{fs, path::PathBuf};

use prometheus_client::registry::Registry;
use tokio::time::timeout;
use warifu::identity::Identity;

use super::*;
use crate::{
    attest::AccessTokenKeys,
    config::{
        agent::{Attestation, Revocation},
        authority::{TokenAlgorithm, TokenIssuer},
        value::SecretFile,
    },
    identity::{self, Current, Handle, Settings},
};

/// Longest wait for anything here; nothing waits for it unless it is broken.
const PATIENCE: Duration = Duration::from_secs(20);

struct Sidecar {
    current: Current,
    handle: Handle,
    readiness: Readiness,
}

impl Sidecar {
    fn start(settings: &Settings) -> Self {
        let readiness = Readiness::default();
        let condition = readiness.condition("identity", "not asked yet");
        let (current, handle) =
            identity::start(settings, condition, &mut Registry::default()).unwrap();
        Self {
            current,
            handle,
            readiness,
        }
    }

    /// Waits until the snapshot is one that `fits`.
    async fn until(&mut self, fits: impl Fn(&Identity) -> bool) -> Arc<Identity> {
        let wait = self
            .current
            .wait_for(|now| now.as_ref().is_some_and(|now| fits(now)));
        let found = timeout(PATIENCE, wait).await.expect("in time").unwrap();
        found.clone().unwrap()
    }

    async fn ready(&self) {
        timeout(PATIENCE, self.readiness.ready())
            .await
            .expect("ready in time");
    }

    /// Waits until the last attempt failed for a reason that `says` this.
    async fn fails(&self, says: &str) -> String {
        let mut status = self.handle.watch_status();
        let said = |status: &identity::Status| {
            let why = status.last_error.as_ref();
            why.is_some_and(|why| why.contains(says))
        };
        let failed = timeout(PATIENCE, status.wait_for(said)).await.is_ok();
        let last = self.handle.status().last_error;
        assert!(failed, "expected {says:?}, found {last:?}");
        last.unwrap_or_default()
    }
}

fn settings(running: &Running, token: &Secret<String>) -> (Settings, PathBuf) {
    let file = running.dir.path().join("token");
    fs::write(&file, format!("{}\n", token.expose())).unwrap();
    let settings = Settings {
        aws: None,
        trust_domain: td(),
        authority: running.as_seen(),
        attestation: Attestation::JoinToken {
            token: SecretFile(file.clone()),
        },
        state_dir: None,
        revocation: Revocation::default(),
    };
    (settings, file)
}

/// Lives of seconds, for what only real time shows.
fn hurried(config: &mut AuthorityConfig) {
    config.rules[0].ttl = Span(Duration::from_secs(5));
    config.bundle_refresh_hint = Span(Duration::from_secs(1));
    config.ca.publish_ahead = Span(Duration::from_secs(4));
}

#[tokio::test]
async fn an_agent_becomes_ready_renews_and_mints() {
    let running = Running::start(|_| {}).await;
    let (settings, _) = settings(&running, &running.token("orders").await);
    let mut agent = Sidecar::start(&settings);
    let first = agent.until(|_| true).await;
    agent.ready().await;
    assert_eq!(*first.svid.id(), id("/orders"));
    let mut status = agent.handle.watch_status();
    let planned = status.wait_for(|status| status.next_attempt.is_some());
    let next = planned.await.unwrap().next_attempt.unwrap();
    let third = next.duration_since(SystemTime::now()).unwrap();
    assert!(
        third > MINUTE * 16 && third < MINUTE * 19,
        "before a third of an hour is over: {third:?}"
    );

    agent.handle.renew_now();
    let second = agent.until(|now| now.generation > first.generation).await;
    assert_ne!(second.svid.chain()[0], first.svid.chain()[0]);
    assert_ne!(
        second.svid.key().secret_pkcs8_der(),
        first.svid.key().secret_pkcs8_der(),
        "a key of its own for every certificate"
    );
    let jwt = agent
        .handle
        .mint_jwt(&["payments".to_owned()], None)
        .await
        .unwrap();
    assert!(jwt.expires_at > SystemTime::now());
    let refused = agent
        .handle
        .mint_jwt(&["billing".to_owned()], None)
        .await
        .unwrap_err();
    assert_eq!(refused.refusal(), Some(ErrorCode::AudienceRefused));
}

#[tokio::test]
async fn certificates_renew_by_themselves_well_before_they_expire() {
    let running = Running::start(hurried).await;
    let (settings, _) = settings(&running, &running.token("orders").await);
    let mut agent = Sidecar::start(&settings);
    let mut last = agent.until(|_| true).await;
    for _ in 0..3 {
        let leaf = last.svid.chain()[0].clone();
        let next = agent.until(|now| now.svid.chain()[0] != leaf).await;
        assert!(SystemTime::now() < last.svid.not_after(), "in time");
        last = next;
    }
}

#[tokio::test]
async fn s13_an_identity_is_kept_while_renewals_fail_and_withdrawn_when_it_expires() {
    let running = Running::start(hurried).await;
    let (settings, _) = settings(&running, &running.token("orders").await);
    let mut agent = Sidecar::start(&settings);
    agent.until(|_| true).await;
    running.authority.shutdown(Duration::ZERO).await;
    let why = agent.fails("cannot reach the authority").await;
    let kept = agent.current.borrow().clone().expect("still there");
    assert!(agent.readiness.missing().is_empty(), "and ready");
    assert!(why.contains("check `authority.url`"), "{why}");

    let gone = agent.current.wait_for(Option::is_none);
    timeout(PATIENCE, gone).await.unwrap().unwrap();
    assert!(
        SystemTime::now() >= kept.svid.not_after(),
        "served to its real expiry"
    );
    let missing = agent.readiness.missing();
    assert_eq!(missing[0].0, "identity");
    assert!(missing[0].1.contains("expired at"), "{missing:?}");
    assert!(missing[0].1.contains("cannot reach"), "{missing:?}");
}

#[tokio::test]
async fn an_agent_started_while_the_authority_is_away_becomes_ready_when_it_returns() {
    let mut running = Running::start(|config| {
        let dir = match &config.admin {
            Listen::Unix(socket) => socket.parent().unwrap().to_owned(),
            Listen::Tcp(_) => unreachable!(),
        };
        config.ca.key = CaKey::Disk {
            path: dir.join("ca"),
        };
        config.state = State::Sqlite;
    })
    .await;
    let (settings, _) = settings(&running, &running.token("orders").await);
    running.config.listen = running.authority.address();
    running.authority.shutdown(Duration::ZERO).await;

    let agent = Sidecar::start(&settings);
    agent.fails("cannot reach the authority").await;
    let missing = agent.readiness.missing();
    assert!(
        missing[0].1.contains("cannot reach the authority"),
        "{missing:?}"
    );

    let back = started(&running.config).await.unwrap();
    let returned = std::time::Instant::now();
    agent.ready().await;
    assert!(
        returned.elapsed() < Duration::from_secs(2),
        "{:?}",
        returned.elapsed()
    );
    drop(back);
}

#[tokio::test]
async fn a_wrong_join_token_is_a_clear_error_and_a_right_one_in_its_place_helps() {
    let running = Running::start(|_| {}).await;
    let (settings, file) = settings(&running, &Secret::new("wjt_wrong".into()));
    let agent = Sidecar::start(&settings);
    let why = agent.fails("is not one of this authority's").await;
    assert!(why.contains("warifu authority join-token"), "{why}");
    assert!(!why.contains("wjt_wrong"), "S12");
    fs::remove_file(&file).unwrap();
    agent.handle.renew_now();
    let why = agent.fails("attestation.join-token.token").await;
    assert!(why.contains(file.to_str().unwrap()), "{why}");
    fs::write(&file, running.token("orders").await.expose()).unwrap();
    agent.handle.renew_now();
    agent.ready().await;
}

#[tokio::test]
async fn an_agent_restarted_with_its_state_renews_and_needs_no_second_token() {
    let running = Running::start(|_| {}).await;
    let (mut settings, file) = settings(&running, &running.token("orders").await);
    settings.state_dir = Some(running.dir.path().join("agent"));
    Sidecar::start(&settings).until(|_| true).await;
    fs::remove_file(&file).unwrap();
    let again = Sidecar::start(&settings).until(|_| true).await;
    assert_eq!(*again.svid.id(), id("/orders"));
    // Without the state the token would be needed, and it is spent.
    settings.state_dir = None;
    Sidecar::start(&settings).fails("join-token.token").await;
}

#[tokio::test]
async fn an_agent_whose_record_is_of_no_use_attests_anew() {
    let running = Running::start(|_| {}).await;
    let (mut settings, _) = settings(&running, &running.token("orders").await);
    let state = running.dir.path().join("agent");
    settings.state_dir = Some(state.clone());
    Sidecar::start(&settings).until(|_| true).await;
    let file = state.join("attested.json");
    let mut kept: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    kept["record"] = "no.such.record".into();
    fs::write(&file, kept.to_string()).unwrap();
    // The same renewal key may use the token again.
    Sidecar::start(&settings).until(|_| true).await;
}

#[tokio::test]
async fn s12_what_an_agent_keeps_is_private_and_an_open_directory_is_refused() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let running = Running::start(|_| {}).await;
    let (mut settings, _) = settings(&running, &running.token("orders").await);
    let state = running.dir.path().join("agent");
    settings.state_dir = Some(state.clone());
    Sidecar::start(&settings).until(|_| true).await;
    for entry in fs::read_dir(&state).unwrap() {
        assert_eq!(entry.unwrap().metadata().unwrap().mode() & 0o777, 0o600);
    }
    fs::set_permissions(&state, fs::Permissions::from_mode(0o755)).unwrap();
    let condition = Readiness::default().condition("identity", "");
    let refused = identity::start(&settings, condition, &mut Registry::default()).unwrap_err();
    assert!(refused.to_string().contains("chmod 700"), "{refused}");
}

#[tokio::test]
async fn a_new_root_reaches_agents_before_it_signs_and_they_follow_it() {
    let running = Running::start(hurried).await;
    let (settings, _) = settings(&running, &running.token("orders").await);
    let mut agent = Sidecar::start(&settings);
    let first = agent.until(|_| true).await;
    let old_root = first.bundle.x509_authorities[0].clone();
    running.authority.rotate().await.unwrap();
    let published = agent
        .until(|now| now.bundle.x509_authorities.len() == 2)
        .await;
    assert!(published.bundle.sequence > first.bundle.sequence);
    let signs = |root: &[u8], now: &Identity| {
        let (_, root) = x509_parser::parse_x509_certificate(root).unwrap();
        let (_, intermediate) = x509_parser::parse_x509_certificate(&now.svid.chain()[1]).unwrap();
        intermediate.issuer() == root.subject()
    };
    assert!(
        signs(&old_root, &published),
        "published, and does not sign yet"
    );
    // The agent has the old root's pin only: it follows by the bundle, and new connections verify.
    let followed = agent.until(|now| !signs(&old_root, now)).await;
    assert_eq!(followed.bundle.x509_authorities.len(), 2);
    let leaf = followed.svid.chain()[0].clone();
    agent.until(|now| now.svid.chain()[0] != leaf).await;
}

#[tokio::test]
async fn keys_of_access_tokens_reach_agents_before_they_sign_and_stay_while_the_authority_is_away()
{
    let running = Running::start(|config| {
        hurried(config);
        config.tokens.access_token = Some(TokenIssuer {
            issuer: "https://tokens.example.org".to_owned(),
            algorithm: TokenAlgorithm::Es256,
        });
    })
    .await;
    let (settings, _) = settings(&running, &running.token("orders").await);
    let mut agent = Sidecar::start(&settings);
    agent.until(|_| true).await;
    let keys = agent.handle.access_keys();
    let known = async |fits: &dyn Fn(&AccessTokenKeys) -> bool| {
        let asking = async {
            loop {
                if let Some(keys) = keys.load().filter(|keys| fits(keys)) {
                    return keys;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, asking).await.expect("keys")
    };
    let first = known(&|_| true).await;
    assert_eq!(first.issuer, "https://tokens.example.org");
    let signs = || {
        running
            .authority
            .issuing
            .live
            .load()
            .access_key
            .as_ref()
            .map(|key| key.public().kid().to_owned())
    };
    let current = signs().unwrap();
    assert!(first.keys.find(&current).is_some());

    running.authority.rotate().await.unwrap();
    let both = known(&|keys| keys.keys.iter().count() == 2).await;
    assert_eq!(
        signs().unwrap(),
        current,
        "published, and does not sign yet"
    );
    assert!(both.keys.find(&current).is_some());

    running.authority.shutdown(Duration::ZERO).await;
    agent.fails("cannot reach the authority").await;
    assert!(keys.load().is_some());
}

#[tokio::test]
async fn an_authority_that_mints_no_access_tokens_says_so_and_agents_have_no_keys() {
    let running = Running::start(|_| {}).await;
    let client = crate::attest::Client::new(&td(), &running.as_seen()).unwrap();
    let why = client.access_token_keys(None).await.unwrap_err();
    assert_eq!(why.refusal(), Some(ErrorCode::NotFound));
    let (settings, _) = settings(&running, &running.token("orders").await);
    let mut agent = Sidecar::start(&settings);
    agent.until(|_| true).await;
    assert!(agent.handle.access_keys().load().is_none());
}

#[tokio::test]
async fn s18_a_rule_that_is_gone_ends_an_identity_at_its_expiry() {
    let mut running = Running::start(|config| {
        hurried(config);
        let Listen::Unix(socket) = &config.admin else {
            unreachable!()
        };
        config.ca.key = CaKey::Disk {
            path: socket.with_file_name("ca"),
        };
        config.state = State::Sqlite;
    })
    .await;
    let (settings, _) = settings(&running, &running.token("orders").await);
    let mut agent = Sidecar::start(&settings);
    agent.until(|_| true).await;
    running.config.listen = running.authority.address();
    running.authority.shutdown(Duration::ZERO).await;
    running.config.rules.clear();
    let _authority = started(&running.config).await.unwrap();
    let why = agent.fails("no rule matches").await;
    assert!(why.contains("no_rule"), "{why}");
    let gone = agent.current.wait_for(Option::is_none);
    timeout(PATIENCE, gone).await.unwrap().unwrap();
}
