//! The YAML files as types. A value that parsed is valid; nothing downstream checks it again.
//! Defaults are the named constants of [`defaults`], each with its reason.

pub mod agent;
pub mod authority;
pub mod defaults;
pub mod private;
pub mod value;

pub use agent::AgentConfig;
pub use authority::AuthorityConfig;
