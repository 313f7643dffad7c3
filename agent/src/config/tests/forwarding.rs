//! What a listener tells the app of who calls, and how it is reached.

use super::*;
use crate::config::inbound::ClientCertHeader;

fn file(inbound: &str) -> String {
    format!(
        "{SMALL}inbound:
- listen: 0.0.0.0:1
  accept: [{{mtls: {{trust_domains: [example.org]}}}}]
{inbound}"
    )
}

#[test]
fn the_certificate_is_told_in_envoys_format_unless_said_and_in_none_where_the_list_is_empty() {
    let headers = |inbound: &str| {
        let file = file(&format!("  forward: unix:/a\n{inbound}"));
        let agent = parse_agent(&file, "agent.yaml").unwrap_or_else(|why| panic!("{why}"));
        agent.inbound[0].client_cert_headers.clone()
    };
    assert_eq!(headers(""), [ClientCertHeader::Xfcc]);
    assert_eq!(headers("  client_cert_headers: []\n"), []);
    assert_eq!(
        headers("  client_cert_headers: [client-cert, client-cert-chain, xfcc]\n"),
        [
            ClientCertHeader::ClientCert,
            ClientCertHeader::ClientCertChain,
            ClientCertHeader::Xfcc
        ]
    );
}

#[test]
fn headers_of_certificates_that_make_no_sense_are_mistakes() {
    for (inbound, field, what) in [
        (
            "  forward: unix:/a\n  client_cert_headers: [client-cert-chain]\n",
            "inbound[0].client_cert_headers[0]",
            "expected client-cert beside it",
        ),
        (
            "  forward: unix:/a\n  client_cert_headers: [xfcc, xfcc]\n",
            "inbound[0].client_cert_headers[1]",
            "listed already",
        ),
        (
            "  ext_authz: {peers: [\"spiffe://example.org/envoy\"]}\n  \
             client_cert_headers: [client-cert, client-cert-chain]\n",
            "inbound[0].client_cert_headers[1]",
            "have Envoy forward it",
        ),
    ] {
        let found = agent_errors(&file(inbound));
        let [(_, name, said)] = found.as_slice() else {
            panic!("{inbound}: {found:#?}");
        };
        assert_eq!(name, field, "{said}");
        assert!(said.contains(what), "{said}");
    }
    let found = agent_errors(&file(
        "  forward: unix:/a\n  client_cert_headers: [x-client-cert]\n",
    ));
    assert!(found[0].2.contains("client-cert"), "{found:#?}");
}

#[test]
fn two_listeners_that_write_their_keys_to_one_file_are_a_mistake() {
    let two = |other: &str| {
        file(&format!(
            "  forward: unix:/a
  context: {{key_file: /run/context.jwks}}
- listen: 0.0.0.0:2
  accept: [{{mtls: {{trust_domains: [example.org]}}}}]
  forward: unix:/b
  context: {{key_file: {other}}}
"
        ))
    };
    parse_agent(&two("/run/other.jwks"), "agent.yaml").unwrap_or_else(|why| panic!("{why}"));
    one(
        agent_errors(&two("/run/context.jwks")),
        14,
        "inbound[1].context.key_file",
        "/run/context.jwks is written by inbound[0].context.key_file",
    );
}
