//! A token as it is before it is text: members that can be changed one by one.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD},
};
use warifu::jwt::{Algorithm, Confirmation, Profile};

use super::Keys;

pub(super) const ISSUER: &str = "https://issuer.example";
pub(super) const AUDIENCE: &str = "payments";
pub(super) const CLIENT: &str = "3jcqu9bhtcn5a1cdn2lv2jcr8e";
pub(super) const ALB: &str =
    "arn:aws:elasticloadbalancing:eu-west-1:123456789012:loadbalancer/app/front/50dc6c495c0c9188";
pub(super) const ID: &str = "spiffe://example.org/orders";
pub(super) const ACCOUNT: &str = "system:serviceaccount:shop:orders";
/// SHA-256 of nothing, base64url.
pub(super) const HASH: &str = "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU";

/// The kinds of token, each with a profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is named as its profile")]
pub enum Kind {
    JwtSvid,
    OidcEvidence,
    Oidc,
    AccessToken,
    /// The same, where tokens may be bound to certificates.
    BoundAccessToken,
    AwsWebIdentity,
    CognitoAccess,
    CognitoId,
    Alb,
    Kubernetes,
    Hs256,
}

impl Kind {
    pub(super) const ALL: &'static [Self] = &[
        Self::JwtSvid,
        Self::OidcEvidence,
        Self::Oidc,
        Self::AccessToken,
        Self::BoundAccessToken,
        Self::AwsWebIdentity,
        Self::CognitoAccess,
        Self::CognitoId,
        Self::Alb,
        Self::Kubernetes,
        Self::Hs256,
    ];

    pub(super) fn profile(self) -> Profile {
        let ours = || vec![AUDIENCE.to_owned()];
        let clients = || vec![CLIENT.to_owned()];
        match self {
            Self::JwtSvid => Profile::jwt_svid(ours()),
            Self::OidcEvidence => Profile::oidc_evidence(ISSUER, AUDIENCE),
            Self::Oidc => Profile::oidc(ISSUER, ours(), Algorithm::ALL),
            Self::AccessToken => Profile::access_token(ISSUER, ours(), Algorithm::ALL),
            Self::BoundAccessToken => {
                let mut profile = Profile::access_token(ISSUER, ours(), Algorithm::ALL);
                profile.confirmation = Confirmation::Certificate;
                profile.max_lifetime = Some(Duration::from_secs(3_600));
                profile
            }
            Self::AwsWebIdentity => Profile::aws_web_identity(ISSUER, AUDIENCE),
            Self::CognitoAccess => Profile::cognito_access(ISSUER, clients()),
            Self::CognitoId => Profile::cognito_id(ISSUER, clients()),
            Self::Alb => Profile::alb(ISSUER, vec![ALB.to_owned()], clients()),
            Self::Kubernetes => Profile::kubernetes(ISSUER, ours()),
            Self::Hs256 => Profile::hs256(ISSUER, ours()),
        }
    }

    /// By which keys such a token may be signed, the cheap one first.
    pub(super) fn algorithms(self) -> &'static [&'static str] {
        match self {
            Self::JwtSvid => &[
                "ES256", "ES384", "ES512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512",
            ],
            Self::OidcEvidence | Self::Oidc | Self::AccessToken | Self::BoundAccessToken => &[
                "ES256", "EdDSA", "ES384", "ES512", "RS256", "RS384", "RS512", "PS256", "PS384",
                "PS512",
            ],
            Self::AwsWebIdentity => &["ES384", "RS256"],
            Self::CognitoAccess | Self::CognitoId => &["RS256"],
            Self::Alb => &["ES256"],
            Self::Kubernetes => &["ES256", "RS256", "ES384", "ES512"],
            Self::Hs256 => &["HS256"],
        }
    }
}

/// Name and value of a member, both JSON text.
pub(super) type Member = (String, String);

/// A token that can still be changed.
#[derive(Debug, Clone)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) header: Vec<Member>,
    pub(super) claims: Vec<Member>,
    /// Whose algorithm and key sign it, whatever the header says.
    pub(super) signer: &'static str,
    /// How the signature comes about, where not as it should.
    pub(super) signature: Signature,
    /// How the parts are written down.
    pub(super) form: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signature {
    Good,
    Stranger,
    HmacOfPublicKey,
    Zero,
    Empty,
    Cut,
    Extended,
    Swapped,
    Der,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// What the kind has: base64url, unpadded but for load balancers.
    Own,
    /// Padded where it is unpadded, and the other way round.
    OtherPadding,
    StandardAlphabet,
    LeftOverBits,
    SpaceBefore,
    SpaceAfter,
    LineEndInside,
    DotAfter,
    DotBefore,
    FiveParts,
    JsonSerialisation,
    /// One character of the text is another.
    Flipped(u16, u8),
    /// The text ends early.
    Truncated(u16),
    /// The JSON of a part begins with a byte-order mark.
    ByteOrderMark(bool),
    /// The JSON of a part is followed by more.
    Trailing(bool),
    /// A part is not UTF-8.
    NotUtf8(bool),
}

impl Token {
    pub(super) fn good(kind: Kind, signer: &'static str, now: SystemTime) -> Self {
        let now = seconds(now);
        let text = |text: &str| format!("\"{text}\"");
        let member = |name: &str, value: String| (text(name), value);
        let mut header = vec![member("alg", text(signer))];
        let mut claims = vec![
            member("iss", text(ISSUER)),
            member("sub", text(ID)),
            member("iat", (now - 60).to_string()),
            member("exp", (now + 600).to_string()),
        ];
        if kind != Kind::Hs256 {
            header.push(member("kid", text(signer)));
        }
        match kind {
            Kind::AccessToken | Kind::BoundAccessToken => {
                header.push(member("typ", text("at+jwt")));
                claims.push(member("jti", text("1")));
                claims.push(member("client_id", text("c")));
            }
            Kind::CognitoAccess => {
                claims.push(member("token_use", text("access")));
                claims.push(member("client_id", text(CLIENT)));
            }
            Kind::CognitoId => claims.push(member("token_use", text("id"))),
            Kind::Alb => {
                header.push(member("typ", text("JWT")));
                header.push(member("iss", text(ISSUER)));
                header.push(member("client", text(CLIENT)));
                header.push(member("signer", text(ALB)));
                header.push(member("exp", (now + 600).to_string()));
            }
            Kind::Kubernetes => claims.push(member(
                "kubernetes.io",
                r#"{"namespace":"shop","serviceaccount":{"name":"orders"}}"#.to_owned(),
            )),
            _ => header.push(member("typ", text("JWT"))),
        }
        match kind {
            Kind::CognitoAccess | Kind::Alb => {}
            Kind::CognitoId => claims.push(member("aud", text(CLIENT))),
            _ => claims.push(member("aud", text(AUDIENCE))),
        }
        let mut good = Self {
            kind,
            header,
            claims,
            signer,
            signature: Signature::Good,
            form: Form::Own,
        };
        if kind == Kind::Kubernetes {
            good.set_claim("sub", text(ACCOUNT));
        }
        good
    }

    pub(super) fn set_claim(&mut self, name: &str, value: String) {
        set(&mut self.claims, name, value);
    }

    /// What is presented, and whether that is how such a token is written.
    pub(super) fn text(&self, keys: &Keys) -> (String, bool) {
        let (header, claims) = (object(&self.header), object(&self.claims));
        let (header, claims) = match self.form {
            Form::ByteOrderMark(true) => ([b"\xef\xbb\xbf", &header[..]].concat(), claims),
            Form::ByteOrderMark(false) => (header, [b"\xef\xbb\xbf", &claims[..]].concat()),
            Form::Trailing(true) => ([&header[..], b"{}"].concat(), claims),
            Form::Trailing(false) => (header, [&claims[..], b"\0"].concat()),
            Form::NotUtf8(true) => (with_bad_byte(&header), claims),
            Form::NotUtf8(false) => (header, with_bad_byte(&claims)),
            _ => (header, claims),
        };
        let encode = |form, bytes: &[u8]| encode(self.kind, form, bytes);
        let parts = [&header[..], &claims];
        let signed = parts.map(|part| encode(self.form, part)).join(".");
        let signature = self.signature(keys, signed.as_bytes());
        let token = format!("{signed}.{}", encode(self.form, &signature));
        let own = [&object(&self.header)[..], &object(&self.claims), &signature];
        let own = own.map(|part| encode(Form::Own, part)).join(".");
        let written = self.written(token, &signed, &signature);
        let is_own = written == own;
        (written, is_own)
    }

    fn signature(&self, keys: &Keys, message: &[u8]) -> Vec<u8> {
        let good = keys.sign(self.signer, message);
        let (first, second) = good.split_at(good.len() / 2);
        match self.signature {
            Signature::Good => good,
            Signature::Stranger => keys.sign_as_stranger(message),
            Signature::HmacOfPublicKey => keys.sign_with_public_key(self.signer, message),
            Signature::Zero => vec![0; good.len()],
            Signature::Empty => Vec::new(),
            Signature::Cut => good[..good.len() - 1].to_vec(),
            Signature::Extended => [&good[..], &[0]].concat(),
            Signature::Swapped => [second, first].concat(),
            Signature::Der => {
                let integer = |n: &[u8]| [&[2, n.len() as u8][..], n].concat();
                let integers = [integer(first), integer(second)].concat();
                [&[0x30, integers.len() as u8][..], &integers].concat()
            }
        }
    }

    /// The same token, written down another way.
    fn written(&self, token: String, signed: &str, signature: &[u8]) -> String {
        let parts: Vec<_> = token.split('.').collect();
        match self.form {
            Form::SpaceBefore => format!(" {token}"),
            Form::SpaceAfter => format!("{token}\n"),
            Form::LineEndInside => token.replacen('.', ".\r\n", 1),
            Form::DotAfter => format!("{token}."),
            Form::DotBefore => format!(".{token}"),
            Form::FiveParts => format!("{}..{}.{}.{}", parts[0], parts[1], parts[2], parts[2]),
            Form::JsonSerialisation => format!(
                r#"{{"protected":"{}","payload":"{}","signature":"{}"}}"#,
                parts[0], parts[1], parts[2]
            ),
            Form::LeftOverBits => {
                let signature = URL_SAFE_NO_PAD.encode(signature);
                let (rest, last) = signature.split_at(signature.len().saturating_sub(1));
                let twin = match last {
                    "A" => "B",
                    "Q" => "R",
                    "g" => "h",
                    "w" => "x",
                    // Nothing is left over, or nothing is there.
                    other => other,
                };
                format!("{signed}.{rest}{twin}")
            }
            Form::Flipped(at, with) => {
                let mut bytes = token.into_bytes();
                let at = usize::from(at) % bytes.len();
                bytes[at] = b"Aa0-_.=+/ "[usize::from(with) % 10];
                String::from_utf8(bytes).expect("ASCII")
            }
            Form::Truncated(at) => token[..usize::from(at) % token.len()].to_owned(),
            _ => token,
        }
    }
}

fn encode(kind: Kind, form: Form, bytes: &[u8]) -> String {
    let padded = (kind == Kind::Alb) != (form == Form::OtherPadding);
    match (form, padded) {
        (Form::StandardAlphabet, _) => STANDARD_NO_PAD.encode(bytes),
        (_, true) => URL_SAFE.encode(bytes),
        (_, false) => URL_SAFE_NO_PAD.encode(bytes),
    }
}

fn set(members: &mut Vec<Member>, name: &str, value: String) {
    let name = format!("\"{name}\"");
    match members.iter_mut().find(|(it, _)| *it == name) {
        Some((_, old)) => *old = value,
        None => members.push((name, value)),
    }
}

fn object(members: &[Member]) -> Vec<u8> {
    let members: Vec<_> = members
        .iter()
        .map(|(name, value)| format!("{name}:{value}"))
        .collect();
    format!("{{{}}}", members.join(",")).into_bytes()
}

fn with_bad_byte(json: &[u8]) -> Vec<u8> {
    [&json[..json.len() - 1], b",\"z\":\"\xff\"}"].concat()
}

pub(super) fn seconds(now: SystemTime) -> u64 {
    let since = now.duration_since(UNIX_EPOCH);
    since.expect("a clock after 1970").as_secs()
}
