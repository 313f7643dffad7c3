//! Every default, with its reason.

use std::time::Duration;

use super::value::Span;

/// How long a drain waits for requests under way: below Kubernetes' 30 s grace period, with room to exit.
pub const DRAIN: Duration = Duration::from_secs(25);

/// Time a TLS handshake may take: a slow peer on a bad link needs about two round trips; a stuck one must not hold a slot.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections accepted at once on a listener, handshakes included. At about 20 KiB each this bounds memory at some 200 MiB.
pub const MAX_CONNECTIONS: usize = 10_000;

/// Time to connect to an upstream.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Time from a request's last byte to the response's first. Above the 29 s of API Gateway, below the 60 s idle time-out of an ALB.
pub const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(30);

/// How often a request is sent again, at most: a second try finds another address, or a connection that lives; a
/// third rarely finds more.
pub const RETRIES: u32 = 1;

/// Time after which an opaque TCP connection over which nothing came is closed: above the longest that pools of
/// database drivers commonly keep an idle one (30 min).
pub const TCP_IDLE: Duration = Duration::from_secs(60 * 60);

/// Time after which a WebSocket over which nothing came is closed. One of its ends is gone then: apps ping every 20 to
/// 60 seconds, so that load balancers don't take it for dead.
pub const WEBSOCKET_IDLE: Duration = Duration::from_secs(5 * 60);

/// Oldest age of an inbound connection. As long as a default X.509-SVID lives, so that a peer proves
/// itself anew at least as often as it renews.
pub const MAX_CONNECTION_AGE: Duration = Duration::from_secs(60 * 60);

/// Most threads that carry requests, where the machine has more. A sidecar shares its machine with the
/// app it serves, and each thread costs memory of its own.
pub const MAX_WORKERS: usize = 4;

/// A role session's duration: what STS gives when not asked, and the most it gives a role that was
/// itself assumed through a role (role chaining).
pub const ROLE_SESSION: Duration = Duration::from_secs(60 * 60);

/// How often a secret of AWS Secrets Manager is read again. A rotation leaves the old value good for longer than this,
/// and at 0.05 USD for 10,000 calls an agent's secret costs a few cents a month.
pub const SECRET_REFRESH: Duration = Duration::from_secs(5 * 60);

/// Life of a token of `sts:GetWebIdentityToken`: what STS gives when not asked.
pub const WEB_IDENTITY_TTL: Duration = Duration::from_secs(5 * 60);

/// Largest body that is held in memory to be signed. Above the 10 MB of API Gateway and the 6 MB of Lambda.
pub const MAX_SIGNED_BODY: usize = 16 << 20;

/// Life of an X.509-SVID: renewed at a third of it, an agent rides out 40 minutes without an authority.
pub const SVID_TTL: Duration = Duration::from_secs(60 * 60);

/// Life of a JWT-SVID. A bearer token: short, since whoever sees it holds it.
pub const JWT_TTL: Duration = Duration::from_secs(5 * 60);

/// Life of a root: long enough that its rotation is an event one plans.
pub const ROOT_TTL: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Life of a replica's intermediate: twice the longest of the usual leaves, and all that a stolen
/// replica is good for.
pub const INTERMEDIATE_TTL: Duration = Duration::from_secs(2 * 60 * 60);

/// How long a new root is published before it signs: agents that were away for a day still know it.
pub const PUBLISH_AHEAD: Duration = Duration::from_secs(24 * 60 * 60);

/// How long an attestation record may renew an identity without new evidence: a long week-end's outage.
pub const MAX_ATTESTATION_AGE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Replicas of an authority: what every kind of state can serve.
pub const REPLICAS: u32 = 1;

/// Attestations a second for each account: a third of a core. With 1 h certificates, renewed at a third of
/// their life, one replica so serves a million agents of one account; twenty times as many at once are a
/// cold start of twenty thousand.
pub const ATTESTATIONS_PER_SECOND: u32 = 1000;

/// How often agents ask for the bundle. The SPIFFE federation document's own example is five minutes.
pub const BUNDLE_REFRESH_HINT: Duration = Duration::from_secs(5 * 60);

pub(super) fn attestations_per_second() -> u32 {
    ATTESTATIONS_PER_SECOND
}

/// How old a revocation list may be. Twelve polls: an outage of the authority is not that of its services
/// (and X.509-SVIDs last as long).
pub const REVOCATION_MAX_AGE: Duration = Duration::from_secs(60 * 60);

pub(super) fn revocation_max_age() -> Span {
    Span(REVOCATION_MAX_AGE)
}

pub(super) fn drain() -> Span {
    Span(DRAIN)
}

/// As many as there are processors for this process (its cgroup's quota counts), at most [`MAX_WORKERS`].
pub(super) fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, |count| count.get().min(MAX_WORKERS))
}

pub(super) fn max_connection_age() -> Span {
    Span(MAX_CONNECTION_AGE)
}

pub(super) fn max_connections() -> usize {
    MAX_CONNECTIONS
}

/// The rule of a Rego policy that says who may pass: what examples of Rego call it.
pub const REGO_QUERY: &str = "data.warifu.allow";

/// What a Rego policy may take. Some hundred times what one takes; and a container that has used up its share of the
/// processor is held still for up to 100 ms, which must not look like a policy without an end.
pub const REGO_TIMEOUT: Duration = Duration::from_millis(200);

pub(super) fn rego_query() -> String {
    REGO_QUERY.to_owned()
}

pub(super) fn rego_timeout() -> Span {
    Span(REGO_TIMEOUT)
}

pub(super) fn connect_timeout() -> Span {
    Span(CONNECT_TIMEOUT)
}

pub(super) fn retries() -> u32 {
    RETRIES
}

/// The shortest period of CloudWatch's metrics that costs no more than any other.
pub const EMF_EVERY: Duration = Duration::from_secs(60);

pub(super) fn emf_every() -> Span {
    Span(EMF_EVERY)
}

pub(super) fn emf_namespace() -> String {
    "Warifu".to_owned()
}

pub(super) fn role_session() -> Span {
    Span(ROLE_SESSION)
}

pub(super) fn secret_refresh() -> Span {
    Span(SECRET_REFRESH)
}

pub(super) fn web_identity_ttl() -> Span {
    Span(WEB_IDENTITY_TTL)
}

pub(super) fn max_signed_body() -> usize {
    MAX_SIGNED_BODY
}

pub(super) fn svid_ttl() -> Span {
    Span(SVID_TTL)
}

pub(super) fn jwt_ttl() -> Span {
    Span(JWT_TTL)
}

pub(super) fn root_ttl() -> Span {
    Span(ROOT_TTL)
}

pub(super) fn intermediate_ttl() -> Span {
    Span(INTERMEDIATE_TTL)
}

pub(super) fn publish_ahead() -> Span {
    Span(PUBLISH_AHEAD)
}

pub(super) fn max_attestation_age() -> Span {
    Span(MAX_ATTESTATION_AGE)
}

pub(super) fn bundle_refresh_hint() -> Span {
    Span(BUNDLE_REFRESH_HINT)
}

pub(super) fn replicas() -> u32 {
    REPLICAS
}
