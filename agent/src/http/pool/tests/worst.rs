//! An upstream that breaks its kept connections at the worst moment, thousands of times over: no safe request is
//! lost, and no unsafe one reaches it twice (S4). Counted where it counts, at the upstream.

use std::collections::HashMap;

use super::*;

const TRIES: usize = 2_000;

/// Which request on a connection is broken off: the first ones show that the connection is good.
const BREAKS_AT: usize = 2;

/// How often each request was served, or might have been, by its target.
type Served = Arc<Mutex<HashMap<String, usize>>>;

/// When a connection is broken off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// While it is idle, after an answer that promised to keep it.
    Idle,
    /// When some bytes of the request are read.
    Midway(usize),
    /// When all of it is read, before the answer.
    Served,
    /// In the midst of the answer's head.
    Answering,
    /// When the answer's head is out, and its body is not.
    Answered,
}

impl Moment {
    fn of(number: usize) -> Self {
        match number % 5 {
            0 => Self::Idle,
            // Shorter than any head here: a connection that is not broken off would never end.
            1 => Self::Midway(number / 5 % 36 + 1),
            2 => Self::Served,
            3 => Self::Answering,
            _ => Self::Answered,
        }
    }
}

/// Closes: in order, or by a reset, with whatever was not read.
fn close(stream: TcpStream, number: usize) {
    if number.is_multiple_of(2) {
        let _ = stream.set_zero_linger();
    }
    drop(stream);
}

/// An HTTP/1.1 upstream; the nth connection breaks off its [`BREAKS_AT`]th request at the nth moment.
async fn breaking(served: Served) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for number in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(serve_and_break(stream, served.clone(), number));
        }
    });
    address
}

async fn serve_and_break(mut stream: TcpStream, served: Served, number: usize) {
    let moment = Moment::of(number);
    for request in 0.. {
        let breaks = request == BREAKS_AT;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match (breaks, moment) {
                (true, Moment::Midway(count)) if head.len() >= count => {
                    return close(stream, number);
                }
                _ => {}
            }
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => return,
            }
        }
        let head = String::from_utf8(head).unwrap();
        let target = head.split(' ').nth(1).unwrap().to_owned();
        *lock(&served).entry(target).or_default() += 1;
        match (breaks, moment) {
            (true, Moment::Served) => return close(stream, number),
            (true, Moment::Answering) => {
                stream.write_all(&OK[..17]).await.unwrap();
                return close(stream, number);
            }
            (true, Moment::Answered) => {
                stream.write_all(&OK[..OK.len() - 2]).await.unwrap();
                return close(stream, number);
            }
            _ => stream.write_all(OK).await.unwrap(),
        }
        if request + 1 == BREAKS_AT && moment == Moment::Idle {
            return close(stream, number);
        }
    }
}

/// What the caller saw of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Saw {
    Answer,
    /// An answer that broke off: it is not passed off as whole, and nobody may try again for the caller.
    PartOfAnAnswer,
    Failure,
}

async fn ask(upstream: &Upstream, method: Method, target: &str) -> Saw {
    let mut request = request(method);
    *request.uri_mut() = target.parse().unwrap();
    let saw = match upstream.send(request, SOON).await {
        Ok(response) => match response.into_body().collect().await {
            Ok(_) => Saw::Answer,
            Err(_) => Saw::PartOfAnAnswer,
        },
        Err(SendError::Broken { .. }) => Saw::Failure,
        Err(other) => panic!("{other}"),
    };
    // The connection's task hears of the end, and so the next request can have the connection.
    for _ in 0..8 {
        tokio::task::yield_now().await;
    }
    saw
}

#[tokio::test]
async fn s04_connections_that_break_at_the_worst_moment_lose_nothing_safe_and_repeat_nothing_unsafe()
 {
    let served = Served::default();
    let address = breaking(served.clone()).await;
    let upstream = plain(&Pool::new(8), address);
    let mut saw: HashMap<(Method, Saw), usize> = HashMap::new();
    for number in 0..TRIES {
        // Both kinds meet every moment: a connection lasts three requests.
        let method = match number % 7 {
            0 | 2 | 5 => Method::POST,
            _ => Method::GET,
        };
        let target = format!("/{number}");
        let outcome = ask(&upstream, method.clone(), &target).await;
        let times = lock(&served).get(&target).copied().unwrap_or_default();
        if method == Method::GET {
            assert_ne!(outcome, Saw::Failure, "GET {target} was lost");
            assert!((1..=2).contains(&times), "GET {target}: {times} times");
        } else {
            assert!(times <= 1, "POST {target} was served {times} times");
            assert!(outcome != Saw::Answer || times == 1, "POST {target}");
        }
        *saw.entry((method, outcome)).or_default() += 1;
    }
    // It did break, for both.
    for (method, outcome) in [
        (Method::GET, Saw::PartOfAnAnswer),
        (Method::POST, Saw::PartOfAnAnswer),
        (Method::POST, Saw::Failure),
    ] {
        let key = (method, outcome);
        assert!(
            saw.get(&key).is_some_and(|count| *count > TRIES / 100),
            "{saw:?}"
        );
    }
    let twice = lock(&served).values().filter(|times| **times == 2).count();
    assert!(twice > TRIES / 100, "{twice} were repeated");
}

/// The same over HTTP/2: a relay that cuts the connection some bytes after its first answers.
async fn relay(to: SocketAddr, answered: Arc<AtomicUsize>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for number in 0_usize.. {
            let (mut near, _) = listener.accept().await.unwrap();
            let mut far = TcpStream::connect(to).await.unwrap();
            // Passed on piece by piece, which must not wait for each other.
            near.set_nodelay(true).unwrap();
            far.set_nodelay(true).unwrap();
            let (answered, begun) = (answered.clone(), answered.load(Ordering::SeqCst));
            tokio::spawn(async move {
                // Up to 120 bytes: none of a request's frames, some, or all; of its answer, too.
                let mut left = number * 7 % 120;
                let (mut asked, mut told) = ([0; 16], [0; 16]);
                loop {
                    let (from_near, count) = tokio::select! {
                        read = near.read(&mut asked) => (true, read.unwrap_or(0)),
                        read = far.read(&mut told) => (false, read.unwrap_or(0)),
                    };
                    let armed = answered.load(Ordering::SeqCst) >= begun + BREAKS_AT;
                    if count == 0 || armed && count > left {
                        close(far, number + 1);
                        return close(near, number);
                    }
                    left -= if armed { count } else { 0 };
                    let _ = match from_near {
                        true => far.write_all(&asked[..count]).await,
                        false => near.write_all(&told[..count]).await,
                    };
                }
            });
        }
    });
    address
}

/// HTTP/2 without TLS; every now and then it says GOAWAY in the midst of requests.
async fn http2_upstream(served: Served, goes_away: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for number in 0_usize.. {
            let (stream, _) = listener.accept().await.unwrap();
            let served = served.clone();
            let count = Arc::new(AtomicUsize::new(0));
            let counted = count.clone();
            let answer = service_fn(move |request: Request<Incoming>| {
                let (served, counted) = (served.clone(), counted.clone());
                async move {
                    *lock(&served)
                        .entry(request.uri().path().to_owned())
                        .or_default() += 1;
                    counted.fetch_add(1, Ordering::SeqCst);
                    tokio::task::yield_now().await;
                    Ok::<_, hyper::Error>(Response::new(Full::new(Bytes::from_static(b"ok"))))
                }
            });
            tokio::spawn(async move {
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let connection = server.serve_connection(TokioIo::new(stream), answer);
                let mut connection = std::pin::pin!(connection);
                let mut went = !goes_away;
                std::future::poll_fn(|cx| {
                    if !went && count.load(Ordering::SeqCst) > number % 5 {
                        went = true;
                        connection.as_mut().graceful_shutdown();
                    }
                    connection.as_mut().poll(cx)
                })
                .await
                .ok();
            });
        }
    });
    address
}

fn http2(pool: &Pool, address: SocketAddr) -> Upstream {
    let destination = Destination {
        http2: true,
        ..Destination::new(Address::Socket(address), None)
    };
    pool.upstream(destination, Keep::UPSTREAM)
}

#[tokio::test]
async fn s04_http2_connections_that_are_cut_lose_nothing_safe_and_repeat_nothing_unsafe() {
    let served = Served::default();
    let answered = Arc::new(AtomicUsize::new(0));
    let upstream = http2_upstream(served.clone(), false).await;
    let relay = relay(upstream, answered.clone()).await;
    let upstream = http2(&Pool::new(8), relay);
    let (mut failed, mut parts) = (0, 0);
    for number in 0..TRIES / 2 {
        let method = match number % 3 {
            0 => Method::POST,
            _ => Method::GET,
        };
        let target = format!("/{number}");
        let outcome = ask(&upstream, method.clone(), &target).await;
        answered.fetch_add(1, Ordering::SeqCst);
        let times = lock(&served).get(&target).copied().unwrap_or_default();
        if method == Method::GET {
            assert_ne!(outcome, Saw::Failure, "GET {target} was lost");
            assert!((1..=2).contains(&times), "GET {target}: {times} times");
        } else {
            assert!(times <= 1, "POST {target} was served {times} times");
            failed += usize::from(outcome == Saw::Failure);
        }
        parts += usize::from(outcome == Saw::PartOfAnAnswer);
    }
    println!("{failed} POSTs failed, {parts} answers broke off");
    assert!(failed > 20, "{failed}");
}

#[tokio::test]
async fn s04_a_goaway_in_the_midst_of_requests_loses_nothing_safe_and_repeats_nothing_unsafe() {
    let served = Served::default();
    let address = http2_upstream(served.clone(), true).await;
    let pool = Pool::new(64);
    let upstream = http2(&pool, address);
    for round in 0..TRIES / 16 {
        let calls: Vec<_> = (0..16)
            .map(|number| {
                let (upstream, served) = (upstream.clone(), served.clone());
                tokio::spawn(async move {
                    let method = match number % 3 {
                        0 => Method::POST,
                        _ => Method::GET,
                    };
                    let target = format!("/{round}/{number}");
                    let outcome = ask(&upstream, method.clone(), &target).await;
                    let times = lock(&served).get(&target).copied().unwrap_or_default();
                    if method == Method::GET {
                        assert_eq!(outcome, Saw::Answer, "GET {target}");
                    } else {
                        assert!(times <= 1, "POST {target} was served {times} times");
                    }
                })
            })
            .collect();
        for call in calls {
            call.await.unwrap();
        }
    }
}
