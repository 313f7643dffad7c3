//! CA, issue, attestors, rules, bundle, state, serve.

pub mod rules;
pub mod state;
