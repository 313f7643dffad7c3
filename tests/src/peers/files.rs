//! An identity as files, for peers that know no other way.

use std::{fs, io::Write, os::unix::fs::OpenOptionsExt, path::Path};

use warifu::identity::Identity;

/// Writes `svid.pem`, `key.pem` (0600), `bundle.pem` and `bundle.json` of `identity` into `dir`, which is
/// made if need be.
///
/// # Errors
/// When the system can't.
pub fn write_identity(dir: &Path, identity: &Identity) -> std::io::Result<()> {
    let Identity { svid, bundle, .. } = identity;
    write_pem(
        dir,
        &svid.chain_pem(),
        svid.key_pem().expose(),
        &bundle.x509_pem(),
    )?;
    fs::write(dir.join("bundle.json"), bundle.to_json())
}

/// Writes `svid.pem`, `key.pem` (0600) and `bundle.pem`, whatever they are.
///
/// # Errors
/// When the system can't.
pub fn write_pem(dir: &Path, chain: &str, key: &str, roots: &str) -> std::io::Result<()> {
    fs::create_dir_all(dir)?;
    fs::write(dir.join("svid.pem"), chain)?;
    fs::write(dir.join("bundle.pem"), roots)?;
    let private = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(dir.join("key.pem"));
    private?.write_all(key.as_bytes())
}
