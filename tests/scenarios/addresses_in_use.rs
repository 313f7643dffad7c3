//! An address that is taken: which setting wants it, and what to do. Nothing of the other process is
//! touched.

use std::{
    net::{SocketAddr, TcpListener},
    os::unix::net::UnixListener,
    path::Path,
};

use warifu_tests::process::{Sandbox, ask};

const NOBODY: &str = "https://127.0.0.1:1";
const PIN: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

#[test]
fn a_port_in_use_names_the_setting_and_how_to_find_who_has_it() {
    let sandbox = Sandbox::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let inbound = |listen: &str| {
        format!(
            "{{listen: \"{listen}\", forward: \"http://127.0.0.1:9\", \
             accept: [{{mtls: {{trust_domains: [example.org]}}}}]}}"
        )
    };
    for (setting, yaml) in [
        (
            "outbound.listen",
            format!("outbound: {{listen: \"{address}\", routes: []}}"),
        ),
        (
            "inbound[1].listen",
            format!(
                "inbound: [{}, {}]",
                inbound("127.0.0.1:0"),
                inbound(&address.to_string())
            ),
        ),
    ] {
        let ended = sandbox.agent_of("orders", NOBODY, PIN, &yaml).run();
        assert_eq!(ended.stderr, in_use("agent", setting, address));
        assert_eq!(ended.code, Some(1));
    }

    sandbox.authority_yaml("");
    let yaml = std::fs::read_to_string(sandbox.path("authority.yaml")).unwrap();
    for (setting, line) in [("listen", "\nlisten: "), ("probes", "\nprobes: ")] {
        let yaml = yaml.replace(&format!("{line}127.0.0.1:0"), &format!("{line}{address}"));
        sandbox.write("authority.yaml", yaml);
        let ended = sandbox
            .warifu(&["authority", "--config", "authority.yaml"])
            .run();
        assert_eq!(ended.stderr, in_use("authority", setting, address));
        assert_eq!(ended.code, Some(1));
    }
    // Sockets come first: no CA was begun.
    assert!(!sandbox.path("ca").exists());
}

fn in_use(who: &str, setting: &str, address: SocketAddr) -> String {
    let port = address.port();
    format!(
        "warifu: running the {who}: {setting}: cannot listen on {address}: port {port} is in use; \
         stop the process that has it (`ss -ltnp 'sport = :{port}'` shows which), or configure \
         another port\n"
    )
}

#[test]
fn a_socket_of_a_live_process_is_left_alone_and_a_stale_one_replaced() {
    let sandbox = Sandbox::new();
    let socket = sandbox.path("orders.sock");
    let live = UnixListener::bind(&socket).unwrap();
    let start = || sandbox.agent_of("orders", NOBODY, PIN, "");
    let ended = start().run();
    let expected = format!(
        "warifu: running the agent: admin.listen: cannot listen on unix:{}: another process listens \
         there; stop it (`ss -lxp` shows which), or configure another path\n",
        socket.display()
    );
    assert_eq!(ended.stderr, expected);
    assert_eq!(ended.code, Some(1));
    assert!(std::os::unix::net::UnixStream::connect(&socket).is_ok());

    drop(live);
    assert!(socket.exists());
    let agent = sandbox.listening("orders", start().start());
    assert_eq!(agent.admin("/healthz").status, 200);

    // A second agent on the same socket is refused, and the first goes on.
    let second = start().run();
    assert_eq!(second.stderr, expected);
    assert_eq!(agent.admin("/healthz").status, 200);
    drop(agent);

    // Killed, it left its socket behind; the next one takes its place.
    assert!(socket.exists() && ask(Path::new(&socket), "localhost", "/").is_err());
    let agent = sandbox.listening("orders", start().start());
    assert_eq!(agent.admin("/healthz").status, 200);
}

#[test]
fn a_file_in_the_way_of_a_socket_is_not_removed() {
    let sandbox = Sandbox::new();
    let file = sandbox.write("orders.sock", "precious");
    let ended = sandbox.agent_of("orders", NOBODY, PIN, "").run();
    let expected = format!(
        "warifu: running the agent: admin.listen: cannot listen on unix:{}: something that is not a \
         socket is there; remove it, or configure another path\n",
        file.display()
    );
    assert_eq!(ended.stderr, expected);
    assert_eq!(std::fs::read(&file).unwrap(), b"precious");
}
