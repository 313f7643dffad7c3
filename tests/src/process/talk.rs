//! HTTP by hand, so that a test says exactly what is sent.

use std::{
    fmt::Debug,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
};

use super::DEADLINE;

/// A response, read to the end of the connection.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Everything after the status line: headers, then the body as it came.
    pub text: String,
}

/// A connection.
pub trait Talk: Read + Write + Send + Debug {}
impl<T: Read + Write + Send + Debug> Talk for T {}

/// Where to connect.
pub trait Place {
    /// Connects.
    ///
    /// # Errors
    /// What the system says.
    fn connect(&self) -> io::Result<Box<dyn Talk>>;
}

impl Place for SocketAddr {
    fn connect(&self) -> io::Result<Box<dyn Talk>> {
        let stream = TcpStream::connect(self)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_write_timeout(Some(DEADLINE))?;
        Ok(Box::new(stream))
    }
}

impl Place for Path {
    fn connect(&self) -> io::Result<Box<dyn Talk>> {
        let stream = UnixStream::connect(self)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_write_timeout(Some(DEADLINE))?;
        Ok(Box::new(stream))
    }
}

/// `GET path` of `host`, over a connection of its own.
///
/// # Errors
/// When there is no answer.
pub fn ask(place: &(impl Place + ?Sized), host: &str, path: &str) -> io::Result<Answer> {
    let mut stream = place.connect()?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    read(&mut *stream)
}

fn read(stream: &mut dyn Talk) -> io::Result<Answer> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (line, rest) = text.split_once("\r\n").unwrap_or((&text, ""));
    let status = line
        .strip_prefix("HTTP/1.1 ")
        .and_then(|line| line.get(..3));
    match status.and_then(|status| status.parse().ok()) {
        Some(status) => Ok(Answer {
            status,
            text: rest.to_owned(),
        }),
        None => Err(io::Error::other(format!("no HTTP response: {text:?}"))),
    }
}
