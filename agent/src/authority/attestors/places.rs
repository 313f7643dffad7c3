//! Places for work that unauthenticated evidence causes elsewhere: few, taken or refused at once, and shared out by
//! source, so that one flood starves neither another source nor the rest of the authority (S14).

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::authority::denied::Denied;

/// So many places.
#[derive(Debug)]
pub(super) struct Places {
    /// For messages: `asking STS`.
    work: &'static str,
    places: usize,
    of_one: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    /// Never longer than there are places.
    by_source: HashMap<Source, usize>,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(super) struct Place<'a> {
    places: &'a Places,
    source: Source,
}

/// Who shares a share: an address, or the network that one customer has in IPv6 (RFC 6177).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Source(Option<IpAddr>);

impl Places {
    /// `places` at once, of which one source may have a quarter.
    pub(super) fn new(work: &'static str, places: usize) -> Self {
        Self {
            work,
            places,
            of_one: places.div_ceil(4),
            taken: Mutex::default(),
        }
    }

    /// A place, if there is one now: whoever waited here would hold what others need.
    ///
    /// # Errors
    /// 503, to be asked again.
    pub(super) fn enter(&self, remote: &str) -> Result<Place<'_>, Denied> {
        let source = Source::of(remote);
        let mut taken = self.taken();
        let of_source = taken.by_source.get(&source).copied().unwrap_or_default();
        if taken.all >= self.places || of_source >= self.of_one {
            let whose = match taken.all >= self.places {
                true => "at once",
                false => "at once for your address",
            };
            return Err(Denied::evidence_unavailable(format!(
                "{} has no more places {whose}; ask again",
                self.work
            )));
        }
        taken.all += 1;
        taken.by_source.insert(source, of_source + 1);
        Ok(Place {
            places: self,
            source,
        })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        // Two counters: a panic between them, which there is none, would cost a place.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        taken.all = taken.all.saturating_sub(1);
        let left = taken.by_source.get(&self.source).copied();
        match left.unwrap_or_default() {
            0 | 1 => taken.by_source.remove(&self.source),
            more => taken.by_source.insert(self.source, more - 1),
        };
    }
}

impl Source {
    fn of(remote: &str) -> Self {
        let address = remote.parse::<SocketAddr>().map(|it| it.ip()).ok();
        Self(address.map(|address| match address.to_canonical() {
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.segments();
                Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
            }
            v4 => v4,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attest::wire::ErrorCode;

    #[test]
    fn s14_one_source_has_a_quarter_and_all_have_no_more_than_there_is() {
        let places = Places::new("asking STS", 8);
        let first: Vec<_> = (1..=2)
            .map(|port| places.enter(&format!("192.0.2.1:{port}")).unwrap())
            .collect();
        let refused = places.enter("192.0.2.1:99").unwrap_err();
        assert_eq!(refused.code, ErrorCode::EvidenceUnavailable);
        assert!(refused.retry_after.is_some());
        assert!(
            refused.message.contains("your address"),
            "{}",
            refused.message
        );
        let others: Vec<_> = (2..=7)
            .map(|host| places.enter(&format!("192.0.2.{host}:1")).unwrap())
            .collect();
        assert!(places.enter("192.0.2.200:1").is_err());
        drop(first);
        assert!(places.enter("192.0.2.1:3").is_ok());
        drop(others);
        let taken = places.taken();
        assert!((taken.all, taken.by_source.len()) == (0, 0), "{taken:?}");
    }

    #[test]
    fn a_network_of_ipv6_is_one_source_and_a_mapped_address_is_its_ipv4_one() {
        let of = Source::of;
        assert_eq!(of("[2001:db8:0:1::1]:1"), of("[2001:db8:0:1:ffff::2]:2"));
        assert_ne!(of("[2001:db8:0:1::1]:1"), of("[2001:db8:0:2::1]:1"));
        assert_eq!(of("[::ffff:192.0.2.1]:1"), of("192.0.2.1:2"));
        assert_ne!(of("192.0.2.1:1"), of("192.0.2.2:1"));
        assert_eq!(of("nonsense"), of(""));
    }
}
