//! What a client sends to the token endpoint: the form (RFC 6749 §4.4.2, appendix B) and its credentials (§2.3.1).
//! Pure; nothing here is a secret's only copy, and nothing shows one.

use std::collections::{BTreeMap, BTreeSet};

use base64::{Engine, engine::general_purpose::STANDARD};
use warifu::Secret;

use super::answer::{INVALID_CLIENT, INVALID_REQUEST, INVALID_SCOPE, INVALID_TARGET};
use crate::local::endpoint::Refusal;

/// Most parameters in a form. Clients send four or five.
const MAX_PARAMETERS: usize = 32;

/// A request for a token, as it was sent.
#[derive(Debug)]
pub(super) struct TokenRequest {
    /// Who says to ask.
    pub(super) credentials: Option<Credentials>,
    /// `grant_type`.
    pub(super) grant_type: Option<String>,
    /// `resource` (RFC 8707) or `audience`.
    pub(super) audience: Option<String>,
    /// `scope`.
    pub(super) scopes: BTreeSet<String>,
}

/// Client credentials.
#[derive(Debug)]
pub(super) struct Credentials {
    pub(super) id: Spelled,
    pub(super) secret: Spelled,
}

/// Something that can be meant in one way or two: RFC 6749 has Basic credentials form-encoded first, which half of the
/// clients leave out.
#[derive(Debug)]
pub(super) struct Spelled {
    pub(super) decoded: Option<Secret<String>>,
    pub(super) as_is: Option<Secret<String>>,
}

impl TokenRequest {
    /// Reads the body of a request and its `authorization` headers. Parameters it does not know are ignored.
    ///
    /// # Errors
    /// `invalid_request`, `invalid_scope`, `invalid_target`.
    pub(super) fn read<'a>(
        authorization: impl IntoIterator<Item = &'a [u8]>,
        body: &[u8],
    ) -> Result<Self, Refusal> {
        let mut form = read_form(body)?;
        let mut take = |name: &str| form.remove(name);
        let basic = basic(authorization)?;
        let posted = (take("client_id"), take("client_secret"));
        let credentials = match (basic, posted) {
            (Some(_), (_, Some(_))) => {
                return Err(invalid(
                    "the client authenticates twice, by HTTP Basic and by client_secret: once is expected",
                ));
            }
            // RFC 6749 §3.2.1 lets a client name itself in the form, too.
            (Some(basic), (id, None)) => {
                if id.is_some_and(|id| !basic.id.may_be(&id)) {
                    return Err(invalid("client_id is another than that of HTTP Basic"));
                }
                Some(basic)
            }
            (None, (Some(id), Some(secret))) => Some(Credentials {
                id: Spelled::decoded(id),
                secret: Spelled::decoded(secret),
            }),
            (None, (None, Some(_))) => {
                return Err(invalid("there is a client_secret, and no client_id"));
            }
            (None, (_, None)) => None,
        };
        let mut text = |name: &str| take(name).map(|it| it.expose().clone());
        let grant_type = text("grant_type");
        let audience = one_target(text("resource"), text("audience"))?;
        let scopes = scopes(text("scope").as_deref().unwrap_or_default())?;
        Ok(Self {
            credentials,
            grant_type,
            audience,
            scopes,
        })
    }
}

impl Spelled {
    fn decoded(text: Secret<String>) -> Self {
        Self {
            decoded: Some(text),
            as_is: None,
        }
    }

    fn may_be(&self, text: &Secret<String>) -> bool {
        let mut spellings = [&self.decoded, &self.as_is].into_iter().flatten();
        spellings.any(|it| it.expose() == text.expose())
    }
}

/// The parameters of a form. One without a value counts as absent (RFC 6749 §3.2), one given twice as a mistake.
fn read_form(body: &[u8]) -> Result<BTreeMap<String, Secret<String>>, Refusal> {
    let body = std::str::from_utf8(body).map_err(|_| invalid("the form is not UTF-8"))?;
    let mut form = BTreeMap::new();
    for (index, pair) in body.split('&').filter(|pair| !pair.is_empty()).enumerate() {
        if index >= MAX_PARAMETERS {
            return Err(invalid(format!(
                "the form has more than {MAX_PARAMETERS} parameters"
            )));
        }
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (Some(name), Some(value)) = (decode(name), decode(value)) else {
            return Err(invalid(
                "the form is not application/x-www-form-urlencoded: an escape is wrong, or a control character",
            ));
        };
        if form.contains_key(&name) {
            return Err(match name.as_str() {
                "resource" | "audience" => one_at_a_time(),
                _ => invalid("a parameter is there twice"),
            });
        }
        form.insert(name, Secret::new(value));
    }
    form.retain(|_, value| !value.expose().is_empty());
    Ok(form)
}

/// HTTP Basic, if the client tried it.
fn basic<'a>(
    authorization: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Option<Credentials>, Refusal> {
    let mut headers = authorization.into_iter();
    let Some(header) = headers.next() else {
        return Ok(None);
    };
    if headers.next().is_some() {
        return Err(invalid("there is more than one Authorization header"));
    }
    let header = std::str::from_utf8(header).unwrap_or_default();
    let (scheme, encoded) = header.split_once(' ').unwrap_or((header, ""));
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(Refusal::new(
            INVALID_CLIENT,
            "the Authorization header is none of HTTP Basic",
        ));
    }
    let wrong = || {
        Refusal::new(
            INVALID_CLIENT,
            "the Authorization header is not Basic with base64 of client_id:client_secret (RFC 6749 2.3.1)",
        )
    };
    let decoded = STANDARD.decode(encoded.trim_start_matches(' ')).ok();
    let decoded = Secret::new(decoded.ok_or_else(wrong)?);
    let text = std::str::from_utf8(decoded.expose()).map_err(|_| wrong())?;
    let (id, secret) = text.split_once(':').ok_or_else(wrong)?;
    let spelled = |text: &str| Spelled {
        decoded: decode(text).map(Secret::new),
        as_is: Some(Secret::new(text.to_owned())),
    };
    Ok(Some(Credentials {
        id: spelled(id),
        secret: spelled(secret),
    }))
}

/// One of a form's names or values; `None`: a wrong escape, no UTF-8, a control character.
fn decode(text: &str) -> Option<String> {
    let mut octets = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(octet) = octets.next() {
        decoded.push(match octet {
            b'+' => b' ',
            b'%' => {
                let digit = |octet: Option<u8>| char::from(octet?).to_digit(16);
                let (high, low) = (digit(octets.next())?, digit(octets.next())?);
                u8::try_from(high * 16 + low).ok()?
            }
            plain => plain,
        });
    }
    let decoded = String::from_utf8(decoded).ok()?;
    (!decoded.chars().any(char::is_control)).then_some(decoded)
}

fn one_target(
    resource: Option<String>,
    audience: Option<String>,
) -> Result<Option<String>, Refusal> {
    match (resource, audience) {
        (Some(resource), Some(audience)) if resource != audience => Err(one_at_a_time()),
        (resource, audience) => Ok(resource.or(audience)),
    }
}

fn one_at_a_time() -> Refusal {
    Refusal::new(
        INVALID_TARGET,
        "a token is for one audience: ask for each with a request of its own",
    )
}

/// RFC 6749 §3.3: `scope-token *( SP scope-token )`.
fn scopes(text: &str) -> Result<BTreeSet<String>, Refusal> {
    if text.is_empty() {
        return Ok(BTreeSet::new());
    }
    let is_token = |token: &str| {
        let allowed = |b: u8| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
        !token.is_empty() && token.bytes().all(allowed)
    };
    match text.split(' ').all(is_token) {
        true => Ok(text.split(' ').map(str::to_owned).collect()),
        false => Err(Refusal::new(
            INVALID_SCOPE,
            "scope is not a list of scopes with one space between them (RFC 6749 3.3)",
        )),
    }
}

fn invalid(why: impl Into<String>) -> Refusal {
    Refusal::new(INVALID_REQUEST, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::endpoint::Why;

    fn read(authorization: &[&str], body: &str) -> Result<TokenRequest, Why> {
        let authorization = authorization.iter().map(|it| it.as_bytes());
        TokenRequest::read(authorization, body.as_bytes()).map_err(|refusal| refusal.why)
    }

    fn basic_of(text: &str) -> String {
        format!("Basic {}", STANDARD.encode(text))
    }

    fn shown(spelled: &Spelled) -> [Option<&str>; 2] {
        [&spelled.decoded, &spelled.as_is].map(|it| it.as_ref().map(|it| it.expose().as_str()))
    }

    #[test]
    fn reads_a_form() {
        let request = read(
            &[],
            "grant_type=client_credentials&scope=charges.read+charges.write&audience=https%3A%2F%2Fpay.example&x=1&y=",
        );
        let request = request.unwrap();
        assert_eq!(request.grant_type.as_deref(), Some("client_credentials"));
        assert_eq!(request.audience.as_deref(), Some("https://pay.example"));
        let scopes: Vec<_> = request.scopes.iter().map(String::as_str).collect();
        assert_eq!(scopes, ["charges.read", "charges.write"]);
        assert!(request.credentials.is_none());
        let nothing = read(&[], "").unwrap();
        assert!(nothing.grant_type.is_none() && nothing.audience.is_none());
        // Without a value is as good as absent.
        let empty = read(&[], "grant_type=&scope=&resource=&client_secret=&client_id");
        let empty = empty.unwrap();
        assert!(empty.grant_type.is_none() && empty.scopes.is_empty());
        assert!(empty.credentials.is_none());
    }

    #[test]
    fn repeated_parameters_and_broken_forms_are_refused() {
        let many = "a0=1&".to_owned() + &(1..40).map(|i| format!("a{i}=1&")).collect::<String>();
        for (body, why) in [
            ("grant_type=a&grant_type=a", INVALID_REQUEST),
            ("grant_type=a&grant%5Ftype=a", INVALID_REQUEST),
            ("unknown=1&unknown=2", INVALID_REQUEST),
            ("x=&x=", INVALID_REQUEST),
            ("scope=a&scope=b", INVALID_REQUEST),
            ("grant_type=%", INVALID_REQUEST),
            ("grant_type=%4", INVALID_REQUEST),
            ("grant_type=%zz", INVALID_REQUEST),
            ("grant_type=%+4", INVALID_REQUEST),
            ("grant_type=%ff", INVALID_REQUEST),
            ("grant_type=%00", INVALID_REQUEST),
            ("scope=a%0d%0ab", INVALID_REQUEST),
            (many.as_str(), INVALID_REQUEST),
            ("resource=a&resource=b", INVALID_TARGET),
            ("audience=a&audience=a", INVALID_TARGET),
            ("resource=a&audience=b", INVALID_TARGET),
            ("scope=a++b", INVALID_SCOPE),
            ("scope=+a", INVALID_SCOPE),
            ("scope=a+", INVALID_SCOPE),
            ("scope=%22", INVALID_SCOPE),
            ("scope=a%5Cb", INVALID_SCOPE),
            ("scope=%C3%A9", INVALID_SCOPE),
        ] {
            assert_eq!(read(&[], body).err(), Some(why), "{body}");
        }
        assert!(read(&[], "resource=a&audience=a").is_ok());
        let bytes = TokenRequest::read([], b"grant_type=\xff");
        assert_eq!(bytes.err().map(|it| it.why), Some(INVALID_REQUEST));
    }

    #[test]
    fn basic_credentials_are_read_with_and_without_form_encoding() {
        let read = |text: &str| read(&[&basic_of(text)], "").unwrap().credentials.unwrap();
        let encoded = read("my%20app:a%2Bb%3Dc+d");
        assert_eq!(shown(&encoded.id), [Some("my app"), Some("my%20app")]);
        assert_eq!(
            shown(&encoded.secret),
            [Some("a+b=c d"), Some("a%2Bb%3Dc+d")]
        );
        let plain = read("app:50%:x");
        assert_eq!(shown(&plain.secret), [None, Some("50%:x")]);
    }

    #[test]
    fn credentials_come_in_one_way_only() {
        let good = basic_of("app:secret");
        let both = read(&[&good], "client_id=app&client_secret=secret");
        assert_eq!(both.err(), Some(INVALID_REQUEST));
        let other = read(&[&good], "client_id=other");
        assert_eq!(other.err(), Some(INVALID_REQUEST));
        assert!(read(&[&good], "client_id=app").is_ok());
        let twice = read(&[&good, &good], "");
        assert_eq!(twice.err(), Some(INVALID_REQUEST));
        let no_id = read(&[], "client_secret=secret");
        assert_eq!(no_id.err(), Some(INVALID_REQUEST));
        let posted = read(&[], "client_id=a%20b&client_secret=c+d").unwrap();
        let posted = posted.credentials.unwrap();
        assert_eq!(shown(&posted.id), [Some("a b"), None]);
        assert_eq!(shown(&posted.secret), [Some("c d"), None]);
        for wrong in [
            "Basic",
            "Basic !",
            "Basic YQ==",
            "Bearer x",
            "basic /w==",
            "",
        ] {
            let refused = read(&[wrong], "");
            assert_eq!(refused.err(), Some(INVALID_CLIENT), "{wrong}");
        }
        assert!(read(&[&good.replace("Basic", "bAsIc")], "").is_ok());
    }

    #[test]
    fn s12_credentials_do_not_show_in_debug() {
        let request = read(&[&basic_of("app:hunter2%21")], "").unwrap();
        let shown = format!("{request:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
