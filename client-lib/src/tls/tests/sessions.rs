//! S1: no session ever resumes, whatever the other side keeps or offers.

use rustls::server::ServerSessionMemoryCache;

use super::*;

/// Our server, told to hand out sessions: what a peer with careless settings would be.
fn careless(mut server: ServerConfig) -> ServerConfig {
    server.session_storage = ServerSessionMemoryCache::new(16);
    server.send_tls13_tickets = 2;
    server
}

fn kind(client: &ClientConfig, server: &ServerConfig) -> HandshakeKind {
    let (client, server) = handshake(client.clone(), server.clone()).unwrap();
    assert_eq!(client.handshake_kind(), server.handshake_kind());
    server.handshake_kind().unwrap()
}

fn configs() -> (ClientConfig, ServerConfig) {
    let ca = TestCa::root();
    let (orders, payments) = (ca.identity(ORDERS), ca.identity(PAYMENTS));
    (
        client_config(&orders, &orders.bundle, expect_id(PAYMENTS)).unwrap(),
        server_config(&payments, &[], &[trust_domain("example.org")]).unwrap(),
    )
}

#[test]
fn s01_a_server_does_not_resume_the_session_a_client_offers() {
    let (mut client, ours) = configs();
    client.resumption = Resumption::in_memory_sessions(16);
    let careless = careless(ours.clone());
    assert_eq!(kind(&client, &careless), HandshakeKind::Full);
    // The client now holds a ticket and offers it: the careless server shows that it would work.
    assert_eq!(kind(&client, &careless), HandshakeKind::Resumed);
    assert_eq!(kind(&client, &ours), HandshakeKind::Full);
}

#[test]
fn s01_a_server_gives_no_session_to_a_client_that_would_keep_it() {
    let (mut client, ours) = configs();
    client.resumption = Resumption::in_memory_sessions(16);
    assert_eq!(kind(&client, &ours), HandshakeKind::Full);
    assert_eq!(kind(&client, &ours), HandshakeKind::Full);
    assert_eq!(ours.send_tls13_tickets, 0);
    assert!(!ours.session_storage.can_cache() && !ours.ticketer.enabled());
}

#[test]
fn s01_a_client_offers_no_session_to_a_server_that_gave_one() {
    let (ours, server) = configs();
    let careless = careless(server);
    assert_eq!(kind(&ours, &careless), HandshakeKind::Full);
    assert_eq!(kind(&ours, &careless), HandshakeKind::Full);
}

#[test]
fn s01_the_front_door_of_the_authority_resumes_nothing_either() {
    let ca = TestCa::root();
    let front = server_config_without_client_auth(&ca.svid(PAYMENTS), &[]).unwrap();
    let anchors = Anchors {
        roots: vec![ca.certificate.der().clone()],
        ..Anchors::default()
    };
    let mut client = bootstrap_client_config(&anchors, &SpiffeId::new(PAYMENTS).unwrap()).unwrap();
    let careless_front = careless(front.clone());
    assert_eq!(kind(&client, &careless_front), HandshakeKind::Full);
    assert_eq!(kind(&client, &careless_front), HandshakeKind::Full);
    client.resumption = Resumption::in_memory_sessions(16);
    assert_eq!(kind(&client, &careless_front), HandshakeKind::Full);
    assert_eq!(kind(&client, &careless_front), HandshakeKind::Resumed);
    assert_eq!(kind(&client, &front), HandshakeKind::Full);
}
