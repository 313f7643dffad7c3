//! SIGTERM and SIGINT end a process in order; a second signal ends it at once.

use std::thread;

use warifu_tests::process::{AgentProcess, PlainApp, Sandbox, Signal, ask};

const PIN: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

/// An agent that forwards to `app`, of an authority that is away.
fn agent(sandbox: &Sandbox, app: &PlainApp) -> AgentProcess {
    let routes = format!(
        "outbound:\n  listen: 127.0.0.1:0\n  routes: [{{host: app, upstream: \"http://{}\"}}]\n",
        app.address
    );
    let agent = sandbox.agent_of("orders", "https://127.0.0.1:1", PIN, &routes);
    sandbox.listening("orders", agent.start())
}

#[test]
fn a_request_under_way_has_its_answer_and_the_exit_code_is_0() {
    for (signal, name) in [(Signal::TERM, "SIGTERM"), (Signal::INT, "SIGINT")] {
        let (sandbox, app) = (Sandbox::new(), PlainApp::patient());
        let agent = agent(&sandbox, &app);
        let outbound = agent.outbound.unwrap();
        let call = thread::spawn(move || ask(&outbound, "app", "/"));
        app.arrived();

        agent.running.signal(signal);
        let said = agent.running.wait_for("\"message\":\"draining\"");
        assert_eq!(said["signal"], name);
        // Probes say so, until the end.
        let ready = agent.probe("/readyz");
        assert_eq!(ready.status, 503);
        assert!(
            ready.text.contains("not-draining: draining"),
            "{}",
            ready.text
        );

        app.answer();
        let answer = call.join().unwrap().unwrap();
        assert_eq!(answer.status, 200);
        assert!(answer.text.ends_with("hello"), "{}", answer.text);
        let ended = agent.running.ended();
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert!(
            ended.stderr.contains("\"message\":\"drained\",\"cut\":0"),
            "{}",
            ended.stderr
        );
        assert!(
            !sandbox.path("orders.sock").exists(),
            "the socket was left behind"
        );
    }
}

#[test]
fn a_second_signal_ends_an_agent_at_once() {
    for (first, second) in [(Signal::TERM, Signal::TERM), (Signal::INT, Signal::TERM)] {
        let (sandbox, app) = (Sandbox::new(), PlainApp::patient());
        let agent = agent(&sandbox, &app);
        let outbound = agent.outbound.unwrap();
        let call = thread::spawn(move || ask(&outbound, "app", "/"));
        app.arrived();
        agent.running.signal(first);
        agent.running.wait_for("\"message\":\"draining\"");
        agent.running.signal(second);
        // Nobody answers the request: only the signal can end this before the drain's 25 s.
        let ended = agent.running.ended();
        assert!(ended.stderr.contains("ending at once"), "{}", ended.stderr);
        assert!(!ended.stderr.contains("\"drained\""), "{}", ended.stderr);
        assert!(call.join().unwrap().is_err());
    }
}

#[test]
fn an_authority_ends_in_order_too() {
    for signal in [Signal::TERM, Signal::INT] {
        let sandbox = Sandbox::new();
        let authority = sandbox.authority();
        authority.running.signal(signal);
        let ended = authority.running.ended();
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert!(ended.stderr.contains("\"drained\""), "{}", ended.stderr);
        assert!(!sandbox.path("authority.sock").exists());
        // What SQLite kept beside the database is in it.
        let mut left: Vec<_> = std::fs::read_dir(sandbox.path("ca"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        // The lock stays: who removes one may remove the next process's.
        assert_eq!(left, ["key-encryption.key", "state.db", "state.db.lock"]);
    }
}
