//! `ca`: where the keys live and how long they last.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;

use super::described_as_written;
use crate::config::{
    defaults,
    value::{self, As, Span, name},
};

/// The certificate authority.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "CaFields")]
pub struct Ca {
    /// Where the root's key lives.
    pub key: CaKey,
    /// A root's life.
    pub root_ttl: Span,
    /// A replica's intermediate's life: about twice the longest leaf.
    pub intermediate_ttl: Span,
    /// How long a new root is published before it signs.
    pub publish_ahead: Span,
}

/// Where the root's private key lives, and what the other keys are wrapped by.
#[derive(Debug, Clone)]
pub enum CaKey {
    /// `{key: memory}`: gone with the process.
    Memory,
    /// `{key: disk, path: DIR}`: a key-encryption key in DIR (0600); everything else is wrapped by it.
    Disk {
        /// The directory (0700).
        path: PathBuf,
    },
    /// `{key: aws-kms, key_id: …, wrap_key_id: …}`.
    AwsKms {
        /// Asymmetric, `SIGN_VERIFY`, `ECC_NIST_P256`: signs roots and intermediates. A new root is made
        /// under the key that is configured then; roots in use stay with theirs.
        key_id: String,
        /// Symmetric, `ENCRYPT_DECRYPT`: seals the key-encryption key.
        wrap_key_id: String,
    },
    /// `{key: acm-pca, arn: …, mode: …, and path or wrap_key_id}`.
    AcmPca {
        /// The private CA.
        arn: String,
        /// What it signs.
        mode: PcaMode,
        /// What the other keys are wrapped by.
        sealing: Sealing,
    },
}

impl CaKey {
    /// The directory that the key-encryption key is in, if it is in one.
    pub fn dir(&self) -> Option<&Path> {
        match self {
            Self::Disk { path }
            | Self::AcmPca {
                sealing: Sealing::Disk { path },
                ..
            } => Some(path),
            Self::Memory | Self::AwsKms { .. } | Self::AcmPca { .. } => None,
        }
    }

    /// The KMS key that seals the key-encryption key, if one does.
    pub fn wrap_key_id(&self) -> Option<&str> {
        match self {
            Self::AwsKms { wrap_key_id, .. }
            | Self::AcmPca {
                sealing: Sealing::AwsKms { wrap_key_id },
                ..
            } => Some(wrap_key_id),
            Self::Memory | Self::Disk { .. } | Self::AcmPca { .. } => None,
        }
    }
}

/// What seals the key-encryption key where the root's key is elsewhere.
#[derive(Debug, Clone)]
pub enum Sealing {
    /// A key-encryption key in this directory.
    Disk {
        /// The directory (0700).
        path: PathBuf,
    },
    /// A symmetric KMS key.
    AwsKms {
        /// Its id or ARN.
        wrap_key_id: String,
    },
}

/// What ACM PCA signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PcaMode {
    /// A path-length-0 intermediate for each replica, which signs leaves.
    #[default]
    Subordinate,
    /// Every leaf: one call of ACM PCA each, paid for each.
    Leaf,
}

/// `ca`, as it is written.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Ca")]
struct CaFields {
    /// Where the root's key lives: `memory` (gone with the process), `disk` (with `path`), `aws-kms` (with
    /// `key_id` and `wrap_key_id`) or `acm-pca` (with `arn`, and `path` or `wrap_key_id`).
    key: CaKeyKind,
    /// A directory of this machine (0700) for the keys, and for `state.db`.
    #[serde(default, deserialize_with = "value::option::<name::AbsolutePath, _>")]
    #[schemars(with = "Option<As<name::AbsolutePath>>")]
    path: Option<PathBuf>,
    /// With `key: aws-kms`: the asymmetric key (`SIGN_VERIFY`, `ECC_NIST_P256`) that signs roots and
    /// intermediates.
    #[serde(default, deserialize_with = "value::option::<name::KmsKey, _>")]
    #[schemars(with = "Option<As<name::KmsKey>>")]
    key_id: Option<String>,
    /// The symmetric KMS key that seals every other key.
    #[serde(default, deserialize_with = "value::option::<name::KmsKey, _>")]
    #[schemars(with = "Option<As<name::KmsKey>>")]
    wrap_key_id: Option<String>,
    /// With `key: acm-pca`: the private CA.
    #[serde(default, deserialize_with = "value::option::<name::PcaArn, _>")]
    #[schemars(with = "Option<As<name::PcaArn>>")]
    arn: Option<String>,
    /// With `key: acm-pca`: `subordinate` (it signs a short-lived intermediate for each replica) or `leaf`
    /// (it signs every certificate).
    mode: Option<PcaMode>,
    /// A root's life.
    #[serde(default = "defaults::root_ttl")]
    root_ttl: Span,
    /// A replica's intermediate's life: about twice the longest leaf.
    #[serde(default = "defaults::intermediate_ttl")]
    intermediate_ttl: Span,
    /// How long a new root is published before it signs.
    #[serde(default = "defaults::publish_ahead")]
    publish_ahead: Span,
}

#[derive(Deserialize, JsonSchema, Clone, Copy, PartialEq)]
#[serde(rename_all = "kebab-case")]
enum CaKeyKind {
    Memory,
    Disk,
    AwsKms,
    AcmPca,
}

described_as_written!(Ca => CaFields);

impl CaFields {
    /// The first field that this kind of key has no use for.
    fn superfluous(&self) -> Option<&'static str> {
        use CaKeyKind::{AcmPca, AwsKms, Disk};
        let fields = [
            ("path", self.path.is_some(), [Disk, AcmPca].as_slice()),
            ("key_id", self.key_id.is_some(), &[AwsKms]),
            ("wrap_key_id", self.wrap_key_id.is_some(), &[AwsKms, AcmPca]),
            ("arn", self.arn.is_some(), &[AcmPca]),
            ("mode", self.mode.is_some(), &[AcmPca]),
        ];
        let mut wrong = fields
            .iter()
            .filter(|(_, there, kinds)| *there && !kinds.contains(&self.key));
        wrong.next().map(|(name, ..)| *name)
    }
}

impl TryFrom<CaFields> for Ca {
    type Error = String;

    fn try_from(fields: CaFields) -> Result<Self, Self::Error> {
        let kind = match fields.key {
            CaKeyKind::Memory => "memory",
            CaKeyKind::Disk => "disk",
            CaKeyKind::AwsKms => "aws-kms",
            CaKeyKind::AcmPca => "acm-pca",
        };
        if let Some(field) = fields.superfluous() {
            return Err(format!(
                "with \"key: {kind}\" there is no {field}; remove it, or use another key"
            ));
        }
        let missing = |field: &str, example: &str| {
            format!("with \"key: {kind}\" the key \"{field}\" is required, such as {example}")
        };
        let key = match fields.key {
            CaKeyKind::Memory => CaKey::Memory,
            CaKeyKind::Disk => CaKey::Disk {
                path: fields
                    .path
                    .ok_or_else(|| missing("path", "path: /var/lib/warifu"))?,
            },
            CaKeyKind::AwsKms => CaKey::AwsKms {
                key_id: fields
                    .key_id
                    .ok_or_else(|| missing("key_id", "key_id: alias/warifu-root"))?,
                wrap_key_id: fields
                    .wrap_key_id
                    .ok_or_else(|| missing("wrap_key_id", "wrap_key_id: alias/warifu-wrap"))?,
            },
            CaKeyKind::AcmPca => CaKey::AcmPca {
                arn: fields.arn.ok_or_else(|| {
                    missing(
                        "arn",
                        "arn: arn:aws:acm-pca:eu-west-1:123456789012:certificate-authority/UUID",
                    )
                })?,
                mode: fields.mode.unwrap_or_default(),
                sealing: match (fields.path, fields.wrap_key_id) {
                    (Some(path), None) => Sealing::Disk { path },
                    (None, Some(wrap_key_id)) => Sealing::AwsKms { wrap_key_id },
                    (Some(_), Some(_)) => {
                        return Err(
                            "with \"key: acm-pca\" the other keys are sealed by path or by \
                             wrap_key_id, not by both"
                                .into(),
                        );
                    }
                    (None, None) => {
                        return Err(missing("wrap_key_id", "wrap_key_id: alias/warifu-wrap"));
                    }
                },
            },
        };
        Ok(Self {
            key,
            root_ttl: fields.root_ttl,
            intermediate_ttl: fields.intermediate_ttl,
            publish_ahead: fields.publish_ahead,
        })
    }
}
