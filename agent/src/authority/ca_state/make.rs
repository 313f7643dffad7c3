//! New roots and keys, as the document keeps them.

use warifu::{Secret, jwt::SigningKey};

use super::{
    By, CaStateError, KeyAlgorithm, KeySlot, Line, RootKeyAt, RootSlot, purpose, root_purpose,
};
use crate::{
    attest::wire::Base64,
    authority::{
        ca::hex,
        keyring::NewRoot,
        keys::{self, KeyError},
        rotation::{self, Millis, to_millis},
    },
};

pub(super) async fn root(by: By<'_>) -> Result<(RootSlot, Millis), CaStateError> {
    let NewRoot {
        certificate,
        key,
        not_after,
    } = by.keyring.new_root(by.settings, by.now).await?;
    let slot = RootSlot {
        key: match key {
            RootKeyAt::Held(key) => {
                let purpose = root_purpose(by.settings, &certificate)?;
                RootKeyAt::Held(by.kek.wrap(&purpose, key.expose())?)
            }
            RootKeyAt::Kms(arn) => RootKeyAt::Kms(arn),
            RootKeyAt::Pca(arn) => RootKeyAt::Pca(arn),
        },
        certificate: Base64(certificate.to_vec()),
    };
    Ok((slot, to_millis(not_after)))
}

pub(super) async fn key(line: Line, by: By<'_>) -> Result<(KeySlot, Millis), CaStateError> {
    let algorithm = line.algorithm(by.settings);
    let (kid, secret) = match algorithm {
        // An RSA key takes long enough to hold up whoever shares the thread.
        KeyAlgorithm::Rs256 => tokio::task::spawn_blocking(move || generate(algorithm))
            .await
            .map_err(|_| KeyError::Crypto("making an RSA key"))??,
        KeyAlgorithm::Es256 | KeyAlgorithm::Hs256 => generate(algorithm)?,
    };
    let purpose = purpose(by.settings, line.kind(), &kid);
    let slot = KeySlot {
        key: by.kek.wrap(&purpose, secret.expose())?,
        algorithm,
        kid,
    };
    let life = line.schedule(by.settings).map(|schedule| schedule.life);
    let until = to_millis(by.now) + rotation::millis(life.unwrap_or_default());
    Ok((slot, until))
}

/// A new key: its name, and its PKCS#8 or its bytes.
fn generate(algorithm: KeyAlgorithm) -> Result<(String, Secret<Vec<u8>>), KeyError> {
    let key = match algorithm {
        KeyAlgorithm::Es256 => SigningKey::generate(),
        KeyAlgorithm::Rs256 => SigningKey::generate_rsa(),
        KeyAlgorithm::Hs256 => {
            let name = hex(keys::random::<8>()?.expose());
            return Ok((name, Secret::new(keys::random::<32>()?.expose().to_vec())));
        }
    };
    let secret = Secret::new(key.to_pkcs8().expose().clone());
    Ok((key.public().kid().to_owned(), secret))
}
