//! Envoy 1.40, as the scenario tests have it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::{Place, Start, TRUST_DOMAIN};
use crate::{
    Result,
    tokens::{AUDIENCE, ISSUER, SCOPE, Tokens},
};

/// `envoy -c` with one worker.
pub(super) fn start(place: Place<'_>) -> Result<Start> {
    let log = Some(place.directory.join("access.log"));
    let file = place.directory.join("envoy.yaml");
    fs::write(&file, configuration(&place))?;
    let command = command(place.program, &file);
    Ok(Start { command, log })
}

/// With one worker.
pub(crate) fn command(program: PathBuf, file: &Path) -> Command {
    let mut command = Command::new(program);
    command.arg("-c").arg(file).args([
        "--concurrency",
        "1",
        "--disable-hot-restart",
        "--log-level",
        "warn",
    ]);
    command
}

/// Beside the work all proxies do, only what Envoy's own guide to edge use asks of one that
/// authorises by path: normalise it, merge slashes, refuse underscores.
fn configuration(place: &Place<'_>) -> String {
    let Place {
        directory,
        listen,
        backend,
        ..
    } = place;
    let directory = directory.display();
    let (listen_port, backend_port) = (listen.port(), backend.port());
    let (jwt_authn, by_scope) = match place.tokens {
        Some(tokens) => (jwt_authn(tokens), by_scope()),
        None => Default::default(),
    };
    format!(
        r#"node: {{id: bench, cluster: bench}}
static_resources:
  listeners:
  - name: inbound
    address: {{socket_address: {{address: 127.0.0.1, port_value: {listen_port}}}}}
    filter_chains:
    - transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          require_client_certificate: true
          disable_stateless_session_resumption: true
          disable_stateful_session_resumption: true
          common_tls_context:
            alpn_protocols: [http/1.1]
            tls_params:
              tls_minimum_protocol_version: TLSv1_3
              tls_maximum_protocol_version: TLSv1_3
              ecdh_curves: [X25519]
            tls_certificates:
            - certificate_chain: {{filename: {directory}/server.pem}}
              private_key: {{filename: {directory}/server.key}}
            validation_context:
              trusted_ca: {{filename: {directory}/root.pem}}
              match_typed_subject_alt_names:
              - san_type: URI
                matcher: {{prefix: "spiffe://{TRUST_DOMAIN}/"}}
      filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: inbound
          codec_type: HTTP1
          forward_client_cert_details: SANITIZE_SET
          set_current_client_cert_details: {{uri: true}}
          normalize_path: true
          merge_slashes: true
          common_http_protocol_options: {{headers_with_underscores_action: REJECT_REQUEST}}
          access_log:
          - name: envoy.access_loggers.file
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
              path: {directory}/access.log
              log_format:
                json_format:
                  time: "%START_TIME%"
                  method: "%REQ(:METHOD)%"
                  path: "%REQ(:PATH)%"
                  status: "%RESPONSE_CODE%"
                  millis: "%DURATION%"
                  peer: "%DOWNSTREAM_PEER_URI_SAN%"
                  source: "%DOWNSTREAM_REMOTE_ADDRESS%"
                  bytes: "%BYTES_SENT%"
          http_filters:{jwt_authn}
          - name: envoy.filters.http.rbac
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC
              rules:
                action: ALLOW
                policies:
                  orders:
                    principals:
                    - and_ids:
                        ids:
                        - authenticated: {{principal_name: {{exact: "spiffe://{TRUST_DOMAIN}/orders"}}}}{by_scope}
                    permissions:
                    - and_rules:
                        rules:
                        - header: {{name: ":method", string_match: {{exact: GET}}}}
                        - url_path: {{path: {{prefix: /bench/}}}}
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
          route_config:
            virtual_hosts:
            - name: app
              domains: ["*"]
              routes:
              - match: {{prefix: /}}
                route: {{cluster: app}}
  clusters:
  - name: app
    type: STATIC
    connect_timeout: 5s
    load_assignment:
      cluster_name: app
      endpoints:
      - lb_endpoints:
        - endpoint:
            address: {{socket_address: {{address: 127.0.0.1, port_value: {backend_port}}}}}
"#
    )
}

/// Verified tokens are remembered, all of them; what they say is for the rules, and for the app.
fn jwt_authn(tokens: &Tokens) -> String {
    let jwks = tokens.jwks();
    format!(
        r#"
          - name: envoy.filters.http.jwt_authn
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication
              providers:
                bench:
                  issuer: {ISSUER}
                  audiences: [{AUDIENCE}]
                  local_jwks: {{inline_string: '{jwks}'}}
                  forward_payload_header: x-token
                  payload_in_metadata: token
                  jwt_cache_config: {{jwt_cache_size: 4096}}
              rules:
              - match: {{prefix: /}}
                requires: {{provider_name: bench}}"#
    )
}

fn by_scope() -> String {
    format!(
        r#"
                        - metadata:
                            filter: envoy.filters.http.jwt_authn
                            path: [{{key: token}}, {{key: scope}}]
                            value: {{string_match: {{exact: {SCOPE}}}}}"#
    )
}
