//! PostgreSQL (Debian's) behind an inbound listener, and psql before an outbound one: neither knows anything of agents.

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    net::TcpStream,
    process::{Child, ChildStdin, ChildStdout, Command},
};
use warifu_agent::revocation::Kind;
use warifu_tests::{
    mesh::{Agent, DEADLINE, MTLS, Mesh, until},
    peers::{Postgresql, Tied},
    ports::free_port,
};

const ORDERS: &str = r#"[{peer: "spiffe://example.org/orders"}]"#;

/// A database, and the agent before it.
struct World {
    mesh: Mesh,
    server: Tied,
    database: Agent,
    door: std::net::SocketAddr,
}

impl World {
    async fn open() -> Self {
        // Agents hear of a revocation within a second.
        let mesh = Mesh::with(|authority| authority.more("bundle_refresh_hint: 1s")).await;
        let postgresql = Postgresql::init(mesh.dir()).unwrap();
        let hba = "host all all 127.0.0.1/32 trust\n";
        let server = postgresql.start(hba, &["log_connections=on"]).unwrap();
        let direct = connection(postgresql.port);
        let serves = async || {
            Postgresql::psql("select 1", &direct)
                .await
                .unwrap()
                .success
                .then_some(())
        };
        until("PostgreSQL serves", serves).await;
        let door = free_port();
        let database = mesh.agent("database").inbound(&format!(
            "{{listen: \"{door}\", forward: \"tcp://127.0.0.1:{}\", accept: {MTLS}, allow: {ORDERS}}}",
            postgresql.port
        ));
        Self {
            database: database.start().await,
            mesh,
            server,
            door,
        }
    }

    /// An agent whose app finds the database at the port.
    async fn before(&self, name: &str) -> (Agent, u16) {
        let port = free_port().port();
        let agent = self.mesh.agent(name).more(&format!(
            "outbound: {{listen: \"unix:{}/{name}.sock\", routes: [], tcp: [{{listen: \"127.0.0.1:{port}\", \
              upstream: \"tcp://{}\", mtls: {{expect: \"{}\"}}}}]}}",
            self.mesh.dir().display(),
            self.door,
            self.database.id
        ));
        (agent.start().await, port)
    }

    /// Connections that the server got so far.
    fn received(&self) -> usize {
        self.server
            .log_tail()
            .matches("connection received")
            .count()
    }
}

fn connection(port: u16) -> String {
    format!(
        "host=127.0.0.1 port={port} user=postgres dbname=postgres sslmode=disable connect_timeout=20"
    )
}

/// psql that is asked one query after another.
struct Session {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Session {
    fn open(port: u16) -> Self {
        let mut child = Command::new(Postgresql::client().unwrap())
            .args(["-XAt", "-v", "ON_ERROR_STOP=1", &connection(port)])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        let input = child.stdin.take().unwrap();
        Self {
            child,
            input,
            output,
        }
    }

    /// `None` where there is no answer any more.
    async fn ask(&mut self, query: &str) -> Option<String> {
        let query = format!("{query};\n");
        self.input.write_all(query.as_bytes()).await.ok()?;
        let line = tokio::time::timeout(DEADLINE, self.output.next_line()).await;
        line.expect("an answer, or an end").unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s16_psql_reaches_postgresql_through_both_agents_and_a_stranger_opens_no_connection() {
    let world = World::open().await;
    let (_orders, port) = world.before("orders").await;
    let sum = "select sum(length(repeat('x', n))) from generate_series(1, 1000) n";
    let said = Postgresql::psql(sum, &connection(port)).await.unwrap();
    assert_eq!(
        (&*said.stdout, said.success),
        ("500500\n", true),
        "{}",
        said.stderr
    );
    // Much, one way and the other.
    let much = "select repeat(md5('x'), 100000)";
    let said = Postgresql::psql(much, &connection(port)).await.unwrap();
    assert_eq!(said.stdout.len(), 3_200_001);
    let line = |result: &'static str| {
        world
            .database
            .audit_line(result, move |line| line["result"] == result)
    };
    let (began, ended) = (line("allowed").await, line("ended").await);
    assert_eq!(began["peer"], "spiffe://example.org/orders");
    assert_eq!(began["connection"], ended["connection"]);
    assert_eq!(ended["reason"], "closed");
    assert!(ended["bytes_received"].as_u64() > Some(60), "{ended}");

    let before = world.received();
    let (_stranger, port) = world.before("stranger").await;
    let refused = Postgresql::psql("select 1", &connection(port))
        .await
        .unwrap();
    assert!(!refused.success, "{refused:?}");
    let line = line("denied").await;
    assert_eq!(line["peer"], "spiffe://example.org/stranger");
    assert_eq!(line["event"], "inbound-connection");
    assert_eq!(world.received(), before);
    let refused = world
        .database
        .metric("warifu_inbound_refused_total{reason=\"denied\"}");
    assert_eq!(refused.await, 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s16_a_session_of_psql_ends_within_the_poll_when_its_agent_is_revoked() {
    let world = World::open().await;
    let (_orders, port) = world.before("orders").await;
    let mut session = Session::open(port);
    assert_eq!(session.ask("select 1").await.as_deref(), Some("1"));
    let carried = "warifu_inbound_tunnels{to=\"app\"}";
    assert_eq!(world.database.metric(carried).await, 1.0);

    let id = "spiffe://example.org/orders";
    world.mesh.authority.revoke(Kind::SpiffeId, id).await;
    let line = world
        .database
        .audit_line("the session is cut", |line| line["result"] == "withdrawn");
    let line = line.await;
    assert_eq!(
        (&line["peer"], &line["reason"]),
        (&id.into(), &"revoked".into())
    );
    assert_eq!(session.ask("select 2").await, None);
    assert!(!session.child.wait().await.unwrap().success());
    let gone = async || (world.database.metric(carried).await < 1.0).then_some(());
    until("nothing is carried any more", gone).await;
    let refused = Postgresql::psql("select 3", &connection(port))
        .await
        .unwrap();
    assert!(!refused.success, "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_of_psql_lives_through_rotations_and_a_drain_waits_for_it() {
    let mut world = World::open().await;
    let (orders, port) = world.before("orders").await;
    let mut session = Session::open(port);
    assert_eq!(session.ask("select 1").await.as_deref(), Some("1"));
    let draining = world.database.draining();
    let closed = async || TcpStream::connect(world.door).await.is_err().then_some(());
    until("the listener is closed", closed).await;
    assert_eq!(session.ask("select 2").await.as_deref(), Some("2"));
    drop(session);
    assert_eq!(draining.await.unwrap(), 0, "connections were cut");
    drop(orders);
}
