//! A proxy that cuts connections: after a number of bytes one way or the other, in the middle of a frame or
//! wherever that is, both sides get a reset.
//!
//! It knows of the protocol only how long frames are, to say how many cuts were inside of one.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use rhash_protocol::frame::HEADER_BYTES;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::failure::Failure;

/// What is passed on at a time.
const BUFFER_BYTES: usize = 16 * 1024;
/// How long it may take to reach the server, which may be away.
const CONNECT_WAIT: Duration = Duration::from_secs(2);

/// When connections are cut.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    /// How many, at least.
    pub(super) cuts: u64,
    /// A connection lives for so many bytes from the client, at least and at most, …
    pub(super) up_bytes: (u64, u64),
    /// … or so many from the server; which of the two is drawn for each.
    pub(super) down_bytes: (u64, u64),
    /// Takes no connection after its first cut.
    pub(super) once: bool,
    pub(super) seed: u64,
}

/// What was cut.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Figures {
    pub(super) connections: u64,
    pub(super) cuts: u64,
    /// Cuts on the way to the server, and back.
    pub(super) up: u64,
    pub(super) down: u64,
    /// Cuts inside of a frame.
    pub(super) in_frames: u64,
}

impl Figures {
    /// Those of two proxies.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            connections: self.connections + other.connections,
            cuts: self.cuts + other.cuts,
            up: self.up + other.up,
            down: self.down + other.down,
            in_frames: self.in_frames + other.in_frames,
        }
    }
}

/// A proxy that listens until it is dropped.
#[derive(Debug)]
pub(super) struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    listening: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    upstream: String,
    plan: Plan,
    rng: Mutex<Rng>,
    ended: AtomicBool,
    connections: AtomicU64,
    cuts: AtomicU64,
    up: AtomicU64,
    down: AtomicU64,
    in_frames: AtomicU64,
}

/// How many bytes a connection may carry each way; none: any number.
#[derive(Debug, Clone, Copy, Default)]
struct Allowance {
    up_bytes: Option<u64>,
    down_bytes: Option<u64>,
}

/// How one way of a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// By one of its ends.
    Itself,
    /// All that it may carry was carried.
    Cut { in_frame: bool },
}

impl Proxy {
    /// Listens on a free port, and passes on to `upstream`.
    pub(super) async fn start(upstream: &str, plan: Plan) -> Result<Self, Failure> {
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.map_err(|error| Failure::new("the proxy's port", error))?;
        let address = listener.local_addr();
        let address = address.map_err(|error| Failure::new("the proxy's port", error))?;
        let shared = Arc::new(Shared {
            upstream: upstream.to_owned(),
            plan,
            rng: Mutex::new(Rng::with_seed(plan.seed)),
            ended: AtomicBool::new(false),
            connections: AtomicU64::new(0),
            cuts: AtomicU64::new(0),
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
            in_frames: AtomicU64::new(0),
        });
        let listening = tokio::spawn(listen(listener, Arc::clone(&shared)));
        Ok(Self {
            address,
            shared,
            listening,
        })
    }

    /// Where clients connect.
    pub(super) fn address(&self) -> String {
        self.address.to_string()
    }

    /// What was cut so far.
    pub(super) fn figures(&self) -> Figures {
        let shared = &self.shared;
        Figures {
            connections: shared.connections.load(Relaxed),
            cuts: shared.cuts.load(Relaxed),
            up: shared.up.load(Relaxed),
            down: shared.down.load(Relaxed),
            in_frames: shared.in_frames.load(Relaxed),
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl Shared {
    /// What the next connection may carry.
    fn draw(&self) -> Allowance {
        if self.cuts.load(Relaxed) >= self.plan.cuts {
            return Allowance::default();
        }
        let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
        match rng.bool() {
            true => Allowance {
                up_bytes: Some(rng.u64(self.plan.up_bytes.0..=self.plan.up_bytes.1)),
                down_bytes: None,
            },
            false => Allowance {
                up_bytes: None,
                down_bytes: Some(rng.u64(self.plan.down_bytes.0..=self.plan.down_bytes.1)),
            },
        }
    }

    fn note_cut(&self, way: &AtomicU64, in_frame: bool) {
        way.fetch_add(1, Relaxed);
        self.in_frames.fetch_add(u64::from(in_frame), Relaxed);
        self.cuts.fetch_add(1, Relaxed);
        if self.plan.once {
            self.ended.store(true, Relaxed);
        }
    }
}

async fn listen(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        if shared.ended.load(Relaxed) {
            reset(&client);
            return;
        }
        tokio::spawn(relay(client, Arc::clone(&shared)));
    }
}

/// Carries one connection to its end.
async fn relay(mut client: TcpStream, shared: Arc<Shared>) {
    let connecting = TcpStream::connect(&shared.upstream);
    let Ok(Ok(mut server)) = tokio::time::timeout(CONNECT_WAIT, connecting).await else {
        // Nobody is there; the client tries again.
        return reset(&client);
    };
    shared.connections.fetch_add(1, Relaxed);
    let allowed = shared.draw();
    // What is late would only be slow.
    client.set_nodelay(true).ok();
    server.set_nodelay(true).ok();
    let cut = {
        let (client_in, client_out) = client.split();
        let (server_in, server_out) = server.split();
        tokio::select! {
            ended = carry(client_in, server_out, allowed.up_bytes) => (&shared.up, ended),
            ended = carry(server_in, client_out, allowed.down_bytes) => (&shared.down, ended),
        }
    };
    if let (way, Ended::Cut { in_frame }) = cut {
        reset(&client);
        reset(&server);
        shared.note_cut(way, in_frame);
    }
}

/// Has the connection end with a reset when it is dropped, and what is under way with it.
fn reset(stream: &TcpStream) {
    SockRef::from(stream).set_linger(Some(Duration::ZERO)).ok();
}

/// Carries bytes one way.
async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut left: Option<u64>,
) -> Ended {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut frames = Frames::default();
    loop {
        let count = match from.read(&mut buffer).await {
            Ok(0) | Err(_) => return Ended::Itself,
            Ok(count) => count,
        };
        let count = left.map_or(count, |left| {
            count.min(usize::try_from(left).unwrap_or(count))
        });
        if to.write_all(&buffer[..count]).await.is_err() {
            return Ended::Itself;
        }
        frames.pass(&buffer[..count]);
        if let Some(left) = &mut left {
            *left -= count as u64;
            if *left == 0 {
                let in_frame = frames.is_inside();
                return Ended::Cut { in_frame };
            }
        }
    }
}

/// Follows frames by their lengths.
#[derive(Debug, Default)]
struct Frames {
    /// The header that is passing, as far as it did.
    header: Vec<u8>,
    body_left: usize,
}

impl Frames {
    fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.body_left > 0 {
                let passed = self.body_left.min(bytes.len());
                self.body_left -= passed;
                bytes = &bytes[passed..];
                continue;
            }
            let passed = (HEADER_BYTES - self.header.len()).min(bytes.len());
            self.header.extend_from_slice(&bytes[..passed]);
            bytes = &bytes[passed..];
            if self.header.len() == HEADER_BYTES {
                let length = self.header.first_chunk::<4>();
                self.body_left = length.map_or(0, |length| u32::from_le_bytes(*length) as usize);
                self.header.clear();
            }
        }
    }

    fn is_inside(&self) -> bool {
        self.body_left > 0 || !self.header.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_secs(30);

    /// A server that sends back what it gets.
    async fn echo() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.split();
                    tokio::io::copy(&mut from, &mut to).await.ok();
                });
            }
        });
        address
    }

    fn plan(cuts: u64) -> Plan {
        Plan {
            cuts,
            up_bytes: (1, 50),
            down_bytes: (1, 50),
            once: false,
            seed: 5,
        }
    }

    /// Sends bytes and says how many of them came back, before the end.
    async fn send(address: &str, bytes: usize) -> usize {
        let Ok(mut stream) = TcpStream::connect(address).await else {
            return 0;
        };
        if stream.write_all(&vec![1; bytes]).await.is_err() {
            return 0;
        }
        let mut back = 0;
        let mut buffer = [0; 100];
        while back < bytes {
            match tokio::time::timeout(WAIT, stream.read(&mut buffer))
                .await
                .unwrap()
            {
                Ok(0) | Err(_) => break,
                Ok(count) => back += count,
            }
        }
        back
    }

    #[tokio::test]
    async fn connections_are_cut_until_there_were_enough_cuts() {
        let proxy = Proxy::start(&echo().await, plan(20)).await.unwrap();
        let mut tries = 0;
        while send(&proxy.address(), 1000).await < 1000 {
            tries += 1;
            assert!(tries <= 20, "{:?}", proxy.figures());
        }
        let figures = proxy.figures();
        assert_eq!((figures.cuts, figures.up + figures.down), (20, 20));
        assert!(figures.up > 0 && figures.down > 0, "{figures:?}");
        assert_eq!(send(&proxy.address(), 5000).await, 5000);
    }

    #[tokio::test]
    async fn a_proxy_for_one_session_takes_nothing_after_its_cut() {
        let once = Plan {
            once: true,
            ..plan(1)
        };
        let proxy = Proxy::start(&echo().await, once).await.unwrap();
        assert!(send(&proxy.address(), 1000).await < 1000);
        for _ in 0..3 {
            assert_eq!(send(&proxy.address(), 10).await, 0);
        }
        assert_eq!(proxy.figures().cuts, 1);
    }

    #[tokio::test]
    async fn where_no_server_is_the_client_is_turned_away() {
        let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = nobody.local_addr().unwrap().to_string();
        drop(nobody);
        let proxy = Proxy::start(&address, plan(0)).await.unwrap();
        assert_eq!(send(&proxy.address(), 10).await, 0);
        assert_eq!(proxy.figures(), Figures::default());
    }

    #[test]
    fn frames_are_followed_however_their_bytes_come() {
        let mut bytes = Vec::new();
        for length in [0u32, 5, 300] {
            let mut header = length.to_le_bytes().to_vec();
            header.resize(HEADER_BYTES, 0);
            bytes.extend(header);
            bytes.extend(vec![9; length as usize]);
        }
        for step in [1, 3, 19, 20, 21, 400] {
            let mut frames = Frames::default();
            let mut passed = 0;
            for part in bytes.chunks(step) {
                frames.pass(part);
                passed += part.len();
                let is_end = [20, 45, bytes.len()].contains(&passed);
                assert_eq!(
                    frames.is_inside(),
                    !is_end,
                    "{passed} bytes in steps of {step}"
                );
            }
        }
    }
}
