//! Evidence an agent presents, and the words agent and authority speak ([`wire`]).
//!
//! [`Client`] is the agent's side of the issuing API. Every request that asks for something is
//! signed with the renewal key over a transcript ([`proof`]) which both sides compute.

mod anchors;
mod client;
mod connection;
mod error;
pub mod proof;
mod skew;
pub mod wire;

pub use anchors::AnchorError;
pub use client::{
    AccessToken, AccessTokenKeys, Client, Credentials, FurtherChain, MakeEvidence, MintedJwt,
    bearer,
};
pub use error::ClientError;
pub use skew::Skew;
