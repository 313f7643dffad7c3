//! Where the agent's outbound listener is.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use http::Uri;

use super::ClientError;

/// A unix socket, or a TCP address on loopback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum AgentAddress {
    /// `unix:/path`.
    Unix(PathBuf),
    /// `http://127.0.0.1:4140`.
    Tcp(SocketAddr),
}

impl AgentAddress {
    /// Reads `unix:/path` or `http://LOOPBACK:PORT`.
    pub(super) fn parse(given: &str) -> Result<Self, ClientError> {
        let refuse = |why| ClientError::Address {
            given: given.to_owned(),
            why,
        };
        if let Some(path) = given.strip_prefix("unix:") {
            return if path.starts_with('/') {
                Ok(Self::Unix(path.into()))
            } else {
                Err(refuse("the path of the socket must be absolute"))
            };
        }
        if given.starts_with("https:") {
            return Err(refuse(
                "the app speaks plain HTTP to its own agent, and the agent adds TLS: write http://",
            ));
        }
        let uri: Uri = given.parse().map_err(|_| refuse("it is not a URL"))?;
        let (Some("http"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(refuse("it starts with neither unix: nor http://"));
        };
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(refuse("only a host and a port may follow http://"));
        }
        let port = uri
            .port_u16()
            .ok_or_else(|| refuse("the port is missing"))?;
        let host = authority.host();
        let address = if host.eq_ignore_ascii_case("localhost") {
            // RFC 6761 §6.3: always loopback, so nobody need be asked.
            IpAddr::V4(Ipv4Addr::LOCALHOST)
        } else {
            host.trim_start_matches('[')
                .trim_end_matches(']')
                .parse()
                .map_err(|_| refuse("the host must be a loopback IP address"))?
        };
        if !address.is_loopback() {
            return Err(refuse(
                "it is not loopback: what goes to the agent is plain text, so it must not leave this machine",
            ));
        }
        Ok(Self::Tcp(SocketAddr::new(address, port)))
    }
}

impl fmt::Display for AgentAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => write!(f, "http://{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_it_writes() {
        for text in [
            "unix:/run/warifu/outbound.sock",
            "http://127.0.0.1:4140",
            "http://[::1]:4140",
        ] {
            assert_eq!(AgentAddress::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(
            AgentAddress::parse("http://localhost:4140/").unwrap(),
            AgentAddress::parse("http://127.0.0.1:4140").unwrap()
        );
    }

    #[test]
    fn s19_an_agent_that_is_not_on_loopback_is_refused() {
        for text in [
            "http://10.0.0.1:4140",
            "http://0.0.0.0:4140",
            "http://[::]:4140",
            "http://169.254.169.254:80",
            "http://agent.example:4140",
            "http://127.0.0.1.example:4140",
        ] {
            let error = AgentAddress::parse(text).unwrap_err().to_string();
            assert!(error.contains("loopback"), "{text}: {error}");
        }
    }

    #[test]
    fn an_address_in_another_form_is_refused_with_the_reason() {
        for (text, reason) in [
            ("", "not a URL"),
            ("unix:run/a.sock", "absolute"),
            ("/run/a.sock", "neither"),
            ("https://127.0.0.1:4140", "adds TLS"),
            ("http://127.0.0.1", "port"),
            ("http://127.0.0.1:4140/a", "only a host"),
            ("http://127.0.0.1:4140/?a", "only a host"),
        ] {
            let error = AgentAddress::parse(text).unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn s19_whatever_parses_is_a_socket_path_or_loopback(text in "(http://|unix:)?[0-9a-z:./@\\[\\]]{0,40}") {
            match AgentAddress::parse(&text) {
                Ok(AgentAddress::Tcp(address)) => prop_assert!(address.ip().is_loopback()),
                Ok(AgentAddress::Unix(path)) => prop_assert!(path.is_absolute()),
                Err(_) => {}
            }
        }
    }
}
