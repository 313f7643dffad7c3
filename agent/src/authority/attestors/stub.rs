//! For tests: an issuer with a real key, that can be away.

use std::{
    borrow::Cow,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};
use warifu::{
    Secret,
    jwt::{
        self, Algorithm, PublicJwk, SigningKey,
        jwks::{Fetch, FetchError, Fetching},
    },
};

use super::{Presented, pool::Pool, token::Issuer};
use crate::{attest::wire::Evidence, authority::metrics::Metrics};

/// When tests are.
pub(super) const NOW: u64 = 1_795_000_000;

pub(super) fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

/// An attempt with `renewal_key`, whose evidence is handed in beside it.
pub(super) fn presented(renewal_key: &PublicJwk, now: SystemTime) -> Presented<'_> {
    static NONE: LazyLock<Evidence> = LazyLock::new(|| Evidence::Oidc {
        token: Secret::new(String::new()),
    });
    Presented {
        evidence: &NONE,
        renewal_key,
        challenge: "",
        remote: "192.0.2.1:4711",
        now,
    }
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

    pub(super) fn issuer(
        self: &Arc<Self>,
        algorithms: impl Into<Cow<'static, [Algorithm]>>,
    ) -> Issuer {
        let pool = Pool::new("under-test", &Metrics::default());
        Issuer::new(Arc::clone(self) as Arc<dyn Fetch>, algorithms, &pool)
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
