//! Where audit lines go.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// A destination; writes whole batches of whole lines.
pub(super) enum Sink {
    Stdout,
    File {
        path: PathBuf,
        file: File,
    },
    #[cfg(test)]
    Test(TestWrite),
}

#[cfg(test)]
type TestWrite = Box<dyn FnMut(&[u8]) -> io::Result<()> + Send>;

impl Sink {
    pub(super) fn stdout() -> Self {
        Self::Stdout
    }

    pub(super) fn file(path: &Path) -> io::Result<Self> {
        Ok(Self::File {
            path: path.to_owned(),
            file: open(path)?,
        })
    }

    #[cfg(test)]
    pub(super) fn test(write: impl FnMut(&[u8]) -> io::Result<()> + Send + 'static) -> Self {
        Self::Test(Box::new(write))
    }

    pub(super) fn write(&mut self, batch: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(batch)?;
                stdout.flush()
            }
            Self::File { path, file } => {
                // One stat per batch: log rotation renames the file away, and expects a new one.
                if !is_still_at(path, file) {
                    *file = open(path)?;
                }
                file.write_all(batch)
            }
            #[cfg(test)]
            Self::Test(write) => write(batch),
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}

fn is_still_at(path: &Path, file: &File) -> bool {
    match (path.metadata(), file.metadata()) {
        (Ok(there), Ok(ours)) => (there.dev(), there.ino()) == (ours.dev(), ours.ino()),
        _ => false,
    }
}
