//! `warifu agent`.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use warifu_agent::{
    app,
    config::{self, AgentFile},
};

use super::{Failure, right_for};

/// Run the sidecar
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  warifu agent --config /etc/warifu/agent.yaml")]
pub(super) struct AgentArgs {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

pub(super) fn run(args: &AgentArgs) -> Result<ExitCode, Failure> {
    let path = &args.config;
    let file = AgentFile::load(path).map_err(|errors| match config::load_authority(path) {
        Ok(_) => right_for("authority", path),
        Err(_) => errors.into(),
    })?;
    app::run_agent(path, file)
        .map(|()| ExitCode::SUCCESS)
        .map_err(|error| match error.is_of_configuration() {
            true => Failure::usage("running the agent", error),
            false => Failure::new("running the agent", error),
        })
}
