//! A stand-in for STS: `GetWebIdentityToken`, and [sessions of roles](assume). It is as strict as the real one: it
//! verifies the request's signature, evaluates the role's policy, validates what is asked, and signs with real RS256 and
//! ES384 keys that each account's issuer publishes. <https://docs.aws.amazon.com/STS/latest/APIReference/API_GetWebIdentityToken.html>

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{Method, Request, Response, header::CONTENT_TYPE};
use serde_json::{Map, Value, json};
use warifu_agent::telemetry::timestamp::Timestamp;

use super::signature::{self, Claimed};
use crate::oidc::{Algorithm, Answer, Issuer, Server, unix, uuid};
use assume::{Lineage, Provider};

mod assume;
mod trust;

/// Name of the claim that holds what AWS says.
pub const AWS_CLAIMS: &str = "https://sts.amazonaws.com/";
/// Where it is.
pub const REGION: &str = "eu-west-1";
/// Largest token: beyond, STS refuses.
const MAX_CLAIMS: usize = 6 * 1024;

/// How it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StsMood {
    /// As it should.
    Well,
    /// 503.
    Failing,
    /// 400 `Throttling`.
    Throttling,
    /// Never.
    Hanging,
    /// The account has not enabled outbound web identity federation.
    Disabled,
    /// Half of an answer.
    Torn,
}

/// An IAM principal that may have tokens.
#[derive(Debug, Clone)]
pub struct Principal {
    /// `sub`.
    pub arn: String,
    /// Its account.
    pub account: String,
    /// `principal_tags`.
    pub tags: BTreeMap<String, String>,
    /// What its policy says of `sts:IdentityTokenAudience`: globs, of which one must match each audience.
    pub audiences: Vec<String>,
    /// Whether it has `sts:TagGetWebIdentityToken`.
    pub may_tag: bool,
    /// Life of its session.
    pub session: Duration,
    /// Further claims AWS makes of it, over the usual ones: `null` removes one.
    pub claims: Map<String, Value>,
}

/// Credentials of a session.
#[derive(Debug, Clone)]
pub struct Session {
    /// `ASIA…`.
    pub access_key_id: String,
    /// Good here only.
    pub secret_access_key: String,
    /// Must come along.
    pub session_token: String,
}

/// STS of one region, and the issuers of its accounts.
#[derive(Debug)]
pub struct WebIdentitySts {
    server: Server,
    told: Arc<Mutex<Told>>,
}

#[derive(Debug)]
struct Told {
    mood: StsMood,
    issuers: BTreeMap<String, Arc<Issuer>>,
    sessions: BTreeMap<String, Known>,
    /// Trust policies, by the role's ARN.
    roles: BTreeMap<String, Value>,
    providers: Vec<Provider>,
    asked: Vec<BTreeMap<String, String>>,
}

#[derive(Debug, Clone)]
struct Known {
    principal: Principal,
    session: Session,
    expires: SystemTime,
    lineage: Lineage,
}

/// An error as STS has it: status, code, message.
struct Refused(u16, &'static str, String);

impl Principal {
    /// The role of this name and path (`/`, `/team/`), which may have tokens for any audience.
    pub fn role(account: &str, path: &str, name: &str) -> Self {
        Self {
            arn: format!("arn:aws:iam::{account}:role{path}{name}"),
            account: account.to_owned(),
            tags: BTreeMap::new(),
            audiences: vec!["*".to_owned()],
            may_tag: false,
            session: Duration::from_secs(3600),
            claims: Map::new(),
        }
    }

    /// With a tag, of the role or of its session.
    #[must_use]
    pub fn tag(mut self, key: &str, value: &str) -> Self {
        self.tags.insert(key.to_owned(), value.to_owned());
        self
    }

    /// With the session tags that EKS Pod Identity sets.
    #[must_use]
    pub fn of_pod(self, namespace: &str, service_account: &str) -> Self {
        let account = self.account.clone();
        self.tag(
            "eks-cluster-arn",
            &format!("arn:aws:eks:{REGION}:{account}:cluster/prod"),
        )
        .tag("eks-cluster-name", "prod")
        .tag("kubernetes-namespace", namespace)
        .tag("kubernetes-service-account", service_account)
        .tag("kubernetes-pod-name", &format!("{service_account}-7d9c"))
        .tag("kubernetes-pod-uid", "2a1b0000-0000-4000-8000-000000000001")
    }
}

impl WebIdentitySts {
    /// With no account.
    pub async fn start() -> Self {
        let told = Arc::new(Mutex::new(Told {
            mood: StsMood::Well,
            issuers: BTreeMap::new(),
            sessions: BTreeMap::new(),
            roles: BTreeMap::new(),
            providers: Vec::new(),
            asked: Vec::new(),
        }));
        let shared = Arc::clone(&told);
        let server = Server::plain(move |request| answer(request, Arc::clone(&shared))).await;
        Self { server, told }
    }

    /// `http://127.0.0.1:PORT`
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// The issuer of an account: made when it is first asked for.
    pub async fn issuer(&self, account: &str) -> Arc<Issuer> {
        if let Some(issuer) = self.told.lock().unwrap().issuers.get(account) {
            return Arc::clone(issuer);
        }
        let issuer = Arc::new(Issuer::start().await);
        let mut told = self.told.lock().unwrap();
        Arc::clone(told.issuers.entry(account.to_owned()).or_insert(issuer))
    }

    /// A session of `principal`, which is a role's. The tags that EKS Pod Identity sets are transitive.
    pub fn session(&self, principal: Principal) -> Session {
        let lineage = Lineage::of_role(&principal);
        let id = uuid().replace('-', "").to_uppercase();
        let session = Session {
            access_key_id: format!("ASIA{}", &id[..16]),
            secret_access_key: uuid(),
            session_token: uuid(),
        };
        let known = Known {
            expires: SystemTime::now() + principal.session,
            principal,
            session: session.clone(),
            lineage,
        };
        let mut told = self.told.lock().unwrap();
        told.sessions.insert(session.access_key_id.clone(), known);
        session
    }

    /// From now on it answers like this.
    pub fn is(&self, mood: StsMood) {
        self.told.lock().unwrap().mood = mood;
    }

    /// The requests so far whose signature verified, by parameter.
    pub fn asked(&self) -> Vec<BTreeMap<String, String>> {
        self.told.lock().unwrap().asked.clone()
    }
}

/// The claims AWS makes for `principal`, as recorded from real tokens.
pub fn web_identity_claims(
    issuer: &str,
    principal: &Principal,
    audiences: &[String],
    request_tags: &BTreeMap<String, String>,
    now: SystemTime,
    life: Duration,
) -> Value {
    let audience = match audiences {
        [one] => json!(one),
        several => json!(several),
    };
    let mut aws = json!({
        "aws_account": principal.account,
        "source_region": REGION,
        "principal_id": principal.arn,
        "org_id": "o-abc1234567",
        "ou_path": ["o-abc1234567/r-ab12/ou-ab12-11111111/"],
        "original_session_exp": Timestamp(now + principal.session).to_string(),
    });
    if let Some(aws) = aws.as_object_mut() {
        if !principal.tags.is_empty() {
            aws.insert("principal_tags".to_owned(), json!(principal.tags));
        }
        if !request_tags.is_empty() {
            aws.insert("request_tags".to_owned(), json!(request_tags));
        }
        for (name, value) in &principal.claims {
            match value {
                Value::Null => aws.remove(name),
                value => aws.insert(name.clone(), value.clone()),
            };
        }
    }
    json!({
        "iss": issuer,
        "sub": principal.arn,
        "aud": audience,
        "iat": unix(now),
        "exp": unix(now + life),
        "jti": uuid(),
        AWS_CLAIMS: aws,
    })
}

fn answer(request: Request<Bytes>, told: Arc<Mutex<Told>>) -> Answer {
    Box::pin(async move {
        let mood = told.lock().unwrap().mood;
        let answered = match mood {
            StsMood::Hanging => std::future::pending().await,
            StsMood::Failing => Err(Refused(503, "ServiceUnavailable", "later".into())),
            StsMood::Throttling => Err(Refused(400, "Throttling", "Rate exceeded".into())),
            _ => match by_token(&request) {
                Some(form) => assume::by_token(&form, &told, SystemTime::now()).await,
                None => token(&request, &told, SystemTime::now()),
            },
        };
        let (status, mut body) = match answered {
            Ok(body) => (200, body),
            Err(Refused(status, code, message)) => (status, error(code, &message, status)),
        };
        if mood == StsMood::Torn {
            body.truncate(body.len() / 2);
        }
        let answer = Response::builder()
            .status(status)
            .header(CONTENT_TYPE, "text/xml")
            .header("x-amzn-requestid", uuid());
        answer.body(body.into()).unwrap()
    })
}

/// The form of a request that a token makes, which nobody signs.
fn by_token(request: &Request<Bytes>) -> Option<BTreeMap<String, String>> {
    let form = form(request.body());
    let action = form.get("Action")?;
    (action == "AssumeRoleWithWebIdentity").then_some(form)
}

fn token(request: &Request<Bytes>, told: &Mutex<Told>, now: SystemTime) -> Result<String, Refused> {
    let mut told = told.lock().unwrap();
    if request.method() != Method::POST || request.uri().path() != "/" {
        return Err(Refused(404, "InvalidAction", "not STS".into()));
    }
    let known = authenticate(request, &told, now)?;
    let form = form(request.body());
    told.asked.push(form.clone());
    let get = |name: &str| form.get(name).map(String::as_str);
    if get("Action") == Some("AssumeRole") {
        return told.assume(&known, &form, now);
    }
    if (get("Action"), get("Version")) != (Some("GetWebIdentityToken"), Some("2011-06-15")) {
        let why = format!("Could not find operation {:?}", get("Action"));
        return Err(Refused(400, "InvalidAction", why));
    }
    let asked = Asked::of(&form)?;
    asked.is_allowed_to(&known.principal)?;
    if told.mood == StsMood::Disabled {
        return Err(Refused(
            403,
            "OutboundWebIdentityFederationDisabledException",
            "Outbound web identity federation is not enabled for your account.".into(),
        ));
    }
    if known.expires < now + asked.life {
        return Err(Refused(
            403,
            "SessionDurationEscalationException",
            "The requested token duration would extend the session beyond its original expiration time.".into(),
        ));
    }
    let issuer = told.issuers.get(&known.principal.account);
    let issuer = issuer.expect("an issuer for the account; ask for it before");
    let claims = web_identity_claims(
        &issuer.url(),
        &known.principal,
        &asked.audiences,
        &asked.tags,
        now,
        asked.life,
    );
    if claims.to_string().len() > MAX_CLAIMS {
        return Err(Refused(
            400,
            "JWTPayloadSizeExceededException",
            "The requested token payload size exceeds the maximum allowed size.".into(),
        ));
    }
    Ok(format!(
        "<GetWebIdentityTokenResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
         <GetWebIdentityTokenResult><WebIdentityToken>{}</WebIdentityToken>\
         <Expiration>{}</Expiration></GetWebIdentityTokenResult>\
         <ResponseMetadata><RequestId>{}</RequestId></ResponseMetadata></GetWebIdentityTokenResponse>",
        issuer.sign(asked.algorithm, &claims),
        Timestamp(now + asked.life),
        uuid(),
    ))
}

/// Whose session signed the request.
fn authenticate(request: &Request<Bytes>, told: &Told, now: SystemTime) -> Result<Known, Refused> {
    let claimed = Claimed::read(request.headers()).ok_or_else(|| {
        let why = "Request is missing Authentication Token";
        Refused(403, "MissingAuthenticationToken", why.into())
    })?;
    let invalid = || {
        let why = "The security token included in the request is invalid.";
        Refused(403, "InvalidClientTokenId", why.into())
    };
    let known = told
        .sessions
        .get(&claimed.access_key_id)
        .ok_or_else(invalid)?;
    claimed
        .verify(request, &known.session.secret_access_key, REGION, now)
        .map_err(|why| Refused(403, "SignatureDoesNotMatch", why))?;
    let token = signature::header(request.headers(), "x-amz-security-token");
    if token.unwrap_or_default() != known.session.session_token {
        return Err(invalid());
    }
    if known.expires <= now {
        let why = "The security token included in the request is expired";
        return Err(Refused(403, "ExpiredToken", why.into()));
    }
    Ok(known.clone())
}

/// A valid request.
struct Asked {
    audiences: Vec<String>,
    algorithm: Algorithm,
    life: Duration,
    tags: BTreeMap<String, String>,
}

impl Asked {
    fn of(form: &BTreeMap<String, String>) -> Result<Self, Refused> {
        let invalid = |why: &str| Refused(400, "ValidationError", why.to_owned());
        let audiences = members(form, "Audience.member.");
        if !(1..=10).contains(&audiences.len())
            || audiences.iter().any(|it| !(1..=1000).contains(&it.len()))
        {
            return Err(invalid(
                "audience must be 1 to 10 strings of 1 to 1000 characters",
            ));
        }
        let algorithm = match form.get("SigningAlgorithm").map(String::as_str) {
            Some("RS256") => Algorithm::Rs256,
            Some("ES384") => Algorithm::Es384,
            _ => return Err(invalid("signingAlgorithm must be one of RS256, ES384")),
        };
        let seconds = match form.get("DurationSeconds") {
            None => 300,
            Some(text) => text.parse().map_err(|_| invalid("durationSeconds"))?,
        };
        if !(60..=3600).contains(&seconds) {
            return Err(invalid("durationSeconds must be 60 to 3600"));
        }
        let tags = assume::tags(form)?;
        Ok(Self {
            audiences,
            algorithm,
            life: Duration::from_secs(seconds),
            tags,
        })
    }

    fn is_allowed_to(&self, principal: &Principal) -> Result<(), Refused> {
        let denied = |action: &str| {
            let arn = &principal.arn;
            let why = format!("User: {arn} is not authorized to perform: {action} on resource: *");
            Refused(403, "AccessDenied", why)
        };
        let allows = |audience: &String| {
            let mut policies = principal.audiences.iter();
            policies.any(|policy| match policy.strip_suffix('*') {
                Some(start) => audience.starts_with(start),
                None => audience == policy,
            })
        };
        if !self.audiences.iter().all(allows) {
            return Err(denied("sts:GetWebIdentityToken"));
        }
        if !self.tags.is_empty() && !principal.may_tag {
            return Err(denied("sts:TagGetWebIdentityToken"));
        }
        Ok(())
    }
}

/// `PREFIX1`, `PREFIX2`, …
fn members(form: &BTreeMap<String, String>, prefix: &str) -> Vec<String> {
    (1..)
        .map_while(|index| form.get(&format!("{prefix}{index}")).cloned())
        .collect()
}

/// `application/x-www-form-urlencoded`.
fn form(body: &[u8]) -> BTreeMap<String, String> {
    let text = String::from_utf8_lossy(body);
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (decoded(name), decoded(value)))
        .collect()
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit = |byte: Option<u8>| {
                    char::from(byte.unwrap_or(b'0')).to_digit(16).unwrap_or(0) as u8
                };
                let high = digit(rest.next());
                high * 16 + digit(rest.next())
            }
            other => other,
        });
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn error(code: &str, message: &str, status: u16) -> String {
    let whose = if status < 500 { "Sender" } else { "Receiver" };
    format!(
        "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>{whose}</Type>\
         <Code>{code}</Code><Message>{message}</Message></Error><RequestId>{}</RequestId></ErrorResponse>",
        uuid()
    )
}
