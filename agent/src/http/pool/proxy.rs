//! A way to an upstream through an HTTP proxy that is asked to CONNECT (RFC 9110 §9.3.6). The proxy sees where
//! to, and TLS: nothing is sent through it that is not encrypted for the upstream.

use std::{fmt, io};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};

use super::Address;

/// Bytes of a proxy's answer: a status, a few headers, and nothing after them.
const MAX_ANSWER: usize = 8 * 1024;

/// An HTTP proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy(Address);

impl Proxy {
    /// The one at this address.
    pub fn new(address: Address) -> Self {
        Self(address)
    }

    pub(super) fn address(&self) -> &Address {
        &self.0
    }

    /// Has it connect to `to`. From then on bytes go there.
    pub(super) async fn ask(&self, stream: TcpStream, to: &Address) -> Result<TcpStream, String> {
        let failed = |why: String| format!("the proxy {self}: {why}");
        connect(stream, to).await.map_err(failed)
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.0)
    }
}

async fn connect<T>(mut stream: T, to: &Address) -> Result<T, String>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let broke = |error: io::Error| error.to_string();
    let request = format!("CONNECT {to} HTTP/1.1\r\nhost: {to}\r\n\r\n");
    let sent = stream.write_all(request.as_bytes()).await;
    sent.map_err(broke)?;
    stream.flush().await.map_err(broke)?;
    let mut answer = Vec::with_capacity(1024);
    loop {
        match verdict(&answer) {
            Verdict::Connected => return Ok(stream),
            Verdict::Refused(why) => return Err(format!("it does not connect to {to}: {why}")),
            Verdict::Incomplete => {}
        }
        let mut rest = (&mut stream).take((MAX_ANSWER - answer.len()) as u64);
        if rest.read_buf(&mut answer).await.map_err(broke)? == 0 {
            return Err("it closed the connection without an answer".to_owned());
        }
    }
}

/// What the bytes of a proxy's answer say so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The whole head is not here yet.
    Incomplete,
    /// What comes next comes from the upstream.
    Connected,
    /// It is not connected, and why.
    Refused(String),
}

/// Reads a proxy's answer as far as it came.
pub fn verdict(answer: &[u8]) -> Verdict {
    let refused = |why: &str| Verdict::Refused(why.to_owned());
    let Some(end) = answer.windows(4).position(|it| it == b"\r\n\r\n") else {
        return match answer.len() < MAX_ANSWER {
            true => Verdict::Incomplete,
            false => refused("its answer is too long"),
        };
    };
    let line = answer.split(|byte| *byte == b'\r').next();
    let mut words = line.unwrap_or_default().splitn(3, |byte| *byte == b' ');
    if !matches!(words.next(), Some(b"HTTP/1.1" | b"HTTP/1.0")) {
        return refused("it does not speak HTTP/1.1");
    }
    match words.next() {
        // Whatever comes with the answer comes from the proxy: TLS is ours to begin.
        Some([b'2', b'0'..=b'9', b'0'..=b'9']) if answer.len() == end + 4 => Verdict::Connected,
        Some([b'2', ..]) => refused("it said more than that it is connected"),
        Some(b"407") => refused("it wants credentials (407), which are not supported"),
        Some(status) if status.iter().all(u8::is_ascii_digit) && status.len() == 3 => {
            Verdict::Refused(format!("status {}", String::from_utf8_lossy(status)))
        }
        _ => refused("its answer has no status"),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    #[test]
    fn only_a_2xx_and_nothing_after_it_is_a_connection() {
        use Verdict::{Connected, Incomplete};
        assert_eq!(verdict(b""), Incomplete);
        assert_eq!(verdict(b"HTTP/1.1 200 OK\r\nvia: x\r\n"), Incomplete);
        assert_eq!(verdict(b"HTTP/1.1 200 OK\r\nvia: x\r\n\r\n"), Connected);
        assert_eq!(verdict(b"HTTP/1.0 200\r\n\r\n"), Connected);
        for (answer, why) in [
            (&b"HTTP/1.1 403 Forbidden\r\n\r\n"[..], "status 403"),
            (b"HTTP/1.1 407 x\r\n\r\n", "credentials"),
            (b"HTTP/1.1 101 x\r\n\r\n", "status 101"),
            (b"HTTP/1.1 200 OK\r\n\r\nx", "more"),
            (b"HTTP/1.1 2000 OK\r\n\r\n", "more"),
            (b"HTTP/1.1 OK\r\n\r\n", "no status"),
            (b"HTTP/2 200 OK\r\n\r\n", "HTTP/1.1"),
            (b"SSH-2.0-x\r\n\r\n", "HTTP/1.1"),
            (&[b'x'; MAX_ANSWER], "too long"),
        ] {
            match verdict(answer) {
                Verdict::Refused(said) => assert!(said.contains(why), "{said}"),
                other => panic!("{:?}: {other:?}", String::from_utf8_lossy(answer)),
            }
        }
    }

    #[tokio::test]
    async fn a_proxy_that_ends_or_never_ends_its_answer_is_named() {
        let to = Address::Name("api.example".to_owned(), 443);
        for (answer, why) in [
            (&b"HTTP/1.1 200"[..], "without an answer"),
            (&[b'x'; 2 * MAX_ANSWER], "too long"),
        ] {
            let (ours, mut theirs) = duplex(4 * MAX_ANSWER);
            theirs.write_all(answer).await.unwrap();
            theirs.shutdown().await.unwrap();
            let error = connect(ours, &to).await.unwrap_err();
            assert!(error.contains(why), "{error}");
            let mut asked = vec![0; 64];
            let length = theirs.read(&mut asked).await.unwrap();
            let expected = "CONNECT api.example:443 HTTP/1.1\r\nhost: api.example:443\r\n\r\n";
            assert_eq!(&asked[..length], expected.as_bytes());
        }
    }
}
