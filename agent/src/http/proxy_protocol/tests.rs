//! A strict reader of the protocol reads what was told, and nothing else.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use proptest::prelude::*;

use super::*;

/// What a reader learns.
#[derive(Debug, PartialEq)]
struct Read {
    between: Option<(SocketAddr, SocketAddr)>,
    values: BTreeMap<u8, Vec<u8>>,
    client: u8,
    verify: u32,
    of_tls: BTreeMap<u8, Vec<u8>>,
}

/// Reads a header that is followed by nothing. Whatever is not exactly of the protocol is `None`.
fn read(bytes: &[u8]) -> Option<Read> {
    let rest = bytes.strip_prefix(b"\x0D\x0A\x0D\x0A\x00\x0D\x0A\x51\x55\x49\x54\x0A")?;
    let ([0x21, family, high, low], rest) = rest.split_first_chunk::<4>()? else {
        return None;
    };
    if usize::from(u16::from_be_bytes([*high, *low])) != rest.len() {
        return None;
    }
    let size = match family {
        0x00 => 0,
        0x11 => 4,
        0x21 => 16,
        _ => return None,
    };
    let (addresses, rest) = rest.split_at_checked(if size == 0 { 0 } else { size * 2 + 4 })?;
    let ip = |bytes: &[u8]| match size {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        _ => Some(IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?)),
    };
    let port = |at: usize| {
        let bytes = addresses.get(at..at + 2)?;
        Some(u16::from_be_bytes(bytes.try_into().ok()?))
    };
    let between = match size {
        0 => None,
        _ => Some((
            SocketAddr::new(ip(addresses.get(..size)?)?, port(size * 2)?),
            SocketAddr::new(ip(addresses.get(size..size * 2)?)?, port(size * 2 + 2)?),
        )),
    };
    let mut values = vectors(rest)?;
    let tls = values.remove(&0x20)?;
    let (client, rest) = tls.split_first()?;
    let (verify, rest) = rest.split_first_chunk::<4>()?;
    Some(Read {
        between,
        client: *client,
        verify: u32::from_be_bytes(*verify),
        of_tls: vectors(rest)?,
        values,
    })
}

/// Each type once.
fn vectors(mut bytes: &[u8]) -> Option<BTreeMap<u8, Vec<u8>>> {
    let mut found = BTreeMap::new();
    while let Some(([kind, high, low], rest)) = bytes.split_first_chunk::<3>() {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let (value, rest) = rest.split_at_checked(length)?;
        if found.insert(*kind, value.to_vec()).is_some() {
            return None;
        }
        bytes = rest;
    }
    bytes.is_empty().then_some(found)
}

fn expected(told: &Told<'_>) -> Read {
    let mut values = BTreeMap::new();
    values.extend(told.tls.alpn.map(|it| (0x01, it.to_vec())));
    let name = told.tls.server_name;
    values.extend(name.map(|it| (0x02, it.as_bytes().to_vec())));
    let unique = Some(told.unique_id).filter(|id| !id.is_empty());
    values.extend(unique.map(|id| (0x05, id.as_bytes().to_vec())));
    let id = told.spiffe_id;
    values.extend(id.map(|it| (0xE0, it.as_bytes().to_vec())));
    let canonical = |at: SocketAddr| SocketAddr::new(at.ip().to_canonical(), at.port());
    Read {
        between: told
            .between
            .map(|(a, b)| (canonical(a), canonical(b)))
            .filter(|(a, b)| a.is_ipv4() == b.is_ipv4()),
        values,
        client: if id.is_some() { 0x07 } else { 0x01 },
        verify: u32::from(id.is_none()),
        of_tls: BTreeMap::from([(0x21, told.tls.version.as_bytes().to_vec())]),
    }
}

#[test]
fn a_header_is_byte_for_byte_what_the_protocol_says() {
    let told = Told {
        between: Some((
            "10.0.0.1:50000".parse().unwrap(),
            "10.0.0.2:8443".parse().unwrap(),
        )),
        tls: Tls {
            version: "TLSv1.3",
            server_name: Some("db"),
            alpn: None,
        },
        unique_id: "00ff",
        spiffe_id: Some("spiffe://a/b"),
    };
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x39".to_vec();
    bytes.extend([10, 0, 0, 1, 10, 0, 0, 2, 0xc3, 0x50, 0x20, 0xfb]);
    bytes.extend(b"\x02\x00\x02db");
    bytes.extend(b"\x05\x00\x0400ff");
    bytes.extend(b"\x20\x00\x0f\x07\x00\x00\x00\x00\x21\x00\x07TLSv1.3");
    bytes.extend(b"\xe0\x00\x0cspiffe://a/b");
    assert_eq!(encode(&told).unwrap(), bytes);
}

#[test]
fn whom_nothing_was_proved_of_is_told_as_unverified_and_without_a_name() {
    let header = encode(&Told {
        spiffe_id: None,
        ..Told::default()
    });
    let read = read(&header.unwrap()).unwrap();
    assert_eq!((read.client, read.verify), (0x01, 1));
    assert_eq!(read.values, BTreeMap::new());
    assert_eq!(read.between, None);
}

#[test]
fn what_does_not_fit_is_no_header() {
    let long = "x".repeat(70_000);
    let told = Told {
        spiffe_id: Some(&long),
        ..Told::default()
    };
    assert_eq!(encode(&told), Err(TooLong));
    let (half, other) = long.split_at(35_000);
    let told = Told {
        spiffe_id: Some(half),
        tls: Tls {
            server_name: Some(other),
            ..Tls::default()
        },
        ..Told::default()
    };
    assert_eq!(encode(&told), Err(TooLong));
}

fn ip() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<u32>().prop_map(|bits| Ipv4Addr::from(bits).into()),
        any::<u128>().prop_map(|bits| Ipv6Addr::from(bits).into()),
        any::<u32>().prop_map(|bits| Ipv4Addr::from(bits).to_ipv6_mapped().into()),
    ]
}

proptest! {
    #[test]
    fn a_strict_reader_reads_what_was_told(
        between in proptest::option::of((ip(), any::<u16>(), ip(), any::<u16>())),
        version in "TLSv1\\.[23]",
        name in proptest::option::of("[a-z0-9.-]{0,255}"),
        alpn in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..256)),
        unique_id in "[0-9a-f]{0,128}",
        id in proptest::option::of("spiffe://[a-z.]{1,255}/[a-zA-Z0-9/._-]{0,1700}"),
    ) {
        let told = Told {
            between: between.map(|(a, b, c, d)| (SocketAddr::new(a, b), SocketAddr::new(c, d))),
            tls: Tls { version: &version, server_name: name.as_deref(), alpn: alpn.as_deref() },
            unique_id: &unique_id,
            spiffe_id: id.as_deref(),
        };
        let header = encode(&told).unwrap();
        prop_assert_eq!(read(&header), Some(expected(&told)));
        // No part of a header is one.
        prop_assert_eq!(read(&header[..header.len() - 1]), None);
    }
}
