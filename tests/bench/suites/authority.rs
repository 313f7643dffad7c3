//! An authority under agents that attest: each with a connection, a TLS handshake, a key, a certificate
//! request and a web identity token of its own, through the client that agents use.
//!
//! The issuer of the tokens is this process; the authority fetches its keys once and verifies locally, as it
//! does with AWS's.

use std::{
    fs,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use ::warifu::{
    Secret, TrustDomain,
    jwt::{self, SigningKey},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::Response;
use rcgen::{CertificateParams, KeyPair};
use serde_json::json;
use tokio::{sync::Semaphore, task::JoinSet};
use warifu_agent::{
    attest::{
        Client, ClientError, bearer,
        wire::{self, Evidence},
    },
    authority::admin::client::status,
    config::agent::AuthorityRef,
    http::{body::Body, server},
};

use crate::{
    Result,
    process::{Cores, Process},
    proxies::{Setting, TRUST_DOMAIN, warifu},
    report::{Bar, Row},
};

const ACCOUNT: &str = "123456789012";
const ORG: &str = "o-bench";
/// Attesting at once while CPU is measured: enough that the authority always has something to do.
const AT_ONCE: usize = 32;
/// Agents of a cold start.
const STAMPEDE: usize = 10_000;
/// Beyond this a cold start has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// CPU per agent, on a core of its own.
pub(super) async fn run(quick: bool, at: Setting<'_>) -> Result<Vec<Row>> {
    let (rounds, agents) = if quick { (2, 1_000) } else { (7, 3_000) };
    let issuer = Issuer::start().await?;
    let mut cpu = Vec::new();
    let mut rate = Vec::new();
    for round in 0..rounds {
        let directory = at.directory.join(format!("round-{round}"));
        let authority = Authority::start(&issuer, &directory, Some(at.cores)).await?;
        let recruits = issuer.recruits(agents)?;
        // The first one makes it fetch the issuer's keys.
        enrol_all(&authority, issuer.recruits(1)?, 1).await?;
        let (before, started) = (authority.process.cpu()?, Instant::now());
        enrol_all(&authority, recruits, AT_ONCE).await?;
        let took = started.elapsed();
        let used = authority.process.cpu()?.saturating_sub(before);
        cpu.push(used.as_secs_f64() * 1e6 / agents as f64);
        rate.push(agents as f64 / took.as_secs_f64());
        eprintln!(
            "round {}/{rounds}: {agents} agents in {took:.1?}",
            round + 1
        );
    }
    let per_core: Vec<f64> = cpu.iter().map(|us| 1e6 / us).collect();
    Ok(vec![
        // 2,000 a second and core.
        Row::alone("CPU per agent attested", "µs", &cpu, Bar::Ours(500.0)),
        Row::alone("so a core could attest", "1/s", &per_core, Bar::None),
        Row::alone("agents attested, load on one core", "1/s", &rate, Bar::None),
    ])
}

/// Ten thousand agents at once, on all cores, which they share with the authority.
pub(super) async fn stampede(quick: bool, at: Setting<'_>) -> Result<Vec<Row>> {
    let rounds = if quick { 1 } else { 3 };
    let issuer = Issuer::start().await?;
    let (mut took, mut peak, mut turned_away, mut cpu) = (vec![], vec![], vec![], vec![]);
    for round in 0..rounds {
        let directory = at.directory.join(format!("round-{round}"));
        let authority = Authority::start(&issuer, &directory, None).await?;
        let recruits = issuer.recruits(STAMPEDE)?;
        let (before, started) = (authority.process.cpu()?, Instant::now());
        let tally = enrol_all(&authority, recruits, STAMPEDE);
        tokio::pin!(tally);
        let mut most = 0;
        let tally = loop {
            tokio::select! {
                tally = &mut tally => break tally?,
                () = tokio::time::sleep(Duration::from_millis(50)) => {
                    most = most.max(authority.process.resident_kib()?);
                }
            }
        };
        took.push(started.elapsed().as_secs_f64());
        peak.push(most as f64 / 1024.0);
        turned_away.push(tally.again as f64);
        let used = authority.process.cpu()?.saturating_sub(before);
        cpu.push(used.as_secs_f64() * 1e6 / STAMPEDE as f64);
        eprintln!(
            "round {}/{rounds}: {STAMPEDE} agents in {:.1} s; {} were told to come again{}",
            round + 1,
            took.last().unwrap_or(&f64::NAN),
            tally.again,
            tally
                .last
                .map(|why| format!(", such as: {why}"))
                .unwrap_or_default()
        );
    }
    Ok(vec![
        Row::alone(
            "10,000 agents at once: all served",
            "s",
            &took,
            Bar::Ours(10.0),
        ),
        Row::alone("resident at most meanwhile", "MiB", &peak, Bar::None),
        Row::alone("told to come again", "times", &turned_away, Bar::None),
        Row::alone("CPU of the authority per agent", "µs", &cpu, Bar::None),
    ])
}

/// `warifu authority` in a process of its own, its keys and state on disk as people run it.
struct Authority {
    process: Process,
    reference: AuthorityRef,
}

impl Authority {
    async fn start(issuer: &Issuer, directory: &Path, cores: Option<Cores>) -> Result<Self> {
        fs::create_dir(directory)?;
        let port = std::net::TcpListener::bind(("127.0.0.1", 0))?
            .local_addr()?
            .port();
        let (config, socket) = (directory.join("authority.yaml"), directory.join("a.sock"));
        let text = format!(
            r#"trust_domain: {TRUST_DOMAIN}
listen: 127.0.0.1:{port}
admin: unix:{socket}
ca: {{key: disk, path: {ca}}}
state: sqlite
audit_file: {audit}
attestors: {{aws: {{kind: aws-web-identity, issuers: {{"{ACCOUNT}": "{url}"}}, org: {ORG}}}}}
rules: [{{attestor: aws, match: {{account: "{ACCOUNT}", role: "svc-*"}}, id: "/{{role}}", dns: ["{{role}}.internal"]}}]
"#,
            socket = socket.display(),
            ca = directory.join("ca").display(),
            audit = directory.join("audit.log").display(),
            url = issuer.url,
        );
        fs::write(&config, text)?;
        let mut command = Command::new(warifu::locate()?);
        command.arg("authority").arg("--config").arg(&config);
        let (out, err) = (directory.join("out"), directory.join("err"));
        let mut process = match cores {
            Some(cores) => Process::start(command, cores, &out, &err)?,
            None => Process::start_anywhere(command, &out, &err)?,
        };
        let deadline = Instant::now() + Duration::from_secs(20);
        let status = loop {
            process.still_runs()?;
            match status(&socket).await {
                Ok(status) => break status,
                Err(why) if Instant::now() > deadline => return Err(why.into()),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        let mut pins = Vec::new();
        for root in status.roots {
            pins.push(serde_json::from_value(json!(root.spki_sha256))?);
        }
        let reference = AuthorityRef {
            url: serde_json::from_value(json!(format!("https://127.0.0.1:{port}")))?,
            root_spki_sha256: pins,
            bundle: None,
        };
        Ok(Self { process, reference })
    }
}

/// What becomes of a crowd.
#[derive(Debug, Default)]
struct Tally {
    /// Answers that asked to come again, and connections that failed.
    again: u64,
    last: Option<String>,
}

/// Has every recruit attest, `at_once` at most at a time.
async fn enrol_all(authority: &Authority, recruits: Vec<Recruit>, at_once: usize) -> Result<Tally> {
    let places = Arc::new(Semaphore::new(at_once));
    let again = Arc::new(AtomicU64::new(0));
    let trust_domain: TrustDomain = TRUST_DOMAIN.parse()?;
    let mut agents = JoinSet::new();
    for recruit in recruits {
        let place = Arc::clone(&places).acquire_owned().await?;
        let client = Client::new(&trust_domain, &authority.reference)?;
        let again = Arc::clone(&again);
        agents.spawn(async move {
            let last = recruit.enrol(&client, &again).await;
            drop(place);
            last
        });
    }
    let mut tally = Tally::default();
    while let Some(ended) = agents.join_next().await {
        tally.last = ended??.or(tally.last);
    }
    tally.again = again.load(Ordering::Relaxed);
    Ok(tally)
}

/// An agent that wants its first certificate.
struct Recruit {
    renewal_key: SigningKey,
    csr: Vec<u8>,
    evidence: Evidence,
    /// Tells agents apart where they take chances.
    number: usize,
}

impl Recruit {
    /// Attests, coming again as agents do. The last reason why it had to.
    async fn enrol(self, client: &Client, again: &AtomicU64) -> Result<Option<String>> {
        let deadline = Instant::now() + PATIENCE;
        let mut last = None;
        loop {
            let evidence = bearer(self.evidence.clone());
            let attested = client.attest(&evidence, None, &self.csr, &self.renewal_key);
            let why = match attested.await {
                Ok(_) => return Ok(last),
                Err(why @ ClientError::Refused { .. }) => return Err(why.into()),
                Err(why) if Instant::now() > deadline => return Err(why.into()),
                Err(why) => why,
            };
            again.fetch_add(1, Ordering::Relaxed);
            let wait = why.retry_after().unwrap_or(Duration::from_secs(1));
            // Half as long to half as long again.
            tokio::time::sleep(wait / 2 + wait.mul_f64((self.number % 97) as f64 / 97.0)).await;
            last = Some(why.to_string());
        }
    }
}

/// Stands in for AWS: signs tokens, and publishes the keys.
struct Issuer {
    url: String,
    key: SigningKey,
}

impl Issuer {
    async fn start() -> Result<Self> {
        let key = SigningKey::generate_rsa();
        let listener = server::Listener::bind(&"127.0.0.1:0".parse()?)?;
        let url = format!("http://{}", listener.address());
        let keys = json!({"keys": [key.public().to_json("sig")]}).to_string();
        let discovery =
            json!({"issuer": url, "jwks_uri": format!("{url}/.well-known/jwks.json")}).to_string();
        let service = server::Plain::new(move |request: http::Request<hyper::body::Incoming>| {
            let body = match request.uri().path() {
                "/.well-known/openid-configuration" => discovery.clone(),
                _ => keys.clone(),
            };
            async move {
                let mut response = Response::new(Body::from(Bytes::from(body)));
                response.headers_mut().insert(
                    http::header::CONTENT_TYPE,
                    http::HeaderValue::from_static("application/json"),
                );
                response
            }
        });
        let mut registry = warifu_agent::telemetry::metrics::registry();
        let metrics = server::Metrics::new(&mut registry).listener("issuer");
        let (drain, draining) = server::drain();
        tokio::spawn(async move {
            server::serve(
                listener,
                service,
                server::Limits::default(),
                metrics,
                draining,
            )
            .await;
            drop(drain);
        });
        Ok(Self { url, key })
    }

    /// Agents with all that can be made before they come.
    fn recruits(&self, count: usize) -> Result<Vec<Recruit>> {
        let trust_domain: TrustDomain = TRUST_DOMAIN.parse()?;
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)?
            .as_secs();
        let recruit = |number: usize| {
            let renewal_key = SigningKey::generate();
            let binding = URL_SAFE_NO_PAD.encode(renewal_key.public().spki_sha256());
            let role = format!("arn:aws:iam::{ACCOUNT}:role/svc-{}", number % 100);
            let claims = json!({
                "iss": self.url,
                "sub": role,
                "aud": wire::attest_audience(&trust_domain, &binding),
                "iat": now,
                "exp": now + 300,
                "jti": format!("{number}-{binding}"),
                "https://sts.amazonaws.com/": {
                    "aws_account": ACCOUNT, "org_id": ORG, "principal_id": role,
                    "source_region": "eu-west-1",
                },
            });
            let key = KeyPair::generate()?;
            let csr = CertificateParams::default().serialize_request(&key)?;
            Ok(Recruit {
                csr: csr.der().to_vec(),
                evidence: Evidence::AwsWebIdentity {
                    token: Secret::new(jwt::sign(&self.key, "JWT", &claims)),
                },
                renewal_key,
                number,
            })
        };
        (0..count).map(recruit).collect()
    }
}
