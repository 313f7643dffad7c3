//! An identity with no agent around it.

use std::sync::Arc;

use warifu::identity::Identity;
use warifu_agent::{
    config::{self, agent::AgentConfig},
    identity,
    telemetry::{metrics, ready::Readiness},
};

use super::{Authority, wait::DEADLINE};

/// What an attested workload holds. It renews as an agent does while this is held.
#[derive(Debug)]
pub struct Workload {
    current: identity::Current,
    handle: identity::Handle,
}

impl Workload {
    pub(super) async fn attest(authority: &Authority, service: &str) -> Self {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), authority.join_token(service).await).expect("the join token");
        let yaml = format!(
            "trust_domain: {}
authority: {{url: \"{}\", root_spki_sha256: [{}]}}
attestation: {{join-token: {{token: \"file:{}\"}}}}
",
            authority.trust_domain(),
            authority.url(),
            authority.pins().join(", "),
            file.path().display(),
        );
        let config: AgentConfig =
            config::parse_agent(&yaml, "workload.yaml").unwrap_or_else(|why| panic!("{why}"));
        let readiness = Readiness::default();
        let condition = readiness.condition("identity", "starting");
        let (current, handle) =
            identity::start(&(&config).into(), condition, &mut metrics::registry())
                .unwrap_or_else(|why| panic!("{why}"));
        if tokio::time::timeout(DEADLINE, readiness.ready())
            .await
            .is_err()
        {
            panic!("{service} has no identity: {:?}", readiness.missing());
        }
        Self { current, handle }
    }

    /// The current identity.
    pub fn identity(&self) -> Arc<Identity> {
        self.current.borrow().clone().expect("an identity")
    }

    /// A fresh JWT-SVID for `audience`.
    pub async fn token(&self, audience: &str) -> String {
        let minted = self.handle.mint_jwt(&[audience.to_owned()], None).await;
        minted.expect("a token").token.expose().clone()
    }
}
