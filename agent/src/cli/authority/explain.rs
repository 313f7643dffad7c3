//! `warifu authority explain`.

use std::{
    fmt::{self, Write},
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use warifu_agent::{
    attest::wire::{Evidence, MAX_REQUEST},
    authority::{
        admin::{Act, Bound, ExplainAnswer, ExplainRequest, Granted},
        rules::Outcome,
    },
    config::{authority::Attestor, value::Span},
};

use super::{Facts, Failure, place::Place, print_json};

/// Say what evidence proves, and what each rule makes of it or of given facts, and why
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  warifu authority explain --config /etc/warifu/authority.yaml --attestor prod --fact \
                  namespace=shop --fact service_account=orders\n  warifu authority explain --config \
                  /etc/warifu/authority.yaml --evidence evidence.json\nwhere evidence.json is what an agent \
                  presents, such as {\"kind\": \"kubernetes\", \"token\": \"eyJ…\"}; it is not spent.\nExit code 1: \
                  nothing would be issued."
)]
pub(super) struct ExplainArgs {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    facts: Facts,
    /// Evidence as JSON, instead of facts; - for standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["facts", "attestor"])]
    evidence: Option<PathBuf>,
    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &ExplainArgs) -> Result<ExitCode, Failure> {
    let request = match &args.evidence {
        Some(file) => ExplainRequest {
            evidence: Some(read(file)?),
            ..ExplainRequest::default()
        },
        None => ExplainRequest {
            attestor: Some(args.facts.attestor(&args.place, |_: &Attestor| true)?),
            facts: args.facts.map(),
            evidence: None,
        },
    };
    let answer: ExplainAnswer = args.place.ask(&Act::Explain(request))?;
    match args.json {
        true => print_json(&answer)?,
        false => print!("{}", Shown(&answer)),
    }
    let is_issued = answer.granted.is_some() && answer.revoked.is_none();
    Ok(ExitCode::from(u8::from(!is_issued)))
}

fn read(file: &Path) -> Result<Evidence, Failure> {
    let doing = format!("reading the evidence in {}", file.display());
    let mut text = String::new();
    let most = u64::try_from(MAX_REQUEST).unwrap_or(u64::MAX);
    let read = match file.to_str() {
        Some("-") => io::stdin().take(most).read_to_string(&mut text),
        _ => File::open(file).and_then(|file| file.take(most).read_to_string(&mut text)),
    };
    read.map_err(|why| Failure::new(&doing, why))?;
    serde_json::from_str(&text).map_err(|why| {
        Failure::usage(&doing, why)
            .next("expected what an agent presents, such as {\"kind\": \"kubernetes\", \"token\": \"eyJ…\"}")
    })
}

/// An answer, for people.
struct Shown<'a>(&'a ExplainAnswer);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let answer = self.0;
        if !answer.attestors.is_empty() {
            writeln!(f, "attestors")?;
            for attestor in &answer.attestors {
                let said = attestor.refused.as_deref().unwrap_or("takes it");
                writeln!(f, "  {:<16} {said}", attestor.name)?;
            }
        }
        match &answer.bound {
            Some(Bound::Key(hash)) => {
                writeln!(f, "bound to the renewal key {hash}; of no use with another")?
            }
            Some(Bound::Nothing) => writeln!(
                f,
                "bound to nothing: whoever has it can present it, and the first key that does keeps it"
            )?,
            None => {}
        }
        let Some(attestor) = &answer.attestor else {
            return writeln!(f, "no attestor takes this evidence: nothing is issued");
        };
        writeln!(f, "facts of {attestor}")?;
        for (name, value) in &answer.facts {
            writeln!(f, "  {name:<16} {value}")?;
        }
        writeln!(f, "rules")?;
        for rule in &answer.rules {
            let mut outcome = String::new();
            match &rule.outcome {
                Outcome::NotAsked => continue,
                outcome_of => write!(outcome, "{outcome_of}")?,
            }
            writeln!(f, "  {:<3} {}\n      {outcome}", rule.rule, rule.id)?;
        }
        let later = answer
            .rules
            .iter()
            .filter(|rule| rule.outcome == Outcome::NotAsked)
            .count();
        if later > 0 {
            writeln!(f, "  and {later} more, not asked: an earlier rule decided")?;
        }
        match &answer.granted {
            None => writeln!(f, "nothing is issued"),
            Some(granted) => match &answer.revoked {
                None => write!(f, "{}", shown(granted)?),
                Some(why) => writeln!(f, "{} would be issued, but it is {why}", granted.spiffe_id),
            },
        }
    }
}

fn shown(granted: &Granted) -> Result<String, fmt::Error> {
    let span = |seconds| Span(std::time::Duration::from_secs(seconds));
    let mut out = String::new();
    writeln!(out, "issued: {}", granted.spiffe_id)?;
    writeln!(out, "  {:<16} {}", "certificate", span(granted.ttl))?;
    write!(
        out,
        "{}",
        shown_names(&granted.dns, &granted.audiences, &granted.scopes)?
    )?;
    if !granted.audiences.is_empty() {
        writeln!(out, "  {:<16} {}", "JWT-SVID", span(granted.jwt_ttl))?;
    }
    for also in &granted.also {
        match &also.revoked {
            None => writeln!(out, "and also: {}", also.spiffe_id)?,
            Some(why) => writeln!(out, "but not {}, for it is {why}", also.spiffe_id)?,
        }
        if let Some(hint) = &also.hint {
            writeln!(out, "  {:<16} {hint}", "hint")?;
        }
        write!(
            out,
            "{}",
            shown_names(&also.dns, &also.audiences, &also.scopes)?
        )?;
    }
    Ok(out)
}

fn shown_names(
    dns: &[String],
    audiences: &[String],
    scopes: &[String],
) -> Result<String, fmt::Error> {
    let mut out = String::new();
    for (name, values) in [
        ("DNS names", dns),
        ("audiences", audiences),
        ("scopes", scopes),
    ] {
        if !values.is_empty() {
            writeln!(out, "  {name:<16} {}", values.join(", "))?;
        }
    }
    Ok(out)
}
