//! ministack: an AWS emulator that verifies SigV4, trust policies and IAM policies.

use std::{
    ffi::OsStr,
    net::SocketAddr,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    Unavailable,
    aws::{Boto, CallError, Caller},
    process::Tied,
    python,
};
use crate::ports::free_port;

/// It is up in two seconds on a quiet machine, in ten on one that compiles beside it.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// How often readiness is asked for.
const POLL: Duration = Duration::from_millis(50);

/// Another process may take the port between our choice and its bind.
const ATTEMPTS: usize = 3;

/// A running ministack. Ended when dropped.
///
/// Its root key (`test`/`test`) makes the set-up calls. Mind that it does not check signatures of the
/// root key: sign with a user's or a role session's.
#[derive(Debug)]
pub struct Ministack {
    address: SocketAddr,
    endpoint: String,
    boto: Boto,
    process: Tied,
    _state: TempDir,
}

/// Long-term keys of an IAM user.
#[derive(Clone)]
pub struct UserKeys {
    /// The user's ARN.
    pub arn: String,
    /// Access key id.
    pub access_key_id: String,
    /// Secret access key: the emulator's, worth nothing elsewhere.
    pub secret_access_key: String,
}

/// Credentials of a role's session.
#[derive(Clone)]
pub struct SessionKeys {
    /// `ASIA…`.
    pub access_key_id: String,
    /// Good with the token only.
    pub secret_access_key: String,
    /// Must come along.
    pub session_token: String,
}

impl Ministack {
    /// The account everything lives in.
    pub const ACCOUNT: &'static str = "000000000000";
    /// The region the set-up calls go to.
    pub const REGION: &'static str = "us-east-1";

    /// Starts one on a free loopback port, with signatures and policies enforced, and waits until it is ready.
    ///
    /// # Errors
    /// When it can't be had or doesn't become ready; with its log.
    pub async fn start() -> Result<Self, Unavailable> {
        let mut last = None;
        for _ in 0..ATTEMPTS {
            match Self::try_start().await {
                Ok(ministack) => return Ok(ministack),
                Err(why) => last = Some(why),
            }
        }
        Err(last.unwrap_or_else(|| fail("it was not tried")))
    }

    async fn try_start() -> Result<Self, Unavailable> {
        let boto = Boto::start().await?;
        let program = python()?.with_file_name("ministack");
        let state = tempfile::tempdir().map_err(fail)?;
        // From the process's own sequence: a port the kernel names may be named to two of these at once, and
        // then one test talks to the other's emulator.
        let address = free_port();
        let port = address.port().to_string();
        let home = state.path().as_os_str();
        let env: &[(&str, &OsStr)] = &[
            ("AUTH", "true".as_ref()),
            ("BIND_HOST", "127.0.0.1".as_ref()),
            ("GATEWAY_PORT", port.as_ref()),
            // Listeners nobody asked for, on fixed ports.
            ("IOT_MTLS_ENABLED", "0".as_ref()),
            ("SFTP_ENABLED", "0".as_ref()),
            ("HOME", home),
            ("TMPDIR", home),
        ];
        let process = Tied::run("ministack", &program, &[] as &[&str], env)?;
        let mut ministack = Self {
            address,
            endpoint: format!("http://{address}"),
            boto,
            process,
            _state: state,
        };
        ministack.wait_until_ready().await?;
        Ok(ministack)
    }

    /// `http://127.0.0.1:PORT`, every service's endpoint.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// An API call as root, made by botocore: `call("iam", "create_role", json!({"RoleName": …}))`.
    ///
    /// # Errors
    /// What ministack, or botocore, had against it.
    pub async fn call(
        &self,
        service: &str,
        operation: &str,
        parameters: Value,
    ) -> Result<Value, CallError> {
        let root = Caller {
            endpoint: &self.endpoint,
            region: Self::REGION,
            access_key_id: "test",
            secret_access_key: "test",
        };
        self.boto.call(root, service, operation, parameters).await
    }

    /// Creates a user that may do `policy`'s statements, and keys for it.
    ///
    /// # Errors
    /// As [`Ministack::call`].
    pub async fn create_user(&self, name: &str, statements: Value) -> Result<UserKeys, CallError> {
        let user = self
            .call("iam", "create_user", json!({"UserName": name}))
            .await?;
        let policy = json!({
            "UserName": name,
            "PolicyName": "policy",
            "PolicyDocument": policy(statements),
        });
        self.call("iam", "put_user_policy", policy).await?;
        let keys = self
            .call("iam", "create_access_key", json!({"UserName": name}))
            .await?;
        Ok(UserKeys {
            arn: at(&user, "/User/Arn")?,
            access_key_id: at(&keys, "/AccessKey/AccessKeyId")?,
            secret_access_key: at(&keys, "/AccessKey/SecretAccessKey")?,
        })
    }

    /// Creates a role with trust policy `trust` that may do `statements`; answers its ARN.
    ///
    /// # Errors
    /// As [`Ministack::call`].
    pub async fn create_role(
        &self,
        name: &str,
        trust: Value,
        statements: Value,
    ) -> Result<String, CallError> {
        let role = json!({"RoleName": name, "AssumeRolePolicyDocument": policy(trust)});
        let role = self.call("iam", "create_role", role).await?;
        let policy = json!({
            "RoleName": name,
            "PolicyName": "policy",
            "PolicyDocument": policy(statements),
        });
        self.call("iam", "put_role_policy", policy).await?;
        at(&role, "/Role/Arn")
    }

    /// Credentials of a session of `role` (an ARN), which must trust the account.
    ///
    /// # Errors
    /// As [`Ministack::call`].
    pub async fn assume_role(&self, role: &str, session: &str) -> Result<SessionKeys, CallError> {
        let asked = json!({"RoleArn": role, "RoleSessionName": session});
        let answer = self.call("sts", "assume_role", asked).await?;
        Ok(SessionKeys {
            access_key_id: at(&answer, "/Credentials/AccessKeyId")?,
            secret_access_key: at(&answer, "/Credentials/SecretAccessKey")?,
            session_token: at(&answer, "/Credentials/SessionToken")?,
        })
    }

    /// What the rotation of a secret does first: the new value is AWSPENDING.
    ///
    /// # Errors
    /// As [`Ministack::call`].
    pub async fn pend_secret(&self, secret: &str, text: &str) -> Result<(), CallError> {
        let pending =
            json!({"SecretId": secret, "SecretString": text, "VersionStages": ["AWSPENDING"]});
        let put = self.call("secretsmanager", "put_secret_value", pending);
        put.await.map(drop)
    }

    /// And last: it is AWSCURRENT, and what was that is AWSPREVIOUS.
    ///
    /// # Errors
    /// As [`Ministack::call`].
    pub async fn finish_rotation(&self, secret: &str) -> Result<(), CallError> {
        let from = self.version(secret, "AWSCURRENT").await?;
        let to = self.version(secret, "AWSPENDING").await?;
        // Secrets Manager moves AWSPENDING to the next value that is put; the emulator leaves it where it was, too.
        for moved in [
            json!({"SecretId": secret, "VersionStage": "AWSCURRENT", "MoveToVersionId": to, "RemoveFromVersionId": from}),
            json!({"SecretId": secret, "VersionStage": "AWSPENDING", "RemoveFromVersionId": to}),
        ] {
            self.call("secretsmanager", "update_secret_version_stage", moved)
                .await?;
        }
        Ok(())
    }

    /// The id of a secret's version that has this stage.
    async fn version(&self, secret: &str, stage: &str) -> Result<String, CallError> {
        let asked = json!({"SecretId": secret});
        let described = self
            .call("secretsmanager", "describe_secret", asked)
            .await?;
        let versions = described
            .get("VersionIdsToStages")
            .and_then(Value::as_object);
        let has = |stages: &Value| {
            stages
                .as_array()
                .is_some_and(|it| it.iter().any(|it| it == stage))
        };
        let found = versions.and_then(|it| it.iter().find(|(_, stages)| has(stages)));
        found.map(|(id, _)| id.clone()).ok_or_else(|| CallError {
            code: "Harness".to_owned(),
            message: format!("no {stage} in {described}"),
        })
    }

    /// Creates a REST API whose every path below `/` takes any method, demands an IAM signature
    /// (`AWS_IAM`, signing name `execute-api`) and answers 200. Its path on [`Ministack::endpoint`]
    /// is returned: what is appended is the API's own path.
    ///
    /// # Errors
    /// As [`Ministack::call`].
    pub async fn create_iam_api(&self, name: &str) -> Result<String, CallError> {
        let g = "apigateway";
        let api = self
            .call(g, "create_rest_api", json!({"name": name}))
            .await?;
        let api = at(&api, "/id")?;
        let resources = self
            .call(g, "get_resources", json!({"restApiId": api}))
            .await?;
        let root = at(&resources, "/items/0/id")?;
        let resource = json!({"restApiId": api, "parentId": root, "pathPart": "{proxy+}"});
        let resource = self.call(g, "create_resource", resource).await?;
        let resource = at(&resource, "/id")?;

        let method = json!({"restApiId": api, "resourceId": resource, "httpMethod": "ANY"});
        let with = |more: Value| merged(&method, more);
        let iam = with(json!({"authorizationType": "AWS_IAM"}));
        self.call(g, "put_method", iam).await?;
        let mock = with(json!({
            "type": "MOCK",
            "requestTemplates": {"application/json": "{\"statusCode\": 200}"},
        }));
        self.call(g, "put_integration", mock).await?;
        let ok = with(json!({"statusCode": "200"}));
        self.call(g, "put_method_response", ok).await?;
        let answer = with(json!({
            "statusCode": "200",
            "responseTemplates": {"application/json": "{\"charged\": true}"},
        }));
        self.call(g, "put_integration_response", answer).await?;
        let stage = json!({"restApiId": api, "stageName": "prod"});
        self.call(g, "create_deployment", stage).await?;
        Ok(format!("/_aws/execute-api/{api}/prod"))
    }

    async fn wait_until_ready(&mut self) -> Result<(), Unavailable> {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            if let Some(status) = self.process.exited() {
                let log = self.process.log_tail();
                return Err(fail(format!("it ended with {status}:\n{log}")));
            }
            if is_ready(self.address).await.unwrap_or(false) {
                return Ok(());
            }
            if Instant::now() > deadline {
                let log = self.process.log_tail();
                return Err(fail(format!("not ready within {READY_WITHIN:?}:\n{log}")));
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

impl std::fmt::Debug for SessionKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "keys {}", self.access_key_id)
    }
}

impl std::fmt::Debug for UserKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "keys of {}", self.arn)
    }
}

async fn is_ready(address: SocketAddr) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(address).await?;
    let request =
        format!("GET /_ministack/ready HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await?;
    Ok(answer.ends_with(b" 200"))
}

fn fail(why: impl std::fmt::Display) -> Unavailable {
    Unavailable::new("ministack", why)
}

fn policy(statements: Value) -> String {
    json!({"Version": "2012-10-17", "Statement": statements}).to_string()
}

fn merged(base: &Value, more: Value) -> Value {
    let mut merged = base.clone();
    if let (Some(into), Value::Object(more)) = (merged.as_object_mut(), more) {
        into.extend(more);
    }
    merged
}

fn at(value: &Value, pointer: &str) -> Result<String, CallError> {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .map(str::to_owned)
        .ok_or_else(|| CallError {
            code: "Harness".to_owned(),
            message: format!("no {pointer} in {value}"),
        })
}
