//! AWS KMS: signs as the root, and seals the key-encryption key.
//!
//! Asked when a replica starts, when an intermediate is made, and when a root is; never for a leaf or a
//! token.

use std::sync::Arc;

use aws_lc_rs::{
    digest::{SHA256, digest},
    signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey},
};
use aws_sdk_kms::{
    Client,
    primitives::Blob,
    types::{KeySpec, KeyUsageType, MessageType, SigningAlgorithmSpec},
};
use aws_types::SdkConfig;
use rcgen::{PKCS_ECDSA_P256_SHA256, PublicKeyData as _, SubjectPublicKeyInfo};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use warifu::{Secret, TrustDomain};

use super::metrics::Metrics;
use crate::{attest::wire::Base64, aws::ApiError};

/// KMS, for one trust domain.
#[derive(Debug, Clone)]
pub(super) struct Kms {
    client: Client,
    trust_domain: Arc<str>,
    metrics: Metrics,
}

/// What a KMS key is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyKind {
    /// `ca.key_id`.
    Signs,
    /// `ca.wrap_key_id`.
    Seals,
}

/// Bytes that KMS encrypted, and by which key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sealed {
    /// The key's ARN.
    kms_key: String,
    sealed: Base64,
}

/// A P-256 key in KMS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PublicKey {
    /// The key's ARN: an alias may come to mean another key.
    pub(super) arn: String,
    /// The uncompressed point.
    pub(super) point: Vec<u8>,
}

/// Why KMS did not do it.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum KmsError {
    /// It refused, or did not answer.
    #[error(transparent)]
    Call(#[from] ApiError),
    /// The key can't do what it is named for.
    #[error("{field}: {key} is {is}; expected {expected}")]
    Unsuitable {
        /// The field that names it.
        field: &'static str,
        /// As it is named there.
        key: String,
        /// What it is.
        is: String,
        /// What it should be.
        expected: &'static str,
    },
    /// What it signed does not verify.
    #[error("the signature of {0} is not one by the key of the root; nothing was issued with it")]
    Signature(String),
}

impl KmsError {
    pub(super) fn is_outage(&self) -> bool {
        matches!(self, Self::Call(why) if why.is_outage())
    }
}

impl KeyKind {
    fn field(self) -> &'static str {
        match self {
            Self::Signs => "ca.key_id",
            Self::Seals => "ca.wrap_key_id",
        }
    }

    fn expected(self) -> &'static str {
        match self {
            Self::Signs => "an enabled key with KeySpec ECC_NIST_P256 and KeyUsage SIGN_VERIFY",
            Self::Seals => {
                "an enabled key with KeySpec SYMMETRIC_DEFAULT and KeyUsage ENCRYPT_DECRYPT"
            }
        }
    }
}

impl Kms {
    pub(super) fn new(sdk: &SdkConfig, trust_domain: &TrustDomain, metrics: &Metrics) -> Self {
        Self {
            client: Client::new(sdk),
            trust_domain: trust_domain.as_str().into(),
            metrics: metrics.clone(),
        }
    }

    /// Whether `key` (id, alias or ARN) can do what it is named for.
    pub(super) async fn check(&self, key: &str, kind: KeyKind) -> Result<(), KmsError> {
        let action = "kms:DescribeKey";
        let answer = self.client.describe_key().key_id(key).send().await;
        let answer = self.called(action, key, answer)?;
        let found = answer
            .key_metadata
            .ok_or_else(|| ApiError::answer(action, key, "no metadata"))?;
        let usage = found.key_usage.as_ref();
        let spec = found.key_spec.as_ref();
        let fits = match kind {
            KeyKind::Signs => {
                usage == Some(&KeyUsageType::SignVerify) && spec == Some(&KeySpec::EccNistP256)
            }
            KeyKind::Seals => {
                usage == Some(&KeyUsageType::EncryptDecrypt)
                    && spec == Some(&KeySpec::SymmetricDefault)
            }
        };
        if fits && found.enabled {
            return Ok(());
        }
        let said = |what: Option<&str>| what.unwrap_or("unknown").to_owned();
        Err(KmsError::Unsuitable {
            field: kind.field(),
            key: key.to_owned(),
            is: format!(
                "a key with KeySpec {}, KeyUsage {} and KeyState {}",
                said(spec.map(KeySpec::as_str)),
                said(usage.map(KeyUsageType::as_str)),
                said(found.key_state.as_ref().map(|state| state.as_str())),
            ),
            expected: kind.expected(),
        })
    }

    /// Encrypts `secret` under `key`, for this trust domain.
    pub(super) async fn seal(&self, key: &str, secret: &[u8]) -> Result<Sealed, KmsError> {
        let action = "kms:Encrypt";
        let request = self.client.encrypt().key_id(key);
        let request = request.plaintext(Blob::new(secret));
        let request = request.set_encryption_context(Some(self.context()));
        let answer = self.called(action, key, request.send().await)?;
        match (answer.key_id, answer.ciphertext_blob) {
            (Some(kms_key), Some(sealed)) => Ok(Sealed {
                kms_key,
                sealed: Base64(sealed.into_inner()),
            }),
            _ => Err(ApiError::answer(action, key, "no ciphertext").into()),
        }
    }

    /// Decrypts what [`Kms::seal`] made.
    pub(super) async fn open(&self, sealed: &Sealed) -> Result<Secret<Vec<u8>>, KmsError> {
        let action = "kms:Decrypt";
        let request = self.client.decrypt().key_id(&sealed.kms_key);
        let request = request.ciphertext_blob(Blob::new(sealed.sealed.0.clone()));
        let request = request.set_encryption_context(Some(self.context()));
        let answer = self.called(action, &sealed.kms_key, request.send().await)?;
        let plain = answer
            .plaintext
            .ok_or_else(|| ApiError::answer(action, &sealed.kms_key, "no plaintext"))?;
        Ok(Secret::new(plain.into_inner()))
    }

    /// The public half of `key` (id, alias or ARN).
    pub(super) async fn public_key(&self, key: &str) -> Result<PublicKey, KmsError> {
        let action = "kms:GetPublicKey";
        let answer = self.client.get_public_key().key_id(key).send().await;
        let answer = self.called(action, key, answer)?;
        let (Some(arn), Some(spki)) = (answer.key_id, answer.public_key) else {
            return Err(ApiError::answer(action, key, "no public key").into());
        };
        let p256 = SubjectPublicKeyInfo::from_der(spki.as_ref())
            .ok()
            .filter(|spki| *spki.algorithm() == PKCS_ECDSA_P256_SHA256);
        let p256 = p256.ok_or_else(|| KmsError::Unsuitable {
            field: KeyKind::Signs.field(),
            key: key.to_owned(),
            is: "not a P-256 key".into(),
            expected: KeyKind::Signs.expected(),
        })?;
        Ok(PublicKey {
            arn,
            point: p256.der_bytes().to_vec(),
        })
    }

    /// Signs `message` with ECDSA over P-256 with SHA-256. What comes back verifies.
    pub(super) async fn sign(&self, key: &PublicKey, message: &[u8]) -> Result<Vec<u8>, KmsError> {
        let action = "kms:Sign";
        let request = self.client.sign().key_id(&key.arn);
        // The digest: a message may have 4096 bytes at most.
        let request = request.message_type(MessageType::Digest);
        let request = request.message(Blob::new(digest(&SHA256, message).as_ref()));
        let request = request.signing_algorithm(SigningAlgorithmSpec::EcdsaSha256);
        let answer = self.called(action, &key.arn, request.send().await)?;
        let signature = answer
            .signature
            .ok_or_else(|| ApiError::answer(action, &key.arn, "no signature"))?;
        let signature = signature.into_inner();
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &key.point)
            .verify(message, &signature)
            .map_err(|_| KmsError::Signature(key.arn.clone()))?;
        Ok(signature)
    }

    /// Ciphertext of one trust domain opens in no other, and a policy can ask for it
    /// (`kms:EncryptionContext:trust_domain`).
    fn context(&self) -> std::collections::HashMap<String, String> {
        [
            ("trust_domain", &*self.trust_domain),
            ("use", "warifu ca_state"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
    }

    fn called<T, E>(
        &self,
        action: &'static str,
        key: &str,
        answer: Result<T, aws_sdk_kms::error::SdkError<E>>,
    ) -> Result<T, ApiError>
    where
        E: aws_sdk_kms::error::ProvideErrorMetadata + std::error::Error + 'static,
    {
        self.metrics.aws_call(action, answer.is_ok());
        answer.map_err(|why| ApiError::new(action, key, &why))
    }
}

impl Sealed {
    /// The key that sealed it.
    pub(super) fn key(&self) -> &str {
        &self.kms_key
    }
}

impl rcgen::PublicKeyData for PublicKey {
    fn der_bytes(&self) -> &[u8] {
        &self.point
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}
