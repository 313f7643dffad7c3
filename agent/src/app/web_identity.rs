//! Tokens of AWS that say which role this is: where roles, the identity they are named after, and the store of tokens
//! meet.

use crate::{
    aws::{Roles, WebIdentity},
    identity,
    token::{AwsWebIdentity, Mint, MintError, Minted, Minting, Wanted},
};

/// Who gives them, for people.
const STS: &str = "STS";

/// `sts:GetWebIdentityToken`.
#[derive(Debug)]
pub(super) struct FromSts {
    pub(super) roles: Roles,
    pub(super) identity: identity::Current,
}

impl Mint for FromSts {
    fn mint(&self, wanted: Wanted) -> Minting {
        let (roles, identity) = (self.roles.clone(), self.identity.clone());
        Box::pin(async move {
            let audience = wanted.audience().into_owned();
            match &wanted {
                Wanted::AwsWebIdentity(it) => mint(&roles, &identity, it, &audience).await,
                _ => Err(MintError::Unavailable {
                    audience,
                    why: "STS gives no such token; please report this".to_owned(),
                }),
            }
        })
    }
}

async fn mint(
    roles: &Roles,
    identity: &identity::Current,
    wanted: &AwsWebIdentity,
    audience: &str,
) -> Result<Minted, MintError> {
    let unavailable = |why: String| MintError::Unavailable {
        audience: audience.to_owned(),
        why,
    };
    let identity = identity.borrow().clone();
    let workload = identity.as_ref().map(|it| it.svid.id());
    let role = wanted.role.as_ref();
    let session = role.map(|role| roles.session(role, workload)).transpose();
    let session = session.map_err(|why| unavailable(why.to_string()))?;
    let audiences: Vec<String> = wanted.audiences.iter().cloned().collect();
    let asked = WebIdentity {
        audiences: &audiences,
        role: session.as_ref(),
        life: wanted.life,
        algorithm: wanted.algorithm,
        region: wanted.region.as_deref(),
    };
    let minted = roles.web_identity_token(&asked).await;
    let minted = minted.map_err(|why| match why.is_refusal() {
        true => MintError::Denied {
            by: STS.to_owned(),
            client: role.map_or_else(|| "the base credentials".to_owned(), ToString::to_string),
            error: why.code(),
            why: why.to_string(),
        },
        false => unavailable(why.to_string()),
    })?;
    Ok(Minted {
        token: minted.token,
        expires_at: minted.expires_at,
        scopes: Vec::new(),
    })
}
