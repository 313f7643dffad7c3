//! Our signature of any request is botocore's of the request we send: the documented normalisation is
//! applied first (`aws::sigv4`), and what comes out leaves two signers nothing to differ on.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
use http::{HeaderMap, HeaderName, Request, header::AUTHORIZATION, request::Parts};
use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, TestRunner},
};
use warifu_agent::{
    aws::{Payload, Plan, Profile, Roles, Signer},
    config::{aws::Aws, outbound::RouteSigV4},
};
use warifu_tests::peers::{Boto, SignPayload, SignRequest};

const CASES: usize = 10_000;
/// So many botocore signs at a time.
const BATCH: usize = 500;
const ID: &str = "AKIDEXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const EXTRAS: [&str; 2] = ["x-tenant", "x-request-id"];
const TOKENS: [Option<&str>; 3] = [None, Some("FwoGZXIvYXdzE//+=="), Some("t")];
const REGIONS: [&str; 3] = ["us-east-1", "ap-northeast-1", "cn-north-1"];
const SERVICES: [&str; 6] = [
    "execute-api",
    "lambda",
    "sts",
    "s3",
    "vpc-lattice-svcs",
    "aoss",
];

#[derive(Debug, Clone)]
struct Case {
    service: &'static str,
    region: &'static str,
    token: Option<&'static str>,
    method: &'static str,
    host: &'static str,
    target: String,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    /// What S3 is told of the body.
    says: &'static str,
    expires: Option<u64>,
}

/// What we send, and what stands for its body.
struct Ours {
    parts: Parts,
    payload: SignPayload,
}

fn case() -> impl Strategy<Value = Case> {
    let service = prop::sample::select(&SERVICES[..]);
    let region = prop::sample::select(&REGIONS[..]);
    let token = prop::sample::select(&TOKENS[..]);
    let method = prop::sample::select(vec!["GET", "POST", "PUT", "DELETE", "PATCH"]);
    let host = prop::sample::select(vec![
        "abc.execute-api.us-east-1.amazonaws.com",
        "127.0.0.1:4566",
        "example.com:443",
    ]);
    // Everything a URI may have, valid escapes of ASCII and of é, dot segments, empty segments and pairs.
    let path = "(/([a-zA-Z0-9._~:@!$&'()*+,;=-]|%[2-7][0-9A-Fa-f]|%C3%A9|\\.\\.?){0,6}){0,5}";
    let query = "(\\?([a-zA-Z0-9._~:@!$'()*+,;/?-]|%[2-7][0-9A-Fa-f]|%c3%a9|=|&){0,30})?";
    let target = (path, query).prop_map(|(path, query)| format!("/{path}{query}"));
    let name = prop::sample::select(vec![
        "content-type",
        "x-tenant",
        "x-request-id",
        "user-agent",
        "x-amz-date",
        "x-amz-security-token",
        "x-amz-meta-a",
        "x-amz-target",
        "x-amz-source-arn",
        "x-amzn-bedrock-trace",
        "x-amzn-trace-id",
        "accept",
        "authorization",
    ]);
    let headers = prop::collection::vec((name, "[ -~\t]{0,20}"), 0..6);
    let body = prop::collection::vec(any::<u8>(), 0..40);
    let says = prop::sample::select(vec![
        "",
        "UNSIGNED-PAYLOAD",
        "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
    ]);
    let expires = prop::option::weighted(0.25, 1_u64..3600);
    let called = (service, region, token, method, host, target);
    (called, headers, body, says, expires).prop_map(
        |((service, region, token, method, host, target), headers, body, says, expires)| Case {
            service,
            region,
            token,
            method,
            host,
            target,
            headers,
            // botocore makes a presigned request's body a part of its query.
            body: if expires.is_some() { Vec::new() } else { body },
            says,
            expires,
        },
    )
}

#[tokio::test]
async fn our_signature_is_botocores_for_any_of_ten_thousand_requests() {
    let boto = Boto::start().await.unwrap();
    let signers = Signers::new().await;
    let mut runner = TestRunner::new(Config::default());
    let mut compared = 0;
    for _ in 0..CASES / BATCH {
        let mut cases = Vec::with_capacity(BATCH);
        for _ in 0..BATCH {
            let case = case().new_tree(&mut runner).unwrap().current();
            if let Some(ours) = signers.sign(&case).await {
                cases.push((case, ours));
            }
        }
        let texts: Vec<Texts> = cases
            .iter()
            .map(|(case, ours)| Texts::of(case, ours))
            .collect();
        let requests: Vec<_> = cases
            .iter()
            .zip(&texts)
            .map(|((case, ours), texts)| request(case, ours, texts))
            .collect();
        let theirs = boto.sign(&requests).await.unwrap();
        for (((case, ours), texts), theirs) in cases.iter().zip(&texts).zip(theirs) {
            assert_eq!(
                texts.signature, theirs,
                "{case:?}\nwas sent as {:?}",
                ours.parts
            );
        }
        compared += cases.len();
    }
    // Refused are escaped dot segments and keys that climb: not many.
    assert!(
        compared > CASES * 4 / 5,
        "only {compared} of {CASES} compared"
    );
}

/// A signer for each service, region and token.
struct Signers(BTreeMap<(&'static str, &'static str, Option<&'static str>), Signer>);

impl Signers {
    async fn new() -> Self {
        let mut signers = BTreeMap::new();
        for (region, token) in REGIONS
            .iter()
            .flat_map(|r| TOKENS.iter().map(move |t| (*r, *t)))
        {
            let keys = Credentials::new(ID, SECRET, token.map(str::to_owned), None, "test");
            let settings = Aws {
                region: Some(region.to_owned()),
                ..Aws::default()
            };
            let roles = Roles::with_provider(&settings, SharedCredentialsProvider::new(keys));
            let roles = roles.await.unwrap();
            for service in SERVICES {
                let route = RouteSigV4 {
                    signed_headers: EXTRAS.map(HeaderName::from_static).to_vec(),
                    ..RouteSigV4::new(service)
                };
                let signer = Signer::new(&roles, &route, None).unwrap();
                signers.insert((service, region, token), signer);
            }
        }
        Self(signers)
    }

    /// What we send; `None` where we refuse to sign.
    async fn sign(&self, case: &Case) -> Option<Ours> {
        let signer = &self.0[&(case.service, case.region, case.token)];
        let mut request = Request::builder()
            .method(case.method)
            .uri(&case.target)
            .header("host", case.host);
        for (name, value) in &case.headers {
            request = request.header(*name, value);
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        if let Some(expires) = case.expires {
            let payload = Payload::hash(&case.body);
            let expires = Duration::from_secs(expires);
            signer.presign(&mut parts, &payload, expires).await.ok()?;
            // botocore's signer of URLs takes the first of each name alone.
            let query = parts.uri.query().unwrap_or_default();
            let names: Vec<_> = query.split('&').map(|pair| pair.split_once('=')).collect();
            let different: BTreeSet<_> = names.iter().map(|pair| pair.map(|it| it.0)).collect();
            if different.len() < names.len() {
                return None;
            }
            let payload = match case.service {
                "vpc-lattice-svcs" => SignPayload::Unsigned,
                _ => SignPayload::Hashed,
            };
            return Some(Ours { parts, payload });
        }
        let plan = Profile::of(case.service, false).unwrap();
        let plan = plan.plan(&case.said_of_the_body()).unwrap();
        let (payload, as_botocore) = match plan {
            Plan::Hold => (Payload::hash(&case.body), SignPayload::Hashed),
            Plan::Stream(payload) if payload.to_string() == "UNSIGNED-PAYLOAD" => {
                (payload, SignPayload::Unsigned)
            }
            Plan::Stream(payload) => (payload, SignPayload::Trailer),
        };
        signer.sign(&mut parts, &payload).await.ok()?;
        Some(Ours {
            parts,
            payload: as_botocore,
        })
    }
}

impl Case {
    fn said_of_the_body(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if self.service == "s3" && !self.says.is_empty() {
            headers.insert("x-amz-content-sha256", self.says.parse().unwrap());
        }
        if self.service == "s3" && self.says.starts_with("STREAMING") {
            headers.insert("x-amz-decoded-content-length", "1".parse().unwrap());
        }
        headers
    }
}

/// What of our request botocore is told.
struct Texts {
    url: String,
    headers: Vec<(String, String)>,
    date: String,
    /// The `authorization`; the signature alone of one in the query.
    signature: String,
}

impl Texts {
    fn of(case: &Case, ours: &Ours) -> Self {
        let sent = &ours.parts;
        let text = |name: &str| sent.headers.get(name).and_then(|value| value.to_str().ok());
        let mut url = format!("https://{}{}", text("host").unwrap(), sent.uri);
        let (signed, date, signature) = match case.expires {
            None => {
                let authorization = sent.headers[AUTHORIZATION].to_str().unwrap().to_owned();
                let (_, rest) = authorization.split_once("SignedHeaders=").unwrap();
                let signed = rest.split_once(',').unwrap().0.to_owned();
                (
                    signed,
                    text("x-amz-date").unwrap().to_owned(),
                    authorization,
                )
            }
            Some(_) => {
                let query = sent.uri.query().unwrap().to_owned();
                let of = |name: &str| {
                    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
                    pairs
                        .find(|(it, _)| *it == name)
                        .unwrap()
                        .1
                        .replace("%3B", ";")
                };
                // As it was before it was signed.
                let own = query.split('&').filter(|pair| !pair.starts_with("X-Amz-"));
                let own = own.collect::<Vec<_>>().join("&");
                url = format!("https://{}{}?{own}", text("host").unwrap(), sent.uri.path());
                (
                    of("X-Amz-SignedHeaders"),
                    of("X-Amz-Date"),
                    of("X-Amz-Signature"),
                )
            }
        };
        let of_botocores_own = ["x-amz-date", "x-amz-security-token"];
        let signed: BTreeSet<&str> = signed.split(';').collect();
        let headers = signed
            .into_iter()
            .filter(|name| !of_botocores_own.contains(name))
            // For S3 and Lattice botocore sets it, for others it takes what is there.
            .filter(|name| *name != "x-amz-content-sha256" || case.service == "aoss")
            .map(|name| (name.to_owned(), text(name).unwrap().to_owned()))
            .collect();
        Self {
            url,
            headers,
            date,
            signature,
        }
    }
}

fn request<'a>(case: &'a Case, ours: &Ours, texts: &'a Texts) -> SignRequest<'a> {
    SignRequest {
        method: case.method,
        url: &texts.url,
        headers: &texts.headers,
        body: &case.body,
        service: case.service,
        region: case.region,
        access_key_id: ID,
        secret_access_key: SECRET,
        session_token: case.token,
        date: &texts.date,
        payload: ours.payload,
        expires: case.expires,
    }
}
