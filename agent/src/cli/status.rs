//! `warifu status`.

use std::{fmt::Write, process::ExitCode};

use clap::Args;
use serde_json::Value;
use warifu_agent::config::{self, value::Listen};

use super::{Failure, Where, client};

/// Show what a running agent holds: identities, expiry, routes, last errors
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  warifu status --config /etc/warifu/agent.yaml\n  warifu status --socket \
                        unix:/run/warifu/admin.sock --json"
)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    place: Where,
    /// As JSON, for programs
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &StatusArgs) -> Result<ExitCode, Failure> {
    let listen = listen(&args.place)?;
    let doing = format!("asking {listen} for its status");
    let (status, body) = client::get(&listen, "/status").map_err(|why| {
        Failure::new(&doing, why)
            .next("is the agent running, and may this user open its admin socket (it is 0600)?")
    })?;
    if !status.is_success() {
        return Err(
            Failure::new(&doing, format!("it answered {status}: {}", body.trim_end()))
                .next("ask the address of admin.listen; probes don't tell the status"),
        );
    }
    if args.json {
        print!("{body}");
        return Ok(ExitCode::SUCCESS);
    }
    let value: Value = serde_json::from_str(&body)
        .map_err(|error| Failure::new(&doing, format!("the answer is not JSON: {error}")))?;
    print!("{}", plain(&value));
    Ok(ExitCode::SUCCESS)
}

fn listen(place: &Where) -> Result<Listen, Failure> {
    if let Some(socket) = &place.socket {
        return Ok(socket.clone());
    }
    let path = place
        .config
        .as_deref()
        .ok_or_else(|| Failure::usage("asking for the status", "no address was given"))?;
    config::load_agent(path)?.admin.listen.ok_or_else(|| {
        let doing = format!("looking for the admin socket in {}", path.display());
        Failure::usage(&doing, "none is configured")
            .next("set admin.listen, such as unix:/run/warifu/admin.sock, and restart the agent")
    })
}

/// Any JSON as indented `key: value` lines, in the order of its keys.
fn plain(value: &Value) -> String {
    let mut out = String::new();
    write_value(&mut out, value, 0);
    out
}

fn write_value(out: &mut String, value: &Value, depth: usize) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(entries) => {
            for (key, value) in entries {
                match scalar(value) {
                    Some(text) => {
                        let _ = writeln!(out, "{indent}{key}: {text}");
                    }
                    None => {
                        let _ = writeln!(out, "{indent}{key}:");
                        write_value(out, value, depth + 1);
                    }
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                match scalar(item) {
                    Some(text) => {
                        let _ = writeln!(out, "{indent}- {text}");
                    }
                    None => {
                        let mut block = String::new();
                        write_value(&mut block, item, depth + 1);
                        // The first line of the block carries the dash.
                        let block =
                            block.replacen(&format!("{indent}  "), &format!("{indent}- "), 1);
                        out.push_str(&block);
                    }
                }
            }
        }
        _ => {
            let _ = writeln!(out, "{indent}{}", scalar(value).unwrap_or_default());
        }
    }
}

/// What fits on its key's line. Control characters are escaped: the terminal is not the agent's to steer.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::Null => Some("-".to_owned()),
        Value::Bool(true) => Some("yes".to_owned()),
        Value::Bool(false) => Some("no".to_owned()),
        Value::Number(number) => Some(number.to_string()),
        Value::String(text) if text.chars().any(char::is_control) => Some(format!("{text:?}")),
        Value::String(text) => Some(text.clone()),
        Value::Array(items) if items.is_empty() => Some("none".to_owned()),
        Value::Object(entries) if entries.is_empty() => Some("none".to_owned()),
        Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn status_reads_as_indented_lines() {
        let status = json!({
            "identity": {"generation": 3, "spiffe_id": "spiffe://example.org/orders"},
            "missing": {},
            "ready": true,
            "routes": [{"host": "payments", "last_error": null}, {"host": "x\u{1b}[2J"}],
        });
        assert_eq!(
            plain(&status),
            "identity:
  generation: 3
  spiffe_id: spiffe://example.org/orders
missing: none
ready: yes
routes:
  - host: payments
    last_error: -
  - host: \"x\\u{1b}[2J\"
"
        );
    }
}
