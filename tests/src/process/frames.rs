//! HTTP/2 by hand, so that a test says what no client would: a frame at a time, headers as plain literals.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use rustls::{ClientConfig, ClientConnection, StreamOwned};
use rustls_pki_types::ServerName;

use super::DEADLINE;

/// How long a server may leave unread what it is sent, before it is said to hold its client up.
const STALLED: Duration = Duration::from_secs(3);

/// Types of frames (RFC 9113 §6).
#[allow(missing_docs, reason = "they are named as in the RFC")]
pub mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// Flags of frames; `ACK` is that of SETTINGS and PING.
pub const ACK: u8 = 1;
/// Of HEADERS and DATA.
pub const END_STREAM: u8 = 1;
/// Of HEADERS and CONTINUATION.
pub const END_HEADERS: u8 = 4;

/// A connection on which HTTP/2 was begun.
#[derive(Debug)]
pub struct Frames(StreamOwned<ClientConnection, TcpStream>);

/// A frame.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Its type.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Its stream.
    pub stream: u32,
    /// What it carries.
    pub payload: Vec<u8>,
}

impl Frames {
    /// Connects, and sends the preface and `settings`.
    ///
    /// # Panics
    /// When there is no connection.
    pub fn begin(address: SocketAddr, mut config: ClientConfig, settings: &[(u16, u32)]) -> Self {
        config.alpn_protocols = vec![b"h2".to_vec()];
        let tcp = TcpStream::connect(address).expect("a connection");
        tcp.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        tcp.set_write_timeout(Some(STALLED)).expect("a timeout");
        let name = ServerName::from(address.ip());
        let session = ClientConnection::new(Arc::new(config), name).expect("a session");
        let mut frames = Self(StreamOwned::new(session, tcp));
        let mut first = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        first.extend(frame(kind::SETTINGS, 0, 0, &parameters(settings)));
        frames.send(&first).expect("a preface that is taken");
        frames
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// When the connection is closed, or the server reads no more.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)?;
        self.0.flush()
    }

    /// Sends what `make` makes of each number below `times`, many at once; how often it was taken.
    pub fn flood(&mut self, times: u32, mut make: impl FnMut(u32) -> Vec<u8>) -> u32 {
        const AT_ONCE: u32 = 64;
        for from in (0..times).step_by(AT_ONCE as usize) {
            let bytes: Vec<u8> = (from..from + AT_ONCE).flat_map(&mut make).collect();
            if self.send(&bytes).is_err() {
                return from;
            }
        }
        times
    }

    /// The next frame; `None` where the connection ended.
    ///
    /// # Panics
    /// When neither comes in time.
    pub fn read(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.fill(&mut head)?;
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.fill(&mut payload)?;
        let stream = u32::from_be_bytes(stream) & 0x7fff_ffff;
        Some(Frame {
            kind,
            flags,
            stream,
            payload,
        })
    }

    /// Reads until a frame is one that is looked for; `None` where the connection ended before.
    pub fn until(&mut self, wanted: impl Fn(&Frame) -> bool) -> Option<Frame> {
        loop {
            let frame = self.read()?;
            if wanted(&frame) {
                return Some(frame);
            }
        }
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Option<()> {
        match self.0.read_exact(buffer) {
            Ok(()) => Some(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                panic!("no frame and no end in time")
            }
            Err(_) => None,
        }
    }
}

/// A frame as it goes over the wire.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a payload that fits");
    let mut bytes = length.to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// The payload of SETTINGS.
pub fn parameters(settings: &[(u16, u32)]) -> Vec<u8> {
    let each = settings.iter().flat_map(|(name, value)| {
        let (name, value) = (name.to_be_bytes(), value.to_be_bytes());
        name.into_iter().chain(value)
    });
    each.collect()
}

/// A header block: literals without indexing and without Huffman (RFC 7541 §6.2.2).
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    fields
        .iter()
        .flat_map(|(name, value)| literal(0, name, value))
        .collect()
}

/// One literal with a new name; `form` is its first byte: `0x40` puts it into the dynamic table.
pub fn literal(form: u8, name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![form];
    for text in [name, value] {
        integer(text.len(), &mut bytes);
        bytes.extend(text.as_bytes());
    }
    bytes
}

/// With a prefix of seven bits (RFC 7541 §5.1).
fn integer(value: usize, into: &mut Vec<u8>) {
    if value < 127 {
        into.push(value as u8);
        return;
    }
    into.push(127);
    let mut rest = value - 127;
    while rest >= 128 {
        into.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    into.push(rest as u8);
}
