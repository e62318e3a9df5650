//! A server in the same process, for tests and examples: plain maps behind the real protocol, with
//! hooks that make it slow, forgetful or unreachable. Not part of the crate's interface.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
        mpsc,
    },
    thread,
};

use parking_lot::Mutex;
use rhash_protocol::{
    ErrorCode,
    limits::{ANSWER_BYTES_TARGET, INLINE_VALUE_BYTES_MAX},
};
use tokio::sync::{oneshot, watch};

mod connection;
mod tables;

use self::tables::Tables;

/// The fake server; stops when dropped.
#[derive(Debug)]
pub struct FakeServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

/// What the server does otherwise than a good one, and how large it lets things be.
#[derive(Debug, Clone)]
pub struct Hooks {
    /// Writes (batches) are refused with this.
    pub refuse_writes: Option<ErrorCode>,
    /// After so many more writes were applied, the connection is cut instead of answering.
    pub cut_after_writes: Option<u32>,
    /// The connection is cut after so many more chunks of fetched values.
    pub cut_after_chunks: Option<u32>,
    /// Connections are closed before the handshake.
    pub refuse_connections: bool,
    /// The longest value.
    pub value_bytes: u64,
    /// Longer values are fetched by themselves.
    pub inline_bytes: usize,
    /// The most entries of a page.
    pub page_entries: u32,
    /// An answer to a get ends once it is that long.
    pub answer_bytes: usize,
    /// How long a chunk of a fetched value is.
    pub chunk_bytes: usize,
    /// How many answers a session may leave unsettled.
    pub unsettled: u64,
    /// What clients must bring; empty lets everybody in.
    pub token: String,
    /// A backup is answered once so many pings were answered that came after it.
    pub backup_pings: u32,
}

impl Default for Hooks {
    fn default() -> Self {
        Self {
            refuse_writes: None,
            cut_after_writes: None,
            cut_after_chunks: None,
            refuse_connections: false,
            value_bytes: 1 << 20,
            inline_bytes: INLINE_VALUE_BYTES_MAX,
            page_entries: u32::MAX,
            answer_bytes: ANSWER_BYTES_TARGET,
            chunk_bytes: 64 * 1024,
            unsettled: 1024,
            token: String::new(),
            backup_pings: 0,
        }
    }
}

/// What the server saw.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Batches applied.
    pub writes: u64,
    /// Operations in them.
    pub operations: u64,
    /// Operations by key, as encoded.
    pub by_key: HashMap<Vec<u8>, u64>,
    /// Batches that came again and were answered from memory.
    pub repeats: u64,
    /// Batches refused.
    pub refusals: u64,
    /// Keys asked for.
    pub gets: u64,
    /// Connections that got through the handshake.
    pub connections: u64,
    /// Fetches begun.
    pub fetches: u64,
    /// Backups asked for.
    pub backups: u64,
}

#[derive(Debug)]
struct Shared {
    hooks: Mutex<Hooks>,
    seen: Mutex<Seen>,
    tables: Mutex<Tables>,
    /// While true, answers wait.
    hold: watch::Sender<bool>,
    /// Changes to cut all connections.
    cut: watch::Sender<u64>,
    /// Connections that are served now.
    live: AtomicUsize,
}

impl FakeServer {
    /// Starts a server on a free port of this host.
    ///
    /// # Errors
    /// If the port or the thread cannot be had.
    pub fn start() -> io::Result<Self> {
        Self::start_with(|_| {})
    }

    /// Starts a server with hooks set.
    ///
    /// # Errors
    /// As for [`start`](Self::start).
    pub fn start_with(set: impl FnOnce(&mut Hooks)) -> io::Result<Self> {
        let mut hooks = Hooks::default();
        set(&mut hooks);
        let shared = Arc::new(Shared {
            hooks: Mutex::new(hooks),
            seen: Mutex::default(),
            tables: Mutex::default(),
            hold: watch::Sender::new(false),
            cut: watch::Sender::new(0),
            live: AtomicUsize::new(0),
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (stop, stopped) = oneshot::channel();
        let (told, address) = mpsc::sync_channel(1);
        let serving = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("fake-server".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    let listening = tokio::net::TcpListener::bind("127.0.0.1:0").await;
                    let listener = match listening.and_then(|on| Ok((on.local_addr()?, on))) {
                        Ok((address, listener)) => {
                            drop(told.send(Ok(address)));
                            listener
                        }
                        Err(error) => return drop(told.send(Err(error))),
                    };
                    tokio::select! {
                        () = connection::listen(serving, listener) => {}
                        _ = stopped => {}
                    }
                });
            })?;
        let address = address.recv().map_err(io::Error::other)??;
        Ok(Self {
            address,
            shared,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Changes the hooks.
    pub fn set(&self, set: impl FnOnce(&mut Hooks)) {
        set(&mut self.shared.hooks.lock());
    }

    /// What it saw so far.
    pub fn seen(&self) -> Seen {
        self.shared.seen.lock().clone()
    }

    /// Cuts all connections.
    pub fn cut(&self) {
        self.shared.cut.send_modify(|cuts| *cuts += 1);
    }

    /// How many connections it serves now.
    pub fn live_connections(&self) -> usize {
        self.shared.live.load(Relaxed)
    }

    /// Forgets all sessions and their temporary tables, and cuts all connections.
    pub fn expire_sessions(&self) {
        self.shared.tables.lock().expire_sessions();
        self.cut();
    }

    /// Holds answers back, or lets them go.
    pub fn hold_answers(&self, hold: bool) {
        self.shared.hold.send_replace(hold);
    }

    /// How many tables there are.
    pub fn tables(&self) -> usize {
        self.shared.tables.lock().len()
    }

    /// What is stored in a named table, as encoded.
    pub fn stored(&self, name: &str) -> HashMap<Vec<u8>, Vec<u8>> {
        self.shared.tables.lock().stored(name)
    }
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // A thread that ended needs no sign.
            let _ended = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}
