//! Proxies on the app's side: they take its plain requests and send them on, signed or to another of their kind.

pub(crate) mod bare;
mod envoy;
mod signature;

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use aws_lc_rs::digest::{SHA256, digest};

use crate::{
    Result, backend,
    certificates::Ca,
    client::{Answer, Client, post, request},
    load::Target,
    process::Process,
    proxies::{self, Kind, Setting, TRUST_DOMAIN, warifu},
};

pub(crate) use signature::Keys;

/// How long they may take until the first answer comes through.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// What signing is done with, at every proxy.
const SERVICE: &str = "execute-api";
const REGION: &str = "ap-northeast-1";

/// What proxies show with that they hash bodies: none, a short one, one that comes in pieces.
const BODIES: [&[u8]; 3] = [b"", b"some bytes", &[b'x'; 70_000]];

/// One proxy, or one behind the other, between an app and the backend.
pub(crate) struct Way {
    name: &'static str,
    processes: Vec<Process>,
    app: Client,
    requests: u64,
    /// Whom identities come from, where that must stay up.
    _issuer: Option<warifu::Issuer>,
}

impl Target for Way {
    fn name(&self) -> &'static str {
        self.name
    }

    fn client(&self) -> &Client {
        &self.app
    }

    fn processes(&self) -> &[Process] {
        &self.processes
    }

    fn answered(&mut self, requests: u64) {
        self.requests += requests;
    }
}

impl Way {
    /// `kind`, signing what the app sends with `keys` and handing it to the backend in plain.
    pub(crate) async fn signing(kind: Kind, keys: &Keys, at: Setting<'_>) -> Result<Self> {
        let directory = at.directory.join(format!("{}-signing", kind.name()));
        std::fs::create_dir(&directory)?;
        let listen = proxies::free_port()?;
        let mut issuer = None;
        let mut command = match kind {
            Kind::Envoy => {
                let config = envoy::signing(listen, at.backend, keys);
                envoy::command(kind.locate()?, &directory.join("envoy.yaml"), &config)?
            }
            Kind::Bare => bare::command(kind.locate()?, listen, at.backend),
            _ => {
                let made = warifu::Issuer::start(&directory).await?;
                let routes = format!(
                    "  - {{host: payments, upstream: \"http://{}\", sigv4: {{service: {SERVICE}, region: {REGION}}}}}",
                    at.backend
                );
                let outbound = format!("outbound:\n  listen: {listen}\n  routes:\n{routes}\n");
                let command = made
                    .command(kind.locate()?, &directory, "orders", &outbound)
                    .await?;
                issuer = Some(made);
                command
            }
        };
        command
            .env("AWS_ACCESS_KEY_ID", &keys.id)
            .env("AWS_SECRET_ACCESS_KEY", &keys.secret)
            .env("AWS_REGION", REGION)
            .env("AWS_EC2_METADATA_DISABLED", "true");
        let way = Self {
            name: kind.name(),
            processes: vec![start(command, "agent", &directory, at)?],
            app: Client::plain(listen),
            requests: 0,
            _issuer: issuer,
        };
        way.await_first_answer().await?;
        match kind {
            Kind::Bare => way.hashes().await?,
            _ => way.signs(keys).await?,
        }
        Ok(way)
    }

    /// Two of `kind`: the app's sends over mTLS to the backend's, which authenticates, authorises and hands on.
    pub(crate) async fn two_hops(kind: Kind, at: Setting<'_>) -> Result<Self> {
        let directory = at.directory.join(format!("{}-hops", kind.name()));
        std::fs::create_dir(&directory)?;
        let (listen, between) = (proxies::free_port()?, proxies::free_port()?);
        let mut issuer = None;
        let (near, far) = match kind {
            Kind::Envoy => {
                let ca = Ca::new()?;
                let (near, far) = (directory.join("near"), directory.join("far"));
                for (name, place) in [("orders", &near), ("payments", &far)] {
                    std::fs::create_dir(place)?;
                    ca.write_server(TRUST_DOMAIN, name, place)?;
                }
                let config = envoy::to_mtls(listen, between, &near);
                let near = envoy::command(kind.locate()?, &near.join("envoy.yaml"), &config)?;
                let far = proxies::envoy_inbound(kind.locate()?, &far, between, at.backend)?;
                (near, far)
            }
            _ => {
                let made = warifu::Issuer::start(&directory).await?;
                let (near, far) = (directory.join("near"), directory.join("far"));
                std::fs::create_dir(&near)?;
                std::fs::create_dir(&far)?;
                let outbound = format!(
                    "outbound:\n  listen: {listen}\n  routes:\n  - {{host: payments, upstream: \"https://{between}\", \
                     mtls: {{expect: \"spiffe://{TRUST_DOMAIN}/payments\"}}}}\n"
                );
                let inbound = warifu::inbound(between, at.backend);
                let near = made
                    .command(kind.locate()?, &near, "orders", &outbound)
                    .await?;
                let far = made
                    .command(kind.locate()?, &far, "payments", &inbound)
                    .await?;
                issuer = Some(made);
                (near, far)
            }
        };
        let processes = vec![
            start(far, "far", &directory, at)?,
            start(near, "near", &directory, at)?,
        ];
        let way = Self {
            name: kind.name(),
            processes,
            app: Client::plain(listen),
            requests: 0,
            _issuer: issuer,
        };
        way.await_first_answer().await?;
        way.tells_who_called().await?;
        Ok(way)
    }

    async fn await_first_answer(&self) -> Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            let Err(error) = self.ask(&request(backend::PATH, "")).await else {
                return Ok(());
            };
            if Instant::now() > deadline {
                let said: Vec<String> = self.processes.iter().map(Process::last_words).collect();
                return Err(format!(
                    "{} does not answer: {error}\n{}",
                    self.name,
                    said.join("\n")
                )
                .into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn ask(&self, message: &[u8]) -> Result<Answer> {
        let answer = self.app.connect().await?.ask(message).await?;
        if answer.status != 200 {
            return Err(format!("status {}: {}", answer.status, answer.body).into());
        }
        Ok(answer)
    }

    /// A fast proxy that hashed no body, or signed nothing, would only look good.
    async fn signs(&self, keys: &Keys) -> Result<()> {
        for body in BODIES {
            let message = post(backend::ECHO_PATH, "authorization: Basic forged\r\n", body);
            let answer = self.ask(&message).await?;
            signature::verify(&answer.body, body, keys, REGION, SERVICE).map_err(|why| {
                format!("{} is not comparable: {why}\n{}", self.name, answer.body)
            })?;
        }
        Ok(())
    }

    /// The floor would be none if it left the costliest part out.
    async fn hashes(&self) -> Result<()> {
        for body in BODIES {
            let answer = self.ask(&post(backend::ECHO_PATH, "", body)).await?;
            let hash = signature::hex(digest(&SHA256, body).as_ref());
            if !answer.body.contains(&format!("{}: {hash}", bare::HASH)) {
                return Err(format!("{} hashes no body\n{}", self.name, answer.body).into());
            }
        }
        Ok(())
    }

    async fn tells_who_called(&self) -> Result<()> {
        let forged = "x-forwarded-client-cert: URI=spiffe://bench.test/forged\r\n";
        let answer = self.ask(&request(backend::ECHO_PATH, forged)).await?;
        let seen = answer.body.to_ascii_lowercase();
        let named = seen
            .lines()
            .any(|line| line.starts_with("x-forwarded-client-cert:") && line.contains("/orders"));
        if !named || seen.contains("forged") {
            return Err(format!(
                "{} is not comparable: the app must learn who called\n{seen}",
                self.name
            )
            .into());
        }
        Ok(())
    }
}

fn start(command: Command, name: &str, directory: &Path, at: Setting<'_>) -> Result<Process> {
    let output = directory.join(format!("{name}.stdout"));
    let errors = directory.join(format!("{name}.stderr"));
    Process::start(command, at.cores, &output, &errors)
}
