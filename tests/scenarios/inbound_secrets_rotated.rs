//! Secrets that callers show, of AWS Secrets Manager (an emulator's), rotated as it rotates them: the next and the one
//! before are taken while a rotation goes on, and who is to be locked out is by the one after it.

use std::{net::SocketAddr, time::SystemTime};

use bytes::Bytes;
use http::{Request, header::HOST};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use warifu_tests::{
    aws,
    mesh::until,
    oidc::unix,
    peers::Ministack,
    process::{AgentProcess, AuthorityProcess, PlainApp, Sandbox},
};

const HEADER: &str = "prod/batch";
const HS256: &str = "prod/hs256";
const ISSUER: &str = "https://legacy.example";

/// A value of a secret, long enough to sign with.
fn value(name: &str) -> String {
    format!("{name}-0123456789abcdef0123456789abcdef")
}

/// What Secrets Manager has it in.
fn content(secret: &str, name: &str) -> String {
    match secret {
        HS256 => json!({"key": value(name), "note": "x"}).to_string(),
        _ => value(name),
    }
}

/// Payments, whose listener takes both secrets, and orders, through whose agent it is called.
struct World {
    ministack: Ministack,
    payments: AgentProcess,
    outbound: SocketAddr,
    _orders: AgentProcess,
    _app: PlainApp,
    _authority: AuthorityProcess,
    _sandbox: Sandbox,
}

impl World {
    async fn start() -> Self {
        let ministack = Ministack::start().await.unwrap();
        let (sandbox, app) = (Sandbox::new(), PlainApp::prompt());
        for secret in [HEADER, HS256] {
            let made = json!({"Name": secret, "SecretString": content(secret, "one")});
            let made = ministack.call("secretsmanager", "create_secret", made);
            made.await.unwrap();
        }
        let authority = sandbox.authority();
        let start = |name: &str, more: &str| {
            sandbox.join_token(name);
            let agent = sandbox
                .agent(name, &authority, more)
                .env("AWS_ACCESS_KEY_ID", "test")
                .env("AWS_SECRET_ACCESS_KEY", "test")
                .start();
            let agent = sandbox.listening(name, agent);
            agent.wait_until_ready();
            agent
        };
        let (endpoint, region) = (ministack.endpoint(), Ministack::REGION);
        let payments = start(
            "payments",
            &format!(
                "aws: {{region: {region}, sts_endpoint: \"{endpoint}\", secretsmanager: {{endpoint: \"{endpoint}\", \
                 refresh: 10s}}}}\n\
                 inbound:\n- listen: 127.0.0.1:0\n  forward: \"http://{}\"\n  accept:\n  \
                 - mtls: {{trust_domains: [example.org]}}\n  \
                 - secret-header: {{name: batch, header: x-custom-auth, secret: \"secretsmanager:{HEADER}\", subject: batch}}\n  \
                 - jwt: {{profile: hs256, name: legacy, issuer: \"{ISSUER}\", audiences: [payments], \
                 secret: \"secretsmanager:{HS256}#key\"}}\n  \
                 allow: [{{peer: \"spiffe://example.org/orders\", subject: {{issuer: batch}}, to: [\"GET /a\"]}}, \
                 {{peer: \"spiffe://example.org/orders\", subject: {{issuer: legacy}}, to: [\"GET /a\"]}}]\n",
                app.address
            ),
        );
        let orders = start(
            "orders",
            &format!(
                "outbound:\n  listen: 127.0.0.1:0\n  routes:\n  - {{host: payments, upstream: \"https://{}\", \
                 mtls: {{expect: \"spiffe://example.org/payments\"}}}}\n",
                payments.inbound.unwrap()
            ),
        );
        Self {
            outbound: orders.outbound.unwrap(),
            ministack,
            payments,
            _orders: orders,
            _app: app,
            _authority: authority,
            _sandbox: sandbox,
        }
    }

    /// The status of calls that show the value of this name: in the header, and by a token signed with it.
    async fn ask(&self, name: &str) -> [u16; 2] {
        let ask = async |header: &str, shown: String| {
            let request = Request::get("/a").header(HOST, "payments");
            let request = request.header(header, shown).body(Bytes::new()).unwrap();
            let answer = aws::Agent::send_to(self.outbound, request).await;
            answer.status
        };
        [
            ask("x-custom-auth", value(name)).await,
            ask("authorization", format!("Bearer {}", token(name))).await,
        ]
    }

    async fn pend(&self, name: &str) {
        for secret in [HEADER, HS256] {
            let text = content(secret, name);
            self.ministack.pend_secret(secret, &text).await.unwrap();
        }
    }

    async fn finish(&self) {
        for secret in [HEADER, HS256] {
            self.ministack.finish_rotation(secret).await.unwrap();
        }
    }

    /// When the agent read its secrets last, each.
    fn read(&self) -> Vec<String> {
        let answer = self.payments.admin("/status").text;
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let status: Value = serde_json::from_str(body).unwrap();
        let secrets = status["secrets"].as_array().unwrap();
        assert_eq!(secrets.len(), 2, "{status}");
        let read = secrets.iter().map(|it| it["read"].as_str().unwrap());
        read.map(str::to_owned).collect()
    }

    /// Waits until both were read, twice: a reading that had begun already is not enough.
    async fn is_read_again(&self) {
        for _ in 0..2 {
            let before = self.read();
            until("the secrets are read again", async || {
                let now = self.read();
                let all = before.iter().zip(&now).all(|(before, now)| before != now);
                all.then_some(())
            })
            .await;
        }
    }
}

fn token(name: &str) -> String {
    let now = unix(SystemTime::now());
    let claims =
        json!({"iss": ISSUER, "sub": "batch", "aud": "payments", "iat": now, "exp": now + 300});
    let key = EncodingKey::from_secret(value(name).as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key).unwrap()
}

const TAKEN: [u16; 2] = [200, 200];
const REFUSED: [u16; 2] = [401, 401];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s13_both_values_are_taken_while_a_secret_is_rotated_and_the_one_before_ends_with_the_next_rotation()
 {
    let world = World::start().await;
    assert_eq!(world.ask("one").await, TAKEN);
    assert_eq!(world.ask("two").await, REFUSED);

    world.pend("two").await;
    until("the next one is taken", async || {
        assert_eq!(world.ask("one").await, TAKEN, "it is current");
        (world.ask("two").await == TAKEN).then_some(())
    })
    .await;
    world.finish().await;
    world.is_read_again().await;
    assert_eq!(world.ask("two").await, TAKEN, "AWSCURRENT");
    assert_eq!(world.ask("one").await, TAKEN, "AWSPREVIOUS");

    world.pend("three").await;
    until("the next one is taken", async || {
        assert_eq!(world.ask("two").await, TAKEN, "it is current");
        (world.ask("three").await == TAKEN).then_some(())
    })
    .await;
    assert_eq!(world.ask("one").await, REFUSED, "two values are live");
    world.finish().await;
    world.is_read_again().await;
    for (name, expected) in [("three", TAKEN), ("two", TAKEN), ("one", REFUSED)] {
        assert_eq!(world.ask(name).await, expected, "{name}");
    }
    let said = world.payments.running.stderr();
    for name in ["one", "two", "three"] {
        assert!(!said.contains(&value(name)), "S12");
    }
}
