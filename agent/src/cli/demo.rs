//! `warifu demo`.

use std::process::ExitCode;

use clap::Args;
use warifu_agent::demo::{self, Options};

use super::Failure;

/// See it work on this machine: an authority, two agents, two services, a guided call
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  warifu demo\n  warifu demo --keep")]
pub(super) struct DemoArgs {
    /// Also assume a role and call a SigV4-protected API at this AWS endpoint, such as
    /// http://127.0.0.1:4566, with the credentials of the environment
    #[arg(long, value_name = "URL")]
    aws_endpoint: Option<String>,
    /// Leave everything running at the end, until Ctrl-C
    #[arg(long)]
    keep: bool,
}

pub(super) fn run(args: DemoArgs) -> Result<ExitCode, Failure> {
    let options = Options {
        aws_endpoint: args.aws_endpoint,
        keep: args.keep,
    };
    demo::run(&options)
        .map(|()| ExitCode::SUCCESS)
        .map_err(|error| Failure::new("running the demo", error))
}
