use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

/// Counts mints and answers as told, once it is let.
#[derive(Debug)]
struct Counting {
    mints: AtomicUsize,
    open: tokio::sync::Semaphore,
    answer: Mutex<Answer>,
}

#[derive(Debug, Clone, Copy)]
enum Answer {
    Fresh,
    Expired,
    Refused,
    Panic,
}

/// A mint as a trait object that the test can still see into.
#[derive(Debug, Clone)]
struct Handle(Arc<Counting>);

impl Mint for Handle {
    fn mint(&self, wanted: Wanted) -> Minting {
        let this = Arc::clone(&self.0);
        let audience = wanted.audience().into_owned();
        let number = this.mints.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            let _open = this.open.acquire().await;
            let answer = *lock(&this.answer);
            let expires_at = match answer {
                Answer::Fresh => SystemTime::now() + HOUR,
                Answer::Expired => SystemTime::now(),
                Answer::Refused => {
                    let why = "no rule".into();
                    let to = Objection::Any;
                    return Err(MintError::Refused { audience, to, why });
                }
                Answer::Panic => panic!("the mint fell over"),
            };
            let token = Secret::new(format!("{audience}.{number}.s3cret"));
            let scopes = match wanted {
                Wanted::JwtSvid { .. } | Wanted::AwsWebIdentity(_) => Vec::new(),
                Wanted::AccessToken { scopes, .. } => scopes.into_iter().collect(),
                Wanted::Oauth(grant) => grant.scopes.into_iter().collect(),
            };
            Ok(Minted {
                token,
                expires_at,
                scopes,
            })
        })
    }
}

impl Handle {
    /// From now on.
    fn refuse(&self) {
        *lock(&self.0.answer) = Answer::Refused;
    }
}

fn tokens(answer: Answer, open: usize) -> (Tokens, Handle) {
    let handle = Handle(Arc::new(Counting {
        mints: AtomicUsize::new(0),
        open: tokio::sync::Semaphore::new(open),
        answer: Mutex::new(answer),
    }));
    (Tokens::new(Arc::new(handle.clone())), handle)
}

fn mints(handle: &Handle) -> usize {
    handle.0.mints.load(Ordering::SeqCst)
}

#[tokio::test]
async fn a_thousand_concurrent_first_calls_make_one_mint() {
    let (tokens, handle) = tokens(Answer::Fresh, 0);
    let calls: Vec<_> = (0..1000)
        .map(|_| {
            let source = tokens.source(Wanted::jwt_svid("payments"));
            tokio::spawn(async move { source.token().await.unwrap().authorization() })
        })
        .collect();
    while mints(&handle) == 0 {
        tokio::task::yield_now().await;
    }
    handle.0.open.add_permits(1);
    for call in calls {
        assert_eq!(call.await.unwrap(), "Bearer payments.0.s3cret");
    }
    assert_eq!(mints(&handle), 1);
}

#[tokio::test]
async fn a_caller_that_goes_away_cancels_no_mint() {
    let (tokens, handle) = tokens(Answer::Fresh, 0);
    let source = tokens.source(Wanted::jwt_svid("payments"));
    let first = {
        let source = source.clone();
        tokio::spawn(async move { source.token().await })
    };
    while mints(&handle) == 0 {
        tokio::task::yield_now().await;
    }
    first.abort();
    let _ = first.await;
    handle.0.open.add_permits(1);
    source.token().await.unwrap();
    assert_eq!(mints(&handle), 1);
}

#[tokio::test]
async fn a_refusal_is_told_to_all_and_asked_once() {
    let (tokens, handle) = tokens(Answer::Refused, 1);
    let source = tokens.source(Wanted::jwt_svid("payments"));
    for _ in 0..10 {
        let error = source.token().await.unwrap_err();
        assert!(matches!(error, MintError::Refused { .. }), "{error}");
    }
    assert_eq!(mints(&handle), 1);
}

#[tokio::test]
async fn s13_a_token_that_comes_expired_is_never_served() {
    let (tokens, _) = tokens(Answer::Expired, 1);
    let error = tokens
        .source(Wanted::jwt_svid("payments"))
        .token()
        .await
        .unwrap_err();
    assert!(error.to_string().contains("clock"), "{error}");
}

#[tokio::test]
async fn s17_a_mint_that_panics_leaves_nobody_waiting() {
    let (tokens, _) = tokens(Answer::Panic, 1);
    let error = tokens
        .source(Wanted::jwt_svid("payments"))
        .token()
        .await
        .unwrap_err();
    assert!(matches!(error, MintError::Unavailable { .. }), "{error}");
}

#[tokio::test]
async fn a_refused_token_is_replaced_once_for_all_who_held_it() {
    let (tokens, handle) = tokens(Answer::Fresh, 1);
    let source = tokens.source(Wanted::jwt_svid("payments"));
    let old = source.token().await.unwrap();
    let (one, two) = tokio::join!(source.other_than(&old), source.other_than(&old));
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!(one.authorization(), "Bearer payments.1.s3cret");
    assert!(one.is(&two));
    assert!(source.other_than(&one).await.is_none(), "401 drives mints");
    assert_eq!(mints(&handle), 2);
}

#[tokio::test]
async fn audiences_have_tokens_of_their_own() {
    let (tokens, _) = tokens(Answer::Fresh, 1);
    let one = tokens
        .source(Wanted::jwt_svid("payments"))
        .token()
        .await
        .unwrap();
    let two = tokens
        .source(Wanted::jwt_svid("orders"))
        .token()
        .await
        .unwrap();
    assert_ne!(one.authorization(), two.authorization());
}

#[tokio::test]
async fn tokens_of_another_kind_or_of_other_scopes_are_others() {
    let (tokens, handle) = tokens(Answer::Fresh, 1);
    let scopes = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let access = |text: &str| tokens.source(Wanted::access_token("payments", scopes(text)));
    let one = access("read write").token().await.unwrap();
    let same = access("write read write").token().await.unwrap();
    let other = access("read").token().await.unwrap();
    let svid = tokens.source(Wanted::jwt_svid("payments"));
    let svid = svid.token().await.unwrap();
    assert_eq!(one.expose(), "payments.0.s3cret");
    assert!(one.is(&same));
    assert_eq!(one.scopes(), ["read", "write"]);
    assert_ne!(one.expose(), other.expose());
    assert_ne!(one.expose(), svid.expose());
    assert_eq!(mints(&handle), 3);
    let kinds: Vec<_> = tokens.status().iter().map(|it| it.wanted.kind()).collect();
    assert_eq!(kinds, ["jwt-svid", "access-token", "access-token"]);
}

#[tokio::test]
async fn status_tells_of_every_audience_and_of_no_token() {
    let (fresh, _) = tokens(Answer::Fresh, 1);
    fresh.source(Wanted::jwt_svid("orders"));
    fresh
        .source(Wanted::jwt_svid("payments"))
        .token()
        .await
        .unwrap();
    let (refused, _) = tokens(Answer::Refused, 1);
    refused
        .source(Wanted::jwt_svid("payments"))
        .token()
        .await
        .unwrap_err();
    let status = [fresh.status(), refused.status()].concat();
    let told: Vec<_> = status
        .iter()
        .map(|it| {
            (
                it.wanted.audience().into_owned(),
                it.expires.is_some(),
                it.failures,
            )
        })
        .collect();
    let expected = [
        ("orders".to_owned(), false, 0),
        ("payments".to_owned(), true, 0),
        ("payments".to_owned(), false, 1),
    ];
    assert_eq!(told, expected);
    assert!(!format!("{status:?}").contains("s3cret"));
    assert!(status[2].last_error.as_ref().unwrap().contains("no rule"));
}

#[tokio::test]
async fn s12_a_token_does_not_show_in_debug() {
    let (tokens, _) = tokens(Answer::Fresh, 1);
    let source = tokens.source(Wanted::jwt_svid("payments"));
    let token = source.token().await.unwrap();
    let shown = format!("{token:?} {source:?} {:?}", token.authorization());
    assert!(!shown.contains("s3cret"), "{shown}");
}

#[tokio::test]
async fn every_named_audience_has_a_token_at_hand_before_anybody_asks_and_not_before_there_is_an_identity()
 {
    let (tokens, handle) = tokens(Answer::Fresh, 2);
    for audience in ["payments", "orders"] {
        let _ = tokens.source(Wanted::jwt_svid(audience));
    }
    let (issued, identity) = tokio::sync::oneshot::channel::<()>();
    let fresh = tokens.keep_fresh(async { drop(identity.await) });
    tokio::task::yield_now().await;
    assert_eq!(mints(&handle), 0);
    issued.send(()).unwrap();
    while tokens.status().iter().any(|it| it.expires.is_none()) {
        tokio::task::yield_now().await;
    }
    assert_eq!(mints(&handle), 2);
    drop(fresh);
}

#[tokio::test]
async fn status_and_gauge_tell_of_requested_tokens_of_every_store_while_there_is_one() {
    let (tokens, _) = tokens(Answer::Fresh, 1);
    let subject = warifu::SpiffeId::new("spiffe://example.org/orders").unwrap();
    let (one, two) = (tokens.requested(), tokens.requested());
    let access = || Wanted::access_token("payments", ["read".to_owned()]);
    one.token(&subject, access()).await.unwrap();
    two.token(&subject, access()).await.unwrap();
    two.token(&subject, Wanted::jwt_svid("ledger"))
        .await
        .unwrap();
    let told = || {
        let status = tokens.status();
        status.iter().map(|it| it.wanted.kind()).collect::<Vec<_>>()
    };
    assert_eq!(told(), ["access-token", "jwt-svid", "access-token"]);
    assert_eq!(tokens.0.metrics.requested.get(), 3);
    drop(two);
    while told().len() > 1 {
        tokio::task::yield_now().await;
    }
    assert_eq!(tokens.0.metrics.requested.get(), 1);
}

fn workload() -> warifu::SpiffeId {
    "spiffe://example.org/orders".parse().unwrap()
}

#[tokio::test]
async fn s14_only_so_many_requested_tokens_are_held_and_those_in_use_stay() {
    let (tokens, handle) = tokens(Answer::Fresh, 1);
    let requested = tokens.requested();
    let ask = async |audience: String| {
        let token = requested.jwt_svid(&workload(), vec![audience]).await;
        token.unwrap().authorization()
    };
    let first = ask("in use".to_owned()).await;
    for number in 0..2 * MAX_REQUESTED {
        ask(format!("service-{number}")).await;
        assert_eq!(ask("in use".to_owned()).await, first);
    }
    assert_eq!(mints(&handle), 1 + 2 * MAX_REQUESTED);
    assert_eq!(tokens.status().len(), MAX_REQUESTED);
    assert_eq!(tokens.0.metrics.requested.get(), MAX_REQUESTED as i64);
}

#[tokio::test]
async fn s14_audiences_that_are_refused_push_out_no_token() {
    let (tokens, handle) = tokens(Answer::Fresh, 1);
    let requested = tokens.requested();
    let ask = async |audience: String| requested.jwt_svid(&workload(), vec![audience]).await;
    for number in 0..MAX_REQUESTED / 2 {
        ask(format!("service-{number}")).await.unwrap();
    }
    handle.refuse();
    for number in 0..2 * MAX_REQUESTED {
        ask(format!("guess-{number}")).await.unwrap_err();
    }
    for number in 0..MAX_REQUESTED / 2 {
        ask(format!("service-{number}")).await.unwrap();
    }
}

#[tokio::test]
async fn s14_no_more_tokens_are_minted_at_once_than_may_be_held() {
    let (tokens, handle) = tokens(Answer::Fresh, 0);
    let requested = tokens.requested();
    let mut waiting = JoinSet::new();
    for number in 0..MAX_REQUESTED {
        let requested = requested.clone();
        waiting.spawn(async move {
            let audiences = vec![format!("service-{number}")];
            requested.jwt_svid(&workload(), audiences).await.map(drop)
        });
    }
    while mints(&handle) < MAX_REQUESTED {
        tokio::task::yield_now().await;
    }
    let refused = requested
        .jwt_svid(&workload(), vec!["one more".to_owned()])
        .await;
    assert!(
        matches!(refused, Err(MintError::Unavailable { .. })),
        "{refused:?}"
    );
    handle.0.open.add_permits(1);
    while let Some(minted) = waiting.join_next().await {
        minted.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_nobody_asks_for_is_forgotten() {
    let (tokens, _) = tokens(Answer::Fresh, 1);
    let requested = tokens.requested();
    requested
        .jwt_svid(&workload(), vec!["payments".to_owned()])
        .await
        .unwrap();
    assert_eq!(tokens.0.metrics.requested.get(), 1);
    tokio::time::sleep(Duration::from_secs(20 * 60)).await;
    assert_eq!(tokens.0.metrics.requested.get(), 0);
}
