//! `local:` of the agent's file.

use super::{Path, Problems};
use crate::config::{
    AgentConfig,
    local::{Clients, Local},
    value::Listen,
};

mod aws_credentials;
mod files;
mod oauth;
mod workload_api;

pub(super) fn local(config: &AgentConfig, at: &Path, problems: &mut Problems) {
    let local = &config.local;
    let trust_domain = &config.trust_domain;
    if let Some(api) = &local.workload_api {
        workload_api::workload_api(api, &at.key("workload_api"), problems);
    }
    for (index, endpoint) in local.aws_credentials.iter().enumerate() {
        let at = at.key("aws_credentials").index(index);
        aws_credentials::aws_credentials(&config.aws, endpoint, &at, problems);
    }
    aws_credentials::token_files(&local.aws_credentials, &at.key("aws_credentials"), problems);
    if let Some(oauth) = &local.oauth {
        oauth::oauth(oauth, &at.key("oauth"), problems);
    }
    files::files(&local.files, trust_domain, &at.key("files"), problems);
}

/// Where the local listeners are.
pub(super) fn listeners(local: &Local, at: &Path) -> Vec<(Path, Listen)> {
    let of = |at: Path, listen: &Listen| (at.key("listen"), listen.clone());
    let api = local.workload_api.as_ref();
    let api = api.map(|it| of(at.key("workload_api"), &it.listen));
    let oauth = local.oauth.as_ref();
    let oauth = oauth.map(|it| of(at.key("oauth"), &it.listen));
    let credentials = local.aws_credentials.iter().enumerate();
    let credentials =
        credentials.map(|(index, it)| of(at.key("aws_credentials").index(index), &it.listen));
    api.into_iter().chain(oauth).chain(credentials).collect()
}

/// What every local listener has in common: this machine only, and processes are told apart on unix sockets alone.
fn listener(listen: &Listen, clients: &Clients, at: &Path, problems: &mut Problems) {
    problems.add_if(
        !listen.is_local(),
        at.key("listen"),
        "expected a unix socket or a loopback address: what is given here is for this workload alone",
    );
    problems.add_if(
        matches!(listen, Listen::Tcp(_)) && !clients.is_everyone(),
        at.key("clients"),
        "processes can be told apart on a unix socket only: listen on one, or remove clients",
    );
}
