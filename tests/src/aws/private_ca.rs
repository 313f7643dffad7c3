//! A stand-in ACM PCA that signs with a real CA and is as strict as AWS documents it: templates, names, validity.
//! It looks at no signature of a request; ministack has no ACM PCA, and moto fills in no template.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{Request, Response};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateSigningRequestParams,
    CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use serde_json::{Value, json};

use crate::oidc::{Answer, Server};

/// How it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrivateCaMood {
    /// As AWS documents it.
    Well,
    /// 500.
    Failing,
    /// Certificates are valid for a year, whatever was asked for.
    YearLong,
    /// Nothing of a template is in what it signs.
    Bare,
    /// What it signs is never ready.
    Slow,
}

/// A private CA below a root of its own.
#[derive(Debug)]
pub struct PrivateCa {
    server: Server,
    state: Arc<Mutex<State>>,
}

struct State {
    mood: PrivateCaMood,
    root: Certificate,
    own: Certificate,
    issuer: Issuer<'static, KeyPair>,
    /// By ARN: the PEM, and whether it was asked for before.
    issued: HashMap<String, (String, bool)>,
    /// ARNs by idempotency token.
    tokens: HashMap<String, String>,
    asked: Vec<(String, Value)>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}, {} issued", self.mood, self.issued.len())
    }
}

/// An error of the API.
struct Refused(&'static str, String);

impl PrivateCa {
    /// What it goes by.
    pub const ARN: &'static str = "arn:aws:acm-pca:eu-west-1:123456789012:certificate-authority/11111111-2222-3333-4444-555555555555";

    /// Starts one.
    pub async fn start() -> Self {
        let state = Arc::new(Mutex::new(State::new()));
        let shared = Arc::clone(&state);
        let server = Server::plain(move |request| answer(&request, &shared)).await;
        Self { server, state }
    }

    /// Its endpoint.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// The root above it (DER).
    pub fn root(&self) -> Vec<u8> {
        self.state.lock().unwrap().root.der().to_vec()
    }

    /// Its own certificate (DER).
    pub fn own(&self) -> Vec<u8> {
        self.state.lock().unwrap().own.der().to_vec()
    }

    /// From now on it answers like this.
    pub fn is(&self, mood: PrivateCaMood) {
        self.state.lock().unwrap().mood = mood;
    }

    /// Another private CA by the same name: other keys, another root.
    pub fn replace(&self) {
        *self.state.lock().unwrap() = State::new();
    }

    /// What `IssueCertificate` was asked for so far.
    pub fn issued(&self) -> Vec<Value> {
        let state = self.state.lock().unwrap();
        let asked = state.asked.iter();
        asked
            .filter(|(action, _)| action == "IssueCertificate")
            .map(|(_, asked)| asked.clone())
            .collect()
    }
}

fn answer(request: &Request<Bytes>, state: &Mutex<State>) -> Answer {
    let target = request.headers().get("x-amz-target");
    let action = target.and_then(|target| target.to_str().ok());
    let action = action.and_then(|target| target.strip_prefix("ACMPrivateCA."));
    let asked = serde_json::from_slice(request.body()).unwrap_or(Value::Null);
    let (status, body) = match state.lock().unwrap().answer(action.unwrap_or(""), &asked) {
        Ok(body) => (200, body),
        Err(Refused("InternalFailure", why)) => {
            (500, json!({"__type": "InternalFailure", "message": why}))
        }
        Err(Refused(code, why)) => (400, json!({"__type": code, "message": why})),
    };
    let response = Response::builder()
        .status(status)
        .header("content-type", "application/x-amz-json-1.1")
        .body(Bytes::from(body.to_string()))
        .unwrap();
    Box::pin(std::future::ready(response))
}

impl State {
    fn new() -> Self {
        let ca = |name: &str, constraints| {
            let mut params = CertificateParams::default();
            params.distinguished_name = DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, name);
            params.is_ca = IsCa::Ca(constraints);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
            params.not_after = (SystemTime::now() + Duration::from_secs(10 * 365 * 86400)).into();
            params
        };
        let (root_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let params = ca("A company's root", BasicConstraints::Unconstrained);
        let root = params.self_signed(&root_key).unwrap();
        let above = Issuer::new(params, root_key);
        let params = ca("A private CA", BasicConstraints::Constrained(1));
        Self {
            mood: PrivateCaMood::Well,
            own: params.signed_by(&key, &above).unwrap(),
            root,
            issuer: Issuer::new(params, key),
            issued: HashMap::new(),
            tokens: HashMap::new(),
            asked: Vec::new(),
        }
    }

    fn answer(&mut self, action: &str, asked: &Value) -> Result<Value, Refused> {
        self.asked.push((action.to_owned(), asked.clone()));
        if self.mood == PrivateCaMood::Failing {
            return Err(Refused("InternalFailure", "as the test wants it".into()));
        }
        if asked["CertificateAuthorityArn"] != PrivateCa::ARN {
            return Err(Refused("ResourceNotFoundException", "no such CA".into()));
        }
        match action {
            "GetCertificateAuthorityCertificate" => Ok(json!({
                "Certificate": self.own.pem(), "CertificateChain": self.root.pem(),
            })),
            "IssueCertificate" => self.issue(asked),
            "GetCertificate" => self.get(asked),
            other => Err(Refused("UnknownOperationException", other.to_owned())),
        }
    }

    /// <https://docs.aws.amazon.com/privateca/latest/APIReference/API_IssueCertificate.html>
    fn issue(&mut self, asked: &Value) -> Result<Value, Refused> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let token = text(&asked["IdempotencyToken"]);
        if let Some(arn) = self.tokens.get(&token).filter(|_| !token.is_empty()) {
            return Ok(json!({"CertificateArn": arn}));
        }
        if asked["SigningAlgorithm"] != "SHA256WITHECDSA" {
            return Err(invalid("SigningAlgorithm is not of the CA's family"));
        }
        let csr = STANDARD.decode(text(&asked["Csr"]));
        let csr = csr.map_err(|_| invalid("Csr is not base64"))?;
        let malformed = |why: String| Refused("MalformedCSRException", why);
        // Its signature is verified by this.
        let csr = CertificateSigningRequestParams::from_pem(&String::from_utf8_lossy(&csr))
            .map_err(|why| malformed(why.to_string()))?;
        let has_subject = csr.params.distinguished_name.iter().next().is_some();
        if !has_subject && csr.params.subject_alt_names.is_empty() {
            return Err(malformed(
                "neither a subject name nor a subject alternative name".into(),
            ));
        }

        let mut params = CertificateParams::default();
        params.distinguished_name = csr.params.distinguished_name.clone();
        params.subject_alt_names = csr.params.subject_alt_names.clone();
        params.not_before = moment(&asked["ValidityNotBefore"])?.into();
        let not_after = moment(&asked["Validity"])?;
        if not_after <= SystemTime::now() {
            return Err(invalid("Validity is in the past"));
        }
        params.not_after = not_after.into();
        params.use_authority_key_identifier_extension = true;
        let template = text(&asked["TemplateArn"]);
        let template = template.strip_prefix("arn:aws:acm-pca:::template/");
        match template {
            Some("SubordinateCACertificate_PathLen0/V1") => {
                if !asked["ApiPassthrough"].is_null() {
                    return Err(invalid("this template lets nothing of the API pass"));
                }
                params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
                params.key_usages = vec![
                    KeyUsagePurpose::DigitalSignature,
                    KeyUsagePurpose::KeyCertSign,
                    KeyUsagePurpose::CrlSign,
                ];
            }
            Some("EndEntityCertificate_APIPassthrough/V1") => {
                pass(&asked["ApiPassthrough"], &mut params)?;
                params.is_ca = IsCa::ExplicitNoCa;
                params.key_usages = vec![
                    KeyUsagePurpose::DigitalSignature,
                    KeyUsagePurpose::KeyEncipherment,
                ];
                params.extended_key_usages = vec![
                    ExtendedKeyUsagePurpose::ServerAuth,
                    ExtendedKeyUsagePurpose::ClientAuth,
                ];
            }
            other => return Err(invalid(&format!("TemplateArn {other:?}"))),
        }
        match self.mood {
            PrivateCaMood::YearLong => {
                params.not_after = (SystemTime::now() + Duration::from_secs(365 * 86400)).into();
            }
            PrivateCaMood::Bare => {
                params.is_ca = IsCa::NoCa;
                params.key_usages.clear();
                params.extended_key_usages.clear();
            }
            _ => {}
        }
        let signed = params.signed_by(&csr.public_key, &self.issuer);
        let signed = signed.map_err(|why| malformed(why.to_string()))?;
        let arn = format!("{}/certificate/{:032x}", PrivateCa::ARN, self.issued.len());
        self.issued.insert(arn.clone(), (signed.pem(), false));
        self.tokens.insert(token, arn.clone());
        Ok(json!({"CertificateArn": arn}))
    }

    fn get(&mut self, asked: &Value) -> Result<Value, Refused> {
        let slow = self.mood == PrivateCaMood::Slow;
        let issued = asked["CertificateArn"].as_str();
        let issued = issued.and_then(|arn| self.issued.get_mut(arn));
        let (pem, asked_before) =
            issued.ok_or_else(|| Refused("ResourceNotFoundException", "no such one".into()))?;
        if slow || !std::mem::replace(asked_before, true) {
            return Err(Refused("RequestInProgressException", "not yet".into()));
        }
        Ok(json!({
            "Certificate": *pem,
            "CertificateChain": format!("{}{}", self.own.pem(), self.root.pem()),
        }))
    }
}

/// Names and extensions of the API, which go before those of the request.
fn pass(passed: &Value, params: &mut CertificateParams) -> Result<(), Refused> {
    if let Some(subject) = passed["Subject"].as_object() {
        params.distinguished_name = DistinguishedName::new();
        for (name, value) in subject {
            let kind = match name.as_str() {
                "Organization" => DnType::OrganizationName,
                "CommonName" => DnType::CommonName,
                other => return Err(invalid(other)),
            };
            params
                .distinguished_name
                .push(kind, value.as_str().unwrap_or_default());
        }
    }
    let extensions = &passed["Extensions"];
    if let Some(names) = extensions["SubjectAlternativeNames"].as_array() {
        params.subject_alt_names.clear();
        for name in names {
            let name = name.as_object().filter(|name| name.len() == 1);
            let (kind, value) = name
                .and_then(|name| name.iter().next())
                .ok_or_else(|| invalid("a general name is one thing"))?;
            let value = value.as_str().unwrap_or_default();
            let value = || value.try_into().map_err(|_| invalid("not an IA5String"));
            params.subject_alt_names.push(match kind.as_str() {
                "UniformResourceIdentifier" => SanType::URI(value()?),
                "DnsName" => SanType::DnsName(value()?),
                other => return Err(invalid(other)),
            });
        }
    }
    for extension in extensions["CustomExtensions"]
        .as_array()
        .into_iter()
        .flatten()
    {
        let oid = extension["ObjectIdentifier"].as_str().unwrap_or_default();
        let oid: Result<Vec<u64>, _> = oid.split('.').map(str::parse).collect();
        let value = STANDARD.decode(extension["Value"].as_str().unwrap_or_default());
        let (Ok(oid), Ok(value)) = (oid, value) else {
            return Err(invalid("a custom extension"));
        };
        let mut custom = CustomExtension::from_oid_content(&oid, value);
        custom.set_criticality(extension["Critical"] == true);
        params.custom_extensions.push(custom);
    }
    Ok(())
}

fn moment(validity: &Value) -> Result<SystemTime, Refused> {
    if validity["Type"] != "ABSOLUTE" {
        return Err(invalid("this stand-in takes ABSOLUTE validity"));
    }
    let seconds = validity["Value"].as_u64();
    let seconds = seconds.ok_or_else(|| invalid("Validity has no value"))?;
    Ok(UNIX_EPOCH + Duration::from_secs(seconds))
}

fn invalid(why: &str) -> Refused {
    Refused("InvalidArgsException", why.to_owned())
}
