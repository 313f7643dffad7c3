use super::*;

fn map(lines: &[(&str, &str)]) -> HeaderMap {
    lines
        .iter()
        .map(|(name, value)| {
            (
                name.parse::<HeaderName>().unwrap(),
                HeaderValue::from_str(value).unwrap(),
            )
        })
        .fold(HeaderMap::new(), |mut map, (name, value)| {
            map.append(name, value);
            map
        })
}

fn left(filter: &Filter, lines: &[(&str, &str)]) -> Vec<String> {
    let mut headers = map(lines);
    filter.strip(&mut headers);
    let mut left: Vec<_> = headers
        .iter()
        .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
        .collect();
    left.sort();
    left
}

fn to_app() -> Filter {
    Filter::to_app(&[
        HeaderName::from_static("x-user-id"),
        HeaderName::from_static("0-user"),
    ])
}

#[test]
fn leaves_what_is_no_ones_business() {
    let lines = [
        ("accept", "*/*"),
        ("authorization", "Basic x"),
        ("content-length", "3"),
        ("content-type", "text/plain"),
        ("host", "payments"),
        ("traceparent", "00-1"),
        ("trailer", "grpc-status"),
        ("user-agent", "curl"),
        ("x-request-id", "1"),
        ("x_request_id", "2"),
        ("x-user", "1"),
    ];
    assert_eq!(left(&to_app(), &lines).len(), lines.len());
}

#[test]
fn s03_a_forged_client_cert_header_is_removed() {
    for name in [
        "x-forwarded-client-cert",
        "X-Forwarded-Client-Cert",
        "x_forwarded_client_cert",
        "x-forwarded_client-cert",
        "x.forwarded.client.cert",
        "x-warifu-caller",
        "x_warifu_caller",
        "x-warifu_context",
        "x-warifu-anything",
        "client-cert",
        "client_cert",
        "client-cert-chain",
        "x-amzn-oidc-data",
        "x_amzn_oidc_identity",
        "x-user-id",
        "x_user_id",
        "0-user",
        "0_user",
    ] {
        assert_eq!(
            left(&to_app(), &[(name, "forged"), (name, "again"), ("a", "b")]),
            ["a: b"],
            "{name}"
        );
    }
}

#[test]
fn s03_method_and_path_overrides_are_removed() {
    for name in TARGETS.iter().chain(ORIGINS).copied().chain([
        "X-HTTP-Method-Override",
        "x_http_method_override",
        "x_original_url",
    ]) {
        assert_eq!(
            left(&to_app(), &[(name, "DELETE"), ("a", "b")]),
            ["a: b"],
            "{name}"
        );
    }
}

#[test]
fn s03_what_every_connection_line_nominates_is_removed() {
    let lines = [
        ("connection", "keep-alive, x-one"),
        ("Connection", "X-Two ,, x-three"),
        ("connection", "close, bad name"),
        ("x-one", "1"),
        ("x-two", "2"),
        ("x-three", "3"),
        ("x-four", "4"),
        ("keep-alive", "timeout=5"),
        ("proxy-authorization", "Basic x"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("expect", "100-continue"),
    ];
    for filter in [
        to_app(),
        Filter::from_app(),
        Filter::to_network(&[]),
        Filter::from_network(),
    ] {
        assert_eq!(left(&filter, &lines), ["x-four: 4"]);
    }
}

#[test]
fn s04_host_and_length_cannot_be_nominated_away() {
    let lines = [
        ("connection", "host, content-length"),
        ("host", "a"),
        ("content-length", "3"),
    ];
    assert_eq!(left(&to_app(), &lines), ["content-length: 3", "host: a"]);
}

#[test]
fn of_te_only_trailers_passes() {
    for (te, kept) in [
        ("trailers", Some("te: trailers")),
        ("gzip, Trailers", Some("te: trailers")),
        ("gzip", None),
    ] {
        assert_eq!(
            left(&to_app(), &[("te", te), ("connection", "te")])
                .pop()
                .as_deref(),
            kept,
            "{te}"
        );
    }
    assert_eq!(
        left(&to_app(), &[("te", "gzip"), ("te", "trailers")]),
        ["te: trailers"]
    );
}

#[test]
fn s03_trailers_pass_the_same_filter() {
    let mut trailers = map(&[
        ("grpc-status", "0"),
        ("x-warifu-caller", "forged"),
        ("x_forwarded_client_cert", "forged"),
        ("x_user_id", "root"),
        ("authorization", "Bearer x"),
        ("content_length", "9"),
        ("x-forwarded-for", "10.0.0.1"),
        ("connection", "close"),
    ]);
    to_app().strip_trailers(&mut trailers);
    assert_eq!(
        trailers.keys().map(HeaderName::as_str).collect::<Vec<_>>(),
        ["grpc-status"]
    );
}

#[test]
fn s03_the_app_cannot_speak_as_an_agent() {
    let lines = [
        ("x-warifu-caller", "me"),
        ("x_warifu_caller", "me"),
        ("x-forwarded-client-cert", "By=me"),
    ];
    assert!(left(&Filter::to_network(&[]), &lines).is_empty());
    assert!(left(&Filter::from_app(), &lines[..2]).is_empty());
}

#[test]
fn s06_the_apps_authorization_gives_way_to_the_routes() {
    let lines = [("authorization", "Bearer x")];
    assert_eq!(left(&Filter::to_network(&[]), &lines).len(), 1);
    assert!(left(&Filter::to_network(&["authorization"]), &lines).is_empty());
}

#[test]
fn s03_only_the_last_forwarded_for_is_ours_and_it_is_one_line() {
    let mut headers = map(&[
        ("x-forwarded-for", "1.1.1.1"),
        ("x-forwarded-for", "2.2.2.2"),
        ("x_forwarded_for", "6.6.6.6"),
        ("x-forwarded-proto", "http"),
        ("x_forwarded_proto", "http"),
    ]);
    to_app().strip(&mut headers);
    set_forwarded(
        &mut headers,
        Some(&HeaderValue::from_static("3.3.3.3")),
        HeaderValue::from_static("https"),
    );
    assert_eq!(headers.len(), 2);
    assert_eq!(headers[X_FORWARDED_FOR], "1.1.1.1, 2.2.2.2, 3.3.3.3");
    assert_eq!(headers[X_FORWARDED_PROTO], "https");
}

#[test]
fn s03_what_other_proxies_say_of_a_client_is_removed() {
    for name in [
        "x-amzn-mtls-clientcert",
        "X-Amzn-Mtls-Clientcert-Leaf",
        "x_amzn_mtls_clientcert_subject",
        "x-forwarded-tls-client-cert",
        "x-forwarded-tls-client-cert-info",
        "x-ssl-client-s-dn",
        "X_SSL_Client_Verify",
        "ssl-client-cert",
        "ssl-client-verify",
        "ssl_client_subject_dn",
        "ssl-client-issuer-dn",
        "x-client-ip",
        "x-cluster-client-ip",
        "true-client-ip",
        "x-envoy-external-address",
    ] {
        assert!(left(&to_app(), &[(name, "forged")]).is_empty(), "{name}");
    }
}
