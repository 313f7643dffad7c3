use std::time::Duration;

use tonic::Code;
use warifu::identity::Identity;

use super::*;
use crate::local::proto::workload::{
    JwtBundlesRequest, Jwtsvid, JwtsvidRequest, ValidateJwtsvidRequest, X509BundlesRequest,
    X509svidRequest,
};
use fixture::{Authority, Ca, ID, World, with_header};

mod bounds;
mod fixture;
mod streams;

/// Watches the health of the whole server, without the header of the Workload API.
async fn health(
    transport: fixture::Transport,
) -> Result<tonic::Streaming<tonic_health::pb::HealthCheckResponse>, tonic::Status> {
    let mut client = tonic_health::pb::health_client::HealthClient::new(transport);
    let request = tonic_health::pb::HealthCheckRequest {
        service: String::new(),
    };
    Ok(client.watch(request).await?.into_inner())
}

fn jwt_for(audiences: &[&str]) -> tonic::Request<JwtsvidRequest> {
    with_header(JwtsvidRequest {
        audience: audiences.iter().map(|it| (*it).to_owned()).collect(),
        spiffe_id: String::new(),
    })
}

#[tokio::test]
async fn all_five_calls_answer_with_the_whole_of_the_identity() {
    let world = World::new();
    let other = Ca::new();
    let partner = other.bundle("partner.example");
    let identity = Arc::new(world.ca.identity(1, std::slice::from_ref(&partner)));
    world.identity.send_replace(Some(Arc::clone(&identity)));
    let mut client = world.client().await;

    let mut svids = client
        .fetch_x509svid(with_header(X509svidRequest {}))
        .await
        .unwrap()
        .into_inner();
    let first = svids.message().await.unwrap().unwrap();
    let [svid] = first.svids.as_slice() else {
        panic!()
    };
    assert_eq!(
        (svid.spiffe_id.as_str(), svid.hint.as_str()),
        (ID, "internal")
    );
    assert_eq!(svid.x509_svid, identity.svid.chain()[0].as_ref());
    assert_eq!(svid.x509_svid_key, identity.svid.key().secret_pkcs8_der());
    assert_eq!(svid.bundle, identity.bundle.x509_authorities[0].as_ref());
    let partners = &first.federated_bundles["spiffe://partner.example"];
    assert_eq!(partners, partner.x509_authorities[0].as_ref());
    assert_eq!(first.federated_bundles.len(), 1);

    let mut bundles = client
        .fetch_x509_bundles(with_header(X509BundlesRequest {}))
        .await
        .unwrap()
        .into_inner();
    let first = bundles.message().await.unwrap().unwrap().bundles;
    assert_eq!(
        first.keys().collect::<Vec<_>>(),
        ["spiffe://example.org", "spiffe://partner.example"]
    );

    let mut bundles = client
        .fetch_jwt_bundles(with_header(JwtBundlesRequest {}))
        .await
        .unwrap()
        .into_inner();
    let first = bundles.message().await.unwrap().unwrap().bundles;
    assert_eq!(
        first.keys().collect::<Vec<_>>(),
        ["spiffe://example.org", "spiffe://partner.example"]
    );
    let jwks = String::from_utf8(first["spiffe://example.org"].to_vec()).unwrap();
    assert!(jwks.contains("jwt-svid") && !jwks.contains("x5c"), "{jwks}");

    let token = client
        .fetch_jwtsvid(jwt_for(&["payments", "billing"]))
        .await
        .unwrap()
        .into_inner();
    let [svid] = token.svids.as_slice() else {
        panic!()
    };
    assert_eq!(
        (svid.spiffe_id.as_str(), svid.hint.as_str()),
        (ID, "internal")
    );
    let valid = client
        .validate_jwtsvid(with_header(ValidateJwtsvidRequest {
            audience: "billing".to_owned(),
            svid: svid.svid.clone(),
        }))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(valid.spiffe_id, ID);
    let claims = valid.claims.unwrap().fields;
    assert!(
        ["sub", "aud", "exp", "further"]
            .iter()
            .all(|name| claims.contains_key(*name))
    );
}

#[tokio::test]
async fn a_call_without_the_security_header_is_an_invalid_argument() {
    let world = World::new();
    world.issue(1);
    let mut client = world.client().await;
    for value in [None, Some("True"), Some("false"), Some("1")] {
        let mut request = tonic::Request::new(X509svidRequest {});
        if let Some(value) = value {
            request
                .metadata_mut()
                .insert("workload.spiffe.io", value.parse().unwrap());
        }
        let refused = client.fetch_x509svid(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{value:?}");
        assert_eq!(refused.message(), "security header missing from request");
    }
}

#[tokio::test]
async fn a_missing_mandatory_field_is_an_invalid_argument() {
    let world = World::new();
    world.issue(1);
    let mut client = world.client().await;
    let long = "a".repeat(513);
    let nine: Vec<String> = (0..9).map(|it| format!("a{it}")).collect();
    let nine: Vec<&str> = nine.iter().map(String::as_str).collect();
    for audiences in [&[][..], &[""], &["a", ""], &[&long], &["a\n"], &nine] {
        let refused = client.fetch_jwtsvid(jwt_for(audiences)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{audiences:?}");
    }
    for (audience, svid, told) in [
        ("", "a.b.c", "audience"),
        ("a", "", "svid"),
        ("a", "b", "svid"),
    ] {
        let asked = ValidateJwtsvidRequest {
            audience: audience.into(),
            svid: svid.into(),
        };
        let refused = client
            .validate_jwtsvid(with_header(asked))
            .await
            .unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().starts_with(told), "{refused}");
    }
    assert_eq!(
        world.minter.mints.load(std::sync::atomic::Ordering::SeqCst),
        0
    );
}

#[tokio::test]
async fn starting_is_unavailable_and_a_decided_refusal_is_permission_denied() {
    let world = World::new();
    let mut client = world.client().await;
    let ask = async |client: &mut fixture::Client| {
        let x509 = client
            .fetch_x509svid(with_header(X509svidRequest {}))
            .await
            .unwrap_err();
        let jwt = client
            .fetch_jwtsvid(jwt_for(&["payments"]))
            .await
            .unwrap_err();
        assert_eq!((x509.code(), x509.message()), (jwt.code(), jwt.message()));
        x509
    };
    assert_eq!(ask(&mut client).await.code(), Code::Unavailable);
    world.fail(false, "the authority is away");
    let away = ask(&mut client).await;
    assert_eq!(away.code(), Code::Unavailable);
    assert!(away.message().contains("the authority is away"), "{away}");
    world.fail(true, "no rule matches");
    let refused = ask(&mut client).await;
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert_eq!(refused.message(), "no identity issued: no rule matches");
}

#[tokio::test]
async fn a_refused_audience_is_permission_denied_and_an_authority_that_is_away_unavailable() {
    let world = World::new();
    world.issue(1);
    let mut client = world.client().await;
    for (authority, code, told) in [
        (
            Authority::Refuses,
            Code::PermissionDenied,
            "add it to `audiences` of rules[0]",
        ),
        (
            Authority::IsAway,
            Code::Unavailable,
            "the authority is away",
        ),
    ] {
        *world.minter.authority.lock().unwrap() = authority;
        let refused = client.fetch_jwtsvid(jwt_for(&[told])).await.unwrap_err();
        assert_eq!(refused.code(), code, "{refused}");
        assert!(refused.message().contains(told), "{refused}");
    }
}

#[tokio::test]
async fn an_unknown_method_is_unimplemented() {
    let world = World::new();
    world.issue(1);
    for path in [
        "/SpiffeWorkloadAPI/FetchWITSVID",
        "/spiffe.broker.API/Subscribe",
        "/",
        "/SpiffeWorkloadAPI/",
    ] {
        let mut client = tonic::client::Grpc::new(world.connect().await);
        client.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::<X509svidRequest, X509svidRequest>::default();
        let path = http::uri::PathAndQuery::from_static(path);
        let called = client
            .unary(with_header(X509svidRequest {}), path, codec)
            .await;
        let refused = called.unwrap_err();
        assert_eq!(refused.code(), Code::Unimplemented, "{refused}");
    }
}

#[tokio::test]
async fn health_says_whether_there_is_an_identity_to_whoever_asks() {
    let world = World::new();
    let mut health = health(world.connect().await).await.unwrap();
    let mut status = async || health.message().await.unwrap().unwrap().status();
    use tonic_health::pb::health_check_response::ServingStatus::{NotServing, Serving};
    assert_eq!(status().await, NotServing);
    world.issue(1);
    assert_eq!(status().await, Serving);
    world.identity.send_replace(None);
    assert_eq!(status().await, NotServing);
}

#[tokio::test]
async fn reflection_tells_of_every_service() {
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    let world = World::new();
    let mut client = ServerReflectionClient::new(world.connect().await);
    let ask = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let requests = tonic::codegen::tokio_stream::once(ask);
    let mut answers = client
        .server_reflection_info(requests)
        .await
        .unwrap()
        .into_inner();
    let answer = answers.message().await.unwrap().unwrap().message_response;
    let Some(MessageResponse::ListServicesResponse(list)) = answer else {
        panic!("{answer:?}")
    };
    let names: Vec<_> = list.service.iter().map(|it| it.name.as_str()).collect();
    for name in [
        "SpiffeWorkloadAPI",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
    ] {
        assert!(names.contains(&name), "{names:?}");
    }
}

#[tokio::test]
async fn s20_a_process_that_is_not_listed_is_told_no_identity_issued_and_no_more() {
    let mine = rustix::process::geteuid().as_raw();
    for (uid, may_ask) in [(mine, true), (mine + 1, false)] {
        let clients = crate::config::local::Clients {
            uids: vec![uid],
            gids: Vec::new(),
        };
        let world = World::with(&clients);
        world.issue(1);
        let mut client = world.client().await;
        let asked = client.fetch_x509svid(with_header(X509svidRequest {})).await;
        assert_eq!(asked.is_ok(), may_ask);
        if let Err(refused) = asked {
            assert_eq!(refused.code(), Code::PermissionDenied);
            assert_eq!(refused.message(), "no identity issued");
        }
    }
}

const REPORTS: &str = "spiffe://example.org/reports";
const JOBS: &str = "spiffe://example.org/jobs";

fn jwt_of(id: &str, audience: &str) -> tonic::Request<JwtsvidRequest> {
    with_header(JwtsvidRequest {
        audience: vec![audience.to_owned()],
        spiffe_id: id.to_owned(),
    })
}

fn tokens(answer: &[Jwtsvid]) -> Vec<(&str, &str)> {
    let tokens = answer.iter();
    tokens
        .map(|it| (it.spiffe_id.as_str(), it.hint.as_str()))
        .collect()
}

#[tokio::test]
async fn all_identities_are_listed_the_default_one_first_each_with_its_own_hint_once() {
    let world = World::new();
    // The last has the hint of the default one, which this agent's configuration chose.
    let further = [
        (REPORTS, Some("reports")),
        (JOBS, None),
        ("spiffe://example.org/x", Some("internal")),
    ];
    let identity = Arc::new(world.ca.several(1, &further));
    world.identity.send_replace(Some(Arc::clone(&identity)));
    let mut client = world.client().await;
    let asked = client.fetch_x509svid(with_header(X509svidRequest {})).await;
    let mut svids = asked.unwrap().into_inner();
    let first = svids.message().await.unwrap().unwrap();
    let told: Vec<_> = first
        .svids
        .iter()
        .map(|it| (it.spiffe_id.as_str(), it.hint.as_str()))
        .collect();
    let expected = [
        (ID, "internal"),
        (REPORTS, "reports"),
        (JOBS, ""),
        ("spiffe://example.org/x", ""),
    ];
    assert_eq!(told, expected);
    for (told, svid) in first.svids.iter().zip(identity.svids()) {
        assert_eq!(told.x509_svid, svid.chain()[0].to_vec());
        assert_eq!(told.x509_svid_key, svid.key().secret_pkcs8_der());
        assert_eq!(told.bundle, first.svids[0].bundle);
    }
    // One that is no more is redacted, by the whole state without it.
    let left = Identity {
        further: identity.further.iter().skip(1).cloned().collect(),
        ..world.ca.again(&identity, 2)
    };
    world.identity.send_replace(Some(Arc::new(left)));
    let next = svids.message().await.unwrap().unwrap();
    assert_eq!(next.svids.len(), 3);
    assert!(next.svids.iter().all(|it| it.spiffe_id != REPORTS));
}

#[tokio::test]
async fn a_token_is_had_of_each_identity_or_of_the_one_that_is_asked_for() {
    let world = World::new();
    let further = [(REPORTS, Some("reports")), (JOBS, None)];
    world
        .identity
        .send_replace(Some(Arc::new(world.ca.several(1, &further))));
    let mut client = world.client().await;
    let all = client
        .fetch_jwtsvid(jwt_of("", "payments"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        tokens(&all.svids),
        [(ID, "internal"), (REPORTS, "reports"), (JOBS, "")]
    );
    for (id, hint) in [(ID, "internal"), (REPORTS, "reports"), (JOBS, "")] {
        let one = client
            .fetch_jwtsvid(jwt_of(id, "payments"))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(tokens(&one.svids), [(id, hint)]);
        let valid = client.validate_jwtsvid(with_header(ValidateJwtsvidRequest {
            audience: "payments".to_owned(),
            svid: one.svids[0].svid.clone(),
        }));
        assert_eq!(valid.await.unwrap().into_inner().spiffe_id, id);
    }
    let mints = world.minter.mints.load(std::sync::atomic::Ordering::SeqCst);
    assert_eq!(mints, 3, "one for each identity, and none again");
    let refused = client
        .fetch_jwtsvid(jwt_of("spiffe://example.org/other", "payments"))
        .await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(
        refused.message().contains("no identity issued"),
        "{refused}"
    );
    let refused = client.fetch_jwtsvid(jwt_of("not an id", "payments")).await;
    assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn without_the_default_identitys_token_no_other_is_given_in_its_place() {
    let world = World::new();
    let further = [(REPORTS, Some("reports"))];
    world
        .identity
        .send_replace(Some(Arc::new(world.ca.several(1, &further))));
    let mut client = world.client().await;
    let refuse = |id: &str| *world.minter.refused.lock().unwrap() = vec![id.to_owned()];
    refuse(REPORTS);
    let some = client
        .fetch_jwtsvid(jwt_of("", "a"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(tokens(&some.svids), [(ID, "internal")]);
    refuse(ID);
    let refused = client.fetch_jwtsvid(jwt_of("", "b")).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let one = client
        .fetch_jwtsvid(jwt_of(REPORTS, "b"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(tokens(&one.svids), [(REPORTS, "reports")]);
}

#[tokio::test]
async fn s14_one_token_is_minted_for_all_who_ask_for_the_same_audiences_in_any_order() {
    let world = World::new();
    world.issue(1);
    let mut client = world.client().await;
    for audiences in [&["b", "a"][..], &["a", "b"], &["a", "b", "a"]] {
        client.fetch_jwtsvid(jwt_for(audiences)).await.unwrap();
    }
    assert_eq!(
        world.minter.mints.load(std::sync::atomic::Ordering::SeqCst),
        1
    );
}

#[tokio::test]
async fn a_token_that_does_not_verify_is_an_invalid_argument_with_its_reason() {
    let world = World::new();
    let identity = world.issue(1);
    let mut client = world.client().await;
    let audiences = ["payments".to_owned()];
    let minute = Duration::from_secs(60);
    let long_ago = std::time::SystemTime::now() - minute;
    let good = world.ca.token(ID, &audiences, minute);
    let (head, rest) = good.split_once('.').unwrap();
    let (payload, signature) = rest.split_once('.').unwrap();
    let other = world
        .ca
        .token("spiffe://example.org/billing", &audiences, minute);
    let other_payload = other.split('.').nth(1).unwrap();
    let mut validate = async |audience: &str, svid: &str| {
        let (audience, svid) = (audience.to_owned(), svid.to_owned());
        let asked = with_header(ValidateJwtsvidRequest { audience, svid });
        client.validate_jwtsvid(asked).await
    };
    validate("payments", &good).await.unwrap();
    for (audience, svid, why) in [
        ("orders", good.clone(), "aud"),
        (
            "payments",
            world.ca.token_until(ID, &audiences, long_ago),
            "expired",
        ),
        (
            "payments",
            format!("{head}.{other_payload}.{signature}"),
            "signature",
        ),
        (
            "payments",
            format!("eyJhbGciOiJub25lIn0.{payload}."),
            "header",
        ),
        ("payments", Ca::new().token(ID, &audiences, minute), "kid"),
        (
            "payments",
            world
                .ca
                .token("spiffe://partner.example/a", &audiences, minute),
            "trust domain",
        ),
        ("payments", "a".repeat(9 * 1024), "malformed"),
    ] {
        let refused = validate(audience, &svid).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        assert!(refused.message().contains(why), "{why}: {refused}");
        assert!(!refused.message().contains(&svid), "{refused}");
    }
    drop(identity);
}

#[tokio::test]
async fn s14_a_message_that_is_too_long_gets_a_clear_error_and_stops_nothing_else() {
    let world = World::new();
    world.issue(1);
    let mut client = world.client().await;
    let long = "a".repeat(70 * 1024);
    let refused = client.fetch_jwtsvid(jwt_for(&[&long])).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
    assert!(refused.message().contains("too large"), "{refused}");
    client.fetch_jwtsvid(jwt_for(&["payments"])).await.unwrap();
}

#[tokio::test]
async fn s20_over_tcp_a_foreign_host_an_origin_or_a_forwarded_request_is_refused() {
    let listen = Listen::Tcp("127.0.0.1:0".parse().unwrap());
    let clients = crate::config::local::Clients::default();
    let world = World::at(&listen, &clients, tempfile::tempdir().unwrap());
    world.issue(1);
    world
        .client()
        .await
        .fetch_x509svid(with_header(X509svidRequest {}))
        .await
        .unwrap();
    let foreign = world.connect().await.naming("evil.example:8081");
    let refused = fixture::Client::new(foreign)
        .fetch_x509svid(with_header(X509svidRequest {}))
        .await;
    assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
    for header in ["origin", "x-forwarded-for"] {
        let mut request = with_header(X509svidRequest {});
        request
            .metadata_mut()
            .insert(header, "127.0.0.1".parse().unwrap());
        let refused = world
            .client()
            .await
            .fetch_x509svid(request)
            .await
            .unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{header}");
        assert!(
            refused.message().to_lowercase().contains(header),
            "{refused}"
        );
    }
}
