//! A small HTTP server on loopback, with TLS where asked, that stand-ins answer through.

use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::Arc,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use rustls::{ServerConfig, crypto::aws_lc_rs::default_provider};
use rustls_pki_types::PrivateKeyDer;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    task::{AbortHandle, JoinSet},
};
use tokio_rustls::TlsAcceptor;

/// What a stand-in makes of a request.
pub(crate) type Answer = Pin<Box<dyn Future<Output = Response<Bytes>> + Send>>;

/// A server. Cut when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    address: SocketAddr,
    ca_pem: Option<String>,
    serving: AbortHandle,
}

impl Server {
    /// Over plain HTTP.
    pub(crate) async fn plain(
        answer: impl Fn(Request<Bytes>) -> Answer + Send + Sync + 'static,
    ) -> Self {
        Self::start(None, answer).await
    }

    /// Over TLS, by a CA of its own.
    pub(crate) async fn tls(
        answer: impl Fn(Request<Bytes>) -> Answer + Send + Sync + 'static,
    ) -> Self {
        Self::start(Some(certificate()), answer).await
    }

    /// `http://127.0.0.1:PORT`, or `https`.
    pub(crate) fn url(&self) -> String {
        let scheme = if self.ca_pem.is_some() {
            "https"
        } else {
            "http"
        };
        format!("{scheme}://{}", self.address)
    }

    /// The CA that signed its certificate.
    pub(crate) fn ca_pem(&self) -> Option<&str> {
        self.ca_pem.as_deref()
    }

    async fn start(
        tls: Option<(TlsAcceptor, String)>,
        answer: impl Fn(Request<Bytes>) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (acceptor, ca_pem) = tls.unzip();
        let answer = Arc::new(answer);
        let serving = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, answer) = (acceptor.clone(), Arc::clone(&answer));
                connections.spawn(async move {
                    match acceptor {
                        None => serve(stream, answer).await,
                        Some(acceptor) => {
                            if let Ok(stream) = acceptor.accept(stream).await {
                                serve(stream, answer).await;
                            }
                        }
                    }
                });
            }
        });
        Self {
            address,
            ca_pem,
            serving: serving.abort_handle(),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve<S, F>(stream: S, answer: Arc<F>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn(Request<Bytes>) -> Answer + Send + Sync + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = Arc::clone(&answer);
        async move {
            let (head, body) = request.into_parts();
            let body = match body.collect().await {
                Ok(body) => body.to_bytes(),
                Err(_) => Bytes::new(),
            };
            let answer = answer(Request::from_parts(head, body)).await;
            Ok::<_, Infallible>(answer.map(Full::new))
        }
    });
    // Who goes away in the middle is none of the stand-in's business.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// A certificate for 127.0.0.1, and the PEM of its CA.
fn certificate() -> (TlsAcceptor, String) {
    let mut ca = CertificateParams::new([]).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_key = KeyPair::generate().unwrap();
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let ca = Issuer::new(ca, ca_key);
    let key = KeyPair::generate().unwrap();
    let mut leaf = CertificateParams::new([]).unwrap();
    leaf.subject_alt_names = vec![SanType::IpAddress(Ipv4Addr::LOCALHOST.into())];
    let leaf = leaf.signed_by(&key, &ca).unwrap();
    let config = ServerConfig::builder_with_provider(default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf.der().clone()],
            PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        )
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), ca_pem)
}
