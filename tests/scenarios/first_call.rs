//! Service A calls service B; neither holds a credential, and B knows who called.

use warifu_tests::mesh::Shop;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_app_learns_who_called_over_its_unix_socket() {
    let shop = Shop::open_with_jwt().await;
    let client = shop.orders.client();
    for client in [client.clone(), client.http2()] {
        let answer = client
            .get("http://payments/charges?page=2")
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 200);
        let told: serde_json::Value = answer.json().await.unwrap();
        assert_eq!(
            told["caller"]["peer"]["spiffe_id"],
            "spiffe://example.org/orders"
        );
        assert_eq!(
            told["caller"]["subject"]["scopes"],
            serde_json::json!(["charges.read"])
        );
        assert_eq!(told["target"], "/charges?page=2");
    }
}
