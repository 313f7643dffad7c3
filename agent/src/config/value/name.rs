//! Names: texts that stay texts, or become a type of another crate, once they are known to be right.

use std::{
    borrow::Cow,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use http::HeaderName;
use warifu::{SpiffeId, TrustDomain, aws::is_region, jwt::Algorithm};

use super::{Upstream, text::Kind};

type Why = Cow<'static, str>;

/// Declares kinds, each as: marker, what it becomes, what is expected, and how it is read.
macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident -> $value:ty, $expected:literal, $parse:expr;)+) => {$(
        $(#[$doc])*
        pub(in crate::config) struct $name;

        impl Kind for $name {
            type Value = $value;
            const NAME: &'static str = stringify!($name);
            const EXPECTED: &'static str = $expected;

            fn parse(text: &str) -> Result<$value, Why> {
                $parse(text)
            }
        }
    )+};
}

kinds! {
    /// A trust domain, by its bare name.
    Domain -> TrustDomain, "a trust domain such as example.org", trust_domain;
    /// A SPIFFE ID with a path.
    Id -> SpiffeId, "a SPIFFE ID such as spiffe://example.org/payments", spiffe_id;
    /// A header we set.
    Header -> HeaderName, "the name of a header such as x-user-id", header;
    /// A host without port.
    Host -> String, "a host name without a port, such as payments", host_name;
    /// A DNS name.
    DnsName -> String, "a DNS name such as authority.internal", dns_name;
    /// A token's audience.
    Audience -> String, "an audience such as payments", audience;
    /// What the audit log calls a rule.
    RuleName -> String, "a rule's name such as orders-charge: 1 to 64 letters, digits and ._-", |text| word(text, "._-", 1..=64);
    /// A rule of a Rego policy.
    RegoRule -> String, "a rule of a Rego policy such as data.warifu.allow", rego_rule;
    /// A scope, as RFC 6749 §3.3 has it.
    Scope -> String, "a scope such as charges.read", scope;
    /// What a client goes by at a provider of tokens.
    ClientId -> String, "a client id: 1 to 255 visible ASCII characters", |text| visible(text, 255);
    /// What a provider of tokens calls a key.
    KeyId -> String, "a key id: 1 to 255 visible ASCII characters", |text| visible(text, 255);
    /// What a token is for, as RFC 8707 §2 has it.
    Resource -> String, "an absolute URI without #, such as https://api.partner.example", resource;
    /// An AWS region.
    Region -> String, "an AWS region such as eu-west-1", region;
    /// AWS regions, for SigV4A.
    RegionPattern -> String, "an AWS region such as eu-west-1, the beginning of one and a * (eu-*), or *", region_pattern;
    /// A header of the app's that may pass a route that signs.
    AmzHeader -> String, "a header such as x-amz-target, or the beginning of one and a *, such as x-amz-meta-*", amz_header;
    /// A SigV4 signing name.
    Service -> String, "the signing name of an AWS service, in lower case, such as execute-api", signing_name;
    /// A role's ARN (IAM: "IAM ARNs").
    RoleArn -> String, "the ARN of a role such as arn:aws:iam::123456789012:role/orders", role_arn;
    /// A KMS key's id, ARN or alias.
    KmsKey -> String, "a KMS key: its id, ARN or alias/NAME", |text| word(text, ":/_-", 1..=2048);
    /// A private CA's ARN.
    PcaArn -> String, "the ARN of a private CA such as arn:aws:acm-pca:eu-west-1:123456789012:certificate-authority/UUID", pca_arn;
    /// A DynamoDB table's name.
    Table -> String, "the name of a DynamoDB table: 3 to 255 letters, digits and ._-", |text| word(text, "._-", 3..=255);
    /// An AWS account.
    Account -> String, "an AWS account: 12 digits, quoted", account;
    /// An AWS partition.
    Partition -> String, "an AWS partition such as aws or aws-cn", partition;
    /// What an entry of `accept` is called.
    AcceptName -> String, "a name: 1 to 64 letters, digits and ._+-, such as cognito", |text| word(text, "._+-", 1..=64);
    /// A load balancer's ARN, as it names itself in what it signs.
    AlbArn -> String, "the ARN of a load balancer such as arn:aws:elasticloadbalancing:eu-west-1:123456789012:loadbalancer/app/NAME/ID", alb_arn;
    /// What a token is signed with.
    JwsAlgorithm -> Algorithm, "RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512 or EdDSA", jws_algorithm;
    /// An issuer, compared with `iss` byte by byte.
    Issuer -> String, "an issuer's URL such as https://issuer.example.com, exactly as its tokens have it", issuer;
    /// The ARN of a managed policy.
    PolicyArn -> String, "the ARN of a managed policy such as arn:aws:iam::aws:policy/ReadOnlyAccess", policy_arn;
    /// An audience of a token that is sent to whom we call.
    CallAudience -> String, "an audience such as payments", call_audience;
    /// `ExternalId` of STS AssumeRole.
    ExternalId -> String, "an external id: 2 to 1224 letters, digits and +=,.@:/_-", |text| word(text, "+=,.@:/_-", 2..=1224);
    /// An address to listen on.
    TcpAddress -> SocketAddr, "IP:PORT such as 0.0.0.0:8443", |text: &str| text.parse().map_err(|_| Why::from(""));
    /// A file or directory.
    AbsolutePath -> PathBuf, "an absolute path such as /var/lib/warifu", absolute_path;
}

/// A host name or IPv4 address, in lower case.
pub(super) fn host_name(text: &str) -> Result<String, Why> {
    let host = text.to_ascii_lowercase();
    // What ends in a number is an address to some parsers (0x7f.1, 127.1): only the plain form is.
    let last = host.rsplit('.').next().unwrap_or_default();
    let numeric = last.starts_with("0x") || last.bytes().all(|byte| byte.is_ascii_digit());
    if numeric && host.parse::<Ipv4Addr>().is_err() {
        return Err("that is neither a host name nor an IPv4 address".into());
    }
    let label = |label: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (1..=63).contains(&label.len()) && label.bytes().all(plain)
    };
    match host.len() <= 253 && host.split('.').all(label) {
        true => Ok(host),
        false => Err("a host name has letters, digits, - and _, in parts joined by dots".into()),
    }
}

pub(super) fn absolute_path(text: &str) -> Result<PathBuf, Why> {
    if text.contains('\0') {
        return Err("a path has no NUL".into());
    }
    let path = PathBuf::from(text);
    match path.is_absolute() {
        true => Ok(path),
        false => Err("the path must be absolute".into()),
    }
}

fn rego_rule(text: &str) -> Result<String, Why> {
    let identifier = |part: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        part.bytes().all(plain)
            && !part.is_empty()
            && !part.starts_with(|it: char| it.is_ascii_digit())
    };
    let mut parts = text.split('.');
    let of_data = parts.next() == Some("data");
    match of_data && parts.clone().count() >= 2 && parts.all(identifier) && text.len() <= 255 {
        true => Ok(text.to_owned()),
        false => {
            Err("it begins with data, then come a package and a rule, with dots between".into())
        }
    }
}

fn trust_domain(text: &str) -> Result<TrustDomain, Why> {
    if text.contains([':', '/']) {
        return Err("write the name alone, without spiffe://".into());
    }
    TrustDomain::new(text).map_err(|error| error.to_string().into())
}

fn spiffe_id(text: &str) -> Result<SpiffeId, Why> {
    let id = SpiffeId::new(text).map_err(|error| error.to_string())?;
    match id.path().is_empty() {
        true => Err("a workload's SPIFFE ID has a path".into()),
        false => Ok(id),
    }
}

fn pca_arn(text: &str) -> Result<String, Why> {
    let resource = text.split(':').nth(5).unwrap_or_default();
    let is_arn = text.starts_with("arn:") && text.split(':').nth(2) == Some("acm-pca");
    match is_arn && resource.starts_with("certificate-authority/") {
        true => word(text, ":/_-", 1..=200),
        false => Err("".into()),
    }
}

fn alb_arn(text: &str) -> Result<String, Why> {
    let parts: Vec<&str> = text.splitn(6, ':').collect();
    let [
        "arn",
        partition,
        "elasticloadbalancing",
        region,
        owner,
        resource,
    ] = parts.as_slice()
    else {
        return Err("".into());
    };
    self::partition(partition)?;
    self::region(region)?;
    account(owner).map_err(|_| "the account has 12 digits")?;
    if !resource.starts_with("loadbalancer/app/") {
        return Err("only an Application Load Balancer (loadbalancer/app/…) signs".into());
    }
    word(text, ":/_-", 1..=200)
}

/// All that the verifier knows.
const ALGORITHMS: &[Algorithm] = &[
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::ES512,
    Algorithm::EdDSA,
];

fn jws_algorithm(text: &str) -> Result<Algorithm, Why> {
    match text {
        "HS256" | "HS384" | "HS512" => Err("a shared secret is profile hs256's".into()),
        _ => {
            let known = ALGORITHMS.iter().find(|it| it.name() == text);
            known.copied().ok_or("".into())
        }
    }
}

fn account(text: &str) -> Result<String, Why> {
    match text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit()) {
        true => Ok(text.to_owned()),
        false => Err("".into()),
    }
}

fn partition(text: &str) -> Result<String, Why> {
    match text == "aws" || text.starts_with("aws-") {
        true => word(text, "-", 3..=32),
        false => Err("".into()),
    }
}

fn issuer(text: &str) -> Result<String, Why> {
    // Where it is fetched from; what counts is the text, which `iss` must equal.
    Upstream::parse(text)?;
    Ok(text.to_owned())
}

fn header(text: &str) -> Result<HeaderName, Why> {
    // Many servers read `x_user` as `x-user`, so `_` would make two headers of one.
    if text.contains('_') {
        return Err("a header's name has no _ here; use -".into());
    }
    HeaderName::try_from(text).map_err(|_| "".into())
}

fn dns_name(text: &str) -> Result<String, Why> {
    let name = host_name(text)?;
    let label =
        |label: &str| !label.starts_with('-') && !label.ends_with('-') && !label.contains('_');
    if name.parse::<Ipv4Addr>().is_ok() || !name.split('.').all(label) {
        return Err("a DNS name has letters, digits and inner -, in parts joined by dots".into());
    }
    Ok(name)
}

fn audience(text: &str) -> Result<String, Why> {
    match (1..=255).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(text.to_owned()),
        false => Err("it has 1 to 255 visible ASCII characters".into()),
    }
}

/// Whether an audience is for calls (`warifu:TD:call:SERVICE`), of whatever trust domain. A token for one attests
/// nothing: who is called has it too.
pub fn is_call_audience(audience: &str) -> bool {
    is_of_kind(audience, "call")
}

/// Whether an audience is for attestation (`warifu:TD:attest:…`), of whatever trust domain. A token for one is sent to
/// an authority only: who has it can become this workload.
pub fn is_attestation_audience(audience: &str) -> bool {
    is_of_kind(audience, "attest")
}

fn is_of_kind(audience: &str, kind: &str) -> bool {
    let of_ours = audience.strip_prefix("warifu:");
    let rest = of_ours.and_then(|rest| rest.split_once(':'));
    let rest = rest.and_then(|(_, rest)| rest.strip_prefix(kind));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
}

fn call_audience(text: &str) -> Result<String, Why> {
    match is_attestation_audience(text) {
        true => Err(
            "that is for attestation: who is called with such a token could become this workload"
                .into(),
        ),
        false => audience(text),
    }
}

/// Headers that change between us and the service, or that a signature sets itself.
const UNSIGNABLE: &[&str] = &[
    "authorization",
    "connection",
    "content-length",
    "expect",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "via",
    "x-amzn-trace-id",
    "x-forwarded-for",
];

/// Whether a header can be no part of an AWS signature.
pub fn is_unsignable(header: &HeaderName) -> bool {
    UNSIGNABLE.contains(&header.as_str())
}

fn visible(text: &str, most: usize) -> Result<String, Why> {
    match (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(text.to_owned()),
        false => Err("".into()),
    }
}

fn resource(text: &str) -> Result<String, Why> {
    let scheme = text.split_once(':').map(|(scheme, _)| scheme);
    let is_scheme = |it: &str| it.starts_with(|c: char| c.is_ascii_alphabetic());
    match scheme.is_some_and(is_scheme) && !text.contains('#') {
        true => visible(text, 2048),
        false => Err("".into()),
    }
}

/// Headers that carry or steer an AWS signature: the app's never pass a route that signs.
const SIGNATURE: &[&str] = &[
    "x-amz-algorithm",
    "x-amz-content-sha256",
    "x-amz-credential",
    "x-amz-date",
    "x-amz-expires",
    "x-amz-region-set",
    "x-amz-s3session-token",
    "x-amz-security-token",
    "x-amz-signature",
    "x-amz-signedheaders",
];

/// Whether a header, by its lower-case name, carries or steers an AWS signature.
pub fn is_of_signature(name: &str) -> bool {
    SIGNATURE.contains(&name)
}

fn scope(text: &str) -> Result<String, Why> {
    let token = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
    match (1..=255).contains(&text.len()) && text.bytes().all(token) {
        true => Ok(text.to_owned()),
        false => Err("one scope, without spaces, quotes or backslashes".into()),
    }
}

fn word(text: &str, extra: &str, length: std::ops::RangeInclusive<usize>) -> Result<String, Why> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || extra.contains(c);
    match length.contains(&text.len()) && text.chars().all(allowed) {
        true => Ok(text.to_owned()),
        false => Err("".into()),
    }
}

fn region(text: &str) -> Result<String, Why> {
    match is_region(text) {
        true => Ok(text.to_owned()),
        false => Err("".into()),
    }
}

fn region_pattern(text: &str) -> Result<String, Why> {
    let start = text.strip_suffix('*');
    match text == "*"
        || is_region(text)
        || start.is_some_and(|it| is_region(it.trim_end_matches('-')))
    {
        true => Ok(text.to_owned()),
        false => Err("".into()),
    }
}

fn amz_header(text: &str) -> Result<String, Why> {
    let name = header(text.strip_suffix('*').unwrap_or(text))?;
    if !name.as_str().starts_with("x-amz-") && !name.as_str().starts_with("x-amzn-") {
        return Err("only x-amz-… and x-amzn-… are listed here; other headers always pass".into());
    }
    Ok(text.to_ascii_lowercase())
}

fn signing_name(text: &str) -> Result<String, Why> {
    match text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => Err("".into()),
        false => word(text, "-", 1..=64),
    }
}

pub(super) fn role_arn(text: &str) -> Result<String, Why> {
    let (account, resource) = iam_arn(text)?;
    self::account(account).map_err(|_| "the account has 12 digits")?;
    let name = resource
        .strip_prefix("role/")
        .ok_or("it must name a role/…")?;
    word(name, "+=,.@_-/", 1..=512).map_err(|_| "the role's name is not one")?;
    Ok(text.to_owned())
}

fn policy_arn(text: &str) -> Result<String, Why> {
    let (account, resource) = iam_arn(text)?;
    if account != "aws" {
        self::account(account).map_err(|_| "the account has 12 digits, or is aws")?;
    }
    let name = resource
        .strip_prefix("policy/")
        .ok_or("it must name a policy/…")?;
    word(name, "+=,.@_-/", 1..=512).map_err(|_| "the policy's name is not one")?;
    Ok(text.to_owned())
}

/// Account and resource of an ARN of IAM's.
fn iam_arn(text: &str) -> Result<(&str, &str), Why> {
    let parts: Vec<&str> = text.splitn(6, ':').collect();
    let ["arn", partition, "iam", "", account, resource] = parts.as_slice() else {
        return Err("".into());
    };
    match partition.split('-').next() {
        Some("aws") => Ok((account, resource)),
        _ => Err("the partition is aws, aws-cn, aws-us-gov, …".into()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refuses<K: Kind>(texts: &[&str]) {
        for text in texts {
            assert!(K::read(text).is_err(), "{}: {text:?}", K::NAME);
        }
    }

    #[test]
    fn hosts_have_one_spelling_and_no_port() {
        assert_eq!(Host::read("Payments").unwrap(), "payments");
        assert_eq!(Host::read("127.0.0.1").unwrap(), "127.0.0.1");
        refuses::<Host>(&[
            "",
            "a:80",
            "a..b",
            "127.1",
            "0x7f.1",
            "2130706433",
            "a/b",
            "[::1]",
            "a.",
        ]);
    }

    #[test]
    fn aws_names_have_the_form_iam_gives_them() {
        assert!(RoleArn::read("arn:aws:iam::123456789012:role/team/orders").is_ok());
        assert!(RoleArn::read("arn:aws-cn:iam::123456789012:role/orders").is_ok());
        refuses::<RoleArn>(&[
            "orders",
            "arn:aws:iam::1234:role/orders",
            "arn:aws:iam::123456789012:user/orders",
            "arn:aws:sts::123456789012:assumed-role/orders/x",
            "arn:aws:iam::123456789012:role/",
        ]);
        assert!(PolicyArn::read("arn:aws:iam::aws:policy/job-function/ViewOnlyAccess").is_ok());
        assert!(PolicyArn::read("arn:aws-cn:iam::123456789012:policy/orders").is_ok());
        refuses::<PolicyArn>(&[
            "orders",
            "arn:aws:iam::12:policy/x",
            "arn:aws:iam::aws:role/x",
            "arn:aws:iam::aws:policy/",
        ]);
        refuses::<ExternalId>(&["", "é"]);
        refuses::<Region>(&["", "eu west"]);
    }

    #[test]
    fn identities_and_headers_are_parsed_where_they_are_written() {
        refuses::<Domain>(&["", "spiffe://example.org", "exa mple"]);
        refuses::<Id>(&[
            "spiffe://example.org",
            "https://example.org/a",
            "spiffe://a//b",
        ]);
        refuses::<Header>(&["", "x user", "x_user", "x:y"]);
        assert_eq!(Header::read("X-User-Id").unwrap(), "x-user-id");
        refuses::<Scope>(&["", "a b", "a\"b"]);
        refuses::<Audience>(&["", "a b"]);
        refuses::<AbsolutePath>(&["", "a/b", "/a\0b"]);
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "\\PC{0,40}") {
            let _ = (DnsName::read(&text), Host::read(&text));
            let _ = (RoleArn::read(&text), Id::read(&text), Domain::read(&text));
            let _ = (Header::read(&text), Scope::read(&text), Audience::read(&text));
        }
    }
}
