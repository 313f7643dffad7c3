//! An app that is down or slow: 502 and 504 that say which of the parts it was.

use warifu_tests::process::{AgentProcess, Answer, PlainApp, Sandbox};

/// Agents of *payments*, which forwards to `app`, and *orders*, which calls it with 1 s of patience.
fn shop(sandbox: &Sandbox, app: &str) -> (AgentProcess, AgentProcess) {
    let authority = sandbox.authority();
    let start = |name: &str, more: &str| {
        sandbox.join_token(name);
        let agent = sandbox.agent(name, &authority, more).start();
        let agent = sandbox.listening(name, agent);
        agent.wait_until_ready();
        agent
    };
    let payments = start(
        "payments",
        &format!(
            "inbound:\n- listen: 127.0.0.1:0\n  forward: \"{app}\"\n  \
             accept: [{{mtls: {{trust_domains: [example.org]}}}}]\n  \
             allow: [{{peer: \"spiffe://example.org/orders\", to: [\"GET /**\"]}}]\n"
        ),
    );
    let inbound = payments.inbound.unwrap();
    let orders = start(
        "orders",
        &format!(
            "outbound:\n  listen: 127.0.0.1:0\n  routes:\n  \
             - {{host: payments, upstream: \"https://{inbound}\", \
             mtls: {{expect: \"spiffe://example.org/payments\"}}, timeouts: {{first_byte: 1s}}}}\n  \
             - {{host: nobody, upstream: \"https://127.0.0.1:1\", \
             mtls: {{expect: \"spiffe://example.org/payments\"}}}}\n  \
             - {{host: other, upstream: \"https://{inbound}\", \
             mtls: {{expect: \"spiffe://example.org/billing\"}}}}\n"
        ),
    );
    drop(authority);
    (orders, payments)
}

fn reason(answer: &Answer) -> (u16, String, String) {
    let (_, body) = answer.text.split_once("\r\n\r\n").unwrap();
    let body: serde_json::Value = serde_json::from_str(body).expect(body);
    let text = |key: &str| body[key].as_str().unwrap().to_owned();
    (answer.status, text("reason"), text("message"))
}

#[test]
fn down_is_502_with_the_part_that_could_not_be_reached() {
    let sandbox = Sandbox::new();
    let (orders, payments) = shop(&sandbox, "http://127.0.0.1:1");
    let (status, reason_, message) = reason(&orders.call("payments", "/charges"));
    assert_eq!((status, &*reason_), (502, "app-unreachable"));
    assert_eq!(
        message,
        "the service behind this agent does not accept connections"
    );
    let audit = payments.running.wait_for_audit("app-unreachable");
    assert_eq!(audit["status"], 502, "{audit}");
    assert!(audit.to_string().contains("Connection refused"), "{audit}");

    // The agent of the called, not its app.
    let (status, reason_, message) = reason(&orders.call("nobody", "/charges"));
    assert_eq!((status, &*reason_), (502, "connect-failed"));
    let expected = "connecting to 127.0.0.1:1: Connection refused (os error 111)";
    assert_eq!(message, expected);

    // Somebody else is there.
    let (status, reason_, message) = reason(&orders.call("other", "/charges"));
    assert_eq!((status, &*reason_), (502, "connect-failed"));
    let expected =
        "the peer is spiffe://example.org/payments, expected was spiffe://example.org/billing";
    assert!(message.contains(expected), "{message}");
}

#[test]
fn a_unix_socket_that_is_not_there_is_502_too() {
    let sandbox = Sandbox::new();
    let app = format!("unix:{}", sandbox.path("app.sock").display());
    let (orders, payments) = shop(&sandbox, &app);
    let (status, reason, _) = reason(&orders.call("payments", "/charges"));
    assert_eq!((status, &*reason), (502, "app-unreachable"));
    payments.running.wait_for_audit("No such file or directory");
}

#[test]
fn slow_is_504_after_the_time_the_route_has() {
    let (sandbox, app) = (Sandbox::new(), PlainApp::patient());
    let (orders, _payments) = shop(&sandbox, &format!("http://{}", app.address));
    let (status, reason, message) = reason(&orders.call("payments", "/charges"));
    assert_eq!((status, &*reason), (504, "timed-out"));
    assert!(message.ends_with(" within 1s"), "{message}");
    app.arrived();
}
