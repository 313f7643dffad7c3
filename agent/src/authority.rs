//! CA, issue, attestors, rules, bundle, state, serve.
