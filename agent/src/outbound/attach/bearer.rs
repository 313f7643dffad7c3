//! A token in `authorization`.

use http::{Response, StatusCode, header::AUTHORIZATION, request::Parts};

use super::Call;
use crate::{
    http::body::Body,
    outbound::refusal::Refusal,
    token::{Source, Token},
};

/// Attaches a token. Where the upstream refuses it (keys were rotated, it was revoked), and the
/// request can be sent again, it is: once, with another token, within the route's budget.
pub(super) async fn send(
    call: &Call<'_>,
    tokens: &Source,
    mut parts: Parts,
    body: Body,
) -> Result<Response<Body>, Refusal> {
    let token = call.in_time(tokens.token()).await??;
    parts.headers.insert(AUTHORIZATION, token.authorization());
    let again = body.replay().map(|body| (parts.clone(), body));
    let response = call.send(parts, body).await?;
    if response.status() != StatusCode::UNAUTHORIZED {
        return Ok(response);
    }
    let Some((mut parts, body)) = again.filter(|_| call.budget.withdraw()) else {
        // For those to come, if not for this one.
        replace_in_background(tokens, token);
        return Ok(response);
    };
    let Ok(Some(token)) = call.in_time(tokens.other_than(&token)).await else {
        return Ok(response);
    };
    drop(response);
    call.counters.retried();
    parts.headers.insert(AUTHORIZATION, token.authorization());
    call.send(parts, body).await
}

/// Has a refused token replaced. [`Source::other_than`] bounds how often anything comes of it.
fn replace_in_background(tokens: &Source, refused: Token) {
    let tokens = tokens.clone();
    tokio::spawn(async move { tokens.other_than(&refused).await });
}
