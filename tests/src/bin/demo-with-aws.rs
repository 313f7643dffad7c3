//! `warifu demo` with its AWS leg, against an emulator that checks signatures.
//!
//! ```text
//! cargo run --release -p warifu-tests --bin demo-with-aws
//! ```

use std::{
    env,
    process::{Command, ExitCode},
};

use warifu_agent::demo::{self, Options};
use warifu_tests::peers::Ministack;

/// Set for the second run of this program, which tells the demo: base credentials are looked for in
/// the environment, and only a child can be given one.
const ENDPOINT: &str = "WARIFU_DEMO_AWS_ENDPOINT";

fn main() -> ExitCode {
    match env::var(ENDPOINT) {
        Ok(endpoint) => tell(endpoint),
        Err(_) => match with_emulator() {
            Ok(code) => code,
            Err(why) => fail(&why),
        },
    }
}

fn tell(endpoint: String) -> ExitCode {
    let options = Options {
        aws_endpoint: Some(endpoint),
        keep: env::args().any(|argument| argument == "--keep"),
    };
    match demo::run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error.to_string()),
    }
}

fn with_emulator() -> Result<ExitCode, String> {
    let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
    eprintln!("Bringing up an AWS emulator; the first time, it is installed under target/.");
    let emulator = runtime
        .block_on(Ministack::start())
        .map_err(|error| error.to_string())?;
    let program = env::current_exe().map_err(|error| error.to_string())?;
    let told = Command::new(program)
        .args(env::args().skip(1))
        .env(ENDPOINT, emulator.endpoint())
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test")
        .env_remove("AWS_SESSION_TOKEN")
        .env_remove("AWS_PROFILE")
        .status()
        .map_err(|error| format!("running the demo: {error}"))?;
    Ok(if told.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn fail(why: &str) -> ExitCode {
    eprintln!("demo-with-aws: {why}");
    ExitCode::FAILURE
}
