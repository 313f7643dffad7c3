//! Two agents before one service are restarted in turn, reload their files and renew their certificates: callers that obey
//! the protocol lose no request.

use std::{fs, net::SocketAddr, os::unix::fs::PermissionsExt, sync::Arc, time::Duration};

use http::Method;
use tokio::{net::TcpStream, task::block_in_place};
use warifu::tls::{self, ExpectedPeer};
use warifu_tests::{
    mesh::{App, Caller, Direct, Load, Mesh, ORDERS, Workload, until},
    ports::free_port,
    process::{AgentProcess, Sandbox, Signal},
};

/// Renewed at a third of it: every 1.2 to 1.5 seconds.
const TTL: Duration = Duration::from_secs(4);
const CALLERS: usize = 12;
/// Restarts, of the two in turn.
const RESTARTS: usize = 4;
const PAYMENTS: &str = "spiffe://example.org/payments";
const DENY: &str = "  deny: [{to: ['* /admin']}]\n";

/// An agent of payments, as a process.
struct Replica<'a> {
    sandbox: &'a Sandbox,
    mesh: &'a Mesh,
    name: &'static str,
    listen: SocketAddr,
    inbound: String,
    process: Option<AgentProcess>,
}

impl<'a> Replica<'a> {
    async fn start(sandbox: &'a Sandbox, mesh: &'a Mesh, app: &App, name: &'static str) -> Self {
        let token = mesh.authority.join_token("payments").await;
        let token = sandbox.write(&format!("{name}.token"), token);
        fs::set_permissions(token, fs::Permissions::from_mode(0o600)).unwrap();
        let (listen, forward) = (free_port(), app.forward());
        let audit = sandbox.path(&format!("{name}.audit"));
        let inbound = format!(
            "audit: {{file: {}}}\ninbound:\n- listen: {listen}\n  {forward}\n  accept: [{{mtls: {{trust_domains: \
             [example.org]}}}}]\n  allow: {ORDERS}\n",
            audit.display()
        );
        let mut replica = Self {
            sandbox,
            mesh,
            name,
            listen,
            inbound,
            process: None,
        };
        replica.restart("");
        replica
    }

    /// Starts it with `more` of its listener.
    fn restart(&mut self, more: &str) {
        let authority = &self.mesh.authority;
        let inbound = format!("{}{more}", self.inbound);
        let pin = &authority.pins()[0];
        let command = self
            .sandbox
            .agent_of(self.name, &authority.url(), pin, &inbound);
        // The authority is in this process: it answers meanwhile.
        let process = block_in_place(|| {
            let process = self.sandbox.listening(self.name, command.start());
            process.wait_until_ready();
            process
        });
        self.process = Some(process);
    }

    fn process(&self) -> &AgentProcess {
        self.process.as_ref().unwrap()
    }

    /// Writes its file with `more` of its listener, in place at once, and has it read.
    fn reload(&self, more: &str) {
        let file = self.sandbox.path(&format!("{}.yaml", self.name));
        let yaml = fs::read_to_string(&file).unwrap();
        let (before, _) = yaml.split_once("audit:").unwrap();
        let new = format!("{before}{}{more}", self.inbound);
        fs::rename(self.sandbox.write("new.yaml", new), file).unwrap();
        self.process().running.signal(Signal::HUP);
    }

    /// Ends it as an orchestrator does, while `under_way` has its second half when `idle` is closed.
    async fn end(&mut self, mut under_way: Direct, mut idle: Direct) {
        let process = self.process.take().unwrap();
        process.running.signal(Signal::TERM);
        let closed = async || TcpStream::connect(self.listen).await.is_err().then_some(());
        until("the listener is closed", closed).await;
        idle.closed().await;
        under_way.send("euros").await.unwrap();
        let answer = under_way.answer().await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        let ended = block_in_place(|| process.running.ended());
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        let drained = "\"message\":\"drained\",\"cut\":0";
        assert!(ended.stderr.contains(drained), "{}", ended.stderr);
    }
}

/// A connection on which nothing was sent yet.
async fn idle(listen: SocketAddr, who: &Workload) -> Direct {
    let identity = who.identity();
    let payments = ExpectedPeer::Id(PAYMENTS.parse().unwrap());
    let config = tls::client_config(&identity, &identity.bundle, payments).unwrap();
    Direct::connect_to(listen, config).await.unwrap()
}

/// A request that is half sent.
async fn half(listen: SocketAddr, who: &Workload) -> Direct {
    let mut direct = idle(listen, who).await;
    let head = "POST /charges HTTP/1.1\r\nhost: payments\r\ncontent-length: 12\r\n\r\ntwelve ";
    direct.send(head).await.unwrap();
    direct
}

async fn status(caller: &mut Caller, path: &str) -> u16 {
    let told = caller.ask(Method::GET, path).await;
    told.unwrap_or_else(|why| panic!("{why}")).status
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn agents_that_end_start_reload_and_renew_in_turn_lose_no_request() {
    let sandbox = Sandbox::new();
    let mesh = Mesh::with(|authority| authority.ttl(TTL)).await;
    let app = mesh.app("payments").await;
    let mut replicas = [
        Replica::start(&sandbox, &mesh, &app, "one").await,
        Replica::start(&sandbox, &mesh, &app, "other").await,
    ];
    let orders = Arc::new(mesh.workload("orders").await);
    let [one, other] = [replicas[0].listen, replicas[1].listen];
    let load = Load::of((0..CALLERS).map(|number| {
        let places = if number % 4 < 2 {
            [one, other]
        } else {
            [other, one]
        };
        let caller = Caller::new(&orders, PAYMENTS, &places);
        if number % 2 == 0 {
            caller
        } else {
            caller.http2()
        }
    }));
    load.answers(CALLERS * 10).await;

    let mut beside = 0;
    for restart in 0..RESTARTS {
        let [ends, stays] = match restart % 2 {
            0 => [0, 1],
            _ => [1, 0],
        };
        // Whoever stays takes up a rule while it has all callers, and gives it up again.
        let mut open = [
            Caller::new(&orders, PAYMENTS, &[replicas[stays].listen]),
            Caller::new(&orders, PAYMENTS, &[replicas[stays].listen]).http2(),
        ];
        for open in &mut open {
            assert_eq!(status(open, "/admin").await, 200);
            beside += 1;
        }
        let under_way = half(replicas[ends].listen, &orders).await;
        load.answers(CALLERS).await;
        let idle = idle(replicas[ends].listen, &orders).await;
        replicas[ends].end(under_way, idle).await;
        beside += 1;
        load.answers(CALLERS * 10).await;
        replicas[stays].reload(DENY);
        for open in &mut open {
            until("the caller is refused", async || {
                match status(open, "/admin").await {
                    403 => Some(()),
                    _ => {
                        beside += 1;
                        None
                    }
                }
            })
            .await;
        }
        // With a mistake it stays as it is, and says so.
        replicas[stays].reload("  deny: [{to: ['/admin']}]\n");
        let running = &replicas[stays].process().running;
        block_in_place(|| running.wait_for("the one before stays in force"));
        for open in &mut open {
            assert_eq!(status(open, "/admin").await, 403);
        }
        replicas[stays].reload("");
        for open in &mut open {
            until("the caller is allowed again", async || {
                (status(open, "/admin").await == 200).then_some(())
            })
            .await;
            beside += 1;
        }
        replicas[ends].restart("");
        load.answers(CALLERS * 10).await;
    }

    let report = load.stop().await;
    assert_eq!(report.failures, [""; 0], "beside {}", report.answered);
    // None was lost, and none was sent twice.
    assert_eq!(app.count(), report.answered + beside);
    assert!(app.certificates().len() > 1, "the caller's did not rotate");
    println!("{} requests", report.answered);
}
