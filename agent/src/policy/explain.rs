//! Why a decision is what it is, rule by rule. Slow, and for people.

use std::{
    fmt::Display,
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError},
    },
};

use serde::Serialize;
use serde_json::Value;
use warifu::Caller;

use super::{
    Decision, Evidence, Policy, Reason, Request, RuleName, Threads, Undecided, Verdict,
    index::Index,
    rule::{Ask, Part, Rule},
};

/// A verdict, and what every rule has to do with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// What was decided.
    pub verdict: Verdict,
    /// Every rule: first those that hold, in the order they are asked in, then the nearest.
    pub rules: Vec<Explained>,
}

/// What became of a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explained {
    /// Its name.
    pub rule: String,
    /// `allow` or `deny`.
    pub effect: String,
    /// Whether it decides nothing.
    pub shadow: bool,
    /// Why it does not hold; it does where this is empty.
    pub misses: Vec<String>,
}

impl Policy {
    /// [`Policy::decide`], with reasons.
    pub fn explain(
        &self,
        caller: &Caller,
        evidence: &Evidence,
        request: Request<'_>,
    ) -> Explanation {
        let ask = Ask::new(caller, evidence, request);
        let lists = [
            (&self.deny, false),
            (&self.allow, false),
            (&self.shadow_deny, true),
            (&self.shadow_allow, true),
        ];
        let explained = |(index, shadow): (&Index, bool)| -> Vec<Explained> {
            let rules = index.rules().iter();
            rules.map(|rule| explained(rule, shadow, &ask)).collect()
        };
        let mut rules: Vec<Explained> = lists.into_iter().flat_map(explained).collect();
        rules.sort_by_key(|rule| rule.misses.len());
        let (verdict, rego) = self.asked(caller, evidence, request);
        // First: it decided.
        rules.splice(0..0, rego);
        Explanation { verdict, rules }
    }

    /// What a listener decides; and what became of the Rego policy, where it was asked. Takes up to the policy's own time.
    fn asked(
        &self,
        caller: &Caller,
        evidence: &Evidence,
        request: Request<'_>,
    ) -> (Verdict, Option<Explained>) {
        let verdict = self.decide(caller, evidence, request);
        let Some(question) = self.question(caller, evidence, request, &verdict) else {
            return (verdict, None);
        };
        let question = Arc::new(question);
        let (tell, told) = mpsc::sync_channel(1);
        let within = question.timeout();
        Arc::clone(&question).ask(&Threads::for_one_question(), within, move |said| {
            let _ = tell.send(said);
        });
        let verdict = question.settle(match told.recv_timeout(within) {
            Ok(said) => said,
            Err(RecvTimeoutError::Timeout) => Err(Undecided::Late(within)),
            Err(RecvTimeoutError::Disconnected) => Err(Undecided::Gone),
        });
        let (rule, misses) = match &verdict.decision {
            Decision::Allow(rule) => (rule, Vec::new()),
            Decision::Deny(Reason::NotByRego(rule)) => (
                rule,
                vec!["it is not true of this request, or undefined".to_owned()],
            ),
            Decision::Deny(Reason::Undecided(rule, why)) => (rule, vec![why.to_string()]),
            // Nothing else comes of a question.
            Decision::Deny(_) => return (verdict, None),
        };
        let explained = Explained {
            rule: rule.to_string(),
            effect: "rego".to_owned(),
            shadow: false,
            misses,
        };
        (verdict, Some(explained))
    }

    /// Every rule's name, with those that decide nothing.
    pub fn names(&self) -> impl Iterator<Item = &RuleName> {
        let lists = [
            &self.deny,
            &self.allow,
            &self.shadow_deny,
            &self.shadow_allow,
        ];
        let rules = lists.into_iter().flat_map(|index| index.rules());
        rules.map(|rule| &rule.name)
    }
}

fn explained(rule: &Rule, shadow: bool, ask: &Ask<'_>) -> Explained {
    let parts = rule.parts.iter();
    let parts = parts.filter(|part| !part.holds(ask, rule.effect));
    let mut misses: Vec<String> = parts.map(|part| miss(part, ask)).collect();
    if ask.nobody() {
        misses.insert(0, "nothing was proved of the caller".to_owned());
    }
    let missed = rule.targets.as_ref();
    let missed = missed.filter(|targets| !targets.iter().any(|target| target.holds(ask)));
    if let Some(targets) = missed {
        let (method, path) = (ask.request.method, ask.request.path);
        misses.push(format!("to: {method} {path} is not {}", listed(targets)));
    }
    Explained {
        rule: rule.name.to_string(),
        effect: rule.effect.to_string(),
        shadow,
        misses,
    }
}

/// Why a part does not hold.
fn miss(part: &Part, ask: &Ask<'_>) -> String {
    let id = |id: Option<(&str, &str)>| match id {
        Some((domain, path)) => format!("spiffe://{domain}{path}"),
        None => "absent".to_owned(),
    };
    let evidence = ask.evidence;
    let or_absent = |text: &Option<String>| text.clone().unwrap_or_else(|| "absent".to_owned());
    match part {
        Part::Peer(pattern) => format!("peer: {} is not {pattern}", id(ask.peer_id())),
        Part::Subject => "subject: nothing inside the request proves one".to_owned(),
        Part::SpiffeId(pattern) => {
            format!(
                "subject.spiffe_id: {} is not {pattern}",
                id(ask.subject_id())
            )
        }
        Part::Role(_, wanted) => {
            format!(
                "subject.role: {} is not {wanted}",
                or_absent(&evidence.role)
            )
        }
        Part::Claim(name, wanted) => {
            let found = match evidence.claims.get(name) {
                None => "absent".to_owned(),
                Some(Value::Array(items)) => format!("in {} there", Value::from(items.clone())),
                Some(value) => value.to_string(),
            };
            format!("subject.claims.{name}: {found} is not {wanted}")
        }
        Part::Scope(scope) => match ask.caller.scopes() {
            [] => format!("subject.scope: no scope is granted, and not {scope}"),
            granted => format!("subject.scope: {} has no {scope}", granted.join(" ")),
        },
        Part::Issuer(name) => {
            format!(
                "subject.issuer: {} is not {name}",
                or_absent(&evidence.accept)
            )
        }
        Part::Header(name, wanted) => {
            let lines = ask.request.headers.get_all(name).iter();
            let lines: Vec<_> = lines.map(|line| format!("{line:?}")).collect();
            let found = match lines.is_empty() {
                true => "absent".to_owned(),
                false => lines.join(", "),
            };
            format!("headers.{name}: {found} is not {}", listed(wanted))
        }
        Part::Source(ranges) => match ask.request.source {
            Some(address) => format!("source: {address} is not in {}", listed(ranges)),
            None => "source: where the request comes from is not known".to_owned(),
        },
        Part::When(_) => format!(
            "when: {} is outside the window",
            crate::telemetry::timestamp::Timestamp(ask.request.now)
        ),
    }
}

fn listed<T: Display>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    items.join(", ")
}
