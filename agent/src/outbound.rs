//! route, attach, send, retry.
