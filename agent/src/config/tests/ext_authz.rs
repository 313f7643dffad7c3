//! A listener that Envoy asks: whoever asks is believed, so it says who may.

use super::*;

fn file(inbound: &str) -> String {
    format!(
        "{SMALL}inbound:
- accept: [{{mtls: {{trust_domains: [example.org]}}}}]
{inbound}"
    )
}

#[test]
fn envoy_is_a_process_on_a_unix_socket_and_a_peer_over_tcp() {
    let unix = "  listen: unix:/a\n  ext_authz: {clients: {uids: [101]}}\n";
    let agent = parse_agent(&file(unix), "agent.yaml").unwrap();
    let ext_authz = agent.inbound[0].ext_authz.as_ref().unwrap();
    assert_eq!(ext_authz.clients.uids, [101]);
    let tcp = "  listen: 0.0.0.0:1\n  ext_authz: {peers: [\"spiffe://example.org/envoy\"]}\n";
    let agent = parse_agent(&file(tcp), "agent.yaml").unwrap();
    let ext_authz = agent.inbound[0].ext_authz.as_ref().unwrap();
    assert_eq!(ext_authz.peers.len(), 1);
}

#[test]
fn s16_an_envoy_that_nobody_named_is_refused() {
    for (inbound, field, what) in [
        ("  listen: unix:/a\n", "inbound[0]", "or ext_authz"),
        (
            "  listen: unix:/a\n  ext_authz: {}\n",
            "inbound[0].ext_authz.clients",
            "clients: {uids: [101]}",
        ),
        (
            "  listen: 0.0.0.0:1\n  ext_authz: {}\n",
            "inbound[0].ext_authz.peers",
            "spiffe://example.org/envoy",
        ),
        (
            "  listen: unix:/a\n  ext_authz: {clients: {uids: [1]}, peers: [\"spiffe://a/b\"]}\n",
            "inbound[0].ext_authz.peers",
            "give clients",
        ),
        (
            "  listen: 0.0.0.0:1\n  ext_authz: {clients: {uids: [1]}, peers: [\"spiffe://a/b\"]}\n",
            "inbound[0].ext_authz.clients",
            "give peers",
        ),
        (
            "  listen: unix:/a\n  forward: unix:/b\n  ext_authz: {clients: {uids: [1]}}\n",
            "inbound[0].ext_authz",
            "either forward or ext_authz",
        ),
        (
            "  listen: unix:/a\n  app_protocol: http2\n  ext_authz: {clients: {uids: [1]}}\n",
            "inbound[0].app_protocol",
            "Envoy forwards",
        ),
    ] {
        let found = agent_errors(&file(inbound));
        let [(_, name, said)] = found.as_slice() else {
            panic!("{inbound}: {found:#?}");
        };
        assert_eq!(name, field, "{said}");
        assert!(said.contains(what), "{said}");
    }
}
