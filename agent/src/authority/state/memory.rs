//! In the process: for the memory CA and for tests.

use std::{
    collections::{BTreeSet, HashMap},
    future::ready,
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use super::{
    Bounds, Claim, Claimed, Document, JoinToken, Pending, REMEMBER, Store, StoreError, TokenHash,
    Versioned, check_size,
};

/// Gone with the process.
#[derive(Debug, Default)]
pub struct Memory(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    bounds: Bounds,
    documents: HashMap<Document, Versioned>,
    tokens: HashMap<TokenHash, JoinToken>,
    claims: HashMap<[u8; 32], Kept>,
    /// The claims by their end, soonest first.
    ends: BTreeSet<(SystemTime, [u8; 32])>,
}

#[derive(Debug)]
struct Kept {
    holder: String,
    until: SystemTime,
}

impl Memory {
    #[cfg(test)]
    pub(super) fn bounded(bounds: Bounds) -> Self {
        let inner = Inner {
            bounds,
            ..Inner::default()
        };
        Self(Mutex::new(inner))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for Memory {
    fn load(&self, which: Document) -> Pending<'_, Option<Versioned>> {
        Box::pin(ready(Ok(self.lock().documents.get(&which).cloned())))
    }

    fn compare_and_swap(
        &self,
        which: Document,
        expected: Option<i64>,
        document: Vec<u8>,
    ) -> Pending<'_, bool> {
        if let Err(why) = check_size(which, &document) {
            return Box::pin(ready(Err(why)));
        }
        let mut inner = self.lock();
        let swapped = inner.documents.get(&which).map(|kept| kept.version) == expected;
        if swapped {
            let version = expected.unwrap_or(0) + 1;
            inner
                .documents
                .insert(which, Versioned { version, document });
        }
        Box::pin(ready(Ok(swapped)))
    }

    fn put_join_token(&self, token: JoinToken, now: SystemTime) -> Pending<'_, ()> {
        let mut inner = self.lock();
        inner
            .tokens
            .retain(|_, kept| kept.expires_at + REMEMBER > now);
        if inner.tokens.len() >= inner.bounds.join_tokens {
            return Box::pin(ready(Err(StoreError::Full)));
        }
        inner.tokens.insert(token.hash, token);
        Box::pin(ready(Ok(())))
    }

    fn join_token(&self, hash: TokenHash) -> Pending<'_, Option<JoinToken>> {
        Box::pin(ready(Ok(self.lock().tokens.get(&hash).cloned())))
    }

    fn claim(&self, claim: Claim, now: SystemTime) -> Pending<'_, Claimed> {
        Box::pin(ready(self.lock().claim(claim, now)))
    }
}

impl Inner {
    fn claim(&mut self, claim: Claim, now: SystemTime) -> Result<Claimed, StoreError> {
        while let Some((end, id)) = self.ends.first().copied().filter(|(end, _)| *end <= now) {
            self.ends.remove(&(end, id));
            self.claims.remove(&id);
        }
        if let Some(kept) = self.claims.get(&claim.id)
            && kept.holder != claim.holder
        {
            return Ok(Claimed::Another);
        }
        let before = self.claims.get(&claim.id).map(|kept| kept.until);
        if before.is_none() && self.claims.len() >= self.bounds.claims {
            return Err(StoreError::TooManyClaims);
        }
        let until = before.max(Some(claim.kept_until(now)));
        let until = until.unwrap_or(now);
        if let Some(before) = before {
            self.ends.remove(&(before, claim.id));
        }
        self.ends.insert((until, claim.id));
        let holder = claim.holder;
        self.claims.insert(claim.id, Kept { holder, until });
        Ok(Claimed::Yours)
    }
}
