//! A byte stream to a destination: its name resolved, its addresses tried, its proxy asked.
//!
//! Of several addresses a random one goes first, so that connections spread over them; those that failed a
//! moment ago go last. The next one is tried when the one before fails, and beside it when that is slow.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rustix::net::sockopt::{
    set_socket_keepalive, set_tcp_keepcnt, set_tcp_keepidle, set_tcp_keepintvl,
    set_tcp_user_timeout,
};
use tokio::{
    net::{TcpStream, UnixStream, lookup_host},
    task::JoinSet,
};

use super::{Address, Proxy};

/// Addresses of one name that are tried before giving up.
const MAX_ADDRESSES: usize = 8;

/// How long an address is tried alone before the next one is tried beside it (RFC 8305 §5).
const HEAD_START: Duration = Duration::from_millis(250);

/// How long an address that failed goes last: about as long as a DNS answer that names a dead one lives.
const AVOID_FOR: Duration = Duration::from_secs(30);

/// Addresses that are remembered to have failed: more than a name has.
const MAX_AVOIDED: usize = 64;

/// A connection over which nothing came for this long is probed: sooner than load balancers and NAT commonly forget one
/// (AWS's NLB and NAT gateways after 350 s) …
const PROBE_AFTER: Duration = Duration::from_secs(20);
/// … again after this time without an answer …
const PROBE_EVERY: Duration = Duration::from_secs(5);
/// … and given up when none of so many is answered.
const PROBES: u32 = 4;

/// A byte stream.
pub(super) enum Dialled {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// The addresses of a destination that failed lately.
#[derive(Debug, Default)]
pub(super) struct Failed(Mutex<HashMap<SocketAddr, Instant>>);

/// Connects, without TLS; through `proxy` where there is one. Sets itself no time limit.
pub(super) async fn dial(
    address: &Address,
    proxy: Option<&Proxy>,
    failed: &Failed,
) -> Result<Dialled, String> {
    if let Some(proxy) = proxy {
        let stream = tcp(proxy.address(), failed).await;
        let stream = stream.map_err(|why| format!("the proxy {proxy}: {why}"))?;
        let stream = proxy.ask(stream, address).await?;
        return Ok(Dialled::Tcp(stream));
    }
    match address {
        Address::Unix(path) => {
            let stream = UnixStream::connect(path).await;
            Ok(Dialled::Unix(stream.map_err(|error| error.to_string())?))
        }
        address => Ok(Dialled::Tcp(tcp(address, failed).await?)),
    }
}

async fn tcp(address: &Address, failed: &Failed) -> Result<TcpStream, String> {
    let stream = match address {
        Address::Unix(path) => return Err(format!("{} is not TCP", path.display())),
        Address::Socket(address) => TcpStream::connect(address)
            .await
            .map_err(|error| error.to_string())?,
        Address::Name(name, port) => {
            let addresses = lookup_host((name.as_str(), *port)).await;
            let addresses = addresses.map_err(|error| format!("looking up {name}: {error}"))?;
            let addresses = failed.last(spread(addresses.collect()), Instant::now());
            race(addresses, failed)
                .await?
                .ok_or_else(|| format!("{name} has no address"))?
        }
    };
    // Small writes go out at once: HTTP writes whole messages. Fails only on a connection that is already
    // gone, which the next step finds out.
    let _ = stream.set_nodelay(true);
    if let Err(error) = keep_alive(&stream) {
        tracing::debug!(%error, "TCP's keep-alive was not set");
    }
    Ok(stream)
}

/// A peer that vanished is found by the kernel, whatever is spoken above TCP: by probes while nothing is sent, and by
/// what is not acknowledged else.
fn keep_alive(stream: &TcpStream) -> rustix::io::Result<()> {
    set_tcp_keepidle(stream, PROBE_AFTER)?;
    set_tcp_keepintvl(stream, PROBE_EVERY)?;
    set_tcp_keepcnt(stream, PROBES)?;
    let lost = PROBE_AFTER + PROBE_EVERY * PROBES;
    set_tcp_user_timeout(stream, u32::try_from(lost.as_millis()).unwrap_or(u32::MAX))?;
    set_socket_keepalive(stream, true)
}

/// In random order, but a family after the other, whichever the resolver has first (RFC 6724: it knows
/// which of them this machine reaches).
fn spread(mut addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let order = RandomState::new();
    addresses.sort_by_cached_key(|address| order.hash_one(address));
    let (first, second): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|address| address.is_ipv6() == first_is_v6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut spread = Vec::new();
    loop {
        let (a, b) = (first.next(), second.next());
        if a.is_none() && b.is_none() {
            spread.truncate(MAX_ADDRESSES);
            return spread;
        }
        spread.extend(a.into_iter().chain(b));
    }
}

/// The first of `addresses` that answers; `None` where there are none.
async fn race(addresses: Vec<SocketAddr>, failed: &Failed) -> Result<Option<TcpStream>, String> {
    let mut waiting = addresses.into_iter();
    let mut trying = Vec::new();
    let mut attempts = JoinSet::new();
    let mut why = None;
    loop {
        if let Some(address) = waiting.next() {
            trying.push(address);
            attempts.spawn(async move { (address, TcpStream::connect(address).await) });
        }
        tokio::select! {
            biased;
            ended = attempts.join_next() => match ended {
                None => return why.map_or(Ok(None), Err),
                Some(Ok((address, Ok(stream)))) => {
                    // Those that are slower than their head start are as good as dead.
                    trying.iter().filter(|it| **it != address).for_each(|it| failed.note(*it));
                    return Ok(Some(stream));
                }
                Some(Ok((address, Err(error)))) => {
                    failed.note(address);
                    why = Some(format!("{address}: {error}"));
                }
                // It was neither aborted nor can it panic.
                Some(Err(error)) => why = Some(error.to_string()),
            },
            () = tokio::time::sleep(HEAD_START), if waiting.len() > 0 => {}
        }
    }
}

impl Failed {
    /// Remembers it for a while.
    pub(super) fn note(&self, address: SocketAddr) {
        let (mut failed, now) = (self.lock(), Instant::now());
        failed.retain(|_, at| now.saturating_duration_since(*at) < AVOID_FOR);
        if failed.len() < MAX_AVOIDED {
            failed.insert(address, now);
        }
    }

    /// `addresses`, those that failed lately last.
    fn last(&self, mut addresses: Vec<SocketAddr>, now: Instant) -> Vec<SocketAddr> {
        let failed = self.lock();
        let lately = |at: &Instant| now.saturating_duration_since(*at) < AVOID_FOR;
        addresses.sort_by_key(|address| failed.get(address).is_some_and(lately));
        addresses
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SocketAddr, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use tokio::{
        net::{TcpListener, TcpSocket},
        time::timeout,
    };

    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn every_address_goes_first_now_and_then_and_the_resolver_s_family_always() {
        let v6 = addresses(&["[::1]:1", "[::2]:1", "[::3]:1"]);
        let v4 = addresses(&["127.0.0.1:1", "127.0.0.2:1"]);
        let answer = [v6.clone(), v4.clone()].concat();
        let mut firsts = HashSet::new();
        for _ in 0..500 {
            let order = spread(answer.clone());
            assert_eq!(order.len(), 5);
            assert!(
                v4.contains(&order[1]),
                "families don't alternate: {order:?}"
            );
            firsts.insert(order[0]);
        }
        assert_eq!(firsts, v6.into_iter().collect());
        let many = (0..100).map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        assert_eq!(spread(many.collect()).len(), MAX_ADDRESSES);
        assert!(spread(Vec::new()).is_empty());
    }

    #[test]
    fn what_failed_lately_goes_last_for_a_while_and_is_bounded() {
        let failed = Failed::default();
        let [dead, alive] = [1, 2].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        failed.note(dead);
        let now = Instant::now();
        assert_eq!(failed.last(vec![dead, alive], now), [alive, dead]);
        assert_eq!(
            failed.last(vec![dead, alive], now + AVOID_FOR),
            [dead, alive]
        );
        for port in 0..1_000 {
            failed.note(SocketAddr::from(([127, 0, 0, 2], port)));
        }
        assert_eq!(failed.lock().len(), MAX_AVOIDED);
    }

    #[tokio::test]
    async fn dead_addresses_among_the_answers_cost_little_and_are_left_aside_next_time() {
        let alive = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let alive = alive.local_addr().unwrap();
        // Nobody listens at one; the other has more callers waiting than it has room for, and says nothing to a new one.
        let refused = SocketAddr::from(([127, 0, 0, 1], 1));
        let crowded = TcpSocket::new_v4().unwrap();
        crowded.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let crowded = crowded.listen(1).unwrap();
        let silent = crowded.local_addr().unwrap();
        let mut waiting = Vec::new();
        while let Ok(stream) = timeout(HEAD_START, TcpStream::connect(silent)).await {
            waiting.push(stream.unwrap());
        }
        let failed = Failed::default();
        let began = Instant::now();
        let stream = race(vec![refused, silent, alive], &failed).await.unwrap();
        assert_eq!(stream.unwrap().peer_addr().unwrap(), alive);
        assert!(began.elapsed() < HEAD_START * 8, "{:?}", began.elapsed());
        let order = failed.last(vec![refused, silent, alive], Instant::now());
        assert_eq!(order[0], alive);
    }

    #[tokio::test]
    async fn the_kernel_is_asked_to_find_peers_that_vanished() {
        use rustix::net::sockopt::{socket_keepalive, tcp_keepidle, tcp_user_timeout};
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::Socket(listener.local_addr().unwrap());
        let stream = tcp(&address, &Failed::default()).await.unwrap();
        assert!(socket_keepalive(&stream).unwrap());
        assert_eq!(tcp_keepidle(&stream).unwrap(), PROBE_AFTER);
        assert_eq!(tcp_user_timeout(&stream).unwrap(), 40_000);
    }

    #[tokio::test]
    async fn when_all_are_dead_the_last_reason_is_said() {
        let why = race(addresses(&["127.0.0.1:1"]), &Failed::default()).await;
        assert!(why.unwrap_err().starts_with("127.0.0.1:1: "));
        let none = race(Vec::new(), &Failed::default()).await;
        assert!(none.unwrap().is_none());
    }
}
