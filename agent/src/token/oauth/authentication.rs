//! How a client proves who it is to a token endpoint.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use http::HeaderValue;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::sync::watch;
use warifu::{identity::Identity, tls};

use super::{
    assertion::{Key, RsaAlgorithm, assertion},
    form::{Form, basic},
};
use crate::{
    secrets::{self, Value},
    token::{Source, Token},
};

/// RFC 7523 §2.2.
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// draft-ietf-oauth-spiffe-client-auth.
const JWT_SPIFFE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe";

/// One way, and what it needs.
#[derive(Debug)]
pub enum Authentication {
    /// `client_secret_basic` (RFC 6749 §2.3.1).
    Basic {
        /// `client_id`.
        id: String,
        /// `client_secret`.
        secret: secrets::Source,
    },
    /// `client_secret_post` (RFC 6749 §2.3.1).
    Post {
        /// `client_id`.
        id: String,
        /// `client_secret`.
        secret: secrets::Source,
    },
    /// `private_key_jwt` (RFC 7523).
    PrivateKeyJwt {
        /// `client_id`.
        id: String,
        /// The authorization server's issuer identifier: the assertion's only audience.
        issuer: String,
        /// The private key, as PEM.
        key: secrets::Source,
        /// What the server calls the key; its RFC 7638 thumbprint where absent.
        kid: Option<String>,
        /// How it signs, if it is an RSA key.
        rsa: RsaAlgorithm,
    },
    /// `tls_client_auth` (RFC 8705 §2.1).
    TlsClientAuth {
        /// `client_id`; the SPIFFE ID where absent.
        id: Option<String>,
        /// What the TLS connection presents.
        certificate: Certificate,
    },
    /// A JWT-SVID as the assertion (draft-ietf-oauth-spiffe-client-auth).
    SpiffeJwt {
        /// `client_id`, where the server wants one.
        id: Option<String>,
        /// JWT-SVIDs whose only audience is the authorization server's issuer identifier.
        svids: Source,
    },
}

/// A client certificate.
pub enum Certificate {
    /// Our X.509-SVID, whichever is current.
    Svid(watch::Receiver<Option<Arc<Identity>>>),
    /// PEM files, read anew each time.
    Files {
        /// The chain, leaf first.
        certificate: PathBuf,
        /// The private key.
        key: PathBuf,
    },
}

/// What one request proves itself with.
#[derive(Debug, Clone, Copy)]
pub(super) enum Proof<'a> {
    /// The TLS connection does.
    Connection,
    /// A value of a secret: the client's, or its private key.
    Secret(&'a Value),
    /// A JWT-SVID.
    Svid(&'a Token),
}

impl Authentication {
    /// Puts the proof into `form`; what is returned belongs in `authorization`.
    ///
    /// # Errors
    /// Why there is no proof.
    pub(super) fn put(
        &self,
        form: &mut Form,
        proof: Proof<'_>,
        now: SystemTime,
    ) -> Result<Option<HeaderValue>, String> {
        match (self, proof) {
            (Self::Basic { id, .. }, Proof::Secret(secret)) => {
                let line = basic(id, secret.expose());
                return Ok(Some(
                    line.ok_or("the client's id or secret fits no header")?,
                ));
            }
            (Self::Post { id, .. }, Proof::Secret(secret)) => {
                form.put("client_id", id);
                form.put("client_secret", secret.expose());
            }
            (
                Self::PrivateKeyJwt {
                    id,
                    issuer,
                    kid,
                    rsa,
                    ..
                },
                Proof::Secret(pem),
            ) => {
                let key = Key::from_pem(pem.expose(), *rsa).map_err(|why| why.to_string())?;
                let made = assertion(&key, kid.as_deref(), id, issuer, now);
                let made = made.map_err(|why| why.to_string())?;
                form.put("client_id", id);
                form.put("client_assertion_type", JWT_BEARER);
                form.put("client_assertion", made.expose());
            }
            (Self::SpiffeJwt { id, .. }, Proof::Svid(svid)) => {
                if let Some(id) = id {
                    form.put("client_id", id);
                }
                form.put("client_assertion_type", JWT_SPIFFE);
                form.put("client_assertion", svid.expose());
            }
            (Self::TlsClientAuth { id, certificate }, Proof::Connection) => match id {
                Some(id) => form.put("client_id", id),
                None => form.put("client_id", &certificate.spiffe_id()?),
            },
            _ => return Err("this proof is not for this way of authenticating".to_owned()),
        }
        Ok(None)
    }

    /// What the connection presents.
    ///
    /// # Errors
    /// Why there is no certificate.
    pub(super) async fn certificate(&self) -> Result<Option<Arc<CertifiedKey>>, String> {
        match self {
            Self::TlsClientAuth { certificate, .. } => certificate.load().await.map(Some),
            _ => Ok(None),
        }
    }
}

impl Certificate {
    fn spiffe_id(&self) -> Result<String, String> {
        match self {
            Self::Svid(identity) => {
                let identity = identity.borrow();
                let identity = identity.as_ref().ok_or(NO_IDENTITY)?;
                Ok(identity.svid.id().to_string())
            }
            Self::Files { .. } => Err("a certificate of files needs a client id".to_owned()),
        }
    }

    async fn load(&self) -> Result<Arc<CertifiedKey>, String> {
        let (chain, key) = match self {
            Self::Svid(identity) => {
                let identity = identity.borrow().clone().ok_or(NO_IDENTITY)?;
                if identity.svid.not_after() <= SystemTime::now() {
                    return Err("this agent's X.509-SVID has expired".to_owned());
                }
                let key = PrivateKeyDer::Pkcs8(identity.svid.key().clone_key());
                (identity.svid.chain().to_vec(), key)
            }
            Self::Files { certificate, key } => {
                let (certificate, key) = (certificate.clone(), key.clone());
                let read = tokio::task::spawn_blocking(move || read(&certificate, &key)).await;
                read.map_err(|why| why.to_string())??
            }
        };
        let certified = CertifiedKey::from_der(chain, key, &tls::provider());
        let certified = certified.map_err(|why| format!("the client certificate: {why}"))?;
        Ok(Arc::new(certified))
    }
}

const NO_IDENTITY: &str = "this agent has no identity yet; `warifu status` says why";

type Pair = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn read(certificate: &Path, key: &Path) -> Result<Pair, String> {
    let file = |path: &Path, why: &dyn fmt::Display| {
        format!("reading {}: {why}; a PEM file is expected", path.display())
    };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(certificate)
        .map_err(|why| file(certificate, &why))?
        .collect();
    let chain = chain.map_err(|why| file(certificate, &why))?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(|why| file(key, &why))?;
    Ok((chain, key))
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Svid(_) => f.write_str("Svid"),
            Self::Files { certificate, .. } => write!(f, "Files({})", certificate.display()),
        }
    }
}
