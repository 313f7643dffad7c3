//! `warifu authority`: run it, and administer one that runs.

use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Subcommand};
use warifu_agent::{
    app,
    authority::admin::{ExplainRequest, JoinTokenRequest, client},
    config::{
        self, AuthorityConfig,
        value::{Listen, Span},
    },
};

use super::{Failure, right_for};

mod revoke;

/// Run the issuing authority, or administer one that runs on this machine
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Example:\n  warifu authority --config /etc/warifu/authority.yaml"
)]
pub(super) struct AuthorityArgs {
    /// The configuration file
    #[arg(long, value_name = "FILE", required = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Administer>,
}

#[derive(Debug, Subcommand)]
enum Administer {
    JoinToken(JoinTokenArgs),
    Revoke(revoke::RevokeArgs),
    Rotate(RotateArgs),
    Explain(ExplainArgs),
    Status(StatusArgs),
}

/// Make a join token: it attests the given facts once
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  warifu authority join-token --config /etc/warifu/authority.yaml --fact service=orders \
                  --ttl 10m --out orders.token"
)]
struct JoinTokenArgs {
    #[command(flatten)]
    place: AdminSocket,
    #[command(flatten)]
    facts: Facts,
    /// How long the token may be used
    #[arg(long, value_name = "SPAN", default_value = "10m")]
    ttl: Span,
    /// Write the token to a new file that only this user may read, instead of printing it
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Rotate the root and the token keys now, ahead of their time
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  warifu authority rotate --config /etc/warifu/authority.yaml")]
struct RotateArgs {
    #[command(flatten)]
    place: AdminSocket,
}

/// Say what each rule makes of given facts, and why
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  warifu authority explain --config /etc/warifu/authority.yaml --fact service=orders"
)]
struct ExplainArgs {
    #[command(flatten)]
    place: AdminSocket,
    #[command(flatten)]
    facts: Facts,
}

/// Show roots with their pins, keys, and what rotation does next
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  warifu authority status --config /etc/warifu/authority.yaml")]
struct StatusArgs {
    #[command(flatten)]
    place: AdminSocket,
}

/// Where the authority's administration is.
#[derive(Debug, Args)]
struct AdminSocket {
    /// The configuration file it runs with
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// Facts, and whose they are.
#[derive(Debug, Args)]
struct Facts {
    /// A fact, such as service=orders; repeat for more
    #[arg(long = "fact", value_name = "KEY=VALUE", value_parser = fact)]
    facts: Vec<(String, String)>,
    /// The attestor they belong to [default: the only one of kind join-token]
    #[arg(long, value_name = "NAME")]
    attestor: Option<String>,
}

pub(super) fn run(args: &AuthorityArgs) -> Result<ExitCode, Failure> {
    match (&args.command, &args.config) {
        (None, Some(path)) => {
            let config =
                config::load_authority(path).map_err(|errors| match config::load_agent(path) {
                    Ok(_) => right_for("agent", path),
                    Err(_) => errors.into(),
                })?;
            app::run_authority(&config)
                .map_err(|error| Failure::new("running the authority", error))?;
        }
        (None, None) => {
            return Err(Failure::usage(
                "running the authority",
                "--config is missing",
            ));
        }
        (Some(Administer::JoinToken(args)), _) => join_token(args)?,
        (Some(Administer::Revoke(args)), _) => revoke::run(args)?,
        (Some(Administer::Rotate(args)), _) => {
            let (_, socket) = args.place.load()?;
            let status = asked(&socket, client::rotate(&socket))?;
            print_json(&status)?;
        }
        (Some(Administer::Explain(args)), _) => {
            let (config, socket) = args.place.load()?;
            let request = ExplainRequest {
                attestor: args.facts.attestor(&config)?,
                facts: args.facts.map(),
            };
            for line in asked(&socket, client::explain(&socket, &request))?.rules {
                println!("{line}");
            }
        }
        (Some(Administer::Status(args)), _) => {
            let (_, socket) = args.place.load()?;
            let status = asked(&socket, client::status(&socket))?;
            print_json(&status)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn join_token(args: &JoinTokenArgs) -> Result<(), Failure> {
    let (config, socket) = args.place.load()?;
    let request = JoinTokenRequest {
        attestor: args.facts.attestor(&config)?,
        facts: args.facts.map(),
        ttl: args.ttl.0.as_secs(),
    };
    let made = asked(&socket, client::create_join_token(&socket, &request))?;
    // Said on standard error: standard output carries the token and nothing else.
    match (&made.spiffe_id, &made.warning) {
        (Some(id), _) => eprintln!("this token becomes {id}, once, within {}", args.ttl),
        (None, Some(warning)) => {
            eprintln!("warning: by today's rules this token becomes nothing: {warning}")
        }
        (None, None) => {}
    }
    match &args.out {
        None => println!("{}", made.token.expose()),
        Some(path) => write_private(path, made.token.expose()).map_err(|error| {
            Failure::new(&format!("writing the token to {}", path.display()), error)
        })?,
    }
    Ok(())
}

/// A file that did not exist, for this user only.
fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())
}

impl AdminSocket {
    fn load(&self) -> Result<(AuthorityConfig, PathBuf), Failure> {
        let config = config::load_authority(&self.config)?;
        match &config.admin {
            Listen::Unix(socket) => {
                let socket = socket.clone();
                Ok((config, socket))
            }
            Listen::Tcp(address) => Err(Failure::usage(
                "looking for the administration socket",
                format!("admin is {address}; expected unix:/path"),
            )),
        }
    }
}

impl Facts {
    fn map(&self) -> BTreeMap<String, String> {
        self.facts.iter().cloned().collect()
    }

    fn attestor(&self, config: &AuthorityConfig) -> Result<String, Failure> {
        if let Some(name) = &self.attestor {
            return Ok(name.clone());
        }
        let mut names = config.attestors.keys();
        match (names.next(), names.next()) {
            (Some(only), None) => Ok(only.clone()),
            _ => {
                let all: Vec<&str> = config.attestors.keys().map(String::as_str).collect();
                Err(
                    Failure::usage("choosing the attestor", "there is more than one, or none")
                        .next(format!(
                            "name one with --attestor; configured: {}",
                            all.join(", ")
                        )),
                )
            }
        }
    }
}

fn fact(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && !value.is_empty() => {
            Ok((key.to_owned(), value.to_owned()))
        }
        _ => Err("expected KEY=VALUE, such as service=orders".to_owned()),
    }
}

/// Runs one exchange with the authority.
fn asked<T>(
    socket: &Path,
    exchange: impl Future<Output = Result<T, client::AdminError>>,
) -> Result<T, Failure> {
    let doing = format!("asking the authority at {}", socket.display());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(&doing, error))?;
    runtime.block_on(exchange).map_err(|error| match error {
        client::AdminError::Unreachable { .. } => Failure::new(&doing, error),
        error => Failure::new(&doing, error)
            .next("`warifu authority explain` says what the rules make of facts"),
    })
}

fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Failure::new("showing the answer", error))?;
    println!("{text}");
    Ok(())
}
