//! Connections that are nobody else's: what a tunnel leads to.

use std::{fmt, sync::Arc, time::Duration};

use http::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls_pki_types::CertificateDer;
use tokio::time::Instant;

use super::{
    Admit, Attempt, Body, Driven, Inner, SendError, Tls, Upstream,
    connect::{Connector, Proof, Raw},
    exchange::{Failure, exchange},
    lock,
    shelf::Shelf,
};
use crate::http::{origin::Stream, still::Still, tunnel::Handover};

/// The far end of a tunnel, counted as a connection of its pool for as long as it is there.
pub struct Far {
    stream: Box<dyn Stream>,
    proof: Proof,
    admit: Option<Admit>,
    /// The place it takes among the pool's connections.
    driven: Arc<Driven>,
}

/// What a [`Far`] consists of.
pub struct FarParts {
    /// The bytes.
    pub stream: Box<dyn Stream>,
    /// When what either side proved expires.
    pub ends: Option<Instant>,
    /// Whether the peer would still be admitted.
    pub still: Option<Still>,
    /// To be held as long as the stream is.
    pub place: Place,
}

/// A place among a pool's connections.
#[derive(Debug)]
pub struct Place(#[expect(dead_code, reason = "held, and dropped with the stream")] Arc<Driven>);

/// Marks a request that asks for another protocol: it gets a connection of its own, over HTTP/1.1, and where
/// the answer is 101, that comes with a [`Far`] (see [`Far::of`]). Whether it is the right 101 is the
/// caller's to judge.
#[derive(Debug, Clone, Copy)]
pub struct Switches;

impl Far {
    /// What comes after this response, which is a 101.
    pub fn of(response: &mut Response<Body>) -> Option<Self> {
        Handover::take(response.extensions_mut())
    }

    /// Taken apart.
    pub fn into_parts(self) -> FarParts {
        let still = self.admit.map(|admit| {
            let chain: Vec<CertificateDer<'static>> = self.proof.chain;
            Still::new(move || std::future::ready(admit.says(&chain)))
        });
        FarParts {
            stream: self.stream,
            ends: self.proof.ends.map(Instant::from_std),
            still,
            place: Place(self.driven),
        }
    }
}

impl fmt::Debug for Far {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Far")
            .field("proof", &self.proof)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for FarParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FarParts")
            .field("ends", &self.ends)
            .finish_non_exhaustive()
    }
}

impl Upstream {
    /// A connection for what only its two ends understand.
    ///
    /// # Errors
    /// See [`SendError`].
    pub async fn open(&self) -> Result<Far, SendError> {
        let inner = &self.0;
        let tls = lock(&inner.shelf).tls().map(|tls| offering(tls, &[]));
        let admit = tls.as_ref().and_then(|tls| tls.admit.clone());
        let (Raw { stream, proof }, driven) = inner
            .connecting(tls, |connector, _| connector.open())
            .await?;
        Ok(Far {
            stream,
            proof,
            admit,
            driven,
        })
    }
}

impl Inner {
    /// Sends a request that [`Switches`], over a connection made for it.
    pub(super) async fn switch(
        self: &Arc<Self>,
        request: Request<Body>,
        first_byte: Duration,
    ) -> Result<Attempt, SendError> {
        let tls = lock(&self.shelf).tls();
        let tls = tls.map(|tls| offering(tls, &[b"http/1.1"]));
        let admit = tls.as_ref().and_then(|tls| tls.admit.clone());
        let (mut made, driven) = match self.connecting(tls, Connector::connect).await {
            Ok(made) => made,
            Err(error) => return Ok(Attempt::NotSent(request, error)),
        };
        // Whatever the answer is, no other request goes over it.
        made.life.until = std::time::Instant::now();
        let proof = std::mem::take(&mut made.proof);
        let Some(connection) = Shelf::apart(made) else {
            return Err(
                self.broken("it speaks HTTP/2, and only HTTP/1.1 becomes a tunnel".to_owned())
            );
        };
        let answer = exchange(self, connection, request, first_byte).await;
        let mut response = match answer {
            Ok(response) => response,
            Err(Failure::Unsent(_, why) | Failure::Broken(why)) => return Err(self.broken(why)),
            Err(Failure::Final(error)) => return Err(error),
        };
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            // It is there as soon as hyper has let go of it.
            let upgraded = tokio::time::timeout(first_byte, hyper::upgrade::on(&mut response));
            let upgraded = match upgraded.await {
                Ok(Ok(upgraded)) => upgraded,
                Ok(Err(error)) => return Err(self.broken(error.to_string())),
                Err(_) => return Err(self.broken("it did not become a tunnel".to_owned())),
            };
            let far = Far {
                stream: Box::new(TokioIo::new(upgraded)),
                proof,
                admit,
                driven,
            };
            Handover::put(response.extensions_mut(), far);
        }
        Ok(Attempt::Answered(response))
    }
}

/// The same TLS with other protocols above it.
fn offering(mut tls: Tls, protocols: &[&[u8]]) -> Tls {
    let mut config = (*tls.config).clone();
    config.alpn_protocols = protocols.iter().map(|it| it.to_vec()).collect();
    tls.config = Arc::new(config);
    tls
}
