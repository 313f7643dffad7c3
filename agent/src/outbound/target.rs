//! Which host the app calls.

use http::{HeaderMap, Method, Version, header::HOST, request::Parts, uri::Authority};

use super::refusal::Refusal;

/// The host of a request: lower case, without its port (a route is known by its name, whatever port
/// the app believes in). An absolute target and `host` must name the same (RFC 9112 §3.2.2 would let
/// the target win; two readers, two answers).
pub(super) fn host(parts: &Parts) -> Result<String, Refusal> {
    if parts.method == Method::CONNECT {
        return Err(Refusal::Connect);
    }
    if parts.method == Method::TRACE {
        // Its answer would show the app the credential that is attached.
        return Err(Refusal::Trace);
    }
    let header = host_header(&parts.headers)?;
    let authority = match (parts.uri.authority(), &header) {
        (Some(target), Some(header)) if !same(target, header) => {
            return Err(Refusal::Target("the request's target and its host differ"));
        }
        (Some(target), _) => target,
        (None, Some(header)) if parts.version < Version::HTTP_2 => header,
        (None, _) => return Err(Refusal::Target("the request names no host")),
    };
    if authority.as_str().contains('@') {
        return Err(Refusal::Target("the request's host has user information"));
    }
    Ok(authority.host().to_ascii_lowercase())
}

fn host_header(headers: &HeaderMap) -> Result<Option<Authority>, Refusal> {
    let mut lines = headers.get_all(HOST).iter();
    let Some(line) = lines.next() else {
        return Ok(None);
    };
    if lines.next().is_some() {
        return Err(Refusal::Target("the request has more than one host header"));
    }
    match Authority::try_from(line.as_bytes()) {
        Ok(authority) => Ok(Some(authority)),
        Err(_) => Err(Refusal::Target("the request's host is not a host")),
    }
}

fn same(target: &Authority, header: &Authority) -> bool {
    target.host().eq_ignore_ascii_case(header.host())
        && (target.port_u16() == header.port_u16()
            // A client may leave the default port out of one of them.
            || (target.port_u16().unwrap_or(80) == header.port_u16().unwrap_or(80)))
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn parts(method: &str, target: &str, hosts: &[&str]) -> Parts {
        let mut request = Request::builder().method(method).uri(target);
        for host in hosts {
            request = request.header("host", *host);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn called(target: &str, hosts: &[&str]) -> Option<String> {
        host(&parts("GET", target, hosts)).ok()
    }

    #[test]
    fn the_host_is_lower_case_and_without_its_port() {
        for host in ["payments", "Payments", "PAYMENTS:8080"] {
            assert_eq!(called("/x", &[host]).as_deref(), Some("payments"));
        }
        assert_eq!(called("/x", &["[::1]:80"]).as_deref(), Some("[::1]"));
    }

    #[test]
    fn an_absolute_target_must_equal_the_host() {
        assert_eq!(
            called("http://payments/x", &["Payments:80"]).as_deref(),
            Some("payments")
        );
        assert_eq!(called("http://payments/x", &["orders"]), None);
        assert_eq!(called("http://payments:81/x", &["payments"]), None);
        // HTTP/2 has no need of `host`, HTTP/1.0 none for an absolute target.
        assert_eq!(
            called("http://payments/x", &[]).as_deref(),
            Some("payments")
        );
    }

    #[test]
    fn a_host_that_can_be_read_in_two_ways_is_refused() {
        assert_eq!(called("/x", &[]), None);
        assert_eq!(called("/x", &["payments", "payments"]), None);
        assert_eq!(called("/x", &["payments, orders"]), None);
        assert_eq!(called("/x", &["payments/x"]), None);
        assert_eq!(called("/x", &["orders@payments"]), None);
        assert_eq!(called("/x", &[""]), None);
    }

    #[test]
    fn s04_connect_is_refused() {
        let refused = host(&parts("CONNECT", "payments:443", &["payments:443"]));
        assert!(matches!(refused, Err(Refusal::Connect)));
    }

    #[test]
    fn s12_trace_would_show_the_app_what_is_attached() {
        let refused = host(&parts("TRACE", "/", &["payments"]));
        assert!(refused.is_err_and(|refusal| refusal.reason() == "trace-refused"));
    }
}
