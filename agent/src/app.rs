//! Builds an agent or an authority from its configuration, and returns what is bound. `main`, the demo
//! and the tests all start through here.
//!
//! ```text
//! bind every socket ─▶ identity (task) ─▶ inbound, outbound ─▶ admin
//!                          │ snapshots        ▲
//!                          └──────────────────┘
//! ```

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use prometheus_client::registry::Registry;
use thiserror::Error;
use tokio::{runtime, task::JoinHandle};

use crate::{
    admin::{self, Admin, Surface},
    aws::{self, IdentityTokens, Roles},
    config::{
        self, AgentConfig,
        agent::{Attestation, WhenStale},
        outbound::Route,
        value::{Listen, SecretRef},
    },
    http::{
        pool::{self, Pool},
        server::{self, BindError, Drain, Draining, Limits, Listener},
    },
    identity,
    inbound::{self, AppPorts, Change, Environment, Evaluations, Issuers, Live},
    local,
    outbound::{self, Outbound, Sign},
    secrets::{self, Secrets},
    telemetry::{
        audit::{Audit, AuditError},
        emf::{Counts, Writing},
        metrics,
        ready::{Condition, Readiness},
    },
    token::{KeptFresh, Mint, Tokens},
};
use adapt::{FromAuthority, FromSecretsManager, JwtSvids, NamedSigner};
use status::status;
use web_identity::FromSts;

mod adapt;
mod authority;
mod memory;
mod reload;
mod run;
mod status;
mod web_identity;

pub use authority::{Authority, AuthorityStartError, start_authority};
pub use run::{RunError, run_agent, run_authority};

/// How long the audit log may take to reach its file at the end.
const AUDIT_FLUSH: Duration = Duration::from_secs(2);

/// Time the admin listeners stay after the others have drained, so that whoever watches sees the end.
const ADMIN_GRACE: Duration = Duration::from_secs(1);

/// A running agent. Dropped, it cuts what it was doing; [`Agent::drain`] ends it in order.
#[derive(Debug)]
pub struct Agent {
    /// Addresses of the inbound listeners, in the configuration's order.
    pub inbound: Vec<Listen>,
    /// Address of the outbound listener.
    pub outbound: Option<Listen>,
    /// Addresses of the listeners for opaque TCP, in the configuration's order.
    pub outbound_tcp: Vec<Listen>,
    /// Addresses of what the app can ask.
    pub local: local::Addresses,
    /// Address of the probes.
    pub probes: Option<Listen>,
    /// Address of the admin socket.
    pub admin: Option<Listen>,
    /// The current identity.
    pub identity: identity::Current,
    /// What is still missing.
    pub readiness: Readiness,
    drain_wanted: Draining,
    drain: Drain,
    admin_drain: Drain,
    serving: Serving,
    admin_serving: Serving,
    grace: Duration,
    not_draining: Condition,
    audit: Audit,
    counting: Option<Writing>,
    /// What of its inbound listeners can change.
    live: Vec<Live>,
    /// What carries requests.
    data: runtime::Handle,
    /// Renews for as long as it is held.
    _renewal: identity::Handle,
    /// Keeps the routes' tokens at hand.
    _fresh: KeptFresh,
    /// Keeps the routes' secrets at hand.
    _secrets: secrets::KeptFresh,
    /// Watches whether the app can be reached around the listeners.
    app_ports: Mutex<AppPorts>,
    /// What roles are assumed with that are assumed with tokens; those who have them know it weakly.
    _jwt_svids: Arc<dyn IdentityTokens>,
}

/// Why an agent could not start. Each is a mistake on this machine: an authority that is away, or an
/// app that is not up yet, is waited for.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// A listener could not be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The audit log can't be written.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// There can be no identity.
    #[error(transparent)]
    Identity(#[from] identity::StartError),
    /// An inbound listener can't be what its configuration says.
    #[error(transparent)]
    Inbound(#[from] inbound::StartError),
    /// A route can't be what its configuration says.
    #[error(transparent)]
    Route(#[from] outbound::RouteError),
    /// A role or signature can't be what its route says.
    #[error(transparent)]
    Aws(#[from] aws::SetupError),
    /// What the app can ask for can't be served.
    #[error(transparent)]
    Local(#[from] local::StartError),
    /// Files can't be given to whom the configuration says.
    #[error(transparent)]
    Files(#[from] local::files::OwnerError),
    /// The TLS of upstreams with public certificates can't be set up.
    #[error("TLS for upstreams: {0}")]
    Tls(#[from] rustls::Error),
}

/// Why a listener can't serve by a new configuration.
#[derive(Debug, Error)]
#[error("inbound[{index}]: {why}")]
pub struct ReloadError {
    index: usize,
    why: inbound::StartError,
}

/// Starts an agent. Requests are carried by the runtime `data`, everything else by the current one, so
/// that a renewal never waits behind traffic. With one runtime for both, hand in its handle.
///
/// # Errors
/// See [`StartError`].
pub async fn start_agent(
    config: &AgentConfig,
    data: &runtime::Handle,
) -> Result<Agent, StartError> {
    // Sockets first: an app or a probe that connects early is answered 503, not refused.
    let sockets = {
        let _on_data = data.enter();
        Sockets::bind(config)?
    };
    let audit = match &config.audit.file {
        Some(file) => Audit::file(file)?,
        None => Audit::stdout()?,
    };
    let mut registry = metrics::registry();
    audit.register(&mut registry);
    let readiness = Readiness::default();
    let not_draining = readiness.condition("not-draining", "starting");
    let server_metrics = server::Metrics::new(&mut registry);
    let (drain, draining) = server::drain();
    let (admin_drain, admin_draining) = server::drain();

    let issued = readiness.condition("identity", "no X.509-SVID has been issued yet");
    let roles = roles(config, &mut registry).await?;
    let settings = identity::Settings {
        aws: roles.clone(),
        ..config.into()
    };
    let (identity, renewal) = identity::start(&settings, issued, &mut registry)?;
    if config.revocation.when_stale == WhenStale::Refuse {
        let known = readiness.condition("revocations", "no revocation list has been had yet");
        renewal.tell_age_of_revocations(known);
    }
    let tokens = Tokens::new(Arc::new(FromAuthority(renewal.clone())));
    tokens.register(&mut registry);
    let secrets = secrets_of(config, roles.as_ref(), &identity);
    secrets.register(&mut registry);
    let jwt_svids: Arc<dyn IdentityTokens> = Arc::new(JwtSvids::new(&config.aws, &tokens));
    if let Some(roles) = &roles {
        roles.present_tokens_of(&jwt_svids);
    }
    let signers = signers(config.outbound.as_ref(), roles.as_ref(), &identity);
    let web_identity = roles.clone().map(|roles| -> Arc<dyn Mint> {
        let identity = identity.clone();
        Arc::new(FromSts { roles, identity })
    });

    // What carries requests belongs to the data runtime: its sockets, its timers, its tasks.
    let on_data = data.enter();
    // Two pools, so that callers who keep the app busy leave the app's own calls their connections.
    let to_app = Pool::new(pool::MAX_CONNECTIONS);
    to_app.register(&mut registry, "app");
    let to_upstreams = Pool::new(pool::MAX_CONNECTIONS);
    to_upstreams.register(&mut registry, "upstream");
    let mut serving = Serving::default();
    let issuers = Issuers::new(&mut registry);
    let counts = config.audit.emf.as_ref().map(|_| Counts::default());
    let environment = Environment {
        identity: identity.clone(),
        revocations: renewal.revocations().clone(),
        issuers: issuers.clone(),
        secrets: secrets.clone(),
        evaluations: Evaluations::default(),
        pool: to_app,
        audit: audit.clone(),
        counts: counts.clone(),
        metrics: inbound::Metrics::new(&mut registry),
        server_metrics: server_metrics.clone(),
        draining: draining.clone(),
    };
    let (mut inbound, mut live) = (Vec::new(), Vec::new());
    let one_in = config.audit.one_in();
    for (config, listener) in config.inbound.iter().zip(sockets.inbound) {
        let handle = inbound::start(config, one_in, listener, &environment)?;
        inbound.push(handle.address().clone());
        live.push(handle.live());
        serving.0.push(tokio::spawn(handle.drained()));
    }
    let tried = (!issuers.is_empty()).then(|| {
        let fetching = "the keys of issuers whose tokens are accepted are being fetched";
        readiness.condition("issuers", fetching)
    });
    issuers.keep_warm(tried);
    let (mut outbound, mut outbound_tcp) = (None, Vec::new());
    if let (Some(config), Some(listener)) = (&config.outbound, sockets.outbound) {
        outbound = Some(listener.address().clone());
        let setup = outbound::Setup {
            config,
            identity: identity.clone(),
            revocations: renewal.revocations().clone(),
            tokens: &tokens,
            secrets: &secrets,
            signers,
            web_identity,
            public_tls: outbound::public_tls()?,
            pool: &to_upstreams,
        };
        let service = Outbound::new(setup, &mut registry)?;
        for (carrier, listener) in service.tcp().iter().zip(sockets.outbound_tcp) {
            outbound_tcp.push(listener.address().clone());
            serving.0.push(tokio::spawn(server::serve_bytes(
                listener,
                Arc::clone(carrier),
                Limits::default(),
                server_metrics.listener("outbound-tcp"),
                draining.clone(),
            )));
        }
        let metrics = server_metrics.listener("outbound");
        serving.0.push(tokio::spawn(server::serve(
            listener,
            service,
            Limits::default(),
            metrics,
            draining.clone(),
        )));
    }
    drop(on_data);
    let mut app_ports = AppPorts::default();
    app_ports.watch(&config.inbound, |why| readiness.condition("app-port", why));
    let local_metrics = local::Metrics::new(&mut registry);
    let setup = local::Setup {
        config: &config.local,
        identity: identity.clone(),
        renewal: &renewal,
        tokens: &tokens,
        roles: roles.as_ref(),
        server_metrics: &server_metrics,
        metrics: &local_metrics,
        draining: draining.clone(),
    };
    let local = local::start(sockets.local, &setup)?;
    serving.0.extend(local.tasks);
    let files = &config.local.files;
    let files = local::files::start(files, &identity, &draining, &mut registry)?;
    serving.0.extend(files.tasks);
    // Of every audience and secret a route names, now that they are named.
    let has_identity = || {
        let mut identity = identity.clone();
        async move {
            let _ = identity.wait_for(Option::is_some).await;
        }
    };
    let fresh = tokens.keep_fresh(has_identity());
    let kept_secrets = secrets.keep_fresh(has_identity());

    let status = status(
        config,
        &identity,
        &renewal,
        (&tokens, &secrets),
        roles,
        (&local.addresses, &local_metrics),
        files.states,
    );
    let admin_is = Arc::new(Admin {
        readiness: readiness.clone(),
        registry,
        started: SystemTime::now(),
        status,
        drain: {
            let (drain, grace) = (drain.clone(), config.drain.0);
            Arc::new(move || drain.start(grace))
        },
    });
    let mut admin_serving = Serving::default();
    let mut serve_admin = |listener: Option<Listener>, surface| {
        let listener = listener?;
        let address = listener.address().clone();
        let metrics = server_metrics.listener("admin");
        let serving = admin::start(
            listener,
            surface,
            Arc::clone(&admin_is),
            metrics,
            admin_draining.clone(),
        );
        admin_serving.0.push(serving);
        Some(address)
    };
    let probes = serve_admin(sockets.probes, Surface::Probes);
    let admin = serve_admin(sockets.admin, Surface::Full);
    let emf = config.audit.emf.as_ref();
    let counting = counts
        .zip(emf)
        .map(|(counts, emf)| counts.start(audit.clone(), emf.namespace.clone(), emf.every.0));
    not_draining.met();

    Ok(Agent {
        inbound,
        outbound,
        outbound_tcp,
        local: local.addresses,
        probes,
        admin,
        identity,
        readiness,
        drain_wanted: draining,
        drain,
        admin_drain,
        serving,
        admin_serving,
        grace: config.drain.0,
        not_draining,
        audit,
        counting,
        live,
        data: data.clone(),
        _renewal: renewal,
        _fresh: fresh,
        _secrets: kept_secrets,
        app_ports: Mutex::new(app_ports),
        _jwt_svids: jwt_svids,
    })
}

impl Agent {
    /// Waits until a drain was asked for over the admin socket.
    pub async fn drain_wanted(&self) {
        self.drain_wanted.clone().started().await;
    }

    /// Has its inbound listeners serve by `config` from now on, on live connections as well: all of them, or none where
    /// one can't. A listener that `config` does not have stays as it is. Dropped before it is done, it changes nothing.
    ///
    /// # Errors
    /// What can't be.
    pub async fn reload(&self, config: &AgentConfig) -> Result<(), ReloadError> {
        let mut changes = Vec::new();
        for live in &self.live {
            let of_it = |(_, it): &(usize, &config::inbound::Inbound)| live.is_of(it);
            let Some((index, inbound)) = config.inbound.iter().enumerate().find(of_it) else {
                continue;
            };
            let change = live.prepare(inbound, config.audit.one_in()).await;
            changes.push(change.map_err(|why| ReloadError { index, why })?);
        }
        // What it starts belongs to the data runtime, as at start.
        let on_data = self.data.enter();
        changes.into_iter().for_each(Change::apply);
        drop(on_data);
        let listeners: Vec<_> = self.live.iter().map(Live::config).collect();
        let mut app_ports = self
            .app_ports
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        app_ports.watch(&listeners, |why| self.readiness.condition("app-port", why));
        Ok(())
    }

    /// Stops accepting, lets requests under way end (for as long as `drain` of the configuration
    /// says), then ends. Returns how many connections were cut.
    pub async fn drain(mut self) -> usize {
        self.not_draining.unmet("draining");
        self.drain.start(self.grace);
        let cut = self.serving.ended().await;
        self.admin_drain.start(ADMIN_GRACE);
        self.admin_serving.ended().await;
        if let Some(counting) = self.counting.take() {
            counting.finish().await;
        }
        if !self.audit.flush(AUDIT_FLUSH) {
            tracing::error!("the last audit lines could not be written");
        }
        cut
    }
}

/// Every socket of an agent, bound.
struct Sockets {
    inbound: Vec<Listener>,
    outbound: Option<Listener>,
    outbound_tcp: Vec<Listener>,
    local: local::Sockets,
    probes: Option<Listener>,
    admin: Option<Listener>,
}

impl Sockets {
    fn bind(config: &AgentConfig) -> Result<Self, BindError> {
        let bind = |listen: &Listen, setting: &str| {
            Listener::bind(listen).map_err(|error| error.at(setting))
        };
        Ok(Self {
            inbound: config
                .inbound
                .iter()
                .enumerate()
                .map(|(index, it)| bind(&it.listen, &format!("inbound[{index}].listen")))
                .collect::<Result<_, _>>()?,
            outbound: config
                .outbound
                .as_ref()
                .map(|it| bind(&it.listen, "outbound.listen"))
                .transpose()?,
            outbound_tcp: config
                .outbound
                .iter()
                .flat_map(|it| it.tcp.iter().enumerate())
                .map(|(index, it)| bind(&it.listen, &format!("outbound.tcp[{index}].listen")))
                .collect::<Result<_, _>>()?,
            local: local::Sockets::bind(&config.local)?,
            probes: config
                .admin
                .probes
                .as_ref()
                .map(|listen| bind(listen, "admin.probes"))
                .transpose()?,
            admin: config
                .admin
                .listen
                .as_ref()
                .map(Listener::bind_private)
                .transpose()
                .map_err(|error| error.at("admin.listen"))?,
        })
    }
}

/// The tasks that serve listeners.
#[derive(Debug, Default)]
struct Serving(Vec<JoinHandle<usize>>);

impl Serving {
    async fn ended(&mut self) -> usize {
        let mut cut = 0;
        for serving in self.0.drain(..) {
            cut += serving.await.unwrap_or_default();
        }
        cut
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

/// AWS is looked at only where a route, a listener, the attestation or a local endpoint needs it.
async fn roles(config: &AgentConfig, registry: &mut Registry) -> Result<Option<Roles>, StartError> {
    let needs = |route: &Route| {
        let mut secrets = route.secrets();
        route.sigv4.is_some()
            || route.aws_web_identity.is_some()
            || secrets.any(|it| matches!(it, SecretRef::Managed(_)))
    };
    let attests = matches!(
        config.attestation,
        Attestation::AwsWebIdentity | Attestation::AwsCallerIdentity
    );
    let gives = !config.local.aws_credentials.is_empty();
    let mut accepted = config.inbound.iter().flat_map(|it| &it.accept);
    let compares = accepted.any(|it| matches!(it.secret(), Some(SecretRef::Managed(_))));
    let mut routes = config.outbound.iter().flat_map(|it| &it.routes);
    if !attests && !gives && !compares && !routes.any(needs) {
        return Ok(None);
    }
    let roles = Roles::from_environment(&config.aws).await?;
    roles.register(registry);
    Ok(Some(roles))
}

fn secrets_of(
    config: &AgentConfig,
    roles: Option<&Roles>,
    identity: &identity::Current,
) -> Secrets {
    let settings = &config.aws.secretsmanager;
    let vault = roles.map(|roles| {
        let vault = FromSecretsManager::new(roles.clone(), settings.clone(), identity.clone());
        Arc::new(vault) as Arc<dyn secrets::Vault>
    });
    Secrets::new(vault, settings.refresh.0)
}

fn signers(
    outbound: Option<&config::outbound::Outbound>,
    roles: Option<&Roles>,
    identity: &identity::Current,
) -> BTreeMap<String, Arc<dyn Sign>> {
    let mut signers = BTreeMap::<String, Arc<dyn Sign>>::new();
    let (Some(outbound), Some(roles)) = (outbound, roles) else {
        return signers;
    };
    for route in &outbound.routes {
        if let Some(sigv4) = &route.sigv4 {
            let signer = NamedSigner::new(roles.clone(), sigv4.clone(), identity.clone());
            signers.insert(route.host.clone(), Arc::new(signer));
        }
    }
    signers
}
