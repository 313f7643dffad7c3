//! A secret header is rotated while it is in use: no request fails that shows a live value, and the old one ends.

use std::{fs, path::Path};

use warifu_tests::mesh::{Direct, Mesh, ORDERS, RawAnswer, until};

const OLD: &str = "the-old-one-0123456789abcdefghij";
const NEW: &str = "the-new-one-0123456789abcdefghij";

/// As whoever rotates it would: whole.
fn write(file: &Path, lines: &[&str]) {
    let beside = file.with_extension("new");
    fs::write(&beside, lines.join("\n") + "\n").unwrap();
    fs::rename(beside, file).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s12_a_secret_is_rotated_while_requests_come_and_shows_nowhere() {
    let mesh = Mesh::start().await;
    let app = mesh.app("payments").await;
    let file = mesh.dir().join("secret");
    write(&file, &[OLD]);
    let accept = format!(
        "[{{mtls: {{trust_domains: [example.org]}}}}, {{secret-header: {{name: batch, header: x-custom-auth, \
         secret: \"file:{}\", subject: legacy-batch}}}}]",
        file.display()
    );
    let agent = mesh.agent("payments").app(&app).accept(&accept);
    let agent = agent.allow(ORDERS).start().await;
    let orders = mesh.workload("orders").await;
    let mut direct = Direct::connect(&agent, Some(&orders.identity()))
        .await
        .unwrap();
    let mut ask = async |secret: &str| -> RawAnswer {
        let line = format!("GET /a HTTP/1.1\nhost: a\nx-custom-auth: {secret}\n\n");
        direct.exchange(&line).await.unwrap()
    };
    assert_eq!(ask(OLD).await.status, 200);
    assert_eq!(ask(NEW).await.status, 401);

    // Both are live, then the callers change, then the old one ends.
    write(&file, &[NEW, OLD]);
    until("the new one is live", async || {
        assert_eq!(ask(OLD).await.status, 200);
        (ask(NEW).await.status == 200).then_some(())
    })
    .await;
    assert_eq!(ask(OLD).await.status, 200);
    write(&file, &[NEW]);
    until("the old one has ended", async || {
        assert_eq!(ask(NEW).await.status, 200);
        (ask(OLD).await.status == 401).then_some(())
    })
    .await;
    // The file is away: what was read stays good, and no other is.
    fs::remove_file(&file).unwrap();
    for _ in 0..20 {
        assert_eq!(ask(NEW).await.status, 200);
        assert_eq!(ask(OLD).await.status, 401);
    }
    let subject = app.last().caller.unwrap().subject.unwrap();
    assert_eq!(subject.subject, "legacy-batch");
    assert!(
        app.seen()
            .iter()
            .all(|seen| !seen.headers.contains_key("x-custom-auth"))
    );
    let audit = format!("{:?}", agent.audit());
    let (_, metrics) = agent.probe("/metrics").await;
    let status = agent.status().await.to_string();
    for shown in [audit, metrics, status] {
        assert!(!shown.contains(OLD) && !shown.contains(NEW), "{shown}");
    }
}
