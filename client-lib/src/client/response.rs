//! The answer to a request.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode, response::Parts};
use http_body::Body;
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout_at};

use super::{Client, ClientError, REASON_HEADER, ResponseBody, error::Exchange};

/// Longest part of the agent's reason that is shown: it is a word or two, and ends up in logs.
const MAX_REASON_CHARS: usize = 200;

/// The answer: its head has arrived, its body may still be on the way.
#[derive(Debug)]
pub struct Response {
    head: Parts,
    body: ResponseBody,
    exchange: Exchange,
    client: Client,
    pub(super) deadline: Instant,
}

impl Response {
    pub(super) fn new(
        answer: http::Response<ResponseBody>,
        exchange: Exchange,
        client: &Client,
        deadline: Instant,
    ) -> Self {
        let (head, body) = answer.into_parts();
        Self {
            head,
            body,
            exchange,
            client: client.clone(),
            deadline,
        }
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.head.status
    }

    /// The headers.
    pub fn headers(&self) -> &HeaderMap {
        &self.head.headers
    }

    /// Why an agent gave this answer instead of the service; `None` where the service gave it.
    pub fn agent_reason(&self) -> Option<&str> {
        let reason = self.head.headers.get(REASON_HEADER)?.to_str().ok()?;
        // Visible ASCII, so every index is a character boundary.
        reason.get(..MAX_REASON_CHARS).or(Some(reason))
    }

    /// Turns a 4xx or 5xx answer into [`ClientError::Refused`].
    ///
    /// # Errors
    /// The status is 4xx or 5xx.
    pub fn error_for_status(self) -> Result<Self, ClientError> {
        if self.status().is_client_error() || self.status().is_server_error() {
            return Err(self.refused());
        }
        Ok(self)
    }

    /// The whole body, up to [`Client::response_limit`](super::Client::response_limit).
    ///
    /// # Errors
    /// Too large, too late, or the connection broke.
    pub async fn bytes(mut self) -> Result<Bytes, ClientError> {
        let expected = self.body.size_hint();
        if expected.lower() > self.client.response_limit as u64 {
            return Err(self.too_large());
        }
        let mut whole = BytesMut::new();
        loop {
            let frame = timeout_at(self.deadline, self.body.frame()).await;
            let data = match frame {
                Err(_) => {
                    return Err(ClientError::TimedOut {
                        what: self.exchange.to_string(),
                        after: self.client.timeout,
                    });
                }
                Ok(None) => return Ok(whole.freeze()),
                Ok(Some(Err(source))) => {
                    return Err(ClientError::Connection {
                        agent: self.client.transport.address().to_string(),
                        what: self.exchange.to_string(),
                        source,
                    });
                }
                Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
            };
            if whole.len().saturating_add(data.len()) > self.client.response_limit {
                return Err(self.too_large());
            }
            // Most answers are one frame: pass it on without a copy.
            if whole.is_empty() && self.body.is_end_stream() {
                return Ok(data);
            }
            whole.extend_from_slice(&data);
        }
    }

    /// The body, read as JSON.
    ///
    /// # Errors
    /// As [`bytes`](Response::bytes); [`ClientError::Refused`] where the agent gave the answer,
    /// which is never the service's JSON; [`ClientError::Json`] where the body is something else.
    pub async fn json<T: DeserializeOwned>(self) -> Result<T, ClientError> {
        if self.agent_reason().is_some() {
            return Err(self.refused());
        }
        let exchange = self.exchange.clone();
        let bytes = self.bytes().await?;
        serde_json::from_slice(&bytes).map_err(|source| ClientError::Json {
            what: exchange.to_string(),
            source,
        })
    }

    /// The head, and the body as it comes: unbounded in size and time.
    pub fn into_http(self) -> http::Response<ResponseBody> {
        http::Response::from_parts(self.head, self.body)
    }

    fn refused(self) -> ClientError {
        ClientError::Refused {
            status: self.status(),
            reason: self.agent_reason().map(str::to_owned),
            what: self.exchange.to_string(),
        }
    }

    fn too_large(self) -> ClientError {
        ClientError::TooLarge {
            what: self.exchange.to_string(),
            limit: self.client.response_limit,
        }
    }
}
