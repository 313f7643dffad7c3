//! Proxy mechanics with no idea of identity: server, client pool, headers, paths, limits.

pub mod answer;
pub mod body;
pub mod headers;
pub mod path;
pub mod pool;
pub mod server;
