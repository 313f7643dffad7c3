//! live, ready, metrics, status, drain.
