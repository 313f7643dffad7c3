//! The caller's certificate in the headers of RFC 9440, as somebody else's parser of structured fields reads them.

use http::HeaderMap;
use sfv::{BareItem, Item, List, ListEntry, Parser};
use warifu_tests::mesh::{Direct, MTLS_AND_JWT, Mesh, ORDERS, Seen};

const NAMES: [&str; 2] = ["client-cert", "client-cert-chain"];

/// What the network says in their place.
const FORGED: &str = "Client-Cert: :Rk9SR0VE:
client_cert: :Rk9SR0VE:
Client.Cert: :Rk9SR0VE:
Client-Cert-Chain: :Rk9SR0VE:
CLIENT_CERT_CHAIN: :Rk9SR0VE:
Connection: client-cert, client-cert-chain";

/// The one line of this name, as a structured field.
fn line<'a>(headers: &'a HeaderMap, name: &str) -> &'a [u8] {
    let lines: Vec<_> = headers.get_all(name).iter().collect();
    let [line] = lines[..] else {
        panic!("{name}: {lines:?}")
    };
    line.as_bytes()
}

fn bytes(item: Item) -> Vec<u8> {
    assert!(item.params.is_empty(), "{item:?}");
    match item.bare_item {
        BareItem::ByteSequence(bytes) => bytes,
        other => panic!("no byte sequence: {other:?}"),
    }
}

fn assert_nothing_forged(seen: &Seen) {
    let forged = seen.headers.iter().find(|(name, value)| {
        let value = String::from_utf8_lossy(value.as_bytes());
        value.contains("Rk9SR0VE") || name.as_str() == "client_cert"
    });
    assert_eq!(forged, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s03_the_app_is_told_the_certificate_and_its_chain_as_they_were_presented() {
    let mesh = Mesh::start().await;
    let app = mesh.plain_app().await;
    let payments = mesh.agent("payments").app(&app).allow(ORDERS);
    let payments = payments
        .inbound_also("client_cert_headers: [client-cert, client-cert-chain]")
        .start()
        .await;
    let orders = mesh.workload("orders").await.identity();
    let mut connection = Direct::connect(&payments, Some(&orders)).await.unwrap();
    for forged in ["accept: */*", FORGED] {
        let request = format!("GET /charges HTTP/1.1\nhost: payments\n{forged}\n\n");
        let answer = connection.exchange(&request).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        let seen = app.last();
        assert_nothing_forged(&seen);
        assert!(!seen.headers.contains_key("x-forwarded-client-cert"));

        let leaf: Item = Parser::new(line(&seen.headers, NAMES[0])).parse().unwrap();
        let leaf = bytes(leaf);
        let chain: List = Parser::new(line(&seen.headers, NAMES[1])).parse().unwrap();
        let chain = chain.into_iter().map(|entry| match entry {
            ListEntry::Item(item) => bytes(item),
            ListEntry::InnerList(_) => panic!("an inner list"),
        });
        let told: Vec<Vec<u8>> = std::iter::once(leaf.clone()).chain(chain).collect();
        let presented = orders.svid.chain().iter().map(|it| it.to_vec());
        assert_eq!(told, presented.collect::<Vec<_>>());
        assert_eq!(told.len(), 2, "a leaf and its intermediate");
        let id = warifu::tls::peer_id(&leaf.into()).unwrap();
        assert_eq!(id.to_string(), "spiffe://example.org/orders");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s03_no_certificate_is_told_unless_asked_for_and_none_where_there_is_none() {
    let mesh = Mesh::start().await;
    let app = mesh.plain_app().await;
    let by_default = mesh.agent("payments").app(&app).allow(ORDERS).start().await;
    let orders = mesh.workload("orders").await;
    let mut connection = Direct::connect(&by_default, Some(&orders.identity()))
        .await
        .unwrap();
    let request = format!("GET /charges HTTP/1.1\nhost: payments\n{FORGED}\n\n");
    assert_eq!(connection.exchange(&request).await.unwrap().status, 200);
    let seen = app.last();
    assert_nothing_forged(&seen);
    assert!(seen.headers.contains_key("x-forwarded-client-cert"));
    assert!(NAMES.iter().all(|name| !seen.headers.contains_key(*name)));

    let outside = mesh
        .agent("shop")
        .app(&app)
        .allow("[{subject: {spiffe_id: \"spiffe://example.org/orders\"}, to: [\"GET /charges\"]}]");
    let outside = outside
        .accept(&MTLS_AND_JWT.replace("payments", "shop"))
        .inbound_also(
            "tls: {client_cert: optional}, client_cert_headers: [xfcc, client-cert, client-cert-chain]",
        )
        .start()
        .await;
    let mut connection = Direct::connect(&outside, None).await.unwrap();
    let token = orders.token("shop").await;
    let request =
        format!("GET /charges HTTP/1.1\nhost: shop\nauthorization: Bearer {token}\n{FORGED}\n\n");
    let answer = connection.exchange(&request).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let seen = app.last();
    assert_nothing_forged(&seen);
    for name in NAMES.iter().chain(&["x-forwarded-client-cert"]) {
        assert!(!seen.headers.contains_key(*name), "{name}");
    }
}
