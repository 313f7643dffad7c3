//! What reads bytes of a stranger, each as a function of bytes: called by the fuzzer (`tests/fuzz`), and
//! by a normal test that keeps these from rotting (`scenarios/fuzz_seeds.rs`).
//!
//! A function panics where its claim does not hold. The claims go beyond "it does not panic": what was
//! accepted must be what it seems.

use std::{
    str,
    sync::LazyLock,
    time::{Duration, SystemTime},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
    header::{CONNECTION, CONTENT_LENGTH, HOST, TE},
};
use rustls_pki_types::CertificateDer;
use warifu::{
    SpiffeId, TrustDomain,
    caller::{self, context},
    identity::{TrustBundle, spki_sha256},
    jwt::{self, KeySet, Profile, PublicJwk, SigningKey},
    tls,
};
use warifu_agent::{
    attest::wire::{
        AdminRequest, AttestRequest, CallerIdentityProof, Evidence, JwtSvidRequest, RenewRequest,
    },
    authority::{self, admin::Act},
    config::{
        self, ConfigErrors,
        value::{Forward, HttpsOrigin, IdPattern, Listen, SecretRef, Size, Span, Target, Upstream},
    },
    http::{
        headers::{Filter, set_forwarded},
        path::normal_form,
    },
    local,
    outbound::rewrite_cognito,
    token::oauth::read_answer,
};

mod proxy_protocol;
mod sigv4;
mod tokens;
pub mod tunnels;

pub use proxy_protocol::proxy_protocol;
pub use sigv4::sigv4;
pub use tokens::{jose, jwt};

use tokens::signed;

/// A function of bytes, by its name.
pub type FuzzTarget = (&'static str, fn(&[u8]));

/// All of them. Each has a file of its name in `tests/fuzz/fuzz_targets`, and seeds.
pub const TARGETS: &[FuzzTarget] = &[
    ("bundle", bundle),
    ("caller", caller),
    ("caller_identity", caller_identity),
    ("certificate", certificate),
    ("cognito", cognito),
    ("configuration", configuration),
    ("headers", headers),
    ("issuing_api", issuing_api),
    ("jose", jose),
    ("jwt", jwt),
    ("names", names),
    ("oauth", oauth),
    ("path", path),
    ("proxy_answer", tunnels::proxy_answer),
    ("proxy_protocol", proxy_protocol),
    ("sigv4", sigv4),
    ("token_answer", token_answer),
    ("upgrade", tunnels::upgrade),
];

/// Whoever verifies has this key, and it is this late.
static KEY: LazyLock<SigningKey> = LazyLock::new(SigningKey::generate);
static KEYS: LazyLock<KeySet> = LazyLock::new(|| KeySet::new(vec![KEY.public().clone()]));
/// When the proofs among the seeds were signed.
static PROOF_TIME: LazyLock<SystemTime> =
    LazyLock::new(|| SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_184_603));
static NOW: LazyLock<SystemTime> =
    LazyLock::new(|| SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000));

/// A trust bundle, or a JWK set: what is read can be written, and is then the same.
pub fn bundle(bytes: &[u8]) {
    let domain = TrustDomain::new("example.org").expect("a trust domain");
    if let Ok(read) = TrustBundle::from_json(domain.clone(), bytes) {
        let again = TrustBundle::from_json(domain, read.to_json().as_bytes());
        let again = again.expect("what was written by us");
        assert_eq!(again.x509_authorities, read.x509_authorities);
        assert_eq!(
            again.jwt_authorities.iter().count(),
            read.jwt_authorities.iter().count()
        );
        assert_eq!(again.sequence, read.sequence);
    }
    for key_use in ["jwt-svid", "sig"] {
        let Ok(keys) = KeySet::from_jwks(bytes, key_use) else {
            continue;
        };
        for key in keys.iter() {
            let again = PublicJwk::from_json(&key.to_json(key_use)).expect("a key we wrote");
            assert_eq!(again.thumbprint(), key.thumbprint());
        }
    }
}

/// The leaf of a peer: an identity only where the certificate has one in plain sight.
pub fn certificate(bytes: &[u8]) {
    let leaf = CertificateDer::from(bytes);
    if let Some(id) = tls::peer_id(&leaf) {
        let text = id.to_string();
        assert!(
            bytes.windows(text.len()).any(|it| it == text.as_bytes()),
            "{text}"
        );
        assert!(!id.path().is_empty() && spki_sha256(bytes).is_some());
    }
}

/// Bodies of the issuing API, and the certificate request in them.
pub fn issuing_api(bytes: &[u8]) {
    if let Ok(request) = serde_json::from_slice::<AttestRequest>(bytes) {
        let _ = authority::proves_a_key(&request.csr.0);
        let _ = PublicJwk::from_json(&request.renewal_key);
        let shown = format!("{:?}", request.evidence);
        let secret = match &request.evidence {
            Evidence::JoinToken { token }
            | Evidence::AwsWebIdentity { token }
            | Evidence::Kubernetes { token }
            | Evidence::Oidc { token } => token.expose(),
            Evidence::AwsCallerIdentity(proof) => proof.session_token.expose(),
        };
        // A short one may be a part of the kind's name.
        assert!(
            secret.len() < 20 || !shown.contains(secret),
            "evidence shows: {shown}"
        );
    }
    let _ = serde_json::from_slice::<RenewRequest>(bytes).map(|it| {
        authority::proves_a_key(&it.csr.0)
            && jwt::verify(&it.record, &Profile::internal("x", "y", "z"), &KEYS, *NOW).is_ok()
    });
    let _ = serde_json::from_slice::<JwtSvidRequest>(bytes);
    let act = serde_json::from_slice::<AdminRequest>(bytes).map(|it| it.act.0);
    if let Ok(Ok(act)) = act.map(|act| serde_json::from_slice::<Act>(&act)) {
        // As the audit log has it, and again.
        let written = serde_json::to_string(&act).expect("an act that can be written");
        let again = serde_json::from_str::<Act>(&written).expect("an act that can be read");
        assert_eq!(act.action(), again.action());
    }
    let _ = authority::proves_a_key(bytes);
}

/// A proof by GetCallerIdentity, and STS's answer: whatever the proof, the request is the one there is, for a host of
/// AWS's; whatever the answer, what it proves stands in it, in characters that names have.
pub fn caller_identity(bytes: &[u8]) {
    if let Ok(proof) = serde_json::from_slice::<CallerIdentityProof>(bytes)
        && let Some(request) = authority::asks_sts(&proof, "hash.challenge", *PROOF_TIME)
    {
        assert_eq!(request.method(), Method::POST);
        assert_eq!(
            request.uri().path_and_query().map(|it| it.as_str()),
            Some("/")
        );
        assert_eq!(
            request.body(),
            "Action=GetCallerIdentity&Version=2011-06-15".as_bytes()
        );
        let headers = request.headers();
        assert_eq!(headers.len(), 7);
        assert_eq!(headers["x-warifu-binding"], "hash.challenge");
        let host = headers[HOST].to_str().expect("text");
        assert_eq!(request.uri().host(), Some(host));
        let labels: Vec<&str> = host.split('.').collect();
        assert_eq!(labels[..2], ["sts", &proof.region]);
        assert!(
            ["com", "cn", "eu", "gov", "uk"].contains(&labels[labels.len() - 1]),
            "{host}"
        );
    }
    for content_type in ["application/json", "text/xml"] {
        let Some(facts) = authority::reads_caller(content_type, bytes, "eu-west-1") else {
            continue;
        };
        let text = str::from_utf8(bytes).expect("text");
        assert_eq!(facts.len(), 6);
        assert_eq!(facts["partition"], "aws");
        for (name, value) in facts {
            let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_+=,.@-".contains(&b);
            assert!(value.bytes().all(allowed), "{name}: {value}");
            // JSON may write a character otherwise.
            let stands = text.contains(&value) || text.contains('\\');
            assert!(stands || name == "region", "{name}: {value}");
        }
    }
}

/// A request for an access token: a line of `authorization`, and the form. What is read shows no secret, and is read again
/// from a form that says the same in other escapes.
pub fn oauth(bytes: &[u8]) {
    let mut parts = bytes.splitn(2, |byte| *byte == b'\n');
    let (first, form) = (parts.next().unwrap_or_default(), parts.next());
    let form = form.unwrap_or_default();
    for authorization in [&[][..], &[first][..], &[first, first][..]] {
        let Some(read) = local::reads_token_request(authorization, form) else {
            continue;
        };
        assert!(authorization.len() < 2, "two Authorization headers");
        let shown = format!("{read:?}");
        let secret = str::from_utf8(form).unwrap_or_default();
        let secret = secret
            .split('&')
            .find_map(|it| it.strip_prefix("client_secret="));
        // A short one may be part of another word, and any value may be a scope, too.
        if let Some(secret) = secret
            && secret.len() > 20
            && secret.bytes().all(|byte| byte.is_ascii_alphanumeric())
            && form
                .windows(secret.len())
                .filter(|it| *it == secret.as_bytes())
                .count()
                == 1
            && !first
                .windows(secret.len())
                .any(|it| it == secret.as_bytes())
        {
            assert!(!shown.contains(secret), "a secret shows: {shown}");
        }
        let escaped: String = form
            .iter()
            .map(|byte| match byte {
                b'a'..=b'z' => format!("%{byte:02x}"),
                byte => char::from(*byte).to_string(),
            })
            .collect();
        if !form.contains(&b'%') && form.is_ascii() {
            let again = local::reads_token_request(authorization, escaped.as_bytes());
            let again = again.map(|it| format!("{it:?}"));
            assert_eq!(again.as_ref(), Some(&shown), "{escaped}");
        }
    }
}

/// What a token endpoint answers: a status, a line of its own, then the body. A token fits a header; an error repeats nothing.
pub fn token_answer(bytes: &[u8]) {
    let mut parts = bytes.splitn(2, |byte| *byte == b'\n');
    let (first, body) = (parts.next().unwrap_or_default(), parts.next());
    let body = body.unwrap_or_default();
    let Ok(status) = StatusCode::from_bytes(first) else {
        return;
    };
    match read_answer(status, "application/json", body) {
        Ok(granted) => {
            assert_eq!(status, StatusCode::OK);
            let token = granted.token.expose();
            assert!(!token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()));
            assert!(!granted.lives.is_zero() && granted.lives <= Duration::from_secs(86_400));
            assert!(!format!("{granted:?}").contains(token) || token.len() < 16);
            // Whoever reads it otherwise reads the same.
            let read: serde_json::Value = serde_json::from_slice(body).expect("JSON");
            assert_eq!(read["access_token"], **token);
        }
        Err(refused) => {
            let shown = format!("{refused:?}");
            let text = str::from_utf8(body).unwrap_or_default();
            for word in text.split('"').filter(|it| it.len() > 30) {
                assert!(!shown.contains(word), "{shown}");
            }
        }
    }
}

/// A request to Cognito: an action, then the body. What is passed on is the same request, with the hash and nothing else.
pub fn cognito(bytes: &[u8]) {
    const HASH: &str = "aGFzaA==";
    let mut parts = bytes.splitn(2, |byte| *byte == b'\n');
    let (action, body) = (parts.next().unwrap_or_default(), parts.next());
    let body = body.unwrap_or_default();
    let target = String::from_utf8_lossy(action);
    let target = format!("AWSCognitoIdentityProviderService.{target}");
    let Some(hashed) = rewrite_cognito(&target, body, HASH) else {
        return;
    };
    let again = rewrite_cognito(&target, hashed.as_bytes(), HASH);
    assert_eq!(again.as_deref(), Some(&*hashed), "it is not its own form");
    let read = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).expect("JSON");
    let (mut before, mut after) = (read(body), read(hashed.as_bytes()));
    assert!(before["ClientId"].is_string());
    let (holder, name) = match target.rsplit('.').next() {
        Some("InitiateAuth") => ("/AuthParameters", "SECRET_HASH"),
        Some("RespondToAuthChallenge") => ("/ChallengeResponses", "SECRET_HASH"),
        _ => ("", "SecretHash"),
    };
    let take = |value: &mut serde_json::Value| {
        let object = value.pointer_mut(holder).and_then(|it| it.as_object_mut());
        object.expect("an object").remove(name)
    };
    assert_eq!(take(&mut after), Some(HASH.into()));
    take(&mut before);
    assert_eq!(before, after);
}

/// A path: its normal form is its own normal form, means the same, and has nothing two readers read
/// differently.
pub fn path(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else {
        return;
    };
    let Ok(normal) = normal_form(text) else {
        return;
    };
    assert_eq!(normal_form(&normal).as_deref(), Ok(&*normal));
    assert_eq!(decoded(&normal), decoded(text), "{text} became {normal}");
    assert!(
        normal.starts_with('/') && !normal.contains("//"),
        "{normal}"
    );
    let bad = |segment: &str| segment == "." || segment == "..";
    assert!(!normal.split('/').any(bad), "{normal}");
    let decoded = String::from_utf8(decoded(&normal)).expect("escapes of UTF-8");
    assert_eq!(decoded.matches('/').count(), normal.matches('/').count());
    assert!(!decoded.contains(['\\', '\0', '\r', '\n']), "{normal}");
}

fn decoded(path: &str) -> Vec<u8> {
    let mut octets = path.bytes();
    let mut decoded = Vec::new();
    while let Some(octet) = octets.next() {
        decoded.push(match octet {
            b'%' => {
                let hex = [octets.next(), octets.next()].map(|it| it.expect("two digits"));
                let hex = str::from_utf8(&hex).expect("digits");
                u8::from_str_radix(hex, 16).expect("hexadecimal digits")
            }
            plain => plain,
        });
    }
    decoded
}

/// The headers of a request from the network: nothing is left that a hop or an identity is told by,
/// in whatever spelling, and what `connection` nominates is gone.
pub fn headers(bytes: &[u8]) {
    let claim = HeaderName::from_static("x-user-id");
    let filter = Filter::to_app([&claim]);
    let mut headers = read_headers(bytes);
    let mut trailers = headers.clone();
    let nominated: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .filter(|name| ![HOST, CONTENT_LENGTH, TE].contains(name))
        .filter(|name| name != "keep-alive" && name != "close")
        .collect();
    filter.strip(&mut headers);
    filter.strip_trailers(&mut trailers);
    for name in headers.keys().chain(trailers.keys()) {
        let plain = name
            .as_str()
            .replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        let told = [
            "connection",
            "client-cert",
            "forwarded",
            "keep-alive",
            "transfer-encoding",
            "upgrade",
            "x-forwarded-client-cert",
            "x-forwarded-host",
            "x-http-method-override",
            "x-original-url",
            "x-real-ip",
            "x-user-id",
        ];
        assert!(
            !told.contains(&&*plain) && !plain.starts_with("x-warifu-"),
            "{name} passes"
        );
    }
    for name in &nominated {
        assert!(
            !headers.contains_key(name),
            "{name} was nominated, and passes"
        );
    }
    assert!(headers.get_all(TE).iter().all(|it| it == "trailers"));
    let once = headers.clone();
    filter.strip(&mut headers);
    assert_eq!(headers, once);

    let address = HeaderValue::from_static("192.0.2.1");
    set_forwarded(
        &mut headers,
        Some(&address),
        HeaderValue::from_static("https"),
    );
    let lines: Vec<_> = headers.get_all("x-forwarded-for").iter().collect();
    assert_eq!(lines.len(), 1);
    assert!(
        lines
            .iter()
            .all(|line| line.as_bytes().ends_with(b"192.0.2.1"))
    );
}

/// `name: value` lines, without those that are no headers.
fn read_headers(bytes: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    // More would only be slow; servers bound them too.
    for line in bytes.split(|byte| *byte == b'\n').take(200) {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let name = parts.next().map(HeaderName::from_bytes);
        let value = parts
            .next()
            .map(|value| HeaderValue::from_bytes(value.trim_ascii()));
        if let (Some(Ok(name)), Some(Ok(value))) = (name, value) {
            headers.append(name, value);
        }
    }
    headers
}

/// Names and the other values of a configuration: what has a text is read from it again.
pub fn names(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else {
        return;
    };
    let (first, second) = text.split_once('\n').unwrap_or((text, text));
    if let Ok(id) = SpiffeId::new(first) {
        assert_eq!(SpiffeId::new(id.to_string()).as_ref(), Ok(&id));
        if let Ok(pattern) = id.to_string().parse::<IdPattern>() {
            assert!(pattern.matches(&id), "{id}");
        }
        if let Ok(pattern) = second.parse::<IdPattern>()
            && pattern.matches(&id)
        {
            assert_eq!(pattern.trust_domain, id.trust_domain().as_str());
        }
    }
    let _ = first.parse::<Target>();
    let _ = first.parse::<Upstream>().map(|it| it.authority());
    let _ = (first.parse::<Forward>(), first.parse::<HttpsOrigin>());
    if let Ok(listen) = first.parse::<Listen>() {
        assert_eq!(
            listen.to_string().parse::<Listen>().ok().as_ref(),
            Some(&listen)
        );
    }
    if let Ok(span) = first.parse::<Span>() {
        assert_eq!(span.to_string().parse::<Span>().ok(), Some(span));
    }
    let _ = first.parse::<Size>();
    if let Err(error) = first.parse::<SecretRef>() {
        let shown = error.to_string();
        let other = "x"
            .parse::<SecretRef>()
            .expect_err("no reference")
            .to_string();
        let secret = first.trim();
        assert!(
            secret.len() < 16 || !shown.contains(secret) || other.contains(secret),
            "a secret shows: {shown}"
        );
    }
}

/// A configuration file: every mistake has a place in the file.
pub fn configuration(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else {
        return;
    };
    let lines = text
        .split(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}'])
        .count() as u64;
    let check = |errors: ConfigErrors| {
        assert!(!errors.errors.is_empty());
        for error in &errors.errors {
            assert!(!error.what.is_empty());
            assert!(
                error.at.is_none_or(|at| (1..=lines + 1).contains(&at.line)),
                "{errors}"
            );
        }
    };
    let _ = config::parse_agent(text, "agent.yaml").map_err(check);
    let _ = config::parse_authority(text, "authority.yaml").map_err(check);
}

/// What an agent tells its app: read as it was meant, or not at all.
pub fn caller(bytes: &[u8]) {
    if let Ok(value) = HeaderValue::from_bytes(bytes)
        && let Ok(told) = caller::decode(&value)
    {
        check_caller(&told);
    }
    let value = URL_SAFE_NO_PAD.encode(bytes);
    if let Ok(told) = caller::decode(&HeaderValue::try_from(value).expect("base64url")) {
        check_caller(&told);
    }
    for token in [
        signed(context::CONTEXT_TYP, bytes),
        String::from_utf8_lossy(bytes).into_owned(),
    ] {
        if let Ok(told) = context::verify(&token, &KEYS, &Method::GET, "/", *NOW) {
            check_caller(&told);
        }
    }
}

fn check_caller(told: &warifu::Caller) {
    assert!(told.peer.is_some() || told.subject.is_some());
    if let Ok(value) = caller::encode(told) {
        assert_eq!(caller::decode(&value).as_ref(), Ok(told));
    }
}
