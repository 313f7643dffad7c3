//! Envoy as the other end of mTLS: before our inbound listener, and behind our outbound one.

use std::{net::SocketAddr, path::Path};

use serde_json::Value;
use warifu::Client;
use warifu_tests::{
    mesh::{MTLS, Mesh, ORDERS, Shop},
    peers::{Envoy, write_identity},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoy_calls_our_inbound_listener_and_no_other_than_it_expects() {
    let shop = Shop::open().await;
    let dir = shop.mesh.dir().join("envoy");
    write_identity(&dir, &shop.orders.identity()).unwrap();
    let to = shop.payments.inbound_address();
    let ways = [
        ("h1", "http_protocol_options", "payments"),
        ("h2", "http2_protocol_options", "payments"),
        ("wrong", "http_protocol_options", "billing"),
    ];
    let listeners: String = ways.iter().map(|(name, ..)| plain(name, name)).collect();
    let clusters: String = ways
        .iter()
        .map(|(name, http, expect)| mtls_cluster(name, to, &dir, http, expect))
        .collect();
    let resources = format!("listeners:\n{listeners}clusters:\n{clusters}");
    let envoy = Envoy::start(&dir, &resources).await.unwrap();

    for name in ["h1", "h2"] {
        let (status, told) = get(envoy.listener(name), "/charges").await;
        assert_eq!(status, 200, "{name}: {told}");
        let told: Value = serde_json::from_str(&told).unwrap();
        assert_eq!(
            told["caller"]["peer"]["spiffe_id"],
            "spiffe://example.org/orders"
        );
    }
    let (status, text) = get(envoy.listener("wrong"), "/charges").await;
    assert_eq!(status, 503, "{text}");
    assert!(envoy.counter("cluster.wrong.ssl.fail_verify_san").await > 0);
    assert_eq!(shop.app.seen().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_outbound_listener_calls_envoy_and_no_other_than_it_expects() {
    let mesh = Mesh::start().await;
    let (app, dir) = (mesh.plain_app().await, mesh.dir().join("envoy"));
    let payments = mesh.workload("payments").await;
    write_identity(&dir, &payments.identity()).unwrap();
    let resources = format!(
        "listeners:\n{}clusters:\n{}",
        mtls_listener("mtls", "app", &dir),
        cluster(
            "app",
            app.url().trim_start_matches("http://").parse().unwrap()
        ),
    );
    let envoy = Envoy::start(&dir, &resources).await.unwrap();
    let route = |host: &str, expect: &str| {
        let address = envoy.listener("mtls");
        format!(
            "{{host: {host}, upstream: \"https://{address}\", \
              mtls: {{expect: \"spiffe://example.org/{expect}\"}}}}"
        )
    };
    let orders = mesh
        .agent("orders")
        .route(&route("payments", "payments"))
        .route(&route("billing", "billing"))
        .start()
        .await;

    let client = orders.client();
    let answer = client.get("http://payments/charges?page=2").send().await;
    let answer = answer.unwrap();
    assert_eq!(answer.status(), 200);
    let seen = app.last();
    assert_eq!(seen.target, "/charges?page=2");
    let xfcc = seen.headers["x-forwarded-client-cert"].to_str().unwrap();
    assert!(xfcc.ends_with(";URI=spiffe://example.org/orders"), "{xfcc}");

    let answer = client.get("http://billing/charges").send().await.unwrap();
    assert_eq!(answer.status(), 502);
    assert_eq!(answer.headers()["x-warifu-reason"], "connect-failed");
    assert_eq!(app.seen().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_client_certificate_header_is_envoys() {
    // One caller, one certificate; payments is once our agent and once Envoy, with one SVID.
    let mesh = Mesh::start().await;
    let (ours, theirs) = (mesh.app("payments").await, mesh.plain_app().await);
    let payments = mesh.agent("payments").app(&ours).accept(MTLS).allow(ORDERS);
    let payments = payments.start().await;
    let dir = mesh.dir().join("envoy");
    write_identity(&dir, &payments.identity()).unwrap();
    let resources = format!(
        "listeners:\n{}clusters:\n{}",
        mtls_listener("mtls", "app", &dir),
        cluster(
            "app",
            theirs.url().trim_start_matches("http://").parse().unwrap()
        ),
    );
    let envoy = Envoy::start(&dir, &resources).await.unwrap();
    let orders = mesh
        .agent("orders")
        .route_to("ours", &payments, "")
        .route(&format!(
            "{{host: theirs, upstream: \"https://{}\", mtls: {{expect: \"{}\"}}}}",
            envoy.listener("mtls"),
            payments.id
        ))
        .start()
        .await;
    let client = orders.client();
    let mut values = Vec::new();
    for (host, app) in [("ours", &ours), ("theirs", &theirs)] {
        let answer = client.get(&format!("http://{host}/charges")).send().await;
        assert_eq!(answer.unwrap().status(), 200);
        let lines = app.last().headers;
        let lines = lines.get_all("x-forwarded-client-cert").iter();
        let lines: Vec<_> = lines
            .map(|line| line.to_str().unwrap().to_owned())
            .collect();
        assert_eq!(lines.len(), 1, "{lines:?}");
        values.extend(lines);
    }
    assert_eq!(values[0], values[1]);
    let keys: Vec<&str> = values[0]
        .split(';')
        .map(|pair| pair.split_once('=').unwrap().0)
        .collect();
    assert_eq!(keys, ["By", "Hash", "URI"]);
}

async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let client = Client::new(&format!("http://{address}")).unwrap();
    let answer = client.get(&format!("http://payments{path}")).send().await;
    let answer = answer.unwrap();
    let status = answer.status().as_u16();
    let body = answer.bytes().await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

/// A plaintext listener that forwards everything to `cluster`.
fn plain(name: &str, cluster: &str) -> String {
    listener(name, cluster, "")
}

/// A listener that demands an X.509-SVID of the trust domain, and forwards who called.
fn mtls_listener(name: &str, cluster: &str, dir: &Path) -> String {
    let context = common_tls_context(
        dir,
        "{san_type: URI, matcher: {prefix: \"spiffe://example.org/\"}}",
    );
    let tls = format!(
        "
    transport_socket:
      name: envoy.transport_sockets.tls
      typed_config:
        \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
        require_client_certificate: true
        common_tls_context: {{alpn_protocols: [h2, http/1.1], {context}}}"
    );
    listener(name, cluster, &tls)
}

fn listener(name: &str, cluster: &str, tls: &str) -> String {
    format!(
        "\
- name: {name}
  address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
  filter_chains:
  - filters:
    - name: envoy.filters.network.http_connection_manager
      typed_config:
        \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
        stat_prefix: {name}
        forward_client_cert_details: SANITIZE_SET
        set_current_client_cert_details: {{uri: true}}
        http_filters:
        - name: envoy.filters.http.router
          typed_config:
            \"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
        route_config:
          virtual_hosts:
          - name: all
            domains: [\"*\"]
            routes: [{{match: {{prefix: /}}, route: {{cluster: {cluster}}}}}]{tls}
"
    )
}

fn cluster(name: &str, to: SocketAddr) -> String {
    let (ip, port) = (to.ip(), to.port());
    format!(
        "\
- name: {name}
  type: STATIC
  connect_timeout: 10s
  load_assignment:
    cluster_name: {name}
    endpoints:
    - lb_endpoints:
      - endpoint: {{address: {{socket_address: {{address: {ip}, port_value: {port}}}}}}}
"
    )
}

/// A cluster that is called with the files in `dir`, and must be `spiffe://example.org/EXPECT`.
fn mtls_cluster(name: &str, to: SocketAddr, dir: &Path, http: &str, expect: &str) -> String {
    let id = format!("{{san_type: URI, matcher: {{exact: \"spiffe://example.org/{expect}\"}}}}");
    let context = common_tls_context(dir, &id);
    let alpn = match http {
        "http2_protocol_options" => "h2",
        _ => "http/1.1",
    };
    cluster(name, to)
        + &format!(
            "  \
  typed_extension_protocol_options:
    envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
      \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
      explicit_http_config: {{{http}: {{}}}}
  transport_socket:
    name: envoy.transport_sockets.tls
    typed_config:
      \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
      common_tls_context: {{alpn_protocols: [{alpn}], {context}}}
"
        )
}

fn common_tls_context(dir: &Path, san: &str) -> String {
    let dir = dir.display();
    format!(
        "tls_certificates: [{{certificate_chain: {{filename: \"{dir}/svid.pem\"}}, \
         private_key: {{filename: \"{dir}/key.pem\"}}}}], \
         tls_params: {{tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3}}, \
         validation_context: {{trusted_ca: {{filename: \"{dir}/bundle.pem\"}}, \
         match_typed_subject_alt_names: [{san}]}}"
    )
}
