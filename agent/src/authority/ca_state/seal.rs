//! The document as it is stored: sealed as a whole. Its private keys are wrapped one by one, and what is
//! public in it (the roots that agents will trust) must be no other's word either.

use aws_lc_rs::digest::{SHA256, digest};

use super::{CaState, CaStateError, purpose};
use crate::authority::{
    ca::hex,
    keys::{Kek, Wrapped},
    settings::Settings,
};

impl CaState {
    /// Without its seal: to be compared.
    pub(in crate::authority) fn to_document(&self) -> Result<Vec<u8>, CaStateError> {
        self.with_seal(None)
    }

    /// As it is stored.
    pub(in crate::authority) fn to_sealed_document(
        &self,
        settings: &Settings,
        kek: &Kek,
    ) -> Result<Vec<u8>, CaStateError> {
        let purpose = self.seal_purpose(settings)?;
        self.with_seal(Some(kek.wrap(&purpose, &[])?))
    }

    /// Whether this is what a replica wrote, all of it. A document of the first layout has no seal, and is for
    /// a database beside the key only: who could write that could read the key too.
    pub(in crate::authority) fn check_seal(
        &self,
        settings: &Settings,
        kek: &Kek,
    ) -> Result<(), CaStateError> {
        if self.is_unsealed && settings.state_is_beside_the_key {
            return Ok(());
        }
        let seal = self.seal.as_ref().ok_or(CaStateError::Unsealed)?;
        let purpose = self.seal_purpose(settings)?;
        kek.unwrap("seal", &purpose, seal)
            .map(drop)
            .map_err(|_| CaStateError::Unsealed)
    }

    fn seal_purpose(&self, settings: &Settings) -> Result<String, CaStateError> {
        let hash = digest(&SHA256, &self.to_document()?);
        Ok(purpose(settings, "document", &hex(hash.as_ref())))
    }

    fn with_seal(&self, seal: Option<Wrapped>) -> Result<Vec<u8>, CaStateError> {
        let mut document = self.clone();
        document.seal = seal;
        serde_json::to_vec(&document).map_err(|why| CaStateError::Damaged(why.to_string()))
    }
}
