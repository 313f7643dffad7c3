//! The two services of the demo. Neither has a line of authentication code: `payments` reads the
//! caller its agent verified, `orders` calls `payments` by name.

use std::{convert::Infallible, future::Future, io};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::UnixListener, task::JoinHandle};
use warifu::{Caller, Client, caller::AppSocket};

/// What `payments` does, as it would stand in a service; shown to the reader.
pub(super) const PAYMENTS_SOURCE: &str = "\
let caller: &Caller = request.extensions().get().unwrap();    // put there by CallerLayer
json!({ \"charged\": true, \"caller\": caller.peer_id(), \"scopes\": caller.scopes() })";

/// What `orders` does.
pub(super) const ORDERS_SOURCE: &str = "\
let client = warifu::Client::from_env()?;
let answer = client.post(\"http://payments/charges\").json(&order).send().await?;";

/// `payments`, behind its agent, on the unix socket the agent forwards to.
pub(super) fn payments(socket: AppSocket) -> JoinHandle<()> {
    tokio::spawn(async move {
        let callers = socket.layer();
        loop {
            let (stream, agent) = socket.accept().await;
            let callers = callers.clone();
            serve(stream, move |mut request: Request<Incoming>| {
                request.extensions_mut().insert(agent);
                // What `tower_layer::Layer` would do for a service; the demo has only a function.
                let answer = match callers.admit(&mut request) {
                    Ok(()) => charges(&request),
                    Err(refused) => refused.response::<&str>().map(Full::from),
                };
                std::future::ready(answer)
            });
        }
    })
}

/// Says who called, and, for the demo's reader, every header it was given.
fn charges(request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let Some(caller) = Caller::from_extensions(request.extensions()) else {
        return answer(
            StatusCode::INTERNAL_SERVER_ERROR,
            &json!({"error": "no caller"}),
        );
    };
    let headers: Vec<&str> = request
        .headers()
        .keys()
        .map(header::HeaderName::as_str)
        .collect();
    let told = json!({
        "charged": request.method() == Method::POST,
        "caller": caller.peer_id().map(ToString::to_string),
        "scopes": caller.scopes(),
        "headers": headers,
    });
    answer(StatusCode::OK, &told)
}

/// `orders`, a service of its own on a unix socket: whoever posts an order to it makes it charge.
pub(super) fn orders(listener: UnixListener, client: Client) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                continue;
            };
            let client = client.clone();
            serve(stream, move |_request| place_order(client.clone()));
        }
    })
}

async fn place_order(client: Client) -> Response<Full<Bytes>> {
    let charge = async {
        let answer = client
            .post("http://payments/charges")
            .json(&json!({"order": 42, "amount": "12.00"}))
            .send()
            .await?
            .error_for_status()?;
        answer.json::<Value>().await
    };
    match charge.await {
        Ok(charged) => answer(
            StatusCode::CREATED,
            &json!({"order": 42, "payments said": charged}),
        ),
        Err(error) => answer(
            StatusCode::BAD_GATEWAY,
            &json!({"error": error.to_string()}),
        ),
    }
}

/// Posts an order to `orders`, as its customer would.
pub(super) async fn post_order(socket: &std::path::Path) -> io::Result<Value> {
    let stream = tokio::net::UnixStream::connect(socket).await?;
    let (mut send, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    tokio::spawn(connection);
    let request = Request::post("/orders")
        .header(header::HOST, "orders")
        .body(Full::<Bytes>::default())
        .map_err(io::Error::other)?;
    let response = send.send_request(request).await.map_err(io::Error::other)?;
    let body = http_body_util::BodyExt::collect(response.into_body())
        .await
        .map_err(io::Error::other)?;
    serde_json::from_slice(&body.to_bytes()).map_err(io::Error::other)
}

fn serve<S, F>(stream: S, respond: impl Fn(Request<Incoming>) -> F + Send + 'static)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let service = service_fn(move |request| {
        let response = respond(request);
        async move { Ok::<_, Infallible>(response.await) }
    });
    // A connection that breaks is the client's loss and no news.
    tokio::spawn(async move {
        let _ = http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service)
            .await;
    });
}

fn answer(status: StatusCode, body: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("application/json"),
    );
    response
}
