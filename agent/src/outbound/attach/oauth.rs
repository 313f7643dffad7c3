//! Tokens of other providers: wired here, attached as every [bearer](super::bearer) token is.

use std::sync::Arc;

use crate::{
    config::outbound::{RouteOauth, RouteOauthClient, RsaSigning},
    outbound::{Setup, route::RouteError},
    token::{
        Source, Wanted,
        oauth::{Authentication, Certificate, Grant, Provider, RsaAlgorithm},
    },
};

/// The tokens of a route: those that routes with the same provider, client and wishes have.
pub(super) fn source(
    route: &str,
    oauth: &RouteOauth,
    setup: &Setup<'_>,
) -> Result<Source, RouteError> {
    let wrong = |why: String| RouteError::Oauth {
        route: route.to_owned(),
        why,
    };
    let (how, authentication) = authentication(oauth, setup)
        .ok_or_else(|| wrong("the client authenticates in none of the ways there are".into()))?;
    let id = oauth.client.id.as_deref().unwrap_or("our SPIFFE ID");
    let grant = Grant {
        token_url: oauth.token_url.to_string(),
        client: format!("{id} by {how}"),
        scopes: oauth.scopes.iter().cloned().collect(),
        audience: oauth.audience.clone(),
        resources: oauth.resource.clone(),
        ca_bundle: oauth.ca_bundle.clone(),
    };
    let provider = Provider::new(grant.clone(), authentication);
    let provider = Arc::new(provider.map_err(|why| wrong(why.to_string()))?);
    let wanted = Wanted::Oauth(Box::new(grant));
    Ok(setup.tokens.source_of(wanted, Arc::new(provider)))
}

/// How the client proves itself, and all that tells this proof from others, in words.
fn authentication(oauth: &RouteOauth, setup: &Setup<'_>) -> Option<(String, Authentication)> {
    let RouteOauthClient {
        id,
        client_secret_basic,
        client_secret_post,
        private_key_jwt,
        tls_client_auth,
        spiffe_jwt,
    } = &oauth.client;
    if let Some(secret) = client_secret_basic {
        let how = format!("client_secret_basic with {secret}");
        let (id, secret) = (id.clone()?, setup.secrets.source(secret));
        return Some((how, Authentication::Basic { id, secret }));
    }
    if let Some(secret) = client_secret_post {
        let how = format!("client_secret_post with {secret}");
        let (id, secret) = (id.clone()?, setup.secrets.source(secret));
        return Some((how, Authentication::Post { id, secret }));
    }
    if let Some(jwt) = private_key_jwt {
        let (issuer, kid) = (oauth.issuer.clone()?, jwt.kid.clone());
        let rsa = match jwt.rsa {
            RsaSigning::Rs256 => RsaAlgorithm::Rs256,
            RsaSigning::Ps256 => RsaAlgorithm::Ps256,
        };
        let named = kid.as_deref().unwrap_or("its thumbprint");
        let how = format!(
            "private_key_jwt with {} ({named}, {rsa:?}) to {issuer}",
            jwt.key
        );
        let private_key_jwt = Authentication::PrivateKeyJwt {
            id: id.clone()?,
            issuer,
            key: setup.secrets.source(&jwt.key),
            kid,
            rsa,
        };
        return Some((how, private_key_jwt));
    }
    if let Some(tls) = tls_client_auth {
        let (how, certificate) = match (&tls.certificate, &tls.key) {
            (Some(certificate), Some(key)) => {
                let (certificate, key) = (certificate.clone(), key.clone());
                let how = format!("tls_client_auth with {}", certificate.display());
                (how, Certificate::Files { certificate, key })
            }
            _ => {
                let identity = setup.identity.clone();
                let how = "tls_client_auth with our X.509-SVID".to_owned();
                (how, Certificate::Svid(identity))
            }
        };
        let id = id.clone();
        return Some((how, Authentication::TlsClientAuth { id, certificate }));
    }
    spiffe_jwt.as_ref()?;
    let issuer = oauth.issuer.as_ref()?;
    let how = format!("our JWT-SVID to {issuer}");
    let svids = setup.tokens.source(Wanted::jwt_svid(issuer));
    let id = id.clone();
    Some((how, Authentication::SpiffeJwt { id, svids }))
}
