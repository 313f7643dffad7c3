//! The agent's file.

use std::{collections::BTreeMap, time::Duration};

use super::{Path, Problem, Problems, aws, inbound, local, outbound, root};
use crate::config::{AgentConfig, value::Listen};

/// A drain or a request longer than this is stuck.
pub(super) const HOUR: Duration = Duration::from_secs(60 * 60);

/// More threads than any machine we know has processors.
const MAX_WORKERS: usize = 256;

pub(in crate::config) fn agent(config: &AgentConfig) -> Vec<Problem> {
    let mut problems = Problems::default();
    let authority = &config.authority;
    problems.add_if(
        authority.root_spki_sha256.is_empty() && authority.bundle.is_none(),
        root().key("authority"),
        "give root_spki_sha256 (pins of the authority's root) or bundle (a PEM file of its roots), so that \
         the authority can be told from an impostor",
    );
    for (index, inbound) in config.inbound.iter().enumerate() {
        inbound::inbound(
            config,
            inbound,
            &root().key("inbound").index(index),
            &mut problems,
        );
    }
    key_files(config, &mut problems);
    outbound::outbound(config, &mut problems);
    local::local(config, &root().key("local"), &mut problems);
    aws::aws(config, &mut problems);
    problems.add_if(
        config.admin.listen.as_ref().is_some_and(|listen| !listen.is_local()),
        root().key("admin").key("listen"),
        "expected a unix socket or a loopback address: status and drain have no other protection; what may \
         be exposed is admin.probes",
    );
    problems.listeners(&listeners(config));
    problems.span(root().key("drain"), config.drain, Duration::ZERO, HOUR);
    // A list is asked for three times as often; beyond a week hardly anything it lists is alive.
    problems.span(
        root().key("revocation").key("max_age"),
        config.revocation.max_age,
        Duration::from_secs(3),
        HOUR * 24 * 7,
    );
    // Below, Secrets Manager is asked all the time; above, a rotation may be over before it is noticed.
    problems.span(
        root().key("aws").key("secretsmanager").key("refresh"),
        config.aws.secretsmanager.refresh,
        Duration::from_secs(10),
        HOUR * 24,
    );
    if let Some(emf) = &config.audit.emf {
        let at = root().key("audit").key("emf");
        // CloudWatch has no finer resolution than a second, and counts of a day are no metric.
        let (least, most) = (Duration::from_secs(1), HOUR);
        problems.span(at.key("every"), emf.every, least, most);
        let is_name = |name: &str| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/#: ".contains(&byte);
            !name.is_empty()
                && name.len() <= 255
                && name.bytes().all(plain)
                && !name.starts_with("AWS/")
        };
        problems.add_if(
            !is_name(&emf.namespace),
            at.key("namespace"),
            "expected 1 to 255 letters, digits, spaces and ._-/#: that do not begin with AWS/",
        );
    }
    problems.add_if(
        config.workers == 0 || config.workers > MAX_WORKERS,
        root().key("workers"),
        format!(
            "expected 1 to {MAX_WORKERS} threads, found {}",
            config.workers
        ),
    );
    problems.0
}

/// Each listener has a key of its own, and writes it without asking what is there.
fn key_files(config: &AgentConfig, problems: &mut Problems) {
    let at = |index: usize| {
        let inbound = root().key("inbound").index(index);
        inbound.key("context").key("key_file")
    };
    let mut known = BTreeMap::new();
    for (index, inbound) in config.inbound.iter().enumerate() {
        let Some(context) = &inbound.context else {
            continue;
        };
        let first = *known.entry(&context.key_file).or_insert(index);
        problems.add_if(
            first != index,
            at(index),
            format!(
                "{} is written by {}; give each listener a file of its own",
                context.key_file.display(),
                at(first)
            ),
        );
    }
}

pub(super) fn listeners(config: &AgentConfig) -> Vec<(Path, Listen)> {
    let inbound = config.inbound.iter().enumerate().map(|(index, inbound)| {
        let at = root().key("inbound").index(index).key("listen");
        (at, Some(&inbound.listen))
    });
    let outbound = config.outbound.as_ref().map(|outbound| &outbound.listen);
    let tcp = config.outbound.iter().flat_map(|outbound| &outbound.tcp);
    let tcp = tcp.enumerate().map(|(index, tcp)| {
        let at = root().key("outbound").key("tcp").index(index);
        (at.key("listen"), Some(&tcp.listen))
    });
    let admin = root().key("admin");
    inbound
        .chain(tcp)
        .chain([
            (root().key("outbound").key("listen"), outbound),
            (admin.key("listen"), config.admin.listen.as_ref()),
            (admin.key("probes"), config.admin.probes.as_ref()),
        ])
        .filter_map(|(at, listen)| Some((at, listen?.clone())))
        .chain(local::listeners(&config.local, &root().key("local")))
        .collect()
}
