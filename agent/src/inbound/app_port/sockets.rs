//! The kernel's lists of TCP sockets, `/proc/net/tcp` and `/proc/net/tcp6`.
//!
//! "It will first list all listening TCP sockets, and next list all established TCP connections"
//! (Documentation/networking/proc_net_tcp.rst): reading ends where the connections begin, of which a busy host has many.

use std::{
    io::{self, BufRead},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// The state of a socket that listens (`TCP_LISTEN`).
const LISTEN: &str = "0A";

/// A socket that takes connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listening {
    pub(super) address: SocketAddr,
    /// Its inode.
    pub(super) socket: u64,
}

/// Those of one list.
pub(super) fn listening(table: impl BufRead) -> io::Result<Vec<Listening>> {
    let mut found = Vec::new();
    // The first line names the columns.
    for line in table.lines().skip(1) {
        match read(&line?) {
            Some(Line::Listening(it)) => found.push(it),
            Some(Line::Connection) => break,
            None => {}
        }
    }
    Ok(found)
}

enum Line {
    Listening(Listening),
    Connection,
}

/// `None` where it is not of the form we know.
fn read(line: &str) -> Option<Line> {
    let mut columns = line.split_ascii_whitespace().skip(1);
    let local = columns.next()?;
    let state = columns.nth(1)?;
    if state != LISTEN {
        return Some(Line::Connection);
    }
    let socket = columns.nth(5)?.parse().ok()?;
    let (ip, port) = local.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let address = SocketAddr::new(address(ip)?, port);
    Some(Line::Listening(Listening { address, socket }))
}

/// Words of 32 bits, each shown as a number of this machine.
fn address(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let word = hex.get(at..at + 8)?;
        Some(u32::from_str_radix(word, 16).ok()?.to_ne_bytes())
    };
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let mut bytes = [0; 16];
            for (part, at) in bytes.chunks_exact_mut(4).zip([0, 8, 16, 24]) {
                part.copy_from_slice(&word(at)?);
            }
            Some(Ipv6Addr::from(bytes).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As a little-endian machine shows them.
    const TCP: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 21544 1 0000000000000000 100 0 0 10 0
   1: 00000000:20FB 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 21545 1 0000000000000000 100 0 0 10 0
   2: 0302010A:1538 00000000:0000 0A 00000000:00000003 00:00000000 00000000    70        0 99999999 1 0000000000000000 100 0 0 10 0
   3: 0302010A:20FB 0902010A:D431 01 00000000:00000000 02:000A7214 00000000     0        0 21999 2 0000000000000000 20 4 30 10 -1
   4: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0000000000000000 100 0 0 10 0
";
    const TCP6: &str = "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 31544 1 0000000000000000 100 0 0 10 0
   1: 00000000000000000000000001000000:1F91 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 31545 1 0000000000000000 100 0 0 10 0
   2: 0000000000000000FFFF00000100007F:1F92 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 31546 1 0000000000000000 100 0 0 10 0
   3: 000080FE00000000FF005450B6AD1DFE:1F93 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 31547 1 0000000000000000 100 0 0 10 0
";

    fn all(table: &str) -> Vec<(String, u64)> {
        let found = listening(table.as_bytes()).unwrap();
        let shown = |it: &Listening| (it.address.to_string(), it.socket);
        found.iter().map(shown).collect()
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn reads_the_sockets_that_listen_and_stops_at_the_first_connection() {
        let expected = [
            ("127.0.0.1:8080".to_owned(), 21544),
            ("0.0.0.0:8443".to_owned(), 21545),
            ("10.1.2.3:5432".to_owned(), 99_999_999),
        ];
        assert_eq!(all(TCP), expected);
        let expected = [
            ("[::]:8080".to_owned(), 31544),
            ("[::1]:8081".to_owned(), 31545),
            ("[::ffff:127.0.0.1]:8082".to_owned(), 31546),
            ("[fe80::5054:ff:fe1d:adb6]:8083".to_owned(), 31547),
        ];
        assert_eq!(all(TCP6), expected);
    }

    #[test]
    fn lines_that_nobody_knows_are_passed_over() {
        let first = TCP.lines().next().unwrap();
        let good = TCP.lines().nth(1).unwrap();
        for odd in [
            "",
            "   0:",
            "   0: 0100007F 00000000:0000 0A 0 0 0 0 0 1",
            "é",
        ] {
            assert_eq!(all(&format!("{first}\n{odd}\n{good}\n")).len(), 1, "{odd}");
        }
        assert_eq!(all(""), []);
        assert_eq!(all(first), []);
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "\\PC{0,200}", line in "( {0,3}[0-9A-F:]{0,40}){0,12}") {
            let _ = listening(format!("\n{text}\n{line}\n").as_bytes());
        }
    }
}
