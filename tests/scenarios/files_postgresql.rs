//! PostgreSQL (Debian's) serves from the files an agent keeps, with a key for its group; psql connects with another set.

use std::{fs, os::unix::fs::MetadataExt, path::Path, time::Duration};

use warifu_tests::{
    mesh::{Mesh, until},
    peers::{self, Ended, Postgresql},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgresql_serves_from_the_files_and_psql_connects_with_others_at_each_rotation() {
    let mesh = Mesh::with(|authority| authority.ttl(Duration::from_secs(6))).await;
    let postgresql = Postgresql::init(mesh.dir()).unwrap();
    let make = |name: &str| {
        let dir = mesh.dir().join(name);
        fs::create_dir(&dir).unwrap();
        dir.to_str().unwrap().to_owned()
    };
    let (files, client) = (make("pg-files"), make("psql-files"));
    postgresql.own(Path::new(&files)).unwrap();

    // The key is for the server's group, and the agent's otherwise: 0640, as PostgreSQL wants it of root.
    let database = mesh.agent("database").more(&format!(
        "local: {{files: [{{directory: {files}, gid: {}, after: {{signal: {{pid_file: {}/postmaster.pid}}}}}}]}}",
        postgresql.gid, postgresql.data
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
    assert_eq!((key.gid(), key.mode() & 0o777), (postgresql.gid, 0o640));
    let key = fs::metadata(format!("{client}/svid-key.pem")).unwrap();
    assert_eq!(key.mode() & 0o777, 0o600);

    let port = postgresql.port;
    let settings = [
        "ssl=on".to_owned(),
        format!("ssl_cert_file={files}/svid.pem"),
        format!("ssl_key_file={files}/svid-key.pem"),
        format!("ssl_ca_file={files}/bundle.pem"),
    ];
    let hba = "hostssl all all 127.0.0.1/32 trust clientcert=verify-ca\n";
    let settings = settings.each_ref().map(|setting| &**setting);
    let mut server = postgresql.start(hba, &settings).unwrap();

    let psql = async |with: &str| -> Ended {
        let info = format!(
            "host=127.0.0.1 port={port} user=postgres dbname=postgres sslmode=verify-ca \
             sslrootcert={client}/bundle.pem {with}"
        );
        let query = "select version, client_serial from pg_stat_ssl where pid = pg_backend_pid()";
        Postgresql::psql(query, &info).await.unwrap()
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
