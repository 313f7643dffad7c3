//! `local.oauth`.

use crate::config::{
    local::Oauth,
    validate::{Path, Problems},
    value::Listen,
};

/// More audiences than any one service calls.
const MAX_AUDIENCES: usize = 100;

pub(super) fn oauth(oauth: &Oauth, at: &Path, problems: &mut Problems) {
    super::listener(&oauth.listen, &oauth.clients, at, problems);
    problems.add_if(
        matches!(oauth.listen, Listen::Tcp(_)) && oauth.client.is_none(),
        at.key("client"),
        "expected client: {id: …, secret: \"file:/…\"}: without it every process of this machine (its pod or task) would \
         have tokens for the asking",
    );
    problems.add_if(
        oauth.audiences.is_empty(),
        at.key("audiences"),
        "expected the audiences a client may ask for, such as [payments]; the first is given where it asks for none",
    );
    problems.at_most(MAX_AUDIENCES, oauth.audiences.len(), at.key("audiences"));
    if let Some(client) = &oauth.client {
        problems.add_if(
            client.id.is_empty() || !client.id.bytes().all(|b| (0x20..=0x7e).contains(&b)),
            at.key("client").key("id"),
            "expected 1 or more printable ASCII characters (RFC 6749 appendix A.1)",
        );
    }
}
