//! What all connections of a server share.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use rhash_protocol::{
    ErrorCode, LimitInfo, Stats, TableInfo, WireError, handshake,
    limits::{BATCH_BYTES_TARGET, request_bytes_max},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::{
    access::Access,
    connection::{Commons, Line, Strangers},
    embed,
    limits::{self, Limit, Limits, Reached, Used},
    session::{Holders, Session, Sessions, UNSETTLED_MAX},
    store::{self, Store},
    table::Table,
    tls::Tls,
};

/// The version that the server tells.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The share of the memory limit that all connections may read ahead.
const READ_AHEAD_LIMIT_SHARE: u64 = 64;
const READ_AHEAD_BYTES_MIN: usize = 4 * 1024;
const READ_AHEAD_BYTES_MAX: usize = 32 * 1024;

/// A session may outlive its lease by this.
const REAP_PAUSE: Duration = Duration::from_millis(100);

/// The most lists of all tables that are made at a time: each looks at every table.
const LISTINGS_MAX: usize = 2;

/// What a table takes in a list, before it is encoded or after.
pub(crate) const LISTED_TABLE_BYTES: usize = 256;

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Hub {
    pub(crate) store: Arc<Store>,
    pub(crate) access: Access,
    /// What connections by TLS need; none takes those in the clear.
    pub(crate) tls: Option<Arc<Tls>>,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) holders: Holders,
    /// What all connections may receive at a time beyond what they read ahead.
    pub(crate) requests_room: Arc<Commons>,
    /// What the answers to all connections may take.
    pub(crate) answers_room: Arc<Commons>,
    /// Where connections wait for their next turn that ask for much.
    pub(crate) line: Arc<Line>,
    /// Where they wait for it who come, or say hello, or go.
    pub(crate) comings_and_goings: Line,
    /// How long connections may take to finish when the server stops.
    pub(crate) drain_time: Duration,
    pub(crate) limits: Limits,
    pub(crate) reached: Reached,
    /// The connections that have not said hello.
    pub(crate) strangers: Arc<Strangers>,
    pub(crate) mem_limit_bytes: u64,
    pub(crate) value_bytes_max: usize,
    pub(crate) memory_only: bool,
    /// Becomes true when the server stops: what is under way is finished, nothing else is taken.
    pub(crate) stopping: watch::Receiver<bool>,
    listings: Arc<Semaphore>,
    /// One backup at a time.
    backups: Arc<Semaphore>,
    started: Instant,
    connections: AtomicU64,
    operations: AtomicU64,
}

/// The turn to make a list of tables, until it is dropped.
#[derive(Debug)]
pub(crate) struct ListingTurn {
    _permit: Option<OwnedSemaphorePermit>,
}

/// What a hub is made of.
#[derive(Debug)]
pub(crate) struct HubParts {
    pub(crate) store: Arc<Store>,
    pub(crate) access: Access,
    pub(crate) tls: Option<Arc<Tls>>,
    pub(crate) drain_time: Duration,
    pub(crate) lease: Duration,
    pub(crate) limits: Limits,
    pub(crate) mem_limit_bytes: u64,
    pub(crate) value_bytes_max: usize,
    pub(crate) memory_only: bool,
    pub(crate) stopping: watch::Receiver<bool>,
}

impl Hub {
    /// The hub of a server that starts now.
    pub(crate) fn new(parts: HubParts) -> Arc<Self> {
        let limits = parts.limits;
        let room = |bytes| Arc::new(Commons::new(bytes, parts.store.buffer_account()));
        let requests_room = room(limits.requests_in_flight_bytes);
        let answers_room = room(limits.answers_in_flight_bytes);
        let sessions = Arc::new(Sessions::new(parts.lease, limits.sessions));
        let holders = Holders::default();
        sessions.restore(&parts.store, &parts.access, &holders);
        Arc::new(Self {
            store: parts.store,
            access: parts.access,
            tls: parts.tls,
            sessions,
            holders,
            requests_room,
            answers_room,
            strangers: Arc::new(Strangers::new(limits.connections_before_hello)),
            line: Arc::new(Line::new(embed::workers())),
            comings_and_goings: Line::new(1),
            drain_time: parts.drain_time,
            limits,
            reached: Reached::default(),
            mem_limit_bytes: parts.mem_limit_bytes,
            value_bytes_max: parts.value_bytes_max,
            memory_only: parts.memory_only,
            stopping: parts.stopping,
            listings: Arc::new(Semaphore::new(LISTINGS_MAX)),
            backups: Arc::new(Semaphore::new(1)),
            started: Instant::now(),
            connections: AtomicU64::new(0),
            operations: AtomicU64::new(0),
        })
    }

    /// What clients are told at their welcome.
    pub(crate) fn welcome_limits(&self) -> handshake::Limits {
        handshake::Limits {
            key_bytes: self.limits.key_bytes,
            value_bytes: self.value_bytes_max as u64,
            frame_bytes: self.limits.frame_bytes,
            batch_bytes: BATCH_BYTES_TARGET as u64,
            unsettled: UNSETTLED_MAX as u64,
        }
    }

    /// The longest request that is taken.
    pub(crate) fn request_bytes_max(&self) -> usize {
        request_bytes_max(self.value_bytes_max)
    }

    /// Counts a connection for as long as what it gives lives.
    pub(crate) fn count_connection(self: &Arc<Self>) -> ConnectionCount {
        self.connections.fetch_add(1, Relaxed);
        ConnectionCount {
            hub: Arc::clone(self),
        }
    }

    /// What a connection may read ahead: the more connections there are, the less.
    pub(crate) fn read_ahead_bytes(&self) -> usize {
        let share = self.mem_limit_bytes / READ_AHEAD_LIMIT_SHARE / self.connections().max(1);
        usize::try_from(share)
            .unwrap_or(usize::MAX)
            .clamp(READ_AHEAD_BYTES_MIN, READ_AHEAD_BYTES_MAX)
    }

    /// The connections open now.
    pub(crate) fn connections(&self) -> u64 {
        self.connections.load(Relaxed)
    }

    /// Counts an error that says that a limit was reached.
    pub(crate) fn count_error(&self, error: &WireError) {
        match error.code {
            ErrorCode::KeyTooLarge => self.reached.count(Limit::KeyBytes),
            ErrorCode::ValueTooLarge => self.reached.count(Limit::ValueBytes),
            _ => {}
        }
    }

    /// Counts operations that were answered.
    pub(crate) fn count_operations(&self, count: usize) {
        self.operations.fetch_add(count as u64, Relaxed);
    }

    /// All figures.
    pub(crate) fn stats(&self) -> Stats {
        let mut stats = self.store.stats();
        stats.version = VERSION.to_owned();
        stats.uptime_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        stats.connections = self.connections();
        stats.sessions = self.sessions.count();
        stats.operations = self.operations.load(Relaxed);
        self.fill_in(&mut stats.tables);
        stats.limits = self.limit_figures();
        stats
    }

    fn limit_figures(&self) -> Vec<LimitInfo> {
        let used = Used {
            connections: self.connections(),
            connections_before_hello: self.strangers.count(),
            sessions: self.sessions.count(),
            tables: self.store.tables_count() as u64,
            requests_in_flight_bytes: self.requests_room.taken_bytes(),
            requests_waited: self.requests_room.waits(),
            answers_waited: self.answers_room.waits(),
            answers_in_flight_bytes: self.answers_room.taken_bytes(),
        };
        limits::figures(
            &self.limits,
            self.value_bytes_max as u64,
            used,
            &self.reached,
        )
    }

    /// The figures of some tables.
    pub(crate) fn table_figures(&self, tables: &[Arc<Table>]) -> Vec<TableInfo> {
        let mut figures = store::figures(tables);
        self.fill_in(&mut figures);
        figures
    }

    /// Waits for the turn to look at all tables; it goes with the work, which may last longer than the
    /// connection that it is for. Cancel safe.
    pub(crate) async fn listing_turn(&self) -> ListingTurn {
        // The semaphore is never closed.
        let permit = Arc::clone(&self.listings).acquire_owned().await;
        ListingTurn {
            _permit: permit.ok(),
        }
    }

    /// The turn to make a backup; none while another has it.
    pub(crate) fn backup_turn(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.backups).try_acquire_owned().ok()
    }

    /// About how long a list of all tables is.
    pub(crate) fn listing_bytes(&self) -> usize {
        self.store.tables_count().saturating_mul(LISTED_TABLE_BYTES)
    }

    /// Does what may touch the disk away from the runtime's threads.
    ///
    /// # Errors
    /// What `work` errs with, or `Storage` if it panics.
    pub(crate) async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, WireError> + Send + 'static,
    ) -> Result<T, WireError> {
        let hub = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || work(&hub)).await;
        done.unwrap_or_else(|error| {
            tracing::error!(%error, "a request failed inside the server");
            Err(WireError {
                code: ErrorCode::Storage,
                text: "the server failed inside; its log says more".to_owned(),
            })
        })
    }

    /// Frees what sessions leave behind, as their leases run out. Ends with the server.
    pub(crate) async fn reap(self: Arc<Self>) {
        let mut stopping = self.stopping.clone();
        loop {
            let (ended, next) = self.sessions.reap(tokio::time::Instant::now());
            for session in ended {
                self.end_session(session).await;
            }
            let wait = async {
                match next {
                    // Each look is at all sessions, of which a crowd may end one by one.
                    Some(next) => tokio::time::sleep_until(next + REAP_PAUSE).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = wait => {}
                // Leases are all of one length: where one runs, none that begins now ends before it.
                () = self.sessions.session_lost(), if next.is_none() => {}
                _ = stopping.wait_for(|stopping| *stopping) => return,
            }
        }
    }

    /// Ends sessions, those whose token was revoked; tells how many they are.
    pub(crate) async fn end_sessions(self: &Arc<Self>, sessions: Vec<Arc<Session>>) -> usize {
        let count = sessions.len();
        for session in sessions {
            self.end_session(session).await;
        }
        count
    }

    async fn end_session(self: &Arc<Self>, session: Arc<Session>) {
        let desk = session.desk();
        let held = std::mem::take(&mut desk.lock().await.tables);
        let id = session.id();
        if let Some(log) = self.store.log() {
            log.end_session(id);
        }
        tracing::debug!(session = id, tables = held.len(), "a session ends");
        let freed = self.blocking(move |hub| {
            for (table, held) in held {
                hub.holders.release(table, id);
                if held.table.name().is_none() {
                    // A table that was closed before is no loss.
                    drop(hub.store.close_table(table));
                }
            }
            Ok(())
        });
        if let Err(error) = freed.await {
            tracing::error!(
                session = id,
                error = error.text,
                "a session left tables behind"
            );
        }
    }

    fn fill_in(&self, tables: &mut [TableInfo]) {
        for table in tables {
            table.sessions = self.holders.count(table.table);
        }
    }
}

/// One connection, counted.
#[derive(Debug)]
pub(crate) struct ConnectionCount {
    hub: Arc<Hub>,
}

impl Drop for ConnectionCount {
    fn drop(&mut self) {
        self.hub.connections.fetch_sub(1, Relaxed);
    }
}
