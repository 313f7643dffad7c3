use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// A vault whose versions a test sets, and whose readings it counts.
#[derive(Debug, Default)]
struct Scripted {
    versions: Mutex<[Option<String>; 3]>,
    away: Mutex<bool>,
    reads: AtomicUsize,
}

#[derive(Debug, Clone)]
struct Handle(Arc<Scripted>);

impl Vault for Handle {
    fn read(&self, _: ManagedSecret, stage: Stage) -> Reading {
        let this = Arc::clone(&self.0);
        Box::pin(async move {
            tokio::task::yield_now().await;
            if *lock(&this.away) {
                return Err(unavailable("it is away".into()));
            }
            this.reads.fetch_add(1, Ordering::SeqCst);
            let index = match stage {
                Stage::Current => 0,
                Stage::Pending => 1,
                Stage::Previous => 2,
            };
            Ok(lock(&this.versions)[index].clone().map(Secret::new))
        })
    }
}

impl Scripted {
    fn has(&self, current: &str, pending: Option<&str>, previous: Option<&str>) {
        *lock(&self.versions) = [Some(current), pending, previous].map(|it| it.map(str::to_owned));
    }

    fn reads(&self) -> usize {
        self.reads.load(Ordering::SeqCst)
    }
}

fn vault() -> (Secrets, Source, Arc<Scripted>) {
    let vault = Arc::new(Scripted::default());
    vault.has("old", None, None);
    let handle: Arc<dyn Vault> = Arc::new(Handle(Arc::clone(&vault)));
    let secrets = Secrets::new(Some(handle), Duration::from_secs(300));
    let secret = "secretsmanager:partner".parse().unwrap();
    let source = secrets.source(&secret);
    (secrets, source, vault)
}

#[tokio::test(start_paused = true)]
async fn a_thousand_who_want_a_secret_at_once_make_one_reading() {
    let (secrets, source, vault) = vault();
    let waiting: Vec<_> = (0..1000)
        .map(|_| {
            let source = source.clone();
            tokio::spawn(async move { source.value().await.unwrap() })
        })
        .collect();
    for value in waiting {
        assert_eq!(value.await.unwrap().expose(), "old");
    }
    assert_eq!(vault.reads(), 1);
    let again = secrets.source(&"secretsmanager:partner".parse().unwrap());
    again.value().await.unwrap();
    assert_eq!(vault.reads(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_rotation_is_followed_through_its_stages_with_few_readings() {
    let (_, source, vault) = vault();
    let old = source.value().await.unwrap();
    vault.has("old", Some("new"), Some("older"));
    let waiting: Vec<_> = (0..100)
        .map(|_| {
            let (source, old) = (source.clone(), old.clone());
            tokio::spawn(async move { source.other_than(&[old]).await.unwrap() })
        })
        .collect();
    for other in waiting {
        assert_eq!(other.await.unwrap().stage(), Stage::Pending);
    }
    assert_eq!(vault.reads(), 4);
    let new = source.other_than(std::slice::from_ref(&old)).await.unwrap();
    source.works(&new);
    assert_eq!(source.value().await.unwrap().expose(), "new");
    // It becomes current.
    vault.has("new", None, Some("old"));
    tokio::time::advance(Duration::from_secs(301)).await;
    source.value().await.unwrap();
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(source.value().await.unwrap().stage(), Stage::Current);
}

#[tokio::test(start_paused = true)]
async fn s13_an_outage_drops_no_secret_and_a_failure_is_not_asked_about_all_the_time() {
    let (_, source, vault) = vault();
    *lock(&vault.away) = true;
    for _ in 0..100 {
        let error = source.value().await.unwrap_err();
        assert!(!error.is_refusal() && error.to_string().contains("it is away"));
    }
    *lock(&vault.away) = false;
    tokio::time::advance(Duration::from_secs(3)).await;
    assert_eq!(source.value().await.unwrap().expose(), "old");
    *lock(&vault.away) = true;
    for _ in 0..100 {
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(source.value().await.unwrap().expose(), "old");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_file_that_is_written_anew_leaves_two_values_to_try() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("secret");
    std::fs::write(&file, "old\n").unwrap();
    let secrets = Secrets::new(None, Duration::from_secs(300));
    let source = secrets.source(&format!("file:{}", file.display()).parse().unwrap());
    let old = source.value().await.unwrap();
    assert_eq!(old.expose(), "old");
    std::fs::write(&file, "new\n").unwrap();
    let new = source.other_than(std::slice::from_ref(&old)).await.unwrap();
    assert_eq!(new.expose(), "new");
    source.works(&new);
    let back = source.other_than(&[new]).await.unwrap();
    assert_eq!((back.expose(), back.stage()), ("old", Stage::Previous));
}

#[tokio::test]
async fn s12_a_secret_shows_in_no_debug_status_or_error() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("secret");
    std::fs::write(&file, "hunter2").unwrap();
    let secrets = Secrets::new(None, Duration::from_secs(300));
    let source = secrets.source(&format!("file:{}", file.display()).parse().unwrap());
    let value = source.value().await.unwrap();
    let shown = format!("{secrets:?} {source:?} {value:?} {:?}", secrets.status());
    assert!(!shown.contains("hunter2"), "{shown}");
    let managed = secrets.source(&"secretsmanager:x".parse().unwrap());
    let error = managed.value().await.unwrap_err().to_string();
    assert!(error.contains("secretsmanager:x"), "{error}");
}
