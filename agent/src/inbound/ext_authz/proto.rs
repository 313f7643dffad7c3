//! Envoy's messages, generated from `agent/proto` (`tests/scenarios/generated_code.rs` says how).

#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    reason = "generated"
)]
#[rustfmt::skip]
mod envoy {
    pub mod config {
        pub mod core {
            pub mod v3 {
                include!("generated/envoy.config.core.v3.rs");
            }
        }
    }
    pub mod r#type {
        pub mod v3 {
            include!("generated/envoy.r#type.v3.rs");
        }
    }
    pub mod service {
        pub mod auth {
            pub mod v3 {
                include!("generated/envoy.service.auth.v3.rs");
            }
        }
    }
}

/// See `envoy`.
#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated")]
#[rustfmt::skip]
mod google {
    pub mod rpc {
        include!("generated/google.rpc.rs");
    }
}

pub(super) use envoy::{
    config::core::v3 as core, service::auth::v3 as service, r#type::v3::HttpStatus,
};
pub(super) use google::rpc::Status;
