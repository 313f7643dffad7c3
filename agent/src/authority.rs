//! CA, issue, attestors, rules, bundle, state, serve.

mod ca;
mod keys;
mod rotation;
pub mod rules;
pub mod state;
