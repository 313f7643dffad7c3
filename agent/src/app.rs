//! builds everything from a configuration, and returns the bound addresses.
