//! A SigV4 signature.

use bytes::Bytes;
use http::{Request, Response, request::Parts};

use super::{Call, Sign};
use crate::{
    http::{body::Body, pool::Attempt},
    outbound::{refusal::Refusal, retry::Tries},
};

/// Signs, and signs again whenever the pool sends again: the time that passed, or credentials that were
/// renewed meanwhile, are in the signature.
pub(super) async fn send(
    call: &Call<'_>,
    signer: &dyn Sign,
    mut parts: Parts,
    body: &Bytes,
) -> Result<Response<Body>, Refusal> {
    let mut tries = Tries::default();
    loop {
        // Credentials may have to be obtained first, from an STS that may be slow.
        tokio::time::timeout(call.timeout, signer.sign(&mut parts, body))
            .await
            .map_err(|_| Refusal::SignTimedOut(call.timeout))??;
        let request = Request::from_parts(parts, body.clone().into());
        match call.attempt(request, &mut tries).await? {
            Attempt::Answered(response) => return Ok(response),
            Attempt::Again(request) => parts = request.into_parts().0,
            Attempt::NotSent(_, error) => return Err(error.into()),
        }
    }
}
