//! `warifu aws-credentials`.

use std::{
    fs::File,
    io::Read,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header::AUTHORIZATION};
use serde::{Deserialize, Deserializer, Serialize};
use warifu::Secret;
use warifu_agent::config::{self, AgentConfig, local::AwsCredentials, value::Listen};

use super::{Failure, client};

/// What a profile's `credential_process` is waited for: while the agent has no credentials yet, or has just started.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between two questions.
const PAUSE: Duration = Duration::from_millis(250);

/// Where the agent's endpoint has credentials.
const PATH: &str = "/v1/credentials";

/// A bearer token is 43 bytes; other endpoints' are tokens of a few KiB.
const MAX_TOKEN: u64 = 16 * 1024;

/// Print AWS credentials of this workload's role, as credential_process of an AWS profile expects them
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  warifu aws-credentials --config /etc/warifu/agent.yaml --role orders\n  warifu \
                  aws-credentials --socket unix:/run/warifu/aws.sock\n\nIn ~/.aws/config:\n  [default]\n  \
                  credential_process = warifu aws-credentials --socket unix:/run/warifu/aws.sock"
)]
pub(super) struct AwsCredentialsArgs {
    /// The agent's configuration file: asks its endpoint, or that for the role
    #[arg(long, value_name = "FILE", conflicts_with = "socket")]
    config: Option<PathBuf>,
    /// The endpoint: unix:/path or IP:PORT [default: $AWS_CONTAINER_CREDENTIALS_FULL_URI]
    #[arg(long, value_name = "ADDRESS")]
    socket: Option<Listen>,
    /// The file with the endpoint's bearer token [default: $AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE]
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    token_file: Option<PathBuf>,
    /// The role, by ARN or name (its own, or with --config that in aws.roles): fails where the endpoint gives another
    #[arg(long, value_name = "ROLE")]
    role: Option<String>,
}

/// What is asked, and with what.
#[derive(Debug)]
struct Place {
    listen: Listen,
    path: String,
    token_file: Option<PathBuf>,
    /// Whose credentials must come.
    role: Option<String>,
}

/// What the endpoint answers.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Given {
    access_key_id: String,
    #[serde(deserialize_with = "secret")]
    secret_access_key: Secret<String>,
    #[serde(deserialize_with = "secret")]
    token: Secret<String>,
    expiration: String,
    role_arn: Option<String>,
}

/// What it answers where it has none.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Refused {
    code: String,
    message: String,
}

/// <https://docs.aws.amazon.com/sdkref/latest/guide/feature-process-credentials.html>
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Output<'a> {
    version: u8,
    access_key_id: &'a str,
    secret_access_key: &'a str,
    session_token: &'a str,
    expiration: &'a str,
}

pub(super) fn run(args: &AwsCredentialsArgs) -> Result<ExitCode, Failure> {
    let place = place(args)?;
    let doing = format!("asking {} for AWS credentials", place.listen);
    let given = ask(&place, &doing)?;
    if let Some(role) = &place.role {
        let arn = given.role_arn.as_deref().unwrap_or("an unnamed role");
        if !is_role(role, arn) {
            return Err(
                Failure::new(&doing, format!("they are of {arn}, not of {role}"))
                    .next("ask the endpoint of that role: --config finds it"),
            );
        }
    }
    let output = Output {
        version: 1,
        access_key_id: &given.access_key_id,
        secret_access_key: given.secret_access_key.expose(),
        session_token: given.token.expose(),
        expiration: &given.expiration,
    };
    let output = serde_json::to_string(&output).map_err(|why| Failure::new(&doing, why))?;
    println!("{output}");
    Ok(ExitCode::SUCCESS)
}

/// Asks until there is an answer that will not change: an agent that starts, or whose STS is slow, says "later".
fn ask(place: &Place, doing: &str) -> Result<Given, Failure> {
    let began = Instant::now();
    loop {
        // Read each time: a new agent writes a new token.
        let headers = headers(place.token_file.as_deref(), doing)?;
        let failure = match client::get_with(&place.listen, &place.path, &headers) {
            Ok((StatusCode::OK, body)) => {
                let body = Secret::new(body);
                // The parser's own error may quote what it read.
                return serde_json::from_str(body.expose())
                    .map_err(|_| Failure::new(doing, "the answer is not what AWS SDKs expect"));
            }
            Ok((status, body)) => {
                let failure = said(status, &body, doing);
                if !status.is_server_error() {
                    return Err(failure);
                }
                failure
            }
            Err(why) => Failure::new(doing, why).next(
                "is the agent running, and does its local.aws_credentials[].listen say this address?",
            ),
        };
        if began.elapsed() > PATIENCE {
            return Err(failure);
        }
        thread::sleep(PAUSE);
    }
}

fn said(status: StatusCode, body: &str, doing: &str) -> Failure {
    let why = match serde_json::from_str::<Refused>(body) {
        Ok(Refused { code, message }) => format!("{status}, {code}: {message}"),
        Err(_) => format!("it answered {status}"),
    };
    let failure = Failure::new(doing, why);
    match status {
        StatusCode::UNAUTHORIZED => failure
            .next("give its token_file with --token-file, or its configuration with --config"),
        _ => failure,
    }
}

fn headers(token_file: Option<&Path>, doing: &str) -> Result<HeaderMap, Failure> {
    let mut headers = HeaderMap::new();
    let Some(file) = token_file else {
        return Ok(headers);
    };
    let failed = |why: String| {
        Failure::new(
            doing,
            format!("reading the token in {}: {why}", file.display()),
        )
        .next("the agent writes it when it starts (0640): run as its user or in its group")
    };
    let mut token = String::new();
    File::open(file)
        .and_then(|file| file.take(MAX_TOKEN).read_to_string(&mut token))
        .map_err(|why| failed(why.to_string()))?;
    let token = Secret::new(token);
    let mut value = HeaderValue::from_str(token.expose())
        .map_err(|_| failed("it is no token: a line's end in it?".to_owned()))?;
    value.set_sensitive(true);
    headers.insert(AUTHORIZATION, value);
    Ok(headers)
}

fn place(args: &AwsCredentialsArgs) -> Result<Place, Failure> {
    let doing = "looking for the endpoint of AWS credentials";
    if let Some(file) = &args.config {
        let config = config::load_agent(file)?;
        return of_config(&config, args.role.as_deref())
            .map_err(|why| Failure::usage(doing, format!("{}: {why}", file.display())));
    }
    let variable = |name: &str| std::env::var(name).ok().filter(|it| !it.is_empty());
    let token_file = args.token_file.clone();
    let token_file = token_file
        .or_else(|| variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE").map(PathBuf::from));
    if let Some(socket) = &args.socket {
        let is_unix = matches!(socket, Listen::Unix(_));
        return Ok(Place {
            listen: socket.clone(),
            path: PATH.to_owned(),
            // On a unix socket the kernel says who asks: what is set for others is not sent there.
            token_file: token_file.filter(|_| !is_unix || args.token_file.is_some()),
            role: args.role.clone(),
        });
    }
    let Some(uri) = variable("AWS_CONTAINER_CREDENTIALS_FULL_URI") else {
        return Err(Failure::usage(doing, "none was given")
            .next("give --socket or --config, or set AWS_CONTAINER_CREDENTIALS_FULL_URI"));
    };
    let (listen, path) = of_uri(&uri).ok_or_else(|| {
        let why = format!("AWS_CONTAINER_CREDENTIALS_FULL_URI is {uri:?}");
        Failure::usage(doing, why).next("expected http:// and a loopback address of the agent's")
    })?;
    Ok(Place {
        listen,
        path,
        token_file,
        role: args.role.clone(),
    })
}

/// The endpoint of `role`, which may be a name of `aws.roles`, too; the only one, where none is named.
fn of_config(config: &AgentConfig, role: Option<&str>) -> Result<Place, String> {
    let given = config.local.aws_credentials.iter();
    let given = given.filter(|it| !it.unsafe_imds);
    let arn = |it: &AwsCredentials| config.aws.arn(&it.role).unwrap_or_default().to_owned();
    let wanted = |it: &&AwsCredentials| {
        let is = |role: &str| role == it.role.to_string() || is_role(role, &arn(it));
        role.is_none_or(is)
    };
    let mut found = given.filter(wanted);
    match (found.next(), found.next(), role) {
        (Some(one), None, _) => Ok(Place {
            listen: one.listen.clone(),
            path: PATH.to_owned(),
            token_file: one.token_file.clone(),
            role: Some(arn(one)),
        }),
        (Some(_), Some(_), Some(role)) => Err(format!(
            "several endpoints of local.aws_credentials are of {role}; name one's address with --socket"
        )),
        (Some(_), Some(_), None) => {
            Err("local.aws_credentials has several endpoints; name the role with --role".to_owned())
        }
        (None, _, Some(role)) => Err(format!("no endpoint of local.aws_credentials is of {role}")),
        (None, _, None) => {
            Err("local.aws_credentials has no endpoint (but perhaps of unsafe_imds)".to_owned())
        }
    }
}

/// The address and path of a loopback URI: the token goes nowhere else.
fn of_uri(uri: &str) -> Option<(Listen, String)> {
    let uri: Uri = uri.parse().ok()?;
    let host = uri.host()?.trim_matches(['[', ']']);
    let ip = match host.parse::<IpAddr>() {
        Ok(ip) => ip,
        Err(_) if host.eq_ignore_ascii_case("localhost") => Ipv4Addr::LOCALHOST.into(),
        Err(_) => return None,
    };
    let address = SocketAddr::new(ip, uri.port_u16().unwrap_or(80));
    let path = uri.path_and_query()?.to_string();
    let is_plain = uri.scheme_str() == Some("http");
    (is_plain && ip.is_loopback()).then_some((Listen::Tcp(address), path))
}

fn secret<'de, D: Deserializer<'de>>(from: D) -> Result<Secret<String>, D::Error> {
    String::deserialize(from).map(Secret::new)
}

/// Whether `role` is what `arn` names: the whole ARN, or the role's name.
fn is_role(role: &str, arn: &str) -> bool {
    role == arn || arn.rsplit('/').next() == Some(role)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_named_by_its_arn_or_its_name() {
        let arn = "arn:aws:iam::123456789012:role/shop/orders";
        assert!(is_role(arn, arn) && is_role("orders", arn));
        assert!(!is_role("shop", arn) && !is_role("order", arn) && !is_role("", arn));
    }

    #[test]
    fn s19_the_token_goes_to_loopback_addresses_alone() {
        let place = |uri: &str| of_uri(uri).map(|(listen, path)| format!("{listen} {path}"));
        for (uri, expected) in [
            (
                "http://127.0.0.1:4150/v1/credentials",
                "127.0.0.1:4150 /v1/credentials",
            ),
            ("http://localhost:4150/a?b", "127.0.0.1:4150 /a?b"),
            ("http://[::1]:4150/", "[::1]:4150 /"),
            ("http://127.0.0.1/x", "127.0.0.1:80 /x"),
        ] {
            assert_eq!(place(uri).as_deref(), Some(expected), "{uri}");
        }
        for uri in [
            "https://127.0.0.1:4150/x",
            "http://169.254.170.23/v1/credentials",
            "http://credentials.example/x",
            "http://127.0.0.1.example/x",
            "/v1/credentials",
            "",
        ] {
            assert_eq!(place(uri), None, "{uri}");
        }
    }

    #[test]
    fn the_configuration_names_the_endpoint() {
        let yaml = "trust_domain: example.org
authority: {url: 'https://authority:8443', root_spki_sha256: ['PIN']}
attestation: aws-web-identity
aws: {region: eu-west-1, roles: {cli: {arn: 'arn:aws:iam::123456789012:role/b'}}}
local:
  aws_credentials:
  - {listen: 'unix:/run/a.sock', role: 'arn:aws:iam::123456789012:role/a'}
  - {listen: '127.0.0.1:4150', role: cli, token_file: /run/b.token}
  - {listen: '127.0.0.1:4151', role: 'arn:aws:iam::123456789012:role/c', unsafe_imds: true}
";
        let yaml = yaml.replace("PIN", &"ab".repeat(32));
        let config = config::parse_agent(&yaml, "agent.yaml").unwrap();
        let place = |role| of_config(&config, role);
        let b = place(Some("b")).unwrap();
        assert_eq!(b.role.as_deref(), Some("arn:aws:iam::123456789012:role/b"));
        assert_eq!(place(Some("cli")).unwrap().role, b.role);
        assert_eq!(b.listen.to_string(), "127.0.0.1:4150");
        assert_eq!(b.token_file.as_deref(), Some(Path::new("/run/b.token")));
        assert!(place(Some("a")).unwrap().token_file.is_none());
        for (role, why) in [
            (None, "several"),
            (Some("c"), "no endpoint"),
            (Some("x"), "no endpoint"),
        ] {
            let error = place(role).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
