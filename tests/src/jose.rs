//! Tokens that were right, and what a stranger makes of them. Each has three judges: the library's verifier; the
//! rules of the design (S9), written once more and apart from it; and `jsonwebtoken`, set as strictly as it goes.
//! The fuzzer chooses the changes (`fuzz/tokens.rs`), or a test does (`scenarios/jose_differential.rs`).

use std::time::SystemTime;

use warifu::jwt::{self, Profile};

mod change;
mod keys;
mod oracle;
mod peer;
mod token;

pub use change::Choices;
pub use keys::Keys;
pub use token::Kind;

use token::Token;

/// What the judges say of one token.
#[derive(Debug)]
pub struct Verdict {
    /// Of which kind it was made.
    pub kind: Kind,
    /// Its text.
    pub token: String,
    /// What was done to it; nothing, where it is as it should be.
    pub changes: Vec<&'static str>,
    /// Why the library refuses it, if it does.
    pub ours: Result<(), jwt::JwtError>,
    /// Why the rules refuse it, if they do.
    pub rules: Result<(), &'static str>,
    /// What `jsonwebtoken` says; `None` where it can't be asked (ES512, padded base64).
    pub peer: Option<bool>,
}

/// Makes a token as `choices` have it, and has it judged. The peer looks at the clock itself: `now` is the present.
pub fn judge(keys: &Keys, mut choices: Choices<'_>, now: SystemTime) -> Verdict {
    let kind = choices.of(Kind::ALL);
    let signer = choices.signer(kind);
    let mut token = Token::good(kind, signer, now);
    let changes = change::apply(&mut token, &mut choices, now);
    let (text, is_own_form) = token.text(keys);
    let profile = kind.profile();
    Verdict {
        kind,
        ours: ours(keys, &profile, &text, now),
        rules: oracle::rules(&token, &text, is_own_form, now),
        peer: peer::accepts(keys, &token, &text),
        changes,
        token: text,
    }
}

fn ours(keys: &Keys, profile: &Profile, token: &str, now: SystemTime) -> Result<(), jwt::JwtError> {
    match profile.symmetric {
        true => jwt::verify_hs256(token, profile, &[keys.secret()], now).map(drop),
        false => jwt::verify(token, profile, keys.public(), now).map(drop),
    }
}

impl Verdict {
    /// Whether all say what they must: the library exactly what the rules say, and nothing that it takes is refused
    /// by the peer.
    pub fn is_sound(&self) -> bool {
        self.ours.is_ok() == self.rules.is_ok() && (self.ours.is_err() || self.peer != Some(false))
    }
}
