//! One of two replicas is killed and started again, over and over, while everybody renews.

use std::{
    fs,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::task::JoinSet;
use warifu_agent::attest::Client;
use warifu_tests::{
    aws::{Balancer, Cluster, Rival},
    ports::free_port,
    process::{AgentProcess, Sandbox},
};

/// Kills, in turn.
const KILLS: usize = 20;
/// Workloads that renew without a pause.
const WORKLOADS: usize = 8;
/// Agents, which renew at a third of a certificate's life.
const AGENTS: usize = 2;
/// A certificate's life. Renewed after 4 s, it leaves 8 s for what goes wrong.
const TTL: Duration = Duration::from_secs(12);
/// A client whose connection is cut asks again at once, and some times more: the other replica is alive.
const ATTEMPTS: u32 = 4;
const PAUSE: Duration = Duration::from_millis(100);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_killed_over_and_over_under_load_costs_no_renewal() {
    let cluster = Cluster::on_kms().await;
    let listen = [free_port(), free_port()];
    let [one, other] = cluster.two(listen, TTL);
    let pin = one.process.pin.clone();
    assert_eq!(other.process.pin, pin, "one root");
    let balancer = Balancer::start(listen).await;

    let load = Arc::new(Load::default());
    let mut workloads = JoinSet::new();
    for _ in 0..WORKLOADS {
        let rival = Rival::new(&one.join_token("orders").await);
        let client = Cluster::client(balancer.address, &pin);
        workloads.spawn(Arc::clone(&load).renew(rival, client));
    }
    let mut agents = Vec::new();
    for number in 0..AGENTS {
        let name = format!("agent-{number}");
        let token = one.join_token(&name).await;
        agents.push(start(
            &cluster.sandbox,
            &name,
            token.expose(),
            balancer.address,
            &pin,
        ));
    }

    let mut replicas = [Some(one), Some(other)];
    let began = Instant::now();
    tokio::task::block_in_place(|| {
        for kill in 0..KILLS {
            let (at, name) = [(0, "one"), (1, "other")][kill % 2];
            let served = load.renewed.load(Ordering::Relaxed);
            // SIGKILL, in the midst of what it was doing.
            replicas[at] = None;
            while load.renewed.load(Ordering::Relaxed) < served + 20 {
                assert!(
                    began.elapsed() < Duration::from_secs(240),
                    "the other one serves nobody"
                );
                std::thread::sleep(Duration::from_millis(10));
            }
            replicas[at] = Some(cluster.replica(name, listen[at], TTL));
        }
    });
    // Every agent has gone through a life or more of this.
    let left = TTL.saturating_sub(began.elapsed());
    tokio::time::sleep(left).await;
    load.over.store(true, Ordering::Relaxed);
    workloads.join_all().await;

    let (renewed, again) = (
        load.renewed.load(Ordering::Relaxed),
        load.again.load(Ordering::Relaxed),
    );
    println!(
        "{renewed} renewals in {:?} through {KILLS} kills; {again} attempts were cut and made again",
        began.elapsed()
    );
    assert!(again > 0, "nobody noticed: nothing was under way");
    for (number, agent) in agents.iter().enumerate() {
        let log = agent.running.stderr();
        assert_eq!(agent.probe("/readyz").status, 200, "{log}");
        assert_eq!(
            log.matches("condition not met").count(),
            0,
            "it was never without:\n{log}"
        );
        let metrics = agent.probe("/metrics").text;
        let count = |outcome: &str| -> u32 {
            let line = format!("warifu_identity_issuance_total{{outcome=\"{outcome}\"}} ");
            let found = metrics.lines().find_map(|it| it.strip_prefix(&line));
            found.map_or(0, |count| count.parse().unwrap())
        };
        println!(
            "agent-{number}: {} issued, {} failed",
            count("issued"),
            count("failed")
        );
        assert!(count("issued") >= 3, "{metrics}");
        assert_eq!(count("refused"), 0, "{log}");
    }
    // Nor did any replica refuse anything.
    for name in ["one", "other"] {
        let audit = fs::read_to_string(cluster.sandbox.path(&format!("{name}.audit"))).unwrap();
        let refused = audit.lines().find(|line| line.contains("\"refused\""));
        assert_eq!(refused, None);
    }
}

/// Renewals by all workloads.
#[derive(Default)]
struct Load {
    renewed: AtomicU32,
    /// Attempts that a kill cut, and that were made again.
    again: AtomicU32,
    over: AtomicBool,
}

impl Load {
    async fn renew(self: Arc<Self>, rival: Rival, client: Client) {
        let mut record = rival.attest(&client).await.unwrap().record;
        let mut attempts = 0;
        while !self.over.load(Ordering::Relaxed) {
            attempts += 1;
            match rival.renew(&client, &record).await {
                Ok(renewed) => {
                    record = renewed.record;
                    attempts = 0;
                    self.renewed.fetch_add(1, Ordering::Relaxed);
                }
                Err(why) if why.refusal().is_none() && attempts < ATTEMPTS => {
                    self.again.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(PAUSE).await;
                }
                Err(why) => panic!("a renewal failed, attempt {attempts}: {why}"),
            }
        }
    }
}

fn start(
    sandbox: &Sandbox,
    name: &str,
    token: &str,
    authority: SocketAddr,
    pin: &str,
) -> AgentProcess {
    sandbox.write(&format!("{name}.token"), token);
    let command = sandbox.agent_of(name, &format!("https://{authority}"), pin, "");
    let agent = tokio::task::block_in_place(|| sandbox.listening(name, command.start()));
    agent.wait_until_ready();
    agent
}
