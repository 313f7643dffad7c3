//! HAProxy, from Debian.

use std::{fs, process::Command};

use super::{Place, Start};
use crate::Result;

/// `haproxy -f` with one thread; its log goes to its standard output, which is a file.
pub(super) fn start(place: Place<'_>) -> Result<Start> {
    let file = place.directory.join("haproxy.cfg");
    fs::write(&file, configuration(&place))?;
    let openssl = place.directory.join("openssl.cnf");
    fs::write(&openssl, NO_TICKETS)?;
    let mut command = Command::new(place.program);
    command
        .env("OPENSSL_CONF", openssl)
        .arg("-db")
        .arg("-f")
        .arg(file);
    let log = Some(place.directory.join("stdout"));
    Ok(Start { command, log })
}

/// With `no-tls-tickets` and without a cache HAProxy 2.6 resumes nothing, yet OpenSSL still makes and
/// sends two TLS 1.3 tickets for each handshake. The others don't, so neither shall it.
const NO_TICKETS: &str = "openssl_conf = init
[init]
ssl_conf = ssl
[ssl]
system_default = tickets
[tickets]
NumTickets = 0
";

/// HAProxy reads no URI SAN, so its rule and header take the subject's common name, which the
/// certificate repeats. `http-reuse always` lets it pool backend connections as the others do.
fn configuration(place: &Place<'_>) -> String {
    let Place {
        directory,
        listen,
        backend,
        ..
    } = place;
    let directory = directory.display();
    format!(
        r#"global
    nbthread 1
    maxconn 8192
    log stdout format raw local0 info
    ssl-default-bind-ciphersuites TLS_AES_128_GCM_SHA256
    ssl-default-bind-curves X25519
    tune.ssl.cachesize 0

defaults
    mode http
    log global
    timeout connect 5s
    timeout client 300s
    timeout server 300s
    log-format '{{"time":"%t","method":"%HM","path":"%HP","status":%ST,"micros":%Ta,"peer":"%[ssl_c_s_dn(cn)]","source":"%ci:%cp","bytes":%B}}'

frontend inbound
    bind {listen} ssl crt {directory}/server.pem ca-file {directory}/root.pem verify required ssl-min-ver TLSv1.3 no-tls-tickets alpn http/1.1
    acl orders ssl_c_s_dn(cn) -m str orders
    acl target path_beg /bench/
    http-request deny deny_status 403 unless orders target METH_GET
    http-request set-header x-forwarded-client-cert "Subject=\"%[ssl_c_s_dn]\""
    default_backend app

backend app
    http-reuse always
    server app {backend}
"#
    )
}
