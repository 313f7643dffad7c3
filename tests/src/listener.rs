//! An inbound listener of a trust domain whose CA is the test's own, and signs whatever is asked of it:
//! our authority would not issue what must be refused.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose as Purpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose as Usage, SanType,
};
use rustls::sign::CertifiedKey;
use rustls_pki_types::PrivatePkcs8KeyDer;
use tokio::sync::watch;
use warifu::{
    TrustDomain,
    identity::{Identity, TrustBundle, X509Svid},
    jwt::KeySet,
};
use warifu_agent::{
    config::{self, agent::AgentConfig, value::Listen},
    http::{
        pool::{self, Pool},
        server::{self, Drain},
    },
    identity::Revocations,
    inbound::{self, Environment, Evaluations, Issuers},
    secrets::Secrets,
    telemetry::{
        audit::{Audit, Lines},
        metrics,
    },
};

use crate::mesh::{App, MTLS, ORDERS, TRUST_DOMAIN};

/// A root and an intermediate below it, in the shape of the authority's.
pub struct TestCa {
    root: Certificate,
    intermediate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, whatever they are.
pub struct Leaf {
    certificate: Certificate,
    intermediate: Option<Certificate>,
    key: KeyPair,
}

/// *payments*, without the rest of an agent. What it accepts and allows is what a mesh's agents do.
#[derive(Debug)]
pub struct Listener {
    /// Where it listens.
    pub address: SocketAddr,
    /// What it wrote to the audit log.
    pub audit: Lines,
    _drain: Drain,
    _identity: watch::Sender<Option<Arc<Identity>>>,
    _serving: inbound::Handle,
}

impl TestCa {
    /// A new one.
    pub fn new() -> Self {
        let (root_params, root_key) = ca_params("root", BasicConstraints::Unconstrained);
        let root = root_params.self_signed(&root_key).expect("a root");
        let root_issuer = Issuer::new(root_params, root_key);
        let (params, key) = ca_params("intermediate", BasicConstraints::Constrained(0));
        let intermediate = params.signed_by(&key, &root_issuer);
        Self {
            root,
            intermediate: intermediate.expect("an intermediate"),
            issuer: Issuer::new(params, key),
        }
    }

    /// A good leaf of `spiffe://example.org/orders`, changed by `tweak`.
    pub fn leaf(&self, tweak: impl FnOnce(&mut CertificateParams)) -> Leaf {
        let key = KeyPair::generate().expect("a key");
        let certificate = leaf_params(tweak).signed_by(&key, &self.issuer);
        Leaf {
            certificate: certificate.expect("a leaf"),
            intermediate: Some(self.intermediate.clone()),
            key,
        }
    }

    /// The same, signed by nobody but itself.
    pub fn self_signed(&self) -> Leaf {
        let key = KeyPair::generate().expect("a key");
        let certificate = leaf_params(|_| {}).self_signed(&key);
        Leaf {
            certificate: certificate.expect("a leaf"),
            intermediate: None,
            key,
        }
    }

    /// The root.
    pub fn root_pem(&self) -> String {
        self.root.pem()
    }

    /// Starts a listener with an X.509-SVID of this CA, before `app`.
    pub async fn listener(&self, app: &App) -> Listener {
        let yaml = format!(
            "trust_domain: {TRUST_DOMAIN}
authority: {{url: \"https://127.0.0.1:1\", root_spki_sha256: [\"{}\"]}}
attestation: {{join-token: {{token: \"file:/nowhere\"}}}}
inbound: [{{listen: \"127.0.0.1:0\", {}, accept: {MTLS}, allow: {ORDERS}}}]
",
            "0".repeat(64),
            app.forward(),
        );
        let config: AgentConfig =
            config::parse_agent(&yaml, "listener.yaml").unwrap_or_else(|why| panic!("{why}"));
        let (audit, lines) = Audit::memory();
        let mut registry = metrics::registry();
        let (identity, current) = watch::channel(Some(Arc::new(self.identity())));
        let (drain, draining) = server::drain();
        let environment = Environment {
            identity: current,
            revocations: Revocations::default(),
            issuers: Issuers::default(),
            secrets: Secrets::new(None, Duration::from_secs(300)),
            evaluations: Evaluations::default(),
            pool: Pool::new(pool::MAX_CONNECTIONS),
            audit,
            counts: None,
            metrics: inbound::Metrics::new(&mut registry),
            server_metrics: server::Metrics::new(&mut registry),
            draining,
        };
        let inbound = &config.inbound[0];
        let listener = server::Listener::bind(&inbound.listen).expect("a free port");
        let Listen::Tcp(address) = *listener.address() else {
            panic!("it listens on TCP");
        };
        let every_line = std::num::NonZeroU32::MIN;
        let serving = inbound::start(inbound, every_line, listener, &environment);
        let serving = serving.expect("a listener");
        Listener {
            address,
            audit: lines,
            _drain: drain,
            _identity: identity,
            _serving: serving,
        }
    }

    fn identity(&self) -> Identity {
        let leaf = self.leaf(|params| params.subject_alt_names = vec![uri("payments")]);
        let chain = vec![
            leaf.certificate.der().clone(),
            self.intermediate.der().clone(),
        ];
        let key = PrivatePkcs8KeyDer::from(leaf.key.serialize_der());
        Identity {
            svid: X509Svid::new(chain, key).expect("an X.509-SVID"),
            bundle: TrustBundle {
                trust_domain: TrustDomain::new(TRUST_DOMAIN).expect("a trust domain"),
                x509_authorities: vec![self.root.der().clone()],
                jwt_authorities: KeySet::default(),
                sequence: 1,
                refresh_hint: Duration::from_secs(300),
            },
            further: Default::default(),
            federated: Default::default(),
            generation: 1,
        }
    }
}

impl Default for TestCa {
    fn default() -> Self {
        Self::new()
    }
}

impl Leaf {
    /// For a client of rustls'.
    pub fn certified(&self) -> CertifiedKey {
        let intermediate = self.intermediate.as_ref().map(|it| it.der().clone());
        let chain = [self.certificate.der().clone()]
            .into_iter()
            .chain(intermediate);
        let key = PrivatePkcs8KeyDer::from(self.key.serialize_der()).into();
        let certified = CertifiedKey::from_der(chain.collect(), key, &warifu::tls::provider());
        certified.expect("a certificate and its key")
    }

    /// Writes it, its key and the root of `ca` for a peer to present.
    pub fn write(&self, dir: &Path, ca: &TestCa) {
        let intermediate = self.intermediate.as_ref().map(Certificate::pem);
        let chain = self.certificate.pem() + &intermediate.unwrap_or_default();
        let written =
            crate::peers::write_pem(dir, &chain, &self.key.serialize_pem(), &ca.root_pem());
        written.expect("files in the temporary directory");
    }
}

/// The URI SAN of `spiffe://example.org/NAME`.
pub fn uri(name: &str) -> SanType {
    let id = format!("spiffe://{TRUST_DOMAIN}/{name}");
    SanType::URI(id.as_str().try_into().expect("ASCII"))
}

fn leaf_params(tweak: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![uri("orders")];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![Usage::DigitalSignature];
    params.extended_key_usages = vec![Purpose::ServerAuth, Purpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    tweak(&mut params);
    params
}

fn ca_params(name: &str, constraints: BasicConstraints) -> (CertificateParams, KeyPair) {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(constraints);
    params.key_usages = vec![Usage::KeyCertSign, Usage::CrlSign];
    params.use_authority_key_identifier_extension = true;
    (params, KeyPair::generate().expect("a key"))
}
