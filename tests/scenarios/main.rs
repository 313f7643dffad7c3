//! Scenario tests, one scenario a file. One binary, so that the agent is linked once.

// A test fails by panicking, in its helpers too.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

mod authority_outage;
mod base_credentials;
mod default_deny;
mod drain;
mod every_scenario_runs;
mod exported_svid;
mod file_sizes;
mod first_call;
mod forged_headers;
mod identity_expiry;
mod imports_point_down;
#[cfg(any(feature = "peers-go", feature = "peers-system"))]
mod interop_bad_leaves;
mod interop_envoy;
#[cfg(feature = "peers-go")]
mod interop_go;
#[cfg(feature = "peers-system")]
mod interop_handshake;
mod interop_issued;
mod interop_outbound;
mod join_token_once;
mod path_forms;
mod peers_are_provided;
mod probes;
mod refusals;
mod reserved_identities;
mod rotation_under_load;
mod sigv4_botocore;
mod sigv4_ministack;
