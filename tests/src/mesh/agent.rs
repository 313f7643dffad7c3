//! An agent of a mesh.

use std::{
    fmt::Write,
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use http::Method;
use serde_json::Value;
use warifu::{Client, identity::Identity};
use warifu_agent::{
    app::{self, StartError},
    config,
};

use super::{
    App, Authority, MTLS, ask,
    wait::{DEADLINE, until},
};
use crate::{metrics::sum_of, ports::free_port};

/// An agent to be.
#[derive(Debug)]
pub struct AgentBuilder<'a> {
    authority: &'a Authority,
    dir: PathBuf,
    name: String,
    token: Option<String>,
    attestation: Option<String>,
    accept: String,
    allow: String,
    app: Option<String>,
    inbound_more: String,
    inbound: Vec<String>,
    routes: Vec<String>,
    outbound: Option<String>,
    in_memory: bool,
    more: String,
}

/// An agent: started from a file, stopped, started again.
#[derive(Debug)]
pub struct Agent {
    /// Its SPIFFE ID, if its name is its service.
    pub id: String,
    /// Its own directory: configuration, join token, state, sockets, audit log.
    pub dir: PathBuf,
    /// The listener before its app.
    inbound: Option<SocketAddr>,
    outbound: Option<String>,
    running: Option<app::Agent>,
}

impl<'a> AgentBuilder<'a> {
    pub(super) fn new(authority: &'a Authority, dir: PathBuf, name: &str) -> Self {
        Self {
            authority,
            dir,
            name: name.to_owned(),
            token: None,
            attestation: None,
            accept: MTLS.to_owned(),
            allow: "[]".to_owned(),
            app: None,
            inbound_more: String::new(),
            inbound: Vec::new(),
            routes: Vec::new(),
            outbound: None,
            in_memory: false,
            more: String::new(),
        }
    }

    /// The app it forwards to.
    #[must_use]
    pub fn app(mut self, app: &App) -> Self {
        self.app = Some(app.forward());
        self
    }

    /// `accept` of the listener before the app; [`MTLS`] unless said.
    #[must_use]
    pub fn accept(mut self, yaml: &str) -> Self {
        self.accept = yaml.to_owned();
        self
    }

    /// `allow` of the listener before the app; nobody unless said.
    #[must_use]
    pub fn allow(mut self, yaml: &str) -> Self {
        self.allow = yaml.to_owned();
        self
    }

    /// Further keys of the listener before the app: `max_connection_age: 2s`.
    #[must_use]
    pub fn inbound_also(mut self, yaml: &str) -> Self {
        let _ = write!(self.inbound_more, ", {yaml}");
        self
    }

    /// A further inbound listener, as a YAML map.
    #[must_use]
    pub fn inbound(mut self, yaml: &str) -> Self {
        self.inbound.push(yaml.to_owned());
        self
    }

    /// A route over mTLS to another agent, which must be whom its name says; `more` are further keys.
    #[must_use]
    pub fn route_to(self, host: &str, to: &Agent, more: &str) -> Self {
        let comma = if more.is_empty() { "" } else { ", " };
        let (address, id) = (to.inbound_address(), &to.id);
        self.route(&format!(
            "{{host: {host}, upstream: \"https://{address}\", mtls: {{expect: \"{id}\"}}{comma}{more}}}"
        ))
    }

    /// A route, as a YAML map.
    #[must_use]
    pub fn route(mut self, yaml: &str) -> Self {
        self.routes.push(yaml.to_owned());
        self
    }

    /// The app connects over TCP; over a unix socket unless said.
    #[must_use]
    pub fn outbound_over_tcp(mut self) -> Self {
        self.outbound = Some(free_port().to_string());
        self
    }

    /// Nothing survives a restart.
    #[must_use]
    pub fn without_state_dir(mut self) -> Self {
        self.in_memory = true;
        self
    }

    /// Attests with this join token; with a fresh one for its name unless said.
    #[must_use]
    pub fn join_token(mut self, token: &str) -> Self {
        self.token = Some(token.to_owned());
        self
    }

    /// Attests by other means than a join token: `attestation`, as YAML.
    #[must_use]
    pub fn attestation(mut self, yaml: &str) -> Self {
        self.attestation = Some(yaml.to_owned());
        self
    }

    /// Further top-level keys.
    #[must_use]
    pub fn more(mut self, yaml: &str) -> Self {
        let _ = writeln!(self.more, "{yaml}");
        self
    }

    /// Starts it, and waits until it is ready.
    pub async fn start(self) -> Agent {
        let agent = self.start_unready().await;
        agent.ready().await;
        agent
    }

    /// Starts it.
    pub async fn start_unready(self) -> Agent {
        let mut agent = self.prepare().await;
        agent.start_unready().await;
        agent
    }

    /// Writes its files and starts nothing.
    pub async fn prepare(self) -> Agent {
        let made = fs::create_dir(&self.dir);
        made.unwrap_or_else(|why| panic!("one agent or app a name: {}: {why}", self.dir.display()));
        if self.attestation.is_none() {
            let token = match &self.token {
                Some(token) => token.clone(),
                None => self.authority.join_token(&self.name).await,
            };
            write_private(&self.dir.join("join-token"), &token);
        }
        let inbound = self.app.is_some().then(free_port);
        let outbound = (!self.routes.is_empty()).then(|| {
            let unix = || format!("unix:{}/outbound.sock", self.dir.display());
            self.outbound.clone().unwrap_or_else(unix)
        });
        let yaml = self.yaml(inbound, outbound.as_deref());
        fs::write(self.dir.join("agent.yaml"), yaml).expect("the agent's configuration");
        Agent {
            id: format!("spiffe://{}/{}", self.authority.trust_domain(), self.name),
            dir: self.dir,
            inbound,
            outbound,
            running: None,
        }
    }

    fn yaml(&self, inbound: Option<SocketAddr>, outbound: Option<&str>) -> String {
        let dir = self.dir.display();
        let url = self.authority.url();
        let pins = self.authority.pins().join(", ");
        let join_token = || format!("{{join-token: {{token: \"file:{dir}/join-token\"}}}}");
        let attestation = self.attestation.clone().unwrap_or_else(join_token);
        let trust_domain = self.authority.trust_domain();
        let mut yaml = format!(
            "trust_domain: {trust_domain}
authority: {{url: \"{url}\", root_spki_sha256: [{pins}]}}
attestation: {attestation}
admin: {{listen: \"unix:{dir}/admin.sock\", probes: \"unix:{dir}/probes.sock\"}}
audit: {{file: {dir}/audit.log}}
"
        );
        if !self.in_memory {
            let _ = writeln!(yaml, "state_dir: {dir}/state");
        }
        yaml += &self.more;
        let of_app = inbound.zip(self.app.as_ref()).map(|(listen, app)| {
            let Self {
                accept,
                allow,
                inbound_more,
                ..
            } = self;
            format!(
                "{{listen: \"{listen}\", {app}, accept: {accept}, allow: {allow}{inbound_more}}}"
            )
        });
        let listeners: Vec<&String> = of_app.iter().chain(&self.inbound).collect();
        if !listeners.is_empty() {
            yaml += "inbound:\n";
        }
        for listener in listeners {
            let _ = writeln!(yaml, "- {listener}");
        }
        if let Some(outbound) = outbound {
            let _ = writeln!(yaml, "outbound:\n  listen: \"{outbound}\"\n  routes:");
            for route in &self.routes {
                let _ = writeln!(yaml, "  - {route}");
            }
        }
        yaml
    }
}

impl Agent {
    /// Starts what was stopped, from the file as it is now, and waits until it is ready.
    pub async fn start(&mut self) {
        self.start_unready().await;
        self.ready().await;
    }

    /// Starts what was stopped, from the file as it is now.
    pub async fn start_unready(&mut self) {
        assert!(self.running.is_none(), "{} runs", self.id);
        let config = config::load_agent(&self.dir.join("agent.yaml"));
        let config = config.unwrap_or_else(|why| panic!("{why}"));
        let here = tokio::runtime::Handle::current();
        // What was dropped a moment ago may still hold its sockets.
        let running = until(
            "the agent's sockets are free",
            async || match app::start_agent(&config, &here).await {
                Ok(running) => Some(running),
                Err(StartError::Bind(_)) => None,
                Err(why) => panic!("{}: {why}", self.id),
            },
        );
        self.running = Some(running.await);
    }

    /// Waits until nothing is missing.
    pub async fn ready(&self) {
        let readiness = &self.running().readiness;
        if tokio::time::timeout(DEADLINE, readiness.ready())
            .await
            .is_err()
        {
            panic!("{} is not ready: {:?}", self.id, readiness.missing());
        }
    }

    /// Cuts it off, as a crash would.
    pub fn stop(&mut self) {
        self.running = None;
    }

    /// Stops it and starts it again.
    pub async fn restart(&mut self) {
        self.stop();
        self.start().await;
    }

    /// Ends it in order; how many connections it had to cut.
    pub async fn drain(&mut self) -> usize {
        self.running.take().expect("it runs").drain().await
    }

    /// Ends it in order, while the test goes on.
    pub fn draining(&mut self) -> tokio::task::JoinHandle<usize> {
        tokio::spawn(self.running.take().expect("it runs").drain())
    }

    /// What runs.
    pub fn running(&self) -> &app::Agent {
        self.running.as_ref().expect("the agent runs")
    }

    /// The current identity.
    pub fn identity(&self) -> Arc<Identity> {
        let current = self.running().identity.borrow().clone();
        current.expect("the agent has an identity")
    }

    /// Where callers connect.
    pub fn inbound_address(&self) -> SocketAddr {
        self.inbound.expect("the agent has an app")
    }

    /// A client as the app beside this agent has it, with connections of its own.
    pub fn client(&self) -> Client {
        let address = self.outbound.as_ref().expect("the agent has routes");
        let address = match address.starts_with("unix:") {
            true => address.clone(),
            false => format!("http://{address}"),
        };
        Client::new(&address).expect("the agent's outbound address")
    }

    /// Where its app connects: `unix:/path` or `IP:PORT`.
    pub fn outbound_address(&self) -> &str {
        self.outbound.as_deref().expect("the agent has routes")
    }

    /// Asks the probes' listener: status and text.
    pub async fn probe(&self, path: &str) -> (u16, String) {
        ask(&self.dir.join("probes.sock"), Method::GET, path).await
    }

    /// Asks the admin socket: status and text.
    pub async fn admin(&self, method: Method, path: &str) -> (u16, String) {
        ask(&self.dir.join("admin.sock"), method, path).await
    }

    /// `/status`, as `warifu status --json` reads it.
    pub async fn status(&self) -> Value {
        let (code, text) = self.admin(Method::GET, "/status").await;
        assert_eq!(code, 200, "{text}");
        serde_json::from_str(&text).expect("JSON")
    }

    /// The value of a metric: its name, with its labels as they are printed; 0 while it is not there.
    pub async fn metric(&self, name: &str) -> f64 {
        let (_, text) = self.probe("/metrics").await;
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().expect("a number"))
    }

    /// All values of a metric whose labels, as they are printed, have `label` in them, together.
    pub async fn metric_sum(&self, name: &str, label: &str) -> f64 {
        let (_, text) = self.probe("/metrics").await;
        sum_of(&text, name, label)
    }

    /// The audit log so far.
    pub fn audit(&self) -> Vec<Value> {
        audit_lines(&self.dir.join("audit.log"))
    }

    /// Waits for a line of the audit log.
    pub async fn audit_line(&self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        until(what, async || self.audit().into_iter().find(&is)).await
    }
}

/// The lines of an audit log; the last one only when it is whole.
pub(super) fn audit_lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let read = |line| serde_json::from_str(line).expect("an audit line is JSON");
    whole.lines().map(read).collect()
}

fn write_private(path: &Path, text: &str) {
    fs::write(path, text).expect("a file in the temporary directory");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("our own file");
}
