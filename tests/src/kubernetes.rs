//! A stand-in cluster: an issuer of service-account tokens with the claims of the real one (Kubernetes 1.29
//! and later), and an API server that reviews them.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, Mutex},
    time::SystemTime,
};

use bytes::Bytes;
use http::{Method, Request, Response, header};
use serde_json::{Value, json};

use crate::oidc::{Algorithm, Answer, Issuer, Server, unix, uuid};

/// What the API server takes for the authority's own token.
pub const REVIEWER: &str = "the-authority's-own-token";

/// How the API server answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiMood {
    /// As it should.
    Well,
    /// 503.
    Failing,
    /// Never.
    Hanging,
    /// It knows nothing of audiences, as very old ones: `status.audiences` is absent.
    Unaware,
    /// It speaks of somebody else.
    Confused,
    /// 302 to elsewhere.
    Redirecting,
    /// 64 MiB.
    Huge,
}

/// A pod.
#[derive(Debug, Clone)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Whose token it has.
    pub service_account: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Where it runs.
    pub node: String,
}

/// A cluster.
pub struct Cluster {
    /// Its issuer, over TLS by a CA of its own.
    pub issuer: Issuer,
    api: Server,
    told: Arc<Mutex<Told>>,
}

struct Told {
    mood: ApiMood,
    deleted: BTreeSet<String>,
    reviewed: usize,
    reviewer: String,
}

impl Pod {
    /// One of `service_account`.
    pub fn of(namespace: &str, service_account: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            service_account: service_account.to_owned(),
            name: format!("{service_account}-69cbfb9798-jv9gn"),
            uid: uuid(),
            node: "ip-10-0-0-1.ec2.internal".to_owned(),
        }
    }

    /// The claims of its projected token: good for an hour.
    pub fn claims(&self, issuer: &Issuer, audience: &str) -> Value {
        let mut claims = self.claims_without_pod(issuer, audience);
        claims["kubernetes.io"]["pod"] = json!({"name": self.name, "uid": self.uid});
        claims["kubernetes.io"]["node"] = json!({"name": self.node, "uid": uuid()});
        claims["kubernetes.io"]["warnafter"] = json!(unix(SystemTime::now()) + 3607);
        claims
    }

    /// The claims of a token made with `kubectl create token`: bound to no pod.
    pub fn claims_without_pod(&self, issuer: &Issuer, audience: &str) -> Value {
        let now = unix(SystemTime::now());
        json!({
            "aud": [audience],
            "exp": now + 3600,
            "iat": now,
            "iss": issuer.url(),
            "jti": uuid(),
            "kubernetes.io": {
                "namespace": self.namespace,
                "serviceaccount": {"name": self.service_account, "uid": self.service_account_uid()},
            },
            "nbf": now,
            "sub": self.subject(),
        })
    }

    /// The claims of a token in a Secret, as Kubernetes made them before 1.24: no audience, no end.
    pub fn legacy_claims(&self) -> Value {
        json!({
            "iss": "kubernetes/serviceaccount",
            "kubernetes.io/serviceaccount/namespace": self.namespace,
            "kubernetes.io/serviceaccount/secret.name": format!("{}-token-x8z2p", self.service_account),
            "kubernetes.io/serviceaccount/service-account.name": self.service_account,
            "kubernetes.io/serviceaccount/service-account.uid": self.service_account_uid(),
            "sub": self.subject(),
        })
    }

    /// `system:serviceaccount:NAMESPACE:NAME`.
    pub fn subject(&self) -> String {
        format!(
            "system:serviceaccount:{}:{}",
            self.namespace, self.service_account
        )
    }

    fn service_account_uid(&self) -> String {
        format!("uid-of-{}-{}", self.namespace, self.service_account)
    }
}

impl Cluster {
    /// A new one.
    pub async fn start() -> Self {
        let told = Arc::new(Mutex::new(Told {
            mood: ApiMood::Well,
            deleted: BTreeSet::new(),
            reviewed: 0,
            reviewer: REVIEWER.to_owned(),
        }));
        let shared = Arc::clone(&told);
        Self {
            issuer: Issuer::start_with_tls().await,
            api: Server::tls(move |request| review(&request, &shared)).await,
            told,
        }
    }

    /// A token of the pod, for `audience`.
    pub fn token(&self, pod: &Pod, audience: &str) -> String {
        self.sign(&pod.claims(&self.issuer, audience))
    }

    /// A token of these claims: RS256, and a header without `typ`, as API servers make it.
    pub fn sign(&self, claims: &Value) -> String {
        let mut header = self.issuer.header(Algorithm::Rs256);
        header.as_object_mut().unwrap().remove("typ");
        self.issuer
            .sign_as_is(Algorithm::Rs256, &header.to_string(), &claims.to_string())
    }

    /// The API server's URL.
    pub fn api_url(&self) -> String {
        self.api.url()
    }

    /// The CA of the API server's certificate.
    pub fn api_ca_pem(&self) -> &str {
        self.api.ca_pem().unwrap()
    }

    /// The pod with this uid is gone.
    pub fn delete(&self, uid: &str) {
        self.told.lock().unwrap().deleted.insert(uid.to_owned());
    }

    /// From now on the API server answers like this.
    pub fn is(&self, mood: ApiMood) {
        self.told.lock().unwrap().mood = mood;
    }

    /// From now on the authority's own token is this one.
    pub fn takes_reviewer(&self, token: &str) {
        self.told.lock().unwrap().reviewer = token.to_owned();
    }

    /// How often it was asked.
    pub fn reviewed(&self) -> usize {
        self.told.lock().unwrap().reviewed
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("issuer", &self.issuer)
            .finish_non_exhaustive()
    }
}

fn review(request: &Request<Bytes>, told: &Mutex<Told>) -> Answer {
    let mut told = told.lock().unwrap();
    told.reviewed += 1;
    let bearer = format!("Bearer {}", told.reviewer);
    let authorization = request.headers().get(header::AUTHORIZATION);
    let is_ours = authorization.is_some_and(|value| value.as_bytes() == bearer.as_bytes());
    let (status, body) = match told.mood {
        ApiMood::Failing => (503, json!({"kind": "Status", "code": 503})),
        _ if !is_ours => (
            401,
            json!({"kind": "Status", "reason": "Unauthorized", "code": 401}),
        ),
        _ if (request.method(), request.uri().path())
            != (&Method::POST, "/apis/authentication.k8s.io/v1/tokenreviews") =>
        {
            (404, json!({"kind": "Status", "code": 404}))
        }
        mood => (201, reviewed(request.body(), mood, &told.deleted)),
    };
    let mood = told.mood;
    Box::pin(async move {
        let mut body = body.to_string();
        match mood {
            ApiMood::Hanging => std::future::pending().await,
            ApiMood::Huge => body.push_str(&" ".repeat(64 * 1024 * 1024)),
            ApiMood::Redirecting => {
                let answer = Response::builder()
                    .status(302)
                    .header(header::LOCATION, "http://127.0.0.1:9/");
                return answer.body(Bytes::new()).unwrap();
            }
            _ => {}
        }
        let answer = Response::builder()
            .status(status)
            .header(header::CONTENT_TYPE, "application/json");
        answer.body(body.into()).unwrap()
    })
}

/// The review with its `status`. The signature is not looked at: that is the authority's part.
fn reviewed(body: &[u8], mood: ApiMood, deleted: &BTreeSet<String>) -> Value {
    let mut review: Value = serde_json::from_slice(body).expect("a TokenReview");
    assert_eq!(review["kind"], "TokenReview");
    assert_eq!(review["apiVersion"], "authentication.k8s.io/v1");
    let token = review["spec"]["token"].as_str().expect("a token");
    let claims = crate::oidc::payload(token);
    let kubernetes = &claims["kubernetes.io"];
    let uid = kubernetes["pod"]["uid"].as_str();
    let asked = review["spec"]["audiences"]
        .as_array()
        .expect("audiences")
        .clone();
    let has = |audience: &&Value| {
        let audiences = claims["aud"].as_array();
        audiences.is_some_and(|list| list.contains(audience))
    };
    let audiences: Vec<Value> = asked.iter().filter(has).cloned().collect();
    let is_gone = uid.is_some_and(|uid| deleted.contains(uid));
    review["status"] = match is_gone || audiences.is_empty() {
        true => json!({"error": "[invalid bearer token, the pod is gone]", "user": {}}),
        false => {
            let mut status = json!({
                "authenticated": true,
                "user": {
                    "username": claims["sub"],
                    "uid": kubernetes["serviceaccount"]["uid"],
                    "groups": ["system:serviceaccounts", "system:authenticated"],
                    "extra": {"authentication.kubernetes.io/credential-id": [format!("JTI={}", claims["jti"].as_str().unwrap_or_default())]},
                },
                "audiences": audiences,
            });
            if let Some(uid) = uid {
                let extra = &mut status["user"]["extra"];
                extra["authentication.kubernetes.io/pod-name"] = json!([kubernetes["pod"]["name"]]);
                extra["authentication.kubernetes.io/pod-uid"] = json!([uid]);
            }
            match mood {
                ApiMood::Unaware => {
                    status.as_object_mut().unwrap().remove("audiences");
                }
                ApiMood::Confused => {
                    status["user"]["username"] = json!("system:serviceaccount:kube-system:admin")
                }
                _ => {}
            }
            status
        }
    };
    review
}
