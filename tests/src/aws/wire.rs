//! The network between an agent and a service: it can be read, and written.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet},
};

/// A TCP proxy on loopback.
#[derive(Debug)]
pub struct Wire {
    address: SocketAddr,
    told: Arc<Mutex<Told>>,
    serving: AbortHandle,
}

#[derive(Debug, Default)]
struct Told {
    sent: Vec<u8>,
    swap: Option<(&'static str, &'static str)>,
    swapped: usize,
}

impl Wire {
    /// To `service`.
    pub async fn to(service: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let told = Arc::<Mutex<Told>>::default();
        let shared = Arc::clone(&told);
        let serving = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(carry(stream, service, Arc::clone(&shared)));
            }
        });
        Self {
            address,
            told,
            serving: serving.abort_handle(),
        }
    }

    /// Where agents connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What agents sent since this was last asked, as it was before it was changed.
    pub fn take_sent(&self) -> String {
        let sent = std::mem::take(&mut self.told.lock().unwrap().sent);
        String::from_utf8_lossy(&sent).into_owned()
    }

    /// From now on `this` arrives as `that`, which must be as long.
    pub fn swap(&self, this: &'static str, that: &'static str) {
        assert_eq!(this.len(), that.len());
        self.told.lock().unwrap().swap = Some((this, that));
    }

    /// How often something was changed.
    pub fn swapped(&self) -> usize {
        self.told.lock().unwrap().swapped
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn carry(agent: TcpStream, service: SocketAddr, told: Arc<Mutex<Told>>) {
    let Ok(service) = TcpStream::connect(service).await else {
        return;
    };
    let (mut from_agent, mut to_agent) = agent.into_split();
    let (mut from_service, mut to_service) = service.into_split();
    let there = async {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match from_agent.read(&mut buffer).await {
                Ok(read @ 1..) => {
                    let bytes = told.lock().unwrap().pass(&buffer[..read]);
                    if to_service.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
                _ => return,
            }
        }
    };
    let back = copy(&mut from_service, &mut to_agent);
    // Either end takes the other along: an agent reconnects.
    tokio::select! {
        () = there => {}
        _ = back => {}
    }
}

impl Told {
    fn pass(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.sent.extend(bytes);
        let mut bytes = bytes.to_vec();
        if let Some((this, that)) = self.swap {
            // A small request comes in one piece; a test that swaps asks whether it happened.
            let starts = bytes
                .windows(this.len())
                .position(|at| at == this.as_bytes());
            if let Some(start) = starts {
                bytes[start..start + that.len()].copy_from_slice(that.as_bytes());
                self.swapped += 1;
            }
        }
        bytes
    }
}
