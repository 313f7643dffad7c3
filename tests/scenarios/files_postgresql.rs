//! PostgreSQL (Debian's) serves from the files an agent keeps, with a key for its group; psql connects with another set.

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use warifu_tests::{
    mesh::{Mesh, until},
    peers::{self, Ended, Tied},
    ports::free_port,
};

/// Its programs are in no directory of `PATH`.
fn program(name: &'static str) -> PathBuf {
    let path = Path::new("/usr/lib/postgresql/15/bin").join(name);
    assert!(
        path.is_file(),
        "{} is missing: apt-get install postgresql-15",
        path.display()
    );
    path
}

/// The user a server runs as: it refuses to be root.
struct User {
    uid: u32,
    gid: u32,
    /// What goes before a command.
    becomes: Vec<OsString>,
}

impl User {
    fn of_this_machine() -> Self {
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        if !uid.is_root() {
            let (uid, gid) = (uid.as_raw(), gid.as_raw());
            let becomes = vec!["/usr/bin/env".into()];
            return Self { uid, gid, becomes };
        }
        let passwd = fs::read_to_string("/etc/passwd").unwrap();
        let line = passwd.lines().find(|line| line.starts_with("postgres:"));
        let mut fields = line.expect("the user postgres").split(':').skip(2);
        let mut number = || fields.next().unwrap().parse::<u32>().unwrap();
        let (uid, gid) = (number(), number());
        let args = [
            "/usr/bin/setpriv".to_owned(),
            format!("--reuid={uid}"),
            format!("--regid={gid}"),
            "--clear-groups".to_owned(),
        ];
        let becomes = args.map(OsString::from).to_vec();
        Self { uid, gid, becomes }
    }

    fn args(&self, program: &Path, args: &[&str]) -> Vec<OsString> {
        let before = self.becomes.iter().skip(1).cloned();
        let command = std::iter::once(program.as_os_str().to_owned());
        before
            .chain(command)
            .chain(args.iter().map(OsString::from))
            .collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgresql_serves_from_the_files_and_psql_connects_with_others_at_each_rotation() {
    let user = User::of_this_machine();
    let mesh = Mesh::with(|authority| authority.ttl(Duration::from_secs(6))).await;
    fs::set_permissions(mesh.dir(), fs::Permissions::from_mode(0o711)).unwrap();
    let make = |name: &str| {
        let dir = mesh.dir().join(name);
        fs::create_dir(&dir).unwrap();
        dir.to_str().unwrap().to_owned()
    };
    let (data, files, client) = (make("data"), make("pg-files"), make("psql-files"));
    for dir in [&data, &files] {
        chown(dir, Some(user.uid), Some(user.gid)).unwrap();
    }
    fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).unwrap();

    let initdb = user.args(
        &program("initdb"),
        &["-D", &data, "-U", "postgres", "--no-sync", "-A", "trust"],
    );
    let made = Command::new(&user.becomes[0])
        .args(initdb)
        .current_dir("/")
        .output()
        .unwrap();
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );

    // The key is for the server's group, and the agent's otherwise: 0640, as PostgreSQL wants it of root.
    let database = mesh.agent("database").more(&format!(
        "local: {{files: [{{directory: {files}, gid: {}, after: {{signal: {{pid_file: {data}/postmaster.pid}}}}}}]}}",
        user.gid
    ));
    let database = database.start().await;
    let shop = mesh.agent("shop");
    let _shop = shop
        .more(&format!("local: {{files: [{{directory: {client}}}]}}"))
        .start()
        .await;
    for dir in [&files, &client] {
        let there = async || fs::metadata(format!("{dir}/svid.pem")).ok();
        until("the files are there", there).await;
    }
    let key = fs::metadata(format!("{files}/svid-key.pem")).unwrap();
    assert_eq!((key.gid(), key.mode() & 0o777), (user.gid, 0o640));
    let key = fs::metadata(format!("{client}/svid-key.pem")).unwrap();
    assert_eq!(key.mode() & 0o777, 0o600);

    let port = free_port().port();
    let hba = "hostssl all all 127.0.0.1/32 trust clientcert=verify-ca\n";
    fs::write(format!("{data}/pg_hba.conf"), hba).unwrap();
    let settings = [
        format!("port={port}"),
        "listen_addresses=127.0.0.1".to_owned(),
        "unix_socket_directories=".to_owned(),
        "ssl=on".to_owned(),
        format!("ssl_cert_file={files}/svid.pem"),
        format!("ssl_key_file={files}/svid-key.pem"),
        format!("ssl_ca_file={files}/bundle.pem"),
        "fsync=off".to_owned(),
    ];
    let mut args = vec!["-D", data.as_str()];
    args.extend(settings.iter().flat_map(|setting| ["-c", setting.as_str()]));
    let args = user.args(&program("postgres"), &args);
    let mut server = Tied::run("postgres", Path::new(&user.becomes[0]), &args, &[]).unwrap();

    let psql = async |with: &str| -> Ended {
        let info = format!(
            "host=127.0.0.1 port={port} user=postgres dbname=postgres sslmode=verify-ca \
             sslrootcert={client}/bundle.pem {with}"
        );
        let query = "select version, client_serial from pg_stat_ssl where pid = pg_backend_pid()";
        let args = ["-XAtc", query, info.as_str()];
        peers::run("psql", &program("psql"), &args, "")
            .await
            .unwrap()
    };
    let with = format!("sslcert={client}/svid.pem sslkey={client}/svid-key.pem");
    let connects = async || psql(&with).await.success.then_some(());
    until("PostgreSQL serves", connects).await;

    // What is presented now, as PEM.
    let openssl = peers::installed("openssl").unwrap();
    let address = format!("127.0.0.1:{port}");
    let presented = async || {
        let args = ["s_client", "-starttls", "postgres", "-connect", &address];
        let said = peers::run("openssl", &openssl, &args, "")
            .await
            .unwrap()
            .stdout;
        let from = said.find("-----BEGIN")?;
        let length = said[from..].find("-----END CERTIFICATE")?;
        Some(said[from..from + length].to_owned())
    };
    let (mut before, mut serials) = (String::new(), Vec::new());
    for _ in 0..4 {
        let next = async || presented().await.filter(|it| *it != before);
        before = until("the next certificate is presented", next).await;
        let said = psql(&with).await;
        assert!(said.success, "{said:?}");
        let (version, serial) = said.stdout.trim().split_once('|').unwrap();
        assert_eq!(version, "TLSv1.3");
        serials.push(serial.to_owned());
    }
    serials.dedup();
    assert!(
        serials.len() >= 2,
        "the client's certificate changed, too: {serials:?}"
    );
    // Without a certificate nobody gets in.
    let refused = psql("sslcert=/nonexistent").await;
    assert!(
        !refused.success && refused.stderr.contains("certificate"),
        "{refused:?}"
    );
    assert!(server.exited().is_none());
    let told = async || {
        database.status().await["local"]["files"][0]["last_error"]
            .is_null()
            .then_some(())
    };
    until("the server was told", told).await;
}
