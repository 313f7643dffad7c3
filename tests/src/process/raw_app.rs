//! An app that keeps every byte it was sent, also those that came when the request was over.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

/// The body of its answer to a path that begins with `/large`.
const LARGE: usize = 8 * 1024 * 1024;

/// A server on a loopback port, one request a connection. It serves until the test process ends.
#[derive(Debug)]
pub struct RawApp {
    /// Where it is.
    pub address: SocketAddr,
    connections: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl RawApp {
    /// Starts it.
    ///
    /// # Panics
    /// When there is no port.
    pub fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("its address");
        let connections = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&connections);
        thread::spawn(move || {
            for (at, stream) in listener.incoming().flatten().enumerate() {
                kept.lock().expect("no panic").push(Vec::new());
                let kept = Arc::clone(&kept);
                thread::spawn(move || serve(stream, at, &kept));
            }
        });
        Self {
            address,
            connections,
        }
    }

    /// What came on each connection, as it came.
    ///
    /// # Panics
    /// Never.
    pub fn connections(&self) -> Vec<String> {
        let connections = self.connections.lock().expect("no panic");
        let text = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
        connections.iter().map(text).collect()
    }

    /// How many connections have `text` in what came on them.
    pub fn with(&self, text: &str) -> usize {
        let connections = self.connections();
        connections.iter().filter(|it| it.contains(text)).count()
    }
}

fn serve(mut stream: TcpStream, at: usize, kept: &Mutex<Vec<Vec<u8>>>) {
    let mut buffer = vec![0; 16 * 1024];
    let mut answered = false;
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        let (whole, large) = {
            let mut all = kept.lock().expect("no panic");
            all[at].extend(&buffer[..read]);
            let text = String::from_utf8_lossy(&all[at]).into_owned();
            (whole(&text), text.contains(" /large"))
        };
        if whole && !answered {
            answered = true;
            let length = if large { LARGE } else { 5 };
            let head =
                format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
            let _ = stream.write_all(head.as_bytes());
            let _ = stream.write_all(&b"hello".repeat(length / 5 + 1)[..length]);
        }
    }
}

/// Whether the (first) request is complete.
fn whole(text: &str) -> bool {
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let head = head.to_ascii_lowercase();
    let line = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
    match line("content-length: ").and_then(|it| it.parse::<usize>().ok()) {
        Some(length) => body.len() >= length,
        None => line("transfer-encoding: ").is_none() || body.ends_with("0\r\n\r\n"),
    }
}
