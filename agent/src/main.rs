//! `warifu`: the command. Arguments here; everything else in the library.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
