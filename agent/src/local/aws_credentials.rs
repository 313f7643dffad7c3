//! AWS credentials of one role, for the app that must call AWS itself: as the container credential provider of ECS and
//! EKS Pod Identity gives them, or (`unsafe_imds`) as instance metadata does.
//!
//! ```text
//! connection ──▶ guard (Host, Origin, forwarded) ──▶ who asks (bearer | uid, gid | IMDSv2 token) ──▶ path, method
//!                                                                                                      │
//! role session, kept fresh in the background from the first identity on ◀──────────────────────────────┘
//! ```

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use http::{Request, Response};
use hyper::body::Incoming;
use thiserror::Error;
use tokio::task::JoinHandle;

use super::{Setup, asker::Asker, asker::Door, guard};
use crate::{
    aws::{self, NotGiven, RoleSession, Roles, SessionCredentials},
    config::{local::AwsCredentials, private::PrivateError, value::Listen},
    http::{
        body::Body,
        server::{self, Connection, Limits, Listener, Opened, Refused},
    },
    identity,
};
use answer::{Refusal, Why};
use bearer::Bearer;
use imds::Imds;

pub(super) use metrics::Metrics;

mod answer;
mod bearer;
mod container;
mod imds;
mod metrics;

/// How long a request waits for credentials when there are none: SDKs wait a second for an answer (instance metadata,
/// JavaScript), and take 503 for "ask again".
const PATIENCE: Duration = Duration::from_millis(700);

/// Connections at once, on one endpoint: the processes of one pod or task, each for the moment of a question.
const MAX_CONNECTIONS: usize = 256;

/// Time a connection may be idle. SDKs ask once in minutes or hours.
const IDLE: Duration = Duration::from_secs(10);

/// Age at which a connection is closed: nobody keeps a place by asking for ever.
const MAX_AGE: Duration = Duration::from_secs(60);

/// Why an endpoint can't be served.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// The bearer token can't be handed to its readers.
    #[error(
        "{setting}.token_file: {why}. Its directory must exist, and this process must be able to write there"
    )]
    Token {
        /// `local.aws_credentials[0]`
        setting: String,
        /// What the system said.
        why: PrivateError,
    },
    /// The system gives no randomness.
    #[error("{setting}: no random bytes can be had from the system")]
    NoRandomness {
        /// `local.aws_credentials[0]`
        setting: String,
    },
    /// There is nothing to get credentials from.
    #[error("{setting}: AWS is not set up in this process; please report this")]
    NoAws {
        /// `local.aws_credentials[0]`
        setting: String,
    },
}

/// One endpoint.
struct Endpoint {
    config: AwsCredentials,
    listen: Listen,
    door: Door,
    roles: Roles,
    identity: identity::Current,
    /// Named when the workload has a name.
    session: OnceLock<RoleSession>,
    kind: Kind,
    counters: metrics::Counters,
}

/// What is spoken there.
enum Kind {
    /// The container credential provider's protocol; with a bearer token on a loopback address.
    Container(Option<Bearer>),
    /// IMDSv2.
    Imds(Box<Imds>),
}

/// What the requests of one connection share.
struct Session {
    asker: Asker,
    endpoint: Arc<Endpoint>,
}

struct Service(Arc<Endpoint>);

/// Serves on `listener`, in a task of the current runtime, which also keeps the credentials fresh.
///
/// # Errors
/// See [`StartError`].
pub(super) fn start(
    index: usize,
    config: &AwsCredentials,
    listener: Listener,
    setup: &Setup<'_>,
) -> Result<JoinHandle<usize>, StartError> {
    let setting = format!("local.aws_credentials[{index}]");
    let Some(roles) = setup.roles else {
        return Err(StartError::NoAws { setting });
    };
    let no_randomness = |_| StartError::NoRandomness {
        setting: setting.clone(),
    };
    let kind = match &config.token_file {
        _ if config.unsafe_imds => Kind::Imds(Box::new(Imds::new().map_err(no_randomness)?)),
        None => Kind::Container(None),
        Some(file) => {
            let bearer = Bearer::new().map_err(no_randomness)?;
            let written = bearer.write(file);
            written.map_err(|why| StartError::Token {
                setting: setting.clone(),
                why,
            })?;
            Kind::Container(Some(bearer))
        }
    };
    let endpoint = Arc::new(Endpoint {
        config: config.clone(),
        listen: listener.address().clone(),
        door: Door::new(&config.clients),
        roles: roles.clone(),
        identity: setup.identity.clone(),
        session: OnceLock::new(),
        kind,
        counters: setup.metrics.aws_credentials.counters(&config.role),
    });
    endpoint.announce();
    let (metrics, draining) = (
        setup.server_metrics.listener("aws-credentials"),
        setup.draining.clone(),
    );
    Ok(tokio::spawn(async move {
        let service = Arc::new(Service(Arc::clone(&endpoint)));
        let serve = server::serve(listener, service, limits(), metrics, draining);
        tokio::select! {
            cut = serve => cut,
            never = endpoint.keep_fresh() => match never {},
        }
    }))
}

fn limits() -> Limits {
    Limits {
        max_connections: MAX_CONNECTIONS,
        idle: IDLE,
        max_age: Some(MAX_AGE),
        ..Limits::default()
    }
}

impl Endpoint {
    fn announce(&self) {
        let (listen, role) = (self.listen.to_string(), &self.config.role);
        match self.kind {
            Kind::Container(_) => tracing::info!(listen, role, "AWS credentials are given here"),
            Kind::Imds(_) => tracing::warn!(
                listen,
                role,
                "instance metadata is emulated here (unsafe_imds): every process of this machine (its pod or task) \
                 has the role for the asking"
            ),
        }
    }

    /// The role session, once its name is known.
    fn session(&self) -> Result<&RoleSession, Refusal> {
        if let Some(session) = self.session.get() {
            return Ok(session);
        }
        let config = &self.config;
        let name = {
            let identity = self.identity.borrow();
            let id = identity.as_ref().map(|it| it.svid.id());
            aws::session_name(config.session_name.as_deref(), id)
        };
        let name = name.ok_or_else(|| {
            Refusal::new(
                Why::Unavailable,
                "this agent has no identity yet, and the role session is named after it",
            )
        })?;
        let external_id = config.external_id.as_deref();
        let session = RoleSession::new(&config.role, &name, external_id, config.duration.0)
            // What the configuration's own check lets through is a mistake in it.
            .map_err(|why| Refusal::new(Why::Refused, why.to_string()))?;
        Ok(self.session.get_or_init(|| session))
    }

    async fn credentials(&self) -> Result<SessionCredentials, Refusal> {
        let given = self.roles.give(self.session()?, PATIENCE).await;
        given.map_err(|why| match why {
            NotGiven::Refused(why) => Refusal::new(Why::Refused, why),
            other => Refusal::new(Why::Unavailable, other.to_string()),
        })
    }

    /// From the first identity on, whether or not anybody asks: the first to ask may wait for one second only.
    async fn keep_fresh(&self) -> std::convert::Infallible {
        let mut identity = self.identity.clone();
        loop {
            match self.session() {
                Ok(session) => return self.roles.keep_fresh(session.clone()).await,
                Err(_) => {
                    if identity.changed().await.is_err() {
                        // Whoever renews the identity is gone: the agent ends.
                        return std::future::pending().await;
                    }
                }
            }
        }
    }

    async fn answer(&self, asker: &Asker, request: &Request<Incoming>) -> Response<Body> {
        let answered = match guard::guard(&self.listen, request) {
            Err(foreign) => Err(Refusal::new(Why::of(&foreign), foreign.to_string())),
            Ok(()) if !asker.may_ask() => Err(Refusal::new(
                Why::NotAllowed,
                "local.aws_credentials[].clients names neither this process's user nor its group",
            )),
            Ok(()) => match &self.kind {
                Kind::Container(bearer) => container::answer(self, bearer.as_ref(), request).await,
                Kind::Imds(imds) => imds.answer(self, request).await,
            },
        };
        match answered {
            Ok(answer) => {
                if answer.gives {
                    self.counters.given();
                }
                answer.response
            }
            Err(refusal) => {
                let (remote, outcome) = (asker.remote(), refusal.why.word());
                tracing::debug!(%remote, role = self.config.role, outcome, "no AWS credentials: {}", refusal.message);
                self.counters.refused(refusal.why);
                refusal.response(matches!(self.kind, Kind::Imds(_)))
            }
        }
    }
}

impl server::Service for Service {
    type Session = Session;

    fn open(&self, connection: Connection) -> Result<Opened<Session>, Refused> {
        let session = Session {
            asker: self.0.door.asker(connection.remote),
            endpoint: Arc::clone(&self.0),
        };
        Ok(Opened {
            session: Arc::new(session),
            expires: None,
        })
    }

    async fn call(session: Arc<Session>, request: Request<Incoming>) -> Response<Body> {
        session.endpoint.answer(&session.asker, &request).await
    }
}
