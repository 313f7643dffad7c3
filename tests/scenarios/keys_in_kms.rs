//! Roots whose keys are in KMS (ministack, which checks signatures and policies), state in DynamoDB: the binary,
//! with the permissions that the documentation gives it.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
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
    attest::{Client, bearer, wire::Evidence},
    authority::{
        Status,
        admin::{JoinTokenRequest, client as admin},
    },
    config::{
        agent::AuthorityRef,
        value::{HttpsOrigin, SpkiPin},
    },
};
use warifu_tests::{
    mesh::until,
    peers::{Ministack, UserKeys},
    ports::free_port,
    process::{AuthorityProcess, Command, Running, Sandbox, Signal, TRUST_DOMAIN, ask},
};

const TABLE: &str = "warifu";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_root_in_kms_signs_and_another_key_takes_over_by_rotation_with_both_replicas_agreeing() {
    let world = World::start().await;
    let (first, second) = (world.signing_key().await, world.signing_key().await);
    let one = world.replica("one", &first, &[]);
    let other = world.replica("other", &first, &[]);
    for _ in 0..5 {
        one.attest().await;
        other.attest().await;
    }
    // A root, and an intermediate each: nothing for what was issued.
    let signed = one.metric("kms:Sign") + other.metric("kms:Sign");
    assert!((3..=4).contains(&signed), "{signed}");
    assert_eq!(one.metric("kms:Decrypt"), 1);
    let before = one.status().await;
    assert_eq!(before.roots.len(), 1);
    assert!(before.roots[0].key.ends_with(&first), "{before:?}");
    drop((one, other));

    // The rehearsed emergency: the next root is another key's, and what is in use stays until it is over.
    let one = world.replica("one", &second, &[]);
    let other = world.replica("other", &second, &[]);
    assert_eq!(
        one.status().await.roots[0].spki_sha256,
        before.roots[0].spki_sha256
    );
    one.attest().await;
    let started = tokio::join!(admin::rotate(&one.socket), admin::rotate(&other.socket));
    let refused = match started {
        (Ok(_), Err(refused)) | (Err(refused), Ok(_)) => refused.to_string(),
        both => panic!("one starts it, the other finds it started: {both:?}"),
    };
    assert!(
        refused.contains("rotation of the root is under way"),
        "{refused}"
    );
    let taken_over = until("both sign with the second key", async || {
        let (one, other) = (one.status().await, other.status().await);
        let is_second = |status: &Status| {
            let current = status.roots.iter().find(|root| root.phase == "current");
            current.is_some_and(|root| root.key.ends_with(&second))
        };
        (is_second(&one) && is_second(&other)).then_some((one, other))
    });
    let (a, b) = taken_over.await;
    let (one, other) = (one.pinned_to(&a), other.pinned_to(&b));
    assert_eq!(a.bundle_sequence, b.bundle_sequence);
    assert_eq!(
        a.roots.len(),
        2,
        "the first is published while what it signed is alive"
    );
    one.attest().await;
    other.attest().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_cannot_be_used_is_said_with_the_action_and_the_authority_ends() {
    let world = World::start().await;
    let key = world.signing_key().await;
    let refused = |name: &str, key_id: &str, keys: &UserKeys| {
        let ended = world.command(name, key_id, keys, &[]).run();
        assert_eq!(ended.code, Some(1), "{}", ended.stderr);
        ended.stderr
    };

    let said = refused("wrong-kind", &world.wrap, &world.keys);
    assert!(
        said.contains("ca.key_id") && said.contains("SYMMETRIC_DEFAULT"),
        "{said}"
    );
    let said = refused("unknown", "alias/none", &world.keys);
    assert!(
        said.contains("kms:DescribeKey on alias/none") && said.contains("the region"),
        "{said}"
    );

    for denied in ["kms:Sign", "kms:Decrypt", "kms:Encrypt", "kms:GetPublicKey"] {
        let user = denied.replace(':', "-");
        let keys = world.user(&user, Some(denied)).await;
        let said = refused(&user, &key, &keys);
        assert!(
            said.contains(denied) && said.contains("allow this action"),
            "{said}"
        );
    }

    let disabled = json!({"KeyId": key});
    world.kms("disable_key", disabled).await;
    let said = refused("disabled", &key, &world.keys);
    assert!(said.contains("KeyState Disabled"), "{said}");
    let doomed = world.signing_key().await;
    world
        .kms(
            "schedule_key_deletion",
            json!({"KeyId": doomed, "PendingWindowInDays": 7}),
        )
        .await;
    let said = refused("doomed", &doomed, &world.keys);
    assert!(said.contains("KeyState PendingDeletion"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kms_away_at_start_is_waited_for_and_said_and_away_later_harms_nobody() {
    let world = World::start().await;
    let key = world.signing_key().await;
    let gate = Gate::shut(world.ministack.address()).await;
    let kms = format!("http://{}", gate.address);
    let probes = free_port();
    let command = world.command_with(
        "late",
        &key,
        &world.keys,
        &[("AWS_ENDPOINT_URL_KMS", &kms)],
        probes,
    );
    let mut running = command.start();
    let waiting = running.wait_for("keys and state can't be loaded yet");
    assert!(
        waiting["why"].as_str().unwrap().contains("kms:DescribeKey"),
        "{waiting}"
    );
    let answer = ask(&probes, "localhost", "/readyz").unwrap();
    assert_eq!(answer.status, 503);
    assert!(
        answer.text.contains("authority: ") && answer.text.contains("kms:DescribeKey"),
        "{}",
        answer.text
    );
    assert_eq!(ask(&probes, "localhost", "/healthz").unwrap().status, 200);
    assert!(running.runs());

    gate.open.store(true, Ordering::Relaxed);
    let late = Replica::of(&world.sandbox, "late", running);
    late.attest().await;
    gate.open.store(false, Ordering::Relaxed);
    for _ in 0..3 {
        late.attest().await;
    }
    let answer = ask(&probes, "localhost", "/readyz").unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_authority_that_waits_for_kms_ends_when_it_is_told_to() {
    let world = World::start().await;
    let gate = Gate::shut(world.ministack.address()).await;
    let kms = format!("http://{}", gate.address);
    let waiting = world
        .command(
            "waiting",
            "alias/root",
            &world.keys,
            &[("AWS_ENDPOINT_URL_KMS", &kms)],
        )
        .start();
    waiting.wait_for("keys and state can't be loaded yet");
    waiting.signal(Signal::TERM);
    assert_eq!(waiting.ended().code, Some(0));
}

/// An account with a table, a key that seals, and who runs authorities.
struct World {
    ministack: Ministack,
    sandbox: Sandbox,
    wrap: String,
    keys: UserKeys,
}

impl World {
    async fn start() -> Self {
        let ministack = Ministack::start().await.unwrap();
        let table = json!({
            "TableName": TABLE,
            "BillingMode": "PAY_PER_REQUEST",
            "AttributeDefinitions": [{"AttributeName": "pk", "AttributeType": "S"}],
            "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}],
        });
        ministack
            .call("dynamodb", "create_table", table)
            .await
            .unwrap();
        let wrap = ministack
            .call("kms", "create_key", json!({}))
            .await
            .unwrap();
        let keys = user(&ministack, "authority", None).await;
        Self {
            ministack,
            sandbox: Sandbox::new(),
            wrap: wrap["KeyMetadata"]["KeyId"].as_str().unwrap().to_owned(),
            keys,
        }
    }

    async fn kms(&self, operation: &str, parameters: Value) -> Value {
        self.ministack
            .call("kms", operation, parameters)
            .await
            .unwrap()
    }

    /// The id of a new key that can be a root's.
    async fn signing_key(&self) -> String {
        let asked = json!({"KeySpec": "ECC_NIST_P256", "KeyUsage": "SIGN_VERIFY"});
        let made = self.kms("create_key", asked).await;
        made["KeyMetadata"]["KeyId"].as_str().unwrap().to_owned()
    }

    async fn user(&self, name: &str, but: Option<&str>) -> UserKeys {
        user(&self.ministack, name, but).await
    }

    fn replica(&self, name: &str, key_id: &str, more: &[(&str, &str)]) -> Replica {
        let command = self.command(name, key_id, &self.keys, more);
        Replica::of(&self.sandbox, name, command.start())
    }

    fn command(&self, name: &str, key_id: &str, keys: &UserKeys, more: &[(&str, &str)]) -> Command {
        self.command_with(name, key_id, keys, more, free_port())
    }

    fn command_with(
        &self,
        name: &str,
        key_id: &str,
        keys: &UserKeys,
        more: &[(&str, &str)],
        probes: SocketAddr,
    ) -> Command {
        let socket = self.sandbox.path(&format!("{name}.sock"));
        let yaml = format!(
            r#"trust_domain: {TRUST_DOMAIN}
listen: 127.0.0.1:0
admin: unix:{socket}
probes: {probes}
ca: {{key: aws-kms, key_id: {key_id}, wrap_key_id: {wrap}, publish_ahead: 4s}}
bundle_refresh_hint: 2s
state: {{dynamodb: {{table: {TABLE}}}}}
replicas: 2
attestors:
  bootstrap: {{kind: join-token}}
rules:
- {{attestor: bootstrap, match: {{service: "*"}}, id: "/{{service}}"}}
"#,
            socket = socket.display(),
            wrap = self.wrap,
        );
        let file = format!("{name}.yaml");
        self.sandbox.write(&file, yaml);
        let command = self
            .sandbox
            .warifu(&["authority", "--config", &file])
            .env("AWS_REGION", Ministack::REGION)
            .env("AWS_ENDPOINT_URL", self.ministack.endpoint())
            .env("AWS_ACCESS_KEY_ID", &keys.access_key_id)
            .env("AWS_SECRET_ACCESS_KEY", &keys.secret_access_key);
        let more = more.iter();
        more.fold(command, |command, (name, value)| command.env(name, value))
    }
}

/// A user with the permissions of docs/operations.md, but for one. ministack knows no condition on the
/// encryption context.
async fn user(ministack: &Ministack, name: &str, but: Option<&str>) -> UserKeys {
    let mut kms = vec![
        "kms:DescribeKey",
        "kms:GetPublicKey",
        "kms:Sign",
        "kms:Encrypt",
        "kms:Decrypt",
    ];
    kms.retain(|action| Some(*action) != but);
    let table = format!(
        "arn:aws:dynamodb:{}:{}:table/{TABLE}",
        Ministack::REGION,
        Ministack::ACCOUNT
    );
    let statements = json!([
        {"Effect": "Allow", "Action": ["dynamodb:GetItem", "dynamodb:PutItem"], "Resource": table},
        {"Effect": "Allow", "Action": kms, "Resource": "*"},
    ]);
    ministack.create_user(name, statements).await.unwrap()
}

struct Replica {
    client: Client,
    socket: PathBuf,
    process: AuthorityProcess,
}

impl Replica {
    fn of(sandbox: &Sandbox, name: &str, running: Running) -> Self {
        let process = tokio::task::block_in_place(|| AuthorityProcess::of(running));
        Self {
            client: client(&process, vec![process.pin.parse().unwrap()]),
            socket: sandbox.path(&format!("{name}.sock")),
            process,
        }
    }

    /// Asked by agents that were given the pins of now.
    fn pinned_to(self, status: &Status) -> Self {
        let pins = status
            .roots
            .iter()
            .map(|root| root.spki_sha256.parse().unwrap());
        Self {
            client: client(&self.process, pins.collect()),
            ..self
        }
    }

    async fn attest(&self) {
        let request = JoinTokenRequest {
            attestor: "bootstrap".to_owned(),
            facts: [("service".to_owned(), "orders".to_owned())].into(),
            ttl: Duration::from_secs(600).as_secs(),
        };
        let made = admin::create_join_token(&self.socket, &request).await;
        let token: Secret<String> = made.unwrap().token;
        let evidence = bearer(Evidence::JoinToken { token });
        let leaf = KeyPair::generate().unwrap();
        let csr = CertificateParams::default()
            .serialize_request(&leaf)
            .unwrap();
        let key = SigningKey::generate();
        let issued = self.client.attest(&*evidence, None, csr.der(), &key).await;
        assert_eq!(issued.unwrap().chain.len(), 2);
    }

    async fn status(&self) -> Status {
        admin::status(&self.socket).await.unwrap()
    }

    /// How often an action was answered.
    fn metric(&self, action: &str) -> u32 {
        let answer = ask(&self.process.probes, "localhost", "/metrics").unwrap();
        let line = format!(
            "warifu_authority_aws_calls_total{{action=\"{action}\",outcome=\"answered\"}} "
        );
        let mut lines = answer.text.lines();
        let value = lines.find_map(|said| said.strip_prefix(&line));
        value.map_or(0, |value| value.parse().unwrap())
    }
}

fn client(process: &AuthorityProcess, pins: Vec<SpkiPin>) -> Client {
    let url: HttpsOrigin = format!("https://{}", process.address).parse().unwrap();
    let authority = AuthorityRef {
        url,
        root_spki_sha256: pins,
        bundle: None,
    };
    Client::new(&TrustDomain::new(TRUST_DOMAIN).unwrap(), &authority).unwrap()
}

/// A way to a service that can be shut.
struct Gate {
    address: SocketAddr,
    open: Arc<AtomicBool>,
}

impl Gate {
    async fn shut(service: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let open = Arc::new(AtomicBool::new(false));
        let is_open = Arc::clone(&open);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                if !is_open.load(Ordering::Relaxed) {
                    continue;
                }
                tokio::spawn(async move {
                    let mut service = TcpStream::connect(service).await?;
                    copy_bidirectional(&mut stream, &mut service).await
                });
            }
        });
        Self { address, open }
    }
}
