//! Call a service by name through the agent.

/// Sends requests to the agent's outbound listener.
#[derive(Debug, Clone)]
pub struct Client {}
