//! The authority of a mesh: can be stopped, and started again at the same address.

use std::{
    fmt::Write,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use warifu_agent::{
    app::{self, AuthorityStartError},
    authority::{Change, Changed, Status, rules::Facts},
    config,
    revocation::Kind,
};

use super::{
    TRUST_DOMAIN,
    wait::{DEADLINE, until},
};
use crate::ports::free_port;

/// `rules`, unless a test has its own: whoever attests as a service is that service.
const RULES: &str = r#"
- attestor: bootstrap
  match: {service: "*"}
  id: "/{service}"
  audiences: ["*"]
  scopes: [charges.read]
  ttl: TTL
  jwt_ttl: JWT_TTL
"#;

/// An authority to be.
#[derive(Debug)]
pub struct AuthorityBuilder {
    dir: PathBuf,
    trust_domain: String,
    ca: String,
    state: &'static str,
    attestors: String,
    rules: String,
    ttl: Duration,
    jwt_ttl: Duration,
    more: String,
}

/// The mesh's authority.
#[derive(Debug)]
pub struct Authority {
    dir: PathBuf,
    trust_domain: String,
    address: SocketAddr,
    running: Option<app::Authority>,
    pins: Vec<String>,
}

impl AuthorityBuilder {
    pub(super) fn new(dir: &Path) -> Self {
        Self {
            dir: dir.join("authority"),
            trust_domain: TRUST_DOMAIN.to_owned(),
            ca: "key: memory".to_owned(),
            state: "memory",
            attestors: String::new(),
            rules: RULES.to_owned(),
            ttl: Duration::from_secs(3600),
            jwt_ttl: Duration::from_secs(300),
            more: String::new(),
        }
    }

    /// Another trust domain than [`TRUST_DOMAIN`].
    #[must_use]
    pub fn trust_domain(mut self, name: &str) -> Self {
        self.trust_domain = name.to_owned();
        self
    }

    /// Keys and state on disk, so that a restart finds the same roots.
    #[must_use]
    pub fn on_disk(mut self) -> Self {
        self.ca = format!("key: disk, path: {}", self.dir.join("ca").display());
        self.state = "sqlite";
        self
    }

    /// Life of X.509-SVIDs. Certificates count in whole seconds.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// Life of JWT-SVIDs.
    #[must_use]
    pub fn jwt_ttl(mut self, ttl: Duration) -> Self {
        self.jwt_ttl = ttl;
        self
    }

    /// Further keys of `ca`: `publish_ahead: 2s, intermediate_ttl: 8s`.
    #[must_use]
    pub fn ca(mut self, more: &str) -> Self {
        self.ca = format!("{}, {more}", self.ca);
        self
    }

    /// An attestor beside `bootstrap`, as a YAML map.
    #[must_use]
    pub fn attestor(mut self, name: &str, yaml: &str) -> Self {
        let _ = write!(self.attestors, ", {name}: {yaml}");
        self
    }

    /// Other `rules` (a YAML list; the attestor is `bootstrap`). `TTL` and `JWT_TTL` stand for the
    /// lives asked for.
    #[must_use]
    pub fn rules(mut self, rules: &str) -> Self {
        self.rules = rules.to_owned();
        self
    }

    /// Further top-level keys.
    #[must_use]
    pub fn more(mut self, yaml: &str) -> Self {
        let _ = writeln!(self.more, "{yaml}");
        self
    }

    pub(super) async fn start(self) -> Authority {
        fs::create_dir_all(&self.dir).expect("the authority's directory");
        let address = free_port();
        let span = |life: Duration| format!("{}ms", life.as_millis());
        let yaml = format!(
            "trust_domain: {trust_domain}
listen: {address}
admin: unix:{dir}/admin.sock
probes: unix:{dir}/probes.sock
audit_file: {dir}/audit.log
ca: {{{ca}}}
state: {state}
attestors: {{bootstrap: {{kind: join-token}}{attestors}}}
{more}
rules:{rules}
",
            trust_domain = self.trust_domain,
            dir = self.dir.display(),
            ca = self.ca,
            state = self.state,
            attestors = self.attestors,
            more = self.more,
            rules = self
                .rules
                .replace("JWT_TTL", &span(self.jwt_ttl))
                .replace("TTL", &span(self.ttl)),
        );
        fs::write(self.dir.join("authority.yaml"), yaml).expect("the authority's configuration");
        let mut authority = Authority {
            dir: self.dir,
            trust_domain: self.trust_domain,
            address,
            running: None,
            pins: Vec::new(),
        };
        authority.start().await;
        authority
    }
}

impl Authority {
    /// Starts again what was stopped, at the same address.
    pub async fn start(&mut self) {
        let path = self.dir.join("authority.yaml");
        let config = config::load_authority(&path).unwrap_or_else(|why| panic!("{why}"));
        // What was dropped a moment ago may still hold its sockets.
        let running = until(
            "the authority's sockets are free",
            async || match app::start_authority(&config).await {
                Ok(running) => Some(running),
                Err(AuthorityStartError::Bind(_)) => None,
                Err(AuthorityStartError::Authority(warifu_agent::authority::StartError::Bind(
                    _,
                ))) => None,
                Err(why) => panic!("the authority: {why}"),
            },
        )
        .await;
        tokio::time::timeout(DEADLINE, running.readiness.ready())
            .await
            .expect("the authority becomes ready");
        let roots = running.issuer.status().roots;
        self.pins = roots.into_iter().map(|root| root.spki_sha256).collect();
        self.running = Some(running);
    }

    /// Cuts it off, as a crash would. With a memory CA its roots are gone for good.
    pub fn stop(&mut self) {
        self.running = None;
    }

    /// Ends it in order.
    pub async fn drain(&mut self) {
        if let Some(running) = self.running.take() {
            running.drain().await;
        }
    }

    /// The trust domain it issues for.
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// Changes its configuration, for its next start.
    pub fn configure(&self, change: impl FnOnce(String) -> String) {
        let path = self.dir.join("authority.yaml");
        let before = fs::read_to_string(&path).expect("its configuration");
        fs::write(&path, change(before)).expect("its configuration");
    }

    /// Where agents connect.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Pins of its roots, as they were when it last started.
    pub fn pins(&self) -> &[String] {
        &self.pins
    }

    /// A join token that attests as `service`.
    pub async fn join_token(&self, service: &str) -> String {
        let facts = Facts::from([("service".to_owned(), service.to_owned())]);
        self.join_token_with(facts).await
    }

    /// A join token that attests any facts.
    pub async fn join_token_with(&self, facts: Facts) -> String {
        let life = Duration::from_secs(600);
        let made = self
            .running()
            .issuer
            .create_join_token("bootstrap", facts, life);
        made.await.expect("a join token").token.expose().clone()
    }

    /// Starts a rotation of root and keys.
    pub async fn rotate(&self) {
        self.running().issuer.rotate().await.expect("a rotation");
    }

    /// Revokes, until nothing of it can be alive.
    pub async fn revoke(&self, kind: Kind, value: &str) -> Changed {
        self.change(kind, value, false).await
    }

    /// Takes it back.
    pub async fn unrevoke(&self, kind: Kind, value: &str) -> Changed {
        self.change(kind, value, true).await
    }

    async fn change(&self, kind: Kind, value: &str, undo: bool) -> Changed {
        let change = Change {
            kind,
            value: value.to_owned(),
            reason: None,
            seconds: None,
            undo,
        };
        let changed = self.running().issuer.revoke(&change);
        changed.await.expect("a change of the revocation list")
    }

    /// What there is.
    pub fn status(&self) -> Status {
        self.running().issuer.status()
    }

    /// Its decisions so far, by `event` (`attest`, `renew`, `jwt-svid`).
    pub fn audit(&self, event: &str) -> Vec<serde_json::Value> {
        let mut lines = super::agent::audit_lines(&self.dir.join("audit.log"));
        lines.retain(|line| line["event"] == event);
        lines
    }

    /// What runs.
    pub fn running(&self) -> &app::Authority {
        self.running.as_ref().expect("the authority runs")
    }
}
