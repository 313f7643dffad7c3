//! `warifu policy explain`.

use std::{net::IpAddr, path::PathBuf, process::ExitCode};

use clap::Args;
use http::HeaderName;
use serde_json::{Map, Value};
use warifu::SpiffeId;
use warifu_agent::config::{
    cases::{Case, CaseSubject, Expect},
    value::{Moment, ProvedRole},
};

use super::{Failure, Rules};

/// Say whether a made-up request is allowed, by which rule, and what the nearest rules lack
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  warifu policy explain --config /etc/warifu/agent.yaml --peer \
                  spiffe://example.org/orders POST /charges\n  warifu policy explain --config agent.yaml --listener \
                  0.0.0.0:8443 --role 123456789012:role/batch --source 10.1.2.3 GET /reports/1\n  warifu policy \
                  explain --config agent.yaml --issuer cognito --scope charges.read --claim tenant_id=acme --at \
                  2026-11-20T09:00:00+09:00 GET /charges/1\nExit code 1: it is denied."
)]
pub(super) struct ExplainArgs {
    /// The agent's configuration
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Which listener of it: its place from 0, or its address [default: the only one]
    #[arg(long, value_name = "N|ADDRESS")]
    listener: Option<String>,
    /// Whom the connection proves
    #[arg(long, value_name = "SPIFFE-ID")]
    peer: Option<SpiffeId>,
    /// Whom a JWT-SVID proves
    #[arg(long, value_name = "SPIFFE-ID", conflicts_with = "role")]
    subject: Option<SpiffeId>,
    /// The AWS role that is proved
    #[arg(long, value_name = "ACCOUNT:role/NAME")]
    role: Option<ProvedRole>,
    /// Which entry of accept proves the subject [default: the only one that proves a subject]
    #[arg(long, value_name = "NAME")]
    issuer: Option<String>,
    /// A scope; repeat for more
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// A claim, as text or as JSON, such as admin=true; repeated, it is a list
    #[arg(long = "claim", value_name = "NAME=VALUE", value_parser = claim)]
    claims: Vec<(String, Value)>,
    /// A header; repeat for more
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = header)]
    headers: Vec<(HeaderName, String)>,
    /// Where it comes from [default: not known]
    #[arg(long, value_name = "ADDRESS")]
    source: Option<IpAddr>,
    /// When [default: now]
    #[arg(long, value_name = "MOMENT")]
    at: Option<Moment>,
    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
    /// The method
    method: String,
    /// The path
    path: String,
}

pub(super) fn run(args: &ExplainArgs) -> Result<ExitCode, Failure> {
    let rules = Rules::load(&args.config, args.listener.as_deref())?;
    let answer = rules.explain(&case(args))?;
    if args.json {
        let text = serde_json::to_string_pretty(&answer)
            .map_err(|why| Failure::new("printing the answer", why))?;
        println!("{text}");
    } else {
        print!("{}", answer.shown(""));
    }
    Ok(ExitCode::from(u8::from(answer.decision != "allow")))
}

fn case(args: &ExplainArgs) -> Case {
    let mut claims = Map::new();
    for (name, value) in &args.claims {
        match claims.get_mut(name) {
            None => {
                claims.insert(name.clone(), value.clone());
            }
            Some(Value::Array(items)) => items.push(value.clone()),
            Some(first) => *first = Value::Array(vec![first.clone(), value.clone()]),
        }
    }
    let subject = CaseSubject {
        issuer: args.issuer.clone(),
        spiffe_id: args.subject.clone(),
        role: args.role.clone(),
        scopes: args.scopes.clone(),
        claims,
    };
    let proved = subject.issuer.is_some() || subject.spiffe_id.is_some() || subject.role.is_some();
    let proved = proved || !subject.scopes.is_empty() || !subject.claims.is_empty();
    Case {
        name: String::new(),
        peer: args.peer.clone(),
        subject: proved.then_some(subject),
        request: format!("{} {}", args.method, args.path),
        headers: args
            .headers
            .iter()
            .map(|(name, value)| (name.clone(), vec![value.clone()]))
            .collect(),
        source: args.source,
        at: args.at,
        expect: Expect::Allow,
        by: None,
    }
}

/// `admin=true` is a boolean, `level=3` a number, `tenants=["a"]` a list, `tenant=a` a text.
fn claim(text: &str) -> Result<(String, Value), String> {
    let (name, value) = pair(text)?;
    let json = serde_json::from_str(value).ok();
    Ok((name.to_owned(), json.unwrap_or_else(|| value.into())))
}

fn header(text: &str) -> Result<(HeaderName, String), String> {
    let (name, value) = pair(text)?;
    let name = name
        .parse()
        .map_err(|_| format!("{name:?} is no name of a header"))?;
    Ok((name, value.to_owned()))
}

fn pair(text: &str) -> Result<(&str, &str), String> {
    let pair = text.split_once('=').filter(|(name, _)| !name.is_empty());
    pair.ok_or_else(|| "expected NAME=VALUE".to_owned())
}
