//! Ours: `warifu agent` in a process of its own. Its authority runs in this one, on the load's core, and
//! has nothing to do while anything is measured.

use std::{
    fs,
    io::Write,
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::PrivatePkcs8KeyDer;
use warifu::{Secret, jwt::SigningKey};
use warifu_agent::{
    attest::{Client, bearer, wire::Evidence},
    authority::{self, Authority, Parts},
    config::{
        self,
        agent::AuthorityRef,
        value::{HttpsOrigin, SpkiPin},
    },
    http::server,
    telemetry::{audit::Audit, metrics, ready::Readiness},
};

use super::{Place, Start, TRUST_DOMAIN};
use crate::{
    Result,
    certificates::Credential,
    tokens::{AUDIENCE, ISSUER, SCOPE, Tokens},
};

/// Time between making a join token and using it.
const TOKEN_LIFE: Duration = Duration::from_secs(60);

/// The agent's program: beside this one, in the same profile's directory.
pub(crate) fn locate() -> std::result::Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|e| e.to_string())?;
    let agent = own.with_file_name("warifu");
    if agent.is_file() {
        return Ok(agent);
    }
    let profile = if cfg!(debug_assertions) {
        ""
    } else {
        "--release "
    };
    let command = format!("cargo build {profile}-p warifu-agent");
    Err(format!("{} is not there: {command}", agent.display()))
}

/// A line for each request.
const AUDIT_LOG: &str = "audit.log";

/// Callers prove themselves by mTLS, and one of them may call.
pub(crate) fn inbound(listen: SocketAddr, backend: SocketAddr) -> String {
    format!(
        r#"inbound:
- listen: {listen}
  forward: http://{backend}
  accept: [{{mtls: {{trust_domains: [{TRUST_DOMAIN}]}}}}]
  allow: [{{peer: "spiffe://{TRUST_DOMAIN}/orders", to: ["GET /bench/*"]}}]
"#
    )
}

/// The same, and they show a token with each request.
fn inbound_of_tokens(listen: SocketAddr, backend: SocketAddr, tokens: &Tokens) -> String {
    let keys = tokens.keys_url();
    format!(
        r#"inbound:
- listen: {listen}
  forward: http://{backend}
  accept:
  - mtls: {{trust_domains: [{TRUST_DOMAIN}]}}
  - jwt: {{profile: at+jwt, issuer: "{ISSUER}", audiences: [{AUDIENCE}], jwks_uri: "{keys}"}}
  allow:
  - peer: "spiffe://{TRUST_DOMAIN}/orders"
    subject: {{scope: {SCOPE}}}
    to: ["GET /bench/*"]
"#
    )
}

/// Who issues for the agent and its callers.
pub(crate) struct Issuer(Authority);

impl Issuer {
    /// A new one, with a root of its own. Its files lie in `directory`.
    pub(crate) async fn start(directory: &Path) -> Result<Self> {
        let text = format!(
            r#"trust_domain: {TRUST_DOMAIN}
listen: 127.0.0.1:0
admin: unix:{}
ca: {{key: memory}}
state: memory
attestors: {{bench: {{kind: join-token}}}}
rules: [{{attestor: bench, match: {{service: "*"}}, id: "/{{service}}"}}]
"#,
            directory.join("authority.sock").display()
        );
        let config = config::parse_authority(&text, "authority.yaml")?;
        let mut registry = metrics::registry();
        let parts = Parts {
            audit: Audit::discard(),
            readiness: &Readiness::default(),
            servers: &server::Metrics::new(&mut registry),
            registry: &mut registry,
        };
        Ok(Self(authority::start(&config, parts).await?))
    }

    /// An X.509-SVID for `spiffe://TRUST_DOMAIN/NAME`, as an agent gets it.
    pub(super) async fn issue(&self, name: &str) -> Result<Credential> {
        let authority = AuthorityRef {
            url: HttpsOrigin {
                host: self.0.address().ip().to_string(),
                port: self.0.address().port(),
            },
            root_spki_sha256: self.0.root_pins(),
            bundle: None,
        };
        let client = Client::new(&TRUST_DOMAIN.parse()?, &authority)?;
        let token = self.join_token(name).await?;
        let key = KeyPair::generate()?;
        let csr = CertificateParams::default().serialize_request(&key)?;
        let issued = client
            .attest(
                &bearer(Evidence::JoinToken { token }),
                None,
                csr.der(),
                &SigningKey::generate(),
            )
            .await?;
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        Ok(Credential {
            chain: issued.chain,
            key: key.into(),
        })
    }

    /// `warifu agent` for `payments`, with one rule and one worker.
    pub(super) async fn start_agent(&self, place: Place<'_>) -> Result<Start> {
        let inbound = match place.tokens {
            None => inbound(place.listen, place.backend),
            Some(tokens) => inbound_of_tokens(place.listen, place.backend, tokens),
        };
        Ok(Start {
            command: self
                .command(place.program, place.directory, "payments", &inbound)
                .await?,
            log: Some(place.directory.join(AUDIT_LOG)),
        })
    }

    /// `warifu agent` for `name`, with one worker and these sections beside what all agents have.
    pub(crate) async fn command(
        &self,
        program: PathBuf,
        directory: &Path,
        name: &str,
        sections: &str,
    ) -> Result<Command> {
        let token = self.join_token(name).await?;
        fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(directory.join("join-token"))
            .and_then(|mut file| file.write_all(token.expose().as_bytes()))?;
        let file = directory.join("agent.yaml");
        let authority = self.0.address();
        let pins: Vec<String> = self.0.root_pins().iter().map(hex).collect();
        let place = directory.display();
        fs::write(
            &file,
            format!(
                r#"trust_domain: {TRUST_DOMAIN}
authority: {{url: "https://{authority}", root_spki_sha256: {pins:?}}}
attestation: {{join-token: {{token: "file:{place}/join-token"}}}}
workers: 1
admin: {{listen: "unix:{place}/admin.sock"}}
audit: {{file: {place}/{AUDIT_LOG}}}
{sections}"#
            ),
        )?;
        let mut command = Command::new(program);
        command.arg("agent").arg("--config").arg(file);
        Ok(command)
    }

    async fn join_token(&self, name: &str) -> Result<Secret<String>> {
        let facts = [("service".to_owned(), name.to_owned())].into();
        let made = self.0.create_join_token("bench", facts, TOKEN_LIFE).await?;
        Ok(made.token)
    }
}

fn hex(pin: &SpkiPin) -> String {
    pin.0.iter().map(|byte| format!("{byte:02x}")).collect()
}
