//! Every default, with its reason.

use std::time::Duration;

/// How long a drain waits for requests under way: below Kubernetes' 30 s grace period, with room to exit.
pub const DRAIN: Duration = Duration::from_secs(25);

/// Time a TLS handshake may take: a slow peer on a bad link needs about two round trips; a stuck one must not hold a slot.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections accepted at once on a listener, handshakes included. At about 20 KiB each this bounds memory at some 200 MiB.
pub const MAX_CONNECTIONS: usize = 10_000;

/// Time to connect to an upstream.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Time from a request's last byte to the response's first. Above the 29 s of API Gateway, below the 60 s idle time-out of an ALB.
pub const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(30);
