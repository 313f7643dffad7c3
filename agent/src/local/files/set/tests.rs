//! The files as readers find them.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use super::*;

fn content(number: usize) -> Content {
    Content {
        certificate: format!("certificate {number}\n"),
        key: Secret::new(format!("key {number}\n")),
        bundle: format!("bundle {number}\n"),
    }
}

fn place(dir: &tempfile::TempDir) -> Place {
    Place {
        directory: dir.path().to_owned(),
        names: FileNames::default(),
        uid: None,
        gid: None,
    }
}

fn mode(dir: &tempfile::TempDir, name: &str) -> u32 {
    fs::metadata(dir.path().join(name)).unwrap().mode() & 0o7777
}

fn read(dir: &tempfile::TempDir) -> [String; 3] {
    ["svid.pem", "svid-key.pem", "bundle.pem"]
        .map(|name| fs::read_to_string(dir.path().join(name)).unwrap())
}

fn entries(dir: &tempfile::TempDir) -> usize {
    fs::read_dir(dir.path()).unwrap().count()
}

#[test]
fn three_files_are_there_with_the_modes_that_servers_want() {
    let dir = tempfile::tempdir().unwrap();
    assert!(place(&dir).write(&content(1)).unwrap());
    assert_eq!(read(&dir), ["certificate 1\n", "key 1\n", "bundle 1\n"]);
    assert_eq!(mode(&dir, "svid.pem"), 0o644);
    assert_eq!(mode(&dir, "svid-key.pem"), 0o600);
    assert_eq!(mode(&dir, "bundle.pem"), 0o644);
    // One directory of ours, one link to it, three names.
    assert_eq!(entries(&dir), 5);
}

#[test]
fn s12_a_key_is_for_its_owner_and_for_a_group_only_where_one_is_named() {
    let process = (rustix::process::geteuid(), rustix::process::getegid());
    let (us, our_group) = (process.0.as_raw(), process.1.as_raw());
    // Only root may give files to others.
    let (user, group) = if us == 0 { (70, 71) } else { (us, our_group) };
    let dir = tempfile::tempdir().unwrap();
    let owners = |uid, gid| {
        let place = Place {
            uid,
            gid,
            ..place(&dir)
        };
        assert!(
            place.write(&content(1)).unwrap(),
            "another owner is a change"
        );
        assert!(!place.write(&content(1)).unwrap());
        place.tidy().unwrap();
        let key = fs::metadata(dir.path().join("svid-key.pem")).unwrap();
        (key.uid(), key.gid(), key.mode() & 0o7777)
    };
    assert_eq!(owners(None, Some(group)), (us, group, 0o640));
    assert_eq!(owners(Some(user), Some(group)), (user, group, 0o640));
    fs::remove_file(dir.path().join("..svid.pem")).unwrap();
    assert_eq!(owners(Some(user), None), (user, our_group, 0o600));
    fs::remove_file(dir.path().join("..svid.pem")).unwrap();
    assert_eq!(owners(None, None), (us, our_group, 0o600));
    assert_eq!(mode(&dir, "svid.pem"), 0o644);
}

#[test]
fn nothing_is_written_where_nothing_changed() {
    let dir = tempfile::tempdir().unwrap();
    let place = place(&dir);
    assert!(place.write(&content(1)).unwrap());
    let before = fs::metadata(dir.path().join("svid.pem")).unwrap().ino();
    assert!(!place.write(&content(1)).unwrap());
    assert_eq!(
        fs::metadata(dir.path().join("svid.pem")).unwrap().ino(),
        before
    );
    assert!(place.write(&content(2)).unwrap());
    assert_eq!(read(&dir), ["certificate 2\n", "key 2\n", "bundle 2\n"]);
    // Somebody opened the key to others: that is put right.
    let key = dir.path().join("svid-key.pem");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(place.write(&content(2)).unwrap());
    assert_eq!(mode(&dir, "svid-key.pem"), 0o600);
    // And so is what was replaced or removed.
    fs::remove_file(&key).unwrap();
    fs::write(&key, "another's").unwrap();
    assert!(place.write(&content(2)).unwrap());
    assert_eq!(read(&dir)[1], "key 2\n");
}

#[test]
fn files_of_before_are_replaced_and_what_is_left_over_goes() {
    let dir = tempfile::tempdir().unwrap();
    let place = place(&dir);
    fs::write(dir.path().join("svid.pem"), "of another tool").unwrap();
    fs::write(dir.path().join("mine"), "x").unwrap();
    // Of an agent that was killed while it wrote.
    let killed = dir.path().join("..00112233445566aa-svid.pem");
    fs::create_dir(&killed).unwrap();
    fs::write(killed.join("svid-key.pem"), "half").unwrap();
    for number in 0..5 {
        assert!(place.write(&content(number)).unwrap());
    }
    place.tidy().unwrap();
    assert_eq!(entries(&dir), 6);
    assert_eq!(read(&dir)[0], "certificate 4\n");
    assert!(!killed.exists() && dir.path().join("mine").exists());
}

#[test]
fn two_sets_in_one_directory_leave_each_other_alone() {
    let dir = tempfile::tempdir().unwrap();
    let other = Place {
        names: FileNames {
            certificate: "x-svid.pem".to_owned(),
            key: "x-svid-key.pem".to_owned(),
            bundle: "x-bundle.pem".to_owned(),
        },
        ..place(&dir)
    };
    for number in 1..4 {
        assert!(place(&dir).write(&content(number)).unwrap());
        assert!(other.write(&content(10 + number)).unwrap());
        place(&dir).tidy().unwrap();
        other.tidy().unwrap();
    }
    assert_eq!(read(&dir)[1], "key 3\n");
    assert_eq!(
        fs::read_to_string(dir.path().join("x-svid-key.pem")).unwrap(),
        "key 13\n"
    );
    assert_eq!(entries(&dir), 10);
}

#[test]
fn s13_what_was_there_stays_whole_when_a_write_fails() {
    let dir = tempfile::tempdir().unwrap();
    let place = place(&dir);
    place.write(&content(1)).unwrap();
    // What stands in the way of the second file can't be replaced, and the third comes after it.
    let wrong = Place {
        names: FileNames {
            key: "no/such/directory".to_owned(),
            ..FileNames::default()
        },
        ..place.clone()
    };
    let failed = wrong.write(&content(2)).unwrap_err().to_string();
    assert!(failed.starts_with("writing "), "{failed}");
    assert_eq!(read(&dir), ["certificate 1\n", "key 1\n", "bundle 1\n"]);
    assert_eq!(entries(&dir), 5, "nothing is left of it");
    let away = Place {
        directory: dir.path().join("away"),
        ..place
    };
    let failed = away.write(&content(2)).unwrap_err().to_string();
    assert!(failed.starts_with("opening the directory "), "{failed}");
}

#[test]
fn s12_no_key_is_written_through_a_link_that_somebody_planted() {
    let dir = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let place = place(&dir);
    let victim = elsewhere.path().join("victim");
    fs::write(&victim, "as it was").unwrap();
    symlink(&victim, dir.path().join("svid-key.pem")).unwrap();
    symlink(elsewhere.path(), dir.path().join("..svid.pem")).unwrap();
    symlink(
        elsewhere.path(),
        dir.path().join("..00112233445566aa-svid.pem"),
    )
    .unwrap();
    assert!(place.write(&content(1)).unwrap());
    place.tidy().unwrap();
    assert_eq!(read(&dir)[1], "key 1\n");
    assert_eq!(fs::read_to_string(&victim).unwrap(), "as it was");
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 1);
}

#[test]
fn s12_a_key_is_never_open_to_others_while_it_is_written_and_a_reader_finds_whole_sets() {
    let dir = tempfile::tempdir().unwrap();
    let place = place(&dir);
    place.write(&content(0)).unwrap();
    let done = AtomicBool::new(false);
    let (seen, whole) = thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut seen = 0;
            while !done.load(Ordering::Relaxed) {
                for entry in fs::read_dir(dir.path()).unwrap().flatten() {
                    let key = entry.path().join("svid-key.pem");
                    if let Ok(key) = fs::metadata(key) {
                        assert_eq!(key.mode() & 0o077, 0, "open to others");
                        seen += 1;
                    }
                }
            }
            seen
        });
        let reader = scope.spawn(|| {
            let mut whole = 0;
            while !done.load(Ordering::Relaxed) {
                // A reader that holds the directory has one set for sure.
                let Ok(set) = fs::canonicalize(dir.path().join("..svid.pem")) else {
                    continue;
                };
                let number = |name: &str| {
                    let text = fs::read_to_string(set.join(name)).ok()?;
                    text.trim().rsplit(' ').next().map(str::to_owned)
                };
                if let (Some(certificate), Some(key)) = (number("svid.pem"), number("svid-key.pem"))
                {
                    assert_eq!(certificate, key);
                    whole += 1;
                }
            }
            whole
        });
        for number in 1..40 {
            // So large that writing takes as long as a look.
            let key = format!("{} {number}\n", "k".repeat(4 << 20));
            let next = Content {
                key: Secret::new(key),
                ..content(number)
            };
            place.write(&next).unwrap();
            place.tidy().unwrap();
        }
        done.store(true, Ordering::Relaxed);
        (watcher.join().unwrap(), reader.join().unwrap())
    });
    assert!(seen > 0 && whole > 0, "nobody looked");
}

#[test]
fn s12_content_does_not_show_its_key() {
    let text = format!("{:?}", content(7));
    assert!(
        text.contains("certificate 7") && !text.contains("key 7"),
        "{text}"
    );
}
