//! Where bytes go that are not HTTP to us: a TCP upstream, a proxy on the way.

use std::{borrow::Cow, fmt};

use super::{
    address::{authority, host_and_port},
    text::{Kind, reads_from_text},
};

/// Where opaque TCP goes: `tcp://host:port`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TcpUpstream {
    /// Host name or IP address, lower case; an IPv6 address without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// An HTTP proxy that is asked to CONNECT: `http://host[:port]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HttpProxy {
    /// Host name or IP address, lower case; an IPv6 address without brackets.
    pub host: String,
    /// Port; 80 where the URL has none.
    pub port: u16,
}

reads_from_text!(HttpProxy, TcpUpstream);

/// No scheme has it for its own.
const NO_PORT: u16 = 0;

impl Kind for TcpUpstream {
    type Value = Self;
    const NAME: &'static str = "TcpUpstream";
    const EXPECTED: &'static str = "tcp://host:port such as tcp://db.internal:5432";
    const PATTERN: Option<&'static str> = Some("^tcp://");

    fn parse(text: &str) -> Result<Self, Cow<'static, str>> {
        let rest = text.strip_prefix("tcp://").ok_or("")?;
        let (host, port) = host_and_port(rest, NO_PORT)?;
        if port == NO_PORT {
            return Err("the port is missing".into());
        }
        Ok(Self { host, port })
    }
}

impl Kind for HttpProxy {
    type Value = Self;
    const NAME: &'static str = "HttpProxy";
    const EXPECTED: &'static str =
        "http://host[:port] of a proxy, such as http://proxy.internal:3128";
    const PATTERN: Option<&'static str> = Some("^http://");

    fn parse(text: &str) -> Result<Self, Cow<'static, str>> {
        let rest = text.strip_prefix("http://").ok_or("")?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = host_and_port(rest, 80)?;
        Ok(Self { host, port })
    }
}

impl fmt::Display for TcpUpstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tcp://{}", authority(&self.host, self.port, NO_PORT))
    }
}

impl fmt::Display for HttpProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", authority(&self.host, self.port, 80))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_tcp_upstream_and_a_proxy() {
        let there: TcpUpstream = "tcp://DB.internal:5432".parse().unwrap();
        assert_eq!((&*there.host, there.port), ("db.internal", 5432));
        assert_eq!(there.to_string(), "tcp://db.internal:5432");
        let proxy: HttpProxy = "http://[::1]:3128/".parse().unwrap();
        assert_eq!((&*proxy.host, proxy.port), ("::1", 3128));
        for wrong in [
            "tcp://db",
            "db:5432",
            "tcp://db:5432/x",
            "tcp://u@db:1",
            "tcp://db:0",
        ] {
            assert!(wrong.parse::<TcpUpstream>().is_err(), "{wrong}");
        }
        for wrong in [
            "https://proxy",
            "http://u:p@proxy",
            "http://proxy/x",
            "proxy:3128",
        ] {
            assert!(wrong.parse::<HttpProxy>().is_err(), "{wrong}");
        }
    }
}
