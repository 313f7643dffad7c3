//! nginx (Debian's) serves from the files an agent keeps, and follows it from certificate to certificate.

use std::{collections::BTreeSet, ffi::OsStr, fs, sync::Arc, time::Duration};

use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;
use warifu::tls::{self, ExpectedPeer};
use warifu_tests::{
    mesh::{Mesh, Workload, until},
    peers::{self, Tied},
    ports::free_port,
};

/// A request over a connection of its own: the certificate that nginx presented.
async fn ask(address: std::net::SocketAddr, client: &Workload) -> Result<Vec<u8>, String> {
    let identity = client.identity();
    let web = ExpectedPeer::Id("spiffe://example.org/web".parse().unwrap());
    let config = tls::client_config(&identity, &identity.bundle, web).unwrap();
    let mut config = config.clone();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let stream = TcpStream::connect(address)
        .await
        .map_err(|why| why.to_string())?;
    let name = ServerName::try_from("web").unwrap();
    let connecting = TlsConnector::from(Arc::new(config)).connect(name, stream);
    let mut stream = connecting
        .await
        .map_err(|why| format!("handshake: {why}"))?;
    let presented = stream.get_ref().1.peer_certificates().unwrap()[0].to_vec();
    let request = "GET / HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n";
    let written = stream.write_all(request.as_bytes()).await;
    written.map_err(|why| format!("request: {why}"))?;
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer).await;
    read.map_err(|why| format!("answer: {why}"))?;
    let answer = String::from_utf8_lossy(&answer);
    match answer.starts_with("HTTP/1.1 200") && answer.ends_with("from nginx") {
        true => Ok(presented),
        false => Err(format!("answer: {answer}")),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_serves_from_the_files_and_no_request_fails_at_four_rotations() {
    let program = peers::installed("nginx").unwrap();
    let mesh = Mesh::with(|authority| authority.ttl(Duration::from_secs(6))).await;
    let dir = mesh.dir().join("nginx");
    fs::create_dir(&dir).unwrap();
    let (dir, address) = (dir.display(), free_port());
    let web = mesh.agent("web").more(&format!(
        "local: {{files: [{{directory: {dir}, after: {{signal: {{pid_file: {dir}/nginx.pid}}}}}}]}}"
    ));
    let web = web.start().await;
    let written = async || fs::metadata(format!("{dir}/svid.pem")).ok();
    until("the files are there", written).await;

    let conf = format!("{dir}/nginx.conf");
    let nginx = format!(
        "daemon off; pid {dir}/nginx.pid; error_log stderr; worker_processes 1;
events {{}}
http {{
  access_log off; client_body_temp_path {dir}/t1; proxy_temp_path {dir}/t2; fastcgi_temp_path {dir}/t3;
  uwsgi_temp_path {dir}/t4; scgi_temp_path {dir}/t5;
  server {{
    listen {address} ssl;
    ssl_protocols TLSv1.3;
    ssl_certificate {dir}/svid.pem; ssl_certificate_key {dir}/svid-key.pem;
    ssl_client_certificate {dir}/bundle.pem; ssl_verify_client on; ssl_verify_depth 3;
    location / {{ return 200 'from nginx'; }}
  }}
}}"
    );
    fs::write(&conf, nginx).unwrap();
    let prefix = dir.to_string();
    let args = ["-p", prefix.as_str(), "-c", conf.as_str()]
        .map(OsStr::new)
        .to_vec();
    let mut nginx = Tied::run("nginx", &program, &args, &[]).unwrap();
    let orders = mesh.workload("orders").await;
    until("nginx serves", async || ask(address, &orders).await.ok()).await;

    let (mut seen, mut asked, mut failures) = (BTreeSet::new(), 0, Vec::new());
    until("five certificates were presented", async || {
        asked += 1;
        match ask(address, &orders).await {
            Ok(certificate) => {
                seen.insert(certificate);
            }
            Err(why) => failures.push(why),
        }
        (seen.len() >= 5).then_some(())
    })
    .await;
    assert!(failures.is_empty(), "of {asked}: {failures:?}");
    assert!(asked > 50, "only {asked} requests");
    assert!(nginx.exited().is_none());
    let files = &web.status().await["local"]["files"][0];
    assert_eq!(files["last_error"], serde_json::Value::Null, "{files}");
    // Before nginx ran it could not be told; since then it was, every time.
    let metric = format!(
        "warifu_local_files_failures_total{{certificate=\"{dir}/svid.pem\",step=\"write\"}}"
    );
    assert!(web.metric(&metric).await < 1.0);
}
