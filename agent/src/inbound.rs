//! accept, authenticate, authorise, forward.
