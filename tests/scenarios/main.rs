//! Scenario tests, one scenario a file. One binary, so that the agent is linked once.

// A test fails by panicking, in its helpers too.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

mod addresses_in_use;
mod administration;
mod app_down_or_slow;
mod app_port;
mod attest_again;
mod attest_caller_identity;
mod attest_kubernetes;
mod attest_oidc;
mod attest_token_files;
mod attest_web_identity;
mod authority_outage;
mod aws_credentials_clients;
mod aws_credentials_guarded;
mod aws_credentials_outage;
mod aws_credentials_refused;
mod aws_out_of_reach;
mod aws_roles;
mod aws_roles_strict;
mod aws_sts_trouble;
mod base_credentials;
mod calls_with_a_role;
mod client_certificate_headers;
mod clock_off;
mod default_deny;
mod demo;
mod drain;
mod every_scenario_runs;
mod exported_svid;
mod ext_authz_envoy;
mod federation;
mod file_sizes;
#[cfg(feature = "peers-system")]
mod files_nginx;
#[cfg(feature = "peers-system")]
mod files_postgresql;
mod files_trouble;
mod first_call;
mod forged_headers;
mod fuzz_seeds;
mod garbage_is_survived;
mod generated_code;
mod grpc_streams;
mod h2_abuse;
mod identity_expiry;
mod imports_point_down;
mod inbound_alb;
#[cfg(any(feature = "peers-go", feature = "peers-system"))]
mod inbound_cognito;
mod inbound_issuers;
mod inbound_outside;
mod inbound_secret_header;
mod inbound_secrets_rotated;
mod inbound_web_identity;
mod interop_bad_leaves;
mod interop_envoy;
#[cfg(feature = "peers-go")]
mod interop_go;
#[cfg(feature = "peers-system")]
mod interop_handshake;
mod interop_issued;
#[cfg(feature = "peers-system")]
mod interop_nginx;
mod interop_outbound;
mod interop_published;
mod join_token_once;
mod join_tokens_refused;
mod jose_differential;
mod jose_libraries;
mod keys_in_kms;
mod local_sockets_trouble;
mod not_the_authority;
mod oauth_clients;
mod oauth_clients_live_on;
mod oauth_outages;
mod oauth_refusals;
#[cfg(feature = "peers-system")]
mod opaque_postgresql;
#[cfg(feature = "peers-system")]
mod opaque_proxies;
mod outage_of_forty_minutes;
mod outbound_access_token;
mod outbound_aws_web_identity;
mod outbound_cognito;
mod outbound_oauth_clients;
mod outbound_oauth_cognito;
mod outbound_oauth_outages;
mod outbound_secret_header;
mod outbound_secrets_rotated;
mod outbound_sigv4_large;
mod outbound_sigv4_plaintext;
mod outbound_sigv4_refused_roles;
mod outbound_sigv4_requests;
mod outbound_sigv4_roles;
mod outbound_sigv4_s3;
mod outbound_sigv4_sdks;
mod outbound_sigv4_sts_outage;
mod outbound_sigv4_tampering;
mod path_forms;
mod peers_are_provided;
mod policy_commands;
mod policy_reload;
mod private_ca;
mod probes;
mod readme_is_true;
mod refusals;
mod refused_for_now;
mod rego;
mod reload_under_load;
mod replica_killed_under_load;
mod replicas_share_state;
mod reserved_identities;
mod revocation;
mod rolling_restart;
mod rotation_under_load;
mod rules_refused;
mod sds_envoy;
mod sds_federation;
mod sds_refused;
mod sds_rotation;
mod sds_start_order;
mod secrets_stay_secret;
#[cfg(feature = "peers-go")]
mod several_identities;
mod signals;
mod signed_context_in_python;
mod sigv4_botocore;
mod sigv4_ministack;
mod state_stores;
mod sts_in_trouble;
mod svid_command;
mod unusable_keys;
mod websockets;
#[cfg_attr(
    not(any(feature = "peers-go", feature = "peers-java")),
    allow(
        dead_code,
        reason = "some of it is for clients that only these features have"
    )
)]
mod workload_api_clients;
mod workload_api_federation;
#[cfg(feature = "peers-go")]
mod workload_api_go;
#[cfg(feature = "peers-java")]
mod workload_api_java;
mod workload_api_python;
mod workload_api_rust;
mod wrong_yaml;
