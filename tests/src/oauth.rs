//! An agent's OAuth 2.0 token endpoint, asked by hand: byte for byte what a test says.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UnixStream},
};
use warifu_agent::config::value::Listen;

use crate::mesh::{Agent, DEADLINE};

/// A client secret as operators make it, with what form-encoding changes.
pub const SECRET: &str = "S+cret/of=the client & 32 bytes or more%21";

/// The form that asks for what there is.
pub const FORM: &str = "grant_type=client_credentials";

/// The endpoint.
#[derive(Debug, Clone)]
pub struct Endpoint(Listen);

/// What it answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Headers, by lower-case name.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: String,
}

impl Endpoint {
    /// Of an agent that runs.
    ///
    /// # Panics
    /// When it has none.
    pub fn of(agent: &Agent) -> Self {
        let address = agent.running().local.oauth.clone();
        Self(address.expect("the agent has local.oauth"))
    }

    /// `IP:PORT`, or `localhost` for a unix socket.
    pub fn host(&self) -> String {
        match &self.0 {
            Listen::Tcp(address) => address.to_string(),
            Listen::Unix(_) => "localhost".to_owned(),
        }
    }

    /// The URL of a path here.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.host())
    }

    /// Posts `form` as clients do, with further headers.
    ///
    /// # Panics
    /// When there is no answer.
    pub async fn ask(&self, headers: &[(&str, &str)], form: &str) -> Answer {
        let host = self.host();
        let mut all = vec![
            ("host", host.as_str()),
            ("content-type", "application/x-www-form-urlencoded"),
        ];
        all.extend(headers);
        self.send("POST", "/oauth2/token", &all, form).await
    }

    /// Gets a document.
    ///
    /// # Panics
    /// When there is no answer.
    pub async fn get(&self, path: &str) -> Answer {
        let host = self.host();
        self.send("GET", path, &[("host", &host)], "").await
    }

    /// Sends just this.
    ///
    /// # Panics
    /// When there is no answer.
    pub async fn send(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let mut request = format!("{method} {target} HTTP/1.1\r\n");
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        let length = body.len();
        request += &format!("content-length: {length}\r\nconnection: close\r\n\r\n{body}");
        let exchange = async {
            match &self.0 {
                Listen::Tcp(address) => {
                    exchange(TcpStream::connect(address).await?, &request).await
                }
                Listen::Unix(path) => exchange(UnixStream::connect(path).await?, &request).await,
            }
        };
        let answer = tokio::time::timeout(DEADLINE, exchange).await;
        let answer = answer.expect("an answer in time").expect("an answer");
        Answer::read(&answer)
    }
}

impl Answer {
    fn read(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").expect("a whole head");
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1));
        let headers = lines.filter_map(|line| line.split_once(": "));
        Self {
            status: status.and_then(|it| it.parse().ok()).expect("a status"),
            headers: headers
                .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
                .collect(),
            body: body.to_owned(),
        }
    }

    /// The body.
    ///
    /// # Panics
    /// When it is not JSON.
    pub fn json(&self) -> Value {
        let read = serde_json::from_str(&self.body);
        read.unwrap_or_else(|why| panic!("{why}: {self:?}"))
    }

    /// `error` of the body.
    ///
    /// # Panics
    /// When the answer is none of RFC 6749 §5.2.
    pub fn error(&self) -> String {
        let json = self.json();
        let description = json["error_description"].as_str().unwrap_or_default();
        let allowed = |c: char| matches!(c, ' '..='~') && !['"', '\\'].contains(&c);
        assert!(
            description.len() > 10 && description.chars().all(allowed),
            "{json}"
        );
        assert_eq!(self.headers["cache-control"], "no-store");
        json["error"].as_str().expect("an error").to_owned()
    }

    /// `access_token` of the body.
    ///
    /// # Panics
    /// When the answer is none of RFC 6749 §5.1.
    pub fn token(&self) -> String {
        assert_eq!(self.status, 200, "{self:?}");
        let json = self.json();
        assert_eq!(json["token_type"], "Bearer");
        assert_eq!(self.headers["content-type"], "application/json");
        assert_eq!(self.headers["cache-control"], "no-store");
        assert_eq!(self.headers["pragma"], "no-cache");
        json["access_token"].as_str().expect("a token").to_owned()
    }
}

/// HTTP Basic as most clients send it: as it is.
pub fn basic(id: &str, secret: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")))
}

/// Writes the secret where an agent's configuration may name it.
///
/// # Panics
/// When it can't.
pub fn secret_file(dir: &std::path::Path, secret: &str) -> String {
    let file = dir.join("client-secret");
    std::fs::write(&file, secret).expect("a file in the temporary directory");
    file.display().to_string()
}

async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    request: &str,
) -> std::io::Result<String> {
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// Form-encoded.
pub fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte.is_ascii_alphanumeric() {
            true => char::from(byte).to_string(),
            false => format!("%{byte:02X}"),
        })
        .collect()
}
