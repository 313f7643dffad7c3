//! What is matched is what is forwarded.

use warifu_tests::mesh::{Direct, Mesh};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s11_no_spelling_of_a_path_is_matched_in_one_form_and_forwarded_in_another() {
    let mesh = Mesh::start().await;
    let app = mesh.app("payments").await;
    let payments = mesh.agent("payments").app(&app).allow(
        r#"[{peer: "spiffe://example.org/orders", to: ["GET /public/**", "GET /charges"]}]"#,
    );
    let payments = payments.start().await;
    let orders = mesh.workload("orders").await.identity();
    let mut connection = Direct::connect(&payments, Some(&orders)).await.unwrap();

    for target in [
        "/public/../admin",
        "/public/%2e%2e/admin",
        "/public/.%2E/admin",
        "/public/..",
        "/public/./x",
        "/public//x",
        "//charges",
        "/public/..%2fadmin",
        "/public/..%5cadmin",
        "/public/..\\admin",
        "/public/x;a=b",
        "/charges;a=b",
        "/public/..;/admin",
        "/public/%00",
        "/public/%0d%0ax",
        "/public/%zz",
        "/public/%",
        "/public/%c0%ae%c0%ae/admin",
    ] {
        let request = format!("GET {target} HTTP/1.1\nhost: payments\n\n");
        let answer = connection.exchange(&request).await.unwrap();
        assert_eq!(answer.status, 400, "{target}: {}", answer.text());
        if answer.header("connection") == Some("close") {
            connection = Direct::connect(&payments, Some(&orders)).await.unwrap();
        }
    }
    assert_eq!(app.count(), 0);

    for (asked, status, forwarded) in [
        ("/charges", 200, "/charges"),
        ("/charges?a=%2e%2e//;x", 200, "/charges?a=%2e%2e//;x"),
        ("/%63harges", 200, "/charges"),
        ("/public/%7ea/%c3%a9", 200, "/public/~a/%C3%A9"),
        ("/public/a%3bb", 200, "/public/a%3Bb"),
        ("http://payments/charges", 200, "/charges"),
        ("/Charges", 403, ""),
        ("/charges/", 403, ""),
        ("/admin", 403, ""),
    ] {
        let before = app.count();
        let request = format!("GET {asked} HTTP/1.1\nhost: payments\n\n");
        let answer = connection.exchange(&request).await.unwrap();
        assert_eq!(answer.status, status, "{asked}: {}", answer.text());
        match status {
            200 => assert_eq!(app.last().target, forwarded),
            _ => assert_eq!(app.count(), before, "{asked}"),
        }
    }
}
