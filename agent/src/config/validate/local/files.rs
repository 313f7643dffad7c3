//! `local.files`.

use std::collections::BTreeMap;

use warifu::{SpiffeId, TrustDomain};

use crate::config::{
    local::{After, Files},
    validate::{Path, Problems},
};

/// More sets of files than one workload has programs.
const MAX_SETS: usize = 16;

pub(super) fn files(
    sets: &[Files],
    trust_domain: &TrustDomain,
    at: &Path,
    problems: &mut Problems,
) {
    problems.at_most(MAX_SETS, sets.len(), at.clone());
    let mut taken = BTreeMap::new();
    for (index, set) in sets.iter().enumerate() {
        let at = at.index(index);
        let names = [
            ("certificate", &set.names.certificate),
            ("key", &set.names.key),
            ("bundle", &set.names.bundle),
        ];
        for (field, name) in names {
            let at = at.key("names").key(field);
            problems.add_if(
                name.is_empty() || name.starts_with('.') || name.contains(['/', '\0']),
                at.clone(),
                "expected the name of a file in the directory, such as svid.pem",
            );
            if let Some(other) = taken.insert(set.directory.join(name), at.clone()) {
                problems.add(at, format!("this file is written already: {other}"));
            }
        }
        let foreign = |id: &&SpiffeId| !id.is_member_of(trust_domain);
        if let Some(id) = set.spiffe_id.as_ref().filter(foreign) {
            problems.add(
                at.key("spiffe_id"),
                format!("expected a SPIFFE ID of {trust_domain}, found {id}"),
            );
        }
        for (field, number) in [("uid", set.uid), ("gid", set.gid)] {
            // chown(2) takes it for "leave as it is".
            problems.add_if(
                number == Some(u32::MAX),
                at.key(field),
                "that is the number of nobody",
            );
        }
        if let Some(After::Command(command)) = &set.after {
            let program = command.first().map(String::as_str).unwrap_or_default();
            problems.add_if(
                !program.starts_with('/'),
                at.key("after").key("command"),
                "expected a program by its absolute path, then its arguments: [/usr/sbin/nginx, -s, reload]",
            );
        }
    }
}
