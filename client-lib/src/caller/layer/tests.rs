use std::{
    convert::Infallible,
    fs,
    future::{Ready, ready},
    os::unix::fs::PermissionsExt,
    path::Path,
    time::Duration,
};

use http::Method;
use tokio::net::UnixStream;

use super::*;
use crate::{
    caller::{encode, own_uid, tests::orders},
    jwt::SigningKey,
};

/// An app that says who called, and which headers it saw.
#[derive(Clone)]
struct App;

impl Service<Request<()>> for App {
    type Response = Response<String>;
    type Error = Infallible;
    type Future = Ready<Result<Response<String>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        let caller = Caller::from_extensions(request.extensions())
            .and_then(Caller::peer_id)
            .map(ToString::to_string);
        let seen = request.headers().keys().map(|name| name.as_str());
        let seen = seen.collect::<Vec<_>>().join(",");
        ready(Ok(Response::new(format!("{caller:?} {seen}"))))
    }
}

async fn call(layer: &CallerLayer, request: Request<()>) -> (StatusCode, String) {
    let response = layer.layer(App).call(request).await.unwrap();
    (response.status(), response.into_body())
}

/// A request to `GET /charges?limit=1` with these headers.
fn request(headers: &[(&'static str, &HeaderValue)]) -> Request<()> {
    let mut request = Request::new(());
    *request.uri_mut() = "/charges?limit=1".parse().unwrap();
    for (name, value) in headers {
        request.headers_mut().append(*name, (*value).clone());
    }
    request
}

/// A `PeerCred` of this process: there is no other way to have one.
fn own_peer() -> PeerCred {
    let (one, _other) = UnixStream::pair().unwrap();
    PeerCred::of(&one).unwrap()
}

fn from_own_peer(mut request: Request<()>) -> Request<()> {
    request.extensions_mut().insert(own_peer());
    request
}

const PASSED: &str = r#"Some("spiffe://example.org/orders") "#;

#[tokio::test]
async fn the_caller_told_over_the_agents_socket_reaches_the_app_without_the_headers() {
    let layer = CallerLayer::over_unix([own_uid().unwrap()]);
    let caller = encode(&orders()).unwrap();
    let context = HeaderValue::from_static("ignored");
    let request = from_own_peer(request(&[
        (CALLER_HEADER, &caller),
        (CONTEXT_HEADER, &context),
    ]));
    assert_eq!(call(&layer, request).await, (StatusCode::OK, PASSED.into()));
}

#[tokio::test]
async fn s16_without_evidence_of_the_agent_a_caller_header_is_refused() {
    let layer = CallerLayer::over_unix([own_uid().unwrap()]);
    let caller = encode(&orders()).unwrap();
    let (status, body) = call(&layer, request(&[(CALLER_HEADER, &caller)])).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(body.contains("did not come from the agent"), "{body}");
}

#[tokio::test]
async fn s03_a_caller_header_from_another_users_process_is_refused() {
    let caller = encode(&orders()).unwrap();
    let uid = own_uid().unwrap();
    for uids in [vec![], vec![uid + 1]] {
        let layer = CallerLayer::over_unix(uids);
        let mut request = from_own_peer(request(&[(CALLER_HEADER, &caller)]));
        assert_eq!(layer.admit(&mut request), Err(Refused::NotTheAgent { uid }));
        assert_eq!(Caller::from_extensions(request.extensions()), None);
    }
}

#[tokio::test]
async fn s16_a_request_that_names_no_caller_is_refused() {
    let layer = CallerLayer::over_unix([own_uid().unwrap()]);
    let (status, body) = call(&layer, from_own_peer(request(&[]))).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(body.contains("names no caller"), "{body}");
}

#[tokio::test]
async fn s16_a_caller_from_before_the_layer_does_not_survive_a_refusal() {
    let layer = CallerLayer::over_unix([own_uid().unwrap()]);
    let mut request = from_own_peer(request(&[]));
    request.extensions_mut().insert(orders());
    assert_eq!(
        layer.admit(&mut request),
        Err(Refused::Missing(CALLER_HEADER))
    );
    assert_eq!(Caller::from_extensions(request.extensions()), None);
}

#[tokio::test]
async fn s03_a_header_that_occurs_twice_is_refused() {
    let layer = CallerLayer::over_unix([own_uid().unwrap()]);
    let caller = encode(&orders()).unwrap();
    let mut twice = from_own_peer(request(&[
        (CALLER_HEADER, &caller),
        (CALLER_HEADER, &caller),
    ]));
    assert_eq!(
        layer.admit(&mut twice),
        Err(Refused::Repeated(CALLER_HEADER))
    );

    let (dir, key) = agent_key();
    let layer = CallerLayer::signed_context(dir.path().join("context.jwks"));
    let context = signed(&key, &Method::GET, "/charges?limit=1");
    let mut twice = request(&[(CONTEXT_HEADER, &context), (CONTEXT_HEADER, &context)]);
    assert_eq!(
        layer.admit(&mut twice),
        Err(Refused::Repeated(CONTEXT_HEADER))
    );
}

#[tokio::test]
async fn s03_other_spellings_of_the_headers_are_neither_believed_nor_passed_on() {
    let layer = CallerLayer::over_unix([own_uid().unwrap()]);
    let caller = encode(&orders()).unwrap();
    let forged = HeaderValue::from_static("forged");
    let spellings = [
        ("x_warifu_caller", &forged),
        ("x-warifu_caller", &forged),
        ("x_warifu-context", &forged),
    ];
    let mut with_caller = spellings.to_vec();
    with_caller.push((CALLER_HEADER, &caller));
    assert_eq!(
        call(&layer, from_own_peer(request(&with_caller))).await,
        (StatusCode::OK, PASSED.into())
    );
    let alone = [("x_warifu_caller", &caller)];
    let (status, _) = call(&layer, from_own_peer(request(&alone))).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_signed_context_reaches_the_app_as_the_caller_without_the_headers() {
    let (dir, key) = agent_key();
    let layer = CallerLayer::signed_context(dir.path().join("context.jwks"));
    let context = signed(&key, &Method::GET, "/charges?limit=1");
    let request = request(&[(CONTEXT_HEADER, &context)]);
    assert_eq!(call(&layer, request).await, (StatusCode::OK, PASSED.into()));
}

#[tokio::test]
async fn s03_an_unsigned_caller_header_over_tcp_is_refused() {
    let (dir, _key) = agent_key();
    let layer = CallerLayer::signed_context(dir.path().join("context.jwks"));
    let caller = encode(&orders()).unwrap();
    let mut plain = request(&[(CALLER_HEADER, &caller)]);
    assert_eq!(
        layer.admit(&mut plain),
        Err(Refused::Missing(CONTEXT_HEADER))
    );
    // A checked peer is no evidence for a layer that asks for signatures.
    let mut checked = from_own_peer(request(&[(CALLER_HEADER, &caller)]));
    assert_eq!(
        layer.admit(&mut checked),
        Err(Refused::Missing(CONTEXT_HEADER))
    );
    let mut unsigned = request(&[(CONTEXT_HEADER, &caller)]);
    assert!(matches!(
        layer.admit(&mut unsigned),
        Err(Refused::Context(ContextError::Token(_)))
    ));
}

#[tokio::test]
async fn s03_a_context_of_another_request_is_refused() {
    let (dir, key) = agent_key();
    let layer = CallerLayer::signed_context(dir.path().join("context.jwks"));
    for (method, target, differs) in [
        (Method::DELETE, "/charges?limit=1", "method"),
        (Method::GET, "/charges?limit=2", "target"),
        (Method::GET, "/charges", "target"),
    ] {
        let context = signed(&key, &method, target);
        let mut request = request(&[(CONTEXT_HEADER, &context)]);
        assert_eq!(
            layer.admit(&mut request),
            Err(ContextError::OtherRequest(differs).into())
        );
    }
}

#[tokio::test]
async fn s16_without_a_key_file_requests_wait_for_the_agent_and_none_passes() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("context.jwks");
    let layer = CallerLayer::signed_context(&file);
    let key = SigningKey::generate();
    let context = signed(&key, &Method::GET, "/charges?limit=1");

    let (status, body) = call(&layer, request(&[(CONTEXT_HEADER, &context)])).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(body.contains("context keys cannot be read"), "{body}");
    let refused = layer
        .admit(&mut request(&[(CONTEXT_HEADER, &context)]))
        .unwrap_err()
        .to_string();
    assert!(refused.contains("context.jwks"), "{refused}");
    assert!(refused.contains("has the agent started?"), "{refused}");

    // The agent comes, and the layer sees it at its next look.
    write_key(&file, &key);
    let later = Instant::now() + Duration::from_secs(1);
    let mut request = request(&[(CONTEXT_HEADER, &context)]);
    layer
        .admit_at(&mut request, SystemTime::now(), later)
        .unwrap();
}

#[tokio::test]
async fn a_restarted_agents_new_key_is_believed_at_once_and_the_old_one_a_second_at_most() {
    let (dir, old) = agent_key();
    let file = dir.path().join("context.jwks");
    let layer = CallerLayer::signed_context(&file);
    let admit = |key, at| {
        let context = signed(key, &Method::GET, "/charges?limit=1");
        let mut request = request(&[(CONTEXT_HEADER, &context)]);
        layer.admit_at(&mut request, SystemTime::now(), at)
    };
    let start = Instant::now();
    admit(&old, start).unwrap();

    let new = SigningKey::generate();
    write_key(&file, &new);
    admit(&old, start + Duration::from_millis(999)).unwrap();
    admit(&new, start).unwrap();
    assert_eq!(
        admit(&old, start),
        Err(ContextError::Token(JwtError::UnknownKey).into())
    );

    // Without a token of the new key, the look that is due finds it.
    write_key(&file, &old);
    assert_eq!(
        admit(&new, start + Duration::from_secs(1)),
        Err(ContextError::Token(JwtError::UnknownKey).into())
    );
}

#[tokio::test]
async fn s13_a_key_file_that_cannot_be_read_any_more_takes_no_good_key_away() {
    let (dir, key) = agent_key();
    let file = dir.path().join("context.jwks");
    let layer = CallerLayer::signed_context(&file);
    let context = signed(&key, &Method::GET, "/charges?limit=1");
    let start = Instant::now();
    let admit = |at| {
        let mut request = request(&[(CONTEXT_HEADER, &context)]);
        layer.admit_at(&mut request, SystemTime::now(), at)
    };
    admit(start).unwrap();
    fs::write(&file, "{").unwrap();
    admit(start + Duration::from_secs(1)).unwrap();
    fs::remove_file(&file).unwrap();
    admit(start + Duration::from_secs(2)).unwrap();
}

#[tokio::test]
async fn s03_a_key_file_that_others_may_write_is_not_believed() {
    let (dir, key) = agent_key();
    let file = dir.path().join("context.jwks");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    let layer = CallerLayer::signed_context(&file);
    let context = signed(&key, &Method::GET, "/charges?limit=1");
    let refused = layer
        .admit(&mut request(&[(CONTEXT_HEADER, &context)]))
        .unwrap_err();
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.to_string().contains("mode is 666"), "{refused}");
}

#[tokio::test]
async fn s14_a_key_file_beyond_its_bound_is_not_read_whole() {
    let (dir, key) = agent_key();
    let file = dir.path().join("context.jwks");
    fs::write(&file, vec![b' '; 1024 * 1024]).unwrap();
    let layer = CallerLayer::signed_context(&file);
    let context = signed(&key, &Method::GET, "/charges?limit=1");
    let refused = layer
        .admit(&mut request(&[(CONTEXT_HEADER, &context)]))
        .unwrap_err();
    assert!(refused.to_string().contains("larger than"), "{refused}");
}

/// A directory with the public half of an agent's key in `context.jwks`, and the key.
fn agent_key() -> (tempfile::TempDir, SigningKey) {
    let dir = tempfile::tempdir().unwrap();
    let key = SigningKey::generate();
    write_key(&dir.path().join("context.jwks"), &key);
    (dir, key)
}

/// As an agent does: beside the file, then over it.
fn write_key(file: &Path, key: &SigningKey) {
    let new = file.with_extension("new");
    fs::write(&new, context::key_file_json(key)).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(0o644)).unwrap();
    fs::rename(new, file).unwrap();
}

fn signed(key: &SigningKey, method: &Method, target: &str) -> HeaderValue {
    context::sign(key, &orders(), method, target, SystemTime::now()).unwrap()
}
