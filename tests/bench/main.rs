//! How much an authenticated call costs, beside other proxies doing the same work in the same run.
//!
//! ```sh
//! cargo build --release -p warifu-agent
//! cargo run --release -p warifu-tests --bin bench -- inbound
//! ```
//! What is measured and how to read it: `docs/benchmarks.md`.

mod backend;
mod certificates;
mod checks;
mod client;
mod load;
mod outbound;
mod process;
mod proxies;
mod report;
mod rounds;
mod stats;
mod suites;
mod tokens;

use std::process::ExitCode;

use crate::{
    outbound::bare as hashing,
    proxies::{Kind, bare},
    report::Outcome,
    suites::Suite,
};

/// What goes wrong here ends the run, so its text is all that matters.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

const USAGE: &str = "usage: bench NAME [--quick] [--subject PROXY]   (`bench list` names them)";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match *arguments {
        ["list"] => {
            for suite in Suite::ALL {
                println!("{:<13}{}", suite.name(), suite.about());
            }
            ExitCode::SUCCESS
        }
        [bare::ARGUMENT, listen, backend, directory] => {
            ended(bare::run(listen, backend, directory).map(|()| Outcome::Met))
        }
        [hashing::ARGUMENT, listen, backend] => {
            ended(hashing::run(listen, backend).map(|()| Outcome::Met))
        }
        [name, ref options @ ..] => match parse(name, options) {
            Ok((suite, subject, quick)) => ended(suite.run(subject, quick)),
            Err(wrong) => usage(&wrong),
        },
        [] => usage("which benchmark?"),
    }
}

/// The benchmark, who is measured against the others, and whether quickly.
fn parse(name: &str, mut options: &[&str]) -> std::result::Result<(Suite, Kind, bool), String> {
    let suite = Suite::ALL
        .into_iter()
        .find(|suite| suite.name() == name)
        .ok_or_else(|| format!("no benchmark is called `{name}`"))?;
    let (mut subject, mut quick) = (Kind::Warifu, false);
    loop {
        options = match options {
            [] => return Ok((suite, subject, quick)),
            ["--quick", rest @ ..] => {
                quick = true;
                rest
            }
            ["--subject", name, rest @ ..] => {
                subject = Kind::ALL
                    .into_iter()
                    .find(|kind| kind.name() == *name)
                    .ok_or_else(|| format!("no proxy is called `{name}`"))?;
                rest
            }
            [other, ..] => return Err(format!("`{other}` is no option")),
        };
    }
}

fn usage(wrong: &str) -> ExitCode {
    eprintln!("bench: {wrong}\n{USAGE}");
    ExitCode::from(2)
}

fn ended(run: Result<Outcome>) -> ExitCode {
    match run {
        Ok(Outcome::Met) => ExitCode::SUCCESS,
        Ok(Outcome::Missed) => ExitCode::from(1),
        Ok(Outcome::Absent) => ExitCode::from(3),
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::from(1)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_alone_measures_warifu_at_length() {
        assert_eq!(
            parse("inbound", &[]),
            Ok((Suite::Inbound, Kind::Warifu, false))
        );
    }

    #[test]
    fn options_come_in_any_order() {
        let expected = Ok((Suite::Memory, Kind::HaProxy, true));
        assert_eq!(
            parse("memory", &["--quick", "--subject", "haproxy"]),
            expected
        );
        assert_eq!(
            parse("memory", &["--subject", "haproxy", "--quick"]),
            expected
        );
    }

    #[test]
    fn what_is_unknown_is_named() {
        assert_eq!(
            parse("inbond", &[]),
            Err("no benchmark is called `inbond`".to_owned())
        );
        assert_eq!(
            parse("inbound", &["--fast"]),
            Err("`--fast` is no option".to_owned())
        );
        assert_eq!(
            parse("inbound", &["--subject"]),
            Err("`--subject` is no option".to_owned())
        );
    }
}
