//! The normal form of a path: what is matched is what is forwarded (S11).
