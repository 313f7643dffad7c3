//! The messages and services of gRPC, generated from `agent/proto` (`tests/scenarios/generated_code.rs` says how).

#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    reason = "generated"
)]
#[rustfmt::skip]
#[path = "proto/_.rs"]
pub(super) mod workload;

/// What server reflection tells.
pub(super) const DESCRIPTORS: &[u8] = include_bytes!("proto/descriptors.bin");
