//! Rules change while the agent serves: nobody else notices, and who is denied is denied at once.

use std::{fs, path::Path, sync::Arc};

use http::Method;
use warifu_agent::config::AgentFile;
use warifu_tests::{
    mesh::{Caller, Direct, Load, Shop},
    process::{Sandbox, Signal},
};

const PIN: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

/// Reads the file with `from` replaced by `to`, as a reload does.
fn edited(path: &Path, from: &str, to: &str) -> AgentFile {
    let yaml = fs::read_to_string(path).unwrap();
    assert!(yaml.contains(from), "{yaml}");
    fs::write(path, yaml.replace(from, to)).unwrap();
    AgentFile::load(path).unwrap_or_else(|why| panic!("{why}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_change_under_load_and_a_newly_denied_caller_is_refused_on_its_open_connection() {
    let shop = Shop::open().await;
    let file = shop.payments.dir.join("agent.yaml");
    let load = Load::start(8, "http://payments/charges", || shop.orders.client());
    let orders = shop.mesh.workload("orders").await;
    let mut open = Direct::connect(&shop.payments, Some(&orders.identity()))
        .await
        .unwrap();
    let orders = Arc::new(orders);
    let place = [shop.payments.inbound_address()];
    let mut over_http2 = Caller::new(&orders, &shop.payments.id, &place).http2();
    let admin = "GET /admin HTTP/1.1\nhost: payments\n\n";
    let charges = "GET /charges HTTP/1.1\nhost: payments\n\n";
    assert_eq!(open.exchange(admin).await.unwrap().status, 200);

    let (mut from, mut to) = (String::new(), String::new());
    for round in 0..20 {
        if round == 0 {
            // Whatever the shop allows stays, and a deny comes.
            from = "accept:".to_owned();
            to = "deny: [{name: closed, to: [\"* /admin\"]}], accept:".to_owned();
        } else {
            std::mem::swap(&mut from, &mut to);
        }
        let new = edited(&file, &from, &to);
        shop.payments.running().reload(&new.config).await.unwrap();
        let denied = round % 2 == 0;
        let expected = if denied { 403 } else { 200 };
        let answer = open.exchange(admin).await.unwrap();
        assert_eq!(answer.status, expected, "round {round}");
        let told = over_http2.ask(Method::GET, "/admin").await.unwrap();
        assert_eq!(told.status, expected, "round {round}");
        assert_eq!(open.exchange(charges).await.unwrap().status, 200);
        load.answers(20).await;
    }
    assert_eq!(over_http2.connections(), 1);
    let line = shop.payments.audit_line("the refusal", |line| {
        line["path"] == "/admin" && line["status"] == 403
    });
    let line = line.await;
    assert_eq!(line["rule"], "closed", "{line}");
    assert_eq!(line["detail"], "denied_by_rule");
    let report = load.stop().await;
    assert_eq!(report.failures, [""; 0], "beside {}", report.answered);
}

#[test]
fn a_file_is_read_again_at_sighup_or_when_it_changes_and_a_wrong_one_changes_nothing() {
    let sandbox = Sandbox::new();
    let inbound = |rules: &str| {
        format!(
            "inbound:\n- listen: 127.0.0.1:0\n  forward: unix:/nowhere.sock\n  accept: [{{mtls: {{trust_domains: \
             [example.org]}}}}]\n{rules}"
        )
    };
    let good = "  allow: [{peer: 'spiffe://example.org/a', to: ['GET /']}]\n";
    let command = sandbox.agent_of("orders", "https://127.0.0.1:1", PIN, &inbound(good));
    let agent = sandbox.listening("orders", command.start());
    let file = sandbox.path("orders.yaml");
    let yaml = fs::read_to_string(&file).unwrap();

    // In place at once, as ConfigMaps are; and with a mistake.
    let replace = |yaml: &str| {
        let new = sandbox.write("new.yaml", yaml);
        fs::rename(new, &file).unwrap();
    };
    replace(&yaml.replace("GET /'", "GET'"));
    let said = agent.running.wait_for("the one before stays in force");
    assert_eq!(said["why"], "the file changed", "{said}");
    let said = agent.running.wait_for("refused: ");
    let message = said["message"].as_str().unwrap();
    assert!(message.contains("orders.yaml:10:"), "{message}");
    assert!(message.contains("inbound[0].allow[0].to[0]"), "{message}");

    // Right again, with something that has to wait.
    let new = yaml
        .replace("GET /'", "POST /'")
        .replace("\ninbound", "\ndrain: 3s\ninbound");
    fs::write(&file, new).unwrap();
    agent.running.signal(Signal::HUP);
    let said = agent.running.wait_for("the configuration was read again");
    assert_eq!(said["why"], "SIGHUP", "{said}");
    let said = agent
        .running
        .wait_for("takes effect when the agent is restarted");
    assert_eq!(said["fields"], "drain", "{said}");
    agent.running.signal(Signal::TERM);
    assert_eq!(agent.running.ended().code, Some(0));
}
