//! Administration from afar: evidence of who asks, matched with `administrators`; one act for each request; nobody
//! but those who are named, and nothing but what they may. All of it is in the audit log.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use warifu::{
    Secret,
    jwt::SigningKey,
    tls::{self, Anchors},
};
use warifu_agent::{
    attest::{
        proof,
        wire::{self, AdminRequest, Base64, Evidence},
    },
    config::value::SpkiPin,
    http::fetch::Fetcher,
};
use warifu_tests::{
    aws::{Principal, WebIdentitySts, web_identity_claims},
    mesh::{Mesh, TRUST_DOMAIN, until},
    oidc::{Algorithm, Issuer, claims},
    peers::Ministack,
    process::{Finished, Sandbox},
};

const AUDIENCE: &str = "warifu:example.org:attest:ci";
const ACCOUNT: &str = "123456789012";
const OPERATOR: &str = "repo:platform/operations";

const ADMINISTRATORS: &str = r#"
administrators:
- {attestor: ci, match: {sub: "repo:platform/*"}, may: [revoke, explain, join-token]}
- {attestor: ci, match: {sub: "repo:watch/status"}, may: [status]}
"#;

async fn world() -> (Mesh, Issuer) {
    let issuer = Issuer::start().await;
    let attestor = format!(
        "{{kind: oidc, issuer: \"{}\", audience: \"{AUDIENCE}\"}}",
        issuer.url()
    );
    let mesh =
        Mesh::with(|authority| authority.attestor("ci", &attestor).more(ADMINISTRATORS)).await;
    (mesh, issuer)
}

/// Somebody who administers from afar, with the words of the wire.
struct Far<'a> {
    mesh: &'a Mesh,
    https: Fetcher,
}

impl<'a> Far<'a> {
    fn of(mesh: &'a Mesh) -> Self {
        let pin = |pin: &String| pin.parse::<SpkiPin>().unwrap().0;
        let anchors = Anchors {
            spki_sha256: mesh.authority.pins().iter().map(pin).collect(),
            roots: vec![],
        };
        let expected = format!("spiffe://{TRUST_DOMAIN}/warifu/authority")
            .parse()
            .unwrap();
        let config = tls::bootstrap_client_config(&anchors, &expected).unwrap();
        Self {
            mesh,
            https: Fetcher::with_tls(config),
        }
    }

    async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let request = http::Request::post(format!("{}{path}", self.mesh.authority.url()))
            .header("content-type", "application/json")
            .body(body.to_string().into())
            .unwrap();
        let answer = self.https.send(request).await.unwrap();
        (
            answer.status().as_u16(),
            serde_json::from_slice(answer.body()).unwrap(),
        )
    }

    /// A request for `act` with a token as evidence.
    async fn request(&self, token: &str, act: &Value) -> AdminRequest {
        let token = Secret::new(token.to_owned());
        let key = SigningKey::generate();
        self.request_by(&key, Evidence::Oidc { token }, act).await
    }

    async fn request_by(&self, key: &SigningKey, evidence: Evidence, act: &Value) -> AdminRequest {
        let (_, challenge) = self.post(wire::CHALLENGE, &json!({})).await;
        let challenge = challenge["challenge"].as_str().unwrap().to_owned();
        let act = act.to_string().into_bytes();
        let said = proof::admin(
            &TRUST_DOMAIN.parse().unwrap(),
            &challenge,
            &key.public().thumbprint(),
            &evidence,
            &act,
        );
        AdminRequest {
            proof: Base64(key.sign_raw(&said)),
            challenge,
            evidence,
            renewal_key: key.public().to_json("sig"),
            act: Base64(act),
        }
    }

    async fn send(&self, request: &AdminRequest) -> (u16, Value) {
        self.post(wire::ADMIN, &json!(request)).await
    }

    async fn ask(&self, token: &str, act: Value) -> (u16, Value) {
        let request = self.request(token, &act).await;
        self.send(&request).await
    }
}

fn token(issuer: &Issuer, subject: &str) -> String {
    issuer.sign(
        Algorithm::Es256,
        &claims(issuer, subject, AUDIENCE, json!({})),
    )
}

fn revoke(lineage: &str) -> Value {
    json!({"revoke": {"kind": "lineage", "value": lineage, "reason": "a drill"}})
}

/// The last line of the audit log about an act.
fn last(mesh: &Mesh, event: &str) -> Value {
    mesh.authority.audit(event).pop().unwrap_or_default()
}

#[tokio::test]
async fn an_administrator_is_known_by_what_an_attestor_proved() {
    let (mesh, issuer) = world().await;
    let far = Far::of(&mesh);
    let (status, changed) = far.ask(&token(&issuer, OPERATOR), revoke("l1")).await;
    assert_eq!(status, 200, "{changed}");
    assert_eq!(changed["entry"]["value"], "l1");
    let line = last(&mesh, "revoke");
    assert_eq!(line["decision"], "done");
    assert_eq!(
        line["by"],
        json!({"attestor": "ci", "facts": {"sub": OPERATOR}})
    );
    assert_eq!(line["act"]["reason"], "a drill");
    assert_eq!(line["result"]["number"], changed["number"]);
    assert!(line["remote"].as_str().unwrap().starts_with("127.0.0.1:"));
}

#[tokio::test]
async fn s16_who_is_no_administrator_or_not_for_this_is_refused() {
    let (mesh, issuer) = world().await;
    let far = Far::of(&mesh);
    for (subject, act, event, why) in [
        (
            "repo:shop/orders",
            revoke("l1"),
            "revoke",
            "nobody who administers",
        ),
        (
            OPERATOR,
            json!("rotate"),
            "rotate",
            "may explain, join-token, revoke, and not rotate",
        ),
        (OPERATOR, json!("status"), "status", "and not status"),
        (
            "repo:watch/status",
            revoke("l1"),
            "revoke",
            "may status, and not revoke",
        ),
    ] {
        let (status, refused) = far.ask(&token(&issuer, subject), act).await;
        assert_eq!(
            (status, &refused["error"]),
            (403, &"not_allowed".into()),
            "{refused}"
        );
        assert!(
            refused["message"].as_str().unwrap().contains(why),
            "{refused}"
        );
        let line = last(&mesh, event);
        assert_eq!(
            (&line["decision"], &line["by"]["facts"]["sub"]),
            (&"refused".into(), &subject.into())
        );
        assert_eq!(line["refused"]["code"], "not_allowed");
    }
    let revocations = mesh.authority.running().issuer.revocations();
    assert!(revocations.entries.is_empty());
    // What was refused did not cost the token.
    let token = token(&issuer, OPERATOR);
    assert_eq!(far.ask(&token, json!("rotate")).await.0, 403);
    assert_eq!(far.ask(&token, revoke("l1")).await.0, 200);
}

#[tokio::test]
async fn a_request_that_is_sent_again_does_nothing() {
    let (mesh, issuer) = world().await;
    let far = Far::of(&mesh);
    let request = far.request(&token(&issuer, OPERATOR), &revoke("l1")).await;
    assert_eq!(far.send(&request).await.0, 200);
    let number = mesh.authority.running().issuer.revocations().number;
    let (status, refused) = far.send(&request).await;
    assert_eq!(
        (status, &refused["error"]),
        (409, &"replayed".into()),
        "{refused}"
    );
    assert_eq!(mesh.authority.running().issuer.revocations().number, number);
    assert_eq!(last(&mesh, "revoke")["refused"]["code"], "replayed");
}

#[tokio::test]
async fn the_same_request_sent_six_times_at_once_is_one_act() {
    let (mesh, issuer) = world().await;
    let far = Far::of(&mesh);
    let act =
        json!({"join-token": {"attestor": "bootstrap", "facts": {"service": "x"}, "ttl": 60}});
    let request = far.request(&token(&issuer, OPERATOR), &act).await;
    let once = || far.send(&request);
    let answers = tokio::join!(once(), once(), once(), once(), once(), once());
    let (a, b, c, d, e, f) = answers;
    let mut answers = [a.0, b.0, c.0, d.0, e.0, f.0];
    answers.sort_unstable();
    assert_eq!(answers, [200, 409, 409, 409, 409, 409]);
}

#[tokio::test]
async fn a_proof_is_good_for_the_act_it_was_made_for() {
    let (mesh, issuer) = world().await;
    let far = Far::of(&mesh);
    let mut request = far.request(&token(&issuer, OPERATOR), &revoke("l1")).await;
    request.act = Base64(revoke("l2").to_string().into_bytes());
    let (status, refused) = far.send(&request).await;
    assert_eq!(
        (status, &refused["error"]),
        (401, &"invalid_proof".into()),
        "{refused}"
    );
    // Of a stranger: it is written, and not waited for.
    until("the line", async || {
        let line = last(&mesh, "administration");
        (line["refused"]["code"] == "invalid_proof").then_some(())
    })
    .await;
    assert!(
        mesh.authority
            .running()
            .issuer
            .revocations()
            .entries
            .is_empty()
    );
}

#[tokio::test]
async fn s15_a_token_administers_once_and_not_after_it_attested() {
    let (mesh, issuer) = world().await;
    let far = Far::of(&mesh);
    let used = token(&issuer, OPERATOR);
    assert_eq!(far.ask(&used, revoke("l1")).await.0, 200);
    let (status, refused) = far.ask(&used, revoke("l2")).await;
    assert_eq!(
        (status, &refused["error"]),
        (401, &"invalid_evidence".into()),
        "{refused}"
    );
}

#[tokio::test]
async fn a_join_token_is_no_administrator() {
    let (mesh, _issuer) = world().await;
    let far = Far::of(&mesh);
    let token = Secret::new(mesh.authority.join_token("orders").await);
    let evidence = Evidence::JoinToken { token };
    let key = SigningKey::generate();
    let request = far.request_by(&key, evidence, &json!("status")).await;
    let (status, refused) = far.send(&request).await;
    assert_eq!(
        (status, &refused["error"]),
        (403, &"not_allowed".into()),
        "{refused}"
    );
}

#[tokio::test]
async fn a_role_administers_by_a_token_for_the_requests_key_and_not_when_it_is_revoked() {
    let sts = WebIdentitySts::start().await;
    let issuer = sts.issuer(ACCOUNT).await;
    let attestor = format!(
        "{{kind: aws-web-identity, issuers: {{\"{ACCOUNT}\": \"{}\"}}}}",
        issuer.url()
    );
    let administrators = format!(
        "administrators:\n- {{attestor: aws, match: {{account: \"{ACCOUNT}\", role: admin}}, may: [revoke, explain, status]}}"
    );
    let mesh =
        Mesh::with(|authority| authority.attestor("aws", &attestor).more(&administrators)).await;
    let far = Far::of(&mesh);
    let token_for = |key: &SigningKey| {
        let hash = URL_SAFE_NO_PAD.encode(key.public().spki_sha256());
        let audience = wire::attest_audience(&TRUST_DOMAIN.parse().unwrap(), &hash);
        let claims = web_identity_claims(
            &issuer.url(),
            &Principal::role(ACCOUNT, "/", "admin"),
            &[audience],
            &BTreeMap::new(),
            SystemTime::now(),
            Duration::from_secs(300),
        );
        Evidence::AwsWebIdentity {
            token: Secret::new(issuer.sign(Algorithm::Es384, &claims)),
        }
    };
    let (key, other) = (SigningKey::generate(), SigningKey::generate());
    let request = far
        .request_by(&key, token_for(&key), &json!("status"))
        .await;
    assert_eq!(far.send(&request).await.0, 200);
    // Stolen, and sent with another key.
    let request = far
        .request_by(&other, token_for(&key), &json!("status"))
        .await;
    let (status, refused) = far.send(&request).await;
    assert_eq!(
        (status, &refused["error"]),
        (401, &"invalid_evidence".into()),
        "{refused}"
    );

    // What is explained is looked at, whichever key it is for.
    let about = json!({"explain": {"evidence": token_for(&other)}});
    let request = far.request_by(&key, token_for(&key), &about).await;
    let (status, said) = far.send(&request).await;
    let hash = URL_SAFE_NO_PAD.encode(other.public().spki_sha256());
    assert_eq!(
        (status, &said["bound"]),
        (200, &json!({"key": hash})),
        "{said}"
    );
    assert_eq!(
        (&said["facts"]["role"], &said["granted"]),
        (&"admin".into(), &Value::Null)
    );

    let role = format!("{ACCOUNT}:role/admin");
    let revoke = json!({"revoke": {"kind": "role", "value": role}});
    let request = far.request_by(&key, token_for(&key), &revoke).await;
    assert_eq!(far.send(&request).await.0, 200);
    let undo = json!({"revoke": {"kind": "role", "value": role, "undo": true}});
    let request = far.request_by(&key, token_for(&key), &undo).await;
    let (status, refused) = far.send(&request).await;
    assert_eq!(
        (status, &refused["error"]),
        (403, &"revoked".into()),
        "{refused}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_can_only_sign_administers_with_the_credentials_of_its_environment() {
    let ministack = Ministack::start().await.unwrap();
    let attestor = format!(
        "{{kind: aws-caller-identity, accounts: [\"{}\"], sts_endpoints: {{{}: \"{}\"}}}}",
        Ministack::ACCOUNT,
        Ministack::REGION,
        ministack.endpoint()
    );
    let administrators = "administrators:\n- {attestor: aws, match: {role: admin}, may: [status]}";
    let mesh =
        Mesh::with(|authority| authority.attestor("aws", &attestor).more(administrators)).await;
    let sandbox = Sandbox::new();
    let run = async |role: &str| -> Finished {
        let root = format!("arn:aws:iam::{}:root", Ministack::ACCOUNT);
        let trust =
            json!([{"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": root}}]);
        let may = json!([{"Effect": "Deny", "Action": "*", "Resource": "*"}]);
        let arn = ministack.create_role(role, trust, may).await.unwrap();
        let keys = ministack.assume_role(&arn, "me").await.unwrap();
        let command = sandbox
            .warifu(&["authority", "status", "--url", &mesh.authority.url()])
            .args(&[
                "--trust-domain",
                TRUST_DOMAIN,
                "--root-pin",
                &mesh.authority.pins()[0],
            ])
            .args(&["--attestation", "aws-caller-identity"])
            .env("AWS_REGION", Ministack::REGION)
            .env("AWS_ACCESS_KEY_ID", &keys.access_key_id)
            .env("AWS_SECRET_ACCESS_KEY", &keys.secret_access_key)
            .env("AWS_SESSION_TOKEN", &keys.session_token);
        tokio::task::block_in_place(|| command.run())
    };
    let done = run("admin").await;
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let status: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(status["trust_domain"], TRUST_DOMAIN);
    assert_eq!(last(&mesh, "status")["by"]["facts"]["role"], "admin");
    let refused = run("batch").await;
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.stderr.contains("refused (not_allowed)"),
        "{}",
        refused.stderr
    );
}

/// The commands, as people type them.
#[tokio::test(flavor = "multi_thread")]
async fn the_commands_work_from_afar_and_here() {
    let (mesh, issuer) = world().await;
    let sandbox = Sandbox::new();
    let pin = mesh.authority.pins()[0].clone();
    let run = |arguments: &[&str], subject: &str| -> Finished {
        let file = sandbox.write("ci.token", token(&issuer, subject));
        let attestation = format!("oidc:{}", file.display());
        let url = mesh.authority.url();
        let command = sandbox
            .warifu(&["authority"])
            .args(arguments)
            .args(&[
                "--url",
                &url,
                "--trust-domain",
                TRUST_DOMAIN,
                "--root-pin",
                &pin,
            ])
            .args(&["--attestation", &attestation]);
        tokio::task::block_in_place(|| command.run())
    };
    let done = run(&["revoke", "--lineage", "l7"], OPERATOR);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert!(
        done.stdout.starts_with("revoked: lineage l7 since "),
        "{}",
        done.stdout
    );
    let done = run(&["revoke", "--list"], OPERATOR);
    assert!(done.stdout.contains("lineage l7"), "{}", done.stdout);
    let done = run(&["status"], "repo:watch/status");
    let status: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(status["trust_domain"], TRUST_DOMAIN);
    let done = run(
        &[
            "join-token",
            "--attestor",
            "bootstrap",
            "--fact",
            "service=orders",
        ],
        OPERATOR,
    );
    assert!(done.stdout.starts_with("wjt_"), "{}", done.stderr);
    let refused = run(&["rotate"], OPERATOR);
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.stderr.contains("refused (not_allowed)"),
        "{}",
        refused.stderr
    );

    // Over the socket, and what is said of facts and evidence.
    let socket = format!("unix:{}", mesh.dir().join("authority/admin.sock").display());
    let here = |arguments: &[&str]| -> Finished {
        let command = sandbox
            .warifu(&["authority"])
            .args(arguments)
            .args(&["--socket", &socket]);
        tokio::task::block_in_place(|| command.run())
    };
    let said = here(&[
        "explain",
        "--attestor",
        "bootstrap",
        "--fact",
        "service=orders",
    ]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    assert!(
        said.stdout
            .contains("issued: spiffe://example.org/orders\n"),
        "{}",
        said.stdout
    );
    let said = here(&[
        "explain",
        "--attestor",
        "bootstrap",
        "--fact",
        "team=orders",
    ]);
    assert_eq!(said.code, Some(1));
    assert!(
        said.stdout.contains("fact \"service\" was not attested"),
        "{}",
        said.stdout
    );
    let evidence = json!({"kind": "oidc", "token": token(&issuer, OPERATOR)});
    sandbox.write("evidence.json", evidence.to_string());
    let said = here(&["explain", "--evidence", "evidence.json"]);
    assert_eq!(said.code, Some(1), "no rule is for ci");
    for part in [
        "  bootstrap        it takes join-token, and this is oidc\n",
        "  ci               takes it\n",
        "bound to nothing",
        "  sub              repo:platform/operations\n",
        "attestor is \"bootstrap\", and the facts are of \"ci\"",
        "nothing is issued\n",
    ] {
        assert!(said.stdout.contains(part), "{part}: {}", said.stdout);
    }
    let evidence = json!({"kind": "oidc", "token": issuer.unsigned(&claims(&issuer, "x", AUDIENCE, json!({})))});
    sandbox.write("evidence.json", evidence.to_string());
    let said = here(&["explain", "--evidence", "evidence.json", "--json"]);
    assert_eq!(said.code, Some(1));
    let said: Value = serde_json::from_str(&said.stdout).unwrap();
    assert!(
        said["attestors"][1]["refused"]
            .as_str()
            .unwrap()
            .contains("alg"),
        "{said}"
    );
    assert_eq!(
        (&said["attestor"], &said["granted"]),
        (&Value::Null, &Value::Null)
    );
}
