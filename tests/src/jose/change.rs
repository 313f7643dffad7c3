//! What is done to a token: none, one or a few changes, chosen by bytes.

use std::time::SystemTime;

use super::{
    Kind,
    token::{ACCOUNT, AUDIENCE, CLIENT, Form, HASH, ID, ISSUER, Member, Signature, Token, seconds},
};

/// Choices made by somebody else's bytes; when those are used up, always the first.
#[derive(Debug, Clone, Copy)]
pub struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    /// As `bytes` have it.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    pub(super) fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::from(self.byte()) % all.len()]
    }

    /// Mostly the first, which is cheap to sign with.
    pub(super) fn signer(&mut self, kind: Kind) -> &'static str {
        let algorithms = kind.algorithms();
        match self.byte() {
            0..200 => algorithms[0],
            _ => self.of(algorithms),
        }
    }
}

/// Changes the token, and says how.
pub(super) fn apply(
    token: &mut Token,
    choices: &mut Choices<'_>,
    now: SystemTime,
) -> Vec<&'static str> {
    let count = match choices.byte() {
        0..40 => 0,
        40..190 => 1,
        190..240 => 2,
        _ => 3,
    };
    (0..count).map(|_| change(token, choices, now)).collect()
}

fn change(token: &mut Token, choices: &mut Choices<'_>, now: SystemTime) -> &'static str {
    match choices.byte() % 10 {
        0..3 => {
            let (name, values) = choices.of(HEADER);
            members(&mut token.header, choices, name, values, now);
            "header"
        }
        3..8 => {
            let (name, values) = choices.of(CLAIMS);
            members(&mut token.claims, choices, name, values, now);
            "claim"
        }
        8 => {
            token.signature = choices.of(SIGNATURES);
            "signature"
        }
        _ => {
            token.form = form(choices);
            "form"
        }
    }
}

/// Another value for a member, or none, or one more of the name.
fn members(
    members: &mut Vec<Member>,
    choices: &mut Choices<'_>,
    name: &str,
    values: &[&str],
    now: SystemTime,
) {
    let how = choices.byte();
    let value = written(choices.of(values), now);
    let name = format!("\"{name}\"");
    let at = members.iter().position(|(it, _)| *it == name);
    match (how, at) {
        // One more of the name, at times spelt another way.
        (0..30, Some(_)) => {
            let escaped = format!("\"\\u{:04x}{}", name.as_bytes()[1], &name[2..]);
            let twin = if how < 20 { name } else { escaped };
            members.insert(usize::from(how) % (members.len() + 1), (twin, value));
        }
        (30..60, Some(at)) => drop(members.remove(at)),
        (_, Some(at)) => members[at].1 = value,
        (_, None) => members.push((name, value)),
    }
}

/// `NOW+60` and such are seconds from now; nothing is near an edge, since the peer looks at the clock itself.
fn written(value: &str, now: SystemTime) -> String {
    let now = seconds(now);
    let relative = |sign: &str| value.strip_prefix(sign)?.parse::<u64>().ok();
    match (relative("NOW+"), relative("NOW-")) {
        (Some(ahead), _) => (now + ahead).to_string(),
        (_, Some(ago)) => (now - ago).to_string(),
        _ => match value {
            "NOW+60.5" => format!("{}.5", now + 60),
            "NOW+6e1" => format!("{}e0", now + 60),
            "LONG" => format!("\"{}\"", "x".repeat(2_049)),
            "HUGE" => format!("\"{}\"", "x".repeat(8_192)),
            "DEEP" => format!("{}{}", "[".repeat(20), "]".repeat(20)),
            "DEEPER" => format!("{}{}", "[".repeat(60), "]".repeat(60)),
            "CROWD" => format!("[{}\"{AUDIENCE}\"]", "\"a\",".repeat(31)),
            "TOO-MANY" => format!("[{}\"{AUDIENCE}\"]", "\"a\",".repeat(32)),
            "THOUSAND" => format!("[{}\"{AUDIENCE}\"]", "\"\",".repeat(1_000)),
            _ => value
                .replace("ISSUER", ISSUER)
                .replace("AUDIENCE", AUDIENCE)
                .replace("CLIENT", CLIENT)
                .replace("ACCOUNT", ACCOUNT)
                .replace("HASH", HASH)
                .replace("SPIFFE", ID),
        },
    }
}

fn form(choices: &mut Choices<'_>) -> Form {
    let number = |choices: &mut Choices<'_>| u16::from_be_bytes([choices.byte(), choices.byte()]);
    match choices.byte() % 20 {
        0 => Form::OtherPadding,
        1 => Form::StandardAlphabet,
        2 => Form::LeftOverBits,
        3 => Form::SpaceBefore,
        4 => Form::SpaceAfter,
        5 => Form::LineEndInside,
        6 => Form::DotAfter,
        7 => Form::DotBefore,
        8 => Form::FiveParts,
        9 => Form::JsonSerialisation,
        10..15 => Form::Flipped(number(choices), choices.byte()),
        15 | 16 => Form::Truncated(number(choices)),
        17 => Form::ByteOrderMark(choices.byte() > 127),
        18 => Form::Trailing(choices.byte() > 127),
        _ => Form::NotUtf8(choices.byte() > 127),
    }
}

const SIGNATURES: &[Signature] = &[
    Signature::Stranger,
    Signature::HmacOfPublicKey,
    Signature::Zero,
    Signature::Empty,
    Signature::Cut,
    Signature::Extended,
    Signature::Swapped,
    Signature::Der,
];

type Values = &'static [&'static str];

/// What the header's members become.
const HEADER: &[(&str, Values)] = &[
    (
        "alg",
        &[
            "\"none\"",
            "\"None\"",
            "\"\"",
            "\"HS256\"",
            "\"HS512\"",
            "\"ES256\"",
            "\"es256\"",
            "\"ES256 \"",
            "\"ES384\"",
            "\"ES512\"",
            "\"RS256\"",
            "\"PS256\"",
            "\"EdDSA\"",
            "\"ES256K\"",
            "null",
            "7",
            "[\"ES256\"]",
            "{}",
        ],
    ),
    (
        "typ",
        &[
            "\"JWT\"",
            "\"jwt\"",
            "\"JOSE\"",
            "\"\"",
            "\"at+jwt\"",
            "\"AT+JWT\"",
            "\"application/at+jwt\"",
            "\"application/jwt\"",
            "\"dpop+jwt\"",
            "\"wit+jwt\"",
            "\"secevent+jwt\"",
            "\"warifu-record+jwt\"",
            "null",
            "7",
            "[\"JWT\"]",
        ],
    ),
    (
        "kid",
        &[
            "\"ES256\"",
            "\"RS256\"",
            "\"PS256\"",
            "\"EdDSA\"",
            "\"ES384\"",
            "\"HS256\"",
            "\"\"",
            "\"../ES256\"",
            "\"ES256\\u0000\"",
            "\"' OR 1=1 --\"",
            "null",
            "7",
            "[\"ES256\"]",
            "LONG",
        ],
    ),
    ("crit", &["[\"exp\"]", "[]", "null", "[\"b64\"]", "\"exp\""]),
    ("b64", &["false", "true", "null"]),
    ("jku", &["\"https://evil.example/keys\"", "null"]),
    ("x5u", &["\"https://evil.example/cert\"", "null"]),
    ("jwk", &["{\"kty\":\"EC\"}", "null"]),
    ("x5c", &["[\"MIIB\"]", "null"]),
    ("x5t", &["\"AAAA\"", "7"]),
    ("x5t#S256", &["\"HASH\"", "null"]),
    ("cty", &["\"JWT\""]),
    ("zip", &["\"DEF\""]),
    ("iss", &["\"ISSUER\"", "\"https://evil.example\"", "7"]),
    ("client", &["\"CLIENT\"", "\"another\"", "[\"CLIENT\"]"]),
    (
        "signer",
        &[
            "\"arn:aws:elasticloadbalancing:eu-west-1:123456789012:loadbalancer/app/x/1\"",
            "7",
        ],
    ),
    (
        "exp",
        &["NOW+600", "NOW-60", "\"9999999999\"", "NOW+60.5", "null"],
    ),
    ("x", &["1", "{\"a\":1,\"a\":2}", "DEEP", "DEEPER"]),
];

/// What the claims become.
const CLAIMS: &[(&str, Values)] = &[
    (
        "exp",
        &[
            "NOW+60",
            "NOW+3600",
            "NOW+100000000",
            "NOW-60",
            "NOW-3600",
            "0",
            "-1",
            "NOW+60.5",
            "NOW+6e1",
            "1e308",
            "1e999",
            "253402300799",
            "253402300800",
            "18446744073709551615",
            "18446744073709551616",
            "\"9999999999\"",
            "null",
            "true",
            "[9999999999]",
            "{}",
            "01",
        ],
    ),
    (
        "nbf",
        &[
            "NOW-60", "NOW+60", "NOW+60.5", "0", "0.5", "-1", "\"0\"", "null", "1e308", "[0]",
        ],
    ),
    (
        "iat",
        &[
            "NOW-60",
            "NOW+60",
            "NOW-100000",
            "NOW+31536000",
            "0.5",
            "-1",
            "\"0\"",
            "null",
            "true",
        ],
    ),
    (
        "iss",
        &[
            "\"ISSUER\"",
            "\"ISSUER/\"",
            "\"https://evil.example\"",
            "\"\"",
            "7",
            "null",
            "[\"ISSUER\"]",
            "{}",
            "LONG",
        ],
    ),
    (
        "aud",
        &[
            "\"AUDIENCE\"",
            "[\"AUDIENCE\"]",
            "[\"a\",\"AUDIENCE\"]",
            "[\"AUDIENCE\",\"AUDIENCE\"]",
            "\"CLIENT\"",
            "[\"CLIENT\",\"b\"]",
            "[]",
            "\"\"",
            "\"a\"",
            "\"AUDIENCE \"",
            "7",
            "null",
            "{\"AUDIENCE\":1}",
            "[\"AUDIENCE\",7]",
            "[[\"AUDIENCE\"]]",
            "[null]",
            "CROWD",
            "TOO-MANY",
            "THOUSAND",
        ],
    ),
    (
        "sub",
        &[
            "\"SPIFFE\"",
            "\"ACCOUNT\"",
            "\"system:serviceaccount:shop:payments\"",
            "\"system:serviceaccount:shop\"",
            "\"spiffe://example.org\"",
            "\"SPIFFE://EXAMPLE.org/orders\"",
            "\"spiffe://example.org/a/../b\"",
            "\"someone\"",
            "\"\"",
            "7",
            "null",
            "[\"SPIFFE\"]",
            "LONG",
        ],
    ),
    ("jti", &["\"1\"", "\"\"", "7", "null", "LONG"]),
    (
        "client_id",
        &[
            "\"CLIENT\"",
            "\"another\"",
            "\"\"",
            "7",
            "null",
            "[\"CLIENT\"]",
        ],
    ),
    (
        "token_use",
        &["\"access\"", "\"id\"", "\"refresh\"", "7", "null"],
    ),
    ("scope", &["\"a b\"", "\"\"", "[\"a\"]", "7", "null"]),
    (
        "cnf",
        &[
            "{\"x5t#S256\":\"HASH\"}",
            "{\"x5t#S256\":\"HASH=\"}",
            "{\"x5t#S256\":7}",
            "{\"jkt\":\"HASH\"}",
            "{\"jwk\":{}}",
            "{\"x5t#S256\":\"HASH\",\"jkt\":\"HASH\"}",
            "{}",
            "[]",
            "null",
            "\"HASH\"",
        ],
    ),
    (
        "kubernetes.io",
        &[
            "{\"namespace\":\"shop\",\"serviceaccount\":{\"name\":\"orders\"}}",
            "{\"namespace\":\"shop\",\"serviceaccount\":{\"name\":\"payments\"}}",
            "{\"namespace\":\"shop\"}",
            "7",
            "null",
        ],
    ),
    (
        "x",
        &[
            "1",
            "\"\\u0000\"",
            "{\"a\":1,\"a\":2}",
            "{\"a\":1,\"\\u0061\":2}",
            "[{\"a\":1,\"a\":1}]",
            "DEEP",
            "DEEPER",
            "1e999",
            "-0",
            "NaN",
            "'x'",
            "HUGE",
            "\"\\ud800\"",
        ],
    ),
];
