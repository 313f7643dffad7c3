//! The real binary in processes of its own: exit codes, signals, what is written where.
//!
//! ```ignore
//! let sandbox = Sandbox::new();
//! let authority = sandbox.authority("").await;
//! let orders = sandbox.agent("orders", &authority, "").start();
//! orders.wait_for("ready");
//! orders.signal(Signal::TERM);
//! assert_eq!(orders.ended().code, Some(0));
//! ```
//!
//! Everything is in a temporary directory, which is also the working directory and the home, and in an
//! environment with nothing of ours in it. Processes are killed with their handles.

mod binary;
mod clock;
pub mod frames;
mod plain_app;
mod raw_app;
mod running;
mod sandbox;
mod talk;

pub use self::{
    binary::warifu as warifu_binary,
    plain_app::PlainApp,
    raw_app::RawApp,
    running::{DEADLINE, Finished, Running},
    sandbox::{AgentProcess, AuthorityProcess, Command, Content, Sandbox, TRUST_DOMAIN},
    talk::{Answer, Talk, ask},
};
pub use rustix::process::Signal;
