//! The harness: brings up authorities, agents, apps and peers on free loopback ports, and ends them.

#[allow(
    clippy::unwrap_used,
    reason = "what the harness cannot do fails the test that asked for it"
)]
pub mod alb;
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what the harness cannot do fails the test that asked for it"
)]
pub mod aws;
#[allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a claim that does not hold is a panic: that is what the fuzzer looks for"
)]
pub mod fuzz;
#[allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what the harness cannot do fails the test that asked for it"
)]
pub mod jose;
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what the harness cannot do fails the test that asked for it"
)]
pub mod kubernetes;
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what the harness cannot do fails the test that asked for it"
)]
pub mod listener;
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what the harness cannot do fails the test that asked for it"
)]
pub mod mesh;
mod metrics;
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what the harness cannot do fails the test that asked for it"
)]
pub mod oauth;
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what the harness cannot do fails the test that asked for it"
)]
pub mod oauth_provider;
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what the harness cannot do fails the test that asked for it"
)]
pub mod oidc;
pub mod peers;
#[allow(
    clippy::expect_used,
    clippy::panic,
    reason = "what the harness cannot do fails the test that asked for it"
)]
pub mod ports;
#[allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what the harness cannot do fails the test that asked for it"
)]
pub mod process;
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what the harness cannot do fails the test that asked for it"
)]
pub mod upstreams;
