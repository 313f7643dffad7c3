//! An app, or a service of AWS, that says the same whatever it is asked, and remembers what it was.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard,
        mpsc::{self, Receiver, Sender},
    },
    thread,
};

const HELLO: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello";

/// A server on a loopback port. It serves until the test process ends.
#[derive(Debug)]
pub struct PlainApp {
    /// Where it is.
    pub address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    arrived: Mutex<Receiver<()>>,
    answer: Sender<()>,
}

impl PlainApp {
    /// Answers `hello`, at once.
    pub fn prompt() -> Self {
        Self::start(HELLO.to_vec(), false)
    }

    /// Answers `hello` when [`PlainApp::answer`] is called, one call for each request.
    pub fn patient() -> Self {
        Self::start(HELLO.to_vec(), true)
    }

    /// Answers every request with the XML `body`.
    pub fn xml(body: &str) -> Self {
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/xml\r\ncontent-length: {length}\r\n\
             connection: close\r\n\r\n{body}"
        );
        Self::start(answer.into_bytes(), false)
    }

    /// Waits until a request has arrived.
    ///
    /// # Panics
    /// When none does.
    pub fn arrived(&self) {
        let arrived = locked(&self.arrived).recv_timeout(super::DEADLINE);
        arrived.expect("a request");
    }

    /// Lets one request have its answer.
    pub fn answer(&self) {
        let _ = self.answer.send(());
    }

    /// The heads of the requests that came, as they came.
    pub fn requests(&self) -> Vec<String> {
        locked(&self.requests).clone()
    }

    fn start(answer: Vec<u8>, patient: bool) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("its address");
        let requests = Arc::new(Mutex::default());
        let (tell, arrived) = mpsc::channel();
        let (sender, may) = mpsc::channel();
        let server = Arc::new(Server {
            answer,
            requests: Arc::clone(&requests),
            may: patient.then(|| Mutex::new(may)),
        });
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (server, tell) = (Arc::clone(&server), tell.clone());
                thread::spawn(move || server.serve(stream, &tell));
            }
        });
        Self {
            address,
            requests,
            arrived: Mutex::new(arrived),
            answer: sender,
        }
    }
}

struct Server {
    answer: Vec<u8>,
    requests: Arc<Mutex<Vec<String>>>,
    may: Option<Mutex<Receiver<()>>>,
}

impl Server {
    /// One request a connection. `None` where the other end is gone.
    fn serve(&self, mut stream: TcpStream, tell: &Sender<()>) -> Option<()> {
        let mut reader = BufReader::new(stream.try_clone().ok()?);
        let (mut head, mut length) = (String::new(), 0);
        loop {
            let from = head.len();
            reader.read_line(&mut head).ok().filter(|read| *read > 0)?;
            match head.get(from..)?.trim_end().to_ascii_lowercase() {
                line if line.is_empty() => break,
                line => {
                    if let Some(value) = line.strip_prefix("content-length:") {
                        length = value.trim().parse().ok()?;
                    }
                }
            }
        }
        // Closing with some of it unread would cut the answer off, too.
        reader.read_exact(&mut vec![0; length]).ok()?;
        locked(&self.requests).push(head);
        let _ = tell.send(());
        if let Some(may) = &self.may {
            locked(may).recv().ok()?;
        }
        stream.write_all(&self.answer).ok()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no panic while it is held")
}
