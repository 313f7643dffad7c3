//! Who asks the endpoints of AWS credentials and should not is refused, cheaply, with a clear error, and counted; and
//! blocks nobody else.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use serde_json::Value;
use warifu_tests::{
    aws::{Agent, Endpoints, Keys, Mood, Sts},
    mesh::until,
    process::{Answer, DEADLINE, ask},
};

const KEYS: Keys<'_> = Keys {
    id: "AKIABASE",
    secret: "s",
};
const ROLE: &str = "arn:aws:iam::123456789012:role/shop/orders";
const HOUR: Duration = Duration::from_secs(3600);
const PATH: &str = "/v1/credentials";
const ROLES: &str = "/latest/meta-data/iam/security-credentials/";

async fn endpoints() -> (Sts, Endpoints, Agent) {
    let sts = Sts::start(Mood::Well(HOUR)).await;
    let endpoints = Endpoints::of(ROLE);
    let agent = endpoints.start(KEYS, &sts.url());
    (sts, endpoints, agent)
}

/// Sends a head, and reads the answer.
fn say(to: SocketAddr, head: &str) -> Answer {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let head = format!("{head}\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let status = text.get(9..12).and_then(|status| status.parse().ok());
    let status = status.unwrap_or_else(|| panic!("no answer: {text:?}"));
    Answer { status, text }
}

fn body(answer: &Answer) -> Value {
    let (_, body) = answer.text.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap_or_else(|why| panic!("{why}: {answer:?}"))
}

fn refused(answer: &Answer, status: u16, code: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    let said = body(answer);
    assert_eq!(said["Code"], code, "{answer:?}");
    assert!(said["Message"].as_str().is_some_and(|it| !it.is_empty()));
    assert!(!answer.text.contains("ASIA"), "{answer:?}");
}

fn counted(agent: &Agent, outcome: &str) -> f64 {
    let labels = format!(r#"role="{ROLE}",outcome="{outcome}""#);
    agent.metric(&format!(
        "warifu_local_aws_credentials_requests_total{{{labels}}}"
    ))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s20_the_container_endpoint_answers_its_own_clients_alone() {
    let (_sts, endpoints, agent) = endpoints().await;
    let at = endpoints.container;
    let token = std::fs::read_to_string(endpoints.token_file()).unwrap();
    let get = |target: &str, more: &str| {
        let head = format!("GET {target} HTTP/1.1\r\nhost: {at}\r\nauthorization: {token}{more}");
        say(at, &head)
    };
    let given = get(PATH, "");
    assert_eq!(given.status, 200, "{given:?}");
    let given = body(&given);
    assert_eq!(
        (&given["AccessKeyId"], &given["RoleArn"]),
        (&"ASIA1".into(), &ROLE.into())
    );
    for name in ["SecretAccessKey", "Token", "Expiration"] {
        assert!(
            given[name].as_str().is_some_and(|it| !it.is_empty()),
            "{name}"
        );
    }

    for more in ["\r\norigin: https://evil.example", "\r\norigin: null"] {
        refused(&get(PATH, more), 403, "WebPage");
    }
    for more in [
        "\r\nx-forwarded-for: 10.0.0.1",
        "\r\nforwarded: for=10.0.0.1",
        "\r\nvia: 1.1 p",
    ] {
        refused(&get(PATH, more), 403, "Forwarded");
    }
    for host in ["rebound.example", "127.0.0.1", "localhost", "127.0.0.1:1"] {
        let head = format!("GET {PATH} HTTP/1.1\r\nhost: {host}\r\nauthorization: {token}");
        refused(&say(at, &head), 403, "ForeignHost");
    }
    let absolute = format!("http://rebound.example{PATH}");
    refused(&get(&absolute, ""), 403, "ForeignHost");
    let wrong = "A".repeat(43);
    for authorization in [
        "",
        "\r\nauthorization: ",
        &format!("\r\nauthorization: {wrong}"),
        &format!("\r\nauthorization: Bearer {token}"),
        &format!("\r\nauthorization: {token}\r\nauthorization: {token}"),
    ] {
        let head = format!("GET {PATH} HTTP/1.1\r\nhost: {at}{authorization}");
        refused(&say(at, &head), 401, "InvalidToken");
    }
    for target in [
        "/",
        "//v1/credentials",
        "/v1/%63redentials",
        "/v1/./credentials",
        "/v1/credentials?a=b",
    ] {
        refused(&get(target, ""), 404, "NotFound");
    }
    for method in ["POST", "PUT", "DELETE"] {
        let head = format!(
            "{method} {PATH} HTTP/1.1\r\nhost: {at}\r\nauthorization: {token}\r\ncontent-length: 0"
        );
        refused(&say(at, &head), 405, "MethodNotAllowed");
    }
    for (outcome, times) in [
        ("given", 1.0),
        ("origin", 2.0),
        ("forwarded", 3.0),
        ("foreign-host", 5.0),
        ("no-token", 5.0),
        ("unknown-path", 5.0),
        ("wrong-method", 3.0),
    ] {
        assert_eq!(counted(&agent, outcome), times, "{outcome}");
    }
    let log = agent.log();
    assert!(!log.contains(&token), "the bearer token is in the log");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s20_emulated_metadata_wants_a_token_and_a_unix_socket_a_listed_process() {
    let (_sts, endpoints, agent) = endpoints().await;
    let at = endpoints.imds;
    let put = |more: &str| {
        say(
            at,
            &format!("PUT /latest/api/token HTTP/1.1\r\nhost: {at}\r\ncontent-length: 0{more}"),
        )
    };
    let ttl = |seconds: &str| format!("\r\nx-aws-ec2-metadata-token-ttl-seconds: {seconds}");
    let got = put(&ttl("60"));
    assert_eq!(got.status, 200, "{got:?}");
    assert!(got.text.contains(ttl("60").trim()), "{got:?}");
    let token = got.text.split_once("\r\n\r\n").unwrap().1.to_owned();
    let get = |path: &str, token: &str| {
        say(
            at,
            &format!("GET {path} HTTP/1.1\r\nhost: {at}\r\nx-aws-ec2-metadata-token: {token}"),
        )
    };
    for (path, says) in [
        (ROLES, "\r\n\r\norders"),
        ("/latest/meta-data/placement/region", "\r\n\r\nus-east-1"),
        (&format!("{ROLES}orders"), "\"Type\":\"AWS-HMAC\""),
    ] {
        let answer = get(path, &token);
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        assert!(answer.text.contains(says), "{path}: {answer:?}");
    }
    for path in [
        "orders/",
        "other",
        "../security-credentials/orders",
        "%6frders",
    ] {
        refused(&get(&format!("{ROLES}{path}"), &token), 404, "NotFound");
    }
    for bad in ["", "AAAA", &token[1..]] {
        refused(&get(ROLES, bad), 401, "InvalidToken");
    }
    let v1 = format!("GET {ROLES}orders HTTP/1.1\r\nhost: {at}");
    refused(&say(at, &v1), 401, "InvalidToken");
    for bad in [String::new(), ttl("0"), ttl("21601")] {
        refused(&put(&bad), 400, "InvalidTtl");
    }
    let forwarded = format!("{}\r\nx-forwarded-for: 10.0.0.1", ttl("60"));
    refused(&put(&forwarded), 403, "Forwarded");
    agent.logs("unsafe_imds");

    // The unix socket: this process is not of user 12345.
    let unix = endpoints.socket();
    assert_eq!(ask(unix.as_path(), "localhost", PATH).unwrap().status, 200);
    agent.stop();
    let listed = endpoints.yaml().replace(
        "aws.sock\", role",
        "aws.sock\", clients: {uids: [12345]}, role",
    );
    let agent = endpoints
        .workload
        .agent_with(KEYS, "http://127.0.0.1:1", "", &listed);
    agent.wait_until_ready();
    refused(
        &ask(unix.as_path(), "localhost", PATH).unwrap(),
        403,
        "ClientNotAllowed",
    );
    assert_eq!(counted(&agent, "not-allowed"), 1.0);
}

/// SDKs ask on after a 5xx, and give up after this.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_aws_refuses_is_a_decision_in_the_words_of_either_protocol() {
    let sts = Sts::start(Mood::Refusing).await;
    let endpoints = Endpoints::of(ROLE);
    let agent = endpoints.start(KEYS, &sts.url());
    let (at, imds) = (endpoints.container, endpoints.imds);
    let token = std::fs::read_to_string(endpoints.token_file()).unwrap();
    let head = format!("GET {PATH} HTTP/1.1\r\nhost: {at}\r\nauthorization: {token}");
    // While the first attempt is under way there is no decision.
    let answer = until("AWS decided", async || {
        let answer = say(at, &head);
        (answer.status != 503).then_some(answer)
    })
    .await;
    refused(&answer, 403, "CredentialsRefused");
    let said = body(&answer);
    assert!(
        said["Message"].as_str().unwrap().contains("sts:AssumeRole"),
        "{said}"
    );

    let ttl = "x-aws-ec2-metadata-token-ttl-seconds: 60";
    let put =
        format!("PUT /latest/api/token HTTP/1.1\r\nhost: {imds}\r\ncontent-length: 0\r\n{ttl}");
    let put = say(imds, &put);
    let (_, token) = put.text.split_once("\r\n\r\n").unwrap();
    let head =
        format!("GET {ROLES}orders HTTP/1.1\r\nhost: {imds}\r\nx-aws-ec2-metadata-token: {token}");
    let answer = until("AWS decided", async || {
        let answer = say(imds, &head);
        (answer.status != 503).then_some(answer)
    })
    .await;
    refused(&answer, 200, "AssumeRoleUnauthorizedAccess");
    assert!(counted(&agent, "refused") >= 2.0);
    let line = agent.logs("a request of this machine was refused");
    assert!(
        line.to_string().contains("local.aws_credentials["),
        "{line}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s14_silent_connections_keep_the_app_out_for_seconds_at_most() {
    let (_sts, endpoints, _agent) = endpoints().await;
    let at = endpoints.container;
    let token = std::fs::read_to_string(endpoints.token_file()).unwrap();
    let head = format!("GET {PATH} HTTP/1.1\r\nhost: {at}\r\nauthorization: {token}");
    let silent: Vec<TcpStream> = (0..300)
        .filter_map(|_| TcpStream::connect(at).ok())
        .collect();
    assert_eq!(silent.len(), 300);
    until("the app is served", async || {
        let mut stream = TcpStream::connect(at).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
        stream
            .write_all(format!("{head}\r\nconnection: close\r\n\r\n").as_bytes())
            .ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        text.starts_with("HTTP/1.1 200").then_some(())
    })
    .await;
    drop(silent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_that_is_missing_keeps_the_agent_from_starting_and_is_named() {
    let endpoints = Endpoints::of(ROLE);
    let yaml = endpoints.yaml().replace("aws.token", "missing/aws.token");
    let failed = endpoints.workload.agent_that_fails(KEYS, &yaml);
    assert_eq!(failed.code, Some(1), "{failed:?}");
    for part in [
        "local.aws_credentials[0].token_file",
        "missing/aws.token",
        "must exist",
    ] {
        assert!(failed.stderr.contains(part), "{part}: {}", failed.stderr);
    }
}
