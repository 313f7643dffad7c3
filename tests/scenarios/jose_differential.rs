//! Some tens of thousands of tokens that were right before a stranger had them: the library takes those that the
//! rules allow and no other, and none that `jsonwebtoken` refuses. `WARIFU_JOSE_TOKENS=1000000` runs it longer.

use std::{collections::BTreeMap, time::SystemTime};

use warifu_tests::jose::{Choices, Keys, judge};

/// Seconds of a test.
const TOKENS: u64 = 20_000;

/// Most changes to a token take fewer choices.
const CHOICES: usize = 48;

#[test]
fn s09_no_token_passes_that_the_rules_or_jsonwebtoken_refuse_and_none_is_refused_that_they_allow() {
    let tokens = match std::env::var("WARIFU_JOSE_TOKENS") {
        Ok(tokens) => tokens.parse().unwrap(),
        Err(_) => TOKENS,
    };
    let keys = Keys::new();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut counted = BTreeMap::<_, [u64; 4]>::new();
    let mut refused = BTreeMap::<_, u64>::new();
    for _ in 0..tokens {
        let choices = random.bytes();
        let verdict = judge(&keys, Choices::new(&choices), SystemTime::now());
        assert!(verdict.is_sound(), "{verdict:#?}");
        let counts = counted.entry(verdict.kind).or_default();
        counts[0] += 1;
        counts[1] += u64::from(verdict.ours.is_ok());
        counts[2] += u64::from(verdict.peer == Some(true));
        counts[3] += u64::from(verdict.ours.is_err() && verdict.peer == Some(true));
        if let (Err(rule), Some(true)) = (verdict.rules, verdict.peer) {
            *refused.entry(rule).or_default() += 1;
        }
    }
    println!("kind: tokens, taken, taken by jsonwebtoken, of these refused here");
    for (kind, counts) in &counted {
        println!("{kind:?}: {counts:?}");
    }
    println!("taken by jsonwebtoken, refused here, by rule: {refused:?}");
    for (kind, [made, taken, ..]) in counted {
        // Neither all nor none: the changes bite, and leave something.
        assert!(taken * 10 > made && taken * 10 < made * 9, "{kind:?}");
    }
    // What the peer lets pass and the rules do not, as was measured of it.
    for rule in ["header member", "typ", "iat"] {
        assert!(refused.contains_key(rule), "{rule}: {refused:?}");
    }
}

#[test]
fn tokens_that_nobody_changed_are_taken_by_all() {
    let keys = Keys::new();
    for kind in 0..11 {
        for signer in 200..=255 {
            let verdict = judge(&keys, Choices::new(&[kind, 255, signer]), SystemTime::now());
            assert!(
                verdict.changes.is_empty() && verdict.ours.is_ok(),
                "{verdict:#?}"
            );
            assert!(verdict.is_sound(), "{verdict:#?}");
        }
    }
}

/// xorshift64.
struct Random(u64);

impl Random {
    fn bytes(&mut self) -> [u8; CHOICES] {
        std::array::from_fn(|_| {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 24) as u8
        })
    }
}
