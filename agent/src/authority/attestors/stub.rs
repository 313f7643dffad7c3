//! For tests: an issuer with a real key, that can be away.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};
use warifu::{
    Secret,
    jwt::{
        self, Algorithm, SigningKey,
        jwks::{Fetch, FetchError, Fetching},
    },
};

use super::token::Issuer;
use crate::authority::metrics::Metrics;

/// When tests are.
pub(super) const NOW: u64 = 1_795_000_000;

pub(super) fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

#[derive(Debug)]
pub(super) struct Stub {
    pub(super) key: SigningKey,
    pub(super) away: AtomicBool,
    pub(super) asked: AtomicUsize,
}

impl Stub {
    pub(super) fn with(key: SigningKey) -> Arc<Self> {
        Arc::new(Self {
            key,
            away: AtomicBool::new(false),
            asked: AtomicUsize::new(0),
        })
    }

    pub(super) fn issuer(self: &Arc<Self>, algorithms: &'static [Algorithm]) -> Issuer {
        let source = Arc::clone(self);
        Issuer::new("under-test", source, algorithms, &Metrics::default())
    }

    pub(super) fn sign(&self, claims: &Value) -> Secret<String> {
        Secret::new(jwt::sign(&self.key, "JWT", claims))
    }
}

impl Fetch for Stub {
    fn fetch(&self) -> Fetching<'_> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let away = self.away.load(Ordering::SeqCst);
        Box::pin(async move {
            match away {
                true => Err(FetchError::new("GET https://issuer.example/keys: 502")),
                false => {
                    let keys = json!({"keys": [self.key.public().to_json("sig")]});
                    Ok(keys.to_string().into_bytes())
                }
            }
        })
    }
}
