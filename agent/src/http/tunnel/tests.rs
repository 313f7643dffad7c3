use tokio::io::{AsyncReadExt, DuplexStream, duplex};

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn bounds() -> Bounds {
    Bounds::idle(HOUR)
}

/// A tunnel between two sides that are returned, and how it ended.
fn tunnel(
    bounds: Bounds,
    meter: &Meter,
) -> (
    DuplexStream,
    DuplexStream,
    impl Future<Output = End> + use<>,
) {
    let (near, mut ours) = duplex(1024);
    let (theirs, far) = duplex(1024);
    let meter = meter.clone();
    let carried =
        tokio::spawn(
            async move { join(&mut ours, theirs, &bounds, &meter, &Passed::default()).await },
        );
    (near, far, async move { carried.await.unwrap() })
}

#[tokio::test]
async fn what_goes_in_comes_out_both_ways_and_is_counted() {
    let meter = Meter::default();
    let (near, far, end) = tunnel(bounds(), &meter);
    // Far more than any buffer, so that they grow.
    let sent: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
    let (mut near_in, mut near_out) = tokio::io::split(near);
    let (mut far_in, mut far_out) = tokio::io::split(far);
    let expected = sent.clone();
    let upload = async move {
        near_out.write_all(&sent).await.unwrap();
        near_out.shutdown().await.unwrap();
    };
    let download = async {
        let mut got = Vec::new();
        far_in.read_to_end(&mut got).await.unwrap();
        assert!(got == expected);
        // The other half is still open.
        far_out.write_all(b"thanks").await.unwrap();
        far_out.shutdown().await.unwrap();
    };
    let answer = async {
        let mut got = Vec::new();
        near_in.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"thanks");
    };
    tokio::join!(upload, download, answer);
    assert_eq!(end.await, End::Closed);
    assert_eq!((meter.sent.get(), meter.received.get()), (1_000_000, 6));
    assert_eq!(meter.open.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn s14_a_tunnel_over_which_nothing_moves_ends() {
    let start = Instant::now();
    let idle = Duration::from_secs(60);
    let (mut near, _far, end) = tunnel(Bounds { idle, ..bounds() }, &Meter::default());
    let mut end = pin!(end);
    for _ in 0..5 {
        let soon = tokio::time::timeout(idle * 2 / 3, end.as_mut());
        assert!(soon.await.is_err(), "it ended though bytes moved");
        near.write_all(b"x").await.unwrap();
    }
    assert_eq!(end.await, End::Idle);
    let waited = start.elapsed();
    let expected = idle * 2 / 3 * 5 + idle;
    assert!(
        waited >= expected && waited <= expected + CHECK_EVERY * 2,
        "{waited:?}"
    );
    assert_eq!(near.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_ends_when_a_proof_expires_and_when_it_is_withdrawn() {
    let ends = Some(Instant::now() + Duration::from_secs(30));
    let (mut near, mut far, end) = tunnel(Bounds { ends, ..bounds() }, &Meter::default());
    assert_eq!(end.await, End::Expired);
    assert_eq!(near.read(&mut [0]).await.unwrap(), 0);
    assert_eq!(far.read(&mut [0]).await.unwrap(), 0);

    let revoked = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let still = {
        let revoked = Arc::clone(&revoked);
        Still::new(move || {
            std::future::ready(match revoked.load(Ordering::Relaxed) {
                true => Err("revoked".to_owned()),
                false => Ok(()),
            })
        })
    };
    let still = vec![Still::new(|| std::future::ready(Ok(()))), still];
    let (_near, _far, end) = tunnel(Bounds { still, ..bounds() }, &Meter::default());
    let mut end = pin!(end);
    assert!(tokio::time::timeout(HOUR / 2, end.as_mut()).await.is_err());
    revoked.store(true, Ordering::Relaxed);
    let ended = tokio::time::timeout(CHECK_EVERY * 2, end).await;
    assert_eq!(ended, Ok(End::Withdrawn("revoked".to_owned())));
}

#[tokio::test]
async fn s14_a_tunnel_that_waits_holds_small_buffers() {
    let (mut ours, mut theirs) = duplex(1024);
    let mut buffer = vec![0; LARGE];
    theirs.write_all(b"abc").await.unwrap();
    assert_eq!(read_some(&mut ours, &mut buffer).await.unwrap(), 3);
    assert_eq!(buffer.len(), LARGE);
    let waits = tokio::time::timeout(Duration::from_millis(1), read_some(&mut ours, &mut buffer));
    assert!(waits.await.is_err());
    assert_eq!(buffer.len(), SMALL);
}

#[test]
fn what_is_handed_over_is_taken_once() {
    let mut extensions = Extensions::new();
    Handover::put(&mut extensions, "it");
    let mut copy = extensions.clone();
    assert_eq!(Handover::<&str>::take(&mut extensions), Some("it"));
    assert_eq!(Handover::<&str>::take(&mut extensions), None);
    assert_eq!(Handover::<&str>::take(&mut copy), None);
}
