//! HAProxy (Debian's) and Envoy read what an inbound listener says of a connection (PROXY protocol); OpenSSL is the caller.

use std::{fs, path::Path};

use proxy_header::{ParseConfig, ProxyHeader, Tlv};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpListener,
    sync::mpsc,
};
use warifu_tests::{
    mesh::{Agent, MTLS, Mesh, until},
    peers::{self, Ended, Envoy, Tied, write_identity},
    ports::free_port,
};

const ORDERS: &str = r#"[{peer: "spiffe://example.org/orders"}]"#;

/// Sends one line back and ends; tells of each connection what came before the line.
async fn app(with_header: bool) -> (std::net::SocketAddr, mpsc::UnboundedReceiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, headers) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let sender = sender.clone();
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                let mut header = vec![0; if with_header { 16 } else { 0 }];
                stream.read_exact(&mut header).await.unwrap();
                if let [.., high, low] = header[..] {
                    header.resize(16 + usize::from(u16::from_be_bytes([high, low])), 0);
                    stream.read_exact(&mut header[16..]).await.unwrap();
                }
                let _ = sender.send(header);
                let mut line = Vec::new();
                stream.read_until(b'\n', &mut line).await.unwrap();
                stream.write_all(&line).await.unwrap();
            });
        }
    });
    (address, headers)
}

async fn database(mesh: &Mesh, door: std::net::SocketAddr, app: std::net::SocketAddr) -> Agent {
    let listener = format!(
        "{{listen: \"{door}\", forward: \"tcp://{app}\", proxy_protocol: v2, accept: {MTLS}, allow: {ORDERS}}}"
    );
    mesh.agent("database").inbound(&listener).start().await
}

/// OpenSSL says a line, and shows what comes.
async fn say(door: std::net::SocketAddr, files: &Path, line: &[u8]) -> Ended {
    let openssl = peers::installed("openssl").unwrap();
    let (door, files) = (door.to_string(), files.display());
    let file = |name: &str| format!("{files}/{name}");
    let (chain, key, bundle) = (file("svid.pem"), file("key.pem"), file("bundle.pem"));
    let args = [
        "s_client",
        "-quiet",
        "-connect",
        &door,
        "-servername",
        "db.internal",
        "-cert",
        &chain,
        "-cert_chain",
        &chain,
        "-key",
        &key,
        "-CAfile",
        &bundle,
        "-verify_return_error",
    ];
    peers::run("openssl", &openssl, &args, line).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn haproxy_learns_from_the_header_who_connects_and_by_what_name() {
    let program = peers::installed("haproxy").unwrap();
    let mesh = Mesh::start().await;
    let (echo, _) = app(false).await;
    let (haproxy, door) = (free_port(), free_port());
    let file = mesh.dir().join("haproxy.cfg");
    let configuration = format!(
        r#"global
    log stdout format raw local0 info
defaults
    mode tcp
    log global
    timeout connect 5s
    timeout client 30s
    timeout server 30s
    log-format "from %ci to %fi:%fp asked for %[fc_pp_authority], called %[fc_pp_unique_id], sent %U"
frontend opaque
    bind {haproxy} accept-proxy
    default_backend echo
backend echo
    server echo {echo}
"#
    );
    fs::write(&file, configuration).unwrap();
    let args = ["-db", "-f", file.to_str().unwrap()];
    let running = Tied::run("haproxy", &program, &args, &[]).unwrap();
    let listens = async || tokio::net::TcpStream::connect(haproxy).await.ok();
    until("HAProxy listens", listens).await;
    let database = database(&mesh, door, haproxy).await;
    let files = mesh.dir().join("orders");
    write_identity(&files, &mesh.workload("orders").await.identity()).unwrap();

    let said = say(door, &files, b"hello\n").await;
    assert_eq!(said.stdout, "hello\n", "{}", said.stderr);
    let line = database.audit_line("it is let in", |line| line["result"] == "allowed");
    let id = line.await["connection"].as_str().unwrap().to_owned();
    let expected = format!("from 127.0.0.1 to {door} asked for db.internal, called {id}, sent 6");
    let logged = async || running.log_tail().contains(&expected).then_some(());
    until(&expected, logged).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s03_envoy_learns_from_the_header_which_spiffe_id_connects() {
    let mesh = Mesh::start().await;
    let dir = mesh.dir().join("envoy");
    let log = mesh.dir().join("access.log");
    let (echo, _) = app(false).await;
    let resources = LISTENER
        .replace("WRITTEN", &log.display().to_string())
        .replace("ECHO", &echo.port().to_string());
    let envoy = Envoy::start(&dir, &resources).await.unwrap();
    let door = free_port();
    let _database = database(&mesh, door, envoy.listener("opaque")).await;
    let files = mesh.dir().join("orders");
    write_identity(&files, &mesh.workload("orders").await.identity()).unwrap();
    let said = say(door, &files, b"hello\n").await;
    assert_eq!(said.stdout, "hello\n", "{}", said.stderr);
    let expected = "spiffe://example.org/orders from 127.0.0.1, 6 bytes\n";
    let logged = async || {
        let text = fs::read_to_string(&log).unwrap_or_default();
        text.ends_with('\n').then_some(text)
    };
    assert_eq!(until("Envoy writes its line", logged).await, expected);
}

/// Demands a header, and writes down what its type 0xE0 says.
const LISTENER: &str = r#"
listeners:
- name: opaque
  address: {socket_address: {address: 127.0.0.1, port_value: 0}}
  listener_filters:
  - name: envoy.filters.listener.proxy_protocol
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol
      rules: [{tlv_type: 0xE0, on_tlv_present: {key: caller}}]
  filter_chains:
  - filters:
    - name: envoy.filters.network.tcp_proxy
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
        stat_prefix: opaque
        cluster: echo
        access_log:
        - name: envoy.access_loggers.file
          typed_config:
            "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
            path: WRITTEN
            log_format:
              text_format_source:
                inline_string: "%DYNAMIC_METADATA(envoy.filters.listener.proxy_protocol:caller)% from %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%, %BYTES_RECEIVED% bytes\n"
clusters:
- name: echo
  load_assignment:
    cluster_name: echo
    endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: ECHO}}}}]}]
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s03_the_app_has_the_name_of_a_caller_from_the_agent_and_from_nobody_else() {
    let mesh = Mesh::start().await;
    let (echo, mut headers) = app(true).await;
    let door = free_port();
    let database = database(&mesh, door, echo).await;
    let mut files = Vec::new();
    for name in ["orders", "stranger"] {
        files.push(mesh.dir().join(name));
        let identity = mesh.workload(name).await.identity();
        write_identity(files.last().unwrap(), &identity).unwrap();
    }
    // What a caller begins with is the caller's, however it looks.
    let forged = b"\r\n\r\n\0\r\nQUIT\n\x21\x00\x00\x1d\xe0\x00\x1aspiffe://example.org/admin\n";
    for line in [&b"hello\n"[..], forged] {
        let said = say(door, &files[0], line).await;
        assert!(said.stdout.as_bytes().starts_with(&line[..2]), "{said:?}");
        let header = headers.recv().await.unwrap();
        let (read, length) = ProxyHeader::parse(&header, ParseConfig::default()).unwrap();
        assert_eq!(length, header.len());
        let ids: Vec<_> = read
            .tlvs()
            .filter_map(|tlv| match tlv.unwrap() {
                Tlv::Custom(0xe0, id) => Some(String::from_utf8(id.to_vec()).unwrap()),
                _ => None,
            })
            .collect();
        assert_eq!(ids, ["spiffe://example.org/orders"]);
        let tls = read.ssl().unwrap();
        assert_eq!(
            (tls.version(), tls.verify(), tls.client_cert_conn()),
            (Some("TLSv1.3"), 0, true)
        );
    }
    let said = say(door, &files[1], b"hello\n").await;
    assert_eq!(said.stdout, "");
    let line = database
        .audit_line("it is refused", |line| line["result"] == "denied")
        .await;
    assert_eq!(line["peer"], "spiffe://example.org/stranger");
    assert!(headers.try_recv().is_err());
}
