//! Mechanics of HTTP with no idea of identity: server, client pool, headers, paths, limits, documents.

pub mod answer;
pub mod body;
pub mod fetch;
pub mod grpc;
pub mod headers;
pub mod origin;
pub mod path;
pub mod patience;
pub mod pool;
pub mod proxy_protocol;
pub mod server;
pub mod still;
pub mod tls_files;
pub mod tunnel;
pub mod upgrade;
