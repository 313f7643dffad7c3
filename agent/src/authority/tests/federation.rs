//! Other trust domains: a whole authority as partner, and partners that misbehave.

use std::{fs, net::SocketAddr, sync::Mutex};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use warifu::{identity::TrustBundle, jwt::KeySet};

use super::*;
use crate::{
    attest::Client,
    authority::{
        federation::Federation,
        metrics::Metrics,
        state::{Document, Memory},
    },
    config::authority::{Federated, FederationProfile, Web},
};

const PARTNER: &str = "partner.example";

fn partner_domain() -> TrustDomain {
    TrustDomain::new(PARTNER).unwrap()
}

/// The partner: an authority with a front door (`https_spiffe`) and a web listener (`https_web`).
async fn partner() -> Running {
    Running::start(|config| {
        config.trust_domain = partner_domain();
        config.web = Some(Web {
            listen: ([127, 0, 0, 1], 0).into(),
            tls: None,
        });
    })
    .await
}

fn by_web(url: &str) -> Federated {
    Federated {
        trust_domain: partner_domain(),
        profile: FederationProfile::HttpsWeb,
        url: url.parse().unwrap(),
        endpoint_spiffe_id: None,
        bundle: None,
        ca_file: None,
    }
}

fn by_spiffe_id(partner: &Running, bundle: &Path) -> Federated {
    Federated {
        profile: FederationProfile::HttpsSpiffe,
        url: format!("https://{}/v1/bundle", partner.authority.address())
            .parse()
            .unwrap(),
        endpoint_spiffe_id: Some(
            SpiffeId::new("spiffe://partner.example/warifu/authority").unwrap(),
        ),
        bundle: Some(bundle.to_owned()),
        ..by_web("https://unused.example")
    }
}

fn bundle_of(running: &Running) -> TrustBundle {
    running.authority.issuing.live.load().bundle.clone()
}

/// A federation of one, its store, and what it hands on.
struct Poller {
    federation: Federation,
    store: Memory,
    metrics: Metrics,
}

impl Poller {
    fn new(configured: Federated) -> Self {
        Self {
            federation: Federation::new(&[configured]).unwrap(),
            store: Memory::default(),
            metrics: Metrics::default(),
        }
    }

    async fn poll(&self) -> Duration {
        let now = SystemTime::UNIX_EPOCH + HOUR;
        self.federation
            .poll(0, &self.store, &self.metrics, now)
            .await
    }

    /// The partner's bundle, as agents are given it.
    fn known(&self) -> Option<TrustBundle> {
        let own = TrustBundle {
            trust_domain: td(),
            x509_authorities: vec![],
            jwt_authorities: KeySet::default(),
            sequence: 1,
            refresh_hint: MINUTE * 5,
        };
        let page = self.federation.map(&own, &own.to_json().into());
        let mut all = TrustBundle::map_from_json(&page.body).unwrap();
        let at = all
            .iter()
            .position(|it| it.trust_domain == own.trust_domain);
        assert_eq!(all.remove(at.unwrap()), own);
        assert!(all.len() <= 1);
        all.pop()
    }

    fn trouble(&self) -> String {
        let status = self.federation.status().pop().unwrap();
        status.last_error.unwrap_or_default()
    }
}

/// A bundle endpoint over plaintext that answers what the test says.
struct Endpoint {
    address: SocketAddr,
    answer: Arc<Mutex<String>>,
}

impl Endpoint {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answer = Arc::new(Mutex::new(String::new()));
        let say = Arc::clone(&answer);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let _ = stream.read(&mut [0; 4096]).await;
                let answer = say.lock().unwrap().clone();
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Self { address, answer }
    }

    fn url(&self) -> String {
        format!("http://{}/bundle", self.address)
    }

    fn says(&self, answer: String) {
        *self.answer.lock().unwrap() = answer;
    }

    fn publishes(&self, bundle: &TrustBundle) {
        let json = bundle.to_json();
        let length = json.len();
        self.says(format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{json}"
        ));
    }
}

fn made_up(sequence: u64) -> TrustBundle {
    let key = SigningKey::generate();
    TrustBundle {
        trust_domain: partner_domain(),
        x509_authorities: vec![],
        jwt_authorities: KeySet::new(vec![key.public().clone()]),
        sequence,
        refresh_hint: MINUTE,
    }
}

#[tokio::test]
async fn https_web_gets_the_partners_bundle_beside_our_own() {
    let partner = partner().await;
    let url = format!("http://{}/bundle", partner.authority.web().unwrap());
    let poller = Poller::new(by_web(&url));
    assert_eq!(poller.known(), None);
    let next = poller.poll().await;
    assert_eq!(poller.known(), Some(bundle_of(&partner)));
    assert_eq!(next, MINUTE * 5, "the refresh hint");
}

#[tokio::test]
async fn https_spiffe_knows_the_endpoint_by_its_spiffe_id_and_follows_its_roots() {
    let partner = partner().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("partner.json");
    fs::write(&file, bundle_of(&partner).to_json()).unwrap();
    let poller = Poller::new(by_spiffe_id(&partner, &file));
    assert_eq!(poller.known(), Some(bundle_of(&partner)), "from the file");

    partner.authority.rotate().await.unwrap();
    poller.poll().await;
    assert_eq!(poller.trouble(), "");
    let known = poller.known().unwrap();
    assert_eq!(known, bundle_of(&partner));
    assert_eq!(known.x509_authorities.len(), 2);
}

#[tokio::test]
async fn s19_https_spiffe_refuses_whoever_else_answers() {
    let partner = partner().await;
    let stranger = self::partner().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("partner.json");
    fs::write(&file, bundle_of(&partner).to_json()).unwrap();

    // The same SPIFFE ID, under other roots.
    let poller = Poller::new(by_spiffe_id(&stranger, &file));
    poller.poll().await;
    assert!(
        poller.trouble().contains("no connection"),
        "{}",
        poller.trouble()
    );
    // The same roots, another SPIFFE ID.
    let mut other = by_spiffe_id(&partner, &file);
    other.endpoint_spiffe_id = Some(SpiffeId::new("spiffe://partner.example/else").unwrap());
    let poller = Poller::new(other);
    poller.poll().await;
    assert!(
        poller.trouble().contains("no connection"),
        "{}",
        poller.trouble()
    );
    assert_eq!(
        poller.known(),
        Some(bundle_of(&partner)),
        "what was known stays"
    );
}

#[tokio::test]
async fn s13_a_failure_keeps_what_is_known_and_waits_a_whole_interval() {
    let endpoint = Endpoint::start().await;
    let poller = Poller::new(by_web(&endpoint.url()));
    endpoint.says("HTTP/1.1 503 Away\r\ncontent-length: 0\r\n\r\n".to_owned());
    assert_eq!(poller.poll().await, MINUTE * 5, "nothing is known yet");
    let good = made_up(7);
    endpoint.publishes(&good);
    assert_eq!(poller.poll().await, MINUTE);

    let moved = format!("HTTP/1.1 302 Found\r\nlocation: {}\r\n\r\n", endpoint.url());
    for (bad, says) in [
        ("HTTP/1.1 503 Away\r\ncontent-length: 0\r\n\r\n", "503"),
        (moved.as_str(), "redirects are not followed"),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
            "no bundle",
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 70000\r\n\r\n",
            "longer than 65536",
        ),
        ("SSH-2.0\r\n", "broke off"),
    ] {
        endpoint.says(bad.to_owned());
        assert_eq!(poller.poll().await, MINUTE, "{bad}");
        assert!(
            poller.trouble().contains(says),
            "{bad}: {}",
            poller.trouble()
        );
        assert_eq!(poller.known(), Some(good.clone()));
    }
    endpoint.publishes(&good);
    poller.poll().await;
    assert_eq!(poller.trouble(), "");
}

#[tokio::test]
async fn an_older_bundle_is_not_taken_and_one_of_the_same_sequence_is() {
    let endpoint = Endpoint::start().await;
    let poller = Poller::new(by_web(&endpoint.url()));
    let good = made_up(7);
    for (bundle, known) in [
        (good.clone(), good.clone()),
        (made_up(6), good.clone()),
        (made_up(0), good),
    ] {
        endpoint.publishes(&bundle);
        poller.poll().await;
        assert_eq!(poller.known(), Some(known));
    }
    assert!(poller.trouble().contains("sequence 0, and 7 is known"));
    let again = made_up(7);
    endpoint.publishes(&again);
    poller.poll().await;
    assert_eq!(poller.known(), Some(again));
}

#[tokio::test]
async fn the_interval_has_bounds_whatever_the_hint() {
    let endpoint = Endpoint::start().await;
    let poller = Poller::new(by_web(&endpoint.url()));
    for (hint, expected) in [(Duration::ZERO, Duration::from_secs(10)), (DAY * 365, DAY)] {
        let bundle = TrustBundle {
            refresh_hint: hint,
            ..made_up(7)
        };
        endpoint.publishes(&bundle);
        assert_eq!(poller.poll().await, expected);
    }
}

#[tokio::test]
async fn a_replica_that_starts_anew_knows_what_was_known_unless_the_configuration_changed() {
    let endpoint = Endpoint::start().await;
    let configured = by_web(&endpoint.url());
    let poller = Poller::new(configured.clone());
    let good = made_up(7);
    endpoint.publishes(&good);
    poller.poll().await;

    let anew = async |configured: Federated| {
        let federation = Federation::new(&[configured]).unwrap();
        federation.load(&poller.store).await.unwrap();
        federation.status().pop().unwrap()
    };
    let known = anew(configured.clone()).await;
    assert_eq!(
        (known.sequence, known.fetched_at.as_deref()),
        (Some(7), Some("1970-01-01T01:00:00.000Z"))
    );
    let elsewhere = by_web("https://elsewhere.example/bundle");
    assert_eq!(anew(elsewhere).await.sequence, None);
    let mut another = configured.clone();
    another.trust_domain = TrustDomain::new("another.example").unwrap();
    assert_eq!(anew(another).await.sequence, None);

    // What a replica that is behind has, is not kept over it.
    let behind = Poller {
        federation: Federation::new(std::slice::from_ref(&configured)).unwrap(),
        ..poller
    };
    endpoint.publishes(&made_up(6));
    behind.poll().await;
    let federation = Federation::new(&[configured]).unwrap();
    federation.load(&behind.store).await.unwrap();
    assert_eq!(federation.status().pop().unwrap().sequence, Some(7));

    // Damage there is no reason not to start.
    let version = behind
        .store
        .load(Document::Federation)
        .await
        .unwrap()
        .unwrap()
        .version;
    let swapped = behind
        .store
        .compare_and_swap(Document::Federation, Some(version), b"x".to_vec());
    assert!(swapped.await.unwrap());
    assert!(federation.load(&behind.store).await.is_ok());
}

#[tokio::test]
async fn a_first_bundle_that_cannot_be_used_is_named_at_start() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("partner.json");
    let partner = partner().await;
    let why = || {
        let refused = Federation::new(&[by_spiffe_id(&partner, &file)]).unwrap_err();
        refused.to_string()
    };
    assert!(
        why().starts_with("federation, partner.example: bundle"),
        "{}",
        why()
    );
    for (bad, says) in [
        ("{}".to_owned(), "not a SPIFFE bundle"),
        (r#"{"keys":[]}"#.to_owned(), "no X.509 authority"),
        (" ".repeat(70_000), "over 65536 bytes"),
    ] {
        fs::write(&file, bad).unwrap();
        assert!(why().contains(says), "{}", why());
    }
}

#[tokio::test]
async fn agents_are_given_every_bundle_each_by_itself() {
    let partner = partner().await;
    let url = format!("http://{}/bundle", partner.authority.web().unwrap());
    let running = Running::start(|config| config.federation = vec![by_web(&url)]).await;
    let client = Client::new(&td(), &running.as_seen()).unwrap();
    let (bundles, etag) = loop {
        let (bundles, etag) = client.bundles(None).await.unwrap().unwrap();
        if bundles.len() == 2 {
            break (bundles, etag);
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(bundles, [bundle_of(&running), bundle_of(&partner)]);
    assert!(
        client.bundles(etag.as_ref()).await.unwrap().is_none(),
        "304"
    );
    // The trust bundle itself is ours alone.
    let (own, _) = client.bundle(None).await.unwrap().unwrap();
    assert_eq!(own, bundle_of(&running));
    let status = running.authority.status().federation;
    assert_eq!(status[0].trust_domain, PARTNER);
    assert_eq!(status[0].roots, 1);

    running.authority.rotate().await.unwrap();
    let (bundles, _) = client.bundles(etag.as_ref()).await.unwrap().unwrap();
    assert_eq!(bundles[0].x509_authorities.len(), 2);
}
