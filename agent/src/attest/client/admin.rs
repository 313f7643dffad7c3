//! Administering from afar.

use serde_json::Value;
use warifu::jwt::SigningKey;

use super::{Client, MakeEvidence};
use crate::attest::{
    ClientError, proof,
    wire::{self, Base64},
};

impl Client {
    /// Asks for `act` (its JSON), as whoever `evidence` proves; `key` is made for this one request.
    ///
    /// # Errors
    /// See [`ClientError`]. After [`ClientError::Broken`] the act may have been carried out all the same.
    pub async fn admin(
        &self,
        evidence: &MakeEvidence,
        act: &[u8],
        key: &SigningKey,
    ) -> Result<Value, ClientError> {
        let public = key.public();
        self.challenged(wire::ADMIN, |challenge| {
            let evidence = evidence(&challenge)?;
            let thumbprint = public.thumbprint();
            let transcript =
                proof::admin(&self.trust_domain, &challenge, &thumbprint, &evidence, act);
            Ok(wire::AdminRequest {
                proof: Base64(key.sign_raw(&transcript)),
                challenge,
                evidence,
                renewal_key: public.to_json("sig"),
                act: Base64(act.to_vec()),
            })
        })
        .await
    }
}
