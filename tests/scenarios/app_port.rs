//! An app that can be reached around its agent: the agent says so, and is not ready.

use std::{net::TcpListener, thread, time::Duration};

use warifu_tests::process::{AgentProcess, DEADLINE, Sandbox};

fn agent(sandbox: &Sandbox, port: u16, more: &str) -> AgentProcess {
    let authority = sandbox.authority();
    sandbox.join_token("payments");
    let inbound = format!(
        "inbound:\n- listen: 127.0.0.1:0\n  forward: \"http://127.0.0.1:{port}\"\n  \
         accept: [{{mtls: {{trust_domains: [example.org]}}}}]\n{more}"
    );
    let command = sandbox.agent("payments", &authority, &inbound);
    let agent = sandbox.listening("payments", command.start());
    agent.running.wait_for("X.509-SVID issued");
    agent
}

/// Waits until `/readyz` has this status, and says nothing of the identity, which is there soon; its text.
fn ready(agent: &AgentProcess, status: u16) -> String {
    let began = std::time::Instant::now();
    loop {
        let answer = agent.probe("/readyz");
        if answer.status == status && !answer.text.contains("identity: ") {
            return answer.text;
        }
        assert!(began.elapsed() < DEADLINE, "{}", answer.text);
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn an_agent_is_not_ready_while_its_app_listens_on_every_address() {
    let sandbox = Sandbox::new();
    let app = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = app.local_addr().unwrap().port();
    let agent = agent(&sandbox, port, "");
    let text = ready(&agent, 503);
    let expected = format!(
        "app-port: the app of inbound[0] (127.0.0.1:{port}) can be reached around the agent: its port is open on \
         0.0.0.0:{port}, all addresses; bind the app to 127.0.0.1"
    );
    assert!(text.contains(&expected), "{text}");

    // Its owner mends it, and an agent that runs notices; so it does when somebody undoes that.
    drop(app);
    let app = TcpListener::bind(("127.0.0.1", port)).unwrap();
    ready(&agent, 200);
    drop(app);
    let app = TcpListener::bind(("::", port)).unwrap();
    let text = ready(&agent, 503);
    assert!(
        text.contains(&format!("[::]:{port}, all addresses")),
        "{text}"
    );
    drop(app);
    ready(&agent, 200);
}

#[test]
fn nobody_looks_where_that_is_switched_off() {
    let sandbox = Sandbox::new();
    let app = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = app.local_addr().unwrap().port();
    let agent = agent(&sandbox, port, "  app_port_check: false\n");
    assert!(!ready(&agent, 200).contains("app-port"));
}
