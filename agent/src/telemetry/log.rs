//! The log: what the process does, on standard error (the audit log has standard output).

use std::{fmt, io::IsTerminal, str::FromStr};

use thiserror::Error;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::{LevelFilter, filter_fn},
    fmt::MakeWriter,
    layer::{Layered, SubscriberExt},
    registry::Registry,
    util::SubscriberInitExt,
};

/// Crates whose finer levels are never shown, whatever the filter says: they print headers, keys or
/// tokens (`aws_sigv4` prints the raw headers it signs, the SDK whole answers of STS, hyper and h2
/// header blocks, rustls handshake messages).
const SILENCED: &[(&str, Option<Level>)] = &[
    ("aws_sigv4", None),
    ("aws_", Some(Level::INFO)),
    ("h2", Some(Level::INFO)),
    ("hyper", Some(Level::INFO)),
    ("rustls", Some(Level::INFO)),
];

/// What to log and how.
#[derive(Debug, Clone, Default)]
pub struct LogOptions {
    /// A level (`info` where absent) or filter directives (`warifu_agent::inbound=debug,hyper=info`).
    pub filter: Option<String>,
    /// Text on a terminal and JSON otherwise, where absent.
    pub format: Option<LogFormat>,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Why logging could not be set up.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LogError {
    /// The filter is not one.
    #[error(
        "the log filter {filter:?} is not valid: {why}; expected a level (error, warn, info, debug, \
         trace) or directives such as \"info,warifu_agent::inbound=debug\""
    )]
    Filter {
        /// As given.
        filter: String,
        /// What is wrong with it.
        why: String,
    },
    /// There is a logger already.
    #[error("the log was set up twice: {0}")]
    Twice(String),
}

/// Sets up logging for the whole process.
///
/// # Errors
/// When the filter is malformed, or logging was set up before.
pub fn init(options: &LogOptions) -> Result<(), LogError> {
    let terminal = std::io::stderr().is_terminal();
    let format = options.format.unwrap_or(match terminal {
        true => LogFormat::Text,
        false => LogFormat::Json,
    });
    let filter = options.filter.as_deref().unwrap_or("info");
    let set = match format {
        LogFormat::Text => text(filter, terminal, std::io::stderr)?.try_init(),
        LogFormat::Json => json(filter, std::io::stderr)?.try_init(),
    };
    set.map_err(|error| LogError::Twice(error.to_string()))
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(format!("expected text or json, not {text:?}")),
        }
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

fn text<W>(filter: &str, ansi: bool, writer: W) -> Result<impl Subscriber + Send + Sync, LogError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(ansi)
        .with_target(false)
        .with_writer(writer);
    Ok(filtered(filter)?.with(lines.with_filter(filter_fn(printable))))
}

fn json<W>(filter: &str, writer: W) -> Result<impl Subscriber + Send + Sync, LogError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_current_span(true)
        .with_span_list(false)
        .with_writer(writer);
    Ok(filtered(filter)?.with(lines.with_filter(filter_fn(printable))))
}

fn filtered(filter: &str) -> Result<Layered<EnvFilter, Registry>, LogError> {
    // A bare level speaks of this program; libraries stay at warnings.
    let directives = match Level::from_str(filter) {
        Ok(level) => format!("warn,warifu={level}"),
        Err(_) => filter.to_owned(),
    };
    let wrong = |why: String| LogError::Filter {
        filter: filter.to_owned(),
        why,
    };
    // To the library a bare word is a target, so a misspelt level would silence everything.
    let is_bare = |word: &str| !word.contains(['=', '[']) && LevelFilter::from_str(word).is_err();
    if let Some(word) = directives.split(',').find(|word| is_bare(word.trim())) {
        return Err(wrong(format!("{word:?} is no level")));
    }
    let parsed = EnvFilter::try_new(&directives).map_err(|error| wrong(error.to_string()))?;
    Ok(tracing_subscriber::registry().with(parsed))
}

/// Whether an event may be printed at all (S12).
fn printable(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    SILENCED
        .iter()
        .find(|(prefix, _)| target.starts_with(prefix))
        .is_none_or(|(_, finest)| finest.is_some_and(|finest| *metadata.level() <= finest))
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Lines {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    #[test]
    fn s12_libraries_that_print_secrets_stay_silent_even_at_trace() {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = json("trace,aws_sigv4=trace", move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            tracing::error!(target: "aws_sigv4::http_request::sign", "hunter2");
            tracing::trace!(target: "aws_smithy_runtime::client", "hunter2");
            tracing::debug!(target: "hyper::proto::h1", "hunter2");
            tracing::trace!(target: "rustls::msgs", "hunter2");
            tracing::trace!(target: "warifu_agent::inbound", "shown");
            tracing::warn!(target: "hyper::proto::h1", "shown too");
        });
        let text = lines.text();
        assert!(!text.contains("hunter2"), "{text}");
        assert!(
            text.contains("\"shown\"") && text.contains("\"shown too\""),
            "{text}"
        );
    }

    #[test]
    fn a_bare_level_is_about_this_program() {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = text("debug", false, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            tracing::debug!(target: "warifu_agent::inbound", "ours");
            tracing::info!(target: "some_library", "theirs");
        });
        let text = lines.text();
        assert!(text.contains("ours") && !text.contains("theirs"), "{text}");
    }

    #[test]
    fn a_wrong_filter_is_an_error_that_says_what_was_expected() {
        for wrong in ["warifu=loud", "loud", "info,debgu", "warifu_agent::inbound"] {
            let error = json(wrong, Lines::default).err().unwrap();
            assert!(error.to_string().contains("expected a level"), "{error}");
        }
        for right in [
            "info",
            "OFF",
            "warn,warifu=debug",
            "info,hyper=debug,[span]=trace",
        ] {
            assert!(json(right, Lines::default).is_ok(), "{right}");
        }
    }
}
