//! What STS answers to GetCallerIdentity: exactly this document, in the one form its content type says. Of anything
//! else nothing is used: an answer that reflects what a caller chose must not be read as an identity (CVE-2020-16250).

use http::StatusCode;
use serde::Deserialize;

/// Who signed, as STS has it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Caller {
    #[serde(rename = "Arn")]
    pub(super) arn: String,
    #[serde(rename = "UserId")]
    pub(super) user_id: String,
    #[serde(rename = "Account")]
    pub(super) account: String,
}

/// What came instead of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NoCaller {
    /// STS decided: its code.
    Refused(String),
    /// STS has no time.
    Busy(String),
    /// Not an answer of STS's.
    NotUnderstood(&'static str),
}

/// `{"GetCallerIdentityResponse": {"GetCallerIdentityResult": {…}, "ResponseMetadata": {"RequestId": …}}}`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(rename = "GetCallerIdentityResponse")]
    response: Response,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Response {
    #[serde(rename = "GetCallerIdentityResult")]
    result: Caller,
    #[serde(rename = "ResponseMetadata")]
    _metadata: Metadata,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Metadata {
    #[serde(rename = "RequestId")]
    _request_id: String,
}

/// Longest error code that is repeated. AWS's are shorter.
const MAX_CODE: usize = 64;

/// Reads an answer. We ask for JSON always; endpoints that know XML alone are understood, too.
pub(super) fn read(
    status: StatusCode,
    content_type: &str,
    body: &[u8],
) -> Result<Caller, NoCaller> {
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    let is = |of: &[&str]| of.iter().any(|it| media_type.eq_ignore_ascii_case(it));
    let body = std::str::from_utf8(body).map_err(|_| NoCaller::NotUnderstood("it is not UTF-8"))?;
    match status {
        StatusCode::OK if is(&["application/json"]) => serde_json::from_str::<Document>(body)
            .map(|document| document.response.result)
            .map_err(|_| NoCaller::NotUnderstood("its JSON is not GetCallerIdentityResponse")),
        StatusCode::OK if is(&["text/xml", "application/xml"]) => xml(body).ok_or(
            NoCaller::NotUnderstood("its XML is not GetCallerIdentityResponse"),
        ),
        StatusCode::OK => Err(NoCaller::NotUnderstood("it is neither JSON nor XML")),
        status if status.is_redirection() => Err(NoCaller::NotUnderstood(
            "it is a redirect, which is not followed",
        )),
        status => Err(refusal(status, body)),
    }
}

/// STS's code goes into messages: only what looks like one does. Its message may quote the whole request.
fn refusal(status: StatusCode, body: &str) -> NoCaller {
    let code = [("\"Code\":\"", '"'), ("<Code>", '<')]
        .iter()
        .find_map(|(before, after)| {
            let (_, rest) = body.split_once(before)?;
            let (code, _) = rest.split_once(*after)?;
            let is_code = (1..=MAX_CODE).contains(&code.len())
                && code.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.');
            is_code.then(|| code.to_owned())
        });
    match code {
        Some(code) if crate::aws::is_busy(&code) => NoCaller::Busy(code),
        Some(code) if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS => {
            NoCaller::Refused(code)
        }
        Some(code) => NoCaller::Busy(code),
        None if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
            NoCaller::Busy(status.as_str().to_owned())
        }
        None => NoCaller::NotUnderstood("it is an error without a code of STS's"),
    }
}

/// Exactly the one document: no attribute but the namespace, no entity, no comment, no CDATA, nothing twice.
fn xml(body: &str) -> Option<Caller> {
    let mut rest = Rest(body);
    if rest.0.starts_with("<?xml ") {
        let (declaration, after) = rest.0.split_once("?>")?;
        if declaration.get(1..)?.contains(['<', '>', '&']) {
            return None;
        }
        rest = Rest(after);
    }
    rest.take("<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">")?;
    rest.take("<GetCallerIdentityResult>")?;
    let [mut arn, mut user_id, mut account] = [const { None::<String> }; 3];
    for _ in 0..3 {
        let (name, text) = rest.element()?;
        let place = match name {
            "Arn" => &mut arn,
            "UserId" => &mut user_id,
            "Account" => &mut account,
            _ => return None,
        };
        if place.replace(text.to_owned()).is_some() {
            return None;
        }
    }
    rest.take("</GetCallerIdentityResult>")?;
    rest.take("<ResponseMetadata>")?;
    let (name, _) = rest.element()?;
    if name != "RequestId" {
        return None;
    }
    rest.take("</ResponseMetadata>")?;
    rest.take("</GetCallerIdentityResponse>")?;
    let nothing_more = rest.0.trim_ascii().is_empty();
    Some(Caller {
        arn: arn?,
        user_id: user_id?,
        account: account?,
    })
    .filter(|_| nothing_more)
}

/// What has not been read yet.
struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    /// Exactly `tag` comes next, after white space at most.
    fn take(&mut self, tag: &str) -> Option<()> {
        self.0 = self.0.trim_ascii_start().strip_prefix(tag)?;
        Some(())
    }

    /// `<Name>text</Name>`
    fn element(&mut self) -> Option<(&'a str, &'a str)> {
        let inner = self.0.trim_ascii_start().strip_prefix('<')?;
        let (name, inner) = inner.split_once('>')?;
        let (text, after) = inner.split_once("</")?;
        self.0 = after.strip_prefix(name)?.strip_prefix('>')?;
        let is_plain = !name.is_empty()
            && name.bytes().all(|b| b.is_ascii_alphabetic())
            && !text.contains(['<', '>', '&']);
        is_plain.then_some((name, text))
    }
}

#[cfg(test)]
mod tests;
