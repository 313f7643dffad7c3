//! hyper and rustls joined with nothing between: no rules, no identity headers, no log, a backend
//! connection for each caller's connection. What the libraries cost, and so the floor for any
//! proxy made of them. This program starts itself again to be it.

use std::{net::SocketAddr, path::Path, process::Command, sync::Arc};

use hyper::{Request, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    server::{NoServerSessionStorage, WebPkiClientVerifier},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Mutex,
};
use tokio_rustls::TlsAcceptor;

use super::{Place, Start};
use crate::Result;

/// The argument that makes this program the bare proxy.
pub(crate) const ARGUMENT: &str = "--internal-bare-proxy";

/// This program again.
pub(super) fn start(place: Place<'_>) -> Result<Start> {
    let mut command = Command::new(place.program);
    command
        .arg(ARGUMENT)
        .arg(place.listen.to_string())
        .arg(place.backend.to_string())
        .arg(place.directory);
    Ok(Start { command, log: None })
}

/// Serves until it is killed.
pub(crate) fn run(listen: &str, backend: &str, directory: &str) -> Result<()> {
    let backend: SocketAddr = backend.parse()?;
    let acceptor: TlsAcceptor = Arc::new(tls(Path::new(directory))?).into();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(listen).await?;
        loop {
            let (connection, _) = listener.accept().await?;
            let acceptor = acceptor.clone();
            // A caller that breaks off ends this task; the floor keeps no account of it.
            tokio::spawn(async move { serve(connection, acceptor, backend).await.ok() });
        }
    })
}

fn tls(directory: &Path) -> Result<ServerConfig> {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(directory.join("root.pem"))? {
        roots.add(root?)?;
    }
    let chain = CertificateDer::pem_file_iter(directory.join("server.pem"))?
        .collect::<std::result::Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(directory.join("server.key"))?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build()?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

async fn serve(connection: TcpStream, acceptor: TlsAcceptor, backend: SocketAddr) -> Result<()> {
    connection.set_nodelay(true)?;
    let connection = acceptor.accept(connection).await?;
    let upstream = TcpStream::connect(backend).await?;
    upstream.set_nodelay(true)?;
    let (sender, driver) = hyper::client::conn::http1::handshake(TokioIo::new(upstream)).await?;
    tokio::spawn(driver);
    // One request at a time arrives on an HTTP/1.1 connection, so nobody ever waits for this lock.
    let sender = Arc::new(Mutex::new(sender));
    let forward = service_fn(move |request: Request<Incoming>| {
        let sender = Arc::clone(&sender);
        async move { sender.lock().await.send_request(request).await }
    });
    hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(connection), forward)
        .await?;
    Ok(())
}
