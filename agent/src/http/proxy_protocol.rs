//! The PROXY protocol, version 2: what a server that speaks no HTTP is told of the connection it gets from us, and of who
//! is behind it. Written before the first byte.
//!
//! Types are those of <https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>; one is ours, [`SPIFFE_ID`].

use std::net::SocketAddr;

use thiserror::Error;

/// Nothing else begins so.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Version 2, and the command PROXY: the connection is somebody else's.
const PROXY: u8 = 0x21;

/// Families and their transport, which is a stream.
const UNSPECIFIED: u8 = 0x00;
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;

/// `PP2_TYPE_ALPN`: the protocol that was agreed on.
const ALPN: u8 = 0x01;
/// `PP2_TYPE_AUTHORITY`: the name that was asked for (SNI).
const AUTHORITY: u8 = 0x02;
/// `PP2_TYPE_UNIQUE_ID`: what else it is called.
const UNIQUE_ID: u8 = 0x05;
/// `PP2_TYPE_SSL`, with `PP2_SUBTYPE_SSL_VERSION` in it.
const SSL: u8 = 0x20;
const SSL_VERSION: u8 = 0x21;

/// The caller's SPIFFE ID. Of the types that are for applications (0xE0 to 0xEF) it is the one that Linkerd proposes for the
/// identity of a client. Others there: 0xEA is AWS's (the id of a VPC endpoint), 0xEE Azure's, 0xE4 Teleport's; Google's Private
/// Service Connect has 0xE0 for a number of 8 bytes, which no SPIFFE ID is. ztunnel's 0xD0 is among those that the protocol keeps.
pub const SPIFFE_ID: u8 = 0xE0;

/// `PP2_CLIENT_SSL`, `PP2_CLIENT_CERT_CONN` and `PP2_CLIENT_CERT_SESS`: no session of ours is resumed, so who proved itself did
/// on this connection.
const CLIENT_SSL: u8 = 0x01;
const CLIENT_CERT: u8 = 0x02 | 0x04;

/// `verify` of a client that presented no certificate, or none that counts.
const NOT_VERIFIED: u32 = 1;

/// What is told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Told<'a> {
    /// Who connects, and where it connected to. Without addresses of one family nothing is said of them.
    pub between: Option<(SocketAddr, SocketAddr)>,
    /// What the connection is called in logs; at most 128 bytes.
    pub unique_id: &'a str,
    /// The TLS of the connection.
    pub tls: Tls<'a>,
    /// Who it was proved to be; then it presented a certificate that was verified.
    pub spiffe_id: Option<&'a str>,
}

/// The TLS of a connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tls<'a> {
    /// `TLSv1.3`.
    pub version: &'a str,
    /// The name that was asked for.
    pub server_name: Option<&'a str>,
    /// The protocol that was agreed on.
    pub alpn: Option<&'a [u8]>,
}

/// A header, or a part of it, has more than 65,535 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("what is to be told of the connection is too long for the PROXY protocol")]
pub struct TooLong;

/// The bytes to begin with.
///
/// # Errors
/// [`TooLong`].
pub fn encode(told: &Told<'_>) -> Result<Vec<u8>, TooLong> {
    let (family, mut rest) = addresses(told.between);
    if let Some(protocol) = told.tls.alpn {
        put(&mut rest, ALPN, protocol)?;
    }
    if let Some(name) = told.tls.server_name {
        put(&mut rest, AUTHORITY, name.as_bytes())?;
    }
    if !told.unique_id.is_empty() {
        put(&mut rest, UNIQUE_ID, told.unique_id.as_bytes())?;
    }
    put(&mut rest, SSL, &ssl(told)?)?;
    if let Some(id) = told.spiffe_id {
        put(&mut rest, SPIFFE_ID, id.as_bytes())?;
    }
    let length = u16::try_from(rest.len()).map_err(|_| TooLong)?;
    let mut header = SIGNATURE.to_vec();
    header.extend([PROXY, family]);
    header.extend(length.to_be_bytes());
    header.extend(rest);
    Ok(header)
}

fn addresses(between: Option<(SocketAddr, SocketAddr)>) -> (u8, Vec<u8>) {
    let Some((source, destination)) = between else {
        return (UNSPECIFIED, Vec::new());
    };
    // A listener on `[::]` sees callers over IPv4 by addresses of IPv6.
    let ips = (source.ip().to_canonical(), destination.ip().to_canonical());
    let mut bytes = Vec::with_capacity(36);
    let family = match ips {
        (std::net::IpAddr::V4(source), std::net::IpAddr::V4(destination)) => {
            bytes.extend(source.octets());
            bytes.extend(destination.octets());
            TCP4
        }
        (std::net::IpAddr::V6(source), std::net::IpAddr::V6(destination)) => {
            bytes.extend(source.octets());
            bytes.extend(destination.octets());
            TCP6
        }
        _ => return (UNSPECIFIED, Vec::new()),
    };
    bytes.extend(source.port().to_be_bytes());
    bytes.extend(destination.port().to_be_bytes());
    (family, bytes)
}

/// Without the common name: in an X.509-SVID it proves nothing, and servers take it for a user's name.
fn ssl(told: &Told<'_>) -> Result<Vec<u8>, TooLong> {
    let (client, verify) = match told.spiffe_id {
        Some(_) => (CLIENT_SSL | CLIENT_CERT, 0),
        None => (CLIENT_SSL, NOT_VERIFIED),
    };
    let mut value = vec![client];
    value.extend(verify.to_be_bytes());
    put(&mut value, SSL_VERSION, told.tls.version.as_bytes())?;
    Ok(value)
}

fn put(into: &mut Vec<u8>, kind: u8, value: &[u8]) -> Result<(), TooLong> {
    let length = u16::try_from(value.len()).map_err(|_| TooLong)?;
    into.push(kind);
    into.extend(length.to_be_bytes());
    into.extend(value);
    Ok(())
}

#[cfg(test)]
mod tests;
