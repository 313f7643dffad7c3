//! What whoever runs an agent reads in its log, and in its last words, about the sockets and files of this machine.

use std::fs;

use warifu_tests::{
    ports::free_port,
    process::{Finished, Sandbox},
};

fn fails(finished: &Finished, code: i32, said: &str) {
    assert_eq!(finished.code, Some(code), "{finished:?}");
    let stderr = &finished.stderr;
    assert!(stderr.contains(said), "{said}: {stderr}");
}

#[test]
fn s20_a_process_that_is_not_listed_gets_nothing_and_stands_in_the_log_once_however_often_it_asks()
{
    let sandbox = Sandbox::new();
    let authority = sandbox.authority();
    let socket = format!("unix:{}", sandbox.path("workload.sock").display());
    let clients = "clients: {uids: [64999]}";
    let more = format!("local: {{workload_api: {{listen: \"{socket}\", {clients}}}}}");
    sandbox.join_token("orders");
    let agent = sandbox.agent("orders", &authority, &more).start();
    let agent = sandbox.listening("orders", agent);
    agent.wait_until_ready();
    for _ in 0..5 {
        let token = ["token", "--audience", "payments", "--socket", &socket];
        let refused = sandbox.warifu(&token).run();
        fails(&refused, 1, "refused: no identity issued");
    }
    let line = "a process asked the Workload API that local.workload_api.clients does not list";
    let said = agent.running.wait_for(line);
    let me = format!("uid {}", rustix::process::geteuid().as_raw());
    assert_eq!(
        (&said["level"], &said["process"]),
        (&"WARN".into(), &me.into()),
        "{said}"
    );
    let log = agent.running.stderr();
    assert_eq!(log.matches(line).count(), 1, "{log}");
    let metrics = agent.probe("/metrics").text;
    let counted =
        "warifu_workload_api_answers_total{method=\"FetchJWTSVID\",code=\"permission_denied\"} 5";
    assert!(metrics.contains(counted), "{metrics}");
}

#[test]
fn s20_the_workload_api_over_tcp_is_opt_in_and_says_so() {
    let sandbox = Sandbox::new();
    let authority = sandbox.authority();
    sandbox.join_token("orders");
    let address = free_port();
    let more = |opt_in| format!("local: {{workload_api: {{listen: \"{address}\"{opt_in}}}}}");
    let refused = sandbox.agent("orders", &authority, &more("")).run();
    fails(&refused, 2, "unsafe_tcp: true");
    let agent = sandbox.agent("orders", &authority, &more(", unsafe_tcp: true"));
    let agent = sandbox.listening("orders", agent.start());
    let said = agent.running.wait_for("local.workload_api.unsafe_tcp");
    assert_eq!(said["level"], "WARN", "{said}");
    assert_eq!(said["address"], address.to_string().as_str());
    agent.wait_until_ready();
    let socket = format!("tcp://{address}");
    let token = ["token", "--audience", "payments", "--socket", &socket];
    assert_eq!(sandbox.warifu(&token).run().code, Some(0));
}

#[test]
fn files_that_this_process_may_not_give_away_keep_the_agent_from_starting() {
    let sandbox = Sandbox::new();
    let authority = sandbox.authority();
    sandbox.join_token("web");
    let files = sandbox.path("files");
    fs::create_dir(&files).unwrap();
    let another = rustix::process::geteuid().as_raw() + 70;
    let dir = files.display();
    let more = format!("local: {{files: [{{directory: {dir}, uid: {another}, gid: {another}}}]}}");
    let agent = sandbox.agent("web", &authority, &more);
    // Root, as in a container that dropped the capability; or any other user.
    let agent = match rustix::process::geteuid().is_root() {
        true => agent.through("setpriv", &["--bounding-set=-chown", "--inh-caps=-chown"]),
        false => agent,
    };
    let refused = agent.run();
    let named = format!("local.files[0]: giving files to uid {another} and gid {another}: ");
    fails(&refused, 1, &named);
    fails(&refused, 1, "CAP_CHOWN, or remove uid and gid");
    assert_eq!(fs::read_dir(&files).unwrap().count(), 0);
}
