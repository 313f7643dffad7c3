//! What the scenarios of Envoy with our secrets share: the bootstrap of `docs/envoy.md`, as it stands there.

use std::{fs, net::SocketAddr, path::Path};

use warifu::Client;
use warifu_tests::{
    mesh::{AgentBuilder, Mesh},
    peers::Envoy,
};

/// The bootstrap of the documentation, with the addresses of a test.
pub(crate) struct Bootstrap(String);

impl Bootstrap {
    /// Asks the agent called `agent`. Its listeners ask for port 0.
    pub(crate) fn of(mesh: &Mesh, agent: &str) -> Self {
        Self::titled("Envoy's whole bootstrap", mesh, agent)
            .with("port_value: 4140", "port_value: 0")
            .with("type: STRICT_DNS", "type: STATIC")
    }

    /// The same for an Envoy that asks what it may let pass.
    pub(crate) fn asking(mesh: &Mesh, agent: &str) -> Self {
        Self::titled("Envoy's whole bootstrap, where it asks", mesh, agent)
    }

    fn titled(title: &str, mesh: &Mesh, agent: &str) -> Self {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/envoy.md");
        let page = fs::read_to_string(page).unwrap();
        let (_, rest) = page.split_once(&format!("# {title}\n")).unwrap();
        let (bootstrap, _) = rest.split_once("```").unwrap();
        Self(bootstrap.to_owned())
            .with("port_value: 9901", "port_value: 0")
            .with("0.0.0.0, port_value: 8443", "127.0.0.1, port_value: 0")
            .with("/run/warifu/workload.sock", &socket(mesh, agent))
    }

    /// The same, with `new` for `old`.
    pub(crate) fn with(self, old: &str, new: &str) -> Self {
        assert!(self.0.contains(old), "{old} is not in docs/envoy.md");
        Self(self.0.replace(old, new))
    }

    /// The app that callers reach.
    pub(crate) fn app(self, url: &str) -> Self {
        let address: SocketAddr = url.trim_start_matches("http://").parse().unwrap();
        self.with(
            "port_value: 8080",
            &format!("port_value: {}", address.port()),
        )
    }

    /// What the other app's calls reach.
    pub(crate) fn payments(self, address: SocketAddr) -> Self {
        let (old, new) = ("payments.internal, port_value: 8443", address);
        let new = format!("127.0.0.1, port_value: {}", new.port());
        self.with(old, &new)
    }

    /// Nobody calls over its outbound listener.
    pub(crate) fn calls_nobody(self) -> Self {
        self.payments(SocketAddr::from(([127, 0, 0, 1], 1)))
    }

    pub(crate) async fn launch(self, dir: &Path) -> Envoy {
        Envoy::launch(dir, &self.0).await.unwrap()
    }
}

/// `local.workload_api` for an agent, with further keys.
pub(crate) fn with_socket<'a>(
    mesh: &Mesh,
    agent: AgentBuilder<'a>,
    name: &str,
) -> AgentBuilder<'a> {
    let listen = socket(mesh, name);
    agent.more(&format!(
        "local: {{workload_api: {{listen: \"unix:{listen}\"}}}}"
    ))
}

/// Where the agent called `name` is asked.
pub(crate) fn socket(mesh: &Mesh, name: &str) -> String {
    let socket = mesh.dir().join(format!("{name}-workload.sock"));
    socket.display().to_string()
}

pub(crate) fn client(envoy: &Envoy, listener: &str) -> Client {
    Client::new(&format!("http://{}", envoy.listener(listener))).unwrap()
}
