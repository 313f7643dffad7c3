//! botocore in a process of its own: AWS calls by another's client, signatures by another's signer.

use std::{process::Stdio, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use thiserror::Error;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::Mutex,
    time::timeout,
};

use super::{Unavailable, python, script};

/// Above botocore's own time-outs.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// botocore, one request at a time.
#[derive(Debug)]
pub struct Boto {
    process: Mutex<Process>,
}

#[derive(Debug)]
struct Process {
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    /// Killed when dropped; it also ends by itself when its input does.
    _child: Child,
}

/// A call that was answered with an error, or not at all.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{code}: {message}")]
pub struct CallError {
    /// AWS's error code, or the name of botocore's exception.
    pub code: String,
    /// What it said.
    pub message: String,
}

/// Who makes a call, and where.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    /// `http://127.0.0.1:PORT`
    pub endpoint: &'a str,
    /// The region the client is for.
    pub region: &'a str,
    /// Access key id.
    pub access_key_id: &'a str,
    /// Secret access key.
    pub secret_access_key: &'a str,
}

/// A request to sign. Exactly `headers` (with `host`) and what SigV4 adds are signed.
#[derive(Debug, Clone)]
pub struct SignRequest<'a> {
    /// The method.
    pub method: &'a str,
    /// `https://host/path?query`
    pub url: &'a str,
    /// Names and values.
    pub headers: &'a [(String, String)],
    /// The whole body.
    pub body: &'a [u8],
    /// The signing name; `s3` has a signer of its own.
    pub service: &'a str,
    /// The region.
    pub region: &'a str,
    /// Access key id.
    pub access_key_id: &'a str,
    /// Secret access key.
    pub secret_access_key: &'a str,
    /// The session token of temporary credentials.
    pub session_token: Option<&'a str>,
    /// When it is signed, as `x-amz-date` says it: `20150830T123600Z`.
    pub date: &'a str,
    /// What of the body is signed.
    pub payload: SignPayload,
    /// Signs in the query, for so many seconds.
    pub expires: Option<u64>,
}

/// What of a body is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignPayload {
    /// All of it.
    Hashed,
    /// Nothing.
    Unsigned,
    /// Nothing, and a checksum follows it.
    Trailer,
}

impl Boto {
    /// Starts it.
    ///
    /// # Errors
    /// When the Python peers can't be had.
    pub async fn start() -> Result<Self, Unavailable> {
        let fail = |why: String| Unavailable::new("botocore", why);
        let python = tokio::task::spawn_blocking(python)
            .await
            .map_err(|e| fail(e.to_string()))??;
        let mut child = Command::new(python)
            .arg(script("aws.py"))
            // No credentials, profile or endpoint of this machine may take part.
            .env_clear()
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| fail(e.to_string()))?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(fail("its pipes are missing".to_owned()));
        };
        let process = Mutex::new(Process {
            input,
            output: BufReader::new(output).lines(),
            _child: child,
        });
        Ok(Self { process })
    }

    /// `operation` in botocore's spelling (`create_role`), `parameters` in the API's.
    ///
    /// # Errors
    /// What AWS, or botocore, had against it.
    pub async fn call(
        &self,
        caller: Caller<'_>,
        service: &str,
        operation: &str,
        parameters: Value,
    ) -> Result<Value, CallError> {
        self.ask(&json!({
            "do": "call",
            "endpoint": caller.endpoint,
            "region": caller.region,
            "access_key_id": caller.access_key_id,
            "secret_access_key": caller.secret_access_key,
            "service": service,
            "operation": operation,
            "parameters": parameters,
        }))
        .await
    }

    /// The `authorization` header botocore gives each of `requests`; of one that is signed in its query, the signature.
    ///
    /// # Errors
    /// When botocore can't sign one.
    pub async fn sign(&self, requests: &[SignRequest<'_>]) -> Result<Vec<String>, CallError> {
        let requests: Vec<Value> = requests.iter().map(SignRequest::json).collect();
        let question = json!({"do": "sign", "requests": requests});
        serde_json::from_value(self.ask(&question).await?)
            .map_err(|why| CallError::of_the_harness(&why.to_string()))
    }

    /// Whether `size` bytes come back from S3 as they went there, by boto3's own transfer.
    ///
    /// # Errors
    /// What AWS, or boto3, had against it.
    pub async fn transfer(
        &self,
        caller: Caller<'_>,
        bucket: &str,
        key: &str,
        size: usize,
    ) -> Result<bool, CallError> {
        let question = json!({
            "do": "transfer",
            "endpoint": caller.endpoint,
            "region": caller.region,
            "access_key_id": caller.access_key_id,
            "secret_access_key": caller.secret_access_key,
            "bucket": bucket,
            "key": key,
            "size": size,
        });
        let said = self.ask(&question).await?;
        Ok(said.get("same") == Some(&Value::Bool(true)))
    }

    async fn ask(&self, question: &Value) -> Result<Value, CallError> {
        let mut process = self.process.lock().await;
        let answer = timeout(ANSWER_WITHIN, process.ask(question))
            .await
            .map_err(|_| CallError::of_the_harness("botocore did not answer in time"))?
            .map_err(|e| CallError::of_the_harness(&format!("talking to botocore: {e}")))?;
        if let Some(answer) = answer.get("ok") {
            return Ok(answer.clone());
        }
        let error = answer.get("error").cloned().unwrap_or_default();
        Err(CallError {
            code: text(&error, "code")?,
            message: text(&error, "message")?,
        })
    }
}

impl SignRequest<'_> {
    fn json(&self) -> Value {
        json!({
            "method": self.method,
            "url": self.url,
            "headers": self.headers,
            "body": STANDARD.encode(self.body),
            "service": self.service,
            "region": self.region,
            "access_key_id": self.access_key_id,
            "secret_access_key": self.secret_access_key,
            "session_token": self.session_token,
            "date": self.date,
            "expires": self.expires,
            "payload": match self.payload {
                SignPayload::Hashed => "hashed",
                SignPayload::Unsigned => "unsigned",
                SignPayload::Trailer => "trailer",
            },
        })
    }
}

impl Process {
    async fn ask(&mut self, question: &Value) -> std::io::Result<Value> {
        self.input
            .write_all(format!("{question}\n").as_bytes())
            .await?;
        let Some(line) = self.output.next_line().await? else {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        };
        Ok(serde_json::from_str(&line)?)
    }
}

impl CallError {
    fn of_the_harness(message: &str) -> Self {
        Self {
            code: "Harness".to_owned(),
            message: message.to_owned(),
        }
    }
}

fn text(value: &Value, member: &str) -> Result<String, CallError> {
    value
        .get(member)
        .and_then(Value::as_str)
        .map(str::to_owned)
        .ok_or_else(|| CallError::of_the_harness(&format!("no `{member}` in {value}")))
}
