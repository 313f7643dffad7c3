//! A signature never goes over plaintext to another machine: such a route is refused when it is read.

use warifu_tests::process::Sandbox;

#[test]
fn s19_a_signed_route_over_plaintext_to_another_machine_is_refused_by_check() {
    let sandbox = Sandbox::new();
    let check = |upstream: &str| {
        let dir = sandbox.path("");
        let dir = dir.display();
        sandbox.write(
            "agent.yaml",
            format!(
                r#"trust_domain: example.org
authority: {{url: "https://127.0.0.1:8443", root_spki_sha256: ["{pin}"]}}
attestation: {{join-token: {{token: "file:{dir}/token"}}}}
outbound:
  listen: 127.0.0.1:4140
  routes:
  - host: api
    upstream: "{upstream}"
    sigv4: {{service: execute-api}}
"#,
                pin = "0".repeat(64),
            ),
        );
        sandbox.write("token", "a-token");
        sandbox.warifu(&["check", "--config", "agent.yaml"]).run()
    };
    for upstream in [
        "http://10.0.0.1",
        "http://abc.execute-api.eu-west-1.amazonaws.com/prod",
        "http://localhost:8080",
    ] {
        let checked = check(upstream);
        assert_eq!(checked.code, Some(2), "{upstream}: {}", checked.stderr);
        for part in ["agent.yaml:8", "upstream", "loopback", "https"] {
            assert!(checked.stderr.contains(part), "{part}: {}", checked.stderr);
        }
    }
    for upstream in [
        "https://abc.execute-api.eu-west-1.amazonaws.com",
        "http://127.0.0.1:4566",
    ] {
        let checked = check(upstream);
        assert_eq!(checked.code, Some(0), "{upstream}: {}", checked.stderr);
    }
}
