//! `local.aws_credentials`.

use crate::config::{
    aws::Aws,
    local::AwsCredentials,
    validate::{Path, Problems, aws},
    value::Listen,
};

pub(super) fn aws_credentials(
    settings: &Aws,
    endpoint: &AwsCredentials,
    at: &Path,
    problems: &mut Problems,
) {
    super::listener(&endpoint.listen, &endpoint.clients, at, problems);
    aws::named(settings, Some(&endpoint.role), at.key("role"), problems);
    let is_tcp = matches!(endpoint.listen, Listen::Tcp(_));
    problems.add_if(
        is_tcp && endpoint.token_file.is_none() && !endpoint.unsafe_imds,
        at.key("token_file"),
        "expected a file for the bearer token: without one every process of this machine (its pod or task) would have \
         the role for the asking",
    );
    problems.add_if(
        endpoint.unsafe_imds && endpoint.token_file.is_some(),
        at.key("token_file"),
        "clients of instance metadata present no bearer token: remove token_file, or unsafe_imds",
    );
    problems.add_if(
        endpoint.unsafe_imds && !is_tcp,
        at.key("unsafe_imds"),
        "clients of instance metadata speak TCP: listen on a loopback address",
    );
}

/// Each endpoint has a token of its own.
pub(super) fn token_files(endpoints: &[AwsCredentials], at: &Path, problems: &mut Problems) {
    for (index, endpoint) in endpoints.iter().enumerate() {
        let file = endpoint.token_file.as_ref();
        let mut before = endpoints.iter().take(index);
        problems.add_if(
            file.is_some() && before.any(|other| other.token_file.as_ref() == file),
            at.index(index).key("token_file"),
            "expected a file of its own: another endpoint writes its token there",
        );
    }
}
