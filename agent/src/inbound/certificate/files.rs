//! Certificates for callers from outside the mesh: from files, by the name that is asked for.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use arc_swap::ArcSwap;
use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use crate::{
    config::inbound::CertificateFiles,
    http::tls_files::{Certified, RELOAD, TlsFilesError},
};

/// The certificates of a listener, as they were when they were last good.
#[derive(Debug)]
pub(in crate::inbound) struct Files {
    files: Vec<CertificateFiles>,
    current: ArcSwap<ByName>,
    generation: AtomicU64,
}

/// Certificates by name.
#[derive(Debug)]
struct ByName {
    all: Vec<Arc<Certified>>,
    exact: HashMap<String, usize>,
    /// By what comes after `*.`.
    wildcards: HashMap<String, usize>,
}

impl Files {
    pub(super) fn load(files: &[CertificateFiles]) -> Result<Self, TlsFilesError> {
        Ok(Self {
            current: ArcSwap::from_pointee(ByName::new(read(files, &[])?)),
            files: files.to_vec(),
            generation: AtomicU64::new(0),
        })
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// When the first of those that are good at `now` expires; `None` where none is good.
    pub(super) fn expires(&self, now: SystemTime) -> Option<SystemTime> {
        let current = self.current.load();
        let ends = current.all.iter().map(|it| it.not_after);
        ends.filter(|at| *at > now).min()
    }

    pub(super) fn resolver(&self) -> Arc<dyn ResolvesServerCert> {
        Arc::new(Resolver(self.current.load_full()))
    }

    /// When the first of all expires, good or not.
    pub(in crate::inbound) fn not_after(&self) -> Option<SystemTime> {
        self.current.load().all.iter().map(|it| it.not_after).min()
    }

    /// Reads the files as long as the listener serves: connections that are up keep what they have. A failure is
    /// logged when it begins and when it changes.
    pub(in crate::inbound) async fn keep_reading(self: Arc<Self>, look: impl Fn(&Self)) {
        let mut trouble = None;
        loop {
            look(&self);
            tokio::time::sleep(RELOAD).await;
            let files = Arc::clone(&self);
            let read = tokio::task::spawn_blocking(move || files.reload()).await;
            let why = match read {
                Ok(Ok(true)) => {
                    tracing::info!("a listener has new certificates");
                    None
                }
                Ok(Ok(false)) => {
                    let expired = self.not_after().is_some_and(|at| at <= SystemTime::now());
                    expired.then(|| {
                        "one has expired and is not presented any more; renew it".to_owned()
                    })
                }
                Ok(Err(why)) => Some(why.to_string()),
                Err(why) => Some(why.to_string()),
            };
            if let Some(why) = &why
                && trouble.as_ref() != Some(why)
            {
                tracing::error!(%why, "the certificates of a listener; the last good ones stay in use");
            }
            trouble = why;
        }
    }

    /// Whether there is something new. What is there stays in use if the files are no good, or half written.
    fn reload(&self) -> Result<bool, TlsFilesError> {
        let known = self.current.load_full();
        let now = read(&self.files, &known.all)?;
        let is_same = |(one, other): (&Arc<Certified>, &Arc<Certified>)| Arc::ptr_eq(one, other);
        if now.iter().zip(&known.all).all(is_same) {
            return Ok(false);
        }
        self.current.store(Arc::new(ByName::new(now)));
        self.generation.fetch_add(1, Ordering::AcqRel);
        Ok(true)
    }
}

/// All of them; those whose files did not change are the ones that are `known`.
fn read(
    files: &[CertificateFiles],
    known: &[Arc<Certified>],
) -> Result<Vec<Arc<Certified>>, TlsFilesError> {
    let one = |(index, files): (usize, &CertificateFiles)| {
        let known = known.get(index);
        let (certificate, key) = (&files.certificate_file, &files.key_file);
        let read = Certified::read(certificate, key, known.map(|it| it.content))?;
        match (read, known) {
            (Some(read), _) => Ok(Arc::new(read)),
            (None, Some(known)) => Ok(Arc::clone(known)),
            (None, None) => Err(TlsFilesError::Certificate {
                path: certificate.clone(),
                why: "nothing in it".to_owned(),
            }),
        }
    };
    files.iter().enumerate().map(one).collect()
}

impl ByName {
    fn new(all: Vec<Arc<Certified>>) -> Self {
        let (mut exact, mut wildcards) = (HashMap::new(), HashMap::new());
        for (index, certified) in all.iter().enumerate() {
            for name in &certified.names {
                // Of two that have a name, the first listed presents it.
                match name.strip_prefix("*.") {
                    Some(rest) => wildcards.entry(rest.to_owned()).or_insert(index),
                    None => exact.entry(name.clone()).or_insert(index),
                };
            }
        }
        Self {
            all,
            exact,
            wildcards,
        }
    }

    /// The certificate for `name`, else the first.
    fn find(&self, name: Option<&str>) -> Option<&Arc<Certified>> {
        let index = name.and_then(|name| {
            let exact = self.exact.get(name);
            // One label and no more (RFC 9525 §6.3).
            let wildcard = || self.wildcards.get(name.split_once('.')?.1);
            exact.or_else(wildcard)
        });
        self.all.get(index.copied().unwrap_or(0))
    }
}

/// The certificates of one configuration.
#[derive(Debug)]
struct Resolver(Arc<ByName>);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // rustls has it in lower case.
        let certified = self.0.find(hello.server_name())?;
        (certified.not_after > SystemTime::now()).then(|| Arc::clone(&certified.key))
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt, path::Path};

    use rcgen::generate_simple_self_signed;

    use super::*;

    fn write(dir: &Path, file: &str, names: &[&str]) -> CertificateFiles {
        let names: Vec<String> = names.iter().map(|it| (*it).to_owned()).collect();
        let made = generate_simple_self_signed(names).unwrap();
        let files = CertificateFiles {
            certificate_file: dir.join(format!("{file}.pem")),
            key_file: dir.join(format!("{file}.key")),
        };
        fs::write(&files.certificate_file, made.cert.pem()).unwrap();
        fs::write(&files.key_file, made.signing_key.serialize_pem()).unwrap();
        fs::set_permissions(&files.key_file, fs::Permissions::from_mode(0o600)).unwrap();
        files
    }

    #[test]
    fn a_certificate_is_chosen_by_its_name_a_wildcard_stands_for_one_label_and_the_first_for_the_rest()
     {
        let dir = tempfile::tempdir().unwrap();
        let files = [
            write(dir.path(), "a", &["first.example"]),
            write(dir.path(), "b", &["*.shop.example", "shop.example"]),
            write(dir.path(), "c", &["pay.shop.example", "first.example"]),
        ];
        let files = Files::load(&files).unwrap();
        let current = files.current.load();
        let found = |name| {
            let found = current.find(name).unwrap();
            current
                .all
                .iter()
                .position(|it| Arc::ptr_eq(it, found))
                .unwrap()
        };
        for (name, expected) in [
            (Some("first.example"), 0),
            (Some("shop.example"), 1),
            (Some("a.shop.example"), 1),
            (Some("pay.shop.example"), 2),
            (Some("a.b.shop.example"), 0),
            (Some("example"), 0),
            (Some("else.where"), 0),
            (None, 0),
        ] {
            assert_eq!(found(name), expected, "{name:?}");
        }
    }

    #[test]
    fn changed_files_are_followed_and_bad_ones_change_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let listed = [
            write(dir.path(), "a", &["a.example"]),
            write(dir.path(), "b", &["b.example"]),
        ];
        let files = Files::load(&listed).unwrap();
        assert!(!files.reload().unwrap());
        write(dir.path(), "b", &["c.example"]);
        assert!(files.reload().unwrap());
        assert_eq!(files.generation(), 1);
        assert!(files.current.load().exact.contains_key("c.example"));
        // Another's key.
        let other = write(dir.path(), "other", &["x.example"]);
        fs::copy(&other.key_file, &listed[1].key_file).unwrap();
        assert!(files.reload().unwrap_err().to_string().contains("b.key"));
        // Open to others (S12).
        write(dir.path(), "b", &["d.example"]);
        fs::set_permissions(&listed[1].key_file, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(
            files
                .reload()
                .unwrap_err()
                .to_string()
                .contains("chmod 600")
        );
        assert!(files.current.load().exact.contains_key("c.example"));
        assert_eq!(files.generation(), 1);
    }
}
