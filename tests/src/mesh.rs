//! A whole mesh in the test's own runtime: an authority, agents, apps.
//!
//! ```text
//!  Client ─▶ orders' agent ══ mTLS ══▶ payments' agent ─▶ App        all real, on loopback
//!                 └────────── authority ──────┘
//! ```
//!
//! Everything is started the way the commands start it: from YAML text, through
//! [`warifu_agent::config`], by [`warifu_agent::app`]. What a test does not say is filled in so that a
//! call works; what it says is YAML, so that tests read like configurations:
//!
//! ```ignore
//! let mesh = Mesh::start().await;
//! let app = mesh.app("payments").await;
//! let payments = mesh.agent("payments").app(&app).allow(ORDERS).start().await;
//! let orders = mesh.agent("orders").route_to("payments", &payments, "").start().await;
//! let answer = orders.client().get("http://payments/charges").send().await?;
//! ```
//!
//! Nothing outlives the test: processes there are none, sockets and files are in a temporary
//! directory, and what is dropped is cut.

mod agent;
mod app;
mod authority;
mod caller;
mod claimant;
mod direct;
mod load;
mod plain;
mod streamed;
mod wait;
mod workload;

use std::path::{Path, PathBuf};

use tempfile::TempDir;

pub use self::{
    agent::{Agent, AgentBuilder},
    app::{Answer, App, Held, Seen},
    authority::{Authority, AuthorityBuilder},
    caller::{Caller, Told},
    claimant::{Claimant, Refusal},
    direct::{Direct, RawAnswer},
    load::{Asks, Load, Report},
    plain::{ask, text},
    streamed::{Sender, Streamed, streamed},
    wait::{DEADLINE, until},
    workload::Workload,
};

/// The trust domain of every mesh.
pub const TRUST_DOMAIN: &str = "example.org";

/// `accept`: an X.509-SVID of the trust domain. What an agent does unless told otherwise.
pub const MTLS: &str = "[{mtls: {trust_domains: [example.org]}}]";

/// `accept`: an X.509-SVID, and a token for `payments` beside it where one is presented.
pub const MTLS_AND_JWT: &str = "[{mtls: {trust_domains: [example.org]}}, \
                                {jwt: {profile: jwt-svid, audiences: [payments]}}]";

/// `allow`: orders may ask for everything.
pub const ORDERS: &str = r#"[{peer: "spiffe://example.org/orders", to: ["* /**", "* /"]}]"#;

/// An authority, a directory, and what is started in them.
#[derive(Debug)]
pub struct Mesh {
    /// Who issues.
    pub authority: Authority,
    // Last, so that it goes when nobody writes there any more.
    dir: TempDir,
}

/// *orders* calls *payments*, whose app is on a unix socket: what most scenarios begin with.
#[derive(Debug)]
pub struct Shop {
    /// The agent of the caller. Its route `payments` has `mtls`, and `jwt` where the shop has.
    pub orders: Agent,
    /// The agent of the called.
    pub payments: Agent,
    /// The called.
    pub app: App,
    /// What they stand in.
    pub mesh: Mesh,
}

impl Mesh {
    /// With a memory CA and the lives of the configuration's defaults.
    pub async fn start() -> Self {
        Self::with(|authority| authority).await
    }

    /// With an authority told how to be.
    pub async fn with(tell: impl FnOnce(AuthorityBuilder) -> AuthorityBuilder) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("warifu-mesh-")
            .tempdir()
            .expect("a temporary directory");
        // Boxed: a whole authority's start, in every test's own future, is more than the compiler follows.
        let authority = Box::pin(tell(AuthorityBuilder::new(dir.path())).start()).await;
        Self { authority, dir }
    }

    /// An app on a unix socket that believes its agent.
    pub async fn app(&self, name: &str) -> App {
        App::unix(&self.dir_of(&format!("{name}-app"))).await
    }

    /// An app on TCP that believes its agent's signed context.
    pub async fn app_over_tcp(&self, name: &str) -> App {
        App::signed_context(&self.dir_of(&format!("{name}-app"))).await
    }

    /// A server on TCP that knows nothing of agents: any upstream, any language.
    pub async fn plain_app(&self) -> App {
        App::plain().await
    }

    /// An agent to be; `name` is its `service` fact too, and so its SPIFFE ID's path.
    pub fn agent(&self, name: &str) -> AgentBuilder<'_> {
        AgentBuilder::new(&self.authority, self.dir_of(name), name)
    }

    /// An identity without an agent around it: for callers that say what no agent would say.
    pub async fn workload(&self, service: &str) -> Workload {
        Workload::attest(&self.authority, service).await
    }

    /// Somebody with a renewal key of its own, and evidence that no agent would present.
    pub fn claimant(&self) -> Claimant {
        Claimant::of(&self.authority)
    }

    /// The directory everything is in.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn dir_of(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

impl Shop {
    /// mTLS only.
    pub async fn open() -> Self {
        Self::open_in(Mesh::start().await, MTLS, "").await
    }

    /// mTLS and a JWT-SVID.
    pub async fn open_with_jwt() -> Self {
        Self::open_in(
            Mesh::start().await,
            MTLS_AND_JWT,
            "jwt: {audience: payments}",
        )
        .await
    }

    /// In `mesh`, with what payments accepts and what the route has beside `mtls`.
    pub async fn open_in(mesh: Mesh, accept: &str, route: &str) -> Self {
        let app = mesh.app("payments").await;
        let payments = mesh
            .agent("payments")
            .app(&app)
            .accept(accept)
            .allow(ORDERS);
        let payments = payments.start().await;
        let orders = mesh.agent("orders").route_to("payments", &payments, route);
        let orders = orders.start().await;
        Self {
            orders,
            payments,
            app,
            mesh,
        }
    }
}
