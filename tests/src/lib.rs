//! The harness: brings up authorities, agents, apps and peers on free loopback ports, and ends them.

pub mod peers;
