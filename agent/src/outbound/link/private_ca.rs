//! Upstreams that are verified by CA certificates in a file, which is read again when it changes.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};

use super::{Destination, Keep, Pool, Tls, Upstream, trusting};

/// How often the file is looked at while requests come: its old certificates remain good for at least a minute in
/// any rotation that works at all.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// A file of CA certificates larger than this holds something else: all public roots together have half of it.
const MAX_BYTES: u64 = 512 * 1024;

#[derive(Debug)]
pub(in crate::outbound) struct PrivateCa {
    path: PathBuf,
    server_name: ServerName<'static>,
    upstream: Upstream,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    looked: Instant,
    /// What the file was when it was last read, good or not: said once.
    content: Vec<u8>,
    generation: u64,
}

impl PrivateCa {
    pub(super) fn new(
        path: &Path,
        server_name: ServerName<'static>,
        destination: Destination,
        keep: Keep,
        pool: &Pool,
    ) -> Result<Self, String> {
        let content = read(path)?;
        let generation = 1;
        let tls = tls(path, &content, &server_name, generation)?;
        let destination = Destination {
            tls: Some(tls),
            ..destination
        };
        Ok(Self {
            path: path.to_owned(),
            server_name,
            upstream: pool.upstream(destination, keep),
            known: Mutex::new(Known {
                looked: Instant::now(),
                content,
                generation,
            }),
        })
    }

    /// The upstream, verified by what the file says now; by what it said last where that can't be used.
    pub(super) fn upstream(&self, now: Instant) -> Upstream {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(known.looked) >= LOOK_EVERY {
            known.looked = now;
            if let Err(why) = self.follow(&mut known) {
                tracing::error!(%why, "the CA certificates in use stay; correct the file");
            }
        }
        self.upstream.clone()
    }

    fn follow(&self, known: &mut Known) -> Result<(), String> {
        let content = read(&self.path)?;
        if content == known.content {
            return Ok(());
        }
        known.content = content;
        let generation = known.generation + 1;
        let tls = tls(&self.path, &known.content, &self.server_name, generation)?;
        known.generation = generation;
        self.upstream.set_tls(tls);
        let path = self.path.display();
        tracing::info!(%path, "CA certificates of an upstream changed");
        Ok(())
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let size = fs::metadata(path).map_err(failed)?.len();
    if size > MAX_BYTES {
        let path = path.display();
        return Err(format!(
            "{path}: {size} bytes are too many for certificates"
        ));
    }
    fs::read(path).map_err(failed)
}

fn tls(
    path: &Path,
    content: &[u8],
    server_name: &ServerName<'static>,
    generation: u64,
) -> Result<Tls, String> {
    let failed = |why: String| format!("{}: {why}", path.display());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(content) {
        let certificate = certificate.map_err(|error| failed(format!("not PEM: {error}")))?;
        roots
            .add(certificate)
            .map_err(|error| failed(format!("a certificate that can't be used: {error}")))?;
    }
    if roots.is_empty() {
        return Err(failed("no certificate (PEM) in it".to_owned()));
    }
    Ok(Tls {
        config: trusting(roots).map_err(|error| failed(error.to_string()))?,
        server_name: server_name.clone(),
        generation,
        admit: None,
        expires: None,
    })
}

#[cfg(test)]
mod tests {
    use rcgen::generate_simple_self_signed;

    use super::*;
    use crate::http::pool::{Address, Pool};

    fn pem(name: &str) -> String {
        let made = generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        made.cert.pem()
    }

    fn generation(ca: &PrivateCa) -> u64 {
        ca.known.lock().unwrap().generation
    }

    #[test]
    fn a_changed_file_is_followed_and_a_bad_one_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.pem");
        fs::write(&path, pem("a")).unwrap();
        let address = Address::Name("api.internal".to_owned(), 443);
        let server_name = "api.internal".try_into().unwrap();
        let (destination, pool) = (Destination::new(address, None), Pool::new(1));
        let ca = PrivateCa::new(&path, server_name, destination, Keep::UPSTREAM, &pool).unwrap();
        let mut now = Instant::now();
        let mut look = |expected: u64| {
            now += LOOK_EVERY;
            ca.upstream(now);
            assert_eq!(generation(&ca), expected);
        };
        look(1);
        for wrong in [
            String::new(),
            "nonsense".to_owned(),
            "x".repeat(MAX_BYTES as usize + 1),
        ] {
            fs::write(&path, wrong).unwrap();
            look(1);
        }
        fs::remove_file(&path).unwrap();
        look(1);
        fs::write(&path, pem("b") + &pem("c")).unwrap();
        look(2);
        look(2);
    }
}
