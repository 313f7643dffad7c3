//! The trusted daemon beside a service: attests, issues, signs, decides and proxies.
//!
//! Imports point down only (a test holds them to it):
//! `main → demo → app → {inbound, outbound, local, authority, admin} → {identity, token} → secrets → {attest, aws, policy}
//! → {http, revocation} → {config, telemetry} → client-lib`.

pub mod admin;
pub mod app;
pub mod attest;
pub mod authority;
pub mod aws;
pub mod config;
pub mod demo;
pub mod http;
pub mod identity;
pub mod inbound;
pub mod local;
pub mod outbound;
pub mod policy;
pub mod revocation;
pub mod secrets;
pub mod telemetry;
pub mod token;
