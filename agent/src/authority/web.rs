//! The listener for the world: documents, and nothing that a request could change.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{ALLOW, CONTENT_TYPE},
};
use hyper::body::Incoming;
use tokio::task::{JoinHandle, spawn_blocking};

use super::{StartError, issue::Issuing, metrics::Metrics};
use crate::{
    config::{authority, value::Listen},
    http::{
        body::Body,
        server::{
            self, Connection, Draining, Limits, Listener, ListenerMetrics, Opened, Refused,
            Security, Service, Tls,
        },
        tls_files::RELOAD,
    },
};

mod certificate;

pub use certificate::CertificateError;
use certificate::Certificates;

/// Time a connection may be idle: pollers come back in minutes.
const IDLE: Duration = Duration::from_secs(30);

/// Age at which a connection is closed, so that nobody keeps a place with pings.
const MAX_AGE: Duration = Duration::from_secs(60);

/// The listener, bound, with its certificate at hand.
#[derive(Debug)]
pub(super) struct Bound {
    listener: Listener,
    serving: Serving,
}

/// What is served, and where.
#[derive(Debug, Clone)]
pub(super) struct Serving {
    pub(super) address: SocketAddr,
    /// Plaintext where there is none.
    certificates: Option<Arc<Certificates>>,
}

/// Serves the pages of what issuing is live with.
#[derive(Debug)]
struct Web {
    issuing: Arc<Issuing>,
    certificates: Option<Arc<Certificates>>,
}

impl Bound {
    pub(super) fn new(config: &authority::Web) -> Result<Self, StartError> {
        let listener = Listener::bind(&Listen::Tcp(config.listen));
        let listener = listener.map_err(|why| why.at("web.listen"))?;
        let address = match listener.address() {
            Listen::Tcp(address) => *address,
            Listen::Unix(_) => config.listen,
        };
        let certificates = match &config.tls {
            Some(files) => Some(Arc::new(Certificates::load(files)?)),
            None => None,
        };
        Ok(Self {
            listener,
            serving: Serving {
                address,
                certificates,
            },
        })
    }

    pub(super) fn serving(&self) -> Serving {
        self.serving.clone()
    }

    pub(super) fn serve(
        self,
        issuing: Arc<Issuing>,
        metrics: ListenerMetrics,
        draining: Draining,
    ) -> JoinHandle<usize> {
        let limits = Limits {
            idle: IDLE,
            max_age: Some(MAX_AGE),
            ..Limits::default()
        };
        let web = Web {
            issuing,
            certificates: self.serving.certificates,
        };
        let serving = server::serve(self.listener, Arc::new(web), limits, metrics, draining);
        tokio::spawn(serving)
    }
}

impl Serving {
    pub(super) fn reload(&self) -> Result<bool, CertificateError> {
        let certificates = self.certificates.as_ref();
        certificates.map_or(Ok(false), |certificates| certificates.reload())
    }

    /// Reads the files as long as the authority runs. A failure is logged when it begins and when it
    /// changes.
    pub(super) async fn keep_reading(self, metrics: Metrics) {
        let Some(certificates) = &self.certificates else {
            return;
        };
        let mut trouble = None;
        loop {
            let not_after = certificates.current().not_after;
            metrics.web_certificate(not_after);
            tokio::time::sleep(RELOAD).await;
            let web = self.clone();
            let why = match spawn_blocking(move || web.reload()).await {
                Ok(Ok(true)) => {
                    tracing::info!("the web listener has a new certificate");
                    None
                }
                Ok(Ok(false)) if not_after <= SystemTime::now() => {
                    Some("it has expired; renew it".to_owned())
                }
                Ok(Ok(false)) => None,
                Ok(Err(why)) => Some(why.to_string()),
                Err(why) => Some(why.to_string()),
            };
            if let Some(why) = &why
                && trouble.as_ref() != Some(why)
            {
                tracing::error!(%why, "the web listener's certificate; the last good one stays in use");
            }
            trouble = why;
        }
    }
}

impl Service for Web {
    type Session = Arc<Issuing>;

    fn security(&self) -> Security {
        let Some(certificates) = &self.certificates else {
            return Security::Plaintext;
        };
        let current = certificates.current();
        Security::Tls(Tls {
            config: Arc::clone(&current.config),
            expires: Some(current.not_after),
        })
    }

    fn open(&self, _: Connection) -> Result<Opened<Arc<Issuing>>, Refused> {
        Ok(Opened {
            session: Arc::new(Arc::clone(&self.issuing)),
            expires: None,
        })
    }

    async fn call(issuing: Arc<Arc<Issuing>>, request: Request<Incoming>) -> Response<Body> {
        let live = issuing.live.load();
        match live.pages.get(request.uri().path()) {
            None => text(StatusCode::NOT_FOUND, "there is no such document here\n"),
            Some(page) if [Method::GET, Method::HEAD].contains(request.method()) => {
                page.answer(request.headers())
            }
            Some(_) => {
                let mut response =
                    text(StatusCode::METHOD_NOT_ALLOWED, "documents are read only\n");
                let headers = response.headers_mut();
                headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
                response
            }
        }
    }
}

fn text(status: StatusCode, message: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(bytes::Bytes::from_static(message.as_bytes())));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response
}
