//! Conversations without a network.

use std::{sync::Arc, time::Duration};

use prometheus_client::{encoding::text::encode, registry::Registry};
use prost::Message;
use rcgen::{CertificateParams, IsCa, KeyPair, KeyUsagePurpose, SanType};
use tokio::sync::{mpsc, watch};
use tonic::{
    Code, Status,
    codegen::tokio_stream::{StreamExt, wrappers::ReceiverStream},
};
use warifu::{
    identity::{FurtherSvid, Identity, TrustBundle, X509Svid},
    jwt::KeySet,
};

use super::{
    super::{
        asker::{Asker, Door},
        calls::Places,
        proto::{
            envoy::{
                config::core::v3::{DataSource, data_source::Specifier},
                extensions::transport_sockets::tls::v3::{
                    Secret, SpiffeCertValidatorConfig, secret::Type,
                },
                service::discovery::v3::{
                    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest,
                    DiscoveryResponse,
                },
            },
            google::rpc,
        },
    },
    conversation::{Conversation, PATIENCE, Talk},
    delta::Delta,
    metrics::Metrics,
    standing::Standing,
    world::World,
};
use crate::{
    config::local::Clients,
    http::server::{self, Drain, Remote},
    identity as renewing,
};

/// An identity that can be rotated, and what watches it.
struct Agent {
    identity: watch::Sender<Option<Arc<Identity>>>,
    renewal: watch::Sender<renewing::Status>,
    drain: Drain,
    standing: Standing,
    places: Places,
    metrics: Metrics,
    registry: Registry,
}

/// A client's end of a stream.
struct Client<T: Talk> {
    say: mpsc::Sender<Result<T::Request, Status>>,
    hear: Conversation<T, ReceiverStream<Result<T::Request, Status>>>,
}

impl Agent {
    fn new(first: Option<Identity>) -> Self {
        let identity = watch::Sender::new(first.map(Arc::new));
        let renewal = watch::Sender::new(renewing::Status::default());
        let (drain, draining) = server::drain();
        let mut registry = Registry::default();
        let standing = Standing::new(identity.subscribe(), renewal.subscribe(), draining);
        Self {
            identity,
            renewal,
            drain,
            standing,
            places: Places::new(8),
            metrics: Metrics::new(&mut registry),
            registry,
        }
    }

    /// The value of a metric.
    fn metric(&self, name: &str) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name}: {text}"))
            .trim()
            .to_owned()
    }

    fn publish(&self, identity: Identity) {
        self.identity.send_replace(Some(Arc::new(identity)));
    }

    fn connect<T: Talk>(&self, talk: T) -> Client<T> {
        let (say, requests) = mpsc::channel(8);
        let open = self.metrics.calls.open(&self.places).unwrap();
        let requests = ReceiverStream::new(requests);
        let hear = Conversation::new(talk, requests, self.standing.clone(), open);
        Client { say, hear }
    }

    fn world(&self) -> Client<World> {
        self.connect(World::new(asker(), self.metrics.clone()))
    }

    fn delta(&self) -> Client<Delta> {
        self.connect(Delta::new(asker(), self.metrics.clone()))
    }
}

impl<T: Talk> Client<T> {
    async fn say(&self, request: T::Request) {
        self.say.send(Ok(request)).await.unwrap();
    }

    async fn hear(&mut self) -> T::Response {
        match self.hear.next().await {
            Some(Ok(response)) => response,
            Some(Err(why)) => panic!("{why}"),
            None => panic!("the stream ended with OK"),
        }
    }

    async fn ended(&mut self) -> Status {
        match self.hear.next().await {
            Some(Err(why)) => why,
            Some(Ok(_)) => panic!("a response"),
            None => panic!("the stream ended with OK"),
        }
    }

    /// All that was said has been taken in, and there is no answer to it.
    async fn is_silent(&mut self) {
        let soon = Duration::from_millis(50);
        let heard = tokio::time::timeout(soon, self.hear.next()).await;
        assert!(heard.is_err(), "a response that nothing called for");
        assert_eq!(self.say.capacity(), self.say.max_capacity());
    }
}

fn asker() -> Asker {
    Door::new(&Clients::default()).asker(Remote::Unix(None))
}

/// A snapshot with a fresh key, and the roots of these domains, each named by a byte.
fn identity(own: u8, federated: &[(&str, u8)]) -> Identity {
    Identity {
        svid: svid("spiffe://example.org/orders"),
        bundle: bundle("example.org", own),
        further: Arc::default(),
        federated: federated
            .iter()
            .map(|(name, root)| bundle(name, *root))
            .collect(),
        generation: 1,
    }
}

fn svid(id: &str) -> X509Svid {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let key = KeyPair::generate().unwrap();
    let leaf = params.self_signed(&key).unwrap().der().clone();
    X509Svid::new(vec![leaf], key.into()).unwrap()
}

fn bundle(trust_domain: &str, root: u8) -> TrustBundle {
    TrustBundle {
        trust_domain: trust_domain.parse().unwrap(),
        x509_authorities: (root > 0).then(|| vec![root].into()).into_iter().collect(),
        jwt_authorities: KeySet::default(),
        sequence: 1,
        refresh_hint: Duration::from_secs(300),
    }
}

/// The same certificate, beside other bundles.
fn beside(known: &Identity, own: u8, federated: &[(&str, u8)]) -> Identity {
    Identity {
        svid: known.svid.clone(),
        further: Arc::clone(&known.further),
        ..identity(own, federated)
    }
}

fn ask(names: &[&str]) -> DiscoveryRequest {
    DiscoveryRequest {
        resource_names: names.iter().map(|&name| name.to_owned()).collect(),
        ..DiscoveryRequest::default()
    }
}

/// What Envoy says after a response that it took.
fn ack(response: &DiscoveryResponse, names: &[&str]) -> DiscoveryRequest {
    DiscoveryRequest {
        version_info: response.version_info.clone(),
        response_nonce: response.nonce.clone(),
        ..ask(names)
    }
}

fn complaint(message: &str) -> Option<rpc::Status> {
    Some(rpc::Status {
        code: Code::Internal as i32,
        message: message.to_owned(),
        details: Vec::new(),
    })
}

fn subscribe(names: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        resource_names_subscribe: names.iter().map(|&name| name.to_owned()).collect(),
        ..DeltaDiscoveryRequest::default()
    }
}

fn delta_ack(response: &DeltaDiscoveryResponse) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        response_nonce: response.nonce.clone(),
        ..DeltaDiscoveryRequest::default()
    }
}

fn secrets(response: &DiscoveryResponse) -> Vec<Secret> {
    let decode = |any: &prost_types::Any| Secret::decode(any.value.as_slice()).unwrap();
    response.resources.iter().map(decode).collect()
}

fn names(response: &DiscoveryResponse) -> Vec<String> {
    let names = secrets(response).into_iter().map(|secret| secret.name);
    names.collect()
}

fn changed(response: &DeltaDiscoveryResponse) -> Vec<&str> {
    let names = response.resources.iter().map(|it| it.name.as_str());
    names.collect()
}

fn text(source: Option<&DataSource>) -> String {
    match source.and_then(|source| source.specifier.as_ref()) {
        Some(Specifier::InlineBytes(bytes)) => String::from_utf8(bytes.to_vec()).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// The trust domains of a secret for Envoy's SPIFFE verifier, each with its roots.
fn domains(secret: &Secret) -> Vec<(String, String)> {
    let Some(Type::ValidationContext(context)) = &secret.r#type else {
        panic!("{secret:?}");
    };
    assert_eq!(context.trusted_ca, None, "roots for everybody");
    let config = context.custom_validator_config.as_ref().unwrap();
    let config = config.typed_config.as_ref().unwrap();
    let config = SpiffeCertValidatorConfig::decode(config.value.as_slice()).unwrap();
    let domains = config.trust_domains.into_iter();
    domains
        .map(|it| (it.name, text(it.trust_bundle.as_ref())))
        .collect()
}

#[tokio::test]
async fn each_identity_is_a_secret_of_its_own_and_default_is_the_first() {
    let first = identity(1, &[]);
    let mut other = identity(1, &[]);
    other.svid = svid("spiffe://example.org/reports");
    let reports = FurtherSvid {
        svid: other.svid.clone(),
        hint: Some("reports".to_owned()),
    };
    let both = Identity {
        further: [reports].into(),
        ..beside(&first, 1, &[])
    };
    let agent = Agent::new(Some(both));
    let chain = async |name: &str| {
        let mut client = agent.world();
        client.say(ask(&[name])).await;
        let response = client.hear().await;
        match secrets(&response).remove(0).r#type {
            Some(Type::TlsCertificate(certificate)) => text(certificate.certificate_chain.as_ref()),
            other => panic!("{name}: {other:?}"),
        }
    };
    assert_eq!(chain("default").await, first.svid.chain_pem());
    assert_eq!(
        chain("spiffe://example.org/orders").await,
        first.svid.chain_pem()
    );
    assert_eq!(
        chain("spiffe://example.org/reports").await,
        other.svid.chain_pem()
    );
    let mut everything = agent.world();
    everything.say(ask(&[])).await;
    let names = names(&everything.hear().await);
    let expected = [
        "spiffe://example.org",
        "spiffe://example.org/orders",
        "spiffe://example.org/reports",
    ];
    assert_eq!(names, expected);
}

#[tokio::test]
async fn every_name_is_answered_with_the_secret_that_spire_would_give() {
    let identity = identity(1, &[("other.example", 2), ("revoked.example", 0)]);
    let (chain, key) = (identity.svid.chain_pem(), identity.svid.key_pem());
    let own = identity.bundle.x509_pem();
    let other = identity.federated[0].x509_pem();
    let agent = Agent::new(Some(identity));
    let get = async |name: &str| {
        let mut client = agent.world();
        client.say(ask(&[name])).await;
        let response = client.hear().await;
        assert_eq!(names(&response), [name]);
        assert_eq!(response.resources[0].type_url, response.type_url);
        secrets(&response).remove(0)
    };
    for name in ["default", "spiffe://example.org/orders"] {
        let Some(Type::TlsCertificate(certificate)) = get(name).await.r#type else {
            panic!("{name}");
        };
        assert_eq!(text(certificate.certificate_chain.as_ref()), chain);
        assert_eq!(text(certificate.private_key.as_ref()), *key.expose());
    }
    let Some(Type::ValidationContext(context)) = get("ROOTCA").await.r#type else {
        panic!("ROOTCA");
    };
    assert_eq!(text(context.trusted_ca.as_ref()), own);
    assert_eq!(context.custom_validator_config, None);
    let of = |name: &str, roots: &str| (name.to_owned(), roots.to_owned());
    let (ours, theirs) = (of("example.org", &own), of("other.example", &other));
    assert_eq!(
        domains(&get("spiffe://example.org").await),
        std::slice::from_ref(&ours)
    );
    assert_eq!(
        domains(&get("spiffe://other.example").await),
        std::slice::from_ref(&theirs)
    );
    // Envoy takes no domain without roots; one it has never heard of it refuses, as it should.
    assert_eq!(domains(&get("ALL").await), [ours, theirs]);
}

#[tokio::test]
async fn one_request_without_a_stream_gets_the_same() {
    let identity = Arc::new(identity(1, &[]));
    let once = |names| World::new(asker(), Metrics::default()).once(ask(names), &identity);
    assert_eq!(
        names(&once(&["ROOTCA", "default"]).unwrap()),
        ["ROOTCA", "default"]
    );
    let why = once(&["spiffe://example.org/payments"]).unwrap_err();
    assert_eq!(why.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn who_names_nothing_is_given_everything_once() {
    let agent = Agent::new(Some(identity(1, &[("other.example", 2)])));
    let everything = [
        "spiffe://example.org",
        "spiffe://example.org/orders",
        "spiffe://other.example",
    ];
    for asks in [ask(&[]), ask(&["*"])] {
        let mut client = agent.world();
        client.say(asks).await;
        assert_eq!(names(&client.hear().await), everything);
    }
    for asks in [subscribe(&[]), subscribe(&["*"])] {
        let mut client = agent.delta();
        client.say(asks).await;
        assert_eq!(changed(&client.hear().await), everything);
    }
    // Who named something and then nothing wants nothing: no key is sent to whom gave it up.
    let mut client = agent.world();
    client.say(ask(&["ROOTCA"])).await;
    let response = client.hear().await;
    client.say(ack(&response, &[])).await;
    client.is_silent().await;
}

#[tokio::test]
async fn what_is_none_of_this_workloads_is_refused_by_name_and_the_stream_ends() {
    let agent = Agent::new(Some(identity(1, &[("revoked.example", 0)])));
    for name in [
        "spiffe://example.org/payments",
        "spiffe://example.org/",
        "spiffe://stranger.example",
        "spiffe://revoked.example",
        "rootca",
    ] {
        let mut client = agent.world();
        client.say(ask(&["default", name])).await;
        let why = client.ended().await;
        assert_eq!(why.code(), Code::PermissionDenied);
        assert!(why.message().contains(name), "{why}");
        let mut client = agent.delta();
        client.say(subscribe(&[name])).await;
        assert_eq!(client.ended().await.code(), Code::PermissionDenied);
    }
    let mut client = agent.world();
    let clusters = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
    let type_url = clusters.to_owned();
    client
        .say(DiscoveryRequest {
            type_url,
            ..ask(&[])
        })
        .await;
    assert_eq!(client.ended().await.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn s14_the_names_on_a_stream_are_bounded() {
    let agent = Agent::new(Some(identity(1, &[])));
    let many: Vec<String> = (0..300).map(|n| format!("spiffe://{n}.example")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let mut client = agent.world();
    client.say(ask(&many)).await;
    assert_eq!(client.ended().await.code(), Code::InvalidArgument);
    // Before there is an identity, so that it is not the names themselves that are refused.
    let agent = Agent::new(None);
    let mut client = agent.delta();
    for names in many.chunks(100) {
        client.say(subscribe(names)).await;
    }
    assert_eq!(client.ended().await.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_change_is_pushed_to_who_asked_for_it_and_to_nobody_else() {
    let first = identity(1, &[("other.example", 2)]);
    let agent = Agent::new(Some(beside(&first, 1, &[("other.example", 2)])));
    let (mut certificate, mut roots) = (agent.world(), agent.world());
    certificate.say(ask(&["default"])).await;
    roots.say(ask(&["ROOTCA"])).await;
    let before = (certificate.hear().await, roots.hear().await);
    certificate.say(ack(&before.0, &["default"])).await;
    roots.say(ack(&before.1, &["ROOTCA"])).await;

    // A bundle of others: neither asked for it.
    agent.publish(beside(&first, 1, &[("other.example", 3)]));
    certificate.is_silent().await;
    roots.is_silent().await;

    agent.publish(beside(&first, 4, &[]));
    certificate.is_silent().await;
    let after = roots.hear().await;
    assert_ne!(after.version_info, before.1.version_info);
    assert_ne!(after.nonce, before.1.nonce);

    agent.publish(identity(4, &[]));
    assert_ne!(certificate.hear().await.version_info, before.0.version_info);
    roots.is_silent().await;
}

#[tokio::test]
async fn versions_are_the_same_on_every_stream_and_say_nothing_of_the_key() {
    let one = identity(1, &[]);
    let agents = [
        Agent::new(Some(beside(&one, 1, &[]))),
        Agent::new(Some(beside(&one, 1, &[]))),
    ];
    let mut versions = Vec::new();
    for agent in &agents {
        let mut client = agent.world();
        client.say(ask(&["default", "ROOTCA"])).await;
        versions.push(client.hear().await.version_info);
    }
    assert_eq!(versions[0], versions[1]);

    // So one that reconnects is sent only what is new.
    let mut client = agents[0].delta();
    client.say(subscribe(&["default", "ROOTCA"])).await;
    let known = client.hear().await;
    let versions = known.resources.iter();
    let versions = versions.map(|it| (it.name.clone(), it.version.clone()));
    let mut again = agents[1].delta();
    again
        .say(DeltaDiscoveryRequest {
            initial_resource_versions: versions.collect(),
            ..subscribe(&["default", "ROOTCA"])
        })
        .await;
    again.is_silent().await;
    agents[1].publish(beside(&one, 2, &[]));
    assert_eq!(changed(&again.hear().await), ["ROOTCA"]);
}

#[tokio::test]
async fn a_rejected_secret_is_not_sent_again_until_it_changes() {
    let agent = Agent::new(Some(identity(1, &[])));
    let mut client = agent.world();
    client.say(ask(&["ROOTCA"])).await;
    let response = client.hear().await;
    let nack = DiscoveryRequest {
        version_info: String::new(),
        error_detail: complaint("Failed to load trusted CA certificates"),
        ..ack(&response, &["ROOTCA"])
    };
    for _ in 0..3 {
        client.say(nack.clone()).await;
        client.is_silent().await;
    }
    assert_eq!(
        agent.metric("sds_rejections_total"),
        "1",
        "said three times"
    );
    assert_eq!(agent.metric("sds_pushes_total"), "1");
    agent.publish(identity(2, &[]));
    client.hear().await;
    assert_eq!(agent.metric("sds_pushes_total"), "2");
    assert_eq!(agent.metric("sds_streams"), "1");
    drop(client);
    assert_eq!(agent.metric("sds_streams"), "0");

    let mut client = agent.delta();
    client.say(subscribe(&["ROOTCA"])).await;
    let response = client.hear().await;
    let nack = DeltaDiscoveryRequest {
        error_detail: complaint("Failed to load trusted CA certificates"),
        ..delta_ack(&response)
    };
    for _ in 0..3 {
        client.say(nack.clone()).await;
        client.is_silent().await;
    }
    agent.publish(identity(3, &[]));
    client.hear().await;
}

#[tokio::test]
async fn a_live_stream_changes_what_it_asks_for() {
    let agent = Agent::new(Some(identity(1, &[])));
    let mut client = agent.world();
    client.say(ask(&["default"])).await;
    let first = client.hear().await;
    client.say(ack(&first, &["default", "ROOTCA"])).await;
    let second = client.hear().await;
    assert_eq!(names(&second), ["ROOTCA", "default"]);
    // Fewer: nothing to send. What was said before the last response was read counts for nothing.
    client.say(ack(&second, &["ROOTCA"])).await;
    client.say(ack(&first, &["default"])).await;
    client.is_silent().await;
    agent.publish(identity(2, &[]));
    let third = client.hear().await;
    assert_eq!(names(&third), ["ROOTCA"]);
    // Given up and wanted again is sent again.
    client.say(ack(&third, &["default", "ROOTCA"])).await;
    assert_eq!(names(&client.hear().await), ["ROOTCA", "default"]);

    let mut client = agent.delta();
    client.say(subscribe(&["default"])).await;
    let first = client.hear().await;
    assert_eq!(changed(&first), ["default"]);
    client
        .say(DeltaDiscoveryRequest {
            response_nonce: first.nonce.clone(),
            resource_names_unsubscribe: vec!["default".to_owned()],
            ..subscribe(&["ROOTCA"])
        })
        .await;
    assert_eq!(changed(&client.hear().await), ["ROOTCA"]);
    agent.publish(identity(2, &[]));
    client.is_silent().await;
    // Even what it has: it may have dropped it.
    client.say(subscribe(&["ROOTCA"])).await;
    assert_eq!(changed(&client.hear().await), ["ROOTCA"]);
}

#[tokio::test]
async fn a_trust_domain_that_is_gone_is_removed_from_everything() {
    let agent = Agent::new(Some(identity(1, &[("other.example", 2)])));
    let mut client = agent.delta();
    client.say(subscribe(&["*"])).await;
    let response = client.hear().await;
    client.say(delta_ack(&response)).await;
    agent.publish(identity(1, &[]));
    let response = client.hear().await;
    assert_eq!(response.removed_resources, ["spiffe://other.example"]);
    assert_eq!(changed(&response), ["spiffe://example.org/orders"]);
}

#[tokio::test]
async fn s14_a_client_that_does_not_read_has_only_the_newest_state_pending() {
    let agent = Agent::new(Some(identity(1, &[])));
    let mut client = agent.world();
    client.say(ask(&["ROOTCA"])).await;
    client.hear().await;
    for root in 2..=9 {
        agent.publish(identity(root, &[]));
    }
    let newest = secrets(&client.hear().await).remove(0);
    let Some(Type::ValidationContext(context)) = newest.r#type else {
        panic!("{newest:?}");
    };
    let expected = bundle("example.org", 9).x509_pem();
    assert_eq!(text(context.trusted_ca.as_ref()), expected);
    client.is_silent().await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_waits_a_moment_for_the_first_identity_and_is_then_told_why_there_is_none() {
    let agent = Agent::new(None);
    let mut client = agent.world();
    client.say(ask(&["default"])).await;
    client.is_silent().await;
    agent.publish(identity(1, &[]));
    assert_eq!(names(&client.hear().await), ["default"]);

    let agent = Agent::new(None);
    let mut client = agent.world();
    client.say(ask(&["default"])).await;
    agent.renewal.send_modify(|renewal| {
        renewal.last_error = Some("the authority is away".to_owned());
    });
    let began = tokio::time::Instant::now();
    let why = client.ended().await;
    assert_eq!(began.elapsed(), PATIENCE);
    assert_eq!(why.code(), Code::Unavailable);
    assert!(why.message().contains("the authority is away"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn refused_is_denied_at_once_and_whatever_passes_is_unavailable() {
    let agent = Agent::new(None);
    let mut client = agent.world();
    client.say(ask(&["default"])).await;
    client.is_silent().await;
    agent.renewal.send_modify(|renewal| {
        renewal.refused = true;
        renewal.last_error = Some("no rule matches".to_owned());
    });
    let why = client.ended().await;
    assert_eq!(why.code(), Code::PermissionDenied);
    assert_eq!(why.message(), "no identity issued: no rule matches");

    // What was issued is served to its end, whatever becomes of renewals (S13).
    agent.publish(identity(1, &[]));
    let mut client = agent.world();
    client.say(ask(&["default"])).await;
    client.hear().await;
    client.is_silent().await;
    agent.renewal.send_modify(|renewal| renewal.refused = false);
    agent.identity.send_replace(None);
    assert_eq!(client.ended().await.code(), Code::Unavailable);
    agent.publish(identity(1, &[]));
    let mut client = agent.world();
    client.say(ask(&["default"])).await;
    client.hear().await;
    agent.drain.start(Duration::from_secs(10));
    assert_eq!(client.ended().await.code(), Code::Unavailable);
    let mut late = agent.world();
    assert_eq!(late.ended().await.code(), Code::Unavailable);
}

#[tokio::test]
async fn a_client_that_breaks_off_is_never_told_that_it_cancelled() {
    let agent = Agent::new(Some(identity(1, &[])));
    let mut client = agent.world();
    let broken = Status::cancelled("h2 protocol error");
    client.say.send(Err(broken)).await.unwrap();
    assert_eq!(client.ended().await.code(), Code::Unavailable);
    assert!(client.hear.next().await.is_none());
}
