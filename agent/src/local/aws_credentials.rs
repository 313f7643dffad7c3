//! AWS credentials of one role, for the app that must call AWS itself: as the container credential provider of ECS and
//! EKS Pod Identity gives them, or (`unsafe_imds`) as instance metadata does.
//!
//! ```text
//! connection ──▶ guard (Host, Origin, forwarded) ──▶ who asks (bearer | uid, gid | IMDSv2 token) ──▶ path, method
//!                                                                                                      │
//! role session, kept fresh in the background from the first identity on ◀──────────────────────────────┘
//! ```

use std::{sync::OnceLock, time::Duration};

use http::{Request, Response};
use hyper::body::Incoming;
use thiserror::Error;
use tokio::task::JoinHandle;

use super::{
    Setup,
    endpoint::{Answer, Endpoint, Protocol, Refusal, Why},
};
use crate::{
    aws::{NotGiven, RoleSession, Roles, SessionCredentials, SessionError},
    config::{local::AwsCredentials, private::PrivateError},
    http::{
        body::Body,
        server::{Limits, Listener},
    },
    identity,
};
use bearer::Bearer;
use imds::Imds;

mod answer;
mod bearer;
mod container;
mod imds;

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

/// What one endpoint gives.
struct Credentials {
    config: AwsCredentials,
    /// The role's ARN.
    role: String,
    roles: Roles,
    identity: identity::Current,
    /// Named when the workload has a name.
    session: OnceLock<RoleSession>,
    kind: Kind,
}

/// What is spoken there.
enum Kind {
    /// The container credential provider's protocol; with a bearer token on a loopback address.
    Container(Option<Bearer>),
    /// IMDSv2.
    Imds(Box<Imds>),
}

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
    let role = roles.arn(&config.role).unwrap_or_default().to_owned();
    let counts = &setup.metrics.aws_credentials;
    let counts = counts.counts(vec![("role", role.clone())]);
    let credentials = Credentials {
        config: config.clone(),
        role,
        roles: roles.clone(),
        identity: setup.identity.clone(),
        session: OnceLock::new(),
        kind,
    };
    credentials.announce(&listener);
    let endpoint = Endpoint::new(credentials, setting, &listener, &config.clients, counts);
    let metrics = setup.server_metrics.listener("aws-credentials");
    let serving = endpoint.serve(listener, limits(), metrics, setup.draining.clone());
    Ok(tokio::spawn(async move {
        tokio::select! {
            cut = serving => cut,
            never = endpoint.protocol.keep_fresh() => match never {},
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

impl Credentials {
    fn announce(&self, listener: &Listener) {
        let (listen, role) = (listener.address().to_string(), &self.role);
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
        let identity = self.identity.borrow().clone();
        let workload = identity.as_ref().map(|it| it.svid.id());
        let session = self.roles.session(&self.config.role, workload);
        let session = session.map_err(|why| {
            let kind = match why {
                SessionError::NoIdentity => Why::Unavailable,
                // What the configuration's own check lets through is a mistake in it.
                _ => answer::REFUSED,
            };
            Refusal::new(kind, why.to_string())
        })?;
        Ok(self.session.get_or_init(|| session))
    }

    async fn give(&self) -> Result<SessionCredentials, Refusal> {
        let given = self.roles.give(self.session()?, PATIENCE).await;
        given.map_err(|why| match why {
            NotGiven::Refused(why) => Refusal::new(answer::REFUSED, why),
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
}

impl Protocol for Credentials {
    const REFUSES: &'static [Why] = answer::REFUSES;

    async fn answer(&self, request: Request<Incoming>) -> Result<Answer, Refusal> {
        match &self.kind {
            Kind::Container(bearer) => container::answer(self, bearer.as_ref(), &request).await,
            Kind::Imds(imds) => imds.answer(self, &request).await,
        }
    }

    fn refuse(&self, refusal: &Refusal) -> Response<Body> {
        match self.kind {
            Kind::Container(_) => answer::refusal(refusal),
            Kind::Imds(_) => imds::refusal(refusal),
        }
    }
}
