//! Keys and state that can't be used: the reason, what to do, and every byte as it was.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use warifu_tests::process::{Sandbox, Signal};

const KEY: &str = "ca/key-encryption.key";
const STATE: &str = "ca/state.db";

/// An authority that ran once and ended in order.
fn used() -> Sandbox {
    let sandbox = Sandbox::new();
    let authority = sandbox.authority();
    authority.running.signal(Signal::TERM);
    let ended = authority.running.ended();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    sandbox
}

/// What is done to the directory, and what the authority says of it.
type Case = (&'static str, fn(&Sandbox), &'static str);

const CASES: &[Case] = &[
    (
        "a key cut short",
        |it| cut(&it.path(KEY), 16),
        "the CA's key-encryption key: DIR/ca/key-encryption.key: expected 32 bytes; restore it from \
         backup",
    ),
    (
        "an empty key",
        |it| cut(&it.path(KEY), 0),
        "the CA's key-encryption key: DIR/ca/key-encryption.key: expected 32 bytes; restore it from \
         backup",
    ),
    (
        "another key",
        |it| overwrite(&it.path(KEY), &[7; 32]),
        "the challenge key cannot be unwrapped: key-encryption.key is not the key this state was \
         written with; restore the right one from backup",
    ),
    (
        "no key",
        |it| fs::remove_file(it.path(KEY)).unwrap(),
        "there is state, and key-encryption.key beside it is missing: restore it from backup (or \
         remove the state to begin with new roots, which every agent must then be given)",
    ),
    (
        "a directory in the key's place",
        |it| {
            fs::remove_file(it.path(KEY)).unwrap();
            fs::create_dir(it.path(KEY)).unwrap();
        },
        "the CA's key-encryption key: DIR/ca/key-encryption.key: expected a file; remove what is \
         there, or name another path",
    ),
    (
        "a key that others may read",
        |it| open(&it.path(KEY), 0o644),
        "the CA's key-encryption key: DIR/ca/key-encryption.key is open to others (mode 644); make \
         it private: chmod 600 DIR/ca/key-encryption.key",
    ),
    (
        "a directory that others may enter",
        |it| open(&it.path("ca"), 0o755),
        "ca.path: DIR/ca is open to others (mode 755); make it private: chmod 700 DIR/ca",
    ),
    (
        "state that is no database",
        |it| overwrite(&it.path(STATE), &[0xa5; 8192]),
        "the state store: opening DIR/ca/state.db: file is not a database; nothing was changed: \
         restore it from backup",
    ),
    (
        "state cut short",
        |it| cut(&it.path(STATE), 6000),
        "the state store: opening DIR/ca/state.db: database disk image is malformed; nothing was \
         changed: restore it from backup",
    ),
    (
        "state that bits fell out of",
        |it| {
            let mut bytes = fs::read(it.path(STATE)).unwrap();
            bytes
                .iter_mut()
                .skip(4096)
                .step_by(97)
                .for_each(|byte| *byte ^= 0x55);
            overwrite(&it.path(STATE), &bytes);
        },
        "the state store: database disk image is malformed; nothing was changed: restore it from \
         backup",
    ),
    (
        "empty state",
        |it| cut(&it.path(STATE), 0),
        "key-encryption.key is there, and the state it belongs to is missing or empty: restore \
         state.db from backup (or remove key-encryption.key to begin with new roots, which every \
         agent must then be given)",
    ),
    (
        "no state",
        |it| fs::remove_file(it.path(STATE)).unwrap(),
        "key-encryption.key is there, and the state it belongs to is missing or empty: restore \
         state.db from backup (or remove key-encryption.key to begin with new roots, which every \
         agent must then be given)",
    ),
    (
        "another trust domain's state",
        |it| {
            let yaml = fs::read_to_string(it.path("authority.yaml")).unwrap();
            it.write("authority.yaml", yaml.replace("example.org", "example.com"));
        },
        "the CA's state is of trust domain example.org, and the configuration says example.com; \
         correct `trust_domain`, or name another `ca.path` for another trust domain",
    ),
];

#[test]
fn of_an_authority_are_named_and_nothing_is_overwritten() {
    let sandbox = used();
    let dir = sandbox.path("");
    let dir = dir.to_str().unwrap().trim_end_matches('/');
    let run = ["authority", "--config", "authority.yaml"];
    for (what, harm, expected) in CASES {
        let good = sandbox.content();
        harm(&sandbox);
        let harmed = sandbox.content();
        let ended = sandbox.warifu(&run).run();
        let expected = format!("warifu: running the authority: {expected}\n").replace("DIR", dir);
        assert_eq!(ended.stderr, expected, "{what}");
        assert_eq!((ended.code, &*ended.stdout), (Some(1), ""), "{what}");
        assert_eq!(sandbox.content(), harmed, "{what}: something was changed");
        restore(&sandbox, &good);
    }
    // With everything as it was, it is the same CA again.
    let again = sandbox.warifu(&run).authority();
    again.running.wait_for("\"message\":\"ready\"");
}

#[test]
fn of_an_agent_are_named_and_nothing_is_overwritten() {
    let sandbox = Sandbox::new();
    let authority = sandbox.authority();
    sandbox.join_token("orders");
    let start = || sandbox.agent("orders", &authority, "");
    let agent = sandbox.listening("orders", start().start());
    agent.wait_until_ready();
    agent.running.signal(Signal::TERM);
    assert_eq!(agent.running.ended().code, Some(0));

    let key = sandbox.path("orders.state/renewal.key");
    let key_path = key.display();
    let good = fs::read(&key).unwrap();
    for (harm, expected) in [
        (
            (|key| cut(key, 40)) as fn(&Path),
            format!(
                "{key_path}: not a P-256 PKCS#8 key; remove the file, and the agent attests anew"
            ),
        ),
        (
            |key| open(key, 0o640),
            format!(
                "{key_path} is open to others (mode 640); make it private: chmod 600 {key_path}"
            ),
        ),
    ] {
        harm(&key);
        let harmed = fs::read(&key).unwrap();
        let ended = start().run();
        let expected = format!("warifu: running the agent: state_dir: {expected}\n");
        assert_eq!(ended.stderr, expected);
        assert_eq!(ended.code, Some(1));
        assert_eq!(fs::read(&key).unwrap(), harmed);
        overwrite(&key, &good);
        open(&key, 0o600);
    }

    // Neither key nor record was lost: the spent join token is not needed.
    let agent = sandbox.listening("orders", start().start());
    agent.wait_until_ready();
}

fn cut(path: &Path, length: u64) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(length).unwrap();
}

fn overwrite(path: &Path, content: &[u8]) {
    fs::write(path, content).unwrap();
}

fn open(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn restore(sandbox: &Sandbox, good: &warifu_tests::process::Content) {
    for path in sandbox
        .content()
        .keys()
        .filter(|path| !good.contains_key(*path))
    {
        fs::remove_file(path).unwrap();
    }
    for (path, (mode, content)) in good {
        if mode & 0o170_000 == 0o100_000 {
            if path.is_dir() {
                fs::remove_dir(path).unwrap();
            }
            overwrite(path, content);
        }
        open(path, mode & 0o777);
    }
}
