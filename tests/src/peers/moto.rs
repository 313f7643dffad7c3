//! moto: an AWS emulator that has an ACM PCA. It reads requests as botocore's models have them, and fills in no
//! template: what it answers is never what we take.

use std::{
    ffi::OsStr,
    net::TcpStream,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    Unavailable,
    aws::{Boto, CallError, Caller},
    process::Tied,
    python,
};
use crate::ports::free_port;

/// It is up in half a second on a quiet machine.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How often readiness is asked for.
const POLL: Duration = Duration::from_millis(50);

/// A running moto. Ended when dropped.
#[derive(Debug)]
pub struct Moto {
    endpoint: String,
    boto: Boto,
    _process: Tied,
    _home: TempDir,
}

impl Moto {
    /// The region of what is in it.
    pub const REGION: &'static str = "eu-west-1";

    /// Starts one on a free loopback port, and waits until it listens.
    ///
    /// # Errors
    /// When it can't be had, or doesn't listen; with its log.
    pub async fn start() -> Result<Self, Unavailable> {
        let fail = |why: String| Unavailable::new("moto", why);
        let boto = Boto::start().await?;
        let program = python()?.with_file_name("moto_server");
        let home = tempfile::tempdir().map_err(|why| fail(why.to_string()))?;
        let address = free_port();
        let port = address.port().to_string();
        let env: &[(&str, &OsStr)] = &[("HOME", home.path().as_os_str())];
        let mut process = Tied::run("moto", &program, &["-H", "127.0.0.1", "-p", &port], env)?;
        let deadline = Instant::now() + READY_WITHIN;
        while TcpStream::connect(address).is_err() {
            if process.exited().is_some() || Instant::now() > deadline {
                return Err(fail(format!("it does not listen:\n{}", process.log_tail())));
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(Self {
            endpoint: format!("http://{address}"),
            boto,
            _process: process,
            _home: home,
        })
    }

    /// `http://127.0.0.1:PORT`.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// An ACM PCA that is its own root; its ARN.
    ///
    /// # Errors
    /// What moto, or botocore, had against it.
    pub async fn create_private_ca(&self) -> Result<String, CallError> {
        let made = json!({
            "CertificateAuthorityConfiguration": {
                "KeyAlgorithm": "RSA_2048",
                "SigningAlgorithm": "SHA256WITHRSA",
                "Subject": {"CommonName": "A private CA"},
            },
            "CertificateAuthorityType": "ROOT",
        });
        let made = self.call("create_certificate_authority", made).await?;
        let arn = made.get("CertificateAuthorityArn");
        let csr = json!({"CertificateAuthorityArn": arn});
        let csr = self.call("get_certificate_authority_csr", csr).await?;
        let root = json!({
            "CertificateAuthorityArn": arn,
            "Csr": csr.get("Csr"),
            "SigningAlgorithm": "SHA256WITHRSA",
            "TemplateArn": "arn:aws:acm-pca:::template/RootCACertificate/V1",
            "Validity": {"Type": "YEARS", "Value": 10},
        });
        let root = self.call("issue_certificate", root).await?;
        let root =
            json!({"CertificateAuthorityArn": arn, "CertificateArn": root.get("CertificateArn")});
        let root = self.call("get_certificate", root).await?;
        let own = json!({"CertificateAuthorityArn": arn, "Certificate": root.get("Certificate")});
        self.call("import_certificate_authority_certificate", own)
            .await?;
        Ok(arn.and_then(Value::as_str).unwrap_or_default().to_owned())
    }

    async fn call(&self, operation: &str, parameters: Value) -> Result<Value, CallError> {
        let caller = Caller {
            endpoint: &self.endpoint,
            region: Self::REGION,
            access_key_id: "test",
            secret_access_key: "test",
        };
        self.boto
            .call(caller, "acm-pca", operation, parameters)
            .await
    }
}
