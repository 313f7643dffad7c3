//! What the fuzzer calls holds for its seeds, and for some thousands of changes to them: always the
//! same ones, so that a failure comes again.

use std::{
    collections::BTreeSet,
    fs, panic,
    path::{Path, PathBuf},
};

use warifu_tests::fuzz::TARGETS;

/// For each target: about a second altogether.
const CHANGES: usize = 3_000;

/// What readers look for: changes put it where it was not.
const TOKENS: &[&[u8]] = &[
    b"\0",
    b"\n",
    b"\r\n",
    b"%2f",
    b"%2e%2e",
    b"//",
    b"..",
    b";",
    b"\\",
    b".",
    b"\"",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"null",
    b"-1",
    b"1e999",
    b"18446744073709551616",
    b"\xff\xff",
    b"\xc3\xa9",
    b"spiffe://",
    b"*",
    b"**",
    b"${X}",
    b"&a",
    b"*a",
    b"!!str",
    b"---\n",
    b"connection: x\n",
    b"X_Warifu_Caller: x\n",
    b"\x30\x82\xff\xff",
];

fn dir(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz")
        .join(name)
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir("seeds").join(target))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{target} has no seeds");
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

#[test]
fn s17_hold_and_so_does_what_is_near_them() {
    for (name, target) in TARGETS {
        let seeds = seeds(name);
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let changed = (0..CHANGES).map(|_| change(&seeds, &mut random));
        for input in seeds.iter().cloned().chain(changed) {
            if panic::catch_unwind(|| target(&input)).is_err() {
                panic!("{name} fails with b\"{}\"", input.escape_ascii());
            }
        }
    }
}

#[test]
fn every_target_can_be_fuzzed() {
    let named = |files: &str, suffix: &str| -> BTreeSet<String> {
        fs::read_dir(dir(files))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .map(|name| name.trim_end_matches(suffix).to_owned())
            .collect()
    };
    let targets: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(named("fuzz_targets", ".rs"), targets);
    assert_eq!(named("seeds", ""), targets);
    let manifest = fs::read_to_string(dir("Cargo.toml")).unwrap();
    for name in targets {
        assert!(
            manifest.contains(&format!("name = \"{name}\"")),
            "{name} is not in Cargo.toml"
        );
    }
}

/// A seed with one to eight changes.
fn change(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = seeds[random.below(seeds.len())].clone();
    for _ in 0..=random.below(8) {
        let at = random.below(bytes.len() + 1);
        let end = (at + random.below(24)).min(bytes.len());
        match random.below(7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 if at < bytes.len() => bytes[at] = random.below(256) as u8,
            2 => drop(bytes.drain(at..end)),
            3 => bytes.truncate(at),
            4 => {
                let part = bytes[at..end].to_vec();
                drop(bytes.splice(at..at, part));
            }
            5 => {
                let other = &seeds[random.below(seeds.len())];
                let from = random.below(other.len() + 1);
                bytes.truncate(at);
                bytes.extend(&other[from..]);
            }
            _ => drop(bytes.splice(at..at, TOKENS[random.below(TOKENS.len())].iter().copied())),
        }
    }
    bytes
}

/// xorshift64.
struct Random(u64);

impl Random {
    /// From 0 to below `end`.
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % end.max(1)
    }
}
