//! `oauth` of a route.

use super::{Path, Problems};
use crate::config::outbound::{RouteOauth, RouteOauthClient};

/// More resources than any token is for.
const MAX_RESOURCES: usize = 10;

pub(super) fn oauth(oauth: &RouteOauth, at: &Path, problems: &mut Problems) {
    let RouteOauthClient {
        id,
        client_secret_basic,
        client_secret_post,
        private_key_jwt,
        tls_client_auth,
        spiffe_jwt,
    } = &oauth.client;
    let client = at.key("client");
    let ways = [
        client_secret_basic.is_some(),
        client_secret_post.is_some(),
        private_key_jwt.is_some(),
        tls_client_auth.is_some(),
        spiffe_jwt.is_some(),
    ];
    problems.add_if(
        ways.iter().filter(|it| **it).count() != 1,
        client.clone(),
        "expected exactly one of client_secret_basic, client_secret_post, private_key_jwt, tls_client_auth and spiffe_jwt",
    );
    let own_files = tls_client_auth
        .as_ref()
        .is_some_and(|it| it.certificate.is_some());
    let says_who = spiffe_jwt.is_some() || (tls_client_auth.is_some() && !own_files);
    problems.add_if(
        id.is_none() && !says_who,
        client.key("id"),
        "expected the client_id that the provider has registered",
    );
    if let Some(tls) = tls_client_auth {
        problems.add_if(
            tls.certificate.is_some() != tls.key.is_some(),
            client.key("tls_client_auth"),
            "expected certificate and key, or neither: then it is our X.509-SVID",
        );
        problems.add_if(
            !oauth.token_url.tls,
            at.key("token_url"),
            "a client certificate needs https://",
        );
    }
    problems.add_if(
        oauth.issuer.is_none() && (private_key_jwt.is_some() || spiffe_jwt.is_some()),
        at.key("issuer"),
        "expected the provider's issuer identifier, as its metadata has it (RFC 8414): an assertion is for it alone",
    );
    problems.add_if(
        oauth.ca_bundle.is_some() && !oauth.token_url.tls,
        at.key("ca_bundle"),
        "there is no TLS to verify: token_url is http://",
    );
    problems.at_most(MAX_RESOURCES, oauth.resource.len(), at.key("resource"));
}
