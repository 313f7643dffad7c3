//! What survives a restart: the renewal key, the attestation record with the last bundle, the last revocation list
//! and the last keys of access tokens, in `state_dir` (0700, files 0600); in memory only where none is configured.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use warifu::{
    TrustDomain,
    identity::TrustBundle,
    jwt::{KeySet, SigningKey},
};

use crate::{
    attest::AccessTokenKeys,
    config::private::{self, PrivateError},
    revocation::{Kind, Published},
};

/// PKCS#8 DER.
const RENEWAL_KEY: &str = "renewal.key";
/// JSON: [`File`].
const ATTESTED: &str = "attested.json";
/// JSON: [`RevocationsFile`].
const REVOCATIONS: &str = "revocations.json";
/// JSON: [`AccessKeysFile`].
const ACCESS_KEYS: &str = "access-keys.json";

/// Where attestations are kept.
#[derive(Debug)]
pub(super) struct Vault {
    dir: Option<PathBuf>,
    trust_domain: TrustDomain,
}

/// What was found, and a renewal key in any case.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) renewal_key: SigningKey,
    pub(super) attested: Option<Attested>,
}

/// What an attestation left behind.
#[derive(Debug, Clone)]
pub(super) struct Attested {
    /// The attestation record.
    pub(super) record: String,
    /// When it expires.
    pub(super) expires_at: SystemTime,
    /// The last bundle.
    pub(super) bundle: TrustBundle,
}

#[derive(Serialize, Deserialize)]
struct File {
    trust_domain: String,
    record: String,
    /// Unix seconds.
    expires_at: u64,
    bundle: Value,
}

/// As it was published. Like the bundle it is not signed: who can write here has the renewal key.
#[derive(Serialize, Deserialize)]
struct RevocationsFile {
    trust_domain: String,
    number: u64,
    /// Unix seconds.
    as_of: u64,
    entries: Vec<(Kind, String)>,
}

/// The keys that verify access tokens, as they were published. Public, and no more signed than the bundle is.
#[derive(Serialize, Deserialize)]
struct AccessKeysFile {
    trust_domain: String,
    /// `None`: the authority decided that it mints none.
    published: Option<AccessKeysContent>,
}

#[derive(Serialize, Deserialize)]
struct AccessKeysContent {
    issuer: String,
    keys: Vec<Value>,
}

impl Vault {
    pub(super) fn open(
        dir: Option<&Path>,
        trust_domain: &TrustDomain,
    ) -> Result<(Self, Kept), PrivateError> {
        let vault = Self {
            dir: dir.map(Path::to_owned),
            trust_domain: trust_domain.clone(),
        };
        let Some(dir) = dir else {
            let kept = Kept {
                renewal_key: SigningKey::generate(),
                attested: None,
            };
            return Ok((vault, kept));
        };
        private::ensure_dir(dir)?;
        let kept = Kept {
            renewal_key: renewal_key(&dir.join(RENEWAL_KEY))?,
            attested: vault.attested(&dir.join(ATTESTED))?,
        };
        Ok((vault, kept))
    }

    /// Keeps what an attestation left. A failure is logged, not returned: the identity is good
    /// without it, only a restart would attest anew.
    pub(super) fn keep(&self, attested: &Attested) {
        let file = File {
            trust_domain: self.trust_domain.to_string(),
            record: attested.record.clone(),
            expires_at: attested
                .expires_at
                .duration_since(SystemTime::UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
            bundle: serde_json::from_str(&attested.bundle.to_json()).unwrap_or_default(),
        };
        if let Err(why) = self.write(ATTESTED, &file) {
            tracing::warn!(%why, "the attestation record could not be kept; after a restart the agent must attest anew");
        }
    }

    /// The last revocation list, if one was kept.
    pub(super) fn revocations(&self) -> Option<Published> {
        let file: RevocationsFile = self.read(REVOCATIONS, "revocation list")?;
        let as_of = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(file.as_of))?;
        (file.trust_domain == self.trust_domain.as_str()).then_some(Published {
            number: file.number,
            as_of,
            entries: file.entries,
        })
    }

    /// Keeps a revocation list, so that a restart does not begin without one.
    pub(super) fn keep_revocations(&self, published: &Published) {
        let since = published.as_of.duration_since(SystemTime::UNIX_EPOCH);
        let file = RevocationsFile {
            trust_domain: self.trust_domain.to_string(),
            number: published.number,
            as_of: since.unwrap_or_default().as_secs(),
            entries: published.entries.clone(),
        };
        if let Err(why) = self.write(REVOCATIONS, &file) {
            tracing::warn!(%why, "the revocation list could not be kept; a restart begins without one");
        }
    }

    /// The last keys of access tokens, if some were kept.
    pub(super) fn access_keys(&self) -> Option<AccessTokenKeys> {
        let file: AccessKeysFile = self.read(ACCESS_KEYS, "keys of access tokens")?;
        let ours = file.trust_domain == self.trust_domain.as_str();
        let AccessKeysContent { issuer, keys } = file.published.filter(|_| ours)?;
        // By the same parser as what the authority answers.
        let keys = json!({ "keys": keys }).to_string();
        match KeySet::from_jwks(keys.as_bytes(), "sig") {
            Ok(keys) => Some(AccessTokenKeys { issuer, keys }),
            Err(why) => {
                tracing::warn!(%why, "the last keys of access tokens are unusable; starting without them");
                None
            }
        }
    }

    /// Keeps the keys of access tokens, so that a restart does not begin without them; `None` where the authority has
    /// none (any more).
    pub(super) fn keep_access_keys(&self, published: Option<&AccessTokenKeys>) {
        let content = |published: &AccessTokenKeys| AccessKeysContent {
            issuer: published.issuer.clone(),
            keys: published
                .keys
                .iter()
                .map(|key| key.to_json("sig"))
                .collect(),
        };
        let file = AccessKeysFile {
            trust_domain: self.trust_domain.to_string(),
            published: published.map(content),
        };
        if let Err(why) = self.write(ACCESS_KEYS, &file) {
            tracing::warn!(%why, "the keys of access tokens could not be kept; a restart begins without them");
        }
    }

    /// Writes a file, where files are kept.
    fn write(&self, name: &str, content: &impl Serialize) -> Result<(), String> {
        let Some(dir) = &self.dir else { return Ok(()) };
        let json = serde_json::to_vec(content).map_err(|why| why.to_string())?;
        private::replace(&dir.join(name), &json).map_err(|why| why.to_string())
    }

    /// Reads what a start can do without: whatever is wrong with it is logged.
    fn read<T: DeserializeOwned>(&self, name: &str, what: &str) -> Option<T> {
        let path = self.dir.as_ref()?.join(name);
        let json = match private::read(&path) {
            Ok(json) => json?,
            Err(why) => {
                tracing::warn!(%why, "the last {what} can't be read; starting without");
                return None;
            }
        };
        let file = serde_json::from_slice(json.expose());
        if file.is_err() {
            tracing::warn!(path = %path.display(), "ignoring an unreadable {what}");
        }
        file.ok()
    }

    fn attested(&self, path: &Path) -> Result<Option<Attested>, PrivateError> {
        let Some(json) = private::read(path)? else {
            return Ok(None);
        };
        // The authority has the last word on a record; what can't be read only means to attest anew.
        let Ok(file) = serde_json::from_slice::<File>(json.expose()) else {
            tracing::warn!(path = %path.display(), "ignoring an unreadable attestation record");
            return Ok(None);
        };
        if file.trust_domain != self.trust_domain.as_str() {
            return Ok(None);
        }
        let bundle = file.bundle.to_string();
        let bundle = TrustBundle::from_json(self.trust_domain.clone(), bundle.as_bytes()).ok();
        let expires_at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(file.expires_at));
        Ok(bundle.zip(expires_at).map(|(bundle, expires_at)| Attested {
            record: file.record,
            expires_at,
            bundle,
        }))
    }
}

/// The key in the file, or a new one that is in the file afterwards.
fn renewal_key(path: &Path) -> Result<SigningKey, PrivateError> {
    if let Some(der) = private::read(path)? {
        return SigningKey::from_pkcs8(der.expose()).map_err(|_| PrivateError::Content {
            path: path.to_owned(),
            why: "not a P-256 PKCS#8 key; remove the file, and the agent attests anew",
        });
    }
    let key = SigningKey::generate();
    if private::create(path, key.to_pkcs8().expose())? {
        return Ok(key);
    }
    // Another agent was faster: two agents on one state_dir.
    Err(PrivateError::Content {
        path: path.to_owned(),
        why: "written by another agent just now; give each agent a state_dir of its own",
    })
}

#[cfg(test)]
mod tests {
    use std::{fs::Permissions, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn a_revocation_list_survives_a_restart_in_its_own_trust_domain_only() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("state");
        let open = |name| {
            let trust_domain = TrustDomain::new(name).unwrap();
            Vault::open(Some(&dir), &trust_domain).unwrap().0
        };
        let published = Published {
            number: 7,
            as_of: SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000),
            entries: vec![(Kind::Lineage, "l1".into()), (Kind::TokenId, "t1".into())],
        };
        assert_eq!(open("example.org").revocations(), None);
        open("example.org").keep_revocations(&published);
        assert_eq!(open("example.org").revocations(), Some(published));
        assert_eq!(open("partner.example").revocations(), None);
        private::replace(&dir.join(REVOCATIONS), b"{").unwrap();
        assert_eq!(open("example.org").revocations(), None);
    }
    #[test]
    fn the_keys_of_access_tokens_survive_a_restart_in_their_own_trust_domain_only_and_whole() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("state");
        let open = |name| {
            let trust_domain = TrustDomain::new(name).unwrap();
            Vault::open(Some(&dir), &trust_domain).unwrap().0
        };
        let published = AccessTokenKeys {
            issuer: "https://tokens.example.org".to_owned(),
            keys: KeySet::new(vec![
                SigningKey::generate().public().clone(),
                SigningKey::generate().public().clone(),
            ]),
        };
        let kids = |kept: &AccessTokenKeys| -> Vec<String> {
            kept.keys.iter().map(|key| key.kid().to_owned()).collect()
        };
        let vault = open("example.org");
        assert!(vault.access_keys().is_none());
        vault.keep_access_keys(Some(&published));
        let kept = open("example.org").access_keys().unwrap();
        assert_eq!(
            (&kept.issuer, kids(&kept)),
            (&published.issuer, kids(&published))
        );
        assert!(open("partner.example").access_keys().is_none());

        // Nobody else may have written there; half a file, or another's kind of key, is none.
        let path = dir.join(ACCESS_KEYS);
        let whole = std::fs::read(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
        assert!(vault.access_keys().is_none());
        for bad in [&whole[..whole.len() / 2], b"{", b"", br#"{"trust_domain": "example.org", "published": {"issuer": "x", "keys": [{"kty": "EC", "crv": "P-256", "kid": "k", "use": "sig", "alg": "ES256", "x": "AA", "y": "AA"}]}}"#] {
            private::replace(&path, bad).unwrap();
            assert!(vault.access_keys().is_none(), "{}", String::from_utf8_lossy(bad));
        }
        private::replace(&path, &whole).unwrap();
        assert!(vault.access_keys().is_some());
        vault.keep_access_keys(None);
        assert!(open("example.org").access_keys().is_none());
    }
}
