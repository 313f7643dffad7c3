//! The certificates of the peers: the shapes the authority issues (P-256 root, path-length-0
//! intermediate, leaf with one SPIFFE ID), so that every proxy verifies the same chain.

use std::{fs, path::Path};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::Result;

/// A root and the intermediate under it that signs leaves.
pub(crate) struct Ca {
    root_pem: String,
    intermediate_pem: String,
    intermediate_der: CertificateDer<'static>,
    intermediate: Issuer<'static, KeyPair>,
}

/// A leaf with its chain and key.
pub(crate) struct Credential {
    /// Leaf, then intermediate.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// The leaf's key.
    pub(crate) key: PrivateKeyDer<'static>,
}

impl Ca {
    /// A new root and intermediate.
    pub(crate) fn new() -> Result<Self> {
        let root_key = KeyPair::generate()?;
        let root_params = ca_params("bench root", BasicConstraints::Unconstrained)?;
        let root = root_params.self_signed(&root_key)?;
        let root_issuer = Issuer::new(root_params, root_key);

        let key = KeyPair::generate()?;
        let params = ca_params("bench intermediate", BasicConstraints::Constrained(0))?;
        let intermediate = params.signed_by(&key, &root_issuer)?;
        Ok(Self {
            root_pem: root.pem(),
            intermediate_pem: intermediate.pem(),
            intermediate_der: intermediate.der().clone(),
            intermediate: Issuer::new(params, key),
        })
    }

    /// A leaf for `spiffe://TRUST_DOMAIN/NAME`.
    pub(crate) fn issue(&self, trust_domain: &str, name: &str) -> Result<Credential> {
        let (leaf, key) = self.leaf(trust_domain, name)?;
        Ok(Credential {
            chain: vec![leaf.der().clone(), self.intermediate_der.clone()],
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        })
    }

    /// Writes `root.pem`, and `server.pem` and `server.key` of a leaf for NAME, into `directory`.
    pub(crate) fn write_server(
        &self,
        trust_domain: &str,
        name: &str,
        directory: &Path,
    ) -> Result<()> {
        let (leaf, key) = self.leaf(trust_domain, name)?;
        let chain = format!("{}{}", leaf.pem(), self.intermediate_pem);
        fs::write(directory.join("root.pem"), &self.root_pem)?;
        fs::write(directory.join("server.pem"), chain)?;
        fs::write(directory.join("server.key"), key.serialize_pem())?;
        // HAProxy looks for NAME.pem.key beside NAME.pem.
        fs::write(directory.join("server.pem.key"), key.serialize_pem())?;
        Ok(())
    }

    /// Its common name is NAME as well: HAProxy can read that, and no URI SAN.
    fn leaf(&self, trust_domain: &str, name: &str) -> Result<(Certificate, KeyPair)> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        let id = format!("spiffe://{trust_domain}/{name}");
        params.subject_alt_names = vec![SanType::URI(id.try_into()?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        let leaf = params.signed_by(&key, &self.intermediate)?;
        Ok((leaf, key))
    }
}

fn ca_params(name: &str, constraints: BasicConstraints) -> Result<CertificateParams> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(constraints);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}
