//! In the process: for the memory CA and for tests.

use std::{
    collections::HashMap,
    future::ready,
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use super::{
    Consumption, JoinToken, MAX_JOIN_TOKENS, Pending, Store, StoreError, TokenHash, Versioned,
};

/// Gone with the process.
#[derive(Debug, Default)]
pub struct Memory(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: Option<Versioned>,
    tokens: HashMap<TokenHash, (JoinToken, Option<String>)>,
}

impl Memory {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for Memory {
    fn load(&self) -> Pending<'_, Option<Versioned>> {
        Box::pin(ready(Ok(self.lock().state.clone())))
    }

    fn compare_and_swap(&self, expected: Option<i64>, document: Vec<u8>) -> Pending<'_, bool> {
        let mut inner = self.lock();
        let swapped = inner.state.as_ref().map(|state| state.version) == expected;
        if swapped {
            let version = expected.unwrap_or(0) + 1;
            inner.state = Some(Versioned { version, document });
        }
        Box::pin(ready(Ok(swapped)))
    }

    fn put_join_token(&self, token: JoinToken, now: SystemTime) -> Pending<'_, ()> {
        let mut inner = self.lock();
        inner
            .tokens
            .retain(|_, (kept, _)| kept.expires_at + super::sqlite::REMEMBER > now);
        if inner.tokens.len() >= MAX_JOIN_TOKENS {
            return Box::pin(ready(Err(StoreError::Full)));
        }
        inner.tokens.insert(token.hash, (token, None));
        Box::pin(ready(Ok(())))
    }

    fn join_token(&self, hash: TokenHash) -> Pending<'_, Option<JoinToken>> {
        let found = self
            .lock()
            .tokens
            .get(&hash)
            .map(|(token, _)| token.clone());
        Box::pin(ready(Ok(found)))
    }

    fn consume_join_token(
        &self,
        hash: TokenHash,
        thumbprint: String,
        now: SystemTime,
    ) -> Pending<'_, Consumption> {
        let mut inner = self.lock();
        let outcome = match inner.tokens.get_mut(&hash) {
            None => Consumption::Unknown,
            Some((token, _)) if token.expires_at <= now => Consumption::Expired,
            Some((_, used_by)) => {
                if *used_by.get_or_insert_with(|| thumbprint.clone()) == thumbprint {
                    Consumption::Yours
                } else {
                    Consumption::Another
                }
            }
        };
        Box::pin(ready(Ok(outcome)))
    }
}
