//! What is bounded and counted: open streams of all services together, the time until an answer.

use std::time::Duration;

use http_body_util::StreamBody;
use tokio::sync::mpsc;
use tonic::{
    Code,
    codegen::tokio_stream::{StreamExt as _, wrappers::ReceiverStream},
};

use super::{
    fixture::{Client, Transport, World, with_header},
    jwt_for,
};
use crate::local::proto::{
    envoy::service::{
        discovery::v3::DiscoveryRequest,
        secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient,
    },
    workload::X509svidRequest,
};

const OPEN: &str = "workload_api_streams";
const OF_SDS: &str = "sds_streams";

fn answers(world: &World, service: &str, method: &str, code: &str) -> u64 {
    let labels = format!(r#"{{method="{method}",code="{code}"}}"#);
    world.metric(&format!("{service}_answers_total{labels}"))
}

async fn open(client: &mut Client) -> Result<tonic::Streaming<impl Sized + use<>>, tonic::Status> {
    let opened = client.fetch_x509svid(with_header(X509svidRequest {})).await;
    opened.map(tonic::Response::into_inner)
}

/// A stream of Envoy's, which has its first secret.
async fn envoy(world: &World) -> Result<impl Sized + use<>, tonic::Status> {
    let mut client = SecretDiscoveryServiceClient::<Transport>::new(world.connect().await);
    let (say, requests) = mpsc::channel(1);
    let ask = DiscoveryRequest {
        resource_names: vec!["default".to_owned()],
        ..DiscoveryRequest::default()
    };
    say.send(ask).await.unwrap();
    let stream = client.stream_secrets(ReceiverStream::new(requests)).await?;
    let mut stream = stream.into_inner();
    stream.message().await?.unwrap();
    Ok((say, stream, client))
}

#[tokio::test]
async fn s14_beyond_the_places_of_streams_a_client_is_told_so_and_all_others_go_on() {
    let world = World::with_places(3);
    let mut client = world.client().await;
    let mut first = open(&mut client).await.unwrap();
    let _second = open(&mut client).await.unwrap();
    // One socket, one bound: Envoy's streams are among them.
    let secrets = envoy(&world).await.unwrap();
    assert_eq!((world.metric(OPEN), world.metric(OF_SDS)), (2, 1));

    let full = "3 streams are open, as many as may be";
    let refused = open(&mut world.client().await).await.err().unwrap();
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::Unavailable, full)
    );
    let refused = envoy(&world).await.err().unwrap();
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::Unavailable, full)
    );
    assert_eq!(
        answers(&world, "workload_api", "FetchX509SVID", "unavailable"),
        1
    );
    assert_eq!(answers(&world, "sds", "StreamSecrets", "unavailable"), 1);

    // Who has a stream is told what changes, and calls that are no streams are answered.
    first.message().await.unwrap().unwrap();
    world.issue(2);
    first.message().await.unwrap().unwrap();
    client.fetch_jwtsvid(jwt_for(&["payments"])).await.unwrap();

    // A place that is given back is taken again, whoever had it.
    drop(secrets);
    let again = async {
        while world.metric(OF_SDS) > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), again)
        .await
        .unwrap();
    let _again = open(&mut world.client().await).await.unwrap();
    assert_eq!(world.metric(OPEN), 3);
}

#[tokio::test]
async fn streams_answers_and_refusals_are_counted_by_method_and_code() {
    let world = World::with_places(8);
    let mut client = world.client().await;
    let stream = open(&mut client).await.unwrap();
    client.fetch_jwtsvid(jwt_for(&["payments"])).await.unwrap();
    client.fetch_jwtsvid(jwt_for(&[])).await.unwrap_err();
    let unguarded = tonic::Request::new(X509svidRequest {});
    client.fetch_x509svid(unguarded).await.unwrap_err();
    world.identity.send_replace(None);
    world.fail(true, "no rule matches");
    client
        .fetch_jwtsvid(jwt_for(&["payments"]))
        .await
        .unwrap_err();
    for (method, code, count) in [
        ("FetchX509SVID", "ok", 1),
        ("FetchX509SVID", "invalid_argument", 1),
        ("FetchJWTSVID", "ok", 1),
        ("FetchJWTSVID", "invalid_argument", 1),
        ("FetchJWTSVID", "permission_denied", 1),
    ] {
        let counted = answers(&world, "workload_api", method, code);
        assert_eq!(counted, count, "{method} {code}");
    }
    drop(stream);
    let gone = async {
        while world.metric(OPEN) > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone)
        .await
        .unwrap();
}

/// The head of a call is there, and of its message nothing, or the beginning.
#[tokio::test]
async fn s14_a_call_whose_message_never_comes_is_answered_within_half_a_minute_and_holds_up_nobody()
{
    let world = World::with_places(8);
    for begun in [&[][..], &[0, 0, 0, 0, 99, 1]] {
        let mut transport = world.connect().await;
        let (say, frames) = mpsc::channel(1);
        if !begun.is_empty() {
            say.send(bytes::Bytes::from_static(begun)).await.unwrap();
        }
        let frames = ReceiverStream::new(frames);
        let frames = frames.map(|data| Ok::<_, tonic::Status>(http_body::Frame::data(data)));
        let request = http::Request::post("/SpiffeWorkloadAPI/FetchX509SVID")
            .header("content-type", "application/grpc")
            .header("workload.spiffe.io", "true")
            .body(tonic::body::Body::new(StreamBody::new(frames)))
            .unwrap();
        let late = tower_service::Service::call(&mut transport, request);
        let late = tokio::spawn(late);
        // Others are answered meanwhile.
        open(&mut world.client().await).await.unwrap();
        assert!(!late.is_finished());

        tokio::time::pause();
        let asked = tokio::time::Instant::now();
        let answer = late.await.unwrap().unwrap();
        let waited = asked.elapsed();
        tokio::time::resume();
        assert_eq!(answer.headers()["grpc-status"], "4", "{answer:?}");
        let message = answer.headers()["grpc-message"].to_str().unwrap();
        assert!(message.contains("30s"), "{message}");
        let limit = Duration::from_secs(29)..Duration::from_secs(31);
        assert!(limit.contains(&waited), "{waited:?}");
        drop(say);
    }
}
