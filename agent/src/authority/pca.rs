//! ACM PCA (AWS Private CA) as the root: it signs an intermediate for each replica, or every leaf.
//!
//! What it answers is not believed: see [`ca::checked`](super::ca).

use std::{
    collections::HashMap,
    fmt::Write as _,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use aws_sdk_acmpca::{
    Client,
    error::{BuildError, ProvideErrorMetadata, SdkError},
    operation::issue_certificate::builders::IssueCertificateFluentBuilder,
    primitives::Blob,
    types::{
        ApiPassthrough, Asn1Subject, CustomExtension, Extensions, GeneralName, SigningAlgorithm,
        Validity, ValidityPeriodType,
    },
};
use aws_types::SdkConfig;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use tokio::{sync::Semaphore, time::Instant};
use warifu::SpiffeId;
use x509_parser::{
    oid_registry::{
        OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_PKCS1_RSAENCRYPTION,
    },
    parse_x509_certificate,
};

use super::{ca::hex, keys, metrics::Metrics};
use crate::{aws::ApiError, revocation::Origin};

/// How long a certificate may take. It takes a second or two as a rule.
const ISSUED_WITHIN: Duration = Duration::from_secs(15);
/// Pause before it is asked for first; it grows by half each time, up to …
const FIRST_POLL: Duration = Duration::from_millis(100);
/// … this.
const LONGEST_POLL: Duration = Duration::from_secs(1);

/// Certificates under way at once. ACM PCA takes 25 requests a second from an account and answers each
/// within a second or two; more than this would only wait there.
const MAX_UNDER_WAY: usize = 50;

/// Longest chain that is read: the specification of TLS sets no limit, agents take eight.
const MAX_CHAIN: usize = 8;

/// The subject of leaves: an empty one would need a critical SAN extension, which no template gives.
pub(super) const SUBJECT: &str = "Warifu";

/// ACM PCA.
#[derive(Debug)]
pub(super) struct Pca {
    client: Client,
    metrics: Metrics,
    under_way: Semaphore,
    /// What each private CA signs with, which never changes.
    algorithms: Mutex<HashMap<String, SigningAlgorithm>>,
}

/// What ACM PCA is asked to sign.
#[derive(Debug, Clone, Copy)]
pub(super) enum Template<'a> {
    /// A CA of path length 0, with the subject and the SAN of the request (which is ours).
    Subordinate,
    /// A leaf with these names, whatever the request (which is an agent's) says.
    Leaf {
        id: &'a SpiffeId,
        dns: &'a [String],
        origin: Option<&'a Origin>,
    },
}

/// A private CA's own certificate and what is above it.
#[derive(Debug, Clone)]
pub(super) struct Anchor {
    /// The root above it; its own certificate, where it is one.
    pub(super) root: CertificateDer<'static>,
    /// From when on a certificate of the chain is over.
    pub(super) not_after: SystemTime,
}

/// A certificate as it came.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) certificate: CertificateDer<'static>,
    /// What is above it, up to and with the root.
    pub(super) chain: Vec<CertificateDer<'static>>,
}

impl Template<'_> {
    /// Its name in the ARN.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Subordinate => "SubordinateCACertificate_PathLen0/V1",
            Self::Leaf { .. } => "EndEntityCertificate_APIPassthrough/V1",
        }
    }
}

impl Pca {
    pub(super) fn new(sdk: &SdkConfig, metrics: &Metrics) -> Self {
        Self {
            client: Client::new(sdk),
            metrics: metrics.clone(),
            under_way: Semaphore::new(MAX_UNDER_WAY),
            algorithms: Mutex::default(),
        }
    }

    /// The root that `arn` chains to.
    pub(super) async fn anchor(&self, arn: &str) -> Result<Anchor, ApiError> {
        let chain = self.own_chain(arn).await?;
        let wrong =
            |why: &str| ApiError::answer("acm-pca:GetCertificateAuthorityCertificate", arn, why);
        let root = chain.last().ok_or_else(|| wrong("no certificate"))?;
        let mut not_after = None;
        for certificate in &chain {
            let (_, parsed) =
                parse_x509_certificate(certificate).map_err(|_| wrong("not a certificate"))?;
            let end = super::ca::system_time(parsed.validity().not_after);
            not_after = Some(not_after.map_or(end, |sooner: SystemTime| sooner.min(end)));
            let is_root = parsed.issuer().as_raw() == parsed.subject().as_raw();
            if std::ptr::eq(certificate, root) != is_root {
                return Err(wrong("a chain that does not end in its only root"));
            }
        }
        Ok(Anchor {
            root: root.clone(),
            not_after: not_after.unwrap_or(SystemTime::UNIX_EPOCH),
        })
    }

    /// A certificate for the key of `csr` (DER), valid from `not_before` to `not_after`.
    pub(super) async fn issue(
        &self,
        arn: &str,
        template: Template<'_>,
        csr: &[u8],
        (not_before, not_after): (SystemTime, SystemTime),
    ) -> Result<Answer, ApiError> {
        let deadline = Instant::now() + ISSUED_WITHIN;
        let action = "acm-pca:IssueCertificate";
        let late = || ApiError::answer(action, arn, format!("nothing within {ISSUED_WITHIN:?}"));
        let _place = tokio::time::timeout_at(deadline, self.under_way.acquire())
            .await
            .map_err(|_| late())?;
        let request = self
            .request(arn, template, csr, not_before, not_after)
            .await?;
        let answer = self.called(action, arn, request.send().await)?;
        let certificate = answer
            .certificate_arn
            .ok_or_else(|| ApiError::answer(action, arn, "no ARN of a certificate"))?;
        self.fetch(arn, &certificate, deadline).await
    }

    async fn request(
        &self,
        arn: &str,
        template: Template<'_>,
        csr: &[u8],
        not_before: SystemTime,
        not_after: SystemTime,
    ) -> Result<IssueCertificateFluentBuilder, ApiError> {
        let action = "acm-pca:IssueCertificate";
        let algorithm = self.algorithm(arn).await?;
        let validity = |at: SystemTime| {
            let seconds = at
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap_or_default();
            Validity::builder()
                .r#type(ValidityPeriodType::Absolute)
                .value(i64::try_from(seconds.as_secs()).unwrap_or(i64::MAX))
                .build()
                .map_err(|why| ApiError::answer(action, arn, why.to_string()))
        };
        // One certificate for one call, however often the SDK has to repeat it.
        let once =
            keys::random::<16>().map_err(|why| ApiError::answer(action, arn, why.to_string()))?;
        let request = self
            .client
            .issue_certificate()
            .certificate_authority_arn(arn)
            .csr(Blob::new(pem("CERTIFICATE REQUEST", csr)))
            .signing_algorithm(algorithm)
            .template_arn(template_arn(arn, template))
            .validity_not_before(validity(not_before)?)
            .validity(validity(not_after)?)
            .idempotency_token(hex(once.expose()));
        Ok(match template {
            Template::Subordinate => request,
            Template::Leaf { id, dns, origin } => {
                let passed = passed(id, dns, origin)
                    .map_err(|why| ApiError::answer(action, arn, why.to_string()))?;
                request.api_passthrough(passed)
            }
        })
    }

    async fn algorithm(&self, arn: &str) -> Result<SigningAlgorithm, ApiError> {
        let algorithms = || {
            self.algorithms
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        };
        let known = algorithms().get(arn).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let own = self.own_chain(arn).await?;
        let found = own.first().and_then(signing_algorithm).ok_or_else(|| {
            let action = "acm-pca:GetCertificateAuthorityCertificate";
            ApiError::answer(action, arn, "a key that is neither RSA nor P-256 nor P-384")
        })?;
        algorithms().insert(arn.to_owned(), found.clone());
        Ok(found)
    }

    async fn fetch(
        &self,
        arn: &str,
        certificate: &str,
        deadline: Instant,
    ) -> Result<Answer, ApiError> {
        let action = "acm-pca:GetCertificate";
        let mut pause = FIRST_POLL;
        loop {
            tokio::time::sleep(pause).await;
            let request = self.client.get_certificate();
            let request = request.certificate_authority_arn(arn);
            let answer = request.certificate_arn(certificate).send().await;
            let under_way = answer
                .as_ref()
                .is_err_and(|why| why.code() == Some("RequestInProgressException"));
            if !under_way {
                let answer = self.called(action, certificate, answer)?;
                let wrong = |why| ApiError::answer(action, certificate, why);
                let own = answer.certificate.unwrap_or_default();
                let [certificate] = <[_; 1]>::try_from(read_pem(&own).map_err(wrong)?)
                    .map_err(|_| wrong("not exactly one certificate"))?;
                let chain = answer.certificate_chain.unwrap_or_default();
                let chain = read_pem(&chain).map_err(wrong)?;
                return Ok(Answer { certificate, chain });
            }
            pause = (pause * 3 / 2).min(LONGEST_POLL);
            if Instant::now() + pause > deadline {
                return Err(ApiError::answer(
                    action,
                    certificate,
                    format!("it was not issued within {ISSUED_WITHIN:?}"),
                ));
            }
        }
    }

    /// The private CA's certificate, then what is above it, up to and with the root.
    async fn own_chain(&self, arn: &str) -> Result<Vec<CertificateDer<'static>>, ApiError> {
        let action = "acm-pca:GetCertificateAuthorityCertificate";
        let request = self.client.get_certificate_authority_certificate();
        let answer = request.certificate_authority_arn(arn).send().await;
        let answer = self.called(action, arn, answer)?;
        let wrong = |why| ApiError::answer(action, arn, why);
        let mut chain = read_pem(&answer.certificate.unwrap_or_default()).map_err(wrong)?;
        chain.extend(read_pem(&answer.certificate_chain.unwrap_or_default()).map_err(wrong)?);
        Ok(chain)
    }

    fn called<T, E>(
        &self,
        action: &'static str,
        on: &str,
        answer: Result<T, SdkError<E>>,
    ) -> Result<T, ApiError>
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        self.metrics.aws_call(action, answer.is_ok());
        answer.map_err(|why| ApiError::new(action, on, &why))
    }
}

/// Templates live in the partition of the CA.
fn template_arn(ca: &str, template: Template<'_>) -> String {
    let partition = ca.split(':').nth(1).unwrap_or("aws");
    format!("arn:{partition}:acm-pca:::template/{}", template.name())
}

/// What a leaf says beside what the template does. It counts more than what the request says.
/// <https://docs.aws.amazon.com/privateca/latest/userguide/template-order-of-operations.html>
fn passed(
    id: &SpiffeId,
    dns: &[String],
    origin: Option<&Origin>,
) -> Result<ApiPassthrough, BuildError> {
    let uri = GeneralName::builder().uniform_resource_identifier(id.to_string());
    let dns = dns.iter().map(|name| GeneralName::builder().dns_name(name));
    let mut extensions = Extensions::builder();
    for name in std::iter::once(uri).chain(dns) {
        extensions = extensions.subject_alternative_names(name.build());
    }
    if let Some(origin) = origin {
        let oid: Vec<String> = Origin::oid().iter().map(u64::to_string).collect();
        let extension = CustomExtension::builder()
            .object_identifier(oid.join("."))
            .value(STANDARD.encode(origin.to_der()))
            .critical(false)
            .build()?;
        extensions = extensions.custom_extensions(extension);
    }
    Ok(ApiPassthrough::builder()
        .extensions(extensions.build())
        .subject(Asn1Subject::builder().organization(SUBJECT).build())
        .build())
}

/// It must be of the family of the CA's key.
fn signing_algorithm(ca: &CertificateDer<'static>) -> Option<SigningAlgorithm> {
    let (_, parsed) = parse_x509_certificate(ca).ok()?;
    let algorithm = &parsed.public_key().algorithm;
    if algorithm.algorithm == OID_PKCS1_RSAENCRYPTION {
        return Some(SigningAlgorithm::Sha256Withrsa);
    }
    if algorithm.algorithm != OID_KEY_TYPE_EC_PUBLIC_KEY {
        return None;
    }
    let curve = algorithm.parameters.as_ref()?.as_oid().ok()?;
    match curve {
        curve if curve == OID_EC_P256 => Some(SigningAlgorithm::Sha256Withecdsa),
        curve if curve == OID_NIST_EC_P384 => Some(SigningAlgorithm::Sha384Withecdsa),
        _ => None,
    }
}

fn read_pem(text: &str) -> Result<Vec<CertificateDer<'static>>, &'static str> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(text.as_bytes())
        .take(MAX_CHAIN + 1)
        .collect::<Result<_, _>>()
        .map_err(|_| "not PEM")?;
    if certificates.len() > MAX_CHAIN {
        return Err("a longer chain than any agent takes");
    }
    Ok(certificates)
}

/// RFC 7468.
fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        let _ = writeln!(pem, "{}", String::from_utf8_lossy(line));
    }
    pem + &format!("-----END {label}-----\n")
}
