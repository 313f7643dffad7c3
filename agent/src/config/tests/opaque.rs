//! Listeners before apps that speak no HTTP.

use super::*;
use crate::config::inbound::ProxyProtocol;

fn file(more: &str) -> String {
    format!(
        "{SMALL}inbound:
- listen: 0.0.0.0:1
  accept: [{{mtls: {{trust_domains: [example.org]}}}}]
{more}"
    )
}

#[test]
fn a_listener_before_tcp_needs_no_more_than_who_may_connect() {
    for forward in [
        "tcp://127.0.0.1:5432",
        "\"tcp://[::1]:5432\"",
        "tcp+unix:/run/db.sock",
    ] {
        let file = file(&format!(
            "  forward: {forward}
  proxy_protocol: v2
  allow: [{{peer: \"spiffe://example.org/orders\", source: [10.0.0.0/8], when: {{days: [mon]}}}}]
  deny: [{{peer: \"spiffe://example.org/billing\"}}]
  limits: {{per_caller: {{rate: {{requests: 10, every: 1s}}, concurrency: 5}}, concurrency: 100}}
  timeouts: {{connect: 1s}}
  max_connection_age: 10m
"
        ));
        let agent = parse_agent(&file, "agent.yaml").unwrap_or_else(|why| panic!("{why}"));
        let inbound = &agent.inbound[0];
        assert!(inbound.is_opaque(), "{forward}");
        assert_eq!(inbound.proxy_protocol, Some(ProxyProtocol::V2));
    }
}

#[test]
fn what_is_about_requests_is_a_mistake_where_there_are_none() {
    let allow = "  allow: [{peer: \"spiffe://example.org/orders\"";
    for (more, field, what) in [
        (
            format!("{allow}, to: [\"GET /**\"]}}]\n"),
            "inbound[0].allow[0].to",
            "no method and no path",
        ),
        (
            format!("{allow}, headers: {{x-a: [b]}}}}]\n"),
            "inbound[0].allow[0].headers",
            "has no headers",
        ),
        (
            format!("{allow}, subject: {{scope: a}}}}]\n"),
            "inbound[0].allow[0].subject",
            "proves no subject",
        ),
        (
            "  deny: [{to: [\"GET /**\"]}]\n".to_owned(),
            "inbound[0].deny[0].to",
            "no method and no path",
        ),
        (
            "  allow: [{source: [10.0.0.0/8]}]\n".to_owned(),
            "inbound[0].allow[0]",
            "expected peer",
        ),
        (
            "  forward_claims: {sub: x-user}\n".to_owned(),
            "inbound[0].forward_claims",
            "no requests here",
        ),
        (
            "  context: {key_file: /a}\n".to_owned(),
            "inbound[0].context",
            "no requests here",
        ),
        (
            "  client_cert_headers: [client-cert]\n".to_owned(),
            "inbound[0].client_cert_headers",
            "no requests here",
        ),
        (
            "  trusted_hops: 1\n".to_owned(),
            "inbound[0].trusted_hops",
            "no requests here",
        ),
        (
            "  app_protocol: http2\n".to_owned(),
            "inbound[0].app_protocol",
            "no requests here",
        ),
        (
            "  limits: {body: 1MiB}\n".to_owned(),
            "inbound[0].limits.body",
            "no requests here",
        ),
        (
            "  timeouts: {first_byte: 1s}\n".to_owned(),
            "inbound[0].timeouts.first_byte",
            "no requests here",
        ),
        (
            "  timeouts: {whole: 1s}\n".to_owned(),
            "inbound[0].timeouts.whole",
            "no requests here",
        ),
    ] {
        let found = agent_errors(&file(&format!("  forward: tcp://127.0.0.1:5432\n{more}")));
        let said = |(_, name, said): &(u64, String, String)| name == field && said.contains(what);
        assert!(found.iter().any(said), "{more}: {found:#?}");
    }
}

#[test]
fn nothing_but_a_certificate_proves_anything_to_a_listener_before_tcp() {
    let more = "  forward: tcp://127.0.0.1:5432\n  tls: {client_cert: optional}\n";
    let token = "{jwt: {profile: jwt-svid, audiences: [db]}}";
    let file = file(more).replace("  accept: [", &format!("  accept: [{token}, "));
    let found = agent_errors(&file);
    let [(_, field, said)] = found.as_slice() else {
        panic!("{found:#?}");
    };
    assert_eq!(field, "inbound[0].accept[0]");
    assert!(said.contains("only mtls"), "{said}");
}

#[test]
fn the_proxy_protocol_is_not_for_http_and_knows_one_version() {
    let found = agent_errors(&file("  forward: unix:/a\n  proxy_protocol: v2\n"));
    one(
        found,
        10,
        "inbound[0].proxy_protocol",
        "over HTTP the app is told in headers",
    );
    let found = agent_errors(&file(
        "  forward: tcp://127.0.0.1:1\n  proxy_protocol: v1\n",
    ));
    assert!(found[0].2.contains("v2"), "{found:?}");
}

#[test]
fn s19_bytes_of_callers_go_to_this_machine_alone() {
    for forward in [
        "tcp://10.0.0.1:5432",
        "tcp://db:5432",
        "tcp://127.0.0.1",
        "tcp://127.0.0.1:0",
        "tcp+unix:db",
    ] {
        let found = agent_errors(&file(&format!("  forward: \"{forward}\"\n")));
        assert_eq!(found[0].1, "inbound[0].forward", "{forward}: {found:#?}");
    }
}
