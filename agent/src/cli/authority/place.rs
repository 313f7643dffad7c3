//! Where an authority is administered, and as whom.

use std::{
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use clap::{ArgGroup, Args};
use serde::de::DeserializeOwned;
use warifu::{TrustDomain, jwt::SigningKey};
use warifu_agent::{
    attest::{Client, ClientError},
    authority::admin::{Act, client},
    aws::Roles,
    config::{
        self, AuthorityConfig,
        agent::{Attestation, AuthorityRef},
        aws::Aws,
        value::{HttpsOrigin, Listen, SpkiPin},
    },
    identity::Gatherer,
};

use super::Failure;

/// Where the help lists what says which authority is meant.
const WHICH: &str = "Which authority";
/// Time to gather evidence, AWS's answers included.
const PATIENCE: Duration = Duration::from_secs(20);

/// Which authority; on this machine over its socket, or elsewhere with evidence of who asks.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("which").required(true).args(["config", "socket", "url"])))]
pub(super) struct Place {
    /// One on this machine, by the configuration file it runs with
    #[arg(long, help_heading = WHICH, value_name = "FILE")]
    config: Option<PathBuf>,
    /// One on this machine, by its administration socket: unix:/path
    #[arg(long, help_heading = WHICH, value_name = "ADDRESS")]
    socket: Option<Listen>,
    /// One elsewhere, by its URL; its `administrators` say who may do what
    #[arg(long, help_heading = WHICH, value_name = "URL", requires_all = ["trust_domain", "attestation", "known_by"])]
    url: Option<HttpsOrigin>,
    /// Its trust domain
    #[arg(long, help_heading = WHICH, value_name = "NAME", requires = "url")]
    trust_domain: Option<TrustDomain>,
    /// What says who you are: aws-caller-identity, aws-web-identity, oidc:FILE or kubernetes:FILE (a token)
    #[arg(long, help_heading = WHICH, value_name = "EVIDENCE", requires = "url")]
    attestation: Option<Evidence>,
    /// What its root is known by: SHA-256 of the public key; repeat for more
    #[arg(long, help_heading = WHICH, value_name = "SHA256", requires = "url", group = "known_by")]
    root_pin: Vec<SpkiPin>,
    /// The same, as a PEM file of root certificates
    #[arg(long, help_heading = WHICH, value_name = "FILE", requires = "url", group = "known_by")]
    bundle: Option<PathBuf>,
}

/// What says who asks.
#[derive(Debug, Clone)]
struct Evidence(Attestation);

impl Place {
    /// Asks for `act`, and what is answered.
    pub(super) fn ask<A: DeserializeOwned>(&self, act: &Act) -> Result<A, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::new("asking the authority", error))?;
        match &self.url {
            Some(url) => runtime.block_on(self.ask_from_afar(url, act)),
            None => runtime.block_on(ask_here(&self.socket()?, act)),
        }
    }

    /// The configuration it runs with, where that is on this machine and was named.
    pub(super) fn load(&self) -> Result<Option<AuthorityConfig>, Failure> {
        let config = self.config.as_deref().map(config::load_authority);
        Ok(config.transpose()?)
    }

    fn socket(&self) -> Result<PathBuf, Failure> {
        let listen = match (&self.socket, self.load()?) {
            (Some(socket), _) => socket.clone(),
            (None, Some(config)) => config.admin,
            (None, None) => return Err(Failure::usage(LOOKING, "no authority was named")),
        };
        match listen {
            Listen::Unix(socket) => Ok(socket),
            Listen::Tcp(address) => Err(Failure::usage(
                LOOKING,
                format!("{address} is no socket of this machine; expected unix:/path"),
            )),
        }
    }

    async fn ask_from_afar<A: DeserializeOwned>(
        &self,
        url: &HttpsOrigin,
        act: &Act,
    ) -> Result<A, Failure> {
        let doing = format!("asking the authority at {url}");
        let failed = |why: ClientError| Failure::new(&doing, why);
        let (Some(trust_domain), Some(Evidence(attestation))) =
            (&self.trust_domain, &self.attestation)
        else {
            return Err(Failure::usage(
                &doing,
                "--trust-domain or --attestation is missing",
            ));
        };
        let authority = AuthorityRef {
            url: url.clone(),
            root_spki_sha256: self.root_pin.clone(),
            bundle: self.bundle.clone(),
        };
        let client =
            Client::new(trust_domain, &authority).map_err(|why| Failure::usage(&doing, why))?;
        let roles = match attestation {
            Attestation::AwsWebIdentity | Attestation::AwsCallerIdentity => {
                let roles = Roles::from_environment(&Aws::default()).await;
                Some(roles.map_err(|why| Failure::new(&doing, why))?)
            }
            Attestation::JoinToken { .. }
            | Attestation::Kubernetes { .. }
            | Attestation::Oidc { .. } => None,
        };
        // Of this one request: nothing is issued to it.
        let key = SigningKey::generate();
        let gatherer = Gatherer::new(attestation.clone(), trust_domain.clone(), roles);
        let evidence = gatherer
            .gather(key.public(), PATIENCE)
            .await
            .map_err(failed)?;
        let act = serde_json::to_vec(act).map_err(|why| Failure::new(&doing, why))?;
        let answer = client.admin(&*evidence, &act, &key).await;
        let answer = answer.map_err(|why| failed(gatherer.name(why)))?;
        serde_json::from_value(answer).map_err(|why| Failure::new(&doing, why))
    }
}

const LOOKING: &str = "looking for the administration socket";

async fn ask_here<A: DeserializeOwned>(socket: &Path, act: &Act) -> Result<A, Failure> {
    let doing = format!("asking the authority at {}", socket.display());
    let answer = client::ask(socket, act).await;
    answer.map_err(|why| Failure::new(&doing, why))
}

impl FromStr for Evidence {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let absolute = |file: &str| match file {
            "" => Err("a file is missing after the colon".to_owned()),
            file => std::path::absolute(file).map_err(|why| format!("{file}: {why}")),
        };
        Ok(Self(match text.split_once(':') {
            None if text == "aws-caller-identity" => Attestation::AwsCallerIdentity,
            None if text == "aws-web-identity" => Attestation::AwsWebIdentity,
            Some(("oidc", file)) => Attestation::Oidc {
                token_file: absolute(file)?,
            },
            Some(("kubernetes", file)) => Attestation::Kubernetes {
                token_file: absolute(file)?,
            },
            _ => {
                return Err(
                    "expected aws-caller-identity, aws-web-identity, oidc:FILE or kubernetes:FILE"
                        .to_owned(),
                );
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_is_of_aws_or_a_token_in_a_file() {
        assert!("aws-caller-identity".parse::<Evidence>().is_ok());
        let Ok(Evidence(Attestation::Oidc { token_file })) = "oidc:/run/token".parse() else {
            panic!("a token in a file");
        };
        assert_eq!(token_file, Path::new("/run/token"));
        for wrong in [
            "",
            "oidc",
            "oidc:",
            "join-token:/run/token",
            "aws-caller-identity:x",
        ] {
            assert!(wrong.parse::<Evidence>().is_err(), "{wrong}");
        }
    }
}
