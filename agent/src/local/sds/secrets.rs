//! What Envoy can ask for, by name.

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use prost_types::Any;
use warifu::identity::{Identity, TrustBundle, X509Svid};

use super::super::proto::envoy::{
    config::core::v3::{DataSource, TypedExtensionConfig, data_source::Specifier},
    extensions::transport_sockets::tls::v3::{
        CertificateValidationContext, Secret, SpiffeCertValidatorConfig, TlsCertificate,
        secret::Type, spiffe_cert_validator_config::TrustDomain,
    },
};

/// The type of every resource here.
pub(super) const TYPE_URL: &str =
    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";

const VALIDATOR_TYPE_URL: &str =
    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig";

/// The names that SPIRE gives them, so that an Envoy need not know whose agent it asks.
const CERTIFICATE: &str = "default";
const OWN_ROOTS: &str = "ROOTCA";
const ALL_ROOTS: &str = "ALL";

/// The secrets of one snapshot.
pub(super) struct Secrets<'a>(pub(super) &'a Identity);

/// A secret, whatever the name it was found by.
pub(super) enum Found<'a> {
    /// A certificate chain and key of ours.
    Certificate(&'a X509Svid),
    /// The roots of our trust domain, for Envoy's own verifier.
    Roots(&'a TrustBundle),
    /// Roots by trust domain, for Envoy's SPIFFE verifier: the roots of one domain verify nobody of another (S2).
    /// With the roots alone a federated domain's CA could issue certificates in our name, and Envoy would believe them.
    Domains(Vec<&'a TrustBundle>),
}

impl<'a> Secrets<'a> {
    /// What who asks for everything gets: everything once, under the names that SPIFFE gives it, as SPIRE does.
    pub(super) fn names(&self) -> Vec<String> {
        let svids = self.0.svids().map(|svid| svid.id().to_string());
        self.bundles().map(domain_id).chain(svids).collect()
    }

    /// The secret of this name; `None` where there is none for this workload.
    pub(super) fn find(&self, name: &str) -> Option<Found<'a>> {
        let identity = self.0;
        match name {
            CERTIFICATE => Some(Found::Certificate(&identity.svid)),
            OWN_ROOTS => Some(Found::Roots(&identity.bundle)),
            ALL_ROOTS => Some(Found::Domains(self.bundles().collect())),
            id => {
                let mut svids = identity.svids();
                if let Some(svid) = svids.find(|svid| svid.id().to_string() == id) {
                    return Some(Found::Certificate(svid));
                }
                let mut bundles = self.bundles();
                let bundle = bundles.find(|bundle| domain_id(bundle) == id)?;
                Some(Found::Domains(vec![bundle]))
            }
        }
    }

    /// Those that verify anybody. One without roots is left out, which has Envoy refuse everybody of that domain: it
    /// would reject an empty one, and go on with the roots it had.
    fn bundles(&self) -> impl Iterator<Item = &'a TrustBundle> + use<'a> {
        let identity = self.0;
        let all = std::iter::once(&identity.bundle).chain(identity.federated.iter());
        all.filter(|bundle| !bundle.x509_authorities.is_empty())
    }
}

impl Found<'_> {
    /// Changes when the secret does. Made of what is public in it: the key is the leaf's.
    pub(super) fn version(&self) -> String {
        let mut version = Version::default();
        match self {
            Self::Certificate(svid) => {
                version.add(b"certificate");
                svid.chain().iter().for_each(|der| version.add(der));
            }
            Self::Roots(bundle) => {
                version.add(b"roots");
                bundle
                    .x509_authorities
                    .iter()
                    .for_each(|der| version.add(der));
            }
            Self::Domains(bundles) => {
                version.add(b"domains");
                for bundle in bundles {
                    version.add(bundle.trust_domain.to_string().as_bytes());
                    bundle
                        .x509_authorities
                        .iter()
                        .for_each(|der| version.add(der));
                }
            }
        }
        version.finish()
    }

    /// The resource, called `name`.
    pub(super) fn resource(&self, name: &str) -> Any {
        let r#type = match self {
            Self::Certificate(svid) => Type::TlsCertificate(TlsCertificate {
                certificate_chain: inline(svid.chain_pem().into_bytes()),
                private_key: inline(svid.key_pem().expose().clone().into_bytes()),
            }),
            Self::Roots(bundle) => Type::ValidationContext(CertificateValidationContext {
                trusted_ca: inline(bundle.x509_pem().into_bytes()),
                custom_validator_config: None,
            }),
            Self::Domains(bundles) => Type::ValidationContext(CertificateValidationContext {
                trusted_ca: None,
                custom_validator_config: Some(spiffe_validator(bundles)),
            }),
        };
        let secret = Secret {
            name: name.to_owned(),
            r#type: Some(r#type),
        };
        any(TYPE_URL, &secret)
    }
}

/// Short enough to read in Envoy's statistics, long enough never to be another's.
#[derive(Clone)]
pub(super) struct Version(Context);

impl Default for Version {
    fn default() -> Self {
        Self(Context::new(&SHA256))
    }
}

impl Version {
    /// A further part; where it ends counts.
    pub(super) fn add(&mut self, part: &[u8]) {
        self.0.update(&(part.len() as u64).to_be_bytes());
        self.0.update(part);
    }

    pub(super) fn finish(self) -> String {
        let digest = self.0.finish();
        let bytes = digest.as_ref().iter().take(16);
        bytes.map(|byte| format!("{byte:02x}")).collect()
    }
}

fn spiffe_validator(bundles: &[&TrustBundle]) -> TypedExtensionConfig {
    let domains = bundles.iter().map(|bundle| TrustDomain {
        name: bundle.trust_domain.to_string(),
        trust_bundle: inline(bundle.x509_pem().into_bytes()),
    });
    let config = SpiffeCertValidatorConfig {
        trust_domains: domains.collect(),
    };
    TypedExtensionConfig {
        name: "envoy.tls.cert_validator.spiffe".to_owned(),
        typed_config: Some(any(VALIDATOR_TYPE_URL, &config)),
    }
}

fn domain_id(bundle: &TrustBundle) -> String {
    format!("spiffe://{}", bundle.trust_domain)
}

fn inline(bytes: Vec<u8>) -> Option<DataSource> {
    Some(DataSource {
        specifier: Some(Specifier::InlineBytes(Bytes::from(bytes))),
    })
}

fn any(type_url: &str, message: &impl prost::Message) -> Any {
    Any {
        type_url: type_url.to_owned(),
        value: message.encode_to_vec(),
    }
}
