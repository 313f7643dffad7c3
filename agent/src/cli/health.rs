//! `warifu healthcheck`.

use std::process::ExitCode;

use clap::Args;
use warifu_agent::config::{self, FileKind, value::Listen};

use super::{Failure, Where, client};

/// Ask whether the agent or authority is ready; exit code 0 if so, 1 if not. For container health
/// checks: the image has no shell and no curl
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  warifu healthcheck --config /etc/warifu/agent.yaml\n  warifu healthcheck \
                        --socket 127.0.0.1:9100"
)]
pub(super) struct HealthArgs {
    #[command(flatten)]
    place: Where,
}

pub(super) fn run(args: &HealthArgs) -> Result<ExitCode, Failure> {
    let listen = listen(&args.place)?;
    let doing = format!("asking {listen} whether it is ready");
    let (status, body) = client::get(&listen, "/readyz").map_err(|why| {
        Failure::new(&doing, why).next("is it running, and with this configuration?")
    })?;
    match status.is_success() {
        true => {
            print!("{body}");
            Ok(ExitCode::SUCCESS)
        }
        false => {
            eprint!("{body}");
            Ok(ExitCode::FAILURE)
        }
    }
}

fn listen(place: &Where) -> Result<Listen, Failure> {
    let (path, listen) = match (&place.socket, &place.config) {
        (Some(socket), _) => return Ok(socket.clone()),
        (None, None) => return Err(Failure::usage("asking for health", "no address was given")),
        (None, Some(path)) => match config::kind_of(path)? {
            FileKind::Agent => {
                let admin = config::load_agent(path)?.admin;
                (path, admin.probes.or(admin.listen))
            }
            FileKind::Authority => (path, config::load_authority(path)?.probes),
        },
    };
    listen.ok_or_else(|| {
        let doing = format!("looking for the probes in {}", path.display());
        Failure::usage(&doing, "none are configured")
            .next("set admin.probes (agent) or probes (authority), such as 127.0.0.1:9100")
    })
}
