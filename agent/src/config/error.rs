//! What is wrong with a configuration file, and where.

use std::fmt;

/// Everything that is wrong with one file; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors {
    /// The file, as it was named.
    pub file: String,
    /// In the order of the file.
    pub errors: Vec<ConfigError>,
}

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Where in the file; `None` when the file as a whole is meant.
    pub at: Option<Position>,
    /// The field: `outbound.routes[1].jwt`; empty for the whole file.
    pub field: String,
    /// What was expected, and what was found.
    pub what: String,
}

/// A place in a file; both count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line.
    pub line: u64,
    /// Column, in characters.
    pub column: u64,
}

impl ConfigErrors {
    pub(super) fn new(file: &str, mut errors: Vec<ConfigError>) -> Self {
        errors.sort_by_key(|error| error.at);
        Self {
            file: file.to_owned(),
            errors,
        }
    }

    pub(super) fn whole_file(file: &str, what: String) -> Self {
        let field = String::new();
        Self::new(
            file,
            vec![ConfigError {
                at: None,
                field,
                what,
            }],
        )
    }
}

impl std::error::Error for ConfigErrors {}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.errors.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}", self.file)?;
            if let Some(at) = error.at {
                write!(f, ":{}:{}", at.line, at.column)?;
            }
            if !error.field.is_empty() {
                write!(f, ": {}", error.field)?;
            }
            write!(f, ": {}", error.what)?;
        }
        Ok(())
    }
}
