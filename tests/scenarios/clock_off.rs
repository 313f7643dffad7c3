//! A clock ten minutes off: the agent says so, how far, which way and what to do; it is not ready,
//! loses nothing, and is ready by itself once the clock is right.

use warifu_tests::process::{AgentProcess, AuthorityProcess, Sandbox};

const ADVICE: &str = "correct this machine's clock (chrony, systemd-timesyncd or the host's), or the \
                      authority's if that is the wrong one";

/// What is said of the certificate of `authority` where this machine is behind. It was made a moment
/// ago, and starts half a minute earlier.
fn behind(authority: &AuthorityProcess) -> String {
    format!(
        "by this machine's clock the certificate of the authority at https://{} is not valid yet; this \
         machine's clock is at least 9m behind the authority's: {ADVICE}",
        authority.address
    )
}

fn ahead() -> String {
    format!(
        "clocks that differ by more than 5m make tokens expire before they are used; this machine's \
         clock is about 10m ahead of the authority's: {ADVICE}"
    )
}

fn is_not_ready(agent: &AgentProcess, why: &str) {
    let logged = agent.running.wait_for("no new X.509-SVID");
    assert_eq!(logged["why"], why);
    let answer = agent.probe("/readyz");
    assert_eq!(answer.status, 503);
    let expected = format!("not ready\nidentity: {why}\n");
    assert!(answer.text.ends_with(&expected), "{}", answer.text);
}

/// Waits until the authority was asked `times`, which goes on while the clock is off.
fn is_asked(agent: &AgentProcess, times: u32) {
    let began = std::time::Instant::now();
    loop {
        let status: serde_json::Value = serde_json::from_str(
            agent
                .admin("/status")
                .text
                .split_once("\r\n\r\n")
                .unwrap()
                .1,
        )
        .unwrap();
        if status["renewal"]["failures"].as_u64().unwrap() >= times.into() {
            return;
        }
        assert!(began.elapsed() < warifu_tests::process::DEADLINE);
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

#[test]
fn of_the_agent_is_told_and_harmless_once_it_is_corrected() {
    for (offset, why) in [
        ("-600", behind as fn(&AuthorityProcess) -> String),
        ("600", |_| ahead()),
    ] {
        let sandbox = Sandbox::new();
        let authority = sandbox.authority();
        sandbox.join_token("orders");
        let clock = sandbox.write("clock", offset);
        let agent = sandbox.agent("orders", &authority, "").clock(&clock);
        let agent = sandbox.listening("orders", agent.start());
        is_not_ready(&agent, &why(&authority));
        is_asked(&agent, 3);
        let said = agent.running.stderr();
        let told = said.matches("no new X.509-SVID").count();
        assert_eq!(told, 1, "the same trouble is one line:\n{said}");
        sandbox.write("clock", "0");
        agent.wait_until_ready();
    }
}

#[test]
fn of_the_authority_is_told_by_its_agents() {
    for (offset, why) in [
        ("600", behind as fn(&AuthorityProcess) -> String),
        ("-600", |_| ahead()),
    ] {
        let sandbox = Sandbox::new();
        let clock = sandbox.write("clock", offset);
        sandbox.authority_yaml("");
        let authority = sandbox
            .warifu(&["authority", "--config", "authority.yaml"])
            .clock(&clock)
            .authority();
        sandbox.join_token("orders");
        let agent = sandbox.agent("orders", &authority, "");
        let agent = sandbox.listening("orders", agent.start());
        is_not_ready(&agent, &why(&authority));
    }
}

#[test]
fn a_running_agent_keeps_its_identity_and_warns() {
    let sandbox = Sandbox::new();
    let authority = sandbox.authority();
    sandbox.join_token("orders");
    let clock = sandbox.write("clock", "0");
    let agent = sandbox.agent("orders", &authority, "").clock(&clock);
    let agent = sandbox.listening("orders", agent.start());
    agent.wait_until_ready();
    // A third of an hour's life and more: the renewal is due at once.
    sandbox.write("clock", "1500");
    let warned = agent.running.wait_for("certificates and tokens fail");
    let expected = "this machine's clock is about 25m ahead of the authority's; certificates and \
                    tokens fail when clocks differ: correct it";
    assert_eq!(warned["message"], expected);
    assert_eq!(agent.probe("/readyz").status, 200);
}
