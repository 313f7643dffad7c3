//! Tokens of `sts:GetWebIdentityToken`: of the role, no longer than its session, by the region that was asked for.

use super::*;
use crate::config::outbound::WebIdentityAlgorithm;

const CALL: &str = "warifu:example.org:call:payments";

async fn world() -> (World, RoleSession) {
    let role = json!({"arn": ROLE, "session_name": "orders", "duration": "15m"});
    let world = World::of(timing(), json!({"caller": role}), |_| Vec::new()).await;
    let session = world.roles.session(&"caller".parse().unwrap(), None);
    let session = session.unwrap();
    (world, session)
}

async fn token(
    world: &World,
    role: Option<&RoleSession>,
    life: Duration,
) -> Result<WebIdentityToken, TokenError> {
    let audiences = [CALL.to_owned()];
    let wanted = WebIdentity {
        audiences: &audiences,
        role,
        life,
        algorithm: WebIdentityAlgorithm::Es384,
        region: None,
    };
    world.roles.web_identity_token(&wanted).await
}

#[tokio::test]
async fn a_token_is_asked_for_with_the_roles_session_and_for_no_longer_than_that_lives() {
    let (world, session) = world().await;
    let life = Duration::from_secs(15 * 60);
    world
        .sts
        .answer([Answer::Credentials(life), Answer::Credentials(5 * MINUTE)]);
    let given = token(&world, Some(&session), HOUR).await.unwrap();
    assert_eq!(given.token.expose(), "head.claims.ASIA2");
    let (head, form) = world.sts.last_request();
    let authorization = head.headers[AUTHORIZATION].to_str().unwrap();
    assert!(
        authorization.contains("Credential=ASIA1/"),
        "{authorization}"
    );
    for part in [
        "Action=GetWebIdentityToken",
        "DurationSeconds=895",
        "SigningAlgorithm=ES384",
        "Audience.member.1=warifu%3Aexample.org%3Acall%3Apayments",
    ] {
        assert!(form.contains(part), "{part} is not in {form}");
    }
    // A short one is as short as was asked for.
    token(&world, Some(&session), 2 * MINUTE).await.unwrap();
    assert!(world.sts.last_request().1.contains("DurationSeconds=120"));
}

#[tokio::test]
async fn where_only_sts_knows_the_sessions_end_the_shortest_token_is_asked_for_next() {
    let (world, _) = world().await;
    let escalation = "SessionDurationEscalationException";
    let longer = Answer::Error(403, escalation, "longer than the session".to_owned());
    world.sts.answer([longer, Answer::Credentials(MINUTE)]);
    token(&world, None, HOUR).await.unwrap();
    assert_eq!(world.sts.requests(), 2);
    assert!(world.sts.last_request().1.contains("DurationSeconds=60"));
}

#[tokio::test]
async fn expiry_is_told_by_this_machines_clock() {
    let (world, _) = world().await;
    world.sts.set_ahead(10 * MINUTE);
    world.sts.answer([Answer::Credentials(5 * MINUTE)]);
    let given = token(&world, None, 5 * MINUTE).await.unwrap();
    let now = aws_smithy_async::time::TimeSource::now(&world.clock);
    assert_eq!(given.expires_at.duration_since(now).unwrap(), 5 * MINUTE);
}

#[tokio::test]
async fn half_an_answer_and_a_failure_are_no_refusal_and_a_refusal_is() {
    let (world, _) = world().await;
    for (answer, refused) in [(Answer::Half, false), (broken(), false), (denied(), true)] {
        world.sts.answer([answer.clone()]);
        let error = token(&world, None, HOUR).await.unwrap_err();
        assert_eq!(error.is_refusal(), refused, "{answer:?}: {error}");
    }
    assert_eq!(
        token(&world, None, HOUR).await.unwrap_err().code(),
        Some("AccessDenied")
    );
}
