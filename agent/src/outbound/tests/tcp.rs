//! Opaque TCP over mTLS.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use warifu::SpiffeId;

use super::*;
use crate::{
    config::{
        outbound::{RouteMtls, TcpRoute},
        value::Listen,
    },
    http::server::{self, Drain, Listener, serve_bytes},
};

/// A TLS server that demands a client certificate, and echoes. It tells whose it was, and its hash.
async fn echo(ca: &Ca, id: &str) -> (SocketAddr, mpsc::UnboundedReceiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut config =
        warifu::tls::server_config(&ca.identity(id, 1), &[], &[ca.trust_domain()]).unwrap();
    // No HTTP is spoken: a server that knows no ALPN must not be asked for any.
    config.alpn_protocols.clear();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let (tell, certificates) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, tell) = (acceptor.clone(), tell.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else {
                    return;
                };
                let chain = stream.get_ref().1.peer_certificates().unwrap();
                tell.send(chain[0].to_vec()).unwrap();
                let (mut read, mut write) = tokio::io::split(stream);
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.write_all(b"bye").await;
                let _ = write.shutdown().await;
            });
        }
    });
    (address, certificates)
}

/// The near end of a route to `upstream`, which must be `expect`.
async fn carrier(agent: Agent, upstream: SocketAddr, expect: &str) -> (SocketAddr, Carried) {
    let agent = agent.tcp(TcpRoute {
        listen: "127.0.0.1:0".parse().unwrap(),
        upstream: format!("tcp://{upstream}").parse().unwrap(),
        mtls: RouteMtls {
            expect: SpiffeId::new(expect).unwrap(),
        },
    });
    let (outbound, mut registry) = agent.build().unwrap();
    let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap()).unwrap();
    let &Listen::Tcp(address) = listener.address() else {
        unreachable!("it was bound to TCP");
    };
    let metrics = server::Metrics::new(&mut registry).listener("outbound-tcp");
    let (drain, draining) = server::drain();
    let limits = server::Limits {
        max_connections: 2,
        ..server::Limits::default()
    };
    let carrier = outbound.tcp()[0].clone();
    let serving = serve_bytes(listener, carrier, limits, metrics, draining);
    let serving = tokio::spawn(serving);
    let carried = Carried {
        agent,
        registry,
        drain,
        serving,
    };
    (address, carried)
}

struct Carried {
    agent: Agent,
    registry: Registry,
    drain: Drain,
    serving: tokio::task::JoinHandle<usize>,
}

impl Carried {
    async fn counts(&self, line: &str) {
        until(|| {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
            text.contains(line)
        })
        .await;
    }
}

/// Waits for the end of `stream`, before which nothing comes.
async fn ends(stream: &mut TcpStream) {
    let mut byte = [0];
    let read = tokio::time::timeout(DEADLINE, stream.read(&mut byte)).await;
    assert_eq!(read.expect("the connection ends").unwrap_or(0), 0);
}

async fn says(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut echoed = vec![0; text.len()];
    let read = tokio::time::timeout(DEADLINE, stream.read_exact(&mut echoed));
    read.await.expect("an echo").unwrap();
    assert_eq!(echoed, text.as_bytes());
}

#[tokio::test]
async fn bytes_are_carried_both_ways_to_the_end_of_both_halves_and_counted() {
    let ca = Ca::new();
    let (upstream, mut certificates) = echo(&ca, PAYMENTS).await;
    let agent = Agent::new().identity(ca.identity(ORDERS, 1));
    let (address, carried) = carrier(agent, upstream, PAYMENTS).await;
    let mut app = TcpStream::connect(address).await.unwrap();
    says(&mut app, "select 1;").await;
    let certificate = certificates.recv().await.unwrap().into();
    assert_eq!(
        warifu::tls::peer_id(&certificate).unwrap().to_string(),
        ORDERS
    );
    app.shutdown().await.unwrap();
    let mut rest = String::new();
    let read = tokio::time::timeout(DEADLINE, app.read_to_string(&mut rest));
    read.await.expect("an end").unwrap();
    assert_eq!(rest, "bye");
    let to = format!("tcp://{upstream}");
    carried
        .counts(&format!(
            "outbound_tunnels_ended_total{{to=\"{to}\",why=\"closed\"}} 1"
        ))
        .await;
    carried
        .counts(&format!(
            "outbound_tunnel_bytes_total{{to=\"{to}\",direction=\"received\"}} 12"
        ))
        .await;
}

#[tokio::test]
async fn a_rotated_identity_is_presented_by_the_next_connection_and_the_old_one_lives_on() {
    let ca = Ca::new();
    let (upstream, mut certificates) = echo(&ca, PAYMENTS).await;
    let agent = Agent::new().identity(ca.identity(ORDERS, 1));
    let (address, carried) = carrier(agent, upstream, PAYMENTS).await;
    let mut first = TcpStream::connect(address).await.unwrap();
    says(&mut first, "before").await;
    carried.agent.rotate(ca.identity(ORDERS, 2));
    let mut second = TcpStream::connect(address).await.unwrap();
    says(&mut second, "after").await;
    says(&mut first, "still here").await;
    let (a, b) = (certificates.recv().await, certificates.recv().await);
    assert_ne!(a.unwrap(), b.unwrap());

    // S14: no more than the listener's limit, which is two.
    let mut third = TcpStream::connect(address).await.unwrap();
    ends(&mut third).await;

    carried.drain.start(Duration::from_millis(300));
    says(&mut first, "and on").await;
    assert_eq!(carried.serving.await.unwrap(), 2);
    ends(&mut first).await;
}

#[tokio::test]
async fn s19_nothing_is_carried_to_another_or_without_an_identity() {
    let ca = Ca::new();
    let (upstream, _certificates) = echo(&ca, "spiffe://example.org/impostor").await;
    let agent = Agent::new();
    let (address, carried) = carrier(agent, upstream, PAYMENTS).await;
    let refused = async |reason: &str, count: usize| {
        let mut app = TcpStream::connect(address).await.unwrap();
        let _ = app.write_all(b"secret").await;
        ends(&mut app).await;
        let to = format!("to=\"tcp://{upstream}\"");
        let line = format!("outbound_tcp_refused_total{{{to},reason=\"{reason}\"}} {count}");
        carried.counts(&line).await;
    };
    refused("no-identity", 1).await;
    carried.agent.rotate(ca.expired(ORDERS, 1));
    refused("identity-expired", 1).await;
    carried.agent.rotate(ca.identity(ORDERS, 2));
    refused("connect-failed", 1).await;
}

#[tokio::test]
async fn a_connection_ends_when_the_identity_it_was_made_with_expires() {
    let ca = Ca::new();
    let (upstream, _certificates) = echo(&ca, PAYMENTS).await;
    let soon = SystemTime::now() + Duration::from_secs(2);
    let agent = Agent::new().identity(ca.identity_until(ORDERS, 1, soon));
    let (address, carried) = carrier(agent, upstream, PAYMENTS).await;
    let mut app = TcpStream::connect(address).await.unwrap();
    says(&mut app, "hello").await;
    ends(&mut app).await;
    assert!(SystemTime::now() + Duration::from_millis(1_100) >= soon);
    let to = format!("to=\"tcp://{upstream}\"");
    carried
        .counts(&format!(
            "outbound_tunnels_ended_total{{{to},why=\"expired\"}} 1"
        ))
        .await;
}

#[tokio::test]
async fn an_app_is_not_told_that_a_connection_ended_when_it_was_cut() {
    let ca = Ca::new();
    let agent = Agent::new().identity(ca.identity(ORDERS, 1));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = listener.local_addr().unwrap();
    let mut config =
        warifu::tls::server_config(&ca.identity(PAYMENTS, 1), &[], &[ca.trust_domain()]).unwrap();
    config.alpn_protocols.clear();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let (address, carried) = carrier(agent, upstream, PAYMENTS).await;
    let mut app = TcpStream::connect(address).await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let mut stream = acceptor.accept(stream).await.unwrap();
    stream.write_all(b"half an answ").await.unwrap();
    stream.flush().await.unwrap();
    let mut half = [0; 12];
    app.read_exact(&mut half).await.unwrap();
    // TCP says goodbye, which anyone on the network can, and TLS does not.
    let (mut tcp, _) = stream.into_inner();
    tcp.shutdown().await.unwrap();
    let error = app.read(&mut half).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    carried.counts("why=\"broken\"").await;
}
