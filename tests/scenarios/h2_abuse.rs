//! HTTP/2 as no client speaks it, frame by frame, to the inbound listener of a real agent: what a connection
//! can cost is bounded, others are served meanwhile, and one request stays one.

use std::{fs, sync::Arc, time::Instant};

use rustls::{
    ClientConfig,
    sign::{CertifiedKey, SingleCertAndKey},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use warifu::tls::{self, Anchors};
use warifu_tests::process::{
    AgentProcess, AuthorityProcess, DEADLINE, RawApp, Sandbox,
    frames::{
        ACK, END_HEADERS, END_STREAM, Frame, Frames, block, frame, kind, literal, parameters,
    },
};

/// What the memory of an agent may grow by, at its highest, in KiB: 100 streams with what each of them
/// may buffer either way are 32 MiB at most. What is not bounded grows by hundreds.
const GROWTH: u64 = 64 * 1024;

/// Frames of a flood.
const MANY: u32 = 30_000;

const INITIAL_WINDOW_SIZE: u16 = 4;

/// The largest (RFC 9113 §6.9.1).
const MAX_WINDOW: u32 = 0x7fff_ffff;

/// What it is called, and the frames of each number.
type Flood<'a> = (&'a str, &'a dyn Fn(u32) -> Vec<u8>);

/// *payments* is flooded with an identity of *orders*, whose own agent is the other caller.
struct Front {
    config: ClientConfig,
    app: RawApp,
    payments: AgentProcess,
    orders: AgentProcess,
    highest: u64,
    _authority: AuthorityProcess,
    _sandbox: Sandbox,
}

impl Front {
    fn start() -> Self {
        let (sandbox, app) = (Sandbox::new(), RawApp::start());
        let authority = sandbox.authority();
        sandbox.join_token("payments");
        sandbox.join_token("orders");
        let more = format!(
            "inbound:\n- listen: 127.0.0.1:0\n  forward: \"http://{}\"\n  \
             accept: [{{mtls: {{trust_domains: [example.org]}}}}]\n  \
             allow: [{{peer: \"spiffe://example.org/orders\", to: [\"* /**\", \"* /\"]}}]\n",
            app.address
        );
        let payments = sandbox.agent("payments", &authority, &more).start();
        let payments = sandbox.listening("payments", payments);
        let socket = format!("unix:{}", sandbox.path("workload.sock").display());
        let more = format!(
            "local: {{workload_api: {{listen: \"{socket}\"}}}}\noutbound:\n  listen: 127.0.0.1:0\n  \
             routes: [{{host: payments, upstream: \"https://{}\", \
             mtls: {{expect: \"spiffe://example.org/payments\"}}}}]\n",
            payments.inbound.unwrap()
        );
        let orders = sandbox.agent("orders", &authority, &more).start();
        let orders = sandbox.listening("orders", orders);
        payments.wait_until_ready();
        orders.wait_until_ready();
        fs::create_dir(sandbox.path("files")).unwrap();
        let write = ["svid", "--write", "files", "--socket", &socket];
        let written = sandbox.warifu(&write).run();
        assert_eq!(written.code, Some(0), "{written:?}");
        let mut front = Self {
            config: client(&sandbox),
            app,
            payments,
            orders,
            highest: 0,
            _authority: authority,
            _sandbox: sandbox,
        };
        front.others_are_served();
        front.highest = front.memory();
        front
    }

    fn begin(&self, settings: &[(u16, u32)]) -> Frames {
        Frames::begin(
            self.payments.inbound.unwrap(),
            self.config.clone(),
            settings,
        )
    }

    fn others_are_served(&self) {
        let answer = self.orders.call("payments", "/other");
        assert_eq!(answer.status, 200, "{}", answer.text);
    }

    /// The most it ever had, in KiB.
    fn memory(&self) -> u64 {
        let status = format!("/proc/{}/status", self.payments.running.pid());
        let status = fs::read_to_string(status).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let number = line.unwrap().trim().trim_end_matches(" kB");
        number.parse().unwrap()
    }

    /// Serves others until it no longer grows.
    fn settles(&self) {
        let began = Instant::now();
        let mut before = 0;
        while before != self.memory() {
            assert!(began.elapsed() < DEADLINE, "it grows and grows");
            before = self.memory();
            (0..20).for_each(|_| self.others_are_served());
        }
    }

    fn nothing_grew(&mut self) {
        for _ in 0..10 {
            self.others_are_served();
        }
        let grown = self.memory() - self.highest;
        assert!(grown < GROWTH, "{grown} KiB more");
        assert!(self.payments.running.runs());
        let said = self.payments.running.stderr();
        assert!(!said.contains("panicked"), "{said}");
    }
}

fn client(sandbox: &Sandbox) -> ClientConfig {
    let pem = |name: &str| fs::read(sandbox.path("files").join(name)).unwrap();
    let certificates = |name: &str| -> Vec<_> {
        let pem = pem(name);
        CertificateDer::pem_slice_iter(&pem)
            .map(Result::unwrap)
            .collect()
    };
    let anchors = Anchors {
        roots: certificates("bundle.pem"),
        ..Anchors::default()
    };
    let id = "spiffe://example.org/payments".parse().unwrap();
    let mut config = tls::bootstrap_client_config(&anchors, &id).unwrap();
    let key = PrivateKeyDer::from_pem_slice(&pem("svid-key.pem")).unwrap();
    let own = CertifiedKey::from_der(certificates("svid.pem"), key, &tls::provider()).unwrap();
    config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(own));
    config
}

fn request(path: &str) -> Vec<(&str, &str)> {
    vec![
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", "payments"),
        (":path", path),
    ]
}

fn get(stream: u32, path: &str) -> Vec<u8> {
    let flags = END_HEADERS | END_STREAM;
    frame(kind::HEADERS, flags, stream, &block(&request(path)))
}

/// A request whose body is to follow.
fn post(stream: u32, path: &str) -> Vec<u8> {
    frame(kind::HEADERS, END_HEADERS, stream, &block(&request(path)))
}

fn stream(number: u32) -> u32 {
    number * 2 + 1
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < DEADLINE, "{what}: not in time");
        std::thread::yield_now();
    }
}

/// What a server says to a stream, or to all: `None` where it closed the connection without a word.
fn verdict(frames: &mut Frames, stream: u32) -> Option<Frame> {
    frames.until(|it| {
        it.kind == kind::GOAWAY
            || it.stream == stream && [kind::HEADERS, kind::RST_STREAM].contains(&it.kind)
    })
}

/// Whether a verdict is anything but an answer 200, which HPACK has as entry 8 of its static table.
fn refused(verdict: Option<&Frame>) -> bool {
    let Some(frame) = verdict else { return true };
    frame.kind != kind::HEADERS || frame.payload.first().is_some_and(|first| *first != 0x88)
}

#[test]
fn s14_requests_that_are_taken_back_at_once_end_their_connection() {
    let mut front = Front::start();
    let mut frames = front.begin(&[]);
    let taken = frames.flood(MANY, |number| {
        let mut bytes = get(stream(number), "/reset");
        bytes.extend(frame(kind::RST_STREAM, 0, stream(number), &[0, 0, 0, 8]));
        bytes
    });
    assert!(taken < MANY, "it was never cut off");
    front.nothing_grew();
    let reached = front.app.with("/reset");
    assert!(reached < 1_000, "{reached} requests reached the app");
}

#[test]
fn s14_requests_that_the_server_is_made_to_reset_end_their_connection() {
    let mut front = Front::start();
    let overflow = 0x7fff_ffff_u32.to_be_bytes();
    let bad: [Flood<'_>; 4] = [
        ("zero window", &|at| {
            frame(kind::WINDOW_UPDATE, 0, at, &[0; 4])
        }),
        ("window overflow", &|at| {
            frame(kind::WINDOW_UPDATE, 0, at, &overflow)
        }),
        ("half-closed", &|at| frame(kind::DATA, 0, at, b"more")),
        ("self-dependency", &|at| {
            let weighed = [&at.to_be_bytes()[..], &[1]].concat();
            frame(kind::PRIORITY, 0, at, &weighed)
        }),
    ];
    for (what, bad) in bad {
        let mut frames = front.begin(&[]);
        let taken = frames.flood(MANY, |number| {
            [get(stream(number), "/made"), bad(stream(number))].concat()
        });
        assert!(taken < MANY, "{what}: it was never cut off");
        front.others_are_served();
    }
    front.nothing_grew();
    let reached = front.app.with("/made");
    assert!(reached < 10_000, "{reached} requests reached the app");
}

#[test]
fn s14_header_blocks_without_an_end_and_header_bombs_reach_no_app() {
    let mut front = Front::start();
    // Empty ones, and such that grow.
    for each in [Vec::new(), literal(0, "x", &"y".repeat(1_000))] {
        let mut frames = front.begin(&[]);
        let head = frame(kind::HEADERS, END_STREAM, 1, &block(&request("/bomb")));
        frames.send(&head).unwrap();
        let taken = frames.flood(MANY, |_| frame(kind::CONTINUATION, 0, 1, &each));
        assert!(taken < MANY, "it was never cut off");
    }
    // 4,000 bytes put into the table, then named 10,000 times over: 40 MB in 10 KB.
    let mut bomb = block(&request("/bomb"));
    bomb.extend(literal(0x40, "x-bomb", &"b".repeat(4_000)));
    bomb.extend([0x80 | 62; 10_000]);
    // 32 KiB, and as many lines as fit.
    let mut long = block(&request("/bomb"));
    (0..4).for_each(|_| long.extend(literal(0, "x-long", &"l".repeat(8_000))));
    let mut many = block(&request("/bomb"));
    (0..3_000).for_each(|_| many.extend(literal(0, "x", "")));
    for block in [bomb, long, many] {
        let mut frames = front.begin(&[]);
        let mut parts = block.chunks(16_000).peekable();
        let mut bytes = Vec::new();
        let mut kind = kind::HEADERS;
        while let Some(part) = parts.next() {
            let last = if parts.peek().is_none() {
                END_HEADERS
            } else {
                0
            };
            let ends = if kind == kind::HEADERS { END_STREAM } else { 0 };
            bytes.extend(frame(kind, last | ends, 1, part));
            kind = kind::CONTINUATION;
        }
        let _ = frames.send(&bytes);
        assert!(refused(verdict(&mut frames, 1).as_ref()));
    }
    front.nothing_grew();
    assert_eq!(front.app.with("/bomb"), 0);
}

#[test]
fn s14_a_client_that_opens_streams_and_never_reads_holds_little_and_nobody_up() {
    let mut front = Front::start();
    // Ten times as many as may be at once. A window of nothing, one of a byte that comes and goes, and all there can be.
    let opened = 1_000;
    for (window, path) in [
        (0, "/large/never"),
        (1, "/large/slow"),
        (MAX_WINDOW, "/large/unread"),
    ] {
        let mut frames = front.begin(&[(INITIAL_WINDOW_SIZE, window)]);
        let more = (MAX_WINDOW - 65_535).to_be_bytes();
        let mut all = frame(kind::WINDOW_UPDATE, 0, 0, &more);
        all.extend((0..opened).flat_map(|number| get(stream(number), path)));
        frames.send(&all).unwrap();
        until("requests at the app", || front.app.with(path) >= 100);
        front.others_are_served();
        // What is buffered for it is, by then.
        front.settles();
        if window < MAX_WINDOW {
            let _ = frames.flood(2_000, |number| {
                let bytes = (number % 3).to_be_bytes();
                let window = parameters(&[(INITIAL_WINDOW_SIZE, u32::from(bytes[3]))]);
                frame(kind::SETTINGS, 0, 0, &window)
            });
        }
        front.nothing_grew();
        assert_eq!(front.app.with(path), 100);
    }
    let answer = front.orders.call("payments", "/large/other");
    assert!(answer.text.len() > 8 * 1024 * 1024);
}

#[test]
fn s14_floods_of_frames_that_ask_for_an_answer_or_carry_nothing_are_bounded() {
    let mut front = Front::start();
    let floods: [Flood<'_>; 4] = [
        ("SETTINGS", &|_| frame(kind::SETTINGS, 0, 0, &[])),
        ("PING", &|_| frame(kind::PING, 0, 0, &[7; 8])),
        ("empty DATA", &|_| frame(kind::DATA, 0, 1, &[])),
        ("of an unknown type", &|_| frame(0x77, 0, 0, &[1; 100])),
    ];
    for (what, make) in floods {
        // What it says is left unread.
        let mut frames = front.begin(&[]);
        frames.send(&post(1, "/flood")).unwrap();
        let taken = frames.flood(20 * MANY, make);
        // An answer takes the place of the one before, and what is not known is let go by: that may go on.
        assert!(
            taken < 20 * MANY || what != "empty DATA",
            "it is never enough"
        );
        front.others_are_served();
    }
    // Who reads is served: an answer for each.
    let mut frames = front.begin(&[]);
    for _ in 0..100 {
        frames.send(&frame(kind::PING, 0, 0, &[7; 8])).unwrap();
        let answer = frames.until(|it| it.kind == kind::PING && it.flags & ACK != 0);
        assert!(answer.is_some());
    }
    front.nothing_grew();
}

#[test]
fn s04_a_request_over_http_2_that_reads_in_two_ways_is_none() {
    let mut front = Front::start();
    let with = |more: &[(&'static str, &'static str)]| {
        let mut fields = request("/twice");
        fields.extend(more);
        fields
    };
    let instead = |name: &str, value: &'static str| {
        let mut fields = request("/twice");
        fields.retain_mut(|field| {
            field.1 = if field.0 == name { value } else { field.1 };
            true
        });
        fields
    };
    let without = |name: &str| {
        let mut fields = request("/twice");
        fields.retain(|field| field.0 != name);
        fields
    };
    let table: Vec<Vec<(&str, &str)>> = vec![
        with(&[(":path", "/twice/other")]),
        with(&[(":method", "POST")]),
        with(&[(":authority", "elsewhere")]),
        with(&[(":unknown", "x")]),
        with(&[("x", "y"), (":path", "/twice")]),
        with(&[("host", "elsewhere")]),
        with(&[("host", "payments"), ("host", "payments")]),
        with(&[("X-Upper", "y")]),
        with(&[("x y", "z")]),
        with(&[("x:y", "z")]),
        with(&[("", "z")]),
        with(&[("x\r\ny", "z")]),
        with(&[("connection", "close")]),
        with(&[("connection", "x-warifu-caller")]),
        with(&[("transfer-encoding", "chunked")]),
        with(&[("keep-alive", "5")]),
        with(&[("upgrade", "h2c")]),
        with(&[("te", "gzip")]),
        with(&[("content-length", "+0")]),
        with(&[("content-length", "-1")]),
        with(&[("content-length", "0, 0")]),
        with(&[("content-length", "18446744073709551616")]),
        with(&[("content-length", "5")]),
        with(&[("x", "y\r\nhost: elsewhere")]),
        with(&[("x", "y\nhost: elsewhere")]),
        with(&[("x", "y\rz")]),
        with(&[("x", "y\0z")]),
        instead(":path", "/twice HTTP/1.1\r\nx: y"),
        instead(":path", "/twice HTTP/1.1"),
        instead(":path", "/twice\t"),
        instead(":path", "/twice/../other"),
        instead(":path", "http://elsewhere/twice"),
        instead(":path", "twice"),
        instead(":path", ""),
        instead(":path", "*"),
        instead(":method", "GET /smuggled HTTP/1.1\r\n\r\nGET"),
        instead(":method", ""),
        instead(":authority", "orders@payments"),
        instead(":authority", "payments/smuggled"),
        instead(":authority", "payments\r\nx: y"),
        instead(":authority", ""),
        without(":path"),
        without(":method"),
        without(":scheme"),
    ];
    let before = front.app.connections().len();
    for fields in table {
        let mut frames = front.begin(&[]);
        let bytes = frame(kind::HEADERS, END_HEADERS | END_STREAM, 1, &block(&fields));
        frames.send(&bytes).unwrap();
        assert!(refused(verdict(&mut frames, 1).as_ref()), "{fields:?}");
        let seen = front.app.connections().split_off(before);
        assert!(seen.is_empty(), "{fields:?}: {seen:?}");
    }
    // A length that is not the body's: no byte beyond it, and none in its place.
    for (path, said, body) in [
        (
            "/short",
            "4",
            "bodyGET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n",
        ),
        ("/none", "0", "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n"),
        ("/long", "400", "body"),
    ] {
        let mut frames = front.begin(&[]);
        let mut fields = request(path);
        fields.push(("content-length", said));
        let mut bytes = frame(kind::HEADERS, END_HEADERS, 1, &block(&fields));
        bytes.extend(frame(kind::DATA, END_STREAM, 1, body.as_bytes()));
        frames.send(&bytes).unwrap();
        let said = verdict(&mut frames, 1);
        assert!(refused(said.as_ref()), "{path}: {said:?}");
        front.others_are_served();
    }
    // What is no length is a body like any other: in chunks, or counted.
    let mut frames = front.begin(&[]);
    frames.send(&post(1, "/plain")).unwrap();
    let body = b"0\r\n\r\nGET /hidden HTTP/1.1\r\n\r\n";
    frames
        .send(&frame(kind::DATA, END_STREAM, 1, body))
        .unwrap();
    assert!(!refused(verdict(&mut frames, 1).as_ref()));

    front.nothing_grew();
    for seen in front.app.connections() {
        assert!(!seen.contains("/smuggled"), "{seen}");
        let heads = seen.matches(" HTTP/1.1\r\n").count();
        assert!(heads <= 1 || seen.contains("\r\n\r\n1D\r\n"), "{seen}");
        assert!(
            !seen.contains("/long") || !seen.contains("/other"),
            "{seen}"
        );
    }
}
