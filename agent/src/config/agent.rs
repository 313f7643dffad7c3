//! `agent.yaml`.

use std::path::PathBuf;

use warifu::{SpiffeId, TrustDomain};

use super::value::{
    Forward, HttpsOrigin, IdPattern, Listen, SecretRef, Span, SpkiPin, Target, Upstream,
};

/// The agent's configuration file.
// The contract: helpers add the serde/schemars plumbing, names and meaning stay.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// The trust domain this agent belongs to.
    pub trust_domain: TrustDomain,
    /// Who issues its identity.
    pub authority: AuthorityRef,
    /// What it proves itself with.
    pub attestation: Attestation,
    /// Where the renewal key and attestation record survive a restart (0700); kept in memory when absent.
    pub state_dir: Option<PathBuf>,
    /// Listeners for calls to the app.
    pub inbound: Vec<Inbound>,
    /// The listener for calls from the app.
    pub outbound: Option<Outbound>,
    /// AWS settings shared by every sigv4 route.
    pub aws: Aws,
    /// Probes, metrics, status.
    pub admin: Admin,
    /// Audit log.
    pub audit: Audit,
    /// How long a drain waits for requests under way.
    pub drain: Span,
    /// Threads that carry requests.
    pub workers: usize,
}

/// How to reach the authority and know that it is the authority.
#[derive(Debug, Clone)]
pub struct AuthorityRef {
    /// Its URL. Its certificate must be `spiffe://TD/warifu/authority`.
    pub url: HttpsOrigin,
    /// Pins: SHA-256 of a root's SubjectPublicKeyInfo. This or `bundle` is required.
    pub root_spki_sha256: Vec<SpkiPin>,
    /// A PEM file of root certificates.
    pub bundle: Option<PathBuf>,
}

/// What the agent proves itself with.
#[derive(Debug, Clone)]
pub enum Attestation {
    /// `{join-token: {token: "file:/…"}}`.
    JoinToken {
        /// The single-use token.
        token: SecretRef,
    },
}

/// A listener for calls to the app.
#[derive(Debug, Clone)]
pub struct Inbound {
    /// Where callers connect.
    pub listen: Listen,
    /// The app.
    pub forward: Forward,
    /// How a caller may prove itself; at least one.
    pub accept: Vec<Accept>,
    /// Who may call what; nobody where empty.
    pub allow: Vec<Allow>,
    /// Claims put into headers: claim → header name.
    pub forward_claims: std::collections::BTreeMap<String, http::HeaderName>,
    /// Sign the caller for apps that are reached over TCP.
    pub context: Option<Context>,
    /// Oldest age of a connection before it is closed in favour of a new handshake.
    pub max_connection_age: Span,
    /// Connections at once.
    pub max_connections: usize,
}

/// The signed context ([`warifu::caller::context`]).
#[derive(Debug, Clone)]
pub struct Context {
    /// Where the agent writes its public context key (JWK set) at start.
    pub key_file: PathBuf,
}

/// One way to prove oneself.
#[derive(Debug, Clone)]
pub enum Accept {
    /// `{mtls: {trust_domains: [...]}}`: an X.509-SVID of one of these trust domains.
    Mtls {
        /// Only the agent's own trust domain until federation exists.
        trust_domains: Vec<TrustDomain>,
    },
    /// `{jwt: {profile: jwt-svid, audiences: [...]}}`: a bearer token.
    Jwt(JwtAccept),
}

/// A bearer token by issuer profile.
#[derive(Debug, Clone)]
pub struct JwtAccept {
    /// Which kind of token.
    pub profile: JwtProfile,
    /// Audiences that mean us.
    pub audiences: Vec<String>,
}

/// Kinds of bearer token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JwtProfile {
    /// `jwt-svid`, verified with the trust domain's bundle.
    JwtSvid,
}

/// A rule that allows. All parts that are present must hold.
#[derive(Debug, Clone)]
pub struct Allow {
    /// The TLS peer's SPIFFE ID.
    pub peer: Option<IdPattern>,
    /// What a token must say.
    pub subject: Option<SubjectMatch>,
    /// What may be asked.
    pub to: Vec<Target>,
}

/// What a token must say.
#[derive(Debug, Clone, Default)]
pub struct SubjectMatch {
    /// `sub`, a SPIFFE ID (jwt-svid).
    pub spiffe_id: Option<IdPattern>,
    /// A scope it must have.
    pub scope: Option<String>,
}

/// The listener for calls from the app.
#[derive(Debug, Clone)]
pub struct Outbound {
    /// Loopback or a unix socket.
    pub listen: Listen,
    /// By host; what no route names is refused.
    pub routes: Vec<Route>,
}

/// Where calls to one host go and what is attached.
#[derive(Debug, Clone)]
pub struct Route {
    /// What the app calls: the request's host, without a port, lower case.
    pub host: String,
    /// Where it goes.
    pub upstream: Upstream,
    /// mTLS with our X.509-SVID.
    pub mtls: Option<RouteMtls>,
    /// A JWT-SVID in `authorization`.
    pub jwt: Option<RouteJwt>,
    /// An AWS SigV4 signature.
    pub sigv4: Option<RouteSigV4>,
    /// Time to the response's first byte.
    pub timeout: Span,
}

/// mTLS on a route.
#[derive(Debug, Clone)]
pub struct RouteMtls {
    /// The upstream's SPIFFE ID.
    pub expect: SpiffeId,
}

/// A JWT-SVID on a route.
#[derive(Debug, Clone)]
pub struct RouteJwt {
    /// Its only audience.
    pub audience: String,
}

/// A SigV4 signature on a route.
#[derive(Debug, Clone)]
pub struct RouteSigV4 {
    /// The signing name: `execute-api`, `lambda`, ….
    pub service: String,
    /// The region; `aws.region` where absent.
    pub region: Option<String>,
    /// The role to assume; the base credentials sign where absent.
    pub role: Option<String>,
    /// The role session's name; derived from the SPIFFE ID where absent.
    pub session_name: Option<String>,
    /// The trust policy's external id.
    pub external_id: Option<String>,
    /// The role session's duration, 15 min to 12 h.
    pub duration: Span,
    /// Further headers to sign, beside `host`, `content-type` and `x-amz-*`.
    pub signed_headers: Vec<http::HeaderName>,
    /// Largest body, hashed before it is sent; 413 beyond.
    pub max_body: usize,
}

/// AWS settings.
#[derive(Debug, Clone, Default)]
pub struct Aws {
    /// The region, where neither the environment nor a profile says.
    pub region: Option<String>,
    /// Another STS endpoint (`http://` for loopback only).
    pub sts_endpoint: Option<Upstream>,
}

/// Admin listeners.
#[derive(Debug, Clone)]
pub struct Admin {
    /// Status and drain: a unix socket (or loopback).
    pub listen: Option<Listen>,
    /// `/healthz`, `/readyz`, `/metrics` only; may be exposed.
    pub probes: Option<Listen>,
}

/// The audit log.
#[derive(Debug, Clone, Default)]
pub struct Audit {
    /// Standard output where absent.
    pub file: Option<PathBuf>,
}
