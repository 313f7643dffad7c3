//! `warifu check`.

use std::{fmt::Write, path::PathBuf, process::ExitCode};

use clap::{Args, ValueEnum};
use warifu_agent::{
    config::{
        self, AgentConfig, AuthorityConfig, FileKind,
        authority::CaKey,
        inbound::{Accept, Inbound},
        outbound::Route,
        schema,
    },
    inbound,
};

use super::Failure;

/// Validate a configuration file: every mistake with file, line, field and what was expected
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  warifu check --config /etc/warifu/agent.yaml\n  warifu check --schema agent \
                        > agent.schema.json"
)]
pub(super) struct CheckArgs {
    /// The file, an agent's or an authority's
    #[arg(long, value_name = "FILE", required_unless_present = "schema")]
    config: Option<PathBuf>,
    /// Print the JSON Schema of such a file instead, for editors
    #[arg(long, value_name = "KIND", conflicts_with = "config")]
    schema: Option<SchemaKind>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum SchemaKind {
    Agent,
    Authority,
    PolicyTest,
}

pub(super) fn run(args: &CheckArgs) -> Result<ExitCode, Failure> {
    if let Some(kind) = args.schema {
        print!(
            "{}",
            match kind {
                SchemaKind::Agent => schema::agent(),
                SchemaKind::Authority => schema::authority(),
                SchemaKind::PolicyTest => schema::policy_test(),
            }
        );
        return Ok(ExitCode::SUCCESS);
    }
    let path = args
        .config
        .as_deref()
        .ok_or_else(|| Failure::usage("checking a configuration", "no file was named"))?;
    let summary = match config::kind_of(path)? {
        FileKind::Agent => {
            let config = config::load_agent(path)?;
            for (index, inbound) in config.inbound.iter().enumerate() {
                inbound::policy_of(inbound).map_err(|why| {
                    let doing = format!("checking the rules of {}", path.display());
                    Failure::usage(&doing, format!("inbound[{index}].{why}"))
                })?;
            }
            agent(&config)
        }
        FileKind::Authority => authority(&config::load_authority(path)?),
    };
    print!("{} is valid: {summary}", path.display());
    Ok(ExitCode::SUCCESS)
}

fn agent(config: &AgentConfig) -> String {
    let mut out = format!("an agent of {}\n", config.trust_domain);
    let mut line = |name: &str, what: String| {
        let _ = writeln!(out, "  {name:<10} {what}");
    };
    line("authority", config.authority.url.to_string());
    for inbound in &config.inbound {
        line("inbound", self::inbound(inbound));
    }
    if let Some(outbound) = &config.outbound {
        line("outbound", outbound.listen.to_string());
        for route in &outbound.routes {
            line("", self::route(route));
        }
        for tcp in &outbound.tcp {
            line("tcp", format!("{} -> {}, mtls", tcp.listen, tcp.upstream));
        }
    }
    if let Some(listen) = &config.admin.listen {
        line("admin", listen.to_string());
    }
    if let Some(probes) = &config.admin.probes {
        line("probes", probes.to_string());
    }
    out
}

fn inbound(inbound: &Inbound) -> String {
    let accept: Vec<&str> = inbound
        .accept
        .iter()
        .map(|accept| match accept {
            Accept::Mtls { .. } => "mtls",
            Accept::Jwt(jwt) => jwt.profile.name(),
            Accept::AwsWebIdentity(_) => "aws-web-identity",
            Accept::SecretHeader(_) => "secret-header",
        })
        .collect();
    let rules = match (inbound.allow.len(), inbound.deny.len()) {
        (0, _) if inbound.rego.is_none() => "no rule allows, so nobody may call".to_owned(),
        (1, 0) => "1 rule".to_owned(),
        (allow, deny) => format!("{} rules", allow + deny),
    };
    let listen = &inbound.listen;
    let behind = match &inbound.forward {
        Some(forward) => format!("-> {forward}"),
        None => "decides for Envoy (ext_authz)".to_owned(),
    };
    let rego = inbound
        .rego
        .as_ref()
        .map(|it| format!(", then {}", it.query));
    let permissive = inbound
        .permissive
        .map(|it| format!("; permissive until {}", it.until));
    format!(
        "{listen} {behind}, accepts {}; {rules}{}{}",
        accept.join(", "),
        rego.unwrap_or_default(),
        permissive.unwrap_or_default()
    )
}

fn route(route: &Route) -> String {
    let mtls = route.mtls.as_ref().map(|_| "mtls");
    let attached: Vec<&str> = mtls.into_iter().chain(route.ways()).collect();
    let attached = match attached.is_empty() {
        true => "nothing attached".to_owned(),
        false => attached.join(", "),
    };
    format!("http://{}/ -> {}/ ({attached})", route.host, route.upstream)
}

fn authority(config: &AuthorityConfig) -> String {
    let mut out = format!("the authority of {}\n", config.trust_domain);
    let ca = match &config.ca.key {
        CaKey::Memory => "in memory, gone with the process".to_owned(),
        CaKey::Disk { path } => path.display().to_string(),
        CaKey::AwsKms { key_id, .. } => format!("in KMS: {key_id}"),
        CaKey::AcmPca { arn, .. } => format!("in ACM PCA: {arn}"),
    };
    let attestors: Vec<&str> = config.attestors.keys().map(String::as_str).collect();
    for (name, what) in [
        ("listen", config.listen.to_string()),
        ("admin", config.admin.to_string()),
        ("keys", ca),
        ("attestors", attestors.join(", ")),
        ("rules", config.rules.len().to_string()),
    ] {
        let _ = writeln!(out, "  {name:<10} {what}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_valid_file_is_summed_up() {
        let text = include_str!("../../../docs/examples/agent.yaml");
        let summary = agent(&config::parse_agent(text, "agent.yaml").unwrap());
        assert_eq!(
            summary,
            "an agent of example.org
  authority  https://authority.warifu.internal:8443
  inbound    0.0.0.0:8443 -> unix:/run/warifu/app.sock, accepts mtls, jwt-svid; 2 rules
  outbound   unix:/run/warifu/outbound.sock
             http://payments/ -> https://payments.prod.svc.cluster.local:8443/ (mtls, jwt)
             http://orders-api/ -> https://abc123.execute-api.ap-northeast-1.amazonaws.com/prod/ (sigv4)
  admin      unix:/run/warifu/admin.sock
  probes     0.0.0.0:9100
"
        );
        let text = include_str!("../../../docs/examples/authority.yaml");
        let summary = authority(&config::parse_authority(text, "authority.yaml").unwrap());
        assert!(
            summary.contains("attestors  aws, bootstrap, prod\n  rules      4\n"),
            "{summary}"
        );
    }
    #[test]
    fn whatever_a_route_attaches_is_told() {
        let text = "\
trust_domain: example.org
authority: {url: 'https://authority:8443', bundle: /etc/roots.pem}
attestation: aws-web-identity
outbound:
  listen: unix:/o
  routes:
  - host: partner
    upstream: https://api.partner.example
    oauth: {token_url: 'https://auth.partner.example/token', client: {id: orders, client_secret_basic: 'file:/s'}}
  - host: open
    upstream: https://open.example
";
        let config = config::parse_agent(text, "agent.yaml");
        let config = config.unwrap_or_else(|errors| panic!("{errors}"));
        let routes = config.outbound.unwrap().routes;
        assert!(
            route(&routes[0]).ends_with("(oauth)"),
            "{}",
            route(&routes[0])
        );
        assert!(route(&routes[1]).ends_with("(nothing attached)"));
    }
}
