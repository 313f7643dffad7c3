//! Against a mint that is told what to make.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Semaphore;

use super::*;

/// Makes `token-1`, `token-2`, …, each when it is let.
#[derive(Debug, Clone)]
struct Press {
    asked: Arc<AtomicUsize>,
    may: Arc<Semaphore>,
    life: Arc<Mutex<Result<Duration, TokenError>>>,
}

impl Press {
    fn making(life: Duration) -> Self {
        Self {
            asked: Arc::default(),
            may: Arc::new(Semaphore::new(usize::MAX >> 4)),
            life: Arc::new(Mutex::new(Ok(life))),
        }
    }

    /// Makes none until [`Press::let_one`].
    fn held_up(life: Duration) -> Self {
        Self {
            may: Arc::new(Semaphore::new(0)),
            ..Self::making(life)
        }
    }

    fn let_one(&self) {
        self.may.add_permits(1);
    }

    fn is(&self, life: Result<Duration, TokenError>) {
        *self.life.lock().unwrap() = life;
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn cache(&self) -> Arc<Cache> {
        Arc::new(Cache::new(self.clone()))
    }
}

impl Mint for Press {
    fn mint(&self) -> Minting<'_> {
        Box::pin(async {
            let number = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
            self.may.acquire().await.unwrap().forget();
            let life = self.life.lock().unwrap().clone()?;
            Ok(Minted {
                token: Secret::new(format!("token-{number}")),
                life,
            })
        })
    }
}

const HOUR: Duration = Duration::from_secs(3600);

fn away() -> TokenError {
    TokenError::Unavailable {
        by: "STS".into(),
        code: "ServiceUnavailable".into(),
        message: "later".into(),
        retry_after: None,
    }
}

fn text(outcome: Outcome) -> String {
    outcome.unwrap().authorization.to_str().unwrap().to_owned()
}

/// Waits for what a task of the cache's does.
async fn until(what: impl Fn() -> bool) {
    let waiting = async {
        while !what() {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(10), waiting).await.unwrap();
}

impl Cache {
    /// As if the token had been made so long ago, and the last attempt.
    fn age(&self, by: Duration) {
        let mut state = self.lock();
        if let Some(held) = &mut state.held {
            held.renew_at -= by;
            held.late_at -= by;
            held.ends_at -= by;
        }
        if let Some(failure) = &mut state.failure {
            failure.began -= by;
        }
    }
}

#[tokio::test]
async fn s14_a_thousand_who_ask_at_once_make_one_token() {
    let press = Press::held_up(HOUR);
    let cache = press.cache();
    let asking: Vec<_> = (0..1000)
        .map(|_| {
            let cache = Arc::clone(&cache);
            tokio::spawn(async move { cache.get().await })
        })
        .collect();
    until(|| press.asked() == 1).await;
    press.let_one();
    for one in asking {
        assert_eq!(text(one.await.unwrap()), "Bearer token-1");
    }
    assert_eq!(press.asked(), 1);
}

#[tokio::test]
async fn who_stops_waiting_stops_nobody_else() {
    let press = Press::held_up(HOUR);
    let cache = press.cache();
    let first = tokio::spawn({
        let cache = Arc::clone(&cache);
        async move { cache.get().await }
    });
    until(|| press.asked() == 1).await;
    let second = tokio::spawn({
        let cache = Arc::clone(&cache);
        async move { cache.get().await }
    });
    first.abort();
    press.let_one();
    assert_eq!(text(second.await.unwrap()), "Bearer token-1");
    assert_eq!(press.asked(), 1);
}

#[tokio::test]
async fn half_way_through_its_life_it_is_renewed_and_nobody_waits() {
    let press = Press::held_up(HOUR);
    let cache = press.cache();
    press.let_one();
    assert_eq!(text(cache.get().await), "Bearer token-1");
    cache.age(HOUR / 3);
    assert_eq!(text(cache.get().await), "Bearer token-1");
    assert_eq!(press.asked(), 1, "too early");
    cache.age(HOUR / 4);
    for _ in 0..3 {
        assert_eq!(text(cache.get().await), "Bearer token-1");
    }
    until(|| press.asked() == 2).await;
    press.let_one();
    until(|| cache.lock().flight.is_none()).await;
    assert_eq!(text(cache.get().await), "Bearer token-2");
}

#[tokio::test]
async fn s13_while_renewals_fail_a_token_is_used_to_its_end_and_not_beyond() {
    let press = Press::making(HOUR);
    let cache = press.cache();
    assert_eq!(text(cache.get().await), "Bearer token-1");
    press.is(Err(away()));
    cache.age(HOUR - Duration::from_secs(5));
    assert_eq!(text(cache.get().await), "Bearer token-1");
    until(|| press.asked() == 2).await;
    cache.age(Duration::from_secs(6));
    let why = cache.get().await.unwrap_err();
    assert!(why.to_string().contains("STS cannot answer now"), "{why}");
    // And it heals.
    press.is(Ok(HOUR));
    cache.age(Duration::from_secs(2));
    assert!(text(cache.get().await).starts_with("Bearer token-"));
}

#[tokio::test]
async fn s14_failures_are_not_asked_for_again_within_a_second() {
    let press = Press::making(HOUR);
    press.is(Err(away()));
    let cache = press.cache();
    for _ in 0..100 {
        assert!(cache.get().await.is_err());
    }
    assert_eq!(press.asked(), 1);
    cache.age(COOL_DOWN);
    assert!(cache.get().await.is_err());
    assert_eq!(press.asked(), 2);
    // Whoever asks for more time is given it, within reason.
    let asks = |seconds| TokenError::Unavailable {
        by: "STS".into(),
        code: "Throttling".into(),
        message: String::new(),
        retry_after: Some(Duration::from_secs(seconds)),
    };
    press.is(Err(asks(1_000_000)));
    cache.age(COOL_DOWN);
    assert!(cache.get().await.is_err());
    assert_eq!(press.asked(), 3);
    cache.age(MAX_RETRY_AFTER - COOL_DOWN);
    assert!(cache.get().await.is_err());
    assert_eq!(press.asked(), 3);
    cache.age(COOL_DOWN);
    assert!(cache.get().await.is_err());
    assert_eq!(press.asked(), 4);
}

#[tokio::test]
async fn an_attempt_that_began_long_before_is_nobodys_verdict() {
    let press = Press::making(HOUR);
    let cache = press.cache();
    // As one that was frozen with its Lambda an hour ago, and fails when that goes on.
    let (landed, flight) = watch::channel(None);
    cache.lock().flight = Some(flight);
    let asking = tokio::spawn({
        let cache = Arc::clone(&cache);
        async move { cache.get().await }
    });
    until(|| landed.receiver_count() == 2).await;
    let began = SystemTime::now() - HOUR;
    cache.lock().flight = None;
    cache.lock().failure = Some(Failure { why: away(), began });
    landed.send_replace(Some(Err(away())));
    assert_eq!(text(asking.await.unwrap()), "Bearer token-1");
}

#[tokio::test]
async fn an_attempt_whose_runtime_ended_is_none() {
    let press = Press::making(HOUR);
    let cache = press.cache();
    let (landed, flight) = watch::channel(None);
    cache.lock().flight = Some(flight);
    drop(landed);
    assert_eq!(text(cache.get().await), "Bearer token-1");
}

#[test]
fn s12_a_token_that_is_kept_does_not_show() {
    let minted = Minted {
        token: Secret::new("hunter2".into()),
        life: HOUR,
    };
    let held = Held::new(&minted, SystemTime::now()).unwrap();
    assert!(!format!("{held:?}").contains("hunter2"));
    assert_eq!(held.authorization, "Bearer hunter2");
}
