//! What `warifu status` shows.

use std::{sync::Arc, time::SystemTime};

use serde_json::{Value, json};
use warifu::identity::FurtherSvid;

use crate::{
    admin,
    aws::{CredentialsStatus, Roles},
    config::{
        AgentConfig,
        agent::WhenStale,
        local::{AwsCredentials, Oauth},
        outbound::Route,
        value::Listen,
        value::RoleRef,
    },
    identity,
    local::{self, files},
    secrets::{SecretStatus, Secrets, Stage},
    telemetry::timestamp::Timestamp,
    token::{TokenStatus, Tokens, Wanted},
};

/// All of it, as it is when it is asked for.
pub(super) fn status(
    config: &AgentConfig,
    identity: &identity::Current,
    renewal: &identity::Handle,
    (tokens, secrets): (&Tokens, &Secrets),
    roles: Option<Roles>,
    (local, counted): (&local::Addresses, &local::Metrics),
    files: Vec<files::State>,
) -> admin::Status {
    let outbound = config.outbound.iter();
    let routes: Vec<Value> = outbound.flat_map(|it| &it.routes).map(route).collect();
    let oauth = config.local.oauth.as_ref().zip(local.oauth.as_ref());
    let oauth = oauth.map(oauth_endpoint);
    let endpoints = config.local.aws_credentials.iter();
    let endpoints = endpoints.zip(&local.aws_credentials).map(endpoint);
    let endpoints: Vec<Value> = endpoints.collect();
    let (workload_api, counted) = (local.workload_api.clone(), counted.clone());
    let (identity, renewal) = (identity.clone(), renewal.clone());
    let (tokens, secrets) = (tokens.clone(), secrets.clone());
    Arc::new(move || {
        let held = identity.borrow().clone();
        let revocations = revocations(&renewal);
        let renewal = renewal.status();
        let tokens: Vec<Value> = tokens.status().into_iter().map(token).collect();
        let credentials = roles.as_ref().map(Roles::status).unwrap_or_default();
        let credentials: Vec<Value> = credentials.into_iter().map(aws_credentials).collect();
        json!({
            "identity": held.map(|it| json!({
                "spiffe_id": it.svid.id().to_string(),
                "not_before": Timestamp(it.svid.not_before()),
                "not_after": Timestamp(it.svid.not_after()),
                "further": it.further.iter().map(further).collect::<Vec<_>>(),
                "generation": it.generation,
                "bundle_sequence": it.bundle.sequence,
            })),
            "renewal": {
                "next_attempt": renewal.next_attempt.map(Timestamp),
                "last_error": renewal.last_error,
                "failures": renewal.failures,
                "attested_until": renewal.attested_until.map(Timestamp),
                "bridging": renewal.bridging,
            },
            "revocations": revocations,
            "routes": routes,
            "tokens": tokens,
            "secrets": secrets.status().into_iter().map(secret).collect::<Vec<_>>(),
            "aws_credentials": credentials,
            "local": {
                "aws_credentials": endpoints,
                "oauth": oauth,
                "files": files.iter().map(self::files).collect::<Vec<_>>(),
                "workload_api": workload_api.as_ref().map(|listen| json!({
                    "listen": listen.to_string(),
                    "open_streams": counted.workload_api.streams(),
                })),
            },
        })
    })
}

fn further(further: &FurtherSvid) -> Value {
    let FurtherSvid { svid, hint } = further;
    json!({
        "spiffe_id": svid.id().to_string(),
        "hint": hint,
        "not_before": Timestamp(svid.not_before()),
        "not_after": Timestamp(svid.not_after()),
    })
}

fn revocations(renewal: &identity::Handle) -> Value {
    let revocations = renewal.revocations();
    let known = revocations.load();
    let settings = revocations.settings();
    json!({
        "number": known.list.number(),
        "entries": known.list.len(),
        "as_of": known.as_of.map(Timestamp),
        "stale": revocations.is_stale(SystemTime::now()),
        "when_stale": match settings.when_stale {
            WhenStale::Serve => "serve",
            WhenStale::Refuse => "refuse",
        },
        "last_error": known.last_error,
    })
}

fn route(route: &Route) -> Value {
    json!({
        "host": route.host,
        "upstream": route.upstream.to_string(),
        "expect": route.mtls.as_ref().map(|mtls| mtls.expect.to_string()),
        "attaches": route.ways().first(),
        "audience": route.jwt.as_ref().map(|jwt| &jwt.audience)
            .or(route.access_token.as_ref().map(|it| &it.audience)),
        "audiences": route.aws_web_identity.as_ref().map(|it| &it.audiences),
        "sign_for": route.sigv4.as_ref().map(|sigv4| &sigv4.service),
        "role": role(route).map(ToString::to_string),
    })
}

/// The role that it signs as, or whose token it attaches.
fn role(route: &Route) -> Option<&RoleRef> {
    let signs = route.sigv4.as_ref().and_then(|it| it.role.as_ref());
    signs.or_else(|| route.aws_web_identity.as_ref()?.role.as_ref())
}

fn oauth_endpoint((config, listen): (&Oauth, &Listen)) -> Value {
    json!({
        "listen": listen.to_string(),
        "client": config.client.as_ref().map(|client| &client.id),
        "audiences": config.audiences,
        "scopes": config.scopes,
    })
}

fn token(token: TokenStatus) -> Value {
    let grant = match &token.wanted {
        Wanted::Oauth(grant) => Some(grant),
        _ => None,
    };
    json!({
        "kind": token.wanted.kind(),
        "spiffe_id": token.wanted.further().map(ToString::to_string),
        "audience": token.wanted.audience(),
        "scopes": token.wanted.scopes(),
        "granted": token.scopes,
        "token_url": grant.map(|it| &it.token_url),
        "client": grant.map(|it| &it.client),
        "expires": token.expires.map(Timestamp),
        "failures": token.failures,
        "last_error": token.last_error,
    })
}

fn secret(secret: SecretStatus) -> Value {
    json!({
        "name": secret.name,
        "stage": secret.stage.map(Stage::label),
        "read": secret.read.map(Timestamp),
        "failures": secret.failures,
        "last_error": secret.last_error,
    })
}

fn files(state: &files::State) -> Value {
    let (place, status) = (state.place(), state.status());
    json!({
        "directory": place.directory,
        "certificate": place.names.certificate,
        "written": status.written.map(Timestamp),
        "not_after": status.not_after.map(Timestamp),
        "expired": status.expired,
        "failures": status.failures,
        "last_error": status.last_error,
    })
}

fn endpoint((config, listen): (&AwsCredentials, &Listen)) -> Value {
    json!({
        "listen": listen.to_string(),
        "role": config.role.to_string(),
        "token_file": config.token_file,
        "unsafe_imds": config.unsafe_imds,
    })
}

fn aws_credentials(credentials: CredentialsStatus) -> Value {
    json!({
        "name": credentials.name,
        "session": credentials.session,
        "obtained": credentials.obtained.map(Timestamp),
        "expires": credentials.expires.map(Timestamp),
        "failures": credentials.failures,
        "last_error": credentials.last_error,
    })
}
