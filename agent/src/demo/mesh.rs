//! What the demo runs: an authority, two agents and two services, configured by files like any other.

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{net::UnixListener, runtime, task::JoinHandle};
use warifu::{
    Client,
    caller::{self, AppSocket},
};

use super::{Failed, services};
use crate::{
    app::{self, Agent, Authority},
    config::{self, value::Listen},
};

/// Life of an X.509-SVID in the demo: renewed at a third of it, so every two seconds.
pub(super) const SVID_TTL: Duration = Duration::from_secs(6);

/// How long an agent may take to become ready. Far more than it needs; a demo on a busy machine must
/// not fail for that.
const READY_WITHIN: Duration = Duration::from_secs(15);

/// Everything that runs.
pub(super) struct Mesh {
    pub(super) dir: PathBuf,
    pub(super) authority: Authority,
    pub(super) orders: Agent,
    pub(super) payments: Agent,
    services: Vec<JoinHandle<()>>,
}

impl Mesh {
    /// Starts the authority alone.
    pub(super) async fn authority(dir: &Path) -> Result<Authority, Failed> {
        let file = dir.join("authority.yaml");
        write(&file, &authority_yaml(dir))?;
        Ok(app::start_authority(&config::load_authority(&file)?).await?)
    }

    /// Starts agents and services beside a running authority.
    pub(super) async fn start(
        dir: &Path,
        authority: Authority,
        aws_endpoint: Option<&str>,
    ) -> Result<Self, Failed> {
        let payments = agent(dir, "payments", &authority, &payments_yaml(dir)).await?;
        let Some(Listen::Tcp(inbound)) = payments.inbound.first() else {
            return Err(Failed::new("payments' agent has no inbound listener"));
        };
        let orders = agent(
            dir,
            "orders",
            &authority,
            &orders_yaml(dir, *inbound, aws_endpoint),
        )
        .await?;

        let payments_socket = AppSocket::bind(dir.join("payments.sock"), [caller::own_uid()?])?;
        let orders_listener = UnixListener::bind(dir.join("orders.sock"))?;
        let mesh = Self {
            dir: dir.to_owned(),
            authority,
            orders,
            payments,
            services: Vec::new(),
        };
        let services = vec![
            services::payments(payments_socket),
            services::orders(orders_listener, mesh.client()?),
        ];
        Ok(Self { services, ..mesh })
    }

    /// What `orders` calls others with.
    pub(super) fn client(&self) -> Result<Client, Failed> {
        Ok(Client::new(&format!("unix:{}", self.outbound().display()))?)
    }

    /// The outbound listener of `orders`' agent.
    pub(super) fn outbound(&self) -> PathBuf {
        self.dir.join("orders-outbound.sock")
    }

    /// Where `orders` takes orders.
    pub(super) fn orders_service(&self) -> PathBuf {
        self.dir.join("orders.sock")
    }

    /// The inbound listener of `payments`' agent.
    pub(super) fn payments_inbound(&self) -> Result<SocketAddr, Failed> {
        match self.payments.inbound.first() {
            Some(Listen::Tcp(address)) => Ok(*address),
            _ => Err(Failed::new("payments' agent has no inbound listener")),
        }
    }

    /// Ends everything in order: callers first.
    pub(super) async fn end(self) {
        self.orders.drain().await;
        self.payments.drain().await;
        self.services.iter().for_each(JoinHandle::abort);
        self.authority.drain().await;
    }
}

/// Makes a join token for `service`, writes its agent's configuration, and starts the agent.
pub(super) async fn agent(
    dir: &Path,
    service: &str,
    authority: &Authority,
    rest: &str,
) -> Result<Agent, Failed> {
    let facts = [("service".to_owned(), service.to_owned())].into();
    let token = authority
        .issuer
        .create_join_token("join", facts, Duration::from_secs(60))
        .await?;
    let token_file = dir.join(format!("{service}.token"));
    write(&token_file, token.token.expose())?;

    let pins: Vec<String> = authority
        .issuer
        .root_pins()
        .iter()
        .map(|pin| format!("{:?}", pin.to_string()))
        .collect();
    let yaml = format!(
        "trust_domain: demo.internal
authority:
  url: https://{address}
  root_spki_sha256: [{pins}]
attestation: {{join-token: {{token: \"file:{token}\"}}}}
audit: {{file: {dir}/{service}-audit.jsonl}}
{rest}",
        address = authority.issuer.address(),
        pins = pins.join(", "),
        token = token_file.display(),
        dir = dir.display(),
    );
    let file = dir.join(format!("{service}.yaml"));
    write(&file, &yaml)?;
    let agent = app::start_agent(&config::load_agent(&file)?, &runtime::Handle::current()).await?;
    if tokio::time::timeout(READY_WITHIN, agent.readiness.ready())
        .await
        .is_err()
    {
        let missing = agent.readiness.missing();
        return Err(Failed::new(format!(
            "{service}' agent is not ready: {missing:?}"
        )));
    }
    Ok(agent)
}

fn authority_yaml(dir: &Path) -> String {
    format!(
        "trust_domain: demo.internal
listen: 127.0.0.1:0
admin: unix:{dir}/authority.sock
ca: {{key: memory}}
state: memory
bundle_refresh_hint: 1s
attestors:
  join: {{kind: join-token}}
rules:
- {{attestor: join, match: {{service: orders}}, id: /orders, ttl: {ttl}s, audiences: [payments], scopes: [charges.write]}}
- {{attestor: join, match: {{service: payments}}, id: /payments, ttl: {ttl}s}}
audit_file: {dir}/authority-audit.jsonl
",
        dir = dir.display(),
        ttl = SVID_TTL.as_secs(),
    )
}

fn payments_yaml(dir: &Path) -> String {
    format!(
        "inbound:
- listen: 127.0.0.1:0
  forward: unix:{dir}/payments.sock
  accept:
  - mtls: {{trust_domains: [demo.internal]}}
  - jwt: {{profile: jwt-svid, audiences: [payments]}}
  allow:
  - peer: spiffe://demo.internal/orders
    subject: {{scope: charges.write}}
    to: [\"GET /charges\", \"POST /charges\"]
  - {{peer: \"spiffe://demo.internal/orders\", to: [\"GET /whoami\"]}}
admin: {{listen: \"unix:{dir}/payments-admin.sock\"}}
",
        dir = dir.display(),
    )
}

fn orders_yaml(dir: &Path, payments: SocketAddr, aws_endpoint: Option<&str>) -> String {
    let mut yaml = format!(
        "outbound:
  listen: unix:{dir}/orders-outbound.sock
  routes:
  - host: payments
    upstream: https://{payments}
    mtls: {{expect: \"spiffe://demo.internal/payments\"}}
    jwt: {{audience: payments}}
",
        dir = dir.display(),
    );
    if let Some(endpoint) = aws_endpoint {
        yaml += &super::aws::routes(endpoint);
    }
    yaml + &format!(
        "admin: {{listen: \"unix:{}/orders-admin.sock\"}}\n",
        dir.display()
    ) + &aws_endpoint.map(super::aws::settings).unwrap_or_default()
}

/// For this user only: a join token is among them.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    io::Write::write_all(&mut file, text.as_bytes())
}
