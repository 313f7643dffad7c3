//! Envoy on the app's side.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use super::{Keys, REGION, SERVICE};
use crate::{
    Result,
    proxies::{TRUST_DOMAIN, envoy_command},
};

/// `envoy -c` with this configuration.
pub(super) fn command(program: PathBuf, file: &Path, configuration: &str) -> Result<Command> {
    fs::write(file, configuration)?;
    Ok(envoy_command(program, file))
}

/// Signs with fixed keys, hashing the body, and sends on in plain.
pub(super) fn signing(listen: SocketAddr, backend: SocketAddr, keys: &Keys) -> String {
    let filter = format!(
        r#"          - name: envoy.filters.http.aws_request_signing
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.aws_request_signing.v3.AwsRequestSigning
              service_name: {SERVICE}
              region: {REGION}
              credential_provider:
                inline_credential: {{access_key_id: {}, secret_access_key: {}}}
"#,
        keys.id, keys.secret
    );
    configuration(listen, backend, &filter, "")
}

/// Sends on over mTLS, verifying the SPIFFE ID of the other side.
pub(super) fn to_mtls(listen: SocketAddr, upstream: SocketAddr, directory: &Path) -> String {
    let place = directory.display();
    let transport = format!(
        r#"    transport_socket:
      name: envoy.transport_sockets.tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        max_session_keys: 0
        common_tls_context:
          tls_params:
            tls_minimum_protocol_version: TLSv1_3
            tls_maximum_protocol_version: TLSv1_3
            ecdh_curves: [X25519]
          tls_certificates:
          - certificate_chain: {{filename: {place}/server.pem}}
            private_key: {{filename: {place}/server.key}}
          validation_context:
            trusted_ca: {{filename: {place}/root.pem}}
            match_typed_subject_alt_names:
            - san_type: URI
              matcher: {{exact: "spiffe://{TRUST_DOMAIN}/payments"}}
"#
    );
    configuration(listen, upstream, "", &transport)
}

/// Without an access log: Warifu writes none on this side either.
fn configuration(
    listen: SocketAddr,
    upstream: SocketAddr,
    filter: &str,
    transport: &str,
) -> String {
    let (listen_port, upstream_port) = (listen.port(), upstream.port());
    format!(
        r#"node: {{id: bench, cluster: bench}}
static_resources:
  listeners:
  - name: outbound
    address: {{socket_address: {{address: 127.0.0.1, port_value: {listen_port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: outbound
          codec_type: HTTP1
          normalize_path: true
          merge_slashes: true
          http_filters:
{filter}          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
          route_config:
            virtual_hosts:
            - name: payments
              domains: [payments]
              routes:
              - match: {{prefix: /}}
                route: {{cluster: upstream}}
  clusters:
  - name: upstream
    type: STATIC
    connect_timeout: 5s
{transport}    load_assignment:
      cluster_name: upstream
      endpoints:
      - lb_endpoints:
        - endpoint:
            address: {{socket_address: {{address: 127.0.0.1, port_value: {upstream_port}}}}}
"#
    )
}
