//! STS goes away: every SDK is given the last good session to its end, then gets a clear error, and is served again by
//! itself when STS returns.

use std::time::{Duration, SystemTime};

use serde_json::Value;
use warifu_tests::{
    aws::{Endpoints, Keys, Mood, Source, Sts},
    mesh::until,
    peers::AwsSdk,
};

use super::aws_credentials_clients::all_sdks;

const KEYS: Keys<'_> = Keys {
    id: "AKIABASE",
    secret: "s",
};
const ROLE: &str = "arn:aws:iam::123456789012:role/orders";

/// Real STS gives no session so short; it is as if the rest of its life had passed. Long enough for a look by each SDK.
const LIFE: Duration = Duration::from_secs(30);

/// Has the SDK call AWS: `arn` ends with the access key id it was called with.
async fn call(sdk: &mut AwsSdk, endpoints: &Endpoints, source: Source, sts: &Sts) -> Value {
    let environment = endpoints.environment(source, &sts.tells());
    sdk.ask(&environment, None).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s13_sdks_are_given_the_last_good_session_to_its_end_then_an_error_and_heal() {
    let mut sdks = all_sdks().await.unwrap();
    let sts = Sts::start(Mood::Well(LIFE)).await;
    let endpoints = Endpoints::of(ROLE);
    let agent = endpoints.start(KEYS, &sts.url());
    until("there is a session", async || {
        agent.credentials_or_none(ROLE, "orders")
    })
    .await;
    sts.is(Mood::Failing);
    let expires = sts.expires();
    let mut served = 0;
    for sdk in &mut sdks {
        for source in Source::ALL {
            let said = call(sdk, &endpoints, source, &sts).await;
            // What was answered late, on a busy machine, says nothing.
            if SystemTime::now() < expires {
                let arn = said["arn"].as_str();
                assert!(
                    arn.is_some_and(|arn| arn.contains("/ASIA")),
                    "{}, {source:?}: {said}",
                    sdk.name
                );
                served += 1;
            }
        }
    }
    assert!(served > 3, "{served}");

    until("it expires", async || {
        (SystemTime::now() > expires).then_some(())
    })
    .await;
    for sdk in &mut sdks {
        let said = call(sdk, &endpoints, Source::Container, &sts).await;
        let why = said["error"].as_str();
        assert!(
            why.is_some_and(|why| !why.is_empty()),
            "{}: {said}",
            sdk.name
        );
    }

    sts.is(Mood::Well(Duration::from_secs(3600)));
    for sdk in &mut sdks {
        for source in Source::ALL {
            until("it heals", async || {
                let said = call(sdk, &endpoints, source, &sts).await;
                said["arn"].is_string().then_some(())
            })
            .await;
        }
    }
}
