//! Listeners whose app speaks no HTTP: what a caller sends, what the app reads, and when neither does any more.

use std::{
    num::{NonZeroU32, NonZeroUsize},
    task::{Context, Waker},
};

use proxy_header::{ParseConfig, ProxyHeader, Tlv};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixListener},
};
use tokio_rustls::client::TlsStream;

use super::*;
use crate::{
    config::{
        inbound::{PerCaller, Permissive, ProxyProtocol, Rule},
        value::{Listen, Moment, Span},
    },
    http::proxy_protocol::SPIFFE_ID,
};

/// An app that speaks no HTTP: connections are the test's to serve.
struct Served {
    fixture: Fixture,
    app: TcpListener,
}

type Caller = TlsStream<TcpStream>;

fn who(peer: &str) -> Rule {
    Rule {
        peer: Some(peer.parse().unwrap()),
        ..Rule::default()
    }
}

impl Served {
    /// Orders may connect.
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut config::Inbound)) -> Self {
        Self::sampled(NonZeroU32::MIN, change).await
    }

    /// Of connections that are allowed, one in so many has its lines.
    async fn sampled(
        allowed_one_in: NonZeroU32,
        change: impl FnOnce(&mut config::Inbound),
    ) -> Self {
        let app = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = Listen::Tcp(app.local_addr().unwrap());
        let revocations = identity::Revocations::default();
        let fixture = Fixture::start(App::Absent, revocations, allowed_one_in, |config| {
            config.forward = Some(Forward::Opaque(at));
            config.allow = vec![who(ORDERS)];
            change(config);
        });
        Self {
            fixture: fixture.await,
            app,
        }
    }

    async fn connect(&self, id: &str) -> Caller {
        // Whatever a client offers: there is nothing to choose from.
        let client = self.fixture.client(id);
        self.fixture.connect(client, b"postgresql").await
    }

    /// The app's end of the next connection.
    async fn accept(&self) -> TcpStream {
        let accepted = tokio::time::timeout(fixture::DEADLINE, self.app.accept());
        accepted
            .await
            .expect("the app gets a connection")
            .unwrap()
            .0
    }

    /// Both ends of a connection of orders'.
    async fn connected(&self) -> (Caller, TcpStream) {
        let mut caller = self.connect(ORDERS).await;
        caller.write_all(b"hello").await.unwrap();
        let mut app = self.accept().await;
        assert_eq!(read(&mut app, 5).await, b"hello");
        (caller, app)
    }

    /// Whether the app got no connection (more).
    fn nobody_came(&self) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        self.app.poll_accept(&mut context).is_pending()
    }

    /// The next line that is of a result.
    async fn line(&self, result: &str) -> Value {
        let found = async {
            loop {
                let lines = self.fixture.audit.all();
                if let Some(line) = lines.into_iter().find(|line| line["result"] == result) {
                    return line;
                }
                tokio::task::yield_now().await;
            }
        };
        let found = tokio::time::timeout(fixture::DEADLINE, found).await;
        found.unwrap_or_else(|_| panic!("{result}: {:?}", self.fixture.audit.all()))
    }

    /// All lines of so many connections, from begin to end.
    async fn lines_of(self, connections: usize) -> Vec<Value> {
        for _ in 0..connections {
            let (mut caller, app) = self.connected().await;
            drop(app);
            caller.shutdown().await.unwrap();
            rest(&mut caller).await.unwrap();
        }
        let Self { fixture, .. } = self;
        fixture.drain.start(fixture::DEADLINE);
        assert_eq!(fixture.handle.drained().await, 0);
        fixture.audit.all()
    }

    fn metric(&self, name: &str) -> f64 {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.fixture.registry).unwrap();
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().unwrap())
    }
}

async fn read(from: &mut (impl AsyncReadExt + Unpin), length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let read = tokio::time::timeout(fixture::DEADLINE, from.read_exact(&mut bytes));
    read.await.expect("bytes in time").unwrap();
    bytes
}

/// All that still comes; an error where it does not end of itself.
async fn rest(from: &mut (impl AsyncReadExt + Unpin)) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(fixture::DEADLINE, from.read_to_end(&mut bytes));
    read.await.expect("an end in time").map(|_| bytes)
}

/// What the app is told before the first byte, as somebody else's parser reads it: all of the header, and no more.
async fn told(app: &mut TcpStream) -> Vec<u8> {
    let mut header = read(app, 16).await;
    let length = u16::from_be_bytes([header[14], header[15]]);
    header.extend(read(app, length.into()).await);
    header
}

fn told_id(header: &[u8]) -> Option<String> {
    let (header, _) = ProxyHeader::parse(header, ParseConfig::default()).unwrap();
    header.tlvs().find_map(|tlv| match tlv.unwrap() {
        Tlv::Custom(SPIFFE_ID, id) => Some(String::from_utf8(id.into_owned()).unwrap()),
        _ => None,
    })
}

#[tokio::test]
async fn s03_the_app_is_told_who_connects_and_what_a_caller_says_of_that_is_bytes() {
    let served = Served::with(|config| config.proxy_protocol = Some(ProxyProtocol::V2)).await;
    let mut caller = served.connect(ORDERS).await;
    let local = caller.get_ref().0.local_addr().unwrap();
    let forged = b"\r\n\r\n\0\r\nQUIT\n\x21\x00\x00\x0f\xe0\x00\x0cspiffe://a/b";
    caller.write_all(forged).await.unwrap();
    let mut app = served.accept().await;
    let header = told(&mut app).await;
    assert_eq!(read(&mut app, forged.len()).await, forged);

    let (parsed, length) = ProxyHeader::parse(&header, ParseConfig::default()).unwrap();
    assert_eq!(length, header.len());
    let between = parsed.proxied_address().unwrap();
    let Listen::Tcp(listener) = *served.fixture.handle.address() else {
        panic!()
    };
    assert_eq!((between.source, between.destination), (local, listener));
    assert_eq!(
        (parsed.authority(), parsed.alpn()),
        (Some("localhost"), None)
    );
    let tls = parsed.ssl().unwrap();
    assert!(tls.client_ssl() && tls.client_cert_conn() && tls.client_cert_sess());
    assert_eq!(
        (tls.verify(), tls.version(), tls.cn()),
        (0, Some("TLSv1.3"), None)
    );
    assert_eq!(told_id(&header).as_deref(), Some(ORDERS));
    // The audit log knows the connection by the name that the app was told.
    let line = served.line("allowed").await;
    let id = String::from_utf8(parsed.unique_id().unwrap().to_vec()).unwrap();
    assert_eq!((line["connection"].as_str(), id.len()), (Some(&*id), 32));
}

#[tokio::test]
async fn s16_whom_no_rule_allows_or_one_denies_opens_no_connection_to_the_app() {
    let deny = who("spiffe://example.org/billing");
    let served = Served::with(|config| {
        config.allow.push(who("spiffe://example.org/**"));
        config.allow[1].source = vec!["192.0.2.0/24".parse().unwrap()];
        config.allow.push(who("spiffe://example.org/billing"));
        config.deny = vec![deny];
    });
    let served = served.await;
    for (id, rule) in [
        (PAYMENTS, Value::Null),
        ("spiffe://example.org/billing", json!("deny[0]")),
    ] {
        let mut caller = served.connect(id).await;
        // It is closed as TLS closes: this is no accident on the way.
        assert_eq!(rest(&mut caller).await.unwrap(), b"");
        let line = served.fixture.audited();
        assert_eq!(
            json!([
                line["event"],
                line["peer"],
                line["result"],
                line["reason"],
                line["rule"]
            ]),
            json!(["inbound-connection", id, "denied", "denied", rule])
        );
        for absent in ["method", "path", "status"] {
            assert!(line.get(absent).is_none(), "{line}");
        }
    }
    assert!(served.nobody_came());
    assert_eq!(
        served.metric("inbound_refused_total{reason=\"denied\"}"),
        2.0
    );
    assert_eq!(served.metric("inbound_carried_total"), 0.0);
    // Nor does who proves nothing.
    let mut nobody = served.fixture.nobody().await;
    nobody.send("hello").await;
    assert!(nobody.response().await.is_none());
    served.line("refused").await;
    assert!(served.nobody_came());
}

#[tokio::test]
async fn an_end_of_either_side_is_passed_on_and_the_other_half_goes_on() {
    let served = Served::new().await;
    let much = vec![7; 300_000];
    let (mut caller, mut app) = served.connected().await;
    caller.shutdown().await.unwrap();
    assert_eq!(rest(&mut app).await.unwrap(), b"");
    let answer = async {
        app.write_all(&much).await.unwrap();
        drop(app);
    };
    let (got, ()) = tokio::join!(rest(&mut caller), answer);
    assert!(got.unwrap() == much);

    let (mut caller, mut app) = served.connected().await;
    app.shutdown().await.unwrap();
    assert_eq!(rest(&mut caller).await.unwrap(), b"");
    let upload = async {
        caller.write_all(&much).await.unwrap();
        caller.shutdown().await.unwrap();
    };
    let (got, ()) = tokio::join!(rest(&mut app), upload);
    assert!(got.unwrap() == much);
}

#[tokio::test]
async fn a_connection_has_a_line_when_it_is_let_in_and_one_when_it_ends() {
    let served = Served::new().await;
    let (mut caller, mut app) = served.connected().await;
    let began = served.line("allowed").await;
    assert_eq!(
        json!([
            began["event"],
            began["peer"],
            began["rule"],
            began.get("status")
        ]),
        json!(["inbound-connection", ORDERS, "allow[0]", null])
    );
    assert_eq!(served.metric("inbound_carried_total"), 1.0);
    assert_eq!(served.metric("inbound_tunnels{to=\"app\"}"), 1.0);
    assert_eq!(served.fixture.audit.all().len(), 1);
    app.write_all(b"hello you").await.unwrap();
    drop(app);
    assert_eq!(rest(&mut caller).await.unwrap(), b"hello you");
    caller.shutdown().await.unwrap();
    let ended = served.line("ended").await;
    assert_eq!(
        json!([
            ended["event"],
            ended["peer"],
            ended["reason"],
            ended["bytes_received"],
            ended["bytes_sent"],
            ended["remote"],
            ended["connection"],
        ]),
        json!([
            "inbound-connection",
            ORDERS,
            "closed",
            5,
            9,
            began["remote"],
            began["connection"]
        ])
    );
    assert!(ended["duration_us"].as_u64() > began["duration_us"].as_u64());
}

#[tokio::test]
async fn lines_of_a_connection_are_left_out_together() {
    let served = Served::sampled(NonZeroU32::new(2).unwrap(), |_| {}).await;
    let lines = served.lines_of(4).await;
    let results: Vec<_> = lines
        .iter()
        .map(|it| it["result"].as_str().unwrap())
        .collect();
    assert_eq!(
        results.iter().filter(|it| **it == "allowed").count(),
        2,
        "{results:?}"
    );
    for line in lines.iter().filter(|it| it["result"] == "ended") {
        let same =
            |it: &&Value| it["result"] == "allowed" && it["connection"] == line["connection"];
        assert!(lines.iter().any(|it| same(&it)), "{line}");
        assert_eq!(line["one_in"], 2);
    }
}

#[tokio::test]
async fn s16_a_caller_that_is_revoked_or_no_longer_allowed_is_cut_off_its_open_connection() {
    let served = Served::new().await;
    let (mut caller, mut app) = served.connected().await;
    served.fixture.revoke(ORDERS);
    // A part is not to be taken for the whole.
    rest(&mut caller).await.unwrap_err();
    rest(&mut app).await.unwrap_err();
    let line = served.line("withdrawn").await;
    assert_eq!(
        json!([line["peer"], line["reason"]]),
        json!([ORDERS, "revoked"])
    );
    assert_eq!(served.metric("inbound_withdrawn_total"), 1.0);
    let mut again = served.connect(ORDERS).await;
    assert_eq!(rest(&mut again).await.unwrap(), b"");
    assert!(served.nobody_came());

    let served = Served::new().await;
    let (mut caller, mut app) = served.connected().await;
    let deny = vec![who("spiffe://example.org/**")];
    served.fixture.reload(|config| config.deny = deny).await;
    rest(&mut caller).await.unwrap_err();
    rest(&mut app).await.unwrap_err();
    let line = served.line("withdrawn").await;
    assert_eq!(
        json!([line["peer"], line["reason"]]),
        json!([ORDERS, "denied"])
    );
}

#[cfg(feature = "rego")]
#[tokio::test]
async fn s16_a_policy_is_asked_of_a_connection_before_its_first_byte_and_while_it_lasts() {
    use super::rego::{PATIENT, Written};

    let orders = "allow if {
        input.peer.spiffe_id == \"spiffe://example.org/orders\"
        input.request.method == \"CONNECT\"
        input.request.segments == []
        input.request.source == \"127.0.0.1\"
    }";
    let written = Written::new(orders);
    let served = Served::with(|config| written.asked(config, PATIENT)).await;
    let mut other = served.connect(PAYMENTS).await;
    assert_eq!(rest(&mut other).await.unwrap(), b"");
    assert!(served.nobody_came());
    let line = served.line("denied").await;
    assert_eq!(line["detail"], "not_allowed_by_rego", "{line}");

    let (mut caller, mut app) = served.connected().await;
    let none = Written::new("allow := false");
    served
        .fixture
        .reload(|config| none.asked(config, PATIENT))
        .await;
    rest(&mut caller).await.unwrap_err();
    rest(&mut app).await.unwrap_err();
    let line = served.line("withdrawn").await;
    assert_eq!(
        json!([line["peer"], line["reason"]]),
        json!([ORDERS, "denied"])
    );
}

#[tokio::test]
async fn a_rule_in_shadow_cuts_nobody_and_both_lines_are_there_whatever_the_sample() {
    let shadow = Rule {
        shadow: true,
        ..who("spiffe://example.org/**")
    };
    let never = NonZeroU32::new(1_000_000).unwrap();
    let served = Served::sampled(never, |config| config.deny = vec![shadow]).await;
    let lines = served.lines_of(2).await;
    let of = |result: &str| {
        let lines = lines.iter().filter(|line| line["result"] == result);
        lines.cloned().collect::<Vec<_>>()
    };
    let allowed = of("allowed");
    assert_eq!((allowed.len(), of("ended").len()), (2, 2), "{lines:?}");
    for line in allowed {
        assert_eq!(line["shadow_denied_by"], "deny[0]");
    }
}

#[tokio::test]
async fn a_reload_sends_new_connections_elsewhere_while_those_that_are_up_go_on() {
    let served = Served::new().await;
    let (mut caller, mut app) = served.connected().await;
    let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = other.local_addr().unwrap();
    let reloaded = served.fixture.reload(|config| {
        config.forward = Some(Forward::Opaque(Listen::Tcp(at)));
        config.proxy_protocol = Some(ProxyProtocol::V2);
    });
    reloaded.await;
    let mut new = served.connect(ORDERS).await;
    let (mut moved, _) = other.accept().await.unwrap();
    assert_eq!(told_id(&told(&mut moved).await).as_deref(), Some(ORDERS));
    new.write_all(b"there").await.unwrap();
    assert_eq!(read(&mut moved, 5).await, b"there");
    caller.write_all(b"here").await.unwrap();
    assert_eq!(read(&mut app, 4).await, b"here");

    // What speaks HTTP is another listener's: that takes a restart.
    let live = served.fixture.handle.live();
    let mut config = live.config();
    assert!(live.is_of(&config));
    config.forward = Some(Forward::Tcp(at));
    assert!(!live.is_of(&config));
}

#[tokio::test]
async fn where_the_app_is_not_there_the_connection_is_closed_and_the_line_says_so() {
    let fixture = Fixture::with(App::Absent, |config| {
        let Some(Forward::Tcp(at)) = config.forward else {
            panic!()
        };
        config.forward = Some(Forward::Opaque(Listen::Tcp(at)));
        config.allow = vec![who(ORDERS)];
    });
    let fixture = fixture.await;
    let mut caller = fixture.connect(fixture.client(ORDERS), b"x").await;
    assert_eq!(rest(&mut caller).await.unwrap(), b"");
    let line = fixture.audited();
    assert_eq!(
        json!([line["event"], line["peer"], line["result"], line["reason"]]),
        json!(["inbound-connection", ORDERS, "failed", "app-unreachable"])
    );
}

#[tokio::test]
async fn an_app_may_listen_on_a_unix_socket() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.sock");
    let app = UnixListener::bind(&path).unwrap();
    let at = Listen::Unix(path);
    let served = Served::with(|config| config.forward = Some(Forward::Opaque(at))).await;
    let mut caller = served.connect(ORDERS).await;
    caller.write_all(b"hello").await.unwrap();
    let (mut app, _) = app.accept().await.unwrap();
    assert_eq!(read(&mut app, 5).await, b"hello");
    app.write_all(b"you").await.unwrap();
    drop(app);
    assert_eq!(rest(&mut caller).await.unwrap(), b"you");
}

#[tokio::test]
async fn s14_a_caller_has_as_many_connections_as_it_may_and_gets_its_places_back() {
    let served = Served::with(|config| {
        config.limits.per_caller = PerCaller {
            rate: None,
            concurrency: Some(NonZeroUsize::MIN),
        };
        config.allow.push(who(PAYMENTS));
    });
    let served = served.await;
    let (caller, app) = served.connected().await;
    let mut crowd = served.connect(ORDERS).await;
    assert_eq!(rest(&mut crowd).await.unwrap(), b"");
    let line = served.fixture.audited();
    assert_eq!(
        json!([line["peer"], line["result"], line["reason"]]),
        json!([ORDERS, "refused", "too-many-requests"])
    );
    // Others have theirs.
    let mut other = served.connect(PAYMENTS).await;
    other.write_all(b"hello").await.unwrap();
    read(&mut served.accept().await, 5).await;
    drop((caller, app));
    served.line("ended").await;
    served.connected().await;
}

#[tokio::test]
async fn s14_beyond_the_limit_of_connections_nothing_is_heard_before_it_is_closed() {
    let served = Served::with(|config| config.max_connections = 1).await;
    let _open = served.connected().await;
    let client = served.fixture.client(ORDERS);
    served.fixture.try_connect(client, b"x").await.unwrap_err();
    assert!(served.nobody_came());
    assert_eq!(
        served.metric("server_turned_away_total{listener=\"inbound\"}"),
        1.0
    );
}

#[tokio::test]
async fn s16_permissive_mode_lets_pass_without_a_name_and_never_who_is_revoked() {
    let permissive = |until: SystemTime| {
        Served::with(move |config| {
            config.proxy_protocol = Some(ProxyProtocol::V2);
            config.permissive = Some(Permissive {
                until: Moment(until),
            });
        })
    };
    let now = SystemTime::now();
    let served = permissive(now + Duration::from_secs(3600)).await;
    let _stranger = served.connect(PAYMENTS).await;
    let header = told(&mut served.accept().await).await;
    assert_eq!(told_id(&header), None);
    let (parsed, _) = ProxyHeader::parse(&header, ParseConfig::default()).unwrap();
    let tls = parsed.ssl().unwrap();
    assert!(tls.client_ssl() && !tls.client_cert_conn() && tls.verify() != 0);
    let line = served.line("let-pass").await;
    assert_eq!(
        json!([line["peer"], line["reason"]]),
        json!([PAYMENTS, "denied"])
    );
    served.fixture.revoke(PAYMENTS);
    let mut revoked = served.connect(PAYMENTS).await;
    assert_eq!(rest(&mut revoked).await.unwrap(), b"");
    served.line("withdrawn").await;

    let served = permissive(now).await;
    let mut late = served.connect(PAYMENTS).await;
    assert_eq!(rest(&mut late).await.unwrap(), b"");
    assert!(served.nobody_came());
}

#[tokio::test]
async fn a_drain_waits_for_connections_and_cuts_what_is_left_which_has_its_line() {
    let served = Served::new().await;
    let (mut stays, mut app) = served.connected().await;
    let (mut goes, its_app) = served.connected().await;
    served.fixture.drain.start(Duration::from_millis(500));
    drop(its_app);
    goes.shutdown().await.unwrap();
    stays.write_all(b"still here").await.unwrap();
    assert_eq!(read(&mut app, 10).await, b"still here");
    let Served { fixture, .. } = served;
    assert_eq!(fixture.handle.drained().await, 1);
    rest(&mut stays).await.unwrap_err();
    rest(&mut app).await.unwrap_err();
    let lines = fixture.audit.all();
    let ended = lines.iter().filter(|line| line["result"] == "ended");
    let mut reasons: Vec<_> = ended.map(|line| line["reason"].as_str().unwrap()).collect();
    reasons.sort_unstable();
    assert_eq!(reasons, ["closed", "cut"]);
}

#[tokio::test]
async fn a_connection_ends_with_what_let_it_in() {
    let served = Served::with(|config| {
        config.max_connection_age = Span(Duration::from_secs(1));
    });
    let served = served.await;
    let (mut caller, _app) = served.connected().await;
    rest(&mut caller).await.unwrap_err();
    let line = served.line("ended").await;
    assert_eq!(line["reason"], "expired");
}
