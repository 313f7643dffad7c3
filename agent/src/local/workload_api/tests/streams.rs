use std::{sync::Arc, time::Duration};

use tonic::{Code, Streaming};

use super::fixture::{Client, World, with_header};
use crate::local::proto::workload::{X509svidRequest, X509svidResponse};

/// Longer than anything here takes.
const SOON: Duration = Duration::from_secs(10);

async fn open(client: &mut Client) -> Streaming<X509svidResponse> {
    let opened = client.fetch_x509svid(with_header(X509svidRequest {})).await;
    opened.unwrap().into_inner()
}

async fn next(stream: &mut Streaming<X509svidResponse>) -> Result<Vec<u8>, tonic::Status> {
    let message = tokio::time::timeout(SOON, stream.message())
        .await
        .unwrap()?;
    let message = message.expect("a stream does not end with OK");
    Ok(message.svids[0].x509_svid.to_vec())
}

#[tokio::test]
async fn a_change_is_told_and_nothing_when_nothing_changed() {
    let world = World::new();
    let first = world.issue(1);
    let mut stream = open(&mut world.client().await).await;
    assert_eq!(
        next(&mut stream).await.unwrap(),
        first.svid.chain()[0].as_ref()
    );
    // The same again, as a new generation: what is told next is what comes after it.
    let same = world.ca.again(&first, 2);
    world.identity.send_replace(Some(Arc::new(same)));
    tokio::task::yield_now().await;
    assert!(
        tokio::time::timeout(Duration::from_millis(200), stream.message())
            .await
            .is_err()
    );
    let third = world.issue(3);
    assert_eq!(
        next(&mut stream).await.unwrap(),
        third.svid.chain()[0].as_ref()
    );
}

#[tokio::test]
async fn who_was_not_looking_is_told_the_last_state_alone() {
    let world = World::new();
    world.issue(1);
    let mut stream = open(&mut world.client().await).await;
    next(&mut stream).await.unwrap();
    // On one thread the server can't take a turn in between.
    for generation in 2..100 {
        world.issue(generation);
    }
    let last = world.issue(100);
    assert_eq!(
        next(&mut stream).await.unwrap(),
        last.svid.chain()[0].as_ref()
    );
}

#[tokio::test]
async fn streams_of_an_identity_that_expired_end_with_unavailable() {
    let world = World::new();
    world.issue(1);
    let mut stream = open(&mut world.client().await).await;
    next(&mut stream).await.unwrap();
    world.identity.send_replace(None);
    let ended = next(&mut stream).await.unwrap_err();
    assert_eq!(ended.code(), Code::Unavailable, "{ended}");
}

#[tokio::test]
async fn a_drain_ends_streams_with_unavailable_at_once_and_answers_new_calls_so() {
    let world = World::new();
    world.issue(1);
    let mut client = world.client().await;
    let mut stream = open(&mut client).await;
    next(&mut stream).await.unwrap();
    let mut health = super::health(world.connect().await).await.unwrap();
    assert_eq!(health.message().await.unwrap().unwrap().status, 1);
    world.drain.start(Duration::from_secs(60));
    let ended = next(&mut stream).await.unwrap_err();
    assert_eq!(ended.code(), Code::Unavailable, "{ended}");
    let ended = health.message().await.unwrap_err();
    assert_eq!(ended.code(), Code::Unavailable, "{ended}");
    let refused = client.fetch_x509svid(with_header(X509svidRequest {})).await;
    assert_eq!(refused.unwrap_err().code(), Code::Unavailable);
    let cut = tokio::time::timeout(SOON, world.serving).await;
    assert_eq!(
        cut.expect("the drain does not wait for streams").unwrap(),
        0
    );
}
