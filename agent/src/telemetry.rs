//! Logs, audit, metrics, readiness. Each part registers its own metrics in one
//! `prometheus_client::registry::Registry` (prefix `warifu`).

pub mod audit;
pub mod emf;
pub mod log;
pub mod metrics;
pub mod ready;
pub mod timestamp;
