//! The task that keeps files fresh.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Instant};

use prometheus_client::registry::Registry;
use rcgen::{CertificateParams, IsCa, KeyPair, KeyUsagePurpose, SanType};
use rustls_pki_types::PrivatePkcs8KeyDer;
use tokio::sync::watch;
use warifu::{
    identity::{FurtherSvid, TrustBundle, X509Svid},
    jwt::KeySet,
};

use super::*;
use crate::{
    config::local::{FileNames, Signal},
    http::server::{Drain, drain},
};

fn svid(id: &str, not_after: SystemTime) -> X509Svid {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.not_after = not_after.into();
    let leaf = params.self_signed(&key).unwrap().der().clone();
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    X509Svid::new(vec![leaf], key).unwrap()
}

fn identity(generation: u64, not_after: SystemTime) -> Arc<Identity> {
    with_further(generation, not_after, &[])
}

fn with_further(generation: u64, not_after: SystemTime, further: &[X509Svid]) -> Arc<Identity> {
    let first = svid("spiffe://example.org/orders", not_after);
    let root = first.chain()[0].clone();
    let further = further.iter().map(|svid| FurtherSvid {
        svid: svid.clone(),
        hint: None,
    });
    Arc::new(Identity {
        svid: first,
        bundle: TrustBundle {
            trust_domain: "example.org".parse().unwrap(),
            x509_authorities: vec![root],
            jwt_authorities: KeySet::default(),
            sequence: 1,
            refresh_hint: Duration::from_secs(300),
        },
        further: further.collect(),
        federated: Arc::default(),
        generation,
    })
}

fn soon() -> SystemTime {
    SystemTime::now() + Duration::from_secs(3600)
}

struct Fixture {
    dir: tempfile::TempDir,
    identity: watch::Sender<Option<Arc<Identity>>>,
    registry: Registry,
    kept: Kept,
    drain: Drain,
}

impl Fixture {
    /// Keeps files in `files` of a directory, which is not there yet.
    fn new(after: impl FnOnce(&Path) -> Option<After>) -> Self {
        Self::of(None, after)
    }

    /// The same of one identity.
    fn of(spiffe_id: Option<SpiffeId>, after: impl FnOnce(&Path) -> Option<After>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let set = Files {
            spiffe_id,
            directory: dir.path().join("files"),
            names: FileNames::default(),
            uid: None,
            gid: None,
            after: after(dir.path()),
        };
        let identity = watch::Sender::new(None);
        let mut registry = Registry::default();
        let (drain, draining) = drain();
        let kept = start(&[set], &identity.subscribe(), &draining, &mut registry).unwrap();
        Self {
            dir,
            identity,
            registry,
            kept,
            drain,
        }
    }

    fn make_directory(&self) {
        fs::create_dir(self.dir.path().join("files")).unwrap();
    }

    fn certificate(&self) -> String {
        fs::read_to_string(self.dir.path().join("files/svid.pem")).unwrap_or_default()
    }

    fn status(&self) -> Status {
        self.kept.states[0].status()
    }

    fn runs(&self) -> usize {
        let log = fs::read_to_string(self.dir.path().join("runs")).unwrap_or_default();
        log.lines().count()
    }

    async fn until(&self, what: &str, is: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        while !is(self) {
            assert!(
                began.elapsed() < Duration::from_secs(30),
                "{what}: {:?}",
                self.status()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn append_to_runs(dir: &Path) -> Option<After> {
    let script = format!("echo run >> {}/runs", dir.display());
    Some(After::Command(
        ["/bin/sh", "-c", &script].map(str::to_owned).to_vec(),
    ))
}

#[tokio::test]
async fn files_are_of_the_identity_they_name_and_stay_when_the_workload_is_not_that_any_more() {
    let reports: SpiffeId = "spiffe://example.org/reports".parse().unwrap();
    let fixture = Fixture::of(Some(reports.clone()), |_| None);
    fixture.make_directory();
    fixture.identity.send_replace(Some(identity(1, soon())));
    let not_held = |it: &Fixture| {
        it.status()
            .last_error
            .is_some_and(|why| why.contains("this workload is not"))
    };
    fixture.until("it is not held", not_held).await;
    assert_eq!(fixture.certificate(), "", "nothing of another identity");

    let svid = svid(&reports.to_string(), soon());
    fixture
        .identity
        .send_replace(Some(with_further(2, soon(), std::slice::from_ref(&svid))));
    fixture
        .until("written", |it| it.certificate() == svid.chain_pem())
        .await;
    fixture
        .until("well again", |it| it.status().failures == 0)
        .await;
    assert_eq!(fixture.status().not_after, Some(svid.not_after()));

    fixture.identity.send_replace(Some(identity(3, soon())));
    fixture.until("it is not held", not_held).await;
    assert_eq!(fixture.certificate(), svid.chain_pem());
    assert!(!fixture.status().expired);
}

#[tokio::test]
async fn files_of_an_identity_that_is_no_more_are_reported_when_they_expire() {
    let reports: SpiffeId = "spiffe://example.org/reports".parse().unwrap();
    let fixture = Fixture::of(Some(reports.clone()), |_| None);
    fixture.make_directory();
    let short = svid(&reports.to_string(), SystemTime::now());
    fixture
        .identity
        .send_replace(Some(with_further(1, soon(), &[short])));
    fixture
        .until("written", |it| it.status().written.is_some())
        .await;
    assert!(!fixture.status().expired);
    fixture.identity.send_replace(Some(identity(2, soon())));
    fixture.until("expired", |it| it.status().expired).await;
}

#[tokio::test]
async fn files_follow_the_identity_and_the_command_runs_only_when_they_changed() {
    let fixture = Fixture::new(append_to_runs);
    fixture.make_directory();
    for generation in 1..4 {
        let next = identity(generation, soon());
        fixture.identity.send_replace(Some(Arc::clone(&next)));
        let runs = generation as usize;
        fixture
            .until("written and told", |it| {
                it.certificate() == next.svid.chain_pem()
                    && it.runs() == runs
                    && it.status().failures == 0
            })
            .await;
        // The same again, as when only the bundle of another trust domain has changed.
        fixture.identity.send_replace(Some(next));
    }
    let last = identity(9, soon());
    fixture.identity.send_replace(Some(Arc::clone(&last)));
    fixture
        .until("the last", |it| {
            it.certificate() == last.svid.chain_pem() && it.runs() >= 4
        })
        .await;
    assert_eq!(fixture.runs(), 4);
}

#[tokio::test]
async fn s13_a_directory_that_is_away_is_waited_for_and_said() {
    let fixture = Fixture::new(|_| None);
    let first = identity(1, soon());
    fixture.identity.send_replace(Some(Arc::clone(&first)));
    fixture
        .until("a failure", |it| it.status().failures > 0)
        .await;
    let why = fixture.status().last_error.unwrap();
    assert!(why.contains("opening the directory"), "{why}");
    fixture.make_directory();
    fixture
        .until("recovered", |it| {
            it.status().last_error.is_none() && it.status().written.is_some()
        })
        .await;
    assert_eq!(fixture.certificate(), first.svid.chain_pem());
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &fixture.registry).unwrap();
    let failures = text
        .lines()
        .find(|line| line.starts_with("local_files_failures_total") && line.contains("write"));
    assert!(!failures.unwrap().ends_with(" 0"), "{text}");
}

#[tokio::test]
async fn a_program_that_could_not_be_told_is_told_later() {
    let fixture = Fixture::new(|dir| {
        let pid_file = dir.join("pid");
        Some(After::Signal {
            pid_file,
            signal: Signal::Usr1,
        })
    });
    fixture.make_directory();
    fixture.identity.send_replace(Some(identity(1, soon())));
    fixture
        .until("a failure", |it| it.status().failures > 0)
        .await;
    assert!(
        fixture.status().written.is_some(),
        "the files are there all the same"
    );
    let mut child = std::process::Command::new("/bin/sleep")
        .arg("600")
        .spawn()
        .unwrap();
    fs::write(fixture.dir.path().join("pid"), child.id().to_string()).unwrap();
    fixture.until("told", |it| it.status().failures == 0).await;
    // USR1 ends whoever does not expect it.
    let status = child.wait().unwrap();
    assert!(!status.success());
}

#[tokio::test]
async fn s13_files_of_an_expired_identity_stay_and_are_reported() {
    let fixture = Fixture::new(|_| None);
    fixture.make_directory();
    let first = identity(1, soon());
    fixture.identity.send_replace(Some(Arc::clone(&first)));
    fixture
        .until("written", |it| it.status().written.is_some())
        .await;
    fixture.identity.send_replace(None);
    fixture.until("reported", |it| it.status().expired).await;
    assert_eq!(fixture.certificate(), first.svid.chain_pem());
    fixture.identity.send_replace(Some(identity(2, soon())));
    fixture
        .until("fresh again", |it| !it.status().expired)
        .await;
}

#[tokio::test]
async fn the_task_ends_with_the_drain_and_takes_a_hanging_command_along() {
    let mut fixture = Fixture::new(|dir| {
        let script = format!("echo $$ > {}/runs; sleep 600", dir.display());
        Some(After::Command(
            ["/bin/sh", "-c", &script].map(str::to_owned).to_vec(),
        ))
    });
    fixture.make_directory();
    fixture.identity.send_replace(Some(identity(1, soon())));
    fixture.until("the command runs", |it| it.runs() == 1).await;
    fixture.drain.start(Duration::from_secs(5));
    let task = fixture.kept.tasks.pop().unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(20), task).await;
    assert_eq!(ended.unwrap().unwrap(), 0);
    let pid = fs::read_to_string(fixture.dir.path().join("runs")).unwrap();
    let pid = pid.trim().to_owned();
    fixture
        .until("the command is gone", |_| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z ")
        })
        .await;
}

#[test]
fn who_may_not_give_files_away_is_told_at_once() {
    let place = |uid, gid| Place {
        directory: "/nonexistent".into(),
        names: FileNames::default(),
        uid,
        gid,
    };
    assert!(place(None, None).check_owner().is_ok());
    let us = rustix::process::geteuid();
    assert!(place(Some(us.as_raw()), None).check_owner().is_ok());
    if !us.is_root() {
        assert!(place(Some(0), None).check_owner().is_err());
    }
    let error = OwnerError {
        index: 2,
        owner: owner(&place(Some(70), Some(71))),
        why: io::Error::from_raw_os_error(1),
    };
    let text = error.to_string();
    assert!(
        text.starts_with("local.files[2]: giving files to uid 70 and gid 71: "),
        "{text}"
    );
    assert!(text.contains("CAP_CHOWN"), "{text}");
}

#[tokio::test]
async fn a_mode_that_somebody_widened_is_put_right_at_the_next_snapshot() {
    let fixture = Fixture::new(|_| None);
    fixture.make_directory();
    let first = identity(1, soon());
    fixture.identity.send_replace(Some(Arc::clone(&first)));
    fixture
        .until("written", |it| it.status().written.is_some())
        .await;
    let key = fixture.dir.path().join("files/svid-key.pem");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o666)).unwrap();
    fixture.identity.send_replace(Some(first));
    fixture
        .until("private again", |_| {
            fs::metadata(&key).unwrap().permissions().mode() & 0o777 == 0o600
        })
        .await;
}
