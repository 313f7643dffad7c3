//! Scenario tests, one scenario a file. One binary, so that the agent is linked once.

mod authority_outage;
mod default_deny;
mod drain;
mod exported_svid;
mod file_sizes;
mod first_call;
mod forged_headers;
mod identity_expiry;
mod imports_point_down;
mod join_token_once;
mod path_forms;
mod peers_are_provided;
mod probes;
mod refusals;
mod reserved_identities;
mod rotation_under_load;
