//! What AWS decided reaches every SDK as an error it does not ask about for ever; what passes, as something to ask again.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use warifu_tests::{
    aws::{Agent, Endpoints, Keys, Mood, Source, Sts},
    mesh::until,
    peers::{AwsSdk, Ministack},
};

use super::aws_credentials_clients::all_sdks;

/// What an SDK asks of an endpoint for one call of the app's, at most: four attempts, and on instance metadata a token,
/// the name of the role and the credentials in each.
const MOST_REQUESTS: f64 = 12.0;

/// SDKs wait a second and more between attempts.
const LONGEST: Duration = Duration::from_secs(40);

/// Requests that ended so; all that were counted where `outcome` is empty.
fn counted(agent: &Agent, outcome: &str) -> f64 {
    let name = "warifu_local_aws_credentials_requests_total";
    agent.metric_sum(name, &format!("outcome=\"{outcome}"))
}

/// Who shows the app what the endpoint said: docs/aws-credentials.md has what the others do with it.
fn shows(sdk: &AwsSdk, source: Source) -> bool {
    source == Source::Container && ["boto3", "the AWS CLI"].contains(&sdk.name)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_may_not_be_assumed_is_an_error_to_every_sdk_and_none_spins() {
    let ministack = Ministack::start().await.unwrap();
    let may = json!([{"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": "*"}]);
    let user = ministack.create_user("agent", may.clone()).await.unwrap();
    let trust = json!([{
        "Effect": "Allow",
        "Action": "sts:AssumeRole",
        "Principal": {"AWS": "arn:aws:iam::000000000000:user/somebody-else"},
    }]);
    let role = ministack.create_role("closed", trust, may).await.unwrap();
    let keys = Keys {
        id: &user.access_key_id,
        secret: &user.secret_access_key,
    };
    let endpoints = Endpoints::of(&role);
    let agent = endpoints.start(keys, ministack.endpoint());
    for sdk in &mut all_sdks().await.unwrap() {
        for source in [Source::Container, Source::Imds] {
            let environment = endpoints.environment(source, ministack.endpoint());
            let (all, refused) = (counted(&agent, ""), counted(&agent, "refused"));
            let began = Instant::now();
            let said = sdk.ask(&environment, None).await.unwrap();
            let why = said["error"].as_str().unwrap_or_default();
            let (all, refused) = (
                counted(&agent, "") - all,
                counted(&agent, "refused") - refused,
            );
            println!(
                "{}, {source:?}: {all} requests, {refused} refused, {:?}: {why}",
                sdk.name,
                began.elapsed()
            );
            assert!(!why.is_empty(), "{}, {source:?}: {said}", sdk.name);
            // JavaScript asks once more, without the token, by its other provider for containers.
            assert!(
                refused >= 1.0 && all <= MOST_REQUESTS,
                "{}, {source:?}: {all} requests, {refused} refused",
                sdk.name
            );
            assert!(began.elapsed() < LONGEST, "{}, {source:?}", sdk.name);
            let ours = why.contains("STS refused AssumeRole") && why.contains("AccessDenied");
            assert!(
                ours || !shows(sdk, source),
                "{}, {source:?}: {why}",
                sdk.name
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_passes_is_asked_again_by_the_sdk_or_its_app_and_then_served() {
    const KEYS: Keys<'_> = Keys {
        id: "AKIABASE",
        secret: "s",
    };
    const ROLE: &str = "arn:aws:iam::123456789012:role/orders";
    let endpoints = Endpoints::of(ROLE);
    let sts = Sts::start(Mood::Failing).await;
    for sdk in &mut all_sdks().await.unwrap() {
        for source in [Source::Container, Source::Imds] {
            // A new agent, so that it looks often whether STS is back.
            sts.is(Mood::Failing);
            let agent = endpoints.start(KEYS, &sts.url());
            let environment = endpoints.environment(source, &sts.tells());
            let asking = sdk.ask(&environment, None);
            let back = async {
                until("the SDK is told to ask again", async || {
                    (counted(&agent, "unavailable") > 0.0).then_some(())
                })
                .await;
                sts.is(Mood::Well(Duration::from_secs(3600)));
            };
            let (said, ()) = tokio::join!(asking, back);
            let is_served = |said: &Value| {
                let arn = said["arn"].as_str();
                arn.is_some_and(|arn| arn.contains("/ASIA"))
            };
            let said = said.unwrap();
            let by_itself = is_served(&said);
            let again = counted(&agent, "unavailable");
            println!(
                "{}, {source:?}: {again} times 503, served by its own attempts: {by_itself}: {said}",
                sdk.name
            );
            assert!((1.0..=MOST_REQUESTS).contains(&again), "{again}");
            if !by_itself {
                // Then the app is told, and served when it asks again.
                assert!(said["error"].as_str().is_some_and(|why| !why.is_empty()));
                until("it is served", async || {
                    let said = sdk.ask(&environment, None).await.unwrap();
                    is_served(&said).then_some(())
                })
                .await;
            }
            assert_eq!(agent.stop().code, Some(0));
        }
    }
}
