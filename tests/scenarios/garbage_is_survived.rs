//! Garbage on every listener: each lives on and serves.

use std::{
    io::Write,
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use rustls::{ClientConnection, StreamOwned, pki_types::ServerName};
use warifu::tls::{self, Anchors};
use warifu_tests::process::{AuthorityProcess, PlainApp, Sandbox, Talk, ask};

/// How long an answer to garbage is waited for; none is as good.
const PATIENCE: Duration = Duration::from_millis(300);

/// Connections that begin a request and never end it.
const SLOW: usize = 40;

/// Where garbage is thrown.
enum Target {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Target {
    fn connect(&self) -> Box<dyn Talk> {
        match self {
            Self::Tcp(address) => {
                let stream = TcpStream::connect(address).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                stream.set_write_timeout(Some(PATIENCE)).unwrap();
                Box::new(stream)
            }
            Self::Unix(path) => {
                let stream = UnixStream::connect(path).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                stream.set_write_timeout(Some(PATIENCE)).unwrap();
                Box::new(stream)
            }
        }
    }

    /// Sends all of `garbage`, as far as it is taken, and reads what comes of it.
    fn throw(&self, garbage: &[u8]) -> Vec<u8> {
        let mut stream = self.connect();
        throw(&mut *stream, garbage)
    }
}

fn throw(stream: &mut dyn Talk, garbage: &[u8]) -> Vec<u8> {
    let mut answer = Vec::new();
    // It may be closed before it has everything.
    let _ = stream.write_all(garbage).and_then(|()| stream.flush());
    let _ = stream.read_to_end(&mut answer);
    answer
}

/// Always the same, of any length.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    })
    .take(length)
    .collect()
}

fn garbage() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = vec![
        vec![],
        vec![0],
        vec![0; 70_000],
        vec![0xff; 5_000],
        b"\r\n\r\n\r\n".to_vec(),
        b"GET\r\n\r\n".to_vec(),
        b"GET / HTTP/9.9\r\n\r\n".to_vec(),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        b"GET  HTTP/1.1\r\nhost: \xff\xfe\r\n\r\n".to_vec(),
        b"GET http://[::1 HTTP/1.1\r\nhost: a\r\n\r\n".to_vec(),
        b"GET /%zz/..//;\x01 HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n".to_vec(),
        b"CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\n\r\n".to_vec(),
        b"OPTIONS * HTTP/1.1\r\nhost: *\r\n\r\n".to_vec(),
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999999999999999999\r\n\r\n".to_vec(),
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n".to_vec(),
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\ncontent-length: 5\r\n\r\nabcd".to_vec(),
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n".to_vec(),
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, gzip\r\n\r\nzz\r\n".to_vec(),
        b"GET / HTTP/1.1\r\nhost: a\r\nupgrade: h2c\r\nconnection: upgrade, http2-settings\r\nhttp2-settings: !!\r\n\r\n".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
    ];
    // Headers: one too large, too many, and one that never ends.
    let mut large = b"GET / HTTP/1.1\r\nhost: a\r\nx: ".to_vec();
    large.extend(vec![b'x'; 200_000]);
    all.push(large);
    let many: String = (0..5_000).map(|n| format!("x{n}: y\r\n")).collect();
    all.push(format!("GET / HTTP/1.1\r\nhost: a\r\n{many}\r\n").into_bytes());
    all.push(format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "a".repeat(100_000)).into_bytes());
    // HTTP/2: a preface, then frames of every type and noise in them.
    for kind in 0..=10_u8 {
        let mut frames = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
        frames.extend([0, 0, 40, kind, 0xff, 0, 0, 0, 1]);
        frames.extend(noise(kind.into(), 400));
        all.push(frames);
    }
    // TLS: a ClientHello cut short at many places, records of wrong lengths, noise in records.
    let hello = client_hello();
    all.extend((1..hello.len()).step_by(37).map(|at| hello[..at].to_vec()));
    for at in (0..hello.len()).step_by(53) {
        let mut bent = hello.clone();
        bent[at] ^= 0xff;
        all.push(bent);
    }
    all.push([&[0x16, 3, 1, 0xff, 0xff][..], &noise(1, 70_000)].concat());
    all.push([&[0x17, 3, 3, 0, 5][..], &noise(2, 5)].concat());
    all.push(hello.repeat(3));
    all.extend((1..30).map(|seed| noise(seed * 7919, (seed * seed * 13) as usize)));
    all
}

fn client_hello() -> Vec<u8> {
    let mut connection = connection(&"0".repeat(64));
    let mut hello = Vec::new();
    connection.write_tls(&mut hello).unwrap();
    hello
}

/// A TLS client of an authority with the root `pin`.
fn connection(pin: &str) -> ClientConnection {
    let mut spki = [0; 32];
    for (byte, digits) in spki.iter_mut().zip(pin.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap();
    }
    let anchors = Anchors {
        spki_sha256: vec![spki],
        roots: vec![],
    };
    let id = "spiffe://example.org/warifu/authority".parse().unwrap();
    let mut config = tls::bootstrap_client_config(&anchors, &id).unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = ServerName::try_from("127.0.0.1").unwrap();
    ClientConnection::new(Arc::new(config), name).unwrap()
}

/// Requests of the issuing API that are none, over TLS.
fn throw_at_the_api(authority: &AuthorityProcess) {
    let post = |path: &str, body: &[u8]| {
        let mut request = format!(
            "POST {path} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n\
             connection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        request.extend(body);
        request
    };
    let deep = "[".repeat(60_000);
    let attest = r#"{"challenge":"","evidence":{"kind":"join-token","token":""},"csr":"","renewal_key":{},"proof":""}"#;
    let mut requests = vec![post("/v1/challenge", b"\0"), post("/v1/bundle", b"")];
    for path in ["/v1/attest", "/v1/renew", "/v1/jwt-svid"] {
        for body in [
            &b""[..],
            b"null",
            b"{\"challenge\":",
            deep.as_bytes(),
            attest.as_bytes(),
            &[b' '; 70_000],
            &noise(5, 3_000),
            br#"{"challenge":"AAAA","record":"a.b.c","csr":"_w","audiences":[],"proof":"__"}"#,
        ] {
            requests.push(post(path, body));
        }
    }
    for request in requests.into_iter().chain(garbage()) {
        let tcp = TcpStream::connect(authority.address).unwrap();
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        tcp.set_write_timeout(Some(PATIENCE)).unwrap();
        let mut stream = StreamOwned::new(connection(&authority.pin), tcp);
        let answer = throw(&mut stream, &request);
        if request.starts_with(b"POST /v1/") {
            let answer = String::from_utf8_lossy(&answer).into_owned();
            let refused = answer.starts_with("HTTP/1.1 4");
            let challenge = request.starts_with(b"POST /v1/challenge");
            assert!(refused || challenge, "{answer}");
        }
    }
}

#[test]
fn s17_garbage_on_every_listener_ends_nothing_but_its_own_connection() {
    let (sandbox, app) = (Sandbox::new(), PlainApp::prompt());
    let mut authority = sandbox.authority();
    sandbox.join_token("payments");
    sandbox.join_token("orders");
    let more = format!(
        "inbound:\n- listen: 127.0.0.1:0\n  forward: \"http://{}\"\n  \
         accept: [{{mtls: {{trust_domains: [example.org]}}}}]\n  \
         allow: [{{peer: \"spiffe://example.org/orders\", to: [\"GET /\"]}}]\n",
        app.address
    );
    let payments = sandbox.agent("payments", &authority, &more).start();
    let mut payments = sandbox.listening("payments", payments);
    let inbound = payments.inbound.unwrap();
    let more = format!(
        "outbound:\n  listen: 127.0.0.1:0\n  routes: [{{host: payments, \
         upstream: \"https://{inbound}\", mtls: {{expect: \"spiffe://example.org/payments\"}}}}]\n"
    );
    let orders = sandbox.agent("orders", &authority, &more).start();
    let mut orders = sandbox.listening("orders", orders);
    payments.wait_until_ready();
    orders.wait_until_ready();

    let targets = [
        Target::Tcp(inbound),
        Target::Tcp(orders.outbound.unwrap()),
        Target::Tcp(orders.probes),
        Target::Unix(orders.admin.clone()),
        Target::Tcp(authority.address),
        Target::Tcp(authority.probes),
        Target::Unix(sandbox.path("authority.sock")),
    ];
    let garbage = garbage();
    // The same listener at once from many sides, and the next one meanwhile.
    std::thread::scope(|scope| {
        for target in &targets {
            for part in garbage.chunks(garbage.len() / 6 + 1) {
                scope.spawn(|| part.iter().for_each(|it| drop(target.throw(it))));
            }
        }
        scope.spawn(|| throw_at_the_api(&authority));
    });

    // Those that begin and never end hold nobody up.
    let begun = |target: &Target| {
        let mut stream = target.connect();
        let _ = stream.write_all(b"GET / HTTP/1.1\r\nhost: ");
        stream
    };
    let slow: Vec<_> = targets
        .iter()
        .flat_map(|target| (0..SLOW).map(move |_| begun(target)))
        .collect();
    let answer = orders.call("payments", "/");
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert!(answer.text.ends_with("hello"));
    for agent in [&orders, &payments] {
        assert_eq!(agent.probe("/healthz").status, 200);
    }
    let ready = ask(&authority.probes, "localhost", "/readyz").unwrap();
    assert_eq!(ready.status, 200);
    drop(slow);
    let status = ["authority", "status", "--config", "authority.yaml"];
    assert_eq!(sandbox.warifu(&status).run().code, Some(0));

    for running in [
        &mut orders.running,
        &mut payments.running,
        &mut authority.running,
    ] {
        assert!(running.runs());
        let said = running.stderr();
        assert!(!said.contains("panicked"), "{said}");
    }
}
