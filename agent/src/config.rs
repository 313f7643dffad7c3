//! The YAML files as types. A value that parsed is valid; nothing downstream checks it again.
//! Defaults are the named constants of [`defaults`], each with its reason.
//!
//! A file goes through four steps, and every step reports all it finds: text to a tree with places
//! (`node`), `${ENV}` expanded in it, tree to types (`reader`), and what concerns several fields at
//! once (`validate`).

pub mod agent;
pub mod authority;
pub mod aws;
pub mod cases;
mod changes;
pub mod defaults;
mod error;
pub mod inbound;
pub mod local;
mod node;
pub mod outbound;
pub mod overlap;
pub mod private;
mod reader;
pub mod schema;
pub mod secretsmanager;
mod suggest;
mod validate;
pub mod value;

use std::{
    fs::{self, File},
    io::{ErrorKind, Read},
    os::unix::fs::MetadataExt,
    path::Path,
    time::SystemTime,
};

use serde::de::DeserializeOwned;

pub use agent::AgentConfig;
pub use authority::AuthorityConfig;
pub use error::{ConfigError, ConfigErrors, Position};

/// A configuration file larger than this was not written by hand: about 5,000 rules.
pub const MAX_FILE_SIZE: u64 = 1 << 20;

/// Which of the two files this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// `agent.yaml`.
    Agent,
    /// `authority.yaml`.
    Authority,
}

/// Reads and validates an agent's configuration file.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load_agent(path: &Path) -> Result<AgentConfig, ConfigErrors> {
    let (name, text) = read_file(path)?;
    parse_agent(&text, &name)
}

/// An agent's configuration file as it was read.
#[derive(Debug)]
pub struct AgentFile {
    /// What it says.
    pub config: AgentConfig,
    /// Which version of the file it was: taken before it was read, so that no later one is taken for it.
    pub version: Option<FileVersion>,
    /// The same as a tree, environment expanded.
    tree: node::Node,
}

/// What tells a version of a file from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileVersion {
    inode: (u64, u64),
    length: u64,
    modified: Option<SystemTime>,
}

impl FileVersion {
    /// Of the file at `path`, if there is one.
    pub fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        Some(Self {
            inode: (metadata.dev(), metadata.ino()),
            length: metadata.len(),
            modified: metadata.modified().ok(),
        })
    }
}

impl AgentFile {
    /// As [`load_agent`].
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(path: &Path) -> Result<Self, ConfigErrors> {
        let version = FileVersion::of(path);
        let (name, text) = read_file(path)?;
        let env = |variable: &str| std::env::var(variable).ok();
        let (config, tree) = parse_whole(&text, &name, validate::agent, &env)?;
        Ok(Self {
            config,
            version,
            tree,
        })
    }

    /// Fields in which `new` differs, and that take effect at a restart only.
    pub fn changed_for_restart(&self, new: &Self) -> Vec<String> {
        changes::at_restart(&self.tree, &new.tree)
    }
}

/// Reads and validates an authority's configuration file.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load_authority(path: &Path) -> Result<AuthorityConfig, ConfigErrors> {
    let (name, text) = read_file(path)?;
    parse_authority(&text, &name)
}

/// [`load_agent`] for text; `name` is the file in errors.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse_agent(text: &str, name: &str) -> Result<AgentConfig, ConfigErrors> {
    parse(text, name, validate::agent)
}

/// [`load_authority`] for text; `name` is the file in errors.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse_authority(text: &str, name: &str) -> Result<AuthorityConfig, ConfigErrors> {
    parse(text, name, validate::authority)
}

/// Which kind of file `path` is, by the keys that only one of them has.
///
/// # Errors
/// When it cannot be read, or is no YAML.
pub fn kind_of(path: &Path) -> Result<FileKind, ConfigErrors> {
    let (name, text) = read_file(path)?;
    let root = node::parse(&text).map_err(|error| ConfigErrors::new(&name, vec![error]))?;
    let keys: Vec<&str> = match &root.value {
        node::Value::Map(entries) => entries.iter().map(|(key, _)| key.text.as_str()).collect(),
        _ => Vec::new(),
    };
    let authority = ["ca", "attestors", "rules", "state", "listen"];
    let of_authority = keys.iter().filter(|key| authority.contains(key)).count();
    let agent = ["authority", "attestation", "inbound", "outbound"];
    let of_agent = keys.iter().filter(|key| agent.contains(key)).count();
    Ok(match of_authority > of_agent {
        true => FileKind::Authority,
        false => FileKind::Agent,
    })
}

fn parse<T: DeserializeOwned>(
    text: &str,
    name: &str,
    validate: fn(&T) -> Vec<validate::Problem>,
) -> Result<T, ConfigErrors> {
    let env = |variable: &str| std::env::var(variable).ok();
    parse_with(text, name, validate, &env)
}

fn parse_with<T: DeserializeOwned>(
    text: &str,
    name: &str,
    validate: fn(&T) -> Vec<validate::Problem>,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<T, ConfigErrors> {
    parse_whole(text, name, validate, env).map(|(config, _)| config)
}

/// And the tree it was read from.
fn parse_whole<T: DeserializeOwned>(
    text: &str,
    name: &str,
    validate: fn(&T) -> Vec<validate::Problem>,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<(T, node::Node), ConfigErrors> {
    let failed = |errors| ConfigErrors::new(name, errors);
    let mut root = node::parse(text).map_err(|error| failed(vec![error]))?;
    let errors = root.expand(env);
    if !errors.is_empty() {
        return Err(failed(errors));
    }
    let config = reader::read(&root).map_err(failed)?;
    let errors: Vec<ConfigError> = validate(&config)
        .into_iter()
        .map(|problem| ConfigError {
            at: Some(root.position(&problem.at)),
            field: problem.at.to_string(),
            what: problem.what,
        })
        .collect();
    match errors.is_empty() {
        true => Ok((config, root)),
        false => Err(failed(errors)),
    }
}

fn read_file(path: &Path) -> Result<(String, String), ConfigErrors> {
    let name = path.display().to_string();
    let failed = |what: String| ConfigErrors::whole_file(&name, what);
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE_SIZE + 1).read_to_string(&mut text))
        .map_err(|error| match error.kind() {
            ErrorKind::InvalidData => {
                failed("the file is not UTF-8 text; is it a configuration file?".to_owned())
            }
            _ => failed(format!(
                "the file cannot be read: {error}; give the path of a file this user may read"
            )),
        })?;
    if text.len() as u64 > MAX_FILE_SIZE {
        return Err(failed(format!(
            "the file is larger than {} KiB; is it a configuration file?",
            MAX_FILE_SIZE >> 10
        )));
    }
    Ok((name, text))
}

#[cfg(test)]
mod tests;
