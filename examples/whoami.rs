//! A service that tells its callers who they are. It serves its agent over a unix socket, holds no
//! key and has no authentication code: the agent verified the caller.
//!
//!     cargo run -p warifu --example whoami -- /run/warifu/app.sock
//!
//! The agent of the same user forwards to it with `forward: unix:/run/warifu/app.sock`; name
//! another user's agent by its uid as a second argument.

use std::{convert::Infallible, env, error::Error};

use http::{Request, Response};
use http_body_util::Full;
use hyper::{
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use warifu::{
    Caller, CallerLayer,
    caller::{AppSocket, PeerCred, own_uid},
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let path = env::args()
        .nth(1)
        .ok_or("usage: whoami SOCKET [AGENT_UID]")?;
    let agent_uid = match env::args().nth(2) {
        Some(uid) => uid.parse()?,
        None => own_uid()?,
    };
    let socket = AppSocket::bind(path, [agent_uid])?;
    let callers = socket.layer();
    println!("listening on unix:{}", socket.path().display());
    loop {
        let (stream, peer) = socket.accept().await;
        let callers = callers.clone();
        let service = service_fn(move |request| {
            let answer = answer(request, peer, &callers);
            async move { Ok::<_, Infallible>(answer) }
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

/// With tower (axum, tonic), `CallerLayer` is a layer and does the first half of this.
fn answer(
    mut request: Request<Incoming>,
    peer: PeerCred,
    callers: &CallerLayer,
) -> Response<Full<Bytes>> {
    request.extensions_mut().insert(peer);
    if let Err(refused) = callers.admit(&mut request) {
        eprintln!("{refused}");
        return refused.response();
    }
    let caller = Caller::from_extensions(request.extensions());
    let json = serde_json::to_string(&caller).unwrap_or_default();
    Response::new(Full::from(json + "\n"))
}
