//! Routes with `secret_header`: the secret goes where the route says, in place of whatever the app says there, and shows
//! nowhere.

use std::fs;

use warifu_agent::config;
use warifu_tests::{
    mesh::{Mesh, until},
    upstreams::Keyed,
};

const SECRET: &str = "hunter2-hunter2-hunter2-hunter2";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s06_the_apps_own_copy_of_the_header_is_removed_however_it_is_spelt() {
    let mesh = Mesh::start().await;
    let upstream = Keyed::start("x-custom-auth", 403).await;
    upstream.takes(&[SECRET]);
    let file = mesh.dir().join("secret");
    fs::write(&file, format!("{SECRET}\n")).unwrap();
    let agent = mesh.agent("orders").route(&format!(
        "{{host: legacy, upstream: \"{}\", secret_header: {{name: X-Custom-Auth, value: \"file:{}\"}}}}",
        upstream.url(),
        file.display()
    ));
    let agent = agent.start().await;
    let request = agent
        .client()
        .get("http://legacy/")
        .header("x-custom-auth", "mine")
        .header("X_Custom_Auth", "mine")
        .header("x-custom_auth", "mine")
        .header("authorization", "Bearer the-apps");
    assert_eq!(request.send().await.unwrap().status(), 200);
    let headers = upstream.last();
    let spelt: Vec<_> = headers
        .iter()
        .filter(|(name, _)| name.as_str().replace('_', "-") == "x-custom-auth")
        .collect();
    assert_eq!(spelt.len(), 1, "{headers:?}");
    // Another header is the app's business.
    assert_eq!(headers["authorization"], "Bearer the-apps");
    let (status, metrics) = (
        agent.status().await.to_string(),
        agent.probe("/metrics").await.1,
    );
    assert!(
        status.contains("secrets") && status.contains("AWSCURRENT"),
        "{status}"
    );
    assert!(!status.contains("hunter2") && !metrics.contains("hunter2"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_written_anew_is_used_at_once_where_the_old_value_is_refused() {
    for status in [401, 403] {
        let mesh = Mesh::start().await;
        let upstream = Keyed::start("x-custom-auth", status).await;
        upstream.takes(&["old"]);
        let file = mesh.dir().join("secret");
        fs::write(&file, "old").unwrap();
        let agent = mesh.agent("orders").route(&format!(
            "{{host: legacy, upstream: \"{}\", secret_header: {{name: x-custom-auth, value: \"file:{}\"}}}}",
            upstream.url(),
            file.display()
        ));
        let agent = agent.start().await;
        let client = agent.client();
        let call = async || {
            let answer = client.get("http://legacy/").send().await.unwrap();
            answer.status().as_u16()
        };
        assert_eq!(call().await, 200);
        fs::write(&file, "new").unwrap();
        upstream.takes(&["new"]);
        assert_eq!(call().await, 200);
        assert_eq!(call().await, 200);
        // Refused once at most: the file may just have been read again.
        let (before, refused) = upstream.asked();
        assert!(refused <= 1 && before <= 4, "{before} requests");
        // What no value helps against is passed on, and not tried twice for ever.
        upstream.takes(&[]);
        for _ in 0..20 {
            assert_eq!(call().await, status);
        }
        let (asked, _) = upstream.asked();
        assert!(asked <= before + 20 + 2, "{asked} requests");
        fs::remove_file(&file).unwrap();
        upstream.takes(&["new"]);
        until(
            "what was read is used though its file is gone",
            async || (call().await == 200).then_some(()),
        )
        .await;
    }
}

#[test]
fn s19_a_secret_goes_to_verified_tls_or_loopback_and_over_no_other_network() {
    let yaml = |upstream: &str, way: &str| {
        format!(
            "trust_domain: example.org
authority: {{url: \"https://127.0.0.1:1\", root_spki_sha256: [\"{}\"]}}
attestation: {{join-token: {{token: \"file:/nowhere\"}}}}
outbound: {{listen: \"127.0.0.1:0\", routes: [{{host: x, upstream: \"{upstream}\", {way}}}]}}
",
            "0".repeat(64)
        )
    };
    let oauth = |url: &str| {
        format!(
            "oauth: {{token_url: \"{url}\", client: {{id: a, client_secret_basic: \"file:/s\"}}}}"
        )
    };
    let header = "secret_header: {name: x-custom-auth, value: \"file:/s\"}";
    for (upstream, way) in [
        ("https://partner.example", header),
        ("http://127.0.0.1:80", header),
        (
            "https://partner.example",
            &oauth("https://as.example/token"),
        ),
        (
            "https://partner.example",
            &oauth("http://127.0.0.1:80/token"),
        ),
    ] {
        let read = config::parse_agent(&yaml(upstream, way), "agent.yaml");
        assert!(read.is_ok(), "{upstream} {way}: {read:?}");
    }
    for (upstream, way) in [
        ("http://partner.example", header),
        ("http://10.0.0.1", header),
        ("http://localhost:80", header),
        ("https://partner.example", &oauth("http://as.example/token")),
        ("https://partner.example", &oauth("http://10.0.0.1/token")),
        ("https://partner.example", &oauth("http://localhost/token")),
        (
            "https://partner.example",
            "secret_header: {name: host, value: \"file:/s\"}",
        ),
        (
            "https://partner.example",
            "secret_header: {name: x-custom-auth, value: hunter2}",
        ),
    ] {
        let read = config::parse_agent(&yaml(upstream, way), "agent.yaml");
        let error = read.expect_err(way).to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }
}
