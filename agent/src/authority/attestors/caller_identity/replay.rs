//! What was presented already: each challenge once for each key, in this replica.

use std::{
    collections::{HashSet, VecDeque},
    time::SystemTime,
};

/// Most that are remembered, at 32 bytes and some: as many as STS answers for one account in a challenge's
/// minute, twice over.
const MOST: usize = 65_536;

/// What was presented lately.
#[derive(Debug, Default)]
pub(super) struct Presented {
    known: HashSet<[u8; 32]>,
    /// In the order in which they may be forgotten, roughly: lives are the same, clocks of replicas are not.
    until: VecDeque<(SystemTime, [u8; 32])>,
}

/// What [`Presented::note`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Noted {
    /// Not seen before; remembered now.
    New,
    /// Seen before.
    Again,
    /// Too much to remember.
    Full,
}

impl Presented {
    /// Remembers `id` until `until`.
    pub(super) fn note(&mut self, id: [u8; 32], until: SystemTime, now: SystemTime) -> Noted {
        while let Some((end, old)) = self.until.front()
            && *end <= now
        {
            self.known.remove(old);
            self.until.pop_front();
        }
        if self.known.contains(&id) {
            return Noted::Again;
        }
        if self.until.len() >= MOST {
            return Noted::Full;
        }
        self.known.insert(id);
        self.until.push_back((until, id));
        Noted::New
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn id(number: usize) -> [u8; 32] {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&number.to_be_bytes());
        id
    }

    #[test]
    fn once_until_it_expires() {
        let mut presented = Presented::default();
        let (end, second) = (NOW + Duration::from_secs(60), Duration::from_secs(1));
        assert_eq!(presented.note(id(1), end, NOW), Noted::New);
        assert_eq!(presented.note(id(1), end, end - second), Noted::Again);
        assert_eq!(presented.note(id(2), end + second, NOW), Noted::New);
        assert_eq!(presented.note(id(1), end + second, end), Noted::New);
        assert_eq!(presented.note(id(2), end, end), Noted::Again);
    }

    #[test]
    fn s14_it_remembers_so_many_and_refuses_more_until_some_expire() {
        let mut presented = Presented::default();
        let end = NOW + Duration::from_secs(60);
        for number in 0..MOST {
            assert_eq!(presented.note(id(number), end, NOW), Noted::New);
        }
        assert_eq!(presented.note(id(MOST), end, NOW), Noted::Full);
        assert_eq!(presented.note(id(7), end, NOW), Noted::Again);
        assert_eq!(
            presented.note(id(MOST), end + end.duration_since(NOW).unwrap(), end),
            Noted::New
        );
        assert_eq!(presented.until.len(), 1);
        assert_eq!(presented.known.len(), 1);
    }
}
