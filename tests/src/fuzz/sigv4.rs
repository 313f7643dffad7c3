//! A request that an app sends through a route that signs.

use std::sync::LazyLock;

use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Uri, header::HOST};
use tokio::runtime::Runtime;
use warifu_agent::{
    aws::{Payload, Plan, Profile, Roles, Signer},
    config::{aws::Aws, outbound::RouteSigV4},
};

use super::read_headers;
use crate::aws::signature;

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const SERVICES: [&str; 4] = ["execute-api", "s3", "vpc-lattice-svcs", "aoss"];

/// A signer for each service, with credentials that are at hand.
static SIGNERS: LazyLock<(Runtime, Vec<(Profile, Signer)>)> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.expect("a runtime");
    let keys = Credentials::new(
        "AKIDEXAMPLE",
        SECRET,
        Some("token".to_owned()),
        None,
        "fuzz",
    );
    let settings = Aws {
        region: Some("us-east-1".to_owned()),
        ..Aws::default()
    };
    let roles = Roles::with_provider(&settings, SharedCredentialsProvider::new(keys));
    let roles = runtime.block_on(roles).expect("roles without a role");
    let signer = |service| {
        let signer = Signer::new(&roles, &RouteSigV4::new(service), None);
        (
            Profile::of(service, false).expect("a profile"),
            signer.expect("a signer"),
        )
    };
    let signers = SERVICES.map(signer).into();
    (runtime, signers)
});

/// `METHOD TARGET SERVICE`, headers a line each, an empty line, a body. What is signed is what is sent: a verifier that
/// knows nothing of ours gets the same signature of what arrives. Nothing of the app's signature is in it, and a
/// second attempt is the first again.
pub fn sigv4(bytes: &[u8]) {
    let (head, body) = match bytes.windows(2).position(|it| it == b"\n\n") {
        Some(end) => (&bytes[..end], &bytes[end + 2..]),
        None => (bytes, &b""[..]),
    };
    let (line, headers) = match head.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&head[..end], &head[end + 1..]),
        None => (head, &b""[..]),
    };
    let mut words = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(service)) = (words.next(), words.next(), words.next())
    else {
        return;
    };
    let (Ok(method), Ok(uri)) = (Method::from_bytes(method), Uri::try_from(target)) else {
        return;
    };
    let (runtime, signers) = &*SIGNERS;
    let which = SERVICES.iter().position(|it| it.as_bytes() == service);
    let (profile, signer) = &signers[which.unwrap_or_default()];
    let mut request = Request::new(Bytes::copy_from_slice(body));
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.headers_mut() = read_headers(headers);
    request
        .headers_mut()
        .insert(HOST, HeaderValue::from_static("service.example"));
    let (mut parts, body) = request.into_parts();
    let said: Vec<(HeaderName, HeaderValue)> = parts
        .headers
        .iter()
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();

    let payload = match profile.plan(&parts.headers) {
        Ok(Plan::Hold) => Payload::hash(&body),
        Ok(Plan::Stream(payload)) => payload,
        Err(_) => return,
    };
    if runtime.block_on(signer.sign(&mut parts, &payload)).is_err() {
        return;
    }
    for (name, value) in &said {
        let gives_way = name == "authorization"
            || ["x-amz-date", "x-amz-security-token", "x-amz-signature"].contains(&name.as_str());
        let ours = parts.headers.get_all(name).iter().all(|it| it != value);
        assert!(
            !gives_way || value.is_empty() || ours,
            "{name}: {value:?} is the app's"
        );
    }
    let target = parts.uri.clone();
    let sent = Request::from_parts(parts, body);
    let checked = signature::check(&sent, SECRET);
    assert!(checked.is_ok(), "{checked:?}: {sent:?}");

    let (mut parts, _) = sent.into_parts();
    let again = runtime.block_on(signer.sign(&mut parts, &payload));
    assert!(again.is_ok() && parts.uri == target, "{again:?}: {parts:?}");
}
