//! Whom a request goes to, and a connection there: plaintext only where that was allowed (S19).

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use http::{HeaderValue, Uri};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore, client::Resumption};
use rustls_pki_types::ServerName;
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream, lookup_host},
};
use tokio_rustls::TlsConnector;

/// Scheme, host and port of a URL.
#[derive(Debug, Clone)]
pub struct Origin {
    tls: bool,
    host: String,
    port: u16,
    host_header: HeaderValue,
    server_name: ServerName<'static>,
}

/// A connection, encrypted or not.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {
    /// Has its end, when this is dropped, not be taken for one: there was more to come. TCP says so with a reset. A unix
    /// socket has no way to; over HTTP there is none that is ours.
    fn cut(&mut self) {}
}

impl Stream for TcpStream {
    fn cut(&mut self) {
        // Refused only by a connection that is gone.
        let _ = self.set_zero_linger();
    }
}

impl Stream for UnixStream {}

impl<S: Stream> Stream for tokio_rustls::client::TlsStream<S> {
    fn cut(&mut self) {
        self.get_mut().0.cut();
    }
}

impl<S: Stream> Stream for tokio_rustls::server::TlsStream<S> {
    fn cut(&mut self) {
        self.get_mut().0.cut();
    }
}

impl<T> Stream for TokioIo<T> where Self: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: Stream + ?Sized> Stream for Box<S> {
    fn cut(&mut self) {
        (**self).cut();
    }
}

#[cfg(test)]
impl Stream for tokio::io::DuplexStream {}

/// Why there is no connection.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The name resolves to an address that plaintext may not be spoken to.
    #[error("plaintext to {to} is refused: its address is {address}")]
    Plaintext {
        /// The origin.
        to: String,
        /// The address.
        address: IpAddr,
    },
    /// Looking the name up, connecting, or the TLS handshake failed.
    #[error("connecting to {to}: {why}")]
    Failed {
        /// The origin.
        to: String,
        /// What failed.
        why: io::Error,
    },
}

impl Origin {
    /// `None`: no host, a scheme that is neither `http` nor `https`, or a user in the URL.
    pub fn of(uri: &Uri) -> Option<Self> {
        let tls = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let authority = uri.authority()?.as_str();
        if authority.contains('@') {
            return None;
        }
        let host = uri
            .host()?
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let default_port = if tls { 443 } else { 80 };
        let port = uri.port_u16().unwrap_or(default_port);
        // A default port is left out, as the AWS SDK left it out when it signed.
        let host_header = if port == default_port {
            uri.host()?
        } else {
            authority
        };
        Some(Self {
            tls,
            port,
            host_header: HeaderValue::from_str(host_header).ok()?,
            server_name: ServerName::try_from(host.clone()).ok()?,
            host,
        })
    }

    /// For a `Host` header.
    pub fn host_header(&self) -> &HeaderValue {
        &self.host_header
    }

    /// `https://host[:port]`.
    pub fn name(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!(
            "{scheme}://{}",
            self.host_header.to_str().unwrap_or_default()
        )
    }

    /// Connects, with TLS where the scheme is `https`. Sets itself no time-out.
    ///
    /// # Errors
    /// [`ConnectError`]; plaintext goes to addresses that `may_be_plaintext` only.
    pub async fn connect(
        &self,
        tls: &Arc<ClientConfig>,
        may_be_plaintext: fn(IpAddr) -> bool,
    ) -> Result<Box<dyn Stream>, ConnectError> {
        let addresses: Vec<SocketAddr> = lookup_host((self.host.as_str(), self.port))
            .await
            .map_err(|why| self.failed(why))?
            .collect();
        // What is checked is what is connected to: the name is not resolved again.
        let strange = addresses.iter().find(|it| !may_be_plaintext(it.ip()));
        if let (false, Some(address)) = (self.tls, strange) {
            return Err(ConnectError::Plaintext {
                to: self.name(),
                address: address.ip(),
            });
        }
        let tcp = TcpStream::connect(addresses.as_slice())
            .await
            .map_err(|why| self.failed(why))?;
        let _ = tcp.set_nodelay(true);
        if !self.tls {
            return Ok(Box::new(tcp));
        }
        let tls = TlsConnector::from(Arc::clone(tls))
            .connect(self.server_name.clone(), tcp)
            .await
            .map_err(|why| self.failed(why))?;
        Ok(Box::new(tls))
    }

    fn failed(&self, why: io::Error) -> ConnectError {
        ConnectError::Failed {
            to: self.name(),
            why,
        }
    }
}

/// TLS 1.2 and 1.3 for HTTP/1.1 to whoever has a certificate under `roots`.
///
/// # Errors
/// When the provider supports no TLS version.
pub fn https_client(roots: RootCertStore) -> Result<ClientConfig, rustls::Error> {
    let tls = ClientConfig::builder_with_provider(warifu::tls::provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(for_http1(tls))
}

/// This configuration for HTTP/1.1 and connections of one request.
pub fn for_http1(mut tls: ClientConfig) -> ClientConfig {
    tls.resumption = Resumption::disabled();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    tls
}

/// The public roots, compiled in: the image has none.
pub fn web_pki() -> RootCertStore {
    webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(url: &'static str) -> Option<Origin> {
        Origin::of(&Uri::from_static(url))
    }

    #[test]
    fn leaves_a_default_port_out_of_the_host_header_and_keeps_another() {
        let host = |url| {
            let origin = origin(url).unwrap();
            (origin.host_header.to_str().unwrap().to_owned(), origin.port)
        };
        assert_eq!(
            host("https://sts.eu-west-1.amazonaws.com:443/"),
            ("sts.eu-west-1.amazonaws.com".to_owned(), 443)
        );
        assert_eq!(
            host("http://127.0.0.1:8000/x"),
            ("127.0.0.1:8000".to_owned(), 8000)
        );
        assert_eq!(
            host("http://[fd00:ec2::23]/v1"),
            ("[fd00:ec2::23]".to_owned(), 80)
        );
    }

    #[test]
    fn refuses_other_schemes_and_users() {
        assert!(origin("ftp://x/").is_none());
        assert!(origin("/path").is_none());
        assert!(origin("https://user@host/").is_none());
        assert!(origin("https://user:word@host/").is_none());
    }

    #[tokio::test]
    async fn s19_plaintext_goes_to_allowed_addresses_only() {
        let tls = Arc::new(https_client(web_pki()).unwrap());
        let origin = origin("http://127.0.0.1:9/").unwrap();
        let Err(error) = origin.connect(&tls, |_| false).await else {
            panic!("connected")
        };
        assert_eq!(
            error.to_string(),
            "plaintext to http://127.0.0.1:9 is refused: its address is 127.0.0.1"
        );
    }
}
