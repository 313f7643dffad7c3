//! Where a request comes from.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;

use crate::http::headers::X_FORWARDED_FOR;

/// Who connects; or, behind `hops` proxies that each add to `x-forwarded-for` whom they saw, whom the first of them
/// saw. What stands further left, anybody may have written. `None` where it does not say.
pub(super) fn of(connected: Option<IpAddr>, hops: usize, headers: &HeaderMap) -> Option<IpAddr> {
    let Some(skipped) = hops.checked_sub(1) else {
        return connected;
    };
    // Proxies add to the last line, or a line of their own: lines are one list (RFC 9110 §5.3).
    let mut listed = headers
        .get_all(X_FORWARDED_FOR)
        .iter()
        .rev()
        .flat_map(|line| {
            let line = line.to_str().unwrap_or_default();
            line.rsplit(',')
        });
    let entry = listed.nth(skipped)?.trim_matches([' ', '\t']);
    address(entry)
}

/// `192.0.2.7`, `2001:db8::1`, and both with a port: `192.0.2.7:1234`, `[2001:db8::1]:1234`.
fn address(entry: &str) -> Option<IpAddr> {
    let bare = || entry.parse().ok();
    let with_port = || entry.parse().ok().map(|address: SocketAddr| address.ip());
    let in_brackets = || {
        let inside = entry.strip_prefix('[')?.strip_suffix(']')?;
        inside.parse().ok().map(IpAddr::V6)
    };
    bare().or_else(with_port).or_else(in_brackets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(hops: usize, lines: &[&str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(X_FORWARDED_FOR, line.parse().unwrap());
        }
        let connected = Some([10, 0, 0, 1].into());
        of(connected, hops, &headers).map(|address| address.to_string())
    }

    #[test]
    fn s03_without_trusted_hops_x_forwarded_for_is_not_read() {
        assert_eq!(source(0, &["203.0.113.9"]).as_deref(), Some("10.0.0.1"));
        assert_eq!(source(0, &[]).as_deref(), Some("10.0.0.1"));
        assert_eq!(of(None, 0, &HeaderMap::new()), None);
    }

    #[test]
    fn s03_a_source_address_is_counted_from_the_right_and_never_the_leftmost() {
        let forged = "198.51.100.1, 203.0.113.9";
        assert_eq!(source(1, &[forged]).as_deref(), Some("203.0.113.9"));
        assert_eq!(source(2, &[forged]).as_deref(), Some("198.51.100.1"));
        assert_eq!(
            source(2, &["198.51.100.1", "203.0.113.9"]).as_deref(),
            Some("198.51.100.1")
        );
        assert_eq!(
            source(1, &["198.51.100.1", "203.0.113.9"]).as_deref(),
            Some("203.0.113.9")
        );
        // Fewer than there are proxies: one of them did not add its own.
        assert_eq!(source(3, &[forged]), None);
        assert_eq!(source(1, &[]), None);
    }

    #[test]
    fn s03_what_is_no_address_is_not_passed_over() {
        for entry in [
            "unknown",
            "",
            "1.2.3",
            "1.2.3.4.5",
            "_hidden",
            "1.2.3.4:x",
            "[1.2.3.4]",
            "::1]",
        ] {
            assert_eq!(
                source(1, &[&format!("203.0.113.9, {entry}")]),
                None,
                "{entry}"
            );
            assert_eq!(source(1, &["203.0.113.9", entry]), None, "{entry}");
        }
        for (entry, address) in [
            ("192.0.2.7:1234", "192.0.2.7"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]:443", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("\t192.0.2.7 ", "192.0.2.7"),
        ] {
            assert_eq!(source(1, &[entry]).as_deref(), Some(address), "{entry}");
        }
    }
}
