//! Removing what must not pass a hop, and what the network may not say about identity.
