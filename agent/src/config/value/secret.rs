//! Secrets by name, and pins.

use std::{
    borrow::Cow,
    fmt, fs,
    io::{self, Read},
    path::PathBuf,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use warifu::Secret;
use zeroize::Zeroizing;

use super::{
    name::absolute_path,
    text::{Kind, reads_from_text},
};

/// Larger than any token or key; a reference to a log file, say, is a mistake.
const MAX_SECRET: u64 = 64 << 10;

/// A secret in a file: its whole content, one trailing newline removed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SecretFile(pub PathBuf);

/// A secret named, never written inline: `file:/path` or `secretsmanager:NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SecretRef {
    /// In a file.
    File(SecretFile),
    /// In AWS Secrets Manager.
    Managed(ManagedSecret),
}

/// A secret in AWS Secrets Manager: `NAME_OR_ARN`, or `NAME_OR_ARN#MEMBER` of a JSON object.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ManagedSecret {
    /// Its name or ARN.
    pub id: String,
    /// The member of the JSON object it is; the whole text where absent.
    pub member: Option<String>,
}

/// Why a secret could not be read. Never says what it is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecretFileError {
    /// The file can't be read.
    #[error("reading the secret in {path}: {source}; it must exist and be readable by this user")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is nothing in it, or too much.
    #[error("the secret in {path} {why}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// SHA-256 of a SubjectPublicKeyInfo: 64 hex digits or base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpkiPin(pub [u8; 32]);

reads_from_text!(SecretFile, SecretRef, SpkiPin);

impl SecretFile {
    /// Reads the secret, now: it may have been rotated since the last time.
    ///
    /// # Errors
    /// When the file is missing, unreadable, empty, larger than 64 KiB or not UTF-8.
    pub fn read(&self) -> Result<Secret<String>, SecretFileError> {
        let Self(path) = self;
        let failed = |source| SecretFileError::Read {
            path: path.clone(),
            source,
        };
        let content = |why| SecretFileError::Content {
            path: path.clone(),
            why,
        };
        // At its full size from the start: a buffer that grows leaves copies behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_SECRET as usize + 1));
        fs::File::open(path)
            .and_then(|file| file.take(MAX_SECRET + 1).read_to_end(&mut bytes))
            .map_err(failed)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| content("is not UTF-8"))?;
        if text.len() as u64 > MAX_SECRET {
            return Err(content("is larger than 64 KiB"));
        }
        let text = text.strip_suffix('\n').unwrap_or(text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        if text.is_empty() {
            return Err(content("is empty"));
        }
        Ok(Secret::new(text.to_owned()))
    }
}

impl Kind for SecretFile {
    type Value = Self;
    const NAME: &'static str = "SecretFile";
    const EXPECTED: &'static str = "a reference to a secret in a file such as file:/run/secrets/token; a secret is never \
                                    written inline";
    const PATTERN: Option<&'static str> = Some("^file:/");
    const SECRET: bool = true;

    fn parse(text: &str) -> Result<Self, Cow<'static, str>> {
        if text.starts_with("secretsmanager:") {
            return Err("here it must be in a file".into());
        }
        let path = text.strip_prefix("file:").ok_or("")?;
        Ok(Self(absolute_path(path)?))
    }
}

impl Kind for SecretRef {
    type Value = Self;
    const NAME: &'static str = "SecretRef";
    const EXPECTED: &'static str = "a reference to a secret such as file:/run/secrets/token or \
                                    secretsmanager:prod/partner#client_secret; a secret is never written inline";
    const PATTERN: Option<&'static str> = Some("^(file:/|secretsmanager:)");
    const SECRET: bool = true;

    fn parse(text: &str) -> Result<Self, Cow<'static, str>> {
        match text.strip_prefix("secretsmanager:") {
            Some(managed) => managed_secret(managed).map(Self::Managed),
            None => SecretFile::parse(text).map(Self::File),
        }
    }
}

/// <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_CreateSecret.html>
fn managed_secret(text: &str) -> Result<ManagedSecret, Cow<'static, str>> {
    let (id, member) = match text.split_once('#') {
        Some((id, member)) => (id, Some(member)),
        None => (text, None),
    };
    let is_arn = id.starts_with("arn:");
    let allowed =
        |c: char| c.is_ascii_alphanumeric() || "/_+=.@-".contains(c) || is_arn && c == ':';
    if !(1..=2048).contains(&id.len()) || !id.chars().all(allowed) {
        return Err(
            "after secretsmanager: comes a secret's name (letters, digits and /_+=.@-) or ARN"
                .into(),
        );
    }
    if is_arn && (id.split(':').nth(2) != Some("secretsmanager") || id.split(':').count() != 7) {
        return Err(
            "the ARN must be arn:aws:secretsmanager:REGION:ACCOUNT:secret:NAME-SUFFIX".into(),
        );
    }
    if member.is_some_and(|it| it.is_empty() || it.len() > 255) {
        return Err("after # comes the name of a member of the secret's JSON object".into());
    }
    Ok(ManagedSecret {
        id: id.to_owned(),
        member: member.map(str::to_owned),
    })
}

impl fmt::Display for SecretFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "file:{}", self.0.display())
    }
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file) => file.fmt(f),
            Self::Managed(ManagedSecret { id, member }) => match member {
                Some(member) => write!(f, "secretsmanager:{id}#{member}"),
                None => write!(f, "secretsmanager:{id}"),
            },
        }
    }
}

impl Kind for SpkiPin {
    type Value = Self;
    const NAME: &'static str = "SpkiPin";
    const EXPECTED: &'static str =
        "the SHA-256 of a public key (SubjectPublicKeyInfo) as 64 hex digits or base64";

    fn parse(text: &str) -> Result<Self, Cow<'static, str>> {
        let bytes = match text.len() {
            64 => hex(text).ok_or("a character is not a hex digit")?,
            _ => STANDARD.decode(text).map_err(|_| "")?,
        };
        let bytes = <[u8; 32]>::try_from(bytes).map_err(|_| "that is not 32 bytes")?;
        Ok(Self(bytes))
    }
}

impl fmt::Display for SpkiPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u32>> = text.chars().map(|c| c.to_digit(16)).collect();
    let pair = |pair: &[u32]| u8::try_from(pair.iter().fold(0, |byte, digit| byte * 16 + digit));
    digits?.chunks(2).map(|digits| pair(digits).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s12_an_inline_secret_is_refused_and_not_repeated() {
        let error = "hunter2".parse::<SecretRef>().unwrap_err().to_string();
        assert!(
            error.contains("never written inline") && !error.contains("hunter2"),
            "{error}"
        );
        assert!("file:relative".parse::<SecretRef>().is_err());
        assert_eq!(
            "file:/run/t".parse::<SecretRef>().unwrap(),
            SecretRef::File(SecretFile("/run/t".into()))
        );
    }

    #[test]
    fn a_managed_secret_has_a_name_or_an_arn_and_perhaps_a_member() {
        let arn = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:prod/partner-AbCdEf";
        for (text, id, member) in [
            ("secretsmanager:prod/partner", "prod/partner", None),
            (
                "secretsmanager:prod/partner#client_secret",
                "prod/partner",
                Some("client_secret"),
            ),
            (&format!("secretsmanager:{arn}#a b"), arn, Some("a b")),
        ] {
            let secret: SecretRef = text.parse().unwrap();
            assert_eq!(secret.to_string(), text);
            let member = member.map(str::to_owned);
            let id = id.to_owned();
            assert_eq!(secret, SecretRef::Managed(ManagedSecret { id, member }));
        }
        for wrong in [
            "secretsmanager:",
            "secretsmanager:a b",
            "secretsmanager:a#",
            "secretsmanager:#a",
            "secretsmanager:a:b",
            "secretsmanager:arn:aws:iam::123456789012:role/x",
            "secretsmanager:arn:aws:secretsmanager:eu-west-1:123456789012:secret",
        ] {
            assert!(wrong.parse::<SecretRef>().is_err(), "{wrong}");
        }
        assert!("secretsmanager:a".parse::<SecretFile>().is_err());
    }

    #[test]
    fn a_secret_is_read_without_its_last_newline() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let secret = SecretFile(path.clone());
        assert!(
            secret
                .read()
                .unwrap_err()
                .to_string()
                .contains("must exist")
        );
        fs::write(&path, "hunter2\n").unwrap();
        assert_eq!(secret.read().unwrap().expose(), "hunter2");
        fs::write(&path, "\n").unwrap();
        assert!(secret.read().unwrap_err().to_string().contains("is empty"));
        fs::write(&path, vec![b'x'; 70_000]).unwrap();
        assert!(secret.read().unwrap_err().to_string().contains("larger"));
    }

    #[test]
    fn a_pin_reads_hex_and_base64() {
        let hex = "00ff".repeat(16);
        let pin: SpkiPin = hex.parse().unwrap();
        assert_eq!(pin.to_string(), hex);
        assert_eq!(STANDARD.encode(pin.0).parse::<SpkiPin>().unwrap(), pin);
        for wrong in [
            "",
            "abcd",
            "zz".repeat(32).as_str(),
            "é".repeat(32).as_str(),
        ] {
            assert!(wrong.parse::<SpkiPin>().is_err(), "{wrong}");
        }
    }
}
