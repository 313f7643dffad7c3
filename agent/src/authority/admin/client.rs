//! Asks a running authority over its admin socket: what the command line uses.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;
use tokio::{net::UnixStream, time::timeout};

use super::{
    Act, EXPLAIN, JOIN_TOKENS, JoinTokenAnswer, JoinTokenRequest, REVOCATIONS, ROTATE, STATUS,
};
use crate::{
    attest::wire::{ErrorBody, MAX_RESPONSE},
    authority::Status,
};

/// Time for a whole exchange on one machine.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Why the authority did not do it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AdminError {
    /// No answer.
    #[error(
        "cannot ask the authority at {socket}: {why}; run this on its machine, as its user or root, while it runs"
    )]
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// What failed.
        why: String,
    },
    /// An answer, and it is no.
    #[error("{0}")]
    Refused(String),
}

/// Asks for `act`; see [`Act`] for what is answered.
///
/// # Errors
/// See [`AdminError`].
pub async fn ask<A: DeserializeOwned>(socket: &Path, act: &Act) -> Result<A, AdminError> {
    let post = Method::POST;
    let none = None::<&()>;
    match act {
        Act::JoinToken(asked) => exchange(socket, post, JOIN_TOKENS, Some(asked)).await,
        Act::Revoke(change) => exchange(socket, post, REVOCATIONS, Some(change)).await,
        Act::Revocations => exchange(socket, Method::GET, REVOCATIONS, none).await,
        Act::Rotate => exchange(socket, post, ROTATE, none).await,
        Act::Explain(asked) => exchange(socket, post, EXPLAIN, Some(asked)).await,
        Act::Status => exchange(socket, Method::GET, STATUS, none).await,
    }
}

/// Makes a join token.
///
/// # Errors
/// See [`AdminError`].
pub async fn create_join_token(
    socket: &Path,
    request: &JoinTokenRequest,
) -> Result<JoinTokenAnswer, AdminError> {
    ask(socket, &Act::JoinToken(request.clone())).await
}

/// Starts a rotation of root and keys.
///
/// # Errors
/// See [`AdminError`]; also while one is under way.
pub async fn rotate(socket: &Path) -> Result<Status, AdminError> {
    ask(socket, &Act::Rotate).await
}

/// What the authority has.
///
/// # Errors
/// See [`AdminError`].
pub async fn status(socket: &Path) -> Result<Status, AdminError> {
    ask(socket, &Act::Status).await
}

async fn exchange<A: DeserializeOwned>(
    socket: &Path,
    method: Method,
    path: &str,
    body: Option<&impl Serialize>,
) -> Result<A, AdminError> {
    let unreachable = |why: String| AdminError::Unreachable {
        socket: socket.to_owned(),
        why,
    };
    let failed = |why: hyper::Error| unreachable(why.to_string());
    let exchange = async {
        let stream = UnixStream::connect(socket)
            .await
            .map_err(|why| unreachable(why.to_string()))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(failed)?;
        let body = body.map(serde_json::to_vec).transpose();
        let body = body.map_err(|why| unreachable(why.to_string()))?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "authority")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body.unwrap_or_default())))
            .map_err(|why| unreachable(why.to_string()))?;
        // The connection ends with the exchange: nothing outlives this call.
        let answer = async {
            let answer = sender.send_request(request).await.map_err(failed)?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), MAX_RESPONSE)
                .collect()
                .await
                .map_err(|why| unreachable(why.to_string()))?;
            Ok((status, body.to_bytes()))
        };
        tokio::pin!(answer);
        tokio::pin!(connection);
        tokio::select! {
            answer = &mut answer => answer,
            ended = &mut connection => match ended {
                Ok(()) => answer.await,
                Err(why) => Err(failed(why)),
            },
        }
    };
    let (status, body) = timeout(TIMEOUT, exchange)
        .await
        .map_err(|_| unreachable(format!("no answer within {TIMEOUT:?}")))??;
    if !status.is_success() {
        let why = serde_json::from_slice::<ErrorBody>(&body)
            .map_or_else(|_| format!("HTTP status {status}"), |body| body.message);
        return Err(AdminError::Refused(why));
    }
    serde_json::from_slice(&body).map_err(|why| unreachable(why.to_string()))
}
