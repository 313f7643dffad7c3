//! Credentials for the app itself: given at once, never expired, kept fresh unasked.

use super::*;

fn session(world: &World) -> RoleSession {
    let role = "orders-caller".parse().unwrap();
    world.roles.session(&role, Some(&workload())).unwrap()
}

async fn given(world: &World) -> Result<SessionCredentials, NotGiven> {
    world
        .roles
        .give(&session(world), Duration::from_secs(20))
        .await
}

#[tokio::test]
async fn credentials_are_obtained_before_anybody_asks() {
    let world = World::new().await;
    let fresh = tokio::spawn({
        let (roles, session) = (world.roles.clone(), session(&world));
        async move { roles.keep_fresh(session).await }
    });
    world.sts.arrived().await;
    while world.roles.status().iter().all(|it| it.expires.is_none()) {
        tokio::task::yield_now().await;
    }
    let given = world
        .roles
        .give(&session(&world), Duration::ZERO)
        .await
        .unwrap();
    assert_eq!(given.access_key_id, "ASIA1");
    assert_eq!(world.sts.requests(), 1);
    fresh.abort();
}

#[tokio::test]
async fn s13_while_sts_hangs_the_last_good_ones_are_given_at_once_to_their_end_and_no_longer() {
    let world = World::with(hasty()).await;
    let first = given(&world).await.unwrap();
    world.sts.answer([Answer::Hang]);
    world.clock.advance(HOUR - Duration::from_secs(1));
    let last = world
        .roles
        .give(&session(&world), Duration::ZERO)
        .await
        .unwrap();
    assert_eq!(last.access_key_id, first.access_key_id);
    world.clock.advance(Duration::from_secs(1));
    for patience in [Duration::ZERO, Duration::from_secs(20)] {
        let error = world
            .roles
            .give(&session(&world), patience)
            .await
            .unwrap_err();
        assert!(matches!(error, NotGiven::Unavailable(_)), "{error:?}");
    }
    world.sts.answer([Answer::Credentials(HOUR)]);
    world.clock.advance(MINUTE);
    assert_eq!(given(&world).await.unwrap().access_key_id, "ASIA2");
}

#[tokio::test]
async fn a_decided_refusal_is_told_from_what_passes() {
    let world = World::new().await;
    world.sts.answer([denied()]);
    let refused = given(&world).await.unwrap_err();
    assert!(matches!(&refused, NotGiven::Refused(why) if why.contains("AccessDenied")));
    let world = World::new().await;
    world
        .sts
        .answer([Answer::Error(503, "ServiceUnavailable", "later".to_owned())]);
    let later = given(&world).await.unwrap_err();
    assert!(matches!(later, NotGiven::Unavailable(_)), "{later:?}");
}

#[tokio::test]
async fn s12_what_is_given_shows_no_secret_in_debug() {
    let world = World::new().await;
    let given = given(&world).await.unwrap();
    assert_eq!(given.secret_access_key.expose(), "issued-secret");
    assert_eq!(given.session_token.expose(), "issued-token");
    let shown = format!("{given:?}{:?}", world.roles.status());
    assert!(!shown.contains("issued-"), "{shown}");
}
