//! Other regions' STS: asked where one fails or does not answer, and never where one has decided.

use super::*;

/// Quick where something hangs.
fn quick() -> Timing {
    Timing {
        attempt: Duration::from_millis(200),
        before_failover: Duration::from_millis(300),
        ..timing()
    }
}

/// A world whose STS may be asked in another region, too.
async fn two() -> (World, Sts) {
    let role = json!({"arn": ROLE, "session_name": "orders"});
    let listener = sts::listener().await;
    let address = listener.local_addr().unwrap();
    let world = World::of(quick(), json!({"orders-caller": role}), |_| {
        vec![format!("us-east-1=http://{address}").parse().unwrap()]
    });
    let world = world.await;
    let other = Sts::serve(listener, world.clock.clone(), "OTHER");
    (world, other)
}

#[tokio::test]
async fn another_region_is_asked_where_sts_fails_hangs_or_breaks_off() {
    for failure in [broken(), Answer::Hang, Answer::Torn, Answer::Half] {
        let (world, other) = two().await;
        world.sts.answer([failure.clone()]);
        assert_eq!(key(&world.signer()).await, "OTHER1", "{failure:?}");
        assert_eq!(other.requests(), 1);
        let (head, _) = other.last_request();
        let authorization = head.headers[AUTHORIZATION].to_str().unwrap();
        assert!(authorization.contains("/us-east-1/sts/"), "{authorization}");
    }
}

#[tokio::test]
async fn what_sts_decided_stands_and_throttling_is_not_carried_elsewhere() {
    let throttled = Answer::Error(400, "Throttling", "Rate exceeded".to_owned());
    let invalid = Answer::Error(400, "ValidationError", "no".to_owned());
    for decided in [denied(), throttled, invalid] {
        let (world, other) = two().await;
        world.sts.answer([decided.clone()]);
        signed(&world.signer()).await.unwrap_err();
        assert_eq!(other.requests(), 0, "{decided:?}");
    }
}

#[tokio::test]
async fn where_all_fail_each_is_named() {
    let (world, other) = two().await;
    world.sts.answer([broken()]);
    other.answer([Answer::Error(500, "InternalFailure", "sorry".to_owned())]);
    let error = signed(&world.signer()).await.unwrap_err().to_string();
    for part in [
        &format!("http://{}", world.sts.address),
        "STS answered 503 ServiceUnavailable: later, then ",
        "STS answered 500 InternalFailure: sorry",
    ] {
        assert!(error.contains(part), "{part} is not in {error}");
    }
}

#[tokio::test]
async fn who_answered_is_asked_first_for_five_minutes() {
    let (world, other) = two().await;
    world.sts.answer([broken()]);
    let roles = ["a", "b", "c"].map(|name| format!("arn:aws:iam::123456789012:role/{name}"));
    let [a, b, c] = roles.each_ref().map(|role| world.signer_of(role));
    assert_eq!(key(&a).await, "OTHER1");
    let asked = world.sts.requests();
    assert_eq!(key(&b).await, "OTHER2");
    assert_eq!(world.sts.requests(), asked);
    world.clock.advance(5 * MINUTE);
    world.sts.answer([Answer::Credentials(HOUR)]);
    assert_eq!(key(&c).await, "ASIA1");
    assert_eq!(other.requests(), 2);
}

#[tokio::test]
async fn the_one_that_took_over_may_fail_in_turn() {
    let (world, other) = two().await;
    world.sts.answer([broken(), Answer::Credentials(HOUR)]);
    assert_eq!(key(&world.signer_of(ROLE)).await, "OTHER1");
    other.answer([broken()]);
    assert_eq!(key(&world.signer()).await, "ASIA1");
}

#[tokio::test]
async fn a_region_of_another_partition_is_refused() {
    let settings = Aws {
        region: Some("cn-north-1".to_owned()),
        sts_failover: vec!["us-east-1".parse().unwrap()],
        ..Aws::default()
    };
    let keys = Credentials::new("AKIABASE", "s", None, None, "test");
    let roles = Roles::with_provider(&settings, SharedCredentialsProvider::new(keys)).await;
    let error = roles.unwrap_err().to_string();
    assert!(
        error.contains("aws.sts_failover[0]") && error.contains("aws-cn"),
        "{error}"
    );
}
