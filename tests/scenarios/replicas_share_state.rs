//! Two authorities, each a process of its own, on one table: whichever is asked, it is one authority.

use std::{path::PathBuf, sync::Arc, time::Duration};

use rcgen::{CertificateParams, KeyPair};
use serde_json::json;
use tokio::task::JoinSet;
use warifu::{Secret, TrustDomain, jwt::SigningKey};
use warifu_agent::{
    attest::{
        Client, ClientError, bearer,
        wire::{ErrorCode, Evidence},
    },
    authority::{
        Status,
        admin::{JoinTokenRequest, client as admin},
    },
    config::{agent::AuthorityRef, value::HttpsOrigin},
};
use warifu_tests::{
    mesh::until,
    peers::{Ministack, UserKeys},
    process::{AuthorityProcess, Sandbox, TRUST_DOMAIN},
};

/// Join tokens that two keys want at the same instant, each from another replica.
const RACES: usize = 1000;
/// Races under way at once: enough to keep both replicas busy.
const AT_ONCE: usize = 8;
/// The emulator's table.
const TABLE: &str = "warifu";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s15_of_two_keys_that_race_with_one_token_at_two_replicas_one_wins_and_may_retry() {
    let cluster = Arc::new(Cluster::start().await);
    let mut races = JoinSet::new();
    let mut wins = [0; 2];
    for number in 0..RACES {
        races.spawn(race(Arc::clone(&cluster), number));
        if races.len() == AT_ONCE {
            wins[races.join_next().await.unwrap().unwrap()] += 1;
        }
    }
    for winner in races.join_all().await {
        wins[winner] += 1;
    }
    println!("races won at each replica: {wins:?}");
    assert_eq!(wins[0] + wins[1], RACES);
    assert!(wins[0] > 0 && wins[1] > 0, "they did not race: {wins:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_rotations_at_two_replicas_one_starts_and_both_publish_it() {
    let cluster = Cluster::start().await;
    let [one, other] = &cluster.replicas;
    let before = one.status().await;
    assert_eq!(before.roots.len(), 1);
    assert_eq!(
        other.status().await.roots[0].spki_sha256,
        before.roots[0].spki_sha256
    );

    let started = tokio::join!(admin::rotate(&one.socket), admin::rotate(&other.socket));
    let refused = match started {
        (Ok(_), Err(refused)) | (Err(refused), Ok(_)) => refused.to_string(),
        both => panic!("one starts it, the other finds it started: {both:?}"),
    };
    assert!(
        refused.contains("rotation of the root is under way"),
        "{refused}"
    );
    let published = until("both publish the same", async || {
        let (one, other) = (one.status().await, other.status().await);
        let alike = one.bundle_sequence == other.bundle_sequence && one.roots.len() == 2;
        alike.then_some((one, other))
    });
    let (one, other) = published.await;
    let pins = |status: &Status| -> Vec<String> {
        let roots = status.roots.iter();
        roots.map(|root| root.spki_sha256.clone()).collect()
    };
    assert_eq!(pins(&one), pins(&other));
    assert!(one.bundle_sequence > before.bundle_sequence);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_process_on_one_database_is_refused_and_the_first_goes_on() {
    let sandbox = Sandbox::new();
    let first = sandbox.authority();
    let dir = sandbox.path("").display().to_string();
    let yaml = std::fs::read_to_string(sandbox.path("authority.yaml")).unwrap();
    let yaml = yaml.replace(
        &format!("{dir}authority.sock"),
        &format!("{dir}second.sock"),
    );
    sandbox.write("second.yaml", yaml);
    let second = sandbox
        .warifu(&["authority", "--config", "second.yaml"])
        .run();
    assert_eq!(second.code, Some(1), "{}", second.stderr);
    let why = "ca/state.db is in use by another process, and state: sqlite is for one replica";
    assert!(second.stderr.contains(why), "{}", second.stderr);
    sandbox.join_token("orders");
    drop(first);
    // Killed, not ended: the system has given back its lock.
    sandbox
        .warifu(&["authority", "--config", "second.yaml"])
        .authority();
}

/// Two keys, one join token, two replicas; says at which it was won.
async fn race(cluster: Arc<Cluster>, number: usize) -> usize {
    // Made at either, used at either.
    let maker = &cluster.replicas[number % 2];
    let token = maker.join_token().await;
    let rivals = [Rival::new(&token), Rival::new(&token)];
    let [one, other] = &cluster.replicas;
    let outcomes = tokio::join!(rivals[0].attest(one), rivals[1].attest(other));
    let winner = match outcomes {
        (Ok(()), Err(lost)) => {
            was_beaten(&lost);
            0
        }
        (Err(lost), Ok(())) => {
            was_beaten(&lost);
            1
        }
        both => panic!("race {number}: {both:?}"),
    };
    // The winner's answer may have been lost on its way; the loser asks once more, too.
    let (there, elsewhere) = (&cluster.replicas[winner], &cluster.replicas[1 - winner]);
    rivals[winner].attest(elsewhere).await.unwrap();
    was_beaten(&rivals[1 - winner].attest(there).await.unwrap_err());
    winner
}

fn was_beaten(why: &ClientError) {
    assert_eq!(why.refusal(), Some(ErrorCode::InvalidEvidence), "{why}");
    assert!(
        why.to_string()
            .contains("was used by another agent already"),
        "{why}"
    );
}

/// Somebody with a join token and a key of its own.
struct Rival {
    key: SigningKey,
    evidence: Evidence,
}

impl Rival {
    fn new(token: &Secret<String>) -> Self {
        let token = token.clone();
        Self {
            key: SigningKey::generate(),
            evidence: Evidence::JoinToken { token },
        }
    }

    async fn attest(&self, at: &Replica) -> Result<(), ClientError> {
        let leaf = KeyPair::generate().unwrap();
        let csr = CertificateParams::default()
            .serialize_request(&leaf)
            .unwrap();
        let evidence = bearer(self.evidence.clone());
        let issued = at
            .client
            .attest(&*evidence, None, csr.der(), &self.key)
            .await?;
        assert_eq!(issued.chain.len(), 2);
        Ok(())
    }
}

/// Two replicas and what they share.
struct Cluster {
    replicas: [Replica; 2],
    _sandbox: Sandbox,
    _ministack: Ministack,
}

struct Replica {
    client: Client,
    socket: PathBuf,
    _process: AuthorityProcess,
}

impl Cluster {
    async fn start() -> Self {
        let ministack = Ministack::start().await.unwrap();
        let table = json!({
            "TableName": TABLE,
            "BillingMode": "PAY_PER_REQUEST",
            "AttributeDefinitions": [{"AttributeName": "pk", "AttributeType": "S"}],
            "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}],
        });
        let made = ministack.call("dynamodb", "create_table", table);
        made.await.unwrap();
        let statements = json!([{
            "Effect": "Allow",
            "Action": ["dynamodb:GetItem", "dynamodb:PutItem"],
            "Resource": format!("arn:aws:dynamodb:{}:{}:table/{TABLE}", Ministack::REGION, Ministack::ACCOUNT),
        }]);
        let keys = ministack.create_user("authority", statements).await;
        let (sandbox, keys) = (Sandbox::new(), keys.unwrap());
        let start = |name: &str| Replica::start(&sandbox, name, &ministack, &keys);
        // Both at once, on an empty table: they agree on one root.
        let replicas = tokio::task::block_in_place(|| {
            std::thread::scope(|scope| {
                let one = scope.spawn(|| start("one"));
                let other = start("other");
                [one.join().unwrap(), other]
            })
        });
        Self {
            replicas,
            _sandbox: sandbox,
            _ministack: ministack,
        }
    }
}

impl Replica {
    fn start(sandbox: &Sandbox, name: &str, ministack: &Ministack, keys: &UserKeys) -> Self {
        let socket = sandbox.path(&format!("{name}.sock"));
        let yaml = format!(
            r#"trust_domain: {TRUST_DOMAIN}
listen: 127.0.0.1:0
admin: unix:{socket}
probes: 127.0.0.1:0
ca: {{key: disk, path: {ca}, publish_ahead: 4s}}
bundle_refresh_hint: 2s
state: {{dynamodb: {{table: {TABLE}}}}}
replicas: 2
attestors:
  bootstrap: {{kind: join-token}}
rules:
- {{attestor: bootstrap, match: {{service: "*"}}, id: "/{{service}}"}}
"#,
            socket = socket.display(),
            ca = sandbox.path("ca").display(),
        );
        let file = format!("{name}.yaml");
        sandbox.write(&file, yaml);
        let process = sandbox
            .warifu(&["authority", "--config", &file])
            .env("AWS_REGION", Ministack::REGION)
            .env("AWS_ENDPOINT_URL_DYNAMODB", ministack.endpoint())
            .env("AWS_ACCESS_KEY_ID", &keys.access_key_id)
            .env("AWS_SECRET_ACCESS_KEY", &keys.secret_access_key)
            .authority();
        let origin: HttpsOrigin = format!("https://{}", process.address).parse().unwrap();
        let authority = AuthorityRef {
            url: origin,
            root_spki_sha256: vec![process.pin.parse().unwrap()],
            bundle: None,
        };
        let domain = TrustDomain::new(TRUST_DOMAIN).unwrap();
        Self {
            client: Client::new(&domain, &authority).unwrap(),
            socket,
            _process: process,
        }
    }

    async fn join_token(&self) -> Secret<String> {
        let request = JoinTokenRequest {
            attestor: "bootstrap".to_owned(),
            facts: [("service".to_owned(), "orders".to_owned())].into(),
            ttl: Duration::from_secs(600).as_secs(),
        };
        let made = admin::create_join_token(&self.socket, &request).await;
        made.unwrap().token
    }

    async fn status(&self) -> Status {
        admin::status(&self.socket).await.unwrap()
    }
}
