//! `tokens`, `web` and `federation`.

use crate::config::{
    authority::{AuthorityConfig, Federated, FederationProfile, Web, issuer_path},
    validate::{Path, Problems, root},
    value::Listen,
};

/// Each is asked for its bundle every few minutes, and each agent holds what came.
const MAX_FEDERATED: usize = 100;

pub(super) fn publish(config: &AuthorityConfig, problems: &mut Problems) {
    tokens(config, problems);
    if let Some(web) = &config.web {
        self::web(web, problems);
    }
    let at = root().key("federation");
    problems.at_most(MAX_FEDERATED, config.federation.len(), at.clone());
    for (index, federated) in config.federation.iter().enumerate() {
        let at = at.index(index);
        let earlier = config.federation.iter().take(index);
        problems.add_if(
            federated.trust_domain == config.trust_domain,
            at.key("trust_domain"),
            format!(
                "{} is this authority's own; name another trust domain",
                config.trust_domain
            ),
        );
        problems.add_if(
            earlier
                .map(|it| &it.trust_domain)
                .any(|it| *it == federated.trust_domain),
            at.key("trust_domain"),
            format!(
                "{} is listed already; a trust domain has one bundle",
                federated.trust_domain
            ),
        );
        self::federated(federated, &at, problems);
    }
}

fn tokens(config: &AuthorityConfig, problems: &mut Problems) {
    let (Some(svid), Some(access)) = (&config.tokens.jwt_svid, &config.tokens.access_token) else {
        return;
    };
    let at = root().key("tokens").key("access_token").key("issuer");
    problems.add_if(
        svid.issuer == access.issuer,
        at.clone(),
        "expected another issuer than that of tokens.jwt_svid: who trusts one kind of token must not \
         accept the other",
    );
    let path = issuer_path(&access.issuer);
    problems.add_if(
        config.web.is_some() && svid.issuer != access.issuer && issuer_path(&svid.issuer) == path,
        at,
        format!(
            "its path on the web listener, {:?}, is that of tokens.jwt_svid.issuer; give them different paths, \
             such as https://tokens.example.org/access",
            format!("{path}/")
        ),
    );
}

fn web(web: &Web, problems: &mut Problems) {
    problems.add_if(
        web.tls.is_none() && !Listen::Tcp(web.listen).is_local(),
        root().key("web").key("tls"),
        format!(
            "expected a certificate, or a loopback address in web.listen: others would read keys from {} without \
             knowing whose they are",
            web.listen
        ),
    );
}

fn federated(federated: &Federated, at: &Path, problems: &mut Problems) {
    let of_spiffe =
        "is for profile: https_spiffe; with https_web the endpoint is known by its name";
    match federated.profile {
        FederationProfile::HttpsWeb => {
            problems.add_if(
                federated.endpoint_spiffe_id.is_some(),
                at.key("endpoint_spiffe_id"),
                format!("this {of_spiffe}"),
            );
            problems.add_if(
                federated.bundle.is_some(),
                at.key("bundle"),
                format!("this {of_spiffe}"),
            );
        }
        FederationProfile::HttpsSpiffe => {
            problems.add_if(
                !federated.url.tls,
                at.key("url"),
                "expected https:// with profile: https_spiffe, which knows the endpoint by its certificate",
            );
            problems.add_if(
                federated.ca_file.is_some(),
                at.key("ca_file"),
                "this is for profile: https_web; with https_spiffe the endpoint is verified with the \
                 trust domain's own bundle",
            );
            problems.add_if(
                federated.bundle.is_none(),
                at.key("bundle"),
                "expected the file of the first bundle with profile: https_spiffe: nothing else verifies the \
                 endpoint when it is first asked",
            );
            let id = federated.endpoint_spiffe_id.as_ref();
            problems.add_if(
                id.is_none_or(|id| *id.trust_domain() != federated.trust_domain),
                at.key("endpoint_spiffe_id"),
                format!(
                    "expected the endpoint's SPIFFE ID, of the trust domain itself, such as \
                     spiffe://{}/spire/server",
                    federated.trust_domain
                ),
            );
        }
    }
}
