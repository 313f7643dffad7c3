//! The AWS leg: an account, a workload's agent with base credentials in its environment, and what is
//! between it and the service.
//!
//! ```text
//!  test ──▶ Agent (warifu agent) ──▶ Wire ──▶ ministack      Wire: shows what was sent, changes it if told
//!                └──── AssumeRole ──▶ ministack, or a scripted Sts
//! ```

mod account;
mod agent;
mod endpoints;
mod private_ca;
mod replicas;
pub(crate) mod signature;
mod sts;
mod token_api;
mod web_identity;
mod wire;

pub use self::{
    account::{API_ACTION, Account},
    agent::{Agent, Answer, Keys, Workload},
    endpoints::{Endpoints, Source},
    private_ca::{PrivateCa, PrivateCaMood},
    replicas::{Balancer, Cluster, Replica, Rival},
    sts::{Mood, Sts},
    token_api::TokenApi,
    web_identity::{
        AWS_CLAIMS, Principal, REGION, Session, StsMood, WebIdentitySts, web_identity_claims,
    },
    wire::Wire,
};
