//! `warifu demo`: the whole of it on one machine, in half a minute, each claim checked as it is made.

use std::{fmt, path::PathBuf, time::Duration};

use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};

mod aws;
mod load;
mod mesh;
mod narrate;
mod raw;
mod services;
mod steps;

use mesh::Mesh;
use narrate::Narrator;

/// What the demo is asked to do.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// An AWS endpoint for the AWS leg; left out without one.
    pub aws_endpoint: Option<String>,
    /// Leave everything running at the end, until Ctrl-C.
    pub keep: bool,
}

/// The demo did not do what it said.
#[derive(Debug, Error)]
#[error("the demo stopped at step {step}: {why}")]
pub struct DemoError {
    step: usize,
    why: String,
}

/// Runs the demo, which tells its story on standard output.
///
/// # Errors
/// The first step that did not do what it says. Everything started is ended all the same.
pub fn run(options: &Options) -> Result<(), DemoError> {
    let failed = |why: String| DemoError { step: 0, why };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| failed(format!("starting the runtime: {error}")))?;
    let dir = Scratch::new().map_err(|error| failed(format!("making a directory: {error}")))?;
    runtime.block_on(async {
        let mut story = steps::Story::new(Narrator::new());
        let progress = story.progress();
        let mut told = std::pin::pin!(story.tell(&dir.0, options));
        // One for the whole story: one made for a wait does not see what came before it.
        let mut interrupts = signal(SignalKind::interrupt())
            .map_err(|error| failed(format!("listening for Ctrl-C: {error}")))?;
        loop {
            let stopped = |why: String| DemoError {
                step: progress.step(),
                why,
            };
            tokio::select! {
                told = &mut told => return told.map_err(|why| stopped(why.0)),
                _ = interrupts.recv() => {
                    if !progress.is_complete() {
                        return Err(stopped("interrupted".to_owned()));
                    }
                    // After the last step it is how `--keep` ends.
                    progress.interrupt();
                }
            }
        }
    })
}

/// Why a step failed. Any error becomes one: the demo's reader needs the sentence, not the type.
#[derive(Debug)]
struct Failed(String);

impl Failed {
    fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

impl<E: std::error::Error> From<E> for Failed {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

/// Fails unless `held`.
fn ensure(held: bool, otherwise: impl fmt::Display) -> Result<(), Failed> {
    if held {
        Ok(())
    } else {
        Err(Failed(otherwise.to_string()))
    }
}

/// A directory of this user's that goes when the demo ends.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> std::io::Result<Self> {
        Self::new_named("demo")
    }

    fn new_named(what: &str) -> std::io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        // Short, because a unix socket's path may have 107 bytes and no more.
        let name = format!("warifu-{what}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// How long a single exchange of the demo may take.
const EXCHANGE: Duration = Duration::from_secs(10);
