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

#[tokio::test]
async fn who_waits_for_the_first_identity_has_it_at_once() {
    let world = World::new();
    let mut client = world.client().await;
    let waiting = tokio::spawn(async move { open(&mut client).await });
    // The call is there, and has no answer yet.
    while world.metrics.waiting() == 0 {
        tokio::task::yield_now().await;
    }
    let identity = world.issue(1);
    let issued = std::time::Instant::now();
    let mut stream = waiting.await.unwrap();
    assert_eq!(
        next(&mut stream).await.unwrap(),
        identity.svid.chain()[0].as_ref()
    );
    assert!(
        issued.elapsed() < Duration::from_millis(900),
        "{:?}",
        issued.elapsed()
    );
}

#[tokio::test]
async fn s14_a_client_with_all_its_streams_open_keeps_nobody_else_waiting() {
    let world = World::new();
    world.issue(1);
    let mut greedy = world.client().await;
    let mut streams = Vec::new();
    for _ in 0..crate::http::server::MAX_STREAMS {
        streams.push(open(&mut greedy).await);
    }
    let one_more = tokio::time::timeout(Duration::from_millis(300), open(&mut greedy));
    assert!(one_more.await.is_err(), "more streams than may be");
    let mut other = open(&mut world.client().await).await;
    next(&mut other).await.unwrap();
}

#[tokio::test]
async fn s14_a_thousand_streams_see_the_last_of_a_hundred_rotations_and_nothing_older_is_kept() {
    const CONNECTIONS: usize = 10;
    const STREAMS: usize = 100;
    let world = World::new();
    let mut older = vec![Arc::downgrade(&world.issue(1))];
    let last = Arc::new(world.ca.identity(102, &[]));
    let chain = last.svid.chain()[0].to_vec();
    let mut canary = open(&mut world.client().await).await;
    next(&mut canary).await.unwrap();
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..CONNECTIONS {
        let mut client = world.client().await;
        for _ in 0..STREAMS {
            let mut stream = open(&mut client).await;
            next(&mut stream).await.unwrap();
            let chain = chain.clone();
            readers.spawn(async move {
                while next(&mut stream).await.unwrap() != chain {}
                stream
            });
        }
    }
    assert_eq!(world.metrics.streams(), (CONNECTIONS * STREAMS + 1) as i64);
    let before = resident();
    for generation in 2..102 {
        let identity = match generation {
            101 => Arc::clone(&last),
            _ => Arc::new(world.ca.identity(generation, &[])),
        };
        if generation < 101 {
            older.push(Arc::downgrade(&identity));
        }
        world.identity.send_replace(Some(Arc::clone(&identity)));
        // One keeps up; the others read as they come to it.
        let told = next(&mut canary).await.unwrap();
        assert_eq!(told, identity.svid.chain()[0].as_ref());
    }
    let mut streams = vec![canary];
    while let Some(stream) = readers.join_next().await {
        streams.push(stream.unwrap());
    }
    let grown = resident().saturating_sub(before) / 1024;
    // What the clients have not read yet is counted, too, and what other tests of this process hold.
    println!("1,000 streams, 100 rotations: {grown} KiB more, both ends together");
    assert!(older.iter().all(|identity| identity.upgrade().is_none()));
    drop(streams);
    while world.metrics.streams() > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Bytes this process holds. Others of its tests run beside this one.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * rustix::param::page_size()
}
