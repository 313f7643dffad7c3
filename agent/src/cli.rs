//! Arguments, and errors as text. Exit codes: 0, 1 (it failed), 2 (usage or configuration).

mod agent;
mod authority;
mod aws_credentials;
mod check;
mod client;
mod demo;
mod health;
mod policy;
mod status;
mod svid;

use std::{
    fmt,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand};
use warifu_agent::{
    config::ConfigErrors,
    telemetry::log::{self, LogFormat, LogOptions},
};

/// Service-to-service identity: Service A calls Service B, neither holds a credential, and B knows for
/// certain who called.
#[derive(Debug, Parser)]
#[command(
    name = "warifu",
    version,
    disable_help_subcommand = true,
    max_term_width = 100
)]
struct Cli {
    #[command(flatten)]
    log: LogArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Logging")]
struct LogArgs {
    /// What to log: a level (error, warn, info, debug, trace) or filter directives such as
    /// info,warifu_agent::inbound=debug [default: $WARIFU_LOG, else info; for the demo off]
    #[arg(long = "log", global = true, value_name = "FILTER")]
    filter: Option<String>,
    /// How: text or json [default: text on a terminal, json otherwise]
    #[arg(long = "log-format", global = true, value_name = "FORMAT")]
    format: Option<LogFormat>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::DemoArgs),
    Agent(agent::AgentArgs),
    Authority(Box<authority::AuthorityArgs>),
    Check(check::CheckArgs),
    Policy(Box<policy::PolicyArgs>),
    Status(status::StatusArgs),
    Svid(svid::SvidArgs),
    Token(svid::TokenArgs),
    AwsCredentials(aws_credentials::AwsCredentialsArgs),
    Healthcheck(health::HealthArgs),
}

/// Runs the command; returns the process's exit code.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    match start_log(&cli.log, &cli.command).and_then(|()| run(cli.command)) {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::from(failure.code)
        }
    }
}

fn run(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Demo(args) => demo::run(args),
        Command::Agent(args) => agent::run(&args),
        Command::Authority(args) => authority::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Policy(args) => policy::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Svid(args) => svid::write(&args),
        Command::Token(args) => svid::token(&args),
        Command::AwsCredentials(args) => aws_credentials::run(&args),
        Command::Healthcheck(args) => health::run(&args),
    }
}

fn start_log(args: &LogArgs, command: &Command) -> Result<(), Failure> {
    let filter = args.filter.clone();
    let filter = filter.or_else(|| std::env::var("WARIFU_LOG").ok().filter(|it| !it.is_empty()));
    // The demo tells its own story; its agents meet refusals on purpose.
    let quiet = matches!(command, Command::Demo(_)).then(|| "off".to_owned());
    let options = LogOptions {
        filter: filter.or(quiet),
        format: args.format,
    };
    log::init(&options).map_err(|error| Failure::usage("setting up the log", error))
}

/// Why a command failed, as the user reads it.
#[derive(Debug)]
struct Failure {
    text: String,
    code: u8,
}

impl Failure {
    /// It failed (exit code 1): what was being done, and why it could not be.
    fn new(doing: &str, why: impl fmt::Display) -> Self {
        Self {
            text: format!("warifu: {doing}: {why}"),
            code: 1,
        }
    }

    /// It was asked for in a way that can't work (exit code 2).
    fn usage(doing: &str, why: impl fmt::Display) -> Self {
        Self {
            code: 2,
            ..Self::new(doing, why)
        }
    }

    /// What to do next.
    fn next(mut self, what: impl fmt::Display) -> Self {
        self.text += &format!("\n  {what}");
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Every mistake on a line of its own, in the form that editors and CI turn into links.
impl From<ConfigErrors> for Failure {
    fn from(errors: ConfigErrors) -> Self {
        let count = match errors.errors.len() {
            1 => "1 mistake".to_owned(),
            count => format!("{count} mistakes"),
        };
        Self {
            text: format!(
                "{errors}\nwarifu: reading the configuration {file}: {count}\n  correct what is listed above; \
                 `warifu check --config {file}` checks again and starts nothing",
                file = errors.file
            ),
            code: 2,
        }
    }
}

/// A file that is wrong for this command, as it is right for another.
fn right_for(other: &str, path: &Path) -> Failure {
    let file = path.display();
    let doing = format!("reading the configuration {file}");
    Failure::usage(&doing, format!("this is a file for `warifu {other}`")).next(format!(
        "run `warifu {other} --config {file}`, or give this command its own file"
    ))
}

/// Where a running agent or authority is asked.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Where {
    /// The configuration file it runs with
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Its admin or probe address: unix:/path or IP:PORT
    #[arg(long, value_name = "ADDRESS")]
    socket: Option<warifu_agent::config::value::Listen>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_wrong_file_is_exit_code_2_and_what_cannot_be_reached_is_1() {
        let run = |arguments: &[&str]| {
            let all = ["warifu"].iter().chain(arguments);
            run(Cli::try_parse_from(all).unwrap().command)
        };
        let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/examples");
        for file in ["agent.yaml", "authority.yaml"] {
            let file = format!("{examples}/{file}");
            assert_eq!(
                run(&["check", "--config", &file]).unwrap(),
                ExitCode::SUCCESS
            );
        }

        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("agent.yaml");
        std::fs::write(
            &file,
            "trust_domain: example.org\nattestation: oidc\ndrain: soon\n",
        )
        .unwrap();
        let file = file.to_str().unwrap();
        let failure = run(&["check", "--config", file]).unwrap_err();
        assert_eq!(failure.code, 2);
        let text = failure.to_string();
        for line in [
            ":2:14: attestation: ",
            ":3:8: drain: ",
            "\n  correct what is listed above",
        ] {
            assert!(text.contains(line), "{text}");
        }

        for command in ["status", "healthcheck"] {
            let failure = run(&[command, "--socket", "unix:/nonexistent/admin.sock"]).unwrap_err();
            assert_eq!(failure.code, 1);
            assert!(
                failure.to_string().starts_with("warifu: asking unix:/"),
                "{failure}"
            );
        }
        assert!(Cli::try_parse_from(["warifu", "status"]).is_err());
    }

    #[test]
    fn a_file_of_the_other_kind_is_sent_to_its_own_command() {
        let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/examples");
        for (command, file, other) in [
            ("agent", "authority.yaml", "warifu authority --config"),
            ("authority", "agent.yaml", "warifu agent --config"),
        ] {
            let file = format!("{examples}/{file}");
            let cli = Cli::try_parse_from(["warifu", command, "--config", &file]).unwrap();
            let failure = run(cli.command).unwrap_err();
            assert_eq!(failure.code, 2);
            assert!(failure.to_string().contains(other), "{failure}");
        }
    }

    #[test]
    fn every_command_has_an_example_in_its_help() {
        fn check(command: &clap::Command, path: &str) {
            for sub in command.get_subcommands() {
                let path = format!("{path} {}", sub.get_name());
                let after = sub.get_after_help().map(ToString::to_string);
                let after = after.unwrap_or_default();
                assert!(
                    after.contains(&path),
                    "{path} has no example in its help: {after:?}"
                );
                check(sub, &path);
            }
        }
        let mut command = Cli::command();
        command.build();
        check(&command, "warifu");
    }
}
