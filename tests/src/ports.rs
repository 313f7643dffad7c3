//! Ports that stay ours while nobody listens on them, and are given to one asker only.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::atomic::{AtomicU32, Ordering},
};

/// Below the ports the kernel gives to outgoing connections (32768 and up): what is stopped finds its
/// port free when it starts again.
const FIRST: u32 = 18_000;
const COUNT: u32 = 14_000;

/// An address on loopback that nobody listens on. Other test processes begin elsewhere, so two
/// rarely look at the same port, and then one of them finds it taken.
pub fn free_port() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let begin = std::process::id().wrapping_mul(7919);
    for _ in 0..COUNT {
        let n = begin.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(FIRST + n % COUNT).expect("below 32768");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no free port from {FIRST} to {}", FIRST + COUNT);
}
