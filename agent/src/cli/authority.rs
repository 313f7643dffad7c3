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
    authority::{
        Status,
        admin::{Act, JoinTokenAnswer, JoinTokenRequest},
    },
    config::{self, authority::Attestor, value::Span},
};

use super::{Failure, right_for};

mod explain;
mod place;
mod revoke;

use place::Place;

/// Run the issuing authority, or administer one that runs, here or elsewhere
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
    Explain(explain::ExplainArgs),
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
    place: Place,
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
#[command(
    after_help = "Examples:\n  warifu authority rotate --config /etc/warifu/authority.yaml\n  warifu authority \
                  rotate --url https://authority.example:8443 --trust-domain example.org --bundle roots.pem \
                  --attestation aws-caller-identity"
)]
struct RotateArgs {
    #[command(flatten)]
    place: Place,
}

/// Show roots with their pins, keys, and what rotation does next
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  warifu authority status --config /etc/warifu/authority.yaml")]
struct StatusArgs {
    #[command(flatten)]
    place: Place,
}

/// Facts, and whose they are.
#[derive(Debug, Args)]
struct Facts {
    /// A fact, such as service=orders; repeat for more
    #[arg(long = "fact", value_name = "KEY=VALUE", value_parser = fact)]
    facts: Vec<(String, String)>,
    /// The attestor they belong to [default: with --config, the only one]
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
            print_json(&args.place.ask::<Status>(&Act::Rotate)?)?;
        }
        (Some(Administer::Explain(args)), _) => return explain::run(args),
        (Some(Administer::Status(args)), _) => {
            print_json(&args.place.ask::<Status>(&Act::Status)?)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn join_token(args: &JoinTokenArgs) -> Result<(), Failure> {
    let takes_them = |attestor: &Attestor| matches!(attestor, Attestor::JoinToken);
    let request = JoinTokenRequest {
        attestor: args.facts.attestor(&args.place, takes_them)?,
        facts: args.facts.map(),
        ttl: args.ttl.0.as_secs(),
    };
    let made: JoinTokenAnswer = args.place.ask(&Act::JoinToken(request))?;
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

impl Facts {
    fn map(&self) -> BTreeMap<String, String> {
        self.facts.iter().cloned().collect()
    }

    /// The attestor that was named, or the only one in question.
    fn attestor(
        &self,
        place: &Place,
        is_meant: impl Fn(&Attestor) -> bool,
    ) -> Result<String, Failure> {
        if let Some(name) = &self.attestor {
            return Ok(name.clone());
        }
        let doing = "choosing the attestor";
        let Some(config) = place.load()? else {
            return Err(Failure::usage(doing, "none was named").next("name one with --attestor"));
        };
        let meant = config
            .attestors
            .iter()
            .filter(|(_, attestor)| is_meant(attestor));
        let meant: Vec<&str> = meant.map(|(name, _)| name.as_str()).collect();
        match meant.as_slice() {
            [only] => Ok((*only).to_owned()),
            names => Err(
                Failure::usage(doing, "there is more than one, or none").next(format!(
                    "name one with --attestor; configured: {}",
                    names.join(", ")
                )),
            ),
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

fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Failure::new("showing the answer", error))?;
    println!("{text}");
    Ok(())
}
