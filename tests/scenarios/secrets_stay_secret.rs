//! A whole mesh of processes that logs as much as it can, with calls that succeed and calls that fail:
//! no secret is in anything it wrote or says, and nothing it wrote is for others to read.

use std::{fs, net::SocketAddr, os::unix::fs::PermissionsExt, path::Path};

use base64::{Engine, engine::general_purpose::STANDARD};
use warifu_tests::process::{AgentProcess, PlainApp, Running, Sandbox, Signal, ask};

/// As much as there is: of us, and of every library.
const EVERYTHING: &[&str] = &["--log", "trace,warifu=trace"];

const ROLE: &str = "arn:aws:iam::123456789012:role/caller";
const BASE_SECRET: &str = "base/secret/hunter2";
const ROLE_SECRET: &str = "role/secret/hunter2";
const SESSION_TOKEN: &str = "session+token/hunter2==";
const HEADER_SECRET: &str = "header-secret-hunter2";
const CLIENT_SECRET: &str = "client-secret-hunter2";
const APPS_COOKIE: &str = "cookie-hunter2";
const APPS_BEARER: &str = "bearer-hunter2";

/// What must not be found, and what it is.
struct Secrets(Vec<(String, String)>);

impl Secrets {
    /// Text, as it is.
    fn text(&mut self, what: &str, secret: &str) {
        self.0.push((what.to_owned(), secret.to_owned()));
    }

    /// Bytes, in hexadecimal and in either base64, wherever in a longer encoding they may begin.
    fn bytes(&mut self, what: &str, secret: &[u8]) {
        for skipped in 0..3 {
            let part = &secret[skipped..];
            let encoded = STANDARD.encode(&part[..part.len() / 3 * 3]);
            for start in (0..encoded.len().saturating_sub(24)).step_by(8) {
                let window = encoded.get(start..start + 16).unwrap();
                self.text(what, window);
                self.text(what, &window.replace('+', "-").replace('/', "_"));
            }
        }
        let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        self.text(what, &hex[..32]);
        let list = format!("{:?}", &secret[..12]);
        self.text(what, list.trim_matches(['[', ']']));
    }

    fn assert_absent(&self, place: &str, text: &str) {
        for (what, secret) in &self.0 {
            let found = text.find(secret.as_str());
            let around = found.map(|at| text.get(at.saturating_sub(200)..at + 60));
            assert!(found.is_none(), "{what} shows in {place}: {around:?}");
        }
        // JWS and JWK in any form: `{"` in base64url.
        for (what, mark) in [
            ("a token", "eyJ"),
            ("a private key", "PRIVATE KEY"),
            ("a private JWK", "\"d\":\""),
        ] {
            let found = text.find(mark);
            let around = found.map(|at| text.get(at.saturating_sub(200)..at + 60));
            assert!(found.is_none(), "{what} shows in {place}: {around:?}");
        }
    }
}

fn sts() -> PlainApp {
    PlainApp::xml(&format!(
        "<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleResult>\
         <Credentials><AccessKeyId>ASIACALLER</AccessKeyId>\
         <SecretAccessKey>{ROLE_SECRET}</SecretAccessKey>\
         <SessionToken>{SESSION_TOKEN}</SessionToken>\
         <Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleResult>\
         </AssumeRoleResponse>"
    ))
}

/// The agent of *payments*, on TCP before `app`, with a signed context and an audit file.
fn payments(sandbox: &Sandbox, app: &PlainApp) -> String {
    let dir = sandbox.path("");
    let dir = dir.to_str().unwrap();
    format!(
        "inbound:\n- listen: 127.0.0.1:0\n  forward: \"http://{}\"\n  \
         accept: [{{mtls: {{trust_domains: [example.org]}}}}, \
         {{jwt: {{profile: jwt-svid, audiences: [payments]}}}}]\n  \
         allow: [{{peer: \"spiffe://example.org/orders\", to: [\"GET /charges\"]}}]\n  \
         context: {{key_file: {dir}context.jwks}}\n\
         audit: {{file: {dir}payments.audit}}\n",
        app.address
    )
}

fn orders(sandbox: &Sandbox, payments: &AgentProcess, app: &PlainApp, sts: &PlainApp) -> String {
    let dir = sandbox.path("");
    let dir = dir.to_str().unwrap();
    let (inbound, app, sts) = (payments.inbound.unwrap(), app.address, sts.address);
    format!(
        "aws: {{sts_endpoint: \"http://{sts}\", region: eu-central-1}}\n\
         outbound:\n  listen: 127.0.0.1:0\n  routes:\n  \
         - {{host: payments, upstream: \"https://{inbound}\", \
         mtls: {{expect: \"spiffe://example.org/payments\"}}, jwt: {{audience: payments}}}}\n  \
         - {{host: wrong-audience, upstream: \"https://{inbound}\", \
         mtls: {{expect: \"spiffe://example.org/payments\"}}, jwt: {{audience: billing}}}}\n  \
         - {{host: api, upstream: \"http://{app}\", \
         sigv4: {{service: execute-api, role: \"{ROLE}\"}}}}\n  \
         - {{host: plain, upstream: \"http://{app}\"}}\n  \
         - {{host: keyed, upstream: \"http://{app}\", \
         secret_header: {{name: x-custom-auth, value: \"file:{dir}header.secret\"}}}}\n  \
         - {{host: tokened, upstream: \"http://{app}\", oauth: {{token_url: \"http://{app}/token\", \
         client: {{id: orders, client_secret_post: \"file:{dir}client.secret\"}}}}}}\n\
         local:\n  workload_api: {{listen: \"unix:{dir}workload.sock\"}}\n  aws_credentials:\n  \
         - {{listen: 127.0.0.1:0, role: \"{ROLE}\", token_file: {dir}aws.token}}\n  \
         - {{listen: 127.0.0.1:0, role: \"{ROLE}\", unsafe_imds: true}}\n"
    )
}

/// The private scalar of the X.509-SVID, and a JWT-SVID.
fn given(socket: &str) -> (Vec<u8>, String) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let client = spiffe::WorkloadApiClient::connect_to(socket).await.unwrap();
        let svid = client.fetch_x509_svid().await.unwrap();
        let token = client.fetch_jwt_svid(["payments"], None).await.unwrap();
        // Behind the version and the algorithm of PKCS#8 (RFC 5208), and the version of RFC 5915.
        let key = svid.private_key().as_ref()[36..68].to_vec();
        (key, token.token().to_owned())
    })
}

#[test]
fn s12_no_secret_shows_in_anything_a_mesh_writes_or_says() {
    let sandbox = Sandbox::new();
    sandbox.authority_yaml("");
    let authority = sandbox
        .warifu(EVERYTHING)
        .args(&["authority", "--config", "authority.yaml"])
        .authority();
    let (app, sts) = (PlainApp::prompt(), sts());
    let workload_api = format!("unix:{}", sandbox.path("workload.sock").display());
    sandbox.write("header.secret", HEADER_SECRET);
    sandbox.write("client.secret", CLIENT_SECRET);
    let mut secrets = Secrets(Vec::new());
    let mut said = Vec::new();

    let mut start = |name: &str, more: &str| {
        let token = sandbox.join_token(name);
        secrets.text(
            "the join token",
            fs::read_to_string(token).unwrap().trim_end(),
        );
        let agent = sandbox
            .agent(name, &authority, more)
            .args(EVERYTHING)
            .env("AWS_ACCESS_KEY_ID", "AKIAORDERS")
            .env("AWS_SECRET_ACCESS_KEY", BASE_SECRET)
            .start();
        let agent = sandbox.listening(name, agent);
        agent.wait_until_ready();
        agent
    };
    let payments = start("payments", &payments(&sandbox, &app));
    let orders = start("orders", &orders(&sandbox, &payments, &app, &sts));

    // What the app is given over the Workload API.
    let (key, token) = given(&workload_api);
    secrets.bytes("the private key of the app's X.509-SVID", &key);
    secrets.text("the app's JWT-SVID", &token);

    // Calls that succeed.
    for (host, path) in [
        ("payments", "/charges"),
        ("api", "/"),
        ("plain", "/"),
        ("keyed", "/"),
    ] {
        let answer = orders.call(host, path);
        assert_eq!(answer.status, 200, "{host}: {}", answer.text);
    }
    let outbound = orders.outbound.unwrap();
    let credentials =
        format!("plain\r\nauthorization: Bearer {APPS_BEARER}\r\ncookie: id={APPS_COOKIE}");
    assert_eq!(ask(&outbound, &credentials, "/").unwrap().status, 200);
    // The app's own credentials, given, and refused.
    let given = orders.running.wait_for("AWS credentials are given here");
    let given: SocketAddr = given["listen"].as_str().unwrap().parse().unwrap();
    let bearer = fs::read_to_string(sandbox.path("aws.token")).unwrap();
    let with = |token: &str| format!("{given}\r\nauthorization: {token}");
    let answer = ask(&given, &with(&bearer), "/v1/credentials").unwrap();
    assert!(answer.text.contains(ROLE_SECRET) && answer.text.contains(SESSION_TOKEN));
    for (host, path) in [
        (&with(&bearer), "/"),
        (
            &format!("{}\r\norigin: null", with(&bearer)),
            "/v1/credentials",
        ),
        (&format!("{}-", with(&bearer)), "/v1/credentials"),
    ] {
        let answer = ask(&given, host, path).unwrap();
        assert!(answer.status >= 400, "{answer:?}");
        said.push(("a refusal of AWS credentials".to_owned(), answer.text));
    }
    let command = [
        "aws-credentials",
        "--config",
        "orders.yaml",
        "--role",
        "other",
    ];
    let ended_command = sandbox.warifu(EVERYTHING).args(&command).run();
    assert_eq!(ended_command.code, Some(2), "{}", ended_command.stderr);
    said.push((
        command.join(" "),
        ended_command.stdout + &ended_command.stderr,
    ));
    // Calls that fail: no rule, a token for others, no route, a token that is none, and a provider that gives none.
    for (host, path, status) in [
        ("payments", "/refunds", 403),
        ("wrong-audience", "/charges", 401),
        ("unknown", "/", 403),
        ("tokened", "/", 503),
        (
            &format!("unknown\r\nauthorization: Bearer {APPS_BEARER}"),
            "/",
            403,
        ),
    ] {
        let answer = ask(&outbound, host, path).unwrap();
        assert_eq!(answer.status, status, "{host}: {}", answer.text);
        said.push((format!("the answer of {host}"), answer.text));
    }
    // They were really used, or this test would show nothing.
    let requests = app.requests().join("\n");
    for used in [
        SESSION_TOKEN,
        APPS_BEARER,
        APPS_COOKIE,
        HEADER_SECRET,
        "POST /token",
        "x-warifu-context: eyJ",
    ] {
        assert!(
            requests.contains(used),
            "{used} did not reach the app:\n{requests}"
        );
    }

    secrets.text("the bearer token", &bearer);
    secrets.text("the base secret", BASE_SECRET);
    secrets.text("the role session's secret", ROLE_SECRET);
    secrets.text("the session token", SESSION_TOKEN);
    secrets.text("the header's secret", HEADER_SECRET);
    secrets.text("the client's secret", CLIENT_SECRET);
    secrets.text("the app's cookie", APPS_COOKIE);
    secrets.text("the app's bearer token", APPS_BEARER);
    for name in ["orders", "payments"] {
        let key = fs::read(sandbox.path(&format!("{name}.state/renewal.key"))).unwrap();
        secrets.bytes("a renewal key", private_scalar(&key));
    }
    let key = fs::read(sandbox.path("ca/key-encryption.key")).unwrap();
    secrets.bytes("the key-encryption key", &key);

    // What is asked of it: probes, status, metrics, and the commands that ask.
    for agent in [&orders, &payments] {
        for path in ["/metrics", "/readyz", "/status"] {
            said.push((path.to_owned(), agent.admin(path).text));
        }
    }
    let metrics = ask(&authority.probes, "localhost", "/metrics").unwrap();
    said.push(("the authority's metrics".to_owned(), metrics.text));
    for command in [
        &["status", "--config", "orders.yaml"][..],
        &["authority", "status", "--config", "authority.yaml"],
        &[
            "authority",
            "explain",
            "--config",
            "authority.yaml",
            "--fact",
            "service=x",
        ],
    ] {
        let ended = sandbox.warifu(EVERYTHING).args(command).run();
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        said.push((command.join(" "), ended.stdout + &ended.stderr));
    }

    // What was written: modes while it runs, then all the text there is.
    assert_private(&sandbox);
    for (name, running) in [
        ("orders", orders.running),
        ("payments", payments.running),
        ("the authority", authority.running),
    ] {
        said.extend(ended(name, running));
    }
    let audit = fs::read_to_string(sandbox.path("payments.audit")).unwrap();
    assert!(audit.lines().count() >= 3, "{audit}");
    said.push(("the audit file".to_owned(), audit));
    let context = fs::read_to_string(sandbox.path("context.jwks")).unwrap();
    said.push(("the context key's file".to_owned(), context));
    for (place, text) in &said {
        secrets.assert_absent(place, text);
    }
    assert!(said.iter().any(|(_, text)| text.contains("\"DEBUG\"")));
    let logged: usize = said.iter().map(|(_, text)| text.len()).sum();
    assert!(logged > 20_000, "only {logged} bytes were looked at");
}

/// Ends a process; what it had said, and its arguments.
fn ended(name: &str, running: Running) -> [(String, String); 3] {
    let arguments = fs::read(format!("/proc/{}/cmdline", running.pid())).unwrap();
    let arguments = String::from_utf8_lossy(&arguments).into_owned();
    assert!(arguments.contains("--config"), "{arguments}");
    running.signal(Signal::TERM);
    let ended = running.ended();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    [
        (format!("the log of {name}"), ended.stderr),
        (format!("the audit of {name}"), ended.stdout),
        (format!("the arguments of {name}"), arguments),
    ]
}

/// Nothing the processes made is open to others; sockets of listeners not even to the group, where they
/// are for administration.
fn assert_private(sandbox: &Sandbox) {
    let mut seen = 0;
    for (path, (mode, _)) in sandbox.content() {
        let name = path.file_name().unwrap().to_str().unwrap();
        let ours = name.ends_with(".yaml") || name.ends_with(".secret");
        // Public by design: what the app verifies its agent with, and the socket of the Workload API, where the kernel
        // says who asks.
        let public = ["context.jwks", "workload.sock"].contains(&name);
        if ours || public {
            continue;
        }
        // The app reads it, in the group.
        let open = if name == "aws.token" { 0o037 } else { 0o077 };
        assert_eq!(mode & open, 0, "{} has mode {mode:o}", path.display());
        seen += 1;
    }
    // ca with key and database, two states with two files each, three sockets, audit, tokens.
    assert!(seen >= 14, "only {seen} files were looked at");
    let content = fs::metadata(sandbox.path("context.jwks"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(
        content & 0o022,
        0,
        "others may replace the context key: {content:o}"
    );
    assert!(Path::new(&sandbox.path("ca/state.db")).exists());
}

/// The private part of a P-256 key in PKCS#8: what follows it is public (RFC 5915 §3).
fn private_scalar(pkcs8: &[u8]) -> &[u8] {
    const BEFORE: &[u8] = &[2, 1, 1, 4, 32];
    let at = pkcs8
        .windows(BEFORE.len())
        .position(|it| it == BEFORE)
        .unwrap();
    &pkcs8[at + BEFORE.len()..][..32]
}

#[test]
fn a_secret_would_be_found_in_any_encoding() {
    let key: Vec<u8> = (0..32_u8).map(|n| n.wrapping_mul(197) ^ 0x5a).collect();
    let mut secrets = Secrets(Vec::new());
    secrets.bytes("a key", &key);
    let found = |text: &str| {
        secrets
            .0
            .iter()
            .any(|(_, secret)| text.contains(secret.as_str()))
    };
    for before in ["", "x", "xx"] {
        let whole = [before.as_bytes(), &key, b"after"].concat();
        assert!(found(&STANDARD.encode(&whole)));
        assert!(found(
            &base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(&whole)
        ));
    }
    let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(found(&hex) && found(&format!("Key({key:?})")));
    assert!(!found("nothing of the kind"));
}
