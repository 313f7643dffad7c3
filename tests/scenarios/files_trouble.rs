//! The disk that files are written to is full, while certificates come and go.

use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use warifu::identity::X509Svid;
use warifu_tests::{
    mesh::{Mesh, until},
    process::Sandbox,
};

/// What is in the set, if it is whole: its certificate's DER.
fn whole(dir: &Path) -> Option<Vec<u8>> {
    use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer, pem::PemObject};
    // Through the one link, as of one moment.
    let set = fs::read_link(dir.join("..svid.pem")).ok()?;
    let file = |name: &str| fs::read(dir.join(&set).join(name)).ok();
    let (chain, key) = (file("svid.pem")?, file("svid-key.pem")?);
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&chain)
        .map(|it| it.unwrap())
        .collect();
    let key = PrivatePkcs8KeyDer::from_pem_slice(&key).unwrap();
    let leaf = chain[0].to_vec();
    // Refuses a key that is another certificate's.
    X509Svid::new(chain, key).unwrap();
    Some(leaf)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s13_a_full_disk_leaves_the_last_set_whole_and_is_recovered_from() {
    let mesh = Mesh::with(|authority| authority.ttl(Duration::from_secs(6))).await;
    let sandbox = Sandbox::new();
    let token = sandbox.write("web.token", mesh.authority.join_token("web").await);
    fs::set_permissions(token, fs::Permissions::from_mode(0o600)).unwrap();
    let files = sandbox.path("files");
    fs::create_dir(&files).unwrap();
    let dir = files.display();
    let local = format!("local: {{files: [{{directory: {dir}}}]}}");
    let pin = mesh.authority.pins()[0].clone();
    // In a namespace of its own, where the directory is a small disk.
    let script = format!("mount -t tmpfs -o size=48k tmpfs {dir} && exec \"$0\" \"$@\"");
    let mut arguments = vec!["--mount", "sh", "-c", &script];
    if !rustix::process::geteuid().is_root() {
        arguments.insert(0, "--map-root-user");
    }
    let agent = sandbox.agent_of("web", &mesh.authority.url(), &pin, &local);
    let agent = sandbox.listening("web", agent.through("unshare", &arguments).start());
    agent.wait_until_ready();
    // The disk, as the agent's namespace has it.
    let files: PathBuf = format!("/proc/{}/root{dir}", agent.running.pid()).into();
    let first = until("the first set", async || whole(&files)).await;

    let filler = files.join("filler");
    let mut full = fs::File::create(&filler).unwrap();
    while full.write_all(&[0; 4096]).is_ok() {}
    // An open file would keep its room.
    drop(full);
    let said = agent.running.wait_for("the files are not up to date");
    assert!(
        said["why"]
            .as_str()
            .unwrap()
            .contains("No space left on device"),
        "{said}"
    );
    let kept = whole(&files).unwrap();
    let socket = format!("unix:{}", agent.admin.display());
    let status = sandbox
        .warifu(&["status", "--json", "--socket", &socket])
        .run();
    let status: serde_json::Value = serde_json::from_str(&status.stdout).unwrap();
    let shown = &status["local"]["files"][0];
    assert!(
        shown["last_error"]
            .as_str()
            .unwrap()
            .contains("No space left"),
        "{shown}"
    );
    assert!(shown["failures"].as_u64().unwrap() > 0, "{shown}");
    // The agent itself goes on with the new certificate, and nothing is left of the half set.
    assert_eq!(agent.probe("/readyz").status, 200);
    let sets = || {
        let entries = fs::read_dir(&files).unwrap().flatten();
        entries
            .filter(|it| it.file_type().unwrap().is_dir())
            .count()
    };
    assert_eq!(sets(), 1, "half a set was left");

    fs::remove_file(&filler).unwrap();
    let next = until("the next set", async || {
        whole(&files).filter(|it| *it != kept)
    })
    .await;
    assert_ne!(next, first);
}
