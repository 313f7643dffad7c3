//! Replicas of one authority: processes that share a table, and a way to whichever is alive.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};
use warifu::{Secret, TrustDomain, jwt::SigningKey};
use warifu_agent::{
    attest::{Client, ClientError, Credentials, bearer, wire::Evidence},
    authority::{
        Status,
        admin::{JoinTokenRequest, client as admin},
    },
    config::{agent::AuthorityRef, value::HttpsOrigin},
};

use crate::{
    peers::{Ministack, UserKeys},
    ports::free_port,
    process::{AuthorityProcess, Sandbox, TRUST_DOMAIN},
};

/// The table they share.
const TABLE: &str = "warifu";

/// What replicas need, and where their files are.
#[derive(Debug)]
pub struct Cluster {
    /// Theirs, and their agents'.
    pub sandbox: Sandbox,
    /// `ca`, but for its braces.
    ca: String,
    keys: UserKeys,
    ministack: Ministack,
}

/// A running replica. Killed (SIGKILL) when dropped.
#[derive(Debug)]
pub struct Replica {
    /// Its administration.
    pub socket: PathBuf,
    /// The process.
    pub process: AuthorityProcess,
}

/// Somebody with a join token and a renewal key.
#[derive(Debug)]
pub struct Rival {
    key: SigningKey,
    evidence: Evidence,
}

/// A TCP load balancer, as dumb as they come: a connection goes to the next replica that accepts it.
#[derive(Debug)]
pub struct Balancer {
    /// Where agents connect.
    pub address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl Cluster {
    /// Keys wrapped by a file in a directory that replicas share.
    pub async fn on_disk() -> Self {
        let ministack = Ministack::start().await.expect("ministack");
        let sandbox = Sandbox::new();
        let ca = format!("key: disk, path: {}", sandbox.path("ca").display());
        Self::with(ministack, sandbox, ca).await
    }

    /// The root in KMS, and all other keys sealed by KMS.
    pub async fn on_kms() -> Self {
        let ministack = Ministack::start().await.expect("ministack");
        let key = async |asked: Value| {
            let made = ministack.call("kms", "create_key", asked).await;
            let made = made.expect("a KMS key");
            let id = made["KeyMetadata"]["KeyId"].as_str();
            id.expect("the id of a key").to_owned()
        };
        let root = key(json!({"KeySpec": "ECC_NIST_P256", "KeyUsage": "SIGN_VERIFY"})).await;
        let seal = key(json!({})).await;
        let ca = format!("key: aws-kms, key_id: {root}, wrap_key_id: {seal}");
        Self::with(ministack, Sandbox::new(), ca).await
    }

    /// With the table and the permissions of `docs/operations.md`.
    async fn with(ministack: Ministack, sandbox: Sandbox, ca: String) -> Self {
        let table = json!({
            "TableName": TABLE,
            "BillingMode": "PAY_PER_REQUEST",
            "AttributeDefinitions": [{"AttributeName": "pk", "AttributeType": "S"}],
            "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}],
        });
        let made = ministack.call("dynamodb", "create_table", table);
        made.await.expect("a table");
        let (region, account) = (Ministack::REGION, Ministack::ACCOUNT);
        let table = format!("arn:aws:dynamodb:{region}:{account}:table/{TABLE}");
        let kms = ["DescribeKey", "GetPublicKey", "Sign", "Encrypt", "Decrypt"];
        let kms = kms.map(|action| format!("kms:{action}"));
        let statements = json!([
            {"Effect": "Allow", "Action": ["dynamodb:GetItem", "dynamodb:PutItem"], "Resource": table},
            {"Effect": "Allow", "Action": kms, "Resource": "*"},
        ]);
        let keys = ministack.create_user("authority", statements).await;
        Self {
            sandbox,
            ca,
            keys: keys.expect("a user"),
            ministack,
        }
    }

    /// Starts a replica at `listen`, and waits until it serves. `ttl` is the life of certificates. Blocks.
    ///
    /// # Panics
    /// When it does not.
    pub fn replica(&self, name: &str, listen: SocketAddr, ttl: Duration) -> Replica {
        let socket = self.sandbox.path(&format!("{name}.sock"));
        let yaml = format!(
            r#"trust_domain: {TRUST_DOMAIN}
listen: {listen}
admin: unix:{socket}
probes: 127.0.0.1:0
ca: {{{ca}, publish_ahead: 4s}}
bundle_refresh_hint: 2s
state: {{dynamodb: {{table: {TABLE}}}}}
replicas: 2
attestors:
  bootstrap: {{kind: join-token}}
rules:
- {{attestor: bootstrap, match: {{service: "*"}}, id: "/{{service}}", ttl: {ttl}s}}
audit_file: {audit}
"#,
            socket = socket.display(),
            ca = self.ca,
            ttl = ttl.as_secs(),
            audit = self.sandbox.path(&format!("{name}.audit")).display(),
        );
        let file = format!("{name}.yaml");
        self.sandbox.write(&file, yaml);
        let command = self.sandbox.warifu(&["authority", "--config", &file]);
        let process = command
            .env("AWS_REGION", Ministack::REGION)
            .env("AWS_ENDPOINT_URL", self.ministack.endpoint())
            .env("AWS_ACCESS_KEY_ID", &self.keys.access_key_id)
            .env("AWS_SECRET_ACCESS_KEY", &self.keys.secret_access_key)
            .authority();
        Replica { socket, process }
    }

    /// Starts two at once: on an empty table they have to agree.
    ///
    /// # Panics
    /// When one does not serve.
    pub fn two(&self, listen: [SocketAddr; 2], ttl: Duration) -> [Replica; 2] {
        tokio::task::block_in_place(|| {
            std::thread::scope(|scope| {
                let one = scope.spawn(|| self.replica("one", listen[0], ttl));
                let other = self.replica("other", listen[1], ttl);
                [one.join().expect("the first replica"), other]
            })
        })
    }

    /// A client of the authority at `address`, which has the root `pin`.
    ///
    /// # Panics
    /// When the pin is none.
    pub fn client(address: SocketAddr, pin: &str) -> Client {
        let url: HttpsOrigin = format!("https://{address}").parse().expect("a URL");
        let authority = AuthorityRef {
            url,
            root_spki_sha256: vec![pin.parse().expect("a pin")],
            bundle: None,
        };
        let domain = TrustDomain::new(TRUST_DOMAIN).expect("a trust domain");
        Client::new(&domain, &authority).expect("a client")
    }
}

impl Replica {
    /// A client that knows only this one.
    pub fn client(&self) -> Client {
        Cluster::client(self.process.address, &self.process.pin)
    }

    /// A join token for `service`.
    ///
    /// # Panics
    /// When it makes none.
    pub async fn join_token(&self, service: &str) -> Secret<String> {
        let request = JoinTokenRequest {
            attestor: "bootstrap".to_owned(),
            facts: [("service".to_owned(), service.to_owned())].into(),
            ttl: Duration::from_secs(600).as_secs(),
        };
        let made = admin::create_join_token(&self.socket, &request).await;
        made.expect("a join token").token
    }

    /// What it holds.
    ///
    /// # Panics
    /// When it does not say.
    pub async fn status(&self) -> Status {
        admin::status(&self.socket).await.expect("a status")
    }
}

impl Rival {
    /// With a key of its own.
    pub fn new(token: &Secret<String>) -> Self {
        let token = token.clone();
        Self {
            key: SigningKey::generate(),
            evidence: Evidence::JoinToken { token },
        }
    }

    /// Attests through `client`.
    ///
    /// # Errors
    /// Why not.
    pub async fn attest(&self, client: &Client) -> Result<Credentials, ClientError> {
        let evidence = bearer(self.evidence.clone());
        client.attest(&*evidence, None, &csr(), &self.key).await
    }

    /// Renews through `client`.
    ///
    /// # Errors
    /// Why not.
    pub async fn renew(&self, client: &Client, record: &str) -> Result<Credentials, ClientError> {
        client.renew(record, &csr(), &self.key).await
    }
}

impl Balancer {
    /// In front of `replicas`.
    ///
    /// # Panics
    /// When it can't listen.
    pub async fn start(replicas: [SocketAddr; 2]) -> Self {
        let address = free_port();
        let listener = TcpListener::bind(address).await.expect("a listener");
        let next = Arc::new(AtomicUsize::new(0));
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let first = next.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(async move {
                    for turn in 0..replicas.len() {
                        let replica = replicas[(first + turn) % replicas.len()];
                        if let Ok(mut upstream) = TcpStream::connect(replica).await {
                            let _ = copy_bidirectional(&mut stream, &mut upstream).await;
                            return;
                        }
                    }
                });
            }
        });
        Self { address, task }
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn csr() -> Vec<u8> {
    let leaf = KeyPair::generate().expect("a key");
    let csr = CertificateParams::default().serialize_request(&leaf);
    csr.expect("a CSR").der().to_vec()
}
