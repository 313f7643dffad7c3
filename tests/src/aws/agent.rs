//! An agent in a process of its own: its base credentials come from its environment.

use std::{net::SocketAddr, path::PathBuf};

use bytes::Bytes;
use http::{HeaderMap, Request, header::HOST};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use super::web_identity::{REGION, Session};
use crate::{
    metrics::sum_of,
    peers::Ministack,
    process::{AgentProcess, AuthorityProcess, Command, DEADLINE, Finished, Sandbox, Signal},
};

/// `spiffe://example.org/orders`: where it runs, and who attests it.
#[derive(Debug)]
pub struct Workload {
    authority: AuthorityProcess,
    sandbox: Sandbox,
}

/// Base credentials.
#[derive(Debug, Clone, Copy)]
pub struct Keys<'a> {
    /// Access key id.
    pub id: &'a str,
    /// Secret access key: an emulator's, worth nothing elsewhere.
    pub secret: &'a str,
}

/// An agent that is ready.
#[derive(Debug)]
pub struct Agent(AgentProcess);

/// What the app got.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub text: String,
}

impl Workload {
    /// With an authority.
    #[expect(clippy::new_without_default, reason = "it starts a process")]
    pub fn new() -> Self {
        let sandbox = Sandbox::new();
        Self {
            authority: sandbox.authority(),
            sandbox,
        }
    }

    /// With an authority whose JWT-SVIDs have this issuer.
    pub fn with_issuer(issuer: &str) -> Self {
        let sandbox = Sandbox::new();
        sandbox.authority_yaml(&format!("tokens: {{jwt_svid: {{issuer: \"{issuer}\"}}}}\n"));
        let authority = sandbox.warifu(&["authority", "--config", "authority.yaml"]);
        Self {
            authority: authority.authority(),
            sandbox,
        }
    }

    /// With an authority that publishes its keys at `web`, and names itself after it in JWT-SVIDs.
    pub fn published_at(web: SocketAddr) -> Self {
        let sandbox = Sandbox::new();
        sandbox.authority_yaml(&format!(
            "web: {{listen: \"{web}\"}}\ntokens: {{jwt_svid: {{issuer: \"http://{web}\"}}}}\n"
        ));
        let authority = sandbox.warifu(&["authority", "--config", "authority.yaml"]);
        Self {
            authority: authority.authority(),
            sandbox,
        }
    }

    /// Its agent, with an STS and these routes (lines of a YAML list), ready.
    pub fn agent(&self, keys: Keys<'_>, sts: &str, routes: &str) -> Agent {
        self.agent_of_roles(keys, sts, "", routes)
    }

    /// As [`Workload::agent`], with more of `aws` (lines of a YAML mapping: `roles: {…}`).
    pub fn agent_of_roles(&self, keys: Keys<'_>, sts: &str, aws: &str, routes: &str) -> Agent {
        let routes = routes.replace("\n- ", "\n  - ");
        let outbound = format!("outbound:\n  listen: 127.0.0.1:0\n  routes:\n  {routes}");
        let agent = self.agent_with(keys, sts, aws, &outbound);
        agent.wait_until_ready();
        agent
    }

    /// As [`Workload::agent_of_roles`], with a role's session as base credentials.
    pub fn agent_of_session(&self, session: &Session, sts: &str, aws: &str, routes: &str) -> Agent {
        let routes = routes.replace("\n- ", "\n  - ");
        let outbound = format!("outbound:\n  listen: 127.0.0.1:0\n  routes:\n  {routes}");
        let environment = [
            ("AWS_ACCESS_KEY_ID", session.access_key_id.as_str()),
            ("AWS_SECRET_ACCESS_KEY", &session.secret_access_key),
            ("AWS_SESSION_TOKEN", &session.session_token),
        ];
        let agent = self.start(&environment, REGION, sts, aws, &outbound);
        agent.wait_until_ready();
        agent
    }

    /// Its agent, with an STS, more of `aws`, and more of a configuration, listening.
    pub fn agent_with(&self, keys: Keys<'_>, sts: &str, aws: &str, more: &str) -> Agent {
        let environment = [
            ("AWS_ACCESS_KEY_ID", keys.id),
            ("AWS_SECRET_ACCESS_KEY", keys.secret),
        ];
        self.start(&environment, Ministack::REGION, sts, aws, more)
    }

    fn start(
        &self,
        environment: &[(&str, &str)],
        region: &str,
        sts: &str,
        aws: &str,
        more: &str,
    ) -> Agent {
        // One that runs again has its record.
        if !self.path("orders.token").exists() {
            self.sandbox.join_token("orders");
        }
        let aws = aws.replace('\n', "\n  ");
        let secrets = match aws.contains("secretsmanager:") {
            true => String::new(),
            false => format!("secretsmanager: {{endpoint: \"{sts}\", refresh: 10s}}"),
        };
        let more = format!(
            "aws:\n  region: {region}\n  sts_endpoint: \"{sts}\"\n  {secrets}\n  {aws}\n{more}"
        );
        let mut command = self.sandbox.agent("orders", &self.authority, &more);
        for (name, value) in environment {
            command = command.env(name, value);
        }
        Agent(self.sandbox.listening("orders", command.start()))
    }

    /// Its agent, which does not start, as it ended.
    pub fn agent_that_fails(&self, keys: Keys<'_>, more: &str) -> Finished {
        self.sandbox.join_token("orders");
        let region = Ministack::REGION;
        let more = format!("aws: {{region: {region}}}\n{more}");
        let command = self.sandbox.agent("orders", &self.authority, &more);
        let command = command.env("AWS_ACCESS_KEY_ID", keys.id);
        command.env("AWS_SECRET_ACCESS_KEY", keys.secret).run()
    }

    /// The path of `name` in its directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.sandbox.path(name)
    }

    /// Writes a file into its directory.
    pub fn write(&self, name: &str, content: &str) {
        self.sandbox.write(name, content);
    }

    /// `warifu` with `arguments`, in its directory.
    pub fn warifu(&self, arguments: &[&str]) -> Command {
        self.sandbox.warifu(arguments)
    }
}

impl Agent {
    /// Waits until it is ready.
    pub fn wait_until_ready(&self) {
        self.0.wait_until_ready();
    }

    /// Has it drain, and waits for its end.
    pub fn stop(self) -> Finished {
        self.0.running.signal(Signal::TERM);
        self.0.running.ended()
    }

    /// Where its app connects.
    pub fn address(&self) -> SocketAddr {
        self.0.outbound.expect("an outbound listener")
    }

    /// `POST /charges` with a small body, as an app that knows nothing of AWS sends it.
    pub async fn post(&self, host: &str, target: &str) -> Answer {
        let request = Request::post(target)
            .header(HOST, host)
            .header("content-type", "application/json");
        self.send(request.body(r#"{"amount": 1}"#.into()).unwrap())
            .await
    }

    /// Sends this very request, over a connection of its own.
    pub async fn send(&self, request: Request<Bytes>) -> Answer {
        Self::send_to(self.address(), request).await
    }

    /// Sends this very request past every agent.
    pub async fn send_to(address: SocketAddr, request: Request<Bytes>) -> Answer {
        let exchange = async {
            let stream = TcpStream::connect(address).await.unwrap();
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
            tokio::spawn(connection);
            let answer = sender.send_request(request.map(Full::new)).await.unwrap();
            let (head, body) = answer.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            Answer {
                status: head.status.as_u16(),
                headers: head.headers,
                text: String::from_utf8_lossy(&body).into_owned(),
            }
        };
        let answer = tokio::time::timeout(DEADLINE, exchange).await;
        answer.expect("an answer")
    }

    /// The ARN that STS says is calling, through the route `host`.
    pub async fn caller(&self, host: &str) -> String {
        let request = Request::post("/")
            .header(HOST, host)
            .header("content-type", "application/x-www-form-urlencoded");
        let form = "Action=GetCallerIdentity&Version=2011-06-15";
        let answer = self.send(request.body(form.into()).unwrap()).await;
        let arn = || Some(answer.text.split_once("<Arn>")?.1.split_once("</Arn>")?.0);
        match (answer.status, arn()) {
            (200, Some(arn)) => arn.to_owned(),
            _ => panic!("GetCallerIdentity: {answer:?}"),
        }
    }

    /// `/status`, as `warifu status --json` reads it.
    pub fn status(&self) -> Value {
        let answer = self.0.admin("/status");
        let (_, body) = answer.text.split_once("\r\n\r\n").expect("a body");
        serde_json::from_str(body).unwrap_or_else(|why| panic!("{why}: {body}"))
    }

    /// What `/status` says of credentials: `the base credentials`, or a role's, by ARN and session.
    pub fn credentials(&self, name: &str, session: Option<&str>) -> Value {
        let status = self.status();
        let all = status["aws_credentials"].as_array().expect("a list");
        let is = |it: &&Value| it["name"] == name && it["session"].as_str() == session;
        let found = all.iter().find(is);
        found.unwrap_or_else(|| panic!("{status}")).clone()
    }

    /// As [`Agent::credentials`] of a role session, once there are some.
    pub fn credentials_or_none(&self, role: &str, session: &str) -> Option<Value> {
        let status = self.status();
        let mut all = status["aws_credentials"].as_array()?.iter();
        let found = all.find(|it| it["name"] == role && it["session"] == session)?;
        found["expires"].is_string().then(|| found.clone())
    }

    /// The status of a probe.
    pub fn probe(&self, path: &str) -> u16 {
        self.0.probe(path).status
    }

    /// The most memory it had resident, in KiB (`VmHWM`).
    pub fn most_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.running.pid()));
        let status = status.expect("a process of Linux");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
        kib.expect("VmHWM")
    }

    /// Waits for a line of its log that contains `text`: what answers a request may be quicker than the log.
    ///
    /// # Panics
    /// Without one.
    pub fn logs(&self, text: &str) -> Value {
        self.0.running.wait_for(text)
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        self.0.running.stderr()
    }

    /// The value of a metric: its name, with its labels as they are printed; 0 while it is not there.
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.0.probe("/metrics").text;
        let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok();
        text.lines().find_map(value).unwrap_or(0.0)
    }

    /// All values of a metric whose labels, as they are printed, have `label` in them, together.
    pub fn metric_sum(&self, name: &str, label: &str) -> f64 {
        let text = self.0.probe("/metrics").text;
        sum_of(&text, name, label)
    }
}

impl Answer {
    /// The agent's reason, where the answer is the agent's.
    pub fn reason(&self) -> Option<&str> {
        self.headers.get("x-warifu-reason")?.to_str().ok()
    }

    /// Checks that it is the agent's, and says all `parts`.
    pub fn is_refused(&self, status: u16, reason: &str, parts: &[&str]) {
        assert_eq!(
            (self.status, self.reason()),
            (status, Some(reason)),
            "{self:?}"
        );
        let said: Value = serde_json::from_str(&self.text).expect("JSON");
        assert_eq!(said["reason"], reason);
        let message = said["message"].as_str().expect("a message");
        for part in parts {
            assert!(message.contains(part), "{part:?} is not in {message:?}");
        }
    }

    /// Checks that it is the service's.
    pub fn is_of_the_service(&self, status: u16) {
        assert_eq!((self.status, self.reason()), (status, None), "{self:?}");
    }
}
