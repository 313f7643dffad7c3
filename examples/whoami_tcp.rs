//! The same service as `whoami`, over TCP: it believes the caller that the agent signed for each
//! request, with the key whose public half the agent wrote to a file.
//!
//!     cargo run -p warifu --example whoami_tcp -- 127.0.0.1:8080 /run/warifu/context.jwks
//!
//! The agent forwards to it with `forward: http://127.0.0.1:8080` and
//! `context: {key_file: /run/warifu/context.jwks}`.

use std::{convert::Infallible, env, error::Error};

use http::{Request, Response};
use http_body_util::Full;
use hyper::{
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use warifu::{Caller, CallerLayer};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let usage = "usage: whoami_tcp ADDRESS KEY_FILE";
    let listener = TcpListener::bind(env::args().nth(1).ok_or(usage)?).await?;
    let callers = CallerLayer::signed_context(env::args().nth(2).ok_or(usage)?);
    println!("listening on http://{}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        let callers = callers.clone();
        let service = service_fn(move |request| {
            let answer = answer(request, &callers);
            async move { Ok::<_, Infallible>(answer) }
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

fn answer(mut request: Request<Incoming>, callers: &CallerLayer) -> Response<Full<Bytes>> {
    if let Err(refused) = callers.admit(&mut request) {
        eprintln!("{refused}");
        return refused.response();
    }
    let caller = Caller::from_extensions(request.extensions());
    let json = serde_json::to_string(&caller).unwrap_or_default();
    Response::new(Full::from(json + "\n"))
}
