//! `warifu svid` and `warifu token`: asked of the Workload API, as any workload asks it.

use std::{env, path::PathBuf, process::ExitCode, time::Duration};

use clap::Args;
use warifu::SpiffeId;
use warifu_agent::{
    config::{local::FileNames, value::Span},
    local::{
        client::{self, ClientError, ENDPOINT_VARIABLE, Endpoint},
        files::Place,
    },
    telemetry::timestamp::Timestamp,
};

use super::Failure;

/// Fetch certificate, key and bundle into files, once
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  warifu svid --write /run/tls\n  warifu svid --write /run/tls --gid 101 --timeout 2m \
                  --socket unix:/run/warifu/workload.sock\n\nWrites svid.pem (0644), svid-key.pem (0600; 0640 with \
                  --gid) and bundle.pem (0644).\nFiles that stay fresh: `local.files` of the agent's configuration."
)]
pub(super) struct SvidArgs {
    /// The directory to write into; it must exist
    #[arg(long, value_name = "DIR")]
    write: PathBuf,
    /// The user who shall own the files, by number
    #[arg(long, value_name = "UID")]
    uid: Option<u32>,
    /// The group they shall belong to, by number; it may read the key
    #[arg(long, value_name = "GID")]
    gid: Option<u32>,
    /// Of a workload with several identities, which one [default: the first]
    #[arg(long, value_name = "ID")]
    spiffe_id: Option<SpiffeId>,
    #[command(flatten)]
    api: Api,
}

/// Print a JWT-SVID, for debugging
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  warifu token --audience payments\n  curl -H \"authorization: Bearer $(warifu token \
                  --audience payments)\" https://payments.internal/charges\n  warifu token --audience ledger \
                  --spiffe-id spiffe://example.org/reports"
)]
pub(super) struct TokenArgs {
    /// Whom it is for
    #[arg(long, value_name = "AUDIENCE")]
    audience: String,
    /// Of a workload with several identities, whose token [default: the first's]
    #[arg(long, value_name = "ID")]
    spiffe_id: Option<SpiffeId>,
    #[command(flatten)]
    api: Api,
}

#[derive(Debug, Args)]
struct Api {
    /// The Workload API: unix:/path or tcp://IP:PORT [default: $SPIFFE_ENDPOINT_SOCKET]
    #[arg(long, value_name = "ADDRESS")]
    socket: Option<Endpoint>,
    /// How long to wait for an agent that starts
    #[arg(long, value_name = "TIME", default_value = "30s")]
    timeout: Span,
}

impl Api {
    fn endpoint(&self, doing: &str) -> Result<Endpoint, Failure> {
        if let Some(socket) = &self.socket {
            return Ok(socket.clone());
        }
        let named = env::var(ENDPOINT_VARIABLE).ok().filter(|it| !it.is_empty());
        let named = named.ok_or_else(|| {
            Failure::usage(doing, "it is not known where the Workload API is").next(format!(
                "give --socket unix:/path, or set {ENDPOINT_VARIABLE}: the listen of local.workload_api"
            ))
        })?;
        named.parse().map_err(|why| {
            Failure::usage(doing, format!("{ENDPOINT_VARIABLE}: {why}"))
                .next("correct the variable, or give --socket")
        })
    }

    /// Runs `ask` to its end.
    fn run<T>(
        &self,
        doing: &str,
        ask: impl AsyncFnOnce(&Endpoint, Duration) -> Result<T, ClientError>,
    ) -> Result<T, Failure> {
        let endpoint = self.endpoint(doing)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|why| Failure::new(doing, why))?;
        let asked = runtime.block_on(ask(&endpoint, self.timeout.0));
        asked.map_err(|why| {
            let next = what_next(&why, self.timeout);
            Failure::new(doing, why).next(next)
        })
    }
}

fn what_next(why: &ClientError, waited: Span) -> String {
    match why {
        ClientError::Connect { .. } => format!(
            "is the agent running, with local.workload_api at this address, and is its directory open to this user? \
             Waited {:?}; --timeout waits longer",
            waited.0
        ),
        ClientError::Refused { .. } => {
            "may this user ask (clients of local.workload_api), and does a rule of the authority grant it? The audit \
             logs of agent and authority say what was refused"
                .to_owned()
        }
        ClientError::Unavailable { .. } => format!(
            "the agent runs; `warifu status` says what it waits for. Waited {:?}; --timeout waits longer",
            waited.0
        ),
        _ => "is what listens there a SPIFFE Workload API?".to_owned(),
    }
}

pub(super) fn write(args: &SvidArgs) -> Result<ExitCode, Failure> {
    let doing = format!("writing an X.509-SVID into {}", args.write.display());
    let place = Place {
        directory: args.write.clone(),
        names: FileNames::default(),
        uid: args.uid,
        gid: args.gid,
    };
    // Before anything is waited for.
    place.check_owner().map_err(|why| {
        Failure::new(
            &doing,
            format!("giving files to the owner that was asked for: {why}"),
        )
        .next("run as that user (and in that group), or as root")
    })?;
    let issued = args.api.run(&doing, async |endpoint, patience| {
        client::fetch_x509(endpoint, args.spiffe_id.as_ref(), patience).await
    })?;
    let failed = |why: warifu_agent::local::files::WriteError| {
        Failure::new(&doing, why).next("the directory must exist, and be writable for this user")
    };
    place.write(&issued.content).map_err(failed)?;
    place.tidy().map_err(failed)?;
    let (dir, until) = (args.write.display(), Timestamp(issued.not_after));
    println!("wrote {} into {dir}, good until {until}", issued.id);
    Ok(ExitCode::SUCCESS)
}

pub(super) fn token(args: &TokenArgs) -> Result<ExitCode, Failure> {
    let doing = format!("fetching a token for {}", args.audience);
    let token = args.api.run(&doing, async |endpoint, patience| {
        let id = args.spiffe_id.as_ref();
        client::fetch_jwt(endpoint, &args.audience, id, patience).await
    })?;
    println!("{}", token.expose());
    Ok(ExitCode::SUCCESS)
}
