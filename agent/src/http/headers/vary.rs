//! What caches are told of answers that depend on who calls.

use http::{HeaderMap, HeaderName, HeaderValue, header::VARY};

use super::{IDENTITY, IDENTITY_PREFIXES, Names};

/// The headers that only the app sees. A cache between us and the caller sees the same request from every caller: an
/// answer that `Vary` says depends on one of them would be given to all.
#[derive(Debug, Clone)]
pub struct Unseen(Names);

impl Unseen {
    /// What always is, and the headers that claims are put into.
    pub fn new<'a>(claims: impl IntoIterator<Item = &'a HeaderName>) -> Self {
        let claims: Vec<_> = claims.into_iter().map(HeaderName::as_str).collect();
        let mut names = Names::new(IDENTITY_PREFIXES);
        names.extend(IDENTITY);
        names.extend(&claims);
        Self(names)
    }

    /// Makes it `vary: *` where the app says that its answer depends on one of them: for one request alone (RFC 9440
    /// §2.4, and for the same reason of the others).
    pub fn tell_caches(&self, headers: &mut HeaderMap) {
        let mut names = headers
            .get_all(VARY)
            .iter()
            .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
            .filter_map(|name| std::str::from_utf8(name.trim_ascii()).ok());
        if names.any(|name| self.0.contains(&name.to_ascii_lowercase())) {
            headers.insert(VARY, HeaderValue::from_static("*"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn varied(lines: &[&'static str]) -> Vec<String> {
        let claim = HeaderName::from_static("x-user-id");
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(VARY, HeaderValue::from_static(line));
        }
        Unseen::new([&claim]).tell_caches(&mut headers);
        let lines = headers.get_all(VARY).iter();
        lines
            .map(|line| line.to_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn an_answer_that_depends_on_what_no_cache_sees_is_for_one_request() {
        for hidden in [
            "Client-Cert",
            "client-cert-chain",
            "X-Forwarded-Client-Cert",
            "x-warifu-caller",
            "X-User-Id",
            "accept-encoding, Client-Cert",
        ] {
            assert_eq!(varied(&[hidden]), ["*"], "{hidden}");
            assert_eq!(varied(&["accept", hidden]), ["*"], "{hidden}");
        }
    }

    #[test]
    fn another_vary_stays_as_it_is() {
        assert_eq!(varied(&[]), [""; 0]);
        assert_eq!(varied(&["Accept, Origin", "*"]), ["Accept, Origin", "*"]);
        assert_eq!(varied(&["authorization"]), ["authorization"]);
    }
}
