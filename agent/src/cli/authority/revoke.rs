//! `warifu authority revoke`.

use std::time::{Duration, SystemTime};

use clap::{ArgGroup, Args};
use warifu_agent::{
    authority::{Change, Changed, Entry, Revocations, admin::Act},
    config::value::Span,
    revocation::Kind,
    telemetry::timestamp::Timestamp,
};

use super::{Failure, Place};

/// Revoke credentials before they expire, take that back, or list what is revoked
#[derive(Debug, Args)]
#[command(
    group(ArgGroup::new("what").required(true)
        .args(["lineage", "spiffe_id", "role", "issuer_key", "token_id", "list"])),
    after_help = "Examples:\n  warifu authority revoke --config /etc/warifu/authority.yaml --lineage dGhpcy1pcy1ub3QtaXQ \
                  --reason \"node i-0abc lost, INC-7\"\n  warifu authority revoke --config /etc/warifu/authority.yaml \
                  --spiffe-id spiffe://example.org/orders --for 2h\n  warifu authority revoke --config \
                  /etc/warifu/authority.yaml --spiffe-id spiffe://example.org/orders --undo\n  warifu authority revoke \
                  --config /etc/warifu/authority.yaml --list\n  \
                  warifu authority revoke --url https://authority.example:8443 --trust-domain example.org \
                  --root-pin 9f86…0a08 --attestation aws-web-identity --role 123456789012:role/batch"
)]
pub(super) struct RevokeArgs {
    #[command(flatten)]
    place: Place,
    /// Everything that goes back to one attestation: `lineage` of the audit log
    #[arg(long, value_name = "LINEAGE", allow_hyphen_values = true)]
    lineage: Option<String>,
    /// Everything with this SPIFFE ID
    #[arg(long, value_name = "ID")]
    spiffe_id: Option<String>,
    /// Everything this AWS role attested: ACCOUNT:role/NAME
    #[arg(long, value_name = "ROLE")]
    role: Option<String>,
    /// Everything signed by a key: SHA-256 of a CA certificate's public key (hex), or a token key's `kid`
    #[arg(long, value_name = "KEY", allow_hyphen_values = true)]
    issuer_key: Option<String>,
    /// One token: its `jti`
    #[arg(long, value_name = "JTI", allow_hyphen_values = true)]
    token_id: Option<String>,
    /// List what is revoked
    #[arg(long, conflicts_with_all = ["reason", "for_", "undo"])]
    list: bool,
    /// Why, for whoever reads the list
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// For how long [default: until nothing that is revoked can be alive]
    #[arg(long = "for", id = "for_", value_name = "SPAN")]
    for_: Option<Span>,
    /// Take it back
    #[arg(long, conflicts_with_all = ["reason", "for_"])]
    undo: bool,
}

pub(super) fn run(args: &RevokeArgs) -> Result<(), Failure> {
    let Some(change) = args.change() else {
        let found: Revocations = args.place.ask(&Act::Revocations)?;
        println!("list {}, as of {}", found.number, time(found.as_of));
        found
            .entries
            .iter()
            .for_each(|entry| println!("{}", line(entry)));
        return Ok(());
    };
    let changed: Changed = args.place.ask(&Act::Revoke(change.clone()))?;
    let done = if change.undo { "taken back" } else { "revoked" };
    println!("{done}: {} (list {})", line(&changed.entry), changed.number);
    if let Some(warning) = changed.warning {
        eprintln!("warning: {warning}");
    }
    Ok(())
}

impl RevokeArgs {
    /// `None` where the list is asked for.
    fn change(&self) -> Option<Change> {
        let (kind, value) = [
            (Kind::Lineage, &self.lineage),
            (Kind::SpiffeId, &self.spiffe_id),
            (Kind::Role, &self.role),
            (Kind::IssuerKey, &self.issuer_key),
            (Kind::TokenId, &self.token_id),
        ]
        .into_iter()
        .find_map(|(kind, value)| Some((kind, value.clone()?)))?;
        Some(Change {
            kind,
            value,
            reason: self.reason.clone(),
            // A part of a second is one.
            seconds: self
                .for_
                .map(|span| span.0.as_millis().div_ceil(1000))
                .map(|seconds| u64::try_from(seconds).unwrap_or(u64::MAX)),
            undo: self.undo,
        })
    }
}

fn line(entry: &Entry) -> String {
    let until = match entry.until {
        Some(until) => format!("until {}", time(until)),
        None => "until taken back".to_owned(),
    };
    let reason = entry.reason.as_deref().map(|reason| format!(": {reason}"));
    let (kind, value) = (entry.kind, &entry.value);
    let since = time(entry.revoked_at);
    format!(
        "{kind} {value} since {since} {until}{}",
        reason.unwrap_or_default()
    )
}

fn time(unix: u64) -> Timestamp {
    let since = Duration::from_secs(unix);
    Timestamp(
        SystemTime::UNIX_EPOCH
            .checked_add(since)
            .unwrap_or(SystemTime::UNIX_EPOCH),
    )
}
