//! What an app is told before the first byte of a connection, of which a stranger chose parts.

use std::net::SocketAddr;

use proxy_header::{ParseConfig, ProxyHeader, Tlv};
use warifu_agent::http::proxy_protocol::{SPIFFE_ID, Tls, Told, encode};

/// Addresses, then the name and the protocol that a client asked for, and who it is.
pub fn proxy_protocol(bytes: &[u8]) {
    let mut parts = bytes.splitn(5, |byte| *byte == b'\n');
    let mut next = || parts.next().unwrap_or_default();
    let address = |bytes: &[u8]| str::from_utf8(bytes).ok()?.parse::<SocketAddr>().ok();
    let between = address(next()).zip(address(next()));
    let server_name = str::from_utf8(next()).ok();
    let alpn = next();
    let told = Told {
        between,
        tls: Tls {
            version: "TLSv1.3",
            server_name,
            alpn: Some(alpn),
        },
        unique_id: "0123456789abcdef",
        spiffe_id: str::from_utf8(next()).ok(),
    };
    let header = encode(&told).expect("no part is longer than a fuzzer's input");
    // Somebody else's parser finds what was said, once each, and nothing after it.
    let sent = [&header, bytes].concat();
    let read = ProxyHeader::parse(&sent, ParseConfig::default());
    let (read, length) = read.expect("a header");
    assert_eq!(length, header.len());
    let canonical = |at: SocketAddr| SocketAddr::new(at.ip().to_canonical(), at.port());
    let expected = between
        .map(|(source, destination)| (canonical(source), canonical(destination)))
        .filter(|(source, destination)| source.is_ipv4() == destination.is_ipv4());
    let found = read.proxied_address();
    assert_eq!(found.map(|it| (it.source, it.destination)), expected);
    assert_eq!(read.authority(), server_name);
    assert_eq!(read.alpn(), Some(alpn));
    assert_eq!(read.unique_id(), Some(told.unique_id.as_bytes()));
    let ids = read.tlvs().filter_map(|tlv| match tlv.expect("a TLV") {
        Tlv::Custom(SPIFFE_ID, id) => Some(id.into_owned()),
        _ => None,
    });
    let ids: Vec<_> = ids.collect();
    let id = told.spiffe_id.map(|id| id.as_bytes().to_vec());
    assert_eq!(ids, Vec::from_iter(id));
    let tls = read.ssl().expect("what TLS was spoken");
    assert_eq!(tls.version(), Some("TLSv1.3"));
    assert_eq!(
        (tls.verify() == 0, tls.client_cert_conn()),
        (told.spiffe_id.is_some(), told.spiffe_id.is_some())
    );
}
