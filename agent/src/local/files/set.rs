//! Certificate, key and bundle in a directory, replaced as one.
//!
//! ```text
//! svid.pem ──────▶ ..svid.pem/svid.pem ──┐
//! svid-key.pem ──▶ ..svid.pem/svid-key.pem├──  ..svid.pem ──▶ ..0f3a…-svid.pem/   (a directory)
//! bundle.pem ────▶ ..svid.pem/bundle.pem ┘          └─ one rename replaces all three
//! ```
//!
//! The way of Kubernetes with its `..data`, and for its reason: renaming three files one after the other leaves a new
//! key beside an old certificate when the process dies, or the disk fails, between two renames, and for as long as it
//! takes to come back. Here there is one rename, of the link in the middle. PostgreSQL (`ssl_cert_file` …, and libpq's
//! `sslcert` …), nginx, and all that uses OpenSSL's or the standard library's file functions follow symbolic links; what
//! PostgreSQL asks of the key's owner and mode it asks of the file at the end of the links. What is left: a program that
//! opens the certificate before the rename and the key after it has a pair that does not match; it finds out when it
//! loads them, and the reload that follows the rename ends it.
//!
//! The directory may belong to the user the files are for, whom a privileged agent does not trust: everything happens
//! relative to open directories, nothing is opened through a link, and nothing that exists is written to.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
};

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, MemfdFlags, Mode, OFlags, Uid, fchmod, fchown, fstat, fsync,
    memfd_create, mkdirat, open, openat, readlinkat, renameat, statat, symlinkat, unlinkat,
};
use thiserror::Error;
use warifu::{
    Secret,
    identity::{TrustBundle, X509Svid},
};
use zeroize::Zeroizing;

use crate::config::local::{FileNames, Files};

/// Of the name of a set's directory: 64 random bits, in hex.
const RANDOM: usize = 16;

/// Where a set of files goes, and whose it is.
#[derive(Debug, Clone)]
pub struct Place {
    /// The directory; it exists.
    pub directory: PathBuf,
    /// What the files are called.
    pub names: FileNames,
    /// Who owns them; the process's user where absent.
    pub uid: Option<u32>,
    /// Their group, which may read the key; the process's, which may not, where absent.
    pub gid: Option<u32>,
}

/// What the files hold.
#[derive(Debug)]
pub struct Content {
    /// The chain, leaf first, PEM.
    pub certificate: String,
    /// PKCS#8, PEM.
    pub key: Secret<String>,
    /// The roots of the trust domain, PEM. Of no other: who reads one file believes each of its roots in everything.
    pub bundle: String,
}

/// Why the files are not as they should be. What was there before still is.
#[derive(Debug, Error)]
#[error("{doing} {path}: {source}")]
pub struct WriteError {
    doing: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl From<&Files> for Place {
    fn from(config: &Files) -> Self {
        Self {
            directory: config.directory.clone(),
            names: config.names.clone(),
            uid: config.uid,
            gid: config.gid,
        }
    }
}

impl Content {
    /// Of one of the identities' X.509-SVIDs.
    pub fn new(svid: &X509Svid, bundle: &TrustBundle) -> Self {
        Self {
            certificate: svid.chain_pem(),
            key: svid.key_pem(),
            bundle: bundle.x509_pem(),
        }
    }
}

/// One of the files.
struct Part<'a> {
    name: &'a str,
    bytes: &'a [u8],
    mode: Mode,
}

impl Place {
    /// Whether this process may give files to the owner and the group.
    ///
    /// # Errors
    /// When it may not.
    pub fn check_owner(&self) -> io::Result<()> {
        // On a file in memory: the directory may not be there yet.
        let file = memfd_create("warifu-owner", MemfdFlags::CLOEXEC)?;
        Ok(self.give(&file)?)
    }

    /// Replaces the files by `content`; says whether that changed anything.
    ///
    /// # Errors
    /// When it can't be done. What was there before stays whole.
    pub fn write(&self, content: &Content) -> Result<bool, WriteError> {
        let dir = self.open()?;
        let parts = self.parts(content);
        if self.is_current(&dir, &parts) {
            return Ok(false);
        }
        let mut random = [0; RANDOM / 2];
        let unlucky = |_| self.error("finding a name in", "")(io::ErrorKind::Other.into());
        aws_lc_rs::rand::fill(&mut random).map_err(unlucky)?;
        let set = format!(
            "..{:016x}-{}",
            u64::from_be_bytes(random),
            self.names.certificate
        );
        let done = self
            .fill(&dir, &set, &parts)
            .and_then(|()| self.publish(&dir, &set, &parts));
        if done.is_err() && self.published(&dir).as_deref() != Some(set.as_str()) {
            // What could not be removed is at the next write.
            let _ = remove_set(&dir, &set);
        }
        done.map(|()| true)
    }

    /// Removes what earlier writes have left: the set before this one, which a program may have been reading, and what
    /// a process that was killed began.
    ///
    /// # Errors
    /// When it can't be done.
    pub fn tidy(&self) -> Result<(), WriteError> {
        let dir = self.open()?;
        let failed =
            |why: rustix::io::Errno| self.error("removing what is left over in", "")(why.into());
        let current = self.published(&dir);
        let entries = Dir::read_from(&dir).map_err(failed)?;
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let Ok(name) = entry.file_name().to_str() else {
                continue;
            };
            if self.is_set(name) && Some(name) != current.as_deref() {
                remove_set(&dir, name).map_err(failed)?;
            }
        }
        Ok(())
    }

    fn open(&self) -> Result<OwnedFd, WriteError> {
        open(&self.directory, DIRECTORY, Mode::empty())
            .map_err(|why| self.error("opening the directory", "")(why.into()))
    }

    fn parts<'a>(&'a self, content: &'a Content) -> [Part<'a>; 3] {
        // What PostgreSQL and others accept of a key: its owner's alone, or readable for a group that was chosen.
        let key = if self.gid.is_some() { 0o640 } else { 0o600 };
        let part = |name: &'a str, text: &'a str, mode: u32| Part {
            name,
            bytes: text.as_bytes(),
            mode: Mode::from_raw_mode(mode),
        };
        [
            part(&self.names.certificate, &content.certificate, 0o644),
            part(&self.names.key, content.key.expose(), key),
            part(&self.names.bundle, &content.bundle, 0o644),
        ]
    }

    /// The link in the middle. Two sets in one directory have certificates of different names.
    fn link(&self) -> String {
        format!("..{}", self.names.certificate)
    }

    /// Whether `name` is that of a directory of ours.
    fn is_set(&self, name: &str) -> bool {
        let random = name
            .strip_prefix("..")
            .and_then(|rest| rest.split_at_checked(RANDOM));
        random.is_some_and(|(random, rest)| {
            random.bytes().all(|byte| byte.is_ascii_hexdigit())
                && rest.strip_prefix('-') == Some(self.names.certificate.as_str())
        })
    }

    /// The directory of the set in use.
    fn published(&self, dir: &OwnedFd) -> Option<String> {
        let target = readlinkat(dir, self.link(), Vec::new()).ok()?;
        target.into_string().ok()
    }

    /// Whether everything is as it should be already.
    fn is_current(&self, dir: &OwnedFd, parts: &[Part<'_>]) -> bool {
        let Some(set) = self.published(dir).filter(|set| self.is_set(set)) else {
            return false;
        };
        let Ok(set) = openat(dir, set, DIRECTORY | OFlags::NOFOLLOW, Mode::empty()) else {
            return false;
        };
        parts.iter().all(|part| {
            let link = readlinkat(dir, part.name, Vec::new()).ok();
            let leads_here = link.is_some_and(|to| to.as_bytes() == self.target(part).as_bytes());
            leads_here && self.is_as_it_should_be(&set, part).unwrap_or(false)
        })
    }

    fn is_as_it_should_be(&self, set: &OwnedFd, part: &Part<'_>) -> io::Result<bool> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = openat(set, part.name, flags, Mode::empty())?;
        let stat = fstat(&file)?;
        let is_ours = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
            && Mode::from_raw_mode(stat.st_mode) == part.mode
            && self.uid.is_none_or(|uid| uid == stat.st_uid)
            && self.gid.is_none_or(|gid| gid == stat.st_gid);
        if !is_ours || u64::try_from(stat.st_size).ok() != u64::try_from(part.bytes.len()).ok() {
            return Ok(false);
        }
        let mut bytes = Zeroizing::new(vec![0; part.bytes.len()]);
        File::from(file).read_exact(&mut bytes)?;
        Ok(bytes.as_slice() == part.bytes)
    }

    /// Makes the directory `set` with all three in it, on the disk.
    fn fill(&self, dir: &OwnedFd, set: &str, parts: &[Part<'_>]) -> Result<(), WriteError> {
        let failed = |why: rustix::io::Errno| self.error("making the directory", set)(why.into());
        // Ours alone until it is complete.
        mkdirat(dir, set, Mode::RWXU).map_err(failed)?;
        let made = openat(dir, set, DIRECTORY | OFlags::NOFOLLOW, Mode::empty()).map_err(failed)?;
        // Whoever owns the directory above could have put another in its place.
        let stat = fstat(&made).map_err(failed)?;
        if stat.st_uid != rustix::process::geteuid().as_raw() {
            return Err(failed(rustix::io::Errno::PERM));
        }
        for part in parts {
            self.fill_part(&made, part)
                .map_err(self.error("writing", part.name))?;
        }
        fchmod(&made, Mode::from_raw_mode(0o755)).map_err(failed)?;
        fsync(&made).map_err(failed)
    }

    fn fill_part(&self, set: &OwnedFd, part: &Part<'_>) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        // Owner, then mode: the key is never open to anybody whom it is not for.
        let file = openat(set, part.name, flags, Mode::RUSR | Mode::WUSR)?;
        let mut file = File::from(file);
        file.write_all(part.bytes)?;
        self.give(&file)?;
        fchmod(&file, part.mode)?;
        file.sync_all()
    }

    fn give(&self, file: impl AsFd) -> rustix::io::Result<()> {
        if self.uid.is_none() && self.gid.is_none() {
            return Ok(());
        }
        let (uid, gid) = (self.uid.map(Uid::from_raw), self.gid.map(Gid::from_raw));
        fchown(file, uid, gid)
    }

    /// Puts `set` in the place of the one before, and the names where they are missing.
    fn publish(&self, dir: &OwnedFd, set: &str, parts: &[Part<'_>]) -> Result<(), WriteError> {
        self.point(dir, &self.link(), set)?;
        for part in parts {
            let target = self.target(part);
            let is = readlinkat(dir, part.name, Vec::new()).ok();
            if is.is_none_or(|is| is.as_bytes() != target.as_bytes()) {
                self.point(dir, part.name, &target)?;
            }
        }
        fsync(dir).map_err(|why| self.error("syncing", "")(why.into()))
    }

    fn target(&self, part: &Part<'_>) -> String {
        format!("{}/{}", self.link(), part.name)
    }

    /// Makes `name` a link to `target`, in place of what it was.
    fn point(&self, dir: &OwnedFd, name: &str, target: &str) -> Result<(), WriteError> {
        // No name of a file or of a link begins so.
        let temporary = format!("...{name}");
        let failed = |why: rustix::io::Errno| self.error("replacing", name)(why.into());
        match unlinkat(dir, &temporary, AtFlags::empty()) {
            Err(why) if why != rustix::io::Errno::NOENT => return Err(failed(why)),
            _ => {}
        }
        symlinkat(target, dir, &temporary).map_err(failed)?;
        renameat(dir, &temporary, dir, name).map_err(failed)
    }

    fn error(&self, doing: &'static str, name: &str) -> impl FnOnce(io::Error) -> WriteError {
        let path = match name {
            "" => self.directory.clone(),
            name => self.directory.join(name),
        };
        move |source| WriteError {
            doing,
            path,
            source,
        }
    }
}

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

/// Removes a directory of ours and the files in it. It holds no directories.
fn remove_set(dir: &OwnedFd, name: &str) -> rustix::io::Result<()> {
    let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return unlinkat(dir, name, AtFlags::empty());
    }
    let set = openat(dir, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
    for entry in Dir::read_from(&set)? {
        let entry = entry?;
        let file = entry.file_name();
        if !matches!(file.to_bytes(), b"." | b"..") {
            unlinkat(&set, file, AtFlags::empty())?;
        }
    }
    unlinkat(dir, name, AtFlags::REMOVEDIR)
}

#[cfg(test)]
mod tests;
