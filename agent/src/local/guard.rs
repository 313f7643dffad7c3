//! Keeps web pages and proxies away (S20): a page that a developer has open can make requests to 127.0.0.1, by its
//! address (with `Origin`) or by a name of its own that resolves there (with a foreign `Host`); an app may be tricked
//! into passing a request on (SSRF).

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, Request, header, uri::Authority};
use thiserror::Error;

use crate::config::value::Listen;

/// Why a request is none of a program of this machine that means us.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum Foreign {
    /// The `Host`, or the target's authority.
    #[error(
        "expected exactly one Host header, a loopback address or localhost, with this endpoint's port"
    )]
    Host,
    /// A web page's.
    #[error("this is not for web pages: the request has an Origin")]
    Origin,
    /// A proxy's.
    #[error("this is for programs of this machine: a proxy passed the request on ({0})")]
    Forwarded(HeaderName),
}

/// Whether `request`, which came in at `listen`, may be from a program of this machine that means us.
pub(super) fn guard<B>(listen: &Listen, request: &Request<B>) -> Result<(), Foreign> {
    let headers = request.headers();
    if headers.contains_key(header::ORIGIN) {
        return Err(Foreign::Origin);
    }
    if let Some(name) = headers.keys().find(|name| is_of_proxies(name)) {
        return Err(Foreign::Forwarded(name.clone()));
    }
    match listen {
        // A unix socket has no name that another could take.
        Listen::Unix(_) => Ok(()),
        Listen::Tcp(address) => {
            match is_meant(request.uri().authority(), headers, address.port()) {
                true => Ok(()),
                false => Err(Foreign::Host),
            }
        }
    }
}

fn is_of_proxies(name: &HeaderName) -> bool {
    *name == header::FORWARDED || *name == header::VIA || name.as_str().starts_with("x-forwarded-")
}

/// There is exactly one `Host` (HTTP/2 has an authority instead), and all there is says that we are meant.
fn is_meant(authority: Option<&Authority>, headers: &HeaderMap, port: u16) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (host, second) = (hosts.next(), hosts.next());
    let host_is_own = host.map(|host| host.to_str().is_ok_and(|host| is_own(host, port)));
    let authority_is_own = authority.map(|it| is_own(it.as_str(), port));
    second.is_none()
        && (host.is_some() || authority.is_some())
        && host_is_own.unwrap_or(true)
        && authority_is_own.unwrap_or(true)
}

/// `127.0.0.1:PORT`, `[::1]:PORT` or `localhost:PORT`; without a port where that is HTTP's own.
fn is_own(host: &str, port: u16) -> bool {
    let name = match host.strip_suffix(&format!(":{port}")) {
        Some(name) => name,
        None if port == 80 => host,
        None => return false,
    };
    let literal = name.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    let address = literal.unwrap_or(name).parse::<IpAddr>();
    let is_loopback = address.is_ok_and(|ip| ip.is_loopback() && ip.is_ipv6() == literal.is_some());
    is_loopback || name.eq_ignore_ascii_case("localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(listen: &Listen, uri: &str, headers: &[(&'static str, &str)]) -> Option<Foreign> {
        let mut request = Request::get(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).unwrap();
        guard(listen, &request).err()
    }

    #[test]
    fn s20_a_foreign_host_a_web_page_and_a_proxy_are_refused() {
        let v4 = Listen::Tcp("127.0.0.1:4160".parse().unwrap());
        let host = |host: &str| verdict(&v4, "/oauth2/token", &[("host", host)]);
        for own in [
            "127.0.0.1:4160",
            "localhost:4160",
            "LOCALHOST:4160",
            "[::1]:4160",
            "127.0.0.2:4160",
        ] {
            assert_eq!(host(own), None, "{own}");
        }
        for foreign in [
            "127.0.0.1",
            "127.0.0.1:80",
            "127.0.0.1:04160",
            "localhost",
            "::1:4160",
            "[127.0.0.1]:4160",
            "10.0.0.1:4160",
            "rebound.example:4160",
            "localhost.:4160",
            "127.0.0.1:4160.example",
            "127.0.0.1:4160@rebound.example",
            "rebound.example@127.0.0.1:4160",
            "",
        ] {
            assert_eq!(host(foreign), Some(Foreign::Host), "{foreign}");
        }
        assert_eq!(verdict(&v4, "/", &[]), Some(Foreign::Host));
        let twice = [("host", "127.0.0.1:4160"), ("host", "127.0.0.1:4160")];
        assert_eq!(verdict(&v4, "/", &twice), Some(Foreign::Host));
        let http = Listen::Tcp("127.0.0.1:80".parse().unwrap());
        assert_eq!(verdict(&http, "/", &[("host", "localhost")]), None);
        // HTTP/2, and an absolute-form target: whatever is there must be ours.
        assert_eq!(verdict(&v4, "http://127.0.0.1:4160/", &[]), None);
        let mixed = [("host", "127.0.0.1:4160")];
        let target = "http://rebound.example:4160/";
        assert_eq!(verdict(&v4, target, &mixed), Some(Foreign::Host));

        let unix = Listen::Unix("/run/warifu/oauth.sock".into());
        assert_eq!(verdict(&unix, "/", &[("host", "localhost")]), None);
        for listen in [&v4, &unix] {
            for (name, value) in [
                ("origin", "https://evil.example"),
                ("origin", "null"),
                ("x-forwarded-for", "10.0.0.1"),
                ("x-forwarded-for", ""),
                ("x-forwarded-host", "127.0.0.1:4160"),
                ("forwarded", "for=10.0.0.1"),
                ("via", "1.1 proxy"),
            ] {
                let why = match name {
                    "origin" => Foreign::Origin,
                    name => Foreign::Forwarded(HeaderName::from_static(name)),
                };
                let headers = [("host", "127.0.0.1:4160"), (name, value)];
                assert_eq!(verdict(listen, "/", &headers), Some(why), "{name}");
            }
        }
    }
}
