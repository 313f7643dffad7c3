//! `warifu policy test`.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use serde::Serialize;
use warifu_agent::config::cases::{self, Case, Expect};

use super::{Answer, Failure, Rules};

/// Try the cases of a file: made-up requests, and what the rules are expected to decide
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  warifu policy test policy-test.yaml\nwhere policy-test.yaml is\n  config: agent.yaml\n  \
                  cases:\n  - {name: orders may charge, peer: \"spiffe://example.org/orders\", request: POST \
                  /charges, expect: allow}\n  - {name: nobody deletes, peer: \"spiffe://example.org/orders\", \
                  request: DELETE /charges/1, expect: deny}\nExit code 1: a case failed; 2: a file is wrong."
)]
pub(super) struct TestArgs {
    /// The file of cases
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The agent's configuration, instead of the one that the file names
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
}

/// What became of a case.
#[derive(Debug, Serialize)]
struct Tried<'a> {
    name: &'a str,
    passed: bool,
    expected: String,
    #[serde(flatten)]
    answer: Answer,
}

pub(super) fn run(args: &TestArgs) -> Result<ExitCode, Failure> {
    let cases = cases::load(&args.file)?;
    let config = match (&args.config, &cases.config) {
        (Some(config), _) => config.clone(),
        (None, Some(config)) => beside(&args.file, config),
        (None, None) => {
            let doing = format!("testing the cases of {}", args.file.display());
            return Err(Failure::usage(&doing, "no configuration is named")
                .next("name it in the file (config: agent.yaml), or with --config"));
        }
    };
    let rules = Rules::load(&config, cases.listener.as_deref())?;
    let tried: Vec<Tried<'_>> = cases
        .cases
        .iter()
        .map(|case| tried(&rules, case))
        .collect::<Result<_, _>>()?;
    let failed = tried.iter().filter(|it| !it.passed).count();
    if args.json {
        let text = serde_json::to_string_pretty(&tried)
            .map_err(|why| Failure::new("printing the results", why))?;
        println!("{text}");
    } else {
        for case in tried.iter().filter(|it| !it.passed) {
            println!("FAILED {}", case.name);
            println!("  expected {}, but it is", case.expected);
            print!("{}", case.answer.shown("  "));
        }
        println!("{} cases, {failed} failed", tried.len());
    }
    Ok(ExitCode::from(u8::from(failed > 0)))
}

fn tried<'a>(rules: &Rules, case: &'a Case) -> Result<Tried<'a>, Failure> {
    let answer = rules.explain(case)?;
    let expected = match case.expect {
        Expect::Allow => "allow",
        Expect::Deny => "deny",
    };
    let by = case.by.as_ref();
    Ok(Tried {
        name: &case.name,
        passed: answer.decision == expected && (by.is_none() || answer.rule.as_ref() == by),
        expected: match by {
            Some(by) => format!("{expected} by {by}"),
            None => expected.to_owned(),
        },
        answer,
    })
}

/// `path` as it stands in `file`.
fn beside(file: &Path, path: &str) -> PathBuf {
    file.parent().unwrap_or(Path::new("")).join(path)
}
