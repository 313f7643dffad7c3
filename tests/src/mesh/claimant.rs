//! Somebody who presents evidence to an authority, true or not, without an agent.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use rcgen::{CertificateParams, KeyPair};
use warifu::{Secret, TrustDomain, identity::X509Svid, jwt::SigningKey};
use warifu_agent::{
    attest::{
        Client, ClientError, Credentials, MakeEvidence, bearer,
        wire::{ErrorCode, Evidence, attest_audience},
    },
    config::{
        agent::AuthorityRef,
        value::{HttpsOrigin, SpkiPin},
    },
};

use super::{Authority, TRUST_DOMAIN};

/// It has a renewal key of its own.
#[derive(Debug)]
pub struct Claimant {
    client: Client,
    key: SigningKey,
}

/// Why it was not believed.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// For programs.
    pub code: ErrorCode,
    /// For people.
    pub message: String,
    /// Whether it was told when to ask again.
    pub may_ask_again: bool,
}

impl Claimant {
    pub(super) fn of(authority: &Authority) -> Self {
        let url: HttpsOrigin = authority.url().parse().expect("its URL");
        let pin = |pin: &String| pin.parse::<SpkiPin>().expect("a pin");
        let authority = AuthorityRef {
            url,
            root_spki_sha256: authority.pins().iter().map(pin).collect(),
            bundle: None,
        };
        Self {
            client: Client::new(&trust_domain(), &authority).expect("a client"),
            key: SigningKey::generate(),
        }
    }

    /// The audience that binds a web identity token to its key.
    pub fn audience(&self) -> String {
        attest_audience(&trust_domain(), &self.key_hash())
    }

    /// What binds evidence to its key.
    pub fn key_hash(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.key.public().spki_sha256())
    }

    /// Attests with a token of `sts:GetWebIdentityToken`; its SPIFFE ID.
    pub async fn web_identity(&self, token: &str) -> Result<String, Refusal> {
        let token = Secret::new(token.to_owned());
        self.attest(Evidence::AwsWebIdentity { token }).await
    }

    /// Attests with a service account's token.
    pub async fn kubernetes(&self, token: &str) -> Result<String, Refusal> {
        let token = Secret::new(token.to_owned());
        self.attest(Evidence::Kubernetes { token }).await
    }

    /// Attests with a token of an OIDC issuer.
    pub async fn oidc(&self, token: &str) -> Result<String, Refusal> {
        let token = Secret::new(token.to_owned());
        self.attest(Evidence::Oidc { token }).await
    }

    /// An access token with all scopes that the rule grants, for evidence.
    ///
    /// # Panics
    /// When there is none.
    pub async fn access_token(&self, evidence: Evidence, audience: &str) -> String {
        let evidence = bearer(evidence);
        let token = self
            .client
            .exchange_for_token(&evidence, audience, &[], &self.key)
            .await;
        token.expect("an access token").token.expose().clone()
    }

    /// Attests; its SPIFFE ID.
    pub async fn attest(&self, evidence: Evidence) -> Result<String, Refusal> {
        self.attest_with(&*bearer(evidence)).await
    }

    /// Attests with what is made of the challenge; its SPIFFE ID.
    pub async fn attest_with(&self, evidence: &MakeEvidence) -> Result<String, Refusal> {
        let leaf = KeyPair::generate().expect("a key");
        let csr = CertificateParams::default()
            .serialize_request(&leaf)
            .expect("a CSR");
        let granted = self.client.attest(evidence, None, csr.der(), &self.key);
        match granted.await {
            Ok(Credentials { chain, .. }) => {
                let svid = X509Svid::new(chain, leaf.serialize_der().into()).expect("an SVID");
                Ok(svid.id().to_string())
            }
            Err(ClientError::Refused { code, message, .. }) => Err(Refusal {
                code,
                message,
                may_ask_again: false,
            }),
            Err(ClientError::Unavailable {
                code,
                message,
                retry_after,
                ..
            }) => Err(Refusal {
                code,
                message,
                may_ask_again: retry_after.is_some(),
            }),
            Err(why) => panic!("{why}"),
        }
    }
}

impl Refusal {
    /// Checks that the evidence was judged, and for this reason.
    pub fn is_refused(&self, why: &str) {
        assert_eq!(self.code, ErrorCode::InvalidEvidence, "{self:?}");
        assert!(self.message.contains(why), "{why:?} is not in {self:?}");
    }

    /// Checks that nobody judged the evidence, and that it may be presented again.
    pub fn is_no_verdict(&self) {
        assert_eq!(self.code, ErrorCode::EvidenceUnavailable, "{self:?}");
        assert!(self.may_ask_again, "{self:?}");
    }
}

fn trust_domain() -> TrustDomain {
    TrustDomain::new(TRUST_DOMAIN).expect("a trust domain")
}
