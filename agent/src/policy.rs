//! Pure: (caller, request) → decision and reason. Default deny (S16).

use warifu::Caller;

/// What is asked, in the form that will be forwarded.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The method.
    pub method: &'a http::Method,
    /// The path in normal form ([`crate::http::path`]).
    pub path: &'a str,
}

/// What was decided, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Allowed by the rule with this index (order of the file, from 0).
    Allow(usize),
    /// No rule allows it.
    Deny(Reason),
}

/// Why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Reason {
    NoRuleForCaller,
    NoRuleForRequest,
}

/// Compiled rules.
#[derive(Debug)]
pub struct Policy {}

impl Policy {
    /// Compiles the `allow` rules of a listener.
    pub fn new(rules: &[crate::config::agent::Allow]) -> Self {
        let _ = rules;
        unimplemented!("policy")
    }

    /// Decides.
    pub fn decide(&self, caller: &Caller, request: Request<'_>) -> Decision {
        let _ = (caller, request);
        unimplemented!("policy")
    }
}
