//! The messages and services of gRPC, generated from `agent/proto` (`tests/scenarios/generated_code.rs` says how).

#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    reason = "generated"
)]
#[rustfmt::skip]
#[path = "generated/_.rs"]
pub(super) mod workload;

/// The packages as their names have them: the generated code refers to one another so.
#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    reason = "generated"
)]
#[rustfmt::skip]
pub(super) mod envoy {
    pub mod config {
        pub mod core {
            pub mod v3 {
                include!("generated/envoy.config.core.v3.rs");
            }
        }
    }
    pub mod extensions {
        pub mod transport_sockets {
            pub mod tls {
                pub mod v3 {
                    include!("generated/envoy.extensions.transport_sockets.tls.v3.rs");
                }
            }
        }
    }
    pub mod service {
        pub mod discovery {
            pub mod v3 {
                include!("generated/envoy.service.discovery.v3.rs");
            }
        }
        pub mod secret {
            pub mod v3 {
                include!("generated/envoy.service.secret.v3.rs");
            }
        }
    }
}

/// See `envoy`.
#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated")]
#[rustfmt::skip]
pub(super) mod google {
    pub mod rpc {
        include!("generated/google.rpc.rs");
    }
}

/// What server reflection tells.
pub(super) const DESCRIPTORS: &[u8] = include_bytes!("generated/descriptors.bin");
