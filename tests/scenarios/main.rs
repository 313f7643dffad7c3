//! Scenario tests, one scenario a file. One binary, so that the agent is linked once.

// A test fails by panicking, in its helpers too.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

mod base_credentials;
mod file_sizes;
mod first_call;
mod imports_point_down;
mod peers_are_provided;
mod sigv4_botocore;
mod sigv4_ministack;
