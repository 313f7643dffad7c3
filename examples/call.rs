//! Calls a URL through the agent and prints the answer.
//!
//!     cargo run -p warifu --example call -- http://payments/charges
//!     WARIFU_OUTBOUND=http://127.0.0.1:4140 cargo run -p warifu --example call -- http://payments/

use std::{env, error::Error, process::ExitCode};

use warifu::Client;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Some(url) = env::args().nth(1) else {
        eprintln!("usage: call http://SERVICE/PATH");
        return ExitCode::from(2);
    };
    match call(&url).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn call(url: &str) -> Result<(), Box<dyn Error>> {
    let response = Client::from_env()?.get(url).send().await?;
    println!("{}", response.status());
    if let Some(reason) = response.agent_reason() {
        println!("(the agent's own answer: {reason})");
    }
    let body = response.bytes().await?;
    println!("{}", String::from_utf8_lossy(&body));
    Ok(())
}
