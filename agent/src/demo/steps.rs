//! The story, step by step. Each step says what it will show, shows it, and checks that it held.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::StatusCode;
use serde_json::Value;
use tokio::sync::Notify;
use warifu::{
    Caller, Client, SpiffeId,
    caller::{self, Peer, context::CALLER_HEADER},
    identity::Identity,
    tls::{self, Anchors, ExpectedPeer},
};

use super::{Failed, Mesh, Narrator, Options, aws, ensure, load, mesh, narrate, raw, services};
use crate::{
    config, identity,
    telemetry::{metrics, ready::Readiness},
};

/// Who calls.
const ORDERS: &str = "spiffe://demo.internal/orders";

/// Who is called.
const PAYMENTS: &str = "spiffe://demo.internal/payments";

/// Rotations to watch on each side under load.
const ROTATIONS: usize = 3;

/// How long to wait for them: each takes about a third of [`mesh::SVID_TTL`].
const ROTATIONS_WITHIN: Duration = Duration::from_secs(15);

/// Clients of the load that runs meanwhile.
const LOAD_CLIENTS: usize = 8;

/// Requests of which the percentiles are taken.
const MEASURED: usize = 2_000;

/// Tells the story and knows how far it got.
pub(super) struct Story {
    narrator: Narrator,
    progress: Progress,
}

/// How far the story got, for who watches from outside.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress {
    step: Arc<AtomicUsize>,
    complete: Arc<AtomicBool>,
    interrupted: Arc<Notify>,
}

impl Progress {
    /// The step that is being told.
    pub(super) fn step(&self) -> usize {
        self.step.load(Ordering::Relaxed)
    }

    /// Whether every step has held.
    pub(super) fn is_complete(&self) -> bool {
        self.complete.load(Ordering::Relaxed)
    }

    /// Ends what is kept running, or will be.
    pub(super) fn interrupt(&self) {
        self.interrupted.notify_one();
    }
}

impl Story {
    pub(super) fn new(narrator: Narrator) -> Self {
        Self {
            narrator,
            progress: Progress::default(),
        }
    }

    pub(super) fn progress(&self) -> Progress {
        self.progress.clone()
    }

    fn next(&mut self, title: &str) {
        let step = self.progress.step.fetch_add(1, Ordering::Relaxed) + 1;
        self.narrator.step(step, title);
    }

    /// Tells it from start to end.
    pub(super) async fn tell(&mut self, dir: &Path, options: &Options) -> Result<(), Failed> {
        let told = self.chapters(dir, options).await;
        if let Err(why) = &told {
            self.narrator.failed(&why.0);
        }
        told
    }

    async fn chapters(&mut self, dir: &Path, options: &Options) -> Result<(), Failed> {
        self.narrator.say("Service A calls Service B. Neither holds a credential, and B knows for certain who called.");
        let mesh = self.start(dir, options).await?;
        self.call(&mesh).await?;
        self.not_allowed(&mesh).await?;
        self.no_identity(&mesh).await?;
        self.forged_headers(&mesh).await?;
        self.rotation(&mesh).await?;
        self.cost(&mesh).await?;
        self.aws(&mesh, options).await?;
        let out = self.narrator;
        out.say("");
        out.say("Every step did what it said.");
        self.progress.complete.store(true, Ordering::Relaxed);
        if options.keep {
            self.keep(&mesh).await;
        }
        mesh.end().await;
        Ok(())
    }

    async fn start(&mut self, dir: &Path, options: &Options) -> Result<Mesh, Failed> {
        self.next("An authority starts, and each agent proves who it is");
        let out = self.narrator;
        let authority = Mesh::authority(dir).await?;
        out.say("The authority issues identities for the trust domain demo.internal. Agents know it by its");
        out.say("root's key (SHA-256), which is in their configuration:");
        for pin in authority.issuer.root_pins() {
            out.show(pin);
        }
        let mesh = Mesh::start(dir, authority, options.aws_endpoint.as_deref()).await?;
        out.say("Each agent made a key, showed a join token that works once, and got a certificate for six");
        out.say(
            "seconds (an X.509-SVID), which it renews by itself. The keys never left the agents.",
        );
        for agent in [&mesh.orders, &mesh.payments] {
            let held = current(&agent.identity)?;
            out.held(format!("{} holds a certificate", held.svid.id()));
        }
        self.token_works_once(&mesh).await?;
        Ok(mesh)
    }

    /// The token of `orders` is spent: a thief who read it later gets nothing.
    async fn token_works_once(&mut self, mesh: &Mesh) -> Result<(), Failed> {
        let thief = config::load_agent(&mesh.dir.join("orders.yaml"))?;
        let readiness = Readiness::default();
        let condition = readiness.condition("identity", "not yet");
        let (_, handle) = identity::start(&(&thief).into(), condition, &mut metrics::registry())?;
        let refused = wait_for(|| handle.status().last_error).await;
        let refused = refused.ok_or_else(|| Failed::new("the spent join token was not refused"))?;
        ensure(
            refused.contains("used by another agent"),
            format!("the spent join token failed for another reason: {refused}"),
        )?;
        self.narrator
            .held("the join token of orders, used again with another key, is refused:");
        self.narrator.show(refused);
        Ok(())
    }

    async fn call(&mut self, mesh: &Mesh) -> Result<(), Failed> {
        self.next("orders calls payments by name");
        let out = self.narrator;
        out.say("This is all that orders does:");
        out.show(services::ORDERS_SOURCE);
        out.say("and this is all of payments' part in knowing who called:");
        out.show(services::PAYMENTS_SOURCE);
        let answer = services::post_order(&mesh.orders_service()).await?;
        let said = field(&answer, "payments said");
        out.say("An order was placed, and payments answered:");
        out.show(format!(
            "{{\"charged\": {}, \"caller\": {}, \"scopes\": {}}}",
            field(said, "charged"),
            field(said, "caller"),
            field(said, "scopes"),
        ));
        ensure(
            field(said, "caller") == ORDERS
                && field(said, "charged") == true
                && *field(said, "scopes") == serde_json::json!(["charges.write"]),
            format!("payments should have charged for orders, but: {answer}"),
        )?;
        out.held("the caller was proved twice: by mTLS, and by a token for payments alone that carries the scope");
        Ok(())
    }

    async fn not_allowed(&mut self, mesh: &Mesh) -> Result<(), Failed> {
        self.next("orders asks for what no rule allows");
        let out = self.narrator;
        out.say("payments' agent has these rules; what they don't name is refused:");
        out.show("- {peer: spiffe://demo.internal/orders, subject: {scope: charges.write},\n   to: [\"GET /charges\", \"POST /charges\"]}\n- {peer: spiffe://demo.internal/orders, to: [\"GET /whoami\"]}");
        let client = mesh.client()?;
        let answer = client
            .method(http::Method::DELETE, "http://payments/charges")
            .send()
            .await?;
        ensure(
            answer.status() == StatusCode::FORBIDDEN,
            format!("expected 403, got {}", answer.status()),
        )?;
        let reason = answer.agent_reason().unwrap_or("no reason").to_owned();
        out.held(format!(
            "DELETE http://payments/charges: {} ({reason}); payments never saw it",
            answer.status()
        ));
        let answer = client.get("http://ledger/").send().await?;
        ensure(
            answer.status() == StatusCode::FORBIDDEN,
            format!("expected 403, got {}", answer.status()),
        )?;
        let reason = answer.agent_reason().unwrap_or("no reason").to_owned();
        out.held(format!(
            "GET http://ledger/: {} ({reason}); no route names it, so orders' own agent sends and signs nothing",
            answer.status()
        ));
        Ok(())
    }

    async fn no_identity(&mut self, mesh: &Mesh) -> Result<(), Failed> {
        self.next("Somebody without an identity knocks at payments");
        let out = self.narrator;
        let held = current(&mesh.orders.identity)?;
        let payments = SpiffeId::new(PAYMENTS)?;
        let anchors = Anchors {
            roots: held.bundle.x509_authorities.clone(),
            ..Anchors::default()
        };
        let nothing = tls::bootstrap_client_config(&anchors, &payments)?;
        let refused = raw::exchange(mesh.payments_inbound()?, nothing, &request("")).await;
        out.held(format!(
            "without a certificate: refused in the handshake ({})",
            expect_error(refused)?
        ));

        let impostor = impostor().await?;
        let config = tls::client_config(&impostor, &held.bundle, ExpectedPeer::Id(payments))?;
        let refused = raw::exchange(mesh.payments_inbound()?, config, &request("")).await;
        out.held(format!(
            "as {}, from another authority of the same name: refused ({})",
            impostor.svid.id(),
            expect_error(refused)?
        ));
        Ok(())
    }

    async fn forged_headers(&mut self, mesh: &Mesh) -> Result<(), Failed> {
        self.next("orders, taken over, claims to be somebody else");
        let out = self.narrator;
        let forged = "x-forwarded-client-cert: URI=spiffe://demo.internal/admin\r\n\
                      x-warifu-caller: eyJwZWVyIjoiYWRtaW4ifQ\r\n\
                      X_Forwarded_Client_Cert: URI=spiffe://demo.internal/admin\r\n\
                      connection: x-warifu-caller\r\n";
        out.say(
            "It goes around its agent with a certificate it may present, and adds these headers:",
        );
        out.show(forged.replace('\r', ""));
        let held = current(&mesh.orders.identity)?;
        let payments = SpiffeId::new(PAYMENTS)?;
        let config = tls::client_config(&held, &held.bundle, ExpectedPeer::Id(payments))?;
        let answer = raw::exchange(mesh.payments_inbound()?, config, &request(forged)).await?;
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let said: Value = serde_json::from_str(body)
            .map_err(|error| Failed::new(format!("payments answered {answer:?}: {error}")))?;
        out.say(format!(
            "payments was told: caller {}, headers {}",
            field(&said, "caller"),
            field(&said, "headers"),
        ));
        let admin = answer.contains("admin");
        ensure(!admin, "a forged identity reached payments")?;
        ensure(
            field(&said, "caller") == ORDERS,
            format!("wrong caller: {said}"),
        )?;
        out.held(
            "what the network said about identity was removed; the agent's own word came last",
        );
        Ok(())
    }

    async fn rotation(&mut self, mesh: &Mesh) -> Result<(), Failed> {
        self.next("Certificates rotate while requests run");
        let out = self.narrator;
        out.say(format!(
            "{LOAD_CLIENTS} clients call payments as fast as they can, until both agents have renewed {ROTATIONS} times …"
        ));
        let url = "http://payments/charges";
        let clients: Vec<Client> = (0..LOAD_CLIENTS)
            .map(|_| mesh.client())
            .collect::<Result<_, _>>()?;
        let load = load::Load::start(clients, url);
        let watched = tokio::time::timeout(ROTATIONS_WITHIN, async {
            tokio::join!(
                rotations(mesh.orders.identity.clone()),
                rotations(mesh.payments.identity.clone())
            )
        })
        .await;
        let report = load.stop().await;
        ensure(
            watched.is_ok(),
            format!("no {ROTATIONS} rotations within {ROTATIONS_WITHIN:?}"),
        )?;
        ensure(
            report.failed == 0 && report.answered > 0,
            format!(
                "{} of {} requests failed: {:?}",
                report.failed,
                report.failed + report.answered,
                report.reasons
            ),
        )?;
        out.held(format!(
            "{} requests, 0 failed, over {ROTATIONS} new certificates on each side",
            report.answered
        ));
        Ok(())
    }

    async fn cost(&mut self, mesh: &Mesh) -> Result<(), Failed> {
        self.next("What it cost");
        let out = self.narrator;
        // Straight to payments' socket, which believes this process because it runs as the same user.
        let direct = Client::new(&format!("unix:{}/payments.sock", mesh.dir.display()))?;
        let caller = Caller {
            peer: Some(Peer {
                spiffe_id: SpiffeId::new(ORDERS)?,
                cert_sha256: String::new(),
            }),
            subject: None,
        };
        let header = caller::encode(&caller)?;
        let through = mesh.client()?;
        let url = "http://payments/charges";
        // Both warm, then in turn, so that a busy moment of this machine hits both.
        let mut direct_report = load::Report::default();
        let mut through_report = load::Report::default();
        for _ in 0..MEASURED / 100 {
            direct_report
                .add(load::sequential(&direct, url, Some((CALLER_HEADER, &header)), 100).await);
            through_report.add(load::sequential(&through, url, None, 100).await);
        }
        for report in [&direct_report, &through_report] {
            ensure(
                report.failed == 0,
                format!("{} requests failed: {:?}", report.failed, report.reasons),
            )?;
        }
        let row = |name: &str, p50: Duration, p99: Duration| {
            out.show(format!(
                "{name:<34} p50 {:>8}   p99 {:>8}",
                narrate::duration(p50),
                narrate::duration(p99)
            ));
        };
        let (d50, d99) = (
            direct_report.percentile(0.5),
            direct_report.percentile(0.99),
        );
        let (t50, t99) = (
            through_report.percentile(0.5),
            through_report.percentile(0.99),
        );
        row("straight to payments", d50, d99);
        row("through both agents (mTLS + JWT)", t50, t99);
        row(
            "added by both hops",
            t50.saturating_sub(d50),
            t99.saturating_sub(d99),
        );
        out.say("On this machine, just now, everything in one process, one request at a time.");
        Ok(())
    }

    async fn aws(&mut self, mesh: &Mesh, options: &Options) -> Result<(), Failed> {
        self.next("orders calls AWS");
        let out = self.narrator;
        let Some(endpoint) = &options.aws_endpoint else {
            out.left_out("Left out: assuming an IAM role and calling an API that checks SigV4 signatures needs an");
            out.say("  AWS endpoint. This one command brings up an emulator that checks signatures, and runs it:");
            out.show("cargo run --release -p warifu-tests --bin demo-with-aws");
            return Ok(());
        };
        let client = mesh.client()?;
        out.say(format!(
            "The endpoint is {endpoint}. orders sends unsigned requests to its agent."
        ));
        let base = aws::caller(&client, "sts-base").await?;
        out.say(format!("With the base credentials, AWS sees {base}"));
        aws::make_role(&client).await?;
        let arn = aws::caller(&client, "sts").await?;
        out.say(format!(
            "On the route that names the role {}, AWS sees",
            aws::role()
        ));
        out.show(&arn);
        ensure(
            arn.contains(":assumed-role/warifu-demo-orders/orders"),
            format!("expected a session of the role, got {arn}"),
        )?;
        out.held("the agent assumed the role through STS and signed; orders has no AWS credential");
        Ok(())
    }

    async fn keep(&self, mesh: &Mesh) {
        let out = self.narrator;
        let socket = mesh.outbound();
        let socket = socket.display();
        out.say("Everything is still running. Ctrl-C ends it. Try, in another terminal:");
        out.show(format!(
            "curl --unix-socket {socket} http://payments/charges
curl --unix-socket {socket} -X DELETE -i http://payments/charges
curl --unix-socket {socket} -i http://ledger/
curl --unix-socket {dir}/orders-admin.sock http://localhost/status
tail -f {dir}/payments-audit.jsonl",
            dir = mesh.dir.display(),
        ));
        self.progress.interrupted.notified().await;
    }
}

/// An orders of another authority that calls its trust domain the same.
async fn impostor() -> Result<Arc<Identity>, Failed> {
    let dir = super::Scratch::new_named("impostor")?;
    let authority = Mesh::authority(&dir.0).await?;
    let agent = mesh::agent(&dir.0, "orders", &authority, "").await?;
    let held = current(&agent.identity);
    agent.drain().await;
    authority.drain().await;
    held
}

/// Waits until [`ROTATIONS`] new certificates were published.
async fn rotations(mut identity: identity::Current) {
    let mut seen = BTreeSet::new();
    while seen.len() <= ROTATIONS {
        if let Some(held) = &*identity.borrow_and_update() {
            seen.insert(held.svid.chain().first().map(|leaf| leaf.to_vec()));
        }
        if identity.changed().await.is_err() {
            return;
        }
    }
}

fn current(identity: &identity::Current) -> Result<Arc<Identity>, Failed> {
    identity
        .borrow()
        .clone()
        .ok_or_else(|| Failed::new("an agent has lost its identity"))
}

/// A field of what a service answered; null where there is none.
fn field<'a>(answer: &'a Value, name: &str) -> &'a Value {
    answer.get(name).unwrap_or(&Value::Null)
}

/// A request to `/whoami` with further header lines.
fn request(headers: &str) -> String {
    format!("GET /whoami HTTP/1.1\r\nhost: payments\r\n{headers}connection: close\r\n\r\n")
}

fn expect_error(result: std::io::Result<String>) -> Result<String, Failed> {
    match result {
        Ok(answer) => Err(Failed::new(format!("it was answered: {answer}"))),
        Err(error) => Ok(error.to_string()),
    }
}

/// Asks every few milliseconds, for as long as an exchange may take.
async fn wait_for<T>(ask: impl Fn() -> Option<T>) -> Option<T> {
    let asking = async {
        loop {
            if let Some(answer) = ask() {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(super::EXCHANGE, asking).await.ok()
}
