//! A secret in a header of its own, for services that know nothing else.

use http::{HeaderName, HeaderValue, Response, StatusCode, request::Parts};

use super::Call;
use crate::{
    http::body::Body,
    outbound::refusal::Refusal,
    secrets::{Source, Value},
};

/// Which header, and its value.
#[derive(Debug)]
pub(in crate::outbound) struct SecretHeader {
    pub(super) name: HeaderName,
    pub(super) secret: Source,
}

/// Attaches the secret. Where the upstream refuses it (it is being rotated: two values are live), and the request can be
/// sent again, it is: once, with the other value, within the route's budget. The one that is taken is remembered.
pub(super) async fn send(
    call: &Call<'_>,
    header: &SecretHeader,
    mut parts: Parts,
    body: Body,
) -> Result<Response<Body>, Refusal> {
    let value = call.in_time(header.secret.value()).await??;
    header.put(&mut parts, &value)?;
    let again = body.replay().map(|body| (parts.clone(), body));
    let response = call.send(parts, body).await?;
    if !is_refused(response.status()) {
        header.secret.works(&value);
        return Ok(response);
    }
    let Some((mut parts, body)) = again.filter(|_| call.budget.withdraw()) else {
        // For those to come, if not for this one.
        look_in_background(header, value);
        return Ok(response);
    };
    let refused = [value];
    let other = call.in_time(header.secret.other_than(&refused));
    let Ok(Some(other)) = other.await else {
        return Ok(response);
    };
    drop(response);
    call.counters.retried();
    header.put(&mut parts, &other)?;
    let response = call.send(parts, body).await?;
    match is_refused(response.status()) {
        true => header.secret.none_works(),
        false => header.secret.works(&other),
    }
    Ok(response)
}

impl SecretHeader {
    fn put(&self, parts: &mut Parts, value: &Value) -> Result<(), Refusal> {
        let mut line = HeaderValue::from_str(value.expose())
            .map_err(|_| Refusal::SecretUnfit(self.secret.name().to_owned()))?;
        line.set_sensitive(true);
        parts.headers.insert(self.name.clone(), line);
        Ok(())
    }
}

/// Services say it in either way, whatever RFC 9110 has them say.
fn is_refused(status: StatusCode) -> bool {
    matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
}

/// Has the stages of a refused secret read, for the next request. [`Source::other_than`] bounds how often.
fn look_in_background(header: &SecretHeader, refused: Value) {
    let secret = header.secret.clone();
    tokio::spawn(async move { secret.other_than(&[refused]).await });
}
