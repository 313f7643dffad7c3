//! A request being put together.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Uri, header};
use serde::Serialize;

use super::{Client, ClientError, Response, body::RequestBody, error};

/// A request being put together; made by [`Client::get`] and its siblings.
///
/// What is wrong with a part of it is told by [`send`](RequestBuilder::send).
#[derive(Debug)]
#[must_use = "a request does nothing until it is sent"]
pub struct RequestBuilder {
    client: Client,
    request: Result<Request<RequestBody>, ClientError>,
}

impl RequestBuilder {
    pub(super) fn new(client: Client, method: Method, url: &str) -> Self {
        let request = match url.parse::<Uri>() {
            Ok(uri) => {
                let mut request = Request::new(RequestBody::empty());
                *request.method_mut() = method;
                *request.uri_mut() = uri;
                Ok(request)
            }
            Err(_) => Err(ClientError::Url {
                url: url.split('?').next().unwrap_or_default().to_owned(),
                why: "it is not a URL",
            }),
        };
        Self { client, request }
    }

    /// Adds a header; several of one name are sent as several.
    pub fn header<N, V>(self, name: N, value: V) -> Self
    where
        N: TryInto<HeaderName>,
        V: TryInto<HeaderValue>,
    {
        self.change(|request| {
            let name = name
                .try_into()
                .map_err(|_| "a header's name is not valid".to_owned())?;
            let value = value
                .try_into()
                .map_err(|_| format!("the value of header {name} is not valid"))?;
            request.headers_mut().append(name, value);
            Ok(())
        })
    }

    /// Sets the body.
    pub fn body(self, body: impl Into<Bytes>) -> Self {
        self.change(|request| {
            *request.body_mut() = RequestBody::whole(body.into());
            Ok(())
        })
    }

    /// Sets the body to `value` as JSON, and `content-type` unless it is set already.
    pub fn json(self, value: &impl Serialize) -> Self {
        self.change(|request| {
            let bytes =
                serde_json::to_vec(value).map_err(|error| format!("the body as JSON: {error}"))?;
            *request.body_mut() = RequestBody::whole(bytes.into());
            request
                .headers_mut()
                .entry(header::CONTENT_TYPE)
                .or_insert(HeaderValue::from_static("application/json"));
            Ok(())
        })
    }

    /// Time for this exchange, instead of the client's.
    pub fn timeout(mut self, timeout: std::time::Duration) -> Self {
        self.client = self.client.timeout(timeout);
        self
    }

    /// Sends the request and waits for the head of the answer.
    ///
    /// # Errors
    /// See [`ClientError`]. An answer with an error status is an answer, not an error:
    /// [`Response::error_for_status`] makes one of it.
    pub async fn send(self) -> Result<Response, ClientError> {
        self.client.execute(self.request?).await
    }

    fn change(
        mut self,
        change: impl FnOnce(&mut Request<RequestBody>) -> Result<(), String>,
    ) -> Self {
        if let Ok(request) = &mut self.request
            && let Err(why) = change(request)
        {
            let url = error::url(request.uri());
            self.request = Err(ClientError::Build { url, why });
        }
        self
    }
}
