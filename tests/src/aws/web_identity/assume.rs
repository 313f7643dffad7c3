//! Sessions of roles, as strict as AWS documents them: their trust policies are evaluated, what a session hands on is
//! kept, and a token is believed when the issuer's published keys verify it.
//! <https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html>
//! <https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html>

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header, jwk::JwkSet};
use serde_json::json;

use super::{
    super::Agent,
    trust::{Asks, Who},
    *,
};

/// The longest session of a role that is assumed with another role's session.
const CHAINED: u64 = 3600;

type Form = BTreeMap<String, String>;

/// What a session has of those it was made with.
#[derive(Debug, Clone, Default)]
pub(super) struct Lineage {
    /// It is a role's.
    pub(super) is_role: bool,
    source_identity: Option<String>,
    /// Transitive session tags.
    tags: BTreeMap<String, String>,
}

impl Lineage {
    /// Of a role's session that was made elsewhere.
    pub(super) fn of_role(principal: &Principal) -> Self {
        let of_pod = |key: &&String| key.starts_with("eks-") || key.starts_with("kubernetes-");
        let keys = principal.tags.keys().filter(of_pod).cloned();
        Self {
            is_role: true,
            source_identity: None,
            tags: keys
                .map(|key| (key.clone(), principal.tags[&key].clone()))
                .collect(),
        }
    }
}

/// An OIDC provider of IAM.
#[derive(Debug, Clone)]
pub(super) struct Provider {
    arn: String,
    issuer: String,
    client_ids: Vec<String>,
}

impl WebIdentitySts {
    /// Long-term keys of the user with this ARN; the session token is empty.
    pub fn user(&self, arn: &str) -> Session {
        let mut principal = Principal::role("", "/", "");
        principal.arn = arn.to_owned();
        let session = Session {
            session_token: String::new(),
            ..new_session("AKIA")
        };
        let known = Known {
            expires: SystemTime::now() + Duration::from_secs(24 * 3600),
            principal,
            session: session.clone(),
            lineage: Lineage::default(),
        };
        self.told()
            .sessions
            .insert(session.access_key_id.clone(), known);
        session
    }

    /// From now on the role `arn` trusts whom these statements say; a role of which nothing is said trusts everybody.
    pub fn trust(&self, arn: &str, statements: Value) {
        let policy = json!({"Version": "2012-10-17", "Statement": statements});
        self.told().roles.insert(arn.to_owned(), policy);
    }

    /// An OIDC provider for `issuer`, whose tokens are for `client_ids`; answers its ARN.
    pub fn provider(&self, issuer: &str, client_ids: &[&str]) -> String {
        let arn = format!("arn:aws:iam::123456789012:oidc-provider/{}", bare(issuer));
        let provider = Provider {
            arn: arn.clone(),
            issuer: issuer.to_owned(),
            client_ids: client_ids.iter().map(|it| (*it).to_owned()).collect(),
        };
        self.told().providers.push(provider);
        arn
    }

    fn told(&self) -> std::sync::MutexGuard<'_, Told> {
        self.told.lock().unwrap()
    }
}

/// The issuer as condition keys and ARNs have it.
fn bare(issuer: &str) -> &str {
    issuer.split_once("://").map_or(issuer, |(_, bare)| bare)
}

fn new_session(prefix: &str) -> Session {
    let id = uuid().replace('-', "").to_uppercase();
    Session {
        access_key_id: format!("{prefix}{}", &id[..16]),
        secret_access_key: uuid(),
        session_token: uuid(),
    }
}

fn invalid(why: impl Into<String>) -> Refused {
    Refused(400, "ValidationError", why.into())
}

fn denied(who: &str, action: &str, role: &str) -> Refused {
    let why = format!("User: {who} is not authorized to perform: {action} on resource: {role}");
    Refused(403, "AccessDenied", why)
}

fn bad_token(why: impl Into<String>) -> Refused {
    Refused(400, "InvalidIdentityToken", why.into())
}

/// What both ways of asking say.
struct Wanted<'a> {
    role: &'a str,
    name: &'a str,
    life: Duration,
}

impl<'a> Wanted<'a> {
    fn of(form: &'a Form) -> Result<Self, Refused> {
        let get = |name: &str| form.get(name).ok_or_else(|| invalid(name));
        let (role, name) = (get("RoleArn")?, get("RoleSessionName")?);
        let seconds = form
            .get("DurationSeconds")
            .map_or(Ok(3600), |it| it.parse());
        let seconds: u64 = seconds.map_err(|_| invalid("DurationSeconds"))?;
        let fits = |c: char| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c);
        if role.split(':').count() != 6 || !(900..=43_200).contains(&seconds) {
            return Err(invalid("RoleArn or DurationSeconds"));
        }
        if !(2..=64).contains(&name.len()) || !name.chars().all(fits) {
            return Err(invalid("RoleSessionName"));
        }
        let life = Duration::from_secs(seconds);
        Ok(Self { role, name, life })
    }
}

impl Told {
    /// `AssumeRole`, by whose session `caller` is.
    pub(super) fn assume(
        &mut self,
        caller: &Known,
        form: &Form,
        now: SystemTime,
    ) -> Result<String, Refused> {
        let wanted = Wanted::of(form)?;
        let lineage = handed_on(caller, form, wanted.life)?;
        if let Some(trust) = self.roles.get(wanted.role) {
            let who = &caller.principal.arn;
            let tags = tags(form)?;
            let mut asks = Asks::of(Who::Aws(who.clone()));
            asks.key("sts:RoleSessionName", [wanted.name.to_owned()]);
            asks.key("sts:ExternalId", form.get("ExternalId").cloned());
            asks.key("sts:SourceIdentity", form.get("SourceIdentity").cloned());
            asks.key("aws:SourceIdentity", caller.lineage.source_identity.clone());
            asks.key(
                "sts:TransitiveTagKeys",
                members(form, "TransitiveTagKeys.member."),
            );
            asks.key("aws:TagKeys", tags.keys().cloned());
            for (key, value) in &tags {
                asks.key(&format!("aws:RequestTag/{key}"), [value.clone()]);
            }
            // What is passed, or comes along from the session before, has to be allowed as well.
            let with_tags = !tags.is_empty() || !caller.lineage.tags.is_empty();
            let needed = [
                ("sts:AssumeRole", true),
                ("sts:TagSession", with_tags),
                ("sts:SetSourceIdentity", lineage.source_identity.is_some()),
            ];
            for (action, needed) in needed {
                if needed && !asks.may(action, trust) {
                    return Err(denied(who, action, wanted.role));
                }
            }
        }
        Ok(self.begin("AssumeRole", &wanted, lineage, now))
    }

    /// `AssumeRoleWithWebIdentity`, with a token whose claims are verified.
    fn assume_by(
        &mut self,
        provider: &Provider,
        claims: &Value,
        form: &Form,
        now: SystemTime,
    ) -> Result<String, Refused> {
        let wanted = Wanted::of(form)?;
        let action = "sts:AssumeRoleWithWebIdentity";
        let no_role = || {
            Refused(
                403,
                "AccessDenied",
                format!("Not authorized to perform {action}"),
            )
        };
        let trust = self.roles.get(wanted.role).ok_or_else(no_role)?;
        let issuer = bare(&provider.issuer);
        let mut asks = Asks::of(Who::Federated(provider.arn.clone()));
        asks.key("sts:RoleSessionName", [wanted.name.to_owned()]);
        for claim in ["sub", "aud"] {
            let values = match &claims[claim] {
                Value::Array(all) => all.iter().filter_map(Value::as_str).collect(),
                one => one.as_str().into_iter().collect::<Vec<_>>(),
            };
            asks.key(
                &format!("{issuer}:{claim}"),
                values.into_iter().map(str::to_owned),
            );
        }
        if !asks.may(action, trust) {
            return Err(no_role());
        }
        let lineage = Lineage {
            is_role: true,
            ..Lineage::default()
        };
        Ok(self.begin("AssumeRoleWithWebIdentity", &wanted, lineage, now))
    }

    fn begin(
        &mut self,
        action: &str,
        wanted: &Wanted<'_>,
        lineage: Lineage,
        now: SystemTime,
    ) -> String {
        let session = new_session("ASIA");
        let answer = format!(
            "<{action}Response><{action}Result><Credentials><AccessKeyId>{}</AccessKeyId>\
             <SecretAccessKey>{}</SecretAccessKey><SessionToken>{}</SessionToken>\
             <Expiration>{}</Expiration></Credentials></{action}Result></{action}Response>",
            session.access_key_id,
            session.secret_access_key,
            session.session_token,
            Timestamp(now + wanted.life),
        );
        let account = wanted.role.split(':').nth(4).unwrap_or_default();
        let mut principal = Principal::role(account, "/", "");
        principal.arn = wanted.role.to_owned();
        principal.session = wanted.life;
        let known = Known {
            principal,
            expires: now + wanted.life,
            session: session.clone(),
            lineage,
        };
        self.sessions.insert(session.access_key_id, known);
        answer
    }
}

/// What the new session has of the caller's and of the request: source identity and transitive tags stay for good.
fn handed_on(caller: &Known, form: &Form, life: Duration) -> Result<Lineage, Refused> {
    let before = &caller.lineage;
    if before.is_role && life > Duration::from_secs(CHAINED) {
        return Err(invalid(
            "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining",
        ));
    }
    let passed = tags(form)?;
    let is_inherited = |key: &&String| before.tags.keys().any(|it| it.eq_ignore_ascii_case(key));
    if let Some(key) = passed.keys().find(is_inherited) {
        return Err(invalid(format!(
            "One of the specified transitive tag keys can't be set because it conflicts with a transitive tag key from \
             the calling session: {key}"
        )));
    }
    let source_identity = form.get("SourceIdentity");
    if let (Some(now), Some(then)) = (source_identity, &before.source_identity)
        && now != then
    {
        let why = "The source identity of the calling session can't be changed";
        return Err(Refused(403, "AccessDenied", why.to_owned()));
    }
    let mut handed_on = before.tags.clone();
    for key in members(form, "TransitiveTagKeys.member.") {
        let value = passed.get(&key);
        let value = value.ok_or_else(|| invalid(format!("{key} is transitive and no tag")))?;
        handed_on.insert(key, value.clone());
    }
    Ok(Lineage {
        is_role: true,
        source_identity: source_identity.or(before.source_identity.as_ref()).cloned(),
        tags: handed_on,
    })
}

/// `Tags.member.N`.
pub(super) fn tags(form: &Form) -> Result<BTreeMap<String, String>, Refused> {
    let tag = |index: usize, part: &str| form.get(&format!("Tags.member.{index}.{part}"));
    let mut tags = BTreeMap::new();
    for index in 1.. {
        let Some(key) = tag(index, "Key") else { break };
        let value = tag(index, "Value").cloned().unwrap_or_default();
        tags.insert(key.clone(), value);
    }
    if tags.len() > 50 || tags.iter().any(|(k, v)| k.len() > 128 || v.len() > 256) {
        return Err(invalid("at most 50 tags of 128 and 256 characters"));
    }
    Ok(tags)
}

/// `AssumeRoleWithWebIdentity`: nobody signs for it.
pub(super) async fn by_token(
    form: &Form,
    told: &Mutex<Told>,
    now: SystemTime,
) -> Result<String, Refused> {
    let token = form
        .get("WebIdentityToken")
        .ok_or_else(|| invalid("WebIdentityToken"))?;
    told.lock().unwrap().asked.push(form.clone());
    let unread = jsonwebtoken::dangerous::insecure_decode::<Value>(token);
    let issuer = unread
        .map_err(|why| bad_token(format!("The ID Token provided is not a valid JWT: {why}")))?;
    let issuer = issuer.claims["iss"].as_str().unwrap_or_default().to_owned();
    let providers = told.lock().unwrap().providers.clone();
    let provider = providers
        .into_iter()
        .find(|it| it.issuer == issuer)
        .ok_or_else(|| {
            bad_token(format!(
                "No OpenIDConnect provider found in your account for {issuer}"
            ))
        })?;
    let keys = published_keys(&provider.issuer).await?;
    let claims = verified(token, &provider, &keys)?;
    told.lock()
        .unwrap()
        .assume_by(&provider, &claims, form, now)
}

/// Discovery, and the keys it names.
async fn published_keys(issuer: &str) -> Result<JwkSet, Refused> {
    let no_keys = |why: String| {
        let what = "Couldn't retrieve verification key from your identity provider";
        bad_token(format!("{what}: {why}"))
    };
    let discovery = fetch(&format!("{issuer}/.well-known/openid-configuration")).await;
    let discovery: Value =
        serde_json::from_str(&discovery).map_err(|why| no_keys(why.to_string()))?;
    if discovery["issuer"] != issuer {
        return Err(no_keys(format!("it says it is {}", discovery["issuer"])));
    }
    let keys = fetch(discovery["jwks_uri"].as_str().unwrap_or_default()).await;
    serde_json::from_str(&keys).map_err(|why| no_keys(why.to_string()))
}

/// Of loopback.
async fn fetch(url: &str) -> String {
    let rest = url.strip_prefix("http://").expect("http on loopback");
    let (authority, path) = rest.split_once('/').expect("a path");
    let request = Request::get(format!("/{path}")).header("host", authority);
    let request = request.body(Bytes::new()).unwrap();
    let answer = Agent::send_to(authority.parse().unwrap(), request).await;
    answer.text
}

fn verified(token: &str, provider: &Provider, keys: &JwkSet) -> Result<Value, Refused> {
    let wrong = |why: String| bad_token(format!("The ID Token provided is not valid: {why}"));
    let header = decode_header(token).map_err(|why| wrong(why.to_string()))?;
    let kid = header.kid.unwrap_or_default();
    let key = keys
        .find(&kid)
        .ok_or_else(|| wrong(format!("no key {kid:?}")))?;
    let key = DecodingKey::from_jwk(key).map_err(|why| wrong(why.to_string()))?;
    let algorithms = [Algorithm::RS256, Algorithm::ES256, Algorithm::ES384];
    if !algorithms.contains(&header.alg) {
        return Err(wrong(format!("{:?}", header.alg)));
    }
    let mut validation = Validation::new(header.alg);
    validation.set_issuer(&[&provider.issuer]);
    validation.set_audience(&provider.client_ids);
    validation.set_required_spec_claims(&["exp", "iss", "sub", "aud"]);
    validation.leeway = 0;
    use jsonwebtoken::errors::ErrorKind;
    let claims = decode::<Value>(token, &key, &validation).map_err(|why| match why.kind() {
        ErrorKind::ExpiredSignature => {
            Refused(400, "ExpiredTokenException", "Token expired".to_owned())
        }
        ErrorKind::InvalidAudience => bad_token("Incorrect token audience"),
        _ => wrong(why.to_string()),
    })?;
    Ok(claims.claims)
}
