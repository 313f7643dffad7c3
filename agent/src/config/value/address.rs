//! Where to listen, and where to send.

use std::{
    borrow::Cow,
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use super::{
    name::{absolute_path, host_name},
    text::{Kind, reads_from_text},
};

/// Where to listen: `unix:/path`, or `IP:PORT`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Listen {
    /// A TCP address. Port 0 lets the system choose.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
}

/// The app behind the agent: `unix:/path` or `http://LOOPBACK:PORT`; or, where it speaks no HTTP, `tcp://LOOPBACK:PORT` or
/// `tcp+unix:/path`. Nothing else: what the agent forwards tells of identities, in plaintext.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Forward {
    /// A loopback TCP address.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
    /// One of the two, for bytes that only the app understands.
    Opaque(Listen),
}

/// Where a route sends: `https://host[:port][/base]`, or `http://` for loopback addresses only.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Upstream {
    /// Whether TLS is spoken.
    pub tls: bool,
    /// Host name or IP address, lower case; an IPv6 address without brackets.
    pub host: String,
    /// Port; 443 or 80 where the URL has none.
    pub port: u16,
    /// Path put before the request's, in normal form, without a trailing slash; may be empty.
    pub base_path: String,
}

/// An `https://host[:port]` URL (the authority's).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HttpsOrigin {
    /// Host name or IP address, lower case; an IPv6 address without brackets.
    pub host: String,
    /// Port; 443 where the URL has none.
    pub port: u16,
}

reads_from_text!(Listen, Forward, Upstream, HttpsOrigin);

impl Listen {
    /// Whether only this machine (its pod or task) can reach it.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().is_loopback(),
            Self::Unix(_) => true,
        }
    }

    /// Whether two listeners would want the same address.
    pub fn collides_with(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Unix(a), Self::Unix(b)) => a == b,
            (Self::Tcp(a), Self::Tcp(b)) => {
                let same_ip =
                    a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
                a.port() != 0 && a.port() == b.port() && same_ip
            }
            _ => false,
        }
    }
}

impl Forward {
    /// Where the app listens.
    pub fn at(&self) -> Listen {
        match self {
            Self::Tcp(address) => Listen::Tcp(*address),
            Self::Unix(path) => Listen::Unix(path.clone()),
            Self::Opaque(at) => at.clone(),
        }
    }
}

impl Upstream {
    /// `host[:port]` as in a `Host` header: the scheme's own port left out, IPv6 in brackets.
    pub fn authority(&self) -> String {
        let standard = if self.tls { 443 } else { 80 };
        authority(&self.host, self.port, standard)
    }
}

impl Kind for Listen {
    type Value = Self;
    const NAME: &'static str = "Listen";
    const EXPECTED: &'static str =
        "an address to listen on: unix:/run/warifu/x.sock or IP:PORT such as 127.0.0.1:4140";

    fn parse(text: &str) -> Result<Self, Cow<'static, str>> {
        if let Some(path) = text.strip_prefix("unix:") {
            return socket_path(path).map(Self::Unix);
        }
        text.parse().map(Self::Tcp).map_err(|_| "".into())
    }
}

impl Kind for Forward {
    type Value = Self;
    const NAME: &'static str = "Forward";
    const EXPECTED: &'static str = "the app: unix:/run/app.sock or http://127.0.0.1:8080, or tcp://127.0.0.1:5432 or \
                                    tcp+unix:/run/db.sock where it speaks no HTTP (this machine only: what is \
                                    forwarded is not encrypted)";

    fn parse(text: &str) -> Result<Self, Cow<'static, str>> {
        if let Some(path) = text.strip_prefix("unix:") {
            return socket_path(path).map(Self::Unix);
        }
        if let Some(path) = text.strip_prefix("tcp+unix:") {
            return socket_path(path).map(|path| Self::Opaque(Listen::Unix(path)));
        }
        if let Some(address) = text.strip_prefix("tcp://") {
            return loopback(address).map(|address| Self::Opaque(Listen::Tcp(address)));
        }
        let rest = text.strip_prefix("http://").ok_or("")?;
        loopback(rest.strip_suffix('/').unwrap_or(rest)).map(Self::Tcp)
    }
}

impl Kind for Upstream {
    type Value = Self;
    const NAME: &'static str = "Upstream";
    const EXPECTED: &'static str = "https://host[:port][/path], or http:// with a loopback address \
                                    such as http://127.0.0.1:8080";
    const PATTERN: Option<&'static str> = Some("^https?://");

    fn parse(text: &str) -> Result<Self, Cow<'static, str>> {
        let (tls, rest) = match text.split_once("://") {
            Some(("https", rest)) => (true, rest),
            Some(("http", rest)) => (false, rest),
            _ => return Err("".into()),
        };
        let (authority, path) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, ""),
        };
        let (host, port) = host_and_port(authority, if tls { 443 } else { 80 })?;
        // A name could resolve to anything, so for plaintext only an address is believed (S19).
        let loopback = host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        if !tls && !loopback {
            return Err(
                "http:// is for loopback addresses (127.0.0.1, [::1]) only; use https://".into(),
            );
        }
        Ok(Self {
            tls,
            host,
            port,
            base_path: base_path(path)?,
        })
    }
}

impl Kind for HttpsOrigin {
    type Value = Self;
    const NAME: &'static str = "HttpsOrigin";
    const EXPECTED: &'static str = "https://host[:port] such as https://authority.internal:8443";
    const PATTERN: Option<&'static str> = Some("^https://");

    fn parse(text: &str) -> Result<Self, Cow<'static, str>> {
        let rest = text.strip_prefix("https://").ok_or("")?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = host_and_port(rest, 443)?;
        Ok(Self { host, port })
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "http://{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Opaque(Listen::Tcp(address)) => write!(f, "tcp://{address}"),
            Self::Opaque(Listen::Unix(path)) => write!(f, "tcp+unix:{}", path.display()),
        }
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.base_path)
    }
}

impl fmt::Display for HttpsOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}", authority(&self.host, self.port, 443))
    }
}

pub(super) fn authority(host: &str, port: u16, standard: u16) -> String {
    let host = match host.contains(':') {
        true => format!("[{host}]"),
        false => host.to_owned(),
    };
    match port == standard {
        true => host,
        false => format!("{host}:{port}"),
    }
}

/// The address of an app.
fn loopback(text: &str) -> Result<SocketAddr, Cow<'static, str>> {
    let address: SocketAddr = text
        .parse()
        .map_err(|_| "expected an IP address and a port after ://")?;
    if !address.ip().is_loopback() {
        return Err("the address is not loopback".into());
    }
    if address.port() == 0 {
        return Err("port 0 is nowhere".into());
    }
    Ok(address)
}

fn socket_path(path: &str) -> Result<PathBuf, Cow<'static, str>> {
    // `sun_path` of unix(7) is 108 bytes with its terminator.
    if path.len() > 107 {
        return Err("a unix socket's path has at most 107 bytes".into());
    }
    absolute_path(path)
}

pub(super) fn host_and_port(
    authority: &str,
    standard: u16,
) -> Result<(String, u16), Cow<'static, str>> {
    if authority.contains('@') {
        return Err("a URL here has no user or password".into());
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (address, rest) = rest.split_once(']').ok_or("expected ] after [")?;
            let address: std::net::Ipv6Addr = address
                .parse()
                .map_err(|_| "expected an IPv6 address in [ ]")?;
            match rest.strip_prefix(':') {
                Some(port) => (address.to_string(), Some(port)),
                None if rest.is_empty() => (address.to_string(), None),
                None => return Err("expected a port after ]".into()),
            }
        }
        None => {
            let (host, port) = match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            };
            (host_name(host)?, port)
        }
    };
    let port = match port {
        None => standard,
        Some(port) => port
            .parse()
            .ok()
            .filter(|number| *number != 0 && port.bytes().all(|byte| byte.is_ascii_digit()))
            .ok_or("expected a port from 1 to 65535")?,
    };
    Ok((host, port))
}

/// Only characters that mean the same in every normal form of a path.
fn base_path(path: &str) -> Result<String, Cow<'static, str>> {
    let path = path.strip_suffix('/').unwrap_or(path);
    let Some(inner) = path.strip_prefix('/') else {
        return Ok(String::new());
    };
    for segment in inner.split('/') {
        if segment.is_empty() || segment == "." || segment == ".." {
            return Err("the path has an empty or dot segment".into());
        }
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,=:@".contains(&byte);
        if !segment.bytes().all(plain) {
            return Err(
                "the path has a character other than letters, digits and -._~!$&'()*+,=:@".into(),
            );
        }
    }
    Ok(path.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_listeners() {
        assert_eq!(
            "unix:/run/a.sock".parse::<Listen>().unwrap(),
            Listen::Unix("/run/a.sock".into())
        );
        assert!("127.0.0.1:0".parse::<Listen>().unwrap().is_local());
        assert!(!"0.0.0.0:8443".parse::<Listen>().unwrap().is_local());
        for wrong in [
            "",
            "8443",
            ":8443",
            "localhost:1",
            "unix:run/a",
            "unix:",
            "127.0.0.1",
        ] {
            let error = wrong.parse::<Listen>().unwrap_err().to_string();
            assert!(error.contains("such as 127.0.0.1:4140"), "{wrong}: {error}");
        }
        assert!(
            format!("unix:/{}", "x".repeat(107))
                .parse::<Listen>()
                .is_err()
        );
    }

    #[test]
    fn listeners_collide_on_the_same_port_unless_the_system_chooses_it() {
        let collide = |a: &str, b: &str| {
            a.parse::<Listen>()
                .unwrap()
                .collides_with(&b.parse().unwrap())
        };
        assert!(collide("0.0.0.0:1", "127.0.0.1:1"));
        assert!(collide("unix:/a", "unix:/a"));
        assert!(!collide("127.0.0.1:0", "127.0.0.1:0"));
        assert!(!collide("127.0.0.1:1", "127.0.0.2:1"));
    }

    #[test]
    fn s19_the_app_is_on_this_machine() {
        assert!("http://127.0.0.1:8080".parse::<Forward>().is_ok());
        assert!("http://[::1]:8080/".parse::<Forward>().is_ok());
        assert!("unix:/run/app.sock".parse::<Forward>().is_ok());
        for opaque in [
            "tcp://127.0.0.1:5432",
            "tcp://[::1]:1",
            "tcp+unix:/run/db.sock",
        ] {
            let read: Forward = opaque.parse().unwrap();
            assert!(matches!(read, Forward::Opaque(_)));
            assert_eq!(read.to_string(), opaque);
        }
        for wrong in [
            "http://10.0.0.1:80",
            "http://localhost:80",
            "https://127.0.0.1:80",
            "http://127.0.0.1:0",
            "127.0.0.1:80",
            "tcp://10.0.0.1:5432",
            "tcp://localhost:5432",
            "tcp://127.0.0.1:0",
            "tcp://127.0.0.1:1/",
            "tcp+unix:db.sock",
        ] {
            assert!(wrong.parse::<Forward>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn reads_upstreams() {
        let read = |text: &str| text.parse::<Upstream>().unwrap();
        let upstream = read("https://ABC.execute-api.eu-west-1.amazonaws.com/prod/");
        assert_eq!(upstream.host, "abc.execute-api.eu-west-1.amazonaws.com");
        assert_eq!((upstream.port, upstream.base_path.as_str()), (443, "/prod"));
        assert_eq!(read("https://[::1]:8443").authority(), "[::1]:8443");
        assert_eq!(read("http://127.0.0.1").authority(), "127.0.0.1");
        assert_eq!(read("https://a:443/").to_string(), "https://a");
    }

    #[test]
    fn s19_plaintext_is_for_loopback_addresses_only() {
        for wrong in [
            "http://payments:80",
            "http://10.0.0.1",
            "http://localhost:1",
            "http://[::]:1",
        ] {
            let error = wrong.parse::<Upstream>().unwrap_err().to_string();
            assert!(error.contains("use https://"), "{wrong}: {error}");
        }
    }

    #[test]
    fn refuses_urls_that_could_be_read_in_two_ways() {
        for wrong in [
            "https://",
            "https://a b",
            "https://user@host",
            "https://host:0",
            "https://host:+1",
            "https://host:99999",
            "https://host/a//b",
            "https://host/../b",
            "https://host/a%2fb",
            "https://host/a?q=1",
            "https://host/a#f",
            "https://host?q",
            "https://[::1",
            "https://::1",
            "ftp://host",
        ] {
            assert!(wrong.parse::<Upstream>().is_err(), "{wrong}");
        }
        assert!("https://host/base".parse::<HttpsOrigin>().is_err());
        assert!("http://127.0.0.1".parse::<HttpsOrigin>().is_err());
        assert_eq!("https://host/".parse::<HttpsOrigin>().unwrap().port, 443);
    }

    proptest! {
        #[test]
        fn nothing_panics_and_what_is_read_reads_again(
            text in "(https?://)?[a-z0-9.:/\\[\\]@%?#é-]{0,40}"
        ) {
            let _ = text.parse::<Listen>();
            let _ = text.parse::<Forward>();
            if let Ok(upstream) = text.parse::<Upstream>() {
                prop_assert_eq!(upstream.to_string().parse::<Upstream>().unwrap(), upstream);
            }
        }
    }
}
