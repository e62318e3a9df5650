//! A whole server inside any process that has a tokio runtime.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use tokio::{
    net::TcpListener,
    runtime::Runtime,
    sync::watch,
    task::{JoinHandle, JoinSet},
};

use crate::{
    access::{Access, tokens::TokensError},
    config::Config,
    file_limit,
    hub::{Hub, HubParts},
    listener,
    metrics::{self, Phase},
    pool,
    store::{Store, StoreError},
    tls::{Tls, TlsError},
};

/// Requests are short and the disk has threads of its own: more would only cost memory.
const WORKERS_MAX: usize = 8;

/// Requests that may touch the disk for long (opens, closes, clears) share these.
const BLOCKING_THREADS_MAX: usize = 8;

/// The stack of each of them; nothing that they run recurses.
const STACK_BYTES: usize = 512 * 1024;

/// A thread that always has something to do looks at the sockets after so many tasks. A look takes a
/// microsecond, a step that works on a long batch up to a hundred: tokio's 61 of those would keep all
/// others waiting for milliseconds.
const TASKS_BETWEEN_LOOKS: u32 = 2;

/// Starts servers.
#[derive(Debug)]
pub struct Server;

/// A runtime for a server alone: few threads, with small stacks, since both count against its memory
/// limit. A program that has a runtime may start its server there.
///
/// # Errors
/// Threads cannot be started.
pub fn runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers())
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .thread_keep_alive(pool::IDLE_MAX)
        .thread_stack_size(STACK_BYTES)
        .thread_name("rhash")
        .event_interval(TASKS_BETWEEN_LOOKS)
        .enable_all()
        .build()
}

/// The threads of a server's runtime that take requests.
pub(crate) fn workers() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    cores.min(WORKERS_MAX)
}

/// A server that runs.
///
/// Dropping it stops the server without writing its named tables down: call [`stop`](Self::stop).
#[derive(Debug)]
pub struct Handle {
    local_addr: SocketAddr,
    metrics_addr: Option<SocketAddr>,
    /// Answers those who watch; ends when it is dropped.
    watchers: JoinSet<()>,
    stopping: watch::Sender<bool>,
    listener: JoinHandle<()>,
    reaper: JoinHandle<()>,
    hub: Arc<Hub>,
    store: Arc<Store>,
}

/// Why a server could not start, or not stop cleanly.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The address cannot be listened at.
    #[error("cannot listen on {address}")]
    Listen {
        /// As given.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Anybody could come in.
    #[error(
        "{address} can be reached from beyond this host, and no tokens are asked for; give \
         --tokens FILE (`rhash token new NAME` makes them), or --insecure if everybody who can \
         reach it may read, change and free all tables"
    )]
    Exposed {
        /// Where it would listen.
        address: SocketAddr,
    },
    /// The tokens file cannot be used.
    #[error(transparent)]
    Tokens(#[from] TokensError),
    /// The files for TLS cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The tables cannot be opened, or not be written down.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A part of the server failed for a reason of its own.
    #[error("a part of the server failed")]
    Part(#[source] tokio::task::JoinError),
}

impl Server {
    /// Starts a server on this runtime; it takes connections when this returns.
    ///
    /// # Errors
    /// [`ServerError`] if the address or the data directory cannot be used.
    pub async fn start(config: Config) -> Result<Handle, ServerError> {
        let Config {
            listen,
            tokens,
            tls,
            metrics,
            drain_time,
            insecure,
            lease,
            mut limits,
            store: mut store_config,
        } = config;
        limits.connections = limits.connections.min(file_limit::connections_max());
        let access = Access::new(tokens)?;
        let tls = tls.map(Tls::new).transpose()?.map(Arc::new);
        let open = insecure || access.asks_for_tokens();
        let (listener, local_addr) = listen_at(&listen, open).await?;
        // There from the beginning, since opening the tables may take a while.
        let (phase, told) = watch::channel(Phase::Starting);
        let mut metrics_addr = None;
        let mut watchers = JoinSet::new();
        if let Some(address) = metrics {
            let (listener, local_addr) = listen_at(&address, open).await?;
            metrics_addr = Some(local_addr);
            watchers.spawn(metrics::serve(listener, told, tls.clone()));
        }
        store_config.tables_max = usize::try_from(limits.tables).unwrap_or(usize::MAX);
        let mem_limit_bytes = store_config.mem_limit_bytes;
        let value_bytes_max = store_config.value_bytes_max;
        let memory_only = store_config.data_dir.is_none();
        // Opening reads and may write files.
        let store = tokio::task::spawn_blocking(move || Store::open(store_config))
            .await
            .map_err(ServerError::Part)??;
        let (stopping, stopped) = watch::channel(false);
        let hub = Hub::new(HubParts {
            store: Arc::clone(&store),
            access,
            tls,
            drain_time,
            lease,
            limits,
            mem_limit_bytes,
            value_bytes_max,
            memory_only,
            stopping: stopped,
        });
        let tokens = hub.access.tokens();
        tracing::info!(%local_addr, mem_limit_bytes, value_bytes_max, memory_only, tokens, tls = hub.tls.is_some(), "serving");
        phase.send_replace(Phase::Serving(Arc::clone(&hub)));
        if !is_this_host(local_addr.ip()) && !hub.access.asks_for_tokens() {
            tracing::warn!("everybody who reaches this port can read, change and free all tables");
        }
        let start = listener::start(listener, Arc::clone(&hub));
        let listener = start.map_err(|source| ServerError::Listen {
            address: local_addr.to_string(),
            source,
        })?;
        Ok(Handle {
            local_addr,
            metrics_addr,
            watchers,
            stopping,
            reaper: tokio::spawn(Arc::clone(&hub).reap()),
            listener,
            hub,
            store,
        })
    }
}

impl Handle {
    /// Where the server listens; the port that was picked, if that was left to the system.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Where it answers HTTP, if it does.
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        self.metrics_addr
    }

    /// Reads the tokens file again, and the files for TLS. What was revoked ends with its sessions, at
    /// once. If a file cannot be used, what was read before goes on to be valid.
    ///
    /// # Errors
    /// [`ServerError::Tokens`] or [`ServerError::Tls`] if a file cannot be used.
    pub async fn reload(&self) -> Result<(), ServerError> {
        let reloading = Arc::clone(&self.hub);
        let read_again = move || {
            let sessions = &reloading.sessions;
            let revoked = reloading
                .access
                .reload_and(|access| sessions.renew_grants(access))?;
            let reread = reloading.tls.as_ref().map_or(Ok(()), |tls| tls.reload());
            Ok::<_, ServerError>((revoked, reread))
        };
        let reread = tokio::task::spawn_blocking(read_again);
        let (revoked, reread) = reread.await.map_err(ServerError::Part)??;
        let revoked = self.hub.end_sessions(revoked).await;
        reread?;
        let tokens = self.hub.access.tokens();
        tracing::info!(
            tokens,
            sessions_revoked = revoked,
            "read the tokens and certificates again"
        );
        Ok(())
    }

    /// Stops the server: requests under way are finished, connections closed, named tables
    /// written down, temporary ones dropped.
    ///
    /// # Errors
    /// [`ServerError`] if the tables could not be written down.
    pub async fn stop(self) -> Result<(), ServerError> {
        let Self {
            stopping,
            listener,
            reaper,
            store,
            watchers,
            ..
        } = self;
        stopping.send_replace(true);
        let listened = listener.await;
        let reaped = reaper.await;
        // IMPORTANT: tables are written down whatever became of the connections.
        tokio::task::spawn_blocking(move || store.stop())
            .await
            .map_err(ServerError::Part)??;
        drop(watchers);
        tracing::info!("stopped");
        listened.and(reaped).map_err(ServerError::Part)
    }
}

/// Whether only this host reaches an address.
fn is_this_host(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// Listens at an address that only this host reaches, or at any if the server is open to others.
async fn listen_at(address: &str, open: bool) -> Result<(TcpListener, SocketAddr), ServerError> {
    let cannot_listen = |source| ServerError::Listen {
        address: address.to_owned(),
        source,
    };
    let addresses = listener::resolve(address).await.map_err(cannot_listen)?;
    let beyond = addresses.iter().find(|address| !is_this_host(address.ip()));
    match beyond {
        Some(&address) if !open => Err(ServerError::Exposed { address }),
        _ => listener::bind(&addresses).await.map_err(cannot_listen),
    }
}
