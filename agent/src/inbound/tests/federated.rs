//! Callers of another trust domain: let in where it is listed, by its own bundle, for as long as there is one.

use rustls::ClientConfig;
use warifu::{TrustDomain, tls};

use super::{fixture::Ca, *};
use crate::config::inbound::{Accept, JwtProfile};

const BILLING: &str = "spiffe://partner.example/billing";

fn domain(name: &str) -> TrustDomain {
    TrustDomain::new(name).unwrap()
}

fn accept_partner(config: &mut crate::config::inbound::Inbound) {
    config.accept = vec![Accept::Mtls {
        trust_domains: vec![domain("example.org"), domain("partner.example")],
    }];
    config.allow.push(allow(Some(BILLING), None, "* /**"));
}

impl Fixture {
    /// From now on the agent has these bundles of other trust domains.
    pub(super) fn federates(&self, generation: u64, bundles: &[(&Ca, &str)]) {
        let mut identity = self.ca.identity(PAYMENTS, generation);
        let bundles = bundles.iter().map(|(ca, name)| ca.bundle(domain(name)));
        identity.federated = bundles.collect();
        self.identity.send_replace(Some(Arc::new(identity)));
    }

    /// A client with the certificate that `ca` issued for `id`, which verifies us as it must.
    fn client_of(&self, ca: &Ca, id: &str) -> ClientConfig {
        let expected = tls::ExpectedPeer::Id(PAYMENTS.parse().unwrap());
        let ours = self.ca.bundle(domain("example.org"));
        tls::client_config(&ca.identity(id, 1), &ours, expected).unwrap()
    }

    pub(super) async fn caller_of(&self, ca: &Ca, id: &str) -> fixture::Caller1 {
        let client = self.client_of(ca, id);
        fixture::Caller1::new(self.connect(client, b"http/1.1").await)
    }

    /// The handshake of such a client is refused: why, as the audit log has it.
    async fn refused(&self, ca: &Ca, id: &str) -> String {
        let before = self.audit.all().len();
        let mut caller = self.caller_of(ca, id).await;
        caller
            .send("GET / HTTP/1.1\r\nhost: payments\r\n\r\n")
            .await;
        assert!(caller.response().await.is_none(), "{id} was let in");
        while self.audit.all().len() == before {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        self.audited()["detail"].as_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn s02_a_peer_of_another_trust_domain_is_let_in_where_it_is_listed_and_nowhere_else() {
    let partner = Ca::new();
    let listed = Fixture::with(OK, accept_partner).await;
    listed.federates(2, &[(&partner, "partner.example")]);
    let mut billing = listed.caller_of(&partner, BILLING).await;
    assert_eq!(billing.get("/charges/1").await.status(), 200);
    assert_eq!(listed.audited()["peer"], BILLING);
    let mut orders = listed.caller(ORDERS).await;
    assert_eq!(orders.get("/charges/1").await.status(), 200);
    // Who is verified may do what a rule says, and no more.
    let mut other = listed
        .caller_of(&partner, "spiffe://partner.example/orders")
        .await;
    assert_eq!(other.get("/charges/1").await.status(), 403);

    let unlisted = Fixture::with(OK, |_| {}).await;
    unlisted.federates(2, &[(&partner, "partner.example")]);
    let why = unlisted.refused(&partner, BILLING).await;
    assert!(
        why.contains("of a trust domain that is not accepted here"),
        "{why}"
    );
}

#[tokio::test]
async fn s02_a_certificate_of_one_trust_domain_under_the_root_of_another_is_refused() {
    let (partner, third) = (Ca::new(), Ca::new());
    let fixture = Fixture::with(OK, accept_partner).await;
    fixture.federates(
        2,
        &[(&partner, "partner.example"), (&third, "third.example")],
    );
    for (ca, id) in [
        // The partner's authority says who our own are, and the other way round.
        (&partner, ORDERS),
        (&fixture.ca, BILLING),
        // Somebody else we know says who the partner's are.
        (&third, BILLING),
    ] {
        let why = fixture.refused(ca, id).await;
        assert!(why.contains("BadSignature"), "{id}: {why}");
    }
    // Known, and not listed here.
    let why = fixture
        .refused(&third, "spiffe://third.example/billing")
        .await;
    assert!(why.contains("not accepted here"), "{why}");
}

#[tokio::test]
async fn s02_until_there_is_a_bundle_its_workloads_are_refused_and_the_log_says_why() {
    let partner = Ca::new();
    let fixture = Fixture::with(OK, accept_partner).await;
    let why = fixture.refused(&partner, BILLING).await;
    assert!(
        why.contains("there is no bundle of its trust domain yet"),
        "{why}"
    );
    fixture.federates(2, &[(&partner, "partner.example")]);
    let mut billing = fixture.caller_of(&partner, BILLING).await;
    assert_eq!(billing.get("/charges/1").await.status(), 200);
}

#[tokio::test]
async fn s02_a_bundle_that_changes_or_goes_bites_on_live_connections_and_new_ones() {
    let (partner, successor) = (Ca::new(), Ca::new());
    let fixture = Fixture::with(OK, accept_partner).await;
    let with = |ca| [(ca, "partner.example")];
    let gone: [(&Ca, &str); 0] = [];
    for (generation, after) in [(2, with(&successor).to_vec()), (12, gone.to_vec())] {
        fixture.federates(generation, &with(&partner));
        let mut billing = fixture.caller_of(&partner, BILLING).await;
        let mut orders = fixture.caller(ORDERS).await;
        assert_eq!(billing.get("/charges/1").await.status(), 200);
        // A renewal of our own changes nothing for it.
        fixture.federates(generation + 1, &with(&partner));
        assert_eq!(billing.get("/charges/1").await.status(), 200);
        assert_eq!(orders.get("/charges/1").await.status(), 200);

        fixture.federates(generation + 2, &after);
        let refused = billing.get("/charges/1").await;
        assert_eq!(refused.status(), 403);
        assert_eq!(refused.all("x-warifu-reason"), ["no-longer-verified"]);
        assert!(
            billing.response().await.is_none(),
            "the connection is closed"
        );
        assert_eq!(fixture.audited()["result"], "denied");
        assert_eq!(orders.get("/charges/1").await.status(), 200);
        fixture.refused(&partner, BILLING).await;
    }
}

fn accept_partner_tokens(config: &mut crate::config::inbound::Inbound) {
    accept_tokens(config);
    let Some(Accept::Jwt(jwt)) = config.accept.last_mut() else {
        panic!("{config:?}")
    };
    let JwtProfile::JwtSvid { trust_domains, .. } = &mut jwt.profile else {
        panic!("{jwt:?}")
    };
    *trust_domains = vec![domain("example.org"), domain("partner.example")];
}

#[tokio::test]
async fn s09_tokens_of_another_trust_domain_verify_with_its_own_keys_alone_and_where_it_is_listed()
{
    let partner = Ca::new();
    let fixture = Fixture::with(OK, accept_partner_tokens).await;
    let mut orders = fixture.caller(ORDERS).await;
    let web = "spiffe://example.org/web";
    let mut ask = async |ca: &Ca, id: &str| {
        let token = ca.token(id, "payments", json!({}));
        let line = format!("authorization: Bearer {token}\r\n");
        let answer = orders.get_with("/charges/1", &line).await;
        let reason = answer.all("x-warifu-reason").concat();
        (answer.status(), reason)
    };
    let no_bundle = (503, "no-bundle".to_owned());
    let invalid = (401, "invalid-token".to_owned());
    let good = (200, String::new());
    // Not there yet: nobody knows whether the token is bad.
    assert_eq!(ask(&partner, BILLING).await, no_bundle);
    assert_eq!(ask(&fixture.ca, web).await, good);
    assert_eq!(ask(&fixture.ca, BILLING).await, invalid, "with our keys");
    fixture.federates(2, &[(&partner, "partner.example")]);
    assert_eq!(ask(&partner, BILLING).await, good);
    assert_eq!(fixture.audited()["subject"], BILLING);
    assert_eq!(ask(&fixture.ca, web).await, good);
    assert_eq!(ask(&partner, web).await, invalid, "with the partner's keys");
    assert_eq!(ask(&Ca::new(), BILLING).await, invalid, "with nobody's");
    // What was verified before is verified anew.
    fixture.federates(3, &[]);
    assert_eq!(ask(&partner, BILLING).await, no_bundle);

    let own_only = Fixture::with(OK, accept_tokens).await;
    own_only.federates(2, &[(&partner, "partner.example")]);
    let mut orders = own_only.caller(ORDERS).await;
    let token = partner.token(BILLING, "payments", json!({}));
    let line = format!("authorization: Bearer {token}\r\n");
    assert_eq!(orders.get_with("/charges/1", &line).await.status(), 401);
}
