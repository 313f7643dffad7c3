//! Scenario tests, one scenario a file. One binary, so that the agent is linked once.

mod base_credentials;
mod file_sizes;
mod imports_point_down;
mod peers_are_provided;
mod sigv4_botocore;
mod sigv4_ministack;
