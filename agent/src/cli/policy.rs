//! `warifu policy`: what a listener's rules say of made-up requests, without a listener.

use std::{net::IpAddr, path::Path, process::ExitCode, time::SystemTime};

use clap::{Args, Subcommand};
use http::{HeaderMap, HeaderValue, Method};
use serde::Serialize;
use warifu::{
    Caller,
    caller::{Peer, Subject},
};
use warifu_agent::{
    config::{
        self,
        cases::{Case, CaseSubject},
        inbound::{Accept, Inbound},
    },
    http::path::normal_form,
    inbound::policy_of,
    policy::{Decision, Evidence, Explained, Explanation, PROOF_JWT_SVID, Policy, Reason, Request},
};

use super::Failure;

mod explain;
mod test;

/// Say what the rules of a configuration decide, and why; nothing is started, asked or sent
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  warifu policy explain --config /etc/warifu/agent.yaml --peer \
                  spiffe://example.org/orders POST /charges\n  warifu policy test policy-test.yaml"
)]
pub(super) struct PolicyArgs {
    #[command(subcommand)]
    command: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Explain(Box<explain::ExplainArgs>),
    Test(test::TestArgs),
}

pub(super) fn run(args: &PolicyArgs) -> Result<ExitCode, Failure> {
    match &args.command {
        What::Explain(args) => explain::run(args),
        What::Test(args) => test::run(args),
    }
}

/// A listener's rules, compiled as the listener compiles them.
struct Rules {
    listener: Inbound,
    policy: Policy,
}

/// What a request asks for, once it is made up.
struct MadeUp {
    caller: Caller,
    evidence: Evidence,
    method: Method,
    path: String,
    headers: HeaderMap,
    source: Option<IpAddr>,
    now: SystemTime,
}

/// What was decided, as both commands show it.
#[derive(Debug, Serialize)]
struct Answer {
    decision: &'static str,
    /// The rule that decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<String>,
    /// Why it is denied where no rule did.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shadow_denied_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shadow_allowed_by: Option<String>,
    /// Those that hold, and those that nearly do.
    rules: Vec<Explained>,
}

/// Rules beyond those that hold that are worth reading.
const NEAREST: usize = 3;

impl Rules {
    /// Those of the listener that `wanted` names by place or address, or of the only one.
    fn load(path: &Path, wanted: Option<&str>) -> Result<Self, Failure> {
        let doing = format!("looking for the listener in {}", path.display());
        let config = config::load_agent(path)?;
        let addresses: Vec<String> = config
            .inbound
            .iter()
            .enumerate()
            .map(|(place, it)| format!("{place} ({})", it.listen))
            .collect();
        let fits = |(place, it): &(usize, &Inbound)| match wanted {
            None => config.inbound.len() == 1,
            Some(wanted) => *wanted == place.to_string() || *wanted == it.listen.to_string(),
        };
        let found = config.inbound.iter().enumerate().find(fits);
        let Some((index, listener)) = found else {
            let listed = addresses.join(", ");
            return Err(match (addresses.len(), wanted) {
                (0, _) => Failure::usage(&doing, "the configuration has no listener in inbound"),
                (_, None) => Failure::usage(&doing, "the configuration has several")
                    .next(format!("say which with --listener: {listed}")),
                (_, Some(wanted)) => Failure::usage(&doing, format!("there is no {wanted:?}"))
                    .next(format!("there are: {listed}")),
            });
        };
        Ok(Self {
            policy: policy_of(listener).map_err(|why| {
                let doing = format!("reading the rules of {}", path.display());
                Failure::usage(&doing, format!("inbound[{index}].{why}"))
            })?,
            listener: listener.clone(),
        })
    }

    fn explain(&self, case: &Case) -> Result<Answer, Failure> {
        let made_up = self.make_up(case)?;
        let request = Request {
            method: &made_up.method,
            path: &made_up.path,
            host: made_up.headers.get("host").and_then(|it| it.to_str().ok()),
            headers: &made_up.headers,
            source: made_up.source,
            now: made_up.now,
        };
        let explanation = self
            .policy
            .explain(&made_up.caller, &made_up.evidence, request);
        Ok(Answer::new(explanation))
    }

    fn make_up(&self, case: &Case) -> Result<MadeUp, Failure> {
        let doing = format!("making up the request {:?}", case.request);
        let (method, path) = case.split().ok_or_else(|| {
            Failure::usage(
                &doing,
                "expected a method and a path such as GET /charges/1",
            )
        })?;
        let method = Method::from_bytes(method.as_bytes())
            .map_err(|_| Failure::usage(&doing, format!("{method:?} is no method")))?;
        let path = path.split_once('?').map_or(path, |(path, _)| path);
        let path = normal_form(path).map_err(|why| {
            Failure::usage(&doing, why)
                .next("a listener answers 400 before it asks any rule; there is nothing to explain")
        })?;
        let mut headers = HeaderMap::new();
        for (name, values) in &case.headers {
            for value in values {
                let value = HeaderValue::from_str(value).map_err(|_| {
                    Failure::usage(&doing, format!("{value:?} can't be the value of {name}"))
                })?;
                headers.append(name, value);
            }
        }
        let mut caller = Caller {
            peer: case.peer.clone().map(|spiffe_id| Peer {
                spiffe_id,
                cert_sha256: String::new(),
            }),
            subject: None,
        };
        let mut evidence = Evidence::default();
        if let Some(subject) = &case.subject {
            (caller.subject, evidence) = self.proved(subject, &doing)?;
        }
        Ok(MadeUp {
            caller,
            evidence,
            method,
            path: path.into_owned(),
            headers,
            source: case.source,
            now: case.at.map_or_else(SystemTime::now, |at| at.0),
        })
    }

    fn proved(
        &self,
        subject: &CaseSubject,
        doing: &str,
    ) -> Result<(Option<Subject>, Evidence), Failure> {
        let names: Vec<&str> = self
            .listener
            .accept
            .iter()
            .filter_map(Accept::name)
            .collect();
        let accept = match (&subject.issuer, names.as_slice()) {
            (Some(issuer), names) if names.contains(&issuer.as_str()) => Some(issuer.clone()),
            (Some(issuer), names) => {
                let why = format!("no entry of accept is called {issuer:?} and proves a subject");
                return Err(
                    Failure::usage(doing, why).next(format!("there are: [{}]", names.join(", ")))
                );
            }
            (None, [only]) => Some((*only).to_owned()),
            (None, _) => None,
        };
        let claims = subject.claims.clone();
        let sub = claims.get("sub").and_then(|sub| sub.as_str());
        let role = subject.role.as_ref().map(|role| role.0.clone());
        let (proof, name) = match (&subject.spiffe_id, &role) {
            (Some(id), _) => (PROOF_JWT_SVID.to_owned(), id.to_string()),
            (None, Some(role)) => ("aws-web-identity".to_owned(), role.clone()),
            (None, None) => ("token".to_owned(), sub.unwrap_or_default().to_owned()),
        };
        let mut scopes = subject.scopes.clone();
        if let Some(scope) = claims.get("scope").and_then(|scope| scope.as_str()) {
            scopes.extend(scope.split(' ').map(str::to_owned));
        }
        let subject = Subject {
            proof,
            subject: name,
            issuer: None,
            scopes,
            claims: Default::default(),
        };
        let evidence = Evidence {
            claims,
            accept,
            role,
        };
        Ok((Some(subject), evidence))
    }
}

impl Answer {
    fn new(explanation: Explanation) -> Self {
        let shadow = explanation.verdict.shadow.map(|rule| rule.to_string());
        let (decision, rule, reason) = match explanation.verdict.decision {
            Decision::Allow(rule) => ("allow", Some(rule.to_string()), None),
            Decision::Deny(Reason::Rule(rule)) => ("deny", Some(rule.to_string()), None),
            Decision::Deny(
                ref reason @ (Reason::NotByRego(ref rule) | Reason::Undecided(ref rule, _)),
            ) => ("deny", Some(rule.to_string()), Some(reason.as_str())),
            Decision::Deny(reason) => ("deny", None, Some(reason.as_str())),
        };
        let (shadow_denied_by, shadow_allowed_by) = match decision {
            "allow" => (shadow, None),
            _ => (None, shadow),
        };
        let (mut rules, misses): (Vec<_>, Vec<_>) = explanation
            .rules
            .into_iter()
            .partition(|rule| rule.misses.is_empty());
        rules.extend(misses.into_iter().take(NEAREST));
        Self {
            decision,
            rule,
            reason,
            shadow_denied_by,
            shadow_allowed_by,
            rules,
        }
    }

    /// As lines for people, each after `indent`.
    fn shown(&self, indent: &str) -> String {
        let decided = match (self.decision, &self.rule, self.reason) {
            ("allow", Some(rule), _) => format!("allowed by {rule}"),
            (_, Some(rule), Some("not_allowed_by_rego")) => {
                format!("denied: {rule} does not allow it")
            }
            (_, Some(rule), Some(_)) => format!("denied: {rule} says nothing"),
            (_, Some(rule), None) => format!("denied by {rule}"),
            (_, None, Some("no_rule_for_caller")) => {
                "denied: no rule allows this caller anything".to_owned()
            }
            _ => "denied: no rule allows this caller this request".to_owned(),
        };
        let mut lines = vec![decided];
        if let Some(rule) = &self.shadow_denied_by {
            lines.push(format!("in shadow, {rule} would have denied it"));
        }
        if let Some(rule) = &self.shadow_allowed_by {
            lines.push(format!("in shadow, {rule} would have allowed it"));
        }
        for rule in &self.rules {
            let shadow = if rule.shadow { ", in shadow" } else { "" };
            let holds = match rule.misses.is_empty() {
                true => "holds",
                false => "does not hold",
            };
            lines.push(format!("  {} ({}{shadow}) {holds}", rule.rule, rule.effect));
            lines.extend(rule.misses.iter().map(|miss| format!("      {miss}")));
        }
        lines
            .iter()
            .map(|line| format!("{indent}{line}\n"))
            .collect()
    }
}
