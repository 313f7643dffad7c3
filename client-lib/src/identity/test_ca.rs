//! Certificates for tests: good ones, and ones with a single rule broken.

use std::time::Duration;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CustomExtension, DnType,
    ExtendedKeyUsagePurpose as Purpose, IsCa, Issuer, KeyPair, KeyUsagePurpose as Usage, SanType,
};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use crate::{
    TrustDomain,
    identity::{Identity, TrustBundle, X509Svid},
    jwt::KeySet,
};

/// A root or an intermediate.
pub(crate) struct TestCa {
    pub(crate) certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
    /// Itself and what leads to the root, the root excluded.
    chain: Vec<CertificateDer<'static>>,
}

impl TestCa {
    pub(crate) fn root() -> Self {
        Self::root_with(|_| {})
    }

    pub(crate) fn root_with(tweak: impl FnOnce(&mut CertificateParams)) -> Self {
        let (params, key) = (ca_params("root", tweak), KeyPair::generate().unwrap());
        Self {
            certificate: params.self_signed(&key).unwrap(),
            issuer: Issuer::new(params, key),
            chain: Vec::new(),
        }
    }

    pub(crate) fn intermediate(&self, tweak: impl FnOnce(&mut CertificateParams)) -> Self {
        let name = format!("intermediate {}", self.chain.len());
        let (params, key) = (ca_params(&name, tweak), KeyPair::generate().unwrap());
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let mut chain = vec![certificate.der().clone()];
        chain.extend(self.chain.iter().cloned());
        Self {
            certificate,
            issuer: Issuer::new(params, key),
            chain,
        }
    }

    /// A good leaf of `uri`, changed by `tweak`; its chain and key.
    pub(crate) fn leaf(
        &self,
        uri: &str,
        tweak: impl FnOnce(&mut CertificateParams),
    ) -> (Vec<CertificateDer<'static>>, PrivatePkcs8KeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let mut params = leaf_params(uri);
        tweak(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let mut chain = vec![certificate.der().clone()];
        chain.extend(self.chain.iter().cloned());
        (chain, key.serialize_der().into())
    }

    pub(crate) fn svid(&self, uri: &str) -> X509Svid {
        let (chain, key) = self.leaf(uri, |_| {});
        X509Svid::new(chain, key).unwrap()
    }

    /// An identity whose bundle holds this CA alone.
    pub(crate) fn identity(&self, uri: &str) -> Identity {
        let svid = self.svid(uri);
        Identity {
            bundle: self.bundle(svid.id().trust_domain().as_str()),
            svid,
            further: Default::default(),
            federated: Default::default(),
            generation: 1,
        }
    }

    pub(crate) fn bundle(&self, trust_domain: &str) -> TrustBundle {
        TrustBundle {
            trust_domain: TrustDomain::new(trust_domain).unwrap(),
            x509_authorities: vec![self.certificate.der().clone()],
            jwt_authorities: KeySet::default(),
            sequence: 1,
            refresh_hint: Duration::from_secs(300),
        }
    }
}

/// The SAN of a URI.
pub(crate) fn uri(uri: &str) -> SanType {
    SanType::URI(uri.try_into().unwrap())
}

/// An extension of `id-ce` (2.5.29) with this last arc.
pub(crate) fn extension(arc: u64, critical: bool, content: &[u8]) -> CustomExtension {
    let mut extension = CustomExtension::from_oid_content(&[2, 5, 29, arc], content.to_vec());
    extension.set_criticality(critical);
    extension
}

fn leaf_params(id: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![uri(id)];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![Usage::DigitalSignature];
    params.extended_key_usages = vec![Purpose::ServerAuth, Purpose::ClientAuth];
    params
}

fn ca_params(name: &str, tweak: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![Usage::KeyCertSign, Usage::CrlSign];
    tweak(&mut params);
    params
}
