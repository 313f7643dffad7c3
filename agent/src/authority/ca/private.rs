//! ACM PCA's answers, looked at as strictly as an agent would before anything is done with them. What a
//! template puts into a certificate is AWS's and the operator's decision, and may change.

use std::{collections::BTreeSet, sync::Arc, time::Duration, time::SystemTime};

use rcgen::{CertificateParams, KeyPair, PublicKeyData as _};
use rustls_pki_types::CertificateDer;
use warifu::{TrustDomain, tls};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer as _};

use super::{
    CaError, Leaf, Root, Wanted, failed, hex, system_time,
    template::{BACKDATE, Validity},
};
use crate::{
    authority::pca::{Answer, Pca, SUBJECT, Template},
    revocation::Origin,
};

/// How much later than asked for a certificate may end, or how much earlier begin: ACM PCA rounds, and its
/// clock is not ours.
const TOLERANCE: Duration = Duration::from_secs(60);

/// ACM PCA in mode `leaf`.
#[derive(Debug)]
pub(in crate::authority) struct PcaSigner {
    pca: Arc<Pca>,
    arn: String,
    root: CertificateDer<'static>,
    validity: Validity,
}

/// An intermediate that is to be made.
pub(super) struct Subordinate<'a> {
    pub(super) trust_domain: &'a TrustDomain,
    pub(super) key: &'a KeyPair,
    pub(super) params: &'a CertificateParams,
    pub(super) validity: Validity,
}

impl PcaSigner {
    pub(super) fn new(pca: Arc<Pca>, arn: String, root: &Root) -> Self {
        Self {
            pca,
            arn,
            root: root.certificate.clone(),
            validity: root.validity,
        }
    }

    pub(super) fn is_under(&self, root: &CertificateDer<'_>) -> bool {
        self.root == *root
    }

    pub(super) fn not_after(&self) -> SystemTime {
        self.validity.not_after
    }

    pub(super) async fn leaf(&self, wanted: Wanted<'_>, now: SystemTime) -> Result<Leaf, CaError> {
        let validity = Validity::new(now, wanted.ttl)
            .within(self.validity)
            .ok_or(CaError::Expired("root"))?;
        let template = Template::Leaf {
            id: wanted.id,
            dns: wanted.dns,
            origin: wanted.origin,
        };
        let span = (validity.not_before, validity.not_after);
        let answer = self
            .pca
            .issue(&self.arn, template, wanted.csr, span)
            .await?;
        leaf_of(answer, wanted, validity, &self.root, now)
            .map_err(|why| refused(&self.arn, template, why))
    }
}

impl Subordinate<'_> {
    /// The certificate, what is above it, and from when to when it is valid.
    pub(super) async fn signed_by(
        self,
        pca: &Pca,
        arn: &str,
        root: &CertificateDer<'static>,
    ) -> Result<
        (
            CertificateDer<'static>,
            Vec<CertificateDer<'static>>,
            Validity,
        ),
        CaError,
    > {
        let doing = "making a request for an intermediate";
        let mut params = self.params.clone();
        // A request has no place for these, and rcgen refuses to leave them out by itself.
        params.serial_number = None;
        params.use_authority_key_identifier_extension = false;
        let csr = params.serialize_request(self.key).map_err(failed(doing))?;
        let template = Template::Subordinate;
        let span = (self.validity.not_before, self.validity.not_after);
        let answer = pca.issue(arn, template, csr.der(), span).await?;
        self.checked(answer, root)
            .map_err(|why| refused(arn, template, why))
    }

    fn checked(
        self,
        answer: Answer,
        root: &CertificateDer<'static>,
    ) -> Result<
        (
            CertificateDer<'static>,
            Vec<CertificateDer<'static>>,
            Validity,
        ),
        String,
    > {
        let above = below_root(answer.chain, root)?;
        let certificate = parse(&answer.certificate)?;
        check_key(&certificate, &self.key.subject_public_key_info())?;
        let constraints = certificate.basic_constraints().ok().flatten();
        let constraints = constraints.ok_or("has no basic constraints, and must be a CA")?;
        if !constraints.value.ca || constraints.value.path_len_constraint != Some(0) {
            return Err("is no CA with a path length of 0".into());
        }
        let usage = certificate.key_usage().ok().flatten();
        if !usage.is_some_and(|usage| usage.critical && usage.value.key_cert_sign()) {
            return Err("has no critical key usage with keyCertSign".into());
        }
        let names = BTreeSet::from([format!("URI:{}", self.trust_domain.id_string())]);
        check_names(&certificate, &names)?;
        let subject = self
            .params
            .distinguished_name
            .iter()
            .filter_map(|(_, value)| match value {
                rcgen::DnValue::Utf8String(text) => Some(text.as_str()),
                _ => None,
            });
        let found = certificate.subject().iter_attributes();
        if !subject.eq(found.filter_map(|attribute| attribute.as_str().ok())) {
            // The leaves name their issuer as it was asked to be named.
            return Err(format!(
                "has the subject {}, and another one was asked for",
                certificate.subject()
            ));
        }
        let not_after = check_validity(&certificate, self.validity)?;
        let validity = Validity {
            not_before: system_time(certificate.validity().not_before),
            not_after,
        };
        Ok((answer.certificate.clone(), above, validity))
    }
}

/// The leaf that was wanted, if the answer is one.
fn leaf_of(
    answer: Answer,
    wanted: Wanted<'_>,
    asked: Validity,
    root: &CertificateDer<'static>,
    now: SystemTime,
) -> Result<Leaf, String> {
    let above = below_root(answer.chain, root)?;
    let mut chain = vec![answer.certificate.clone()];
    chain.extend(above.iter().cloned());
    tls::verify(&chain, wanted.id, std::slice::from_ref(root), now)
        .map_err(|why| format!("is none that an agent takes: {why}"))?;
    let certificate = parse(&answer.certificate)?;
    check_key(&certificate, &wanted.key.subject_public_key_info())?;
    let not_after = check_validity(&certificate, asked)?;
    let mut names = BTreeSet::from([format!("URI:{}", wanted.id)]);
    names.extend(wanted.dns.iter().map(|name| format!("DNS:{name}")));
    check_names(&certificate, &names)?;
    check_usages(&certificate)?;
    check_subject(&certificate)?;
    if Origin::of_leaf(&answer.certificate).as_ref() != wanted.origin {
        return Err("lacks the extension that revocation goes by".into());
    }
    let serial = hex(certificate.raw_serial());
    Ok(Leaf {
        certificate: answer.certificate.clone(),
        above,
        serial,
        not_after,
    })
}

fn refused(arn: &str, template: Template<'_>, why: String) -> CaError {
    CaError::Refused {
        arn: arn.to_owned(),
        template: template.name(),
        why,
    }
}

/// The chain without its root, which must be the one that is published.
fn below_root(
    mut chain: Vec<CertificateDer<'static>>,
    root: &CertificateDer<'static>,
) -> Result<Vec<CertificateDer<'static>>, String> {
    if chain.pop().as_ref() != Some(root) {
        return Err(
            "chains to another root than the published one (was the private CA renewed? \
             `warifu authority rotate` publishes its new root)"
                .into(),
        );
    }
    Ok(chain)
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, String> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err("is no X.509 certificate".into()),
    }
}

fn check_key(certificate: &X509Certificate<'_>, spki: &[u8]) -> Result<(), String> {
    (certificate.public_key().raw == spki)
        .then_some(())
        .ok_or_else(|| "has another key than the one asked for".into())
}

/// When it ends.
fn check_validity(
    certificate: &X509Certificate<'_>,
    asked: Validity,
) -> Result<SystemTime, String> {
    let not_before = system_time(certificate.validity().not_before);
    let not_after = system_time(certificate.validity().not_after);
    if not_after > asked.not_after + TOLERANCE {
        let by = not_after.duration_since(asked.not_after);
        return Err(format!(
            "is valid {} s longer than asked for",
            by.unwrap_or_default().as_secs()
        ));
    }
    if not_before + TOLERANCE < asked.not_before {
        return Err("is valid from long before it was asked for".into());
    }
    if not_before > asked.not_before + BACKDATE + TOLERANCE {
        return Err("is not valid yet".into());
    }
    Ok(not_after)
}

/// Subject alternative names: these, and no others, of no other kind.
fn check_names(certificate: &X509Certificate<'_>, wanted: &BTreeSet<String>) -> Result<(), String> {
    let names = certificate.subject_alternative_name().ok().flatten();
    let names = names.map(|names| &names.value.general_names);
    let found: Vec<String> = names
        .into_iter()
        .flatten()
        .map(|name| match name {
            GeneralName::URI(uri) => format!("URI:{uri}"),
            GeneralName::DNSName(name) => format!("DNS:{name}"),
            other => format!("{other:?}"),
        })
        .collect();
    let distinct: BTreeSet<String> = found.iter().cloned().collect();
    if distinct == *wanted && found.len() == wanted.len() {
        return Ok(());
    }
    Err(format!(
        "names {found:?} in its subject alternative names, and {wanted:?} were asked for"
    ))
}

/// Nothing beside TLS.
fn check_usages(certificate: &X509Certificate<'_>) -> Result<(), String> {
    let usage = certificate.extended_key_usage().ok().flatten();
    let usage = usage.ok_or("has no extended key usage")?.value;
    let more = usage.any
        || usage.code_signing
        || usage.email_protection
        || usage.time_stamping
        || usage.ocsp_signing
        || !usage.other.is_empty();
    (!more)
        .then_some(())
        .ok_or_else(|| "has extended key usages beside serverAuth and clientAuth".into())
}

/// Ours, or none: a request's would be an agent's word.
fn check_subject(certificate: &X509Certificate<'_>) -> Result<(), String> {
    let subject = certificate.subject();
    let is_ours = subject
        .iter_organization()
        .all(|name| name.as_str() == Ok(SUBJECT));
    if is_ours && subject.iter_attributes().count() == subject.iter_organization().count() {
        return Ok(());
    }
    Err(format!(
        "has the subject {subject}, and O={SUBJECT} was asked for"
    ))
}

#[cfg(test)]
mod tests;
