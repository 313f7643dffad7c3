//! What the app is told of the caller's certificate, and of which callers.

use std::time::{Duration, SystemTime};

use super::*;
use crate::config::inbound::{Accept, ClientCert, ClientCertHeader, InboundTls, Permissive};

const NAMES: [&str; 3] = [
    "x-forwarded-client-cert",
    "client-cert",
    "client-cert-chain",
];

/// However an app may read them.
const FORGED: &str = "Client-Cert: :Rk9SR0VE:\r\nclient_cert: :Rk9SR0VE:\r\nCLIENT-CERT: :Rk9SR0VE:\r\n\
                      Client-Cert-Chain: :Rk9SR0VE:, :Rk9SR0VE:\r\nclient.cert_chain: :Rk9SR0VE:\r\n\
                      Connection: client-cert, keep-alive\r\nConnection: client-cert-chain\r\n";

fn all(config: &mut crate::config::inbound::Inbound) {
    config.client_cert_headers = vec![
        ClientCertHeader::Xfcc,
        ClientCertHeader::ClientCert,
        ClientCertHeader::ClientCertChain,
    ];
}

/// Which of the headers are there; nothing forged is.
async fn told(fixture: &mut Fixture) -> Vec<&'static str> {
    let seen = fixture.seen().await;
    let forged = seen.headers.iter().find(|line| line.contains("Rk9SR0VE"));
    assert_eq!(forged, None);
    let names = NAMES.into_iter();
    names.filter(|name| !seen.all(name).is_empty()).collect()
}

#[tokio::test]
async fn s03_a_certificate_is_told_in_the_headers_asked_for_and_never_from_outside() {
    let mut fixture = Fixture::with(OK, all).await;
    let mut orders = fixture.caller(ORDERS).await;
    for sent in ["", FORGED] {
        assert_eq!(orders.get_with("/charges/1", sent).await.status(), 200);
        // The certificate is of the root itself: there is no chain.
        assert_eq!(told(&mut fixture).await, NAMES[..2], "{sent}");
    }

    for (wanted, expected) in [
        (vec![ClientCertHeader::ClientCert], &NAMES[1..2]),
        (vec![ClientCertHeader::Xfcc], &NAMES[..1]),
        (Vec::new(), &[]),
    ] {
        let mut fixture = Fixture::with(OK, |config| config.client_cert_headers = wanted).await;
        let mut orders = fixture.caller(ORDERS).await;
        assert_eq!(orders.get_with("/charges/1", FORGED).await.status(), 200);
        assert_eq!(told(&mut fixture).await, expected);
    }
}

#[tokio::test]
async fn s03_of_a_caller_without_a_certificate_and_of_a_revoked_one_nothing_is_told() {
    let mut fixture = Fixture::with(OK, |config| {
        all(config);
        accept_tokens(config);
        config
            .allow
            .push(allow(None, Some("charges.read"), "* /**"));
        config.tls = Some(InboundTls {
            client_cert: Some(ClientCert::Optional),
            ..InboundTls::default()
        });
    })
    .await;
    let token = fixture
        .ca
        .token(ORDERS, "payments", json!({"scope": "charges.read"}));
    let mut nobody = fixture.nobody().await;
    let headers = format!("authorization: Bearer {token}\r\n{FORGED}");
    assert_eq!(nobody.get_with("/charges/1", &headers).await.status(), 200);
    assert_eq!(told(&mut fixture).await, [""; 0]);

    let mut orders = fixture.caller(ORDERS).await;
    fixture.revoke(ORDERS);
    assert_eq!(orders.get_with("/charges/1", FORGED).await.status(), 403);
    assert!(fixture.nothing_seen());
}

#[tokio::test]
async fn s16_permissive_mode_tells_of_no_certificate() {
    let mut fixture = Fixture::with(OK, |config| {
        all(config);
        config.allow.clear();
        let until = SystemTime::now() + Duration::from_secs(3600);
        config.permissive = Some(Permissive {
            until: crate::config::value::Moment(until),
        });
    })
    .await;
    let mut orders = fixture.caller(ORDERS).await;
    assert_eq!(orders.get_with("/charges/1", FORGED).await.status(), 200);
    assert_eq!(told(&mut fixture).await, [""; 0]);
}

#[tokio::test]
async fn a_caller_of_another_trust_domain_is_told_with_its_own_certificate() {
    let partner = fixture::Ca::new();
    let billing = "spiffe://partner.example/billing";
    let mut fixture = Fixture::with(OK, |config| {
        all(config);
        config.accept = vec![Accept::Mtls {
            trust_domains: vec![warifu::TrustDomain::new("partner.example").unwrap()],
        }];
        config.allow.push(allow(Some(billing), None, "* /**"));
    })
    .await;
    fixture.federates(2, &[(&partner, "partner.example")]);
    let mut caller = fixture.caller_of(&partner, billing).await;
    assert_eq!(caller.get_with("/charges/1", FORGED).await.status(), 200);
    assert_eq!(told(&mut fixture).await, NAMES[..2]);
}

#[tokio::test]
async fn an_answer_that_varies_with_the_certificate_is_for_one_request() {
    const VARIES: App =
        App::Answers("HTTP/1.1 200 OK\r\nvary: accept, Client-Cert\r\ncontent-length: 2\r\n\r\nok");
    let fixture = Fixture::with(VARIES, all).await;
    let mut orders = fixture.caller(ORDERS).await;
    let answer = orders.get("/charges/1").await;
    assert_eq!(answer.all("vary"), ["*"]);
}
