//! The client: one connection and one cache for all its tables.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::StreamExt as _;
use parking_lot::Mutex;
use rhash_protocol::{
    BackupInfo, OpenMode, Request, Response, Stats, TableId, TableInfo, TableKind,
    limits::PATH_BYTES_MAX,
};
use tokio::{
    runtime::Handle,
    sync::{Semaphore, watch},
};

use crate::{
    address::Address,
    builder::TableBuilder,
    cache::{Cache, CacheLimits},
    config::{CachePolicy, ClientBuilder},
    error::{Error, ErrorKind, Result},
    flusher,
    pipeline::{self, Events, Patience, Pipeline, PipelineConfig, Reply},
    registry::Registry,
    table::{TableCore, TableSpec},
    tls::Tls,
};

/// Tables that are flushed at the same time.
const FLUSHES_MAX: usize = 128;

/// A connection to a server, with the cache of all tables that are opened through it. Clones share
/// both; ten thousand tables cost little more than ten thousand entries.
///
/// What is in the cache is sent by tasks of the runtime that called
/// [`connect`](Self::connect): before that runtime ends, call [`shutdown`](Self::shutdown), or
/// `flush` on what must not be lost.
#[derive(Debug, Clone)]
pub struct Client {
    pub(crate) core: Arc<ClientCore>,
}

#[derive(Debug)]
pub(crate) struct ClientCore {
    pub(crate) pipeline: Pipeline,
    pub(crate) cache: Arc<Cache>,
    pub(crate) registry: Registry,
    pub(crate) runtime: Handle,
    pub(crate) policy: CachePolicy,
    pub(crate) retry_deadline: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) cache_bytes: usize,
    pub(crate) key_bytes_max: usize,
    pub(crate) value_bytes_max: usize,
    /// Tables that are being let go of after their last handle was dropped.
    pub(crate) releases: watch::Sender<usize>,
    /// Why one of them lost writes, until somebody is told.
    pub(crate) release_failed: Mutex<Option<Error>>,
    /// The batches of cached writes that may be on their way at the same time.
    pub(crate) launches: Arc<Semaphore>,
}

impl Client {
    /// Connects with default options; see [`builder`](Self::builder) for others. The address is
    /// `HOST:PORT`, `rhash://HOST:PORT`, or a host alone for port 10080.
    ///
    /// # Errors
    /// Why the server could not be reached or did not take this client.
    pub async fn connect(address: &str) -> Result<Self> {
        Self::builder().connect(address).await
    }

    /// Options, then a connection.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    pub(crate) async fn open(options: ClientBuilder, address: Address) -> Result<Self> {
        let token = options.token.find(address.token().clone())?;
        let tls = Tls::to(&address, options.tls)?;
        let pipeline = Pipeline::connect(PipelineConfig {
            address,
            token,
            tls,
            client_name: options.client_name,
            in_flight_bytes: options.in_flight_bytes,
            connect_timeout: options.connect_timeout,
            request_timeout: options.request_timeout,
            retry_deadline: options.retry_deadline,
            backoff_min: options.backoff_min,
            backoff_max: options.backoff_max,
        })
        .await?;
        let limits = pipeline.limits();
        let value_bytes_max = usize::try_from(limits.value_bytes)
            .unwrap_or(usize::MAX)
            .max(1);
        let cache = Arc::new(Cache::new(CacheLimits {
            bytes_max: options.cache_bytes,
            items_max: options.cache_items,
            flush_bytes: options.flush_bytes.unwrap_or(options.cache_bytes / 4),
            flush_interval: options.flush_interval,
            op_bytes_max: value_bytes_max,
        }));
        let launches = (options.in_flight_bytes / flusher::LAUNCH_BYTES).max(2);
        let core = Arc::new(ClientCore {
            pipeline,
            cache,
            registry: Registry::new(),
            runtime: Handle::current(),
            policy: options.cache_policy,
            retry_deadline: options.retry_deadline,
            request_timeout: options.request_timeout,
            cache_bytes: options.cache_bytes,
            key_bytes_max: usize::try_from(limits.key_bytes).unwrap_or(usize::MAX),
            value_bytes_max,
            releases: watch::Sender::new(0),
            release_failed: Mutex::new(None),
            launches: Arc::new(Semaphore::new(launches)),
        });
        let events: std::sync::Weak<ClientCore> = Arc::downgrade(&core);
        core.pipeline.listen(events);
        tokio::spawn(flusher::run(Arc::downgrade(&core), Arc::clone(&core.cache)));
        Ok(Self { core })
    }

    /// A named table: it outlives this client, and others can open it.
    pub fn table(&self, name: impl Into<String>) -> TableBuilder {
        TableBuilder::new(self.clone(), Some(name.into()))
    }

    /// A table of this client alone, which ends with its last handle.
    pub fn temporary(&self) -> TableBuilder {
        TableBuilder::new(self.clone(), None)
    }

    /// All tables that this client may see.
    ///
    /// # Errors
    /// Those of the connection.
    pub async fn tables(&self) -> Result<Vec<TableInfo>> {
        let reply = self.core.call(Request::Tables).await?;
        match reply.response()? {
            Response::Tables(tables) => Ok(tables),
            other => Err(pipeline::unexpected(&other)),
        }
    }

    /// The named table, if there is one: its kind and codec say with which types to open it.
    ///
    /// # Errors
    /// Those of the connection.
    pub async fn find_table(&self, name: &str) -> Result<Option<TableInfo>> {
        let tables = self.tables().await?;
        Ok(tables
            .into_iter()
            .find(|table| table.name.as_deref() == Some(name)))
    }

    /// The server's figures.
    ///
    /// # Errors
    /// Those of the connection.
    pub async fn stats(&self) -> Result<Stats> {
        let reply = self.core.call(Request::Stats).await?;
        match reply.response()? {
            Response::Stats(stats) => Ok(*stats),
            other => Err(pipeline::unexpected(&other)),
        }
    }

    /// Asks the server for a sign of life, and says how long that took.
    ///
    /// # Errors
    /// Those of the connection.
    pub async fn ping(&self) -> Result<Duration> {
        let asked = Instant::now();
        let reply = self.core.call(Request::Ping).await?;
        match reply.response()? {
            Response::Pong => Ok(asked.elapsed()),
            other => Err(pipeline::unexpected(&other)),
        }
    }

    /// Frees a named table in RAM and on disk, for everybody, whatever it holds.
    ///
    /// # Errors
    /// [`ErrorKind::NoSuchTable`] if there is none, and those of the connection.
    pub async fn close_table(&self, name: &str) -> Result<()> {
        let spec = TableSpec {
            kind: None,
            codec: None,
            mode: OpenMode::Existing,
            durability: None,
        };
        let handle = self
            .core
            .open_table(Some(name.to_owned()), spec, CachePolicy::None)
            .await?;
        handle.close().await
    }

    /// Sends all cached writes of all tables and waits until the server has them.
    ///
    /// # Errors
    /// [`ErrorKind::FlushFailed`], for one of the tables that could not be flushed, or for one
    /// whose last handle was dropped before and whose writes did not get there; the others are
    /// flushed.
    pub async fn flush(&self) -> Result<()> {
        let mut releases = self.core.releases.subscribe();
        let released = releases.wait_for(|&under_way| under_way == 0);
        if tokio::time::timeout(self.core.retry_deadline, released)
            .await
            .is_err()
        {
            tracing::warn!("tables are still being let go of");
        }
        let first = self.core.release_failed.lock().take().map_or(Ok(()), Err);
        futures_util::stream::iter(self.core.registry.in_use())
            .map(|table| async move { table.flush().await })
            .buffer_unordered(FLUSHES_MAX)
            .fold(first, |first, flushed| {
                std::future::ready(first.and(flushed))
            })
            .await
    }

    /// Writes all that this client has cached, and returns when all that it wrote before to named tables is
    /// on stable storage, whatever their durability.
    ///
    /// # Errors
    /// As [`flush`](Self::flush), and those of the connection; a server whose disk failed says so.
    pub async fn sync(&self) -> Result<()> {
        self.flush().await?;
        let reply = self.core.call(Request::Sync).await?;
        match reply.response()? {
            Response::Done => Ok(()),
            other => Err(pipeline::unexpected(&other)),
        }
    }

    /// Writes all that this client has cached, and has the server copy its named tables, as they are at one
    /// moment, to the new directory `dir` on the server's own host: an absolute path, whose parent is
    /// there. A server that is started with `--data` on the copy has what was in them. Writers go on
    /// meanwhile, this client's too. However long it takes, it is waited for while the server is heard.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] for a path that is not absolute or too long; [`ErrorKind::Busy`] if a backup is
    /// under way; [`ErrorKind::Denied`] without the right `admin`; why the server cannot make one, of which
    /// nothing stays then; as [`flush`](Self::flush), and those of the connection. If that was lost, the
    /// backup may still come to be: `dir` is there once it is whole.
    pub async fn backup(&self, dir: &str) -> Result<BackupInfo> {
        if !dir.starts_with('/') || dir.len() > PATH_BYTES_MAX || dir.contains('\0') {
            let text = format!(
                "a backup needs an absolute path of at most {PATH_BYTES_MAX} bytes, not {dir:?}"
            );
            return Err(Error::new(ErrorKind::Usage, text));
        }
        self.flush().await?;
        let call = self
            .core
            .pipeline
            .call(Request::Backup { dir }, Patience::Once);
        let mut call = std::pin::pin!(call);
        let reply = loop {
            // Nothing comes while the server copies, so that it is asked for a sign of life.
            match tokio::time::timeout(self.core.request_timeout, &mut call).await {
                Ok(reply) => break reply,
                Err(_elapsed) => self.ping().await.map(drop)?,
            }
        };
        let reply = reply.map_err(|error| match error.kind() {
            ErrorKind::Connection => {
                let text =
                    format!("{error}; if the server goes on, {dir} is there once it is whole");
                Error::with_source(ErrorKind::Connection, text, error)
            }
            _ => error,
        })?;
        match reply.response()? {
            Response::BackedUp(info) => Ok(info),
            other => Err(pipeline::unexpected(&other)),
        }
    }

    /// Flushes all tables, then disconnects. Handles that are left err from then on.
    ///
    /// # Errors
    /// As for [`flush`](Self::flush); the connection ends all the same.
    pub async fn shutdown(&self) -> Result<()> {
        let flushed = self.flush().await;
        // IMPORTANT: or a write that comes now would be cached, and never sent.
        for table in self.core.registry.expire() {
            table.lose(&pipeline::shut_down());
        }
        self.core.pipeline.shut();
        flushed
    }
}

impl ClientCore {
    pub(crate) async fn call(&self, request: Request<'_>) -> Result<Reply> {
        self.pipeline.call(request, Patience::Bounded).await
    }

    pub(crate) async fn open_table(
        self: &Arc<Self>,
        name: Option<String>,
        spec: TableSpec,
        policy: CachePolicy,
    ) -> Result<crate::table::Handle> {
        let core = Arc::clone(self);
        let opening = async move { core.open_here(name, spec, policy).await };
        // In a task of its own: if the caller gives up, the table is let go of and not forgotten.
        match self.runtime.spawn(opening).await {
            Ok(opened) => opened,
            Err(_ended) => Err(pipeline::shut_down()),
        }
    }

    async fn open_here(
        self: Arc<Self>,
        name: Option<String>,
        spec: TableSpec,
        policy: CachePolicy,
    ) -> Result<crate::table::Handle> {
        if let (None, Some(durability)) = (&name, spec.durability) {
            let text = format!(
                "a temporary table cannot have durability {}: it ends with its client; give it a name",
                durability.name()
            );
            return Err(Error::new(ErrorKind::Usage, text));
        }
        let _alone = match &name {
            Some(name) => Some(self.registry.name_lock(name).lock().await),
            None => None,
        };
        let opening = self.registry.begin_open();
        let reply = self
            .call(Request::Open {
                name: name.as_deref(),
                kind: spec.kind,
                codec: spec.codec.as_deref(),
                mode: spec.mode,
                durability: spec.durability,
            })
            .await?;
        let Response::Opened {
            table,
            kind,
            codec,
            sole,
            ..
        } = reply.response()?
        else {
            return Err(pipeline::unexpected(&reply.response()?));
        };
        spec.check(kind, &codec)?;
        let core = opening.register(table, sole, |slot, sole| {
            self.cache.open(slot, sole);
            Arc::new(TableCore::new(
                Arc::clone(&self),
                table,
                slot,
                name.clone(),
                kind,
                policy,
            ))
        });
        match core {
            Some(core) => Ok(crate::table::Handle::new(core)),
            None => Err(pipeline::expired()),
        }
    }
}

impl TableSpec {
    /// Servers check this too; one that does not must not make this client misread its data.
    fn check(&self, kind: TableKind, codec: &str) -> Result<()> {
        if let Some(asked) = self.kind
            && asked != kind
        {
            let text = format!("the table holds {}, not {}", kind.name(), asked.name());
            return Err(Error::new(ErrorKind::WrongKind, text));
        }
        match &self.codec {
            Some(asked) if asked != codec => {
                let text = format!("the table's codec is {codec}, not {asked}");
                Err(Error::new(ErrorKind::WrongCodec, text))
            }
            _ => Ok(()),
        }
    }
}

impl Events for ClientCore {
    fn sole(&self, table: TableId, sole: bool) {
        if let Some(core) = self.registry.sole(table, sole) {
            self.cache.set_sole(core.slot, sole);
        }
    }

    fn link_lost(&self) {
        // While nothing is heard, another client may open a named table.
        for core in self.registry.all() {
            if core.name.is_some() {
                self.cache.set_sole(core.slot, false);
            }
        }
    }

    fn session_expired(&self) {
        for core in self.registry.expire() {
            core.lose(&pipeline::expired());
        }
    }
}

impl Drop for ClientCore {
    fn drop(&mut self) {
        // The flusher sees that it is alone, and ends.
        self.cache.flush_wanted.notify_one();
    }
}
