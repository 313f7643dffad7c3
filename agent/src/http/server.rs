//! Accepting connections: limits, handshake, HTTP/1.1 and HTTP/2, drain.
