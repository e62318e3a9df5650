//! The store: all tables, the tiers' homes, and the threads that look after them.

mod config;
mod names;
mod opening;
mod rebuild;
mod recovery;
mod checkpoint;
pub(crate) mod backup;
mod stop;
mod check;
mod repair;
mod tables;

use std::{
    path::Path,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::Mutex;
use rhash_protocol::{Durability, ErrorCode, Stats, TableId, TableInfo, WireError};

pub use check::{CheckReport, Damage, Progress, check};
pub use config::{LOG_LIMIT_BYTES_MIN, StoreConfig, StoreError, TABLES_MAX, Tiny};
pub use repair::{RepairReport, repair};

pub(crate) use opening::Opening;
pub(crate) use tables::{Tables, figures};

use crate::{
    cold::ColdStore,
    counters::Counters,
    data_dir::{DataDir, manifest::Manifest},
    flights::Flights,
    freeing::Freeing,
    governor::{self, Bell, Budget, Seen},
    key_hash::KeyHasher,
    log::{By, Log, Lsn},
    moment::Moment,
    pool::ReadPool,
    readings::Readings,
    shared::{Shared, cold_error},
    table::{Table, TableError},
};

/// A write waits no longer for disk that merges may give back.
const DISK_WAIT_MAX: Duration = Duration::from_secs(60);
/// It looks this often.
const DISK_LOOK_EVERY: Duration = Duration::from_millis(20);

/// What opening a table found or made.
#[derive(Debug)]
pub struct Opened {
    /// The table.
    pub table: Arc<Table>,
    /// Whether it was made now.
    pub created: bool,
}

/// Room for a write, given back when it is dropped.
#[derive(Debug)]
pub struct Admission {
    shared: Arc<Shared>,
    bytes: usize,
}

/// Where buffers for requests are charged, so that entries make room for them.
#[derive(Debug)]
pub(crate) struct BufferAccount(Option<Arc<Shared>>);

impl BufferAccount {
    /// An account that nobody looks at.
    #[cfg(test)]
    pub(crate) fn of_nothing() -> Self {
        Self(None)
    }

    /// Charges what buffers grew or shrank by.
    pub(crate) fn settle(&self, bytes_before: usize, bytes_after: usize) {
        if let Self(Some(shared)) = self {
            shared.budget.settle_buffers(bytes_before, bytes_after);
        }
    }

    /// Waits until entries have made room for what was charged, where they can; bounded.
    pub(crate) async fn make_room(&self) {
        if let Self(Some(shared)) = self
            && shared.cold.is_some()
            && shared.budget.is_short()
        {
            let began = Instant::now();
            shared.budget.make_room().await;
            shared.counters.stalls.note(began.elapsed());
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.shared.budget.release(self.bytes);
    }
}

/// All tables, their tiers and the governor.
#[derive(Debug)]
pub struct Store {
    shared: Arc<Shared>,
    tables: Arc<Tables>,
    next_table: AtomicU64,
    tables_max: usize,
    mem_limit_bytes: u64,
    seen: Arc<Seen>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    stopped: AtomicBool,
    /// Held by a checkpoint. Taken before all locks of tables.
    checkpointing: Mutex<()>,
    /// Held by a backup. Taken before `checkpointing`.
    backing_up: Mutex<()>,
    /// Asks for a checkpoint, or for the end of the thread that makes them.
    checkpoint_wanted: Arc<Bell>,
    /// Holds the directory's lock.
    data_dir: Option<DataDir>,
}

impl Store {
    /// Opens a store: locks and reads its directory, finds its tables, drops what a crash left.
    ///
    /// # Errors
    /// The directory is in use, of another format, damaged, or cannot be read or written.
    pub fn open(config: StoreConfig) -> Result<Arc<Self>, StoreError> {
        let data_dir = config.data_dir.as_deref().map(DataDir::open).transpose()?;
        let hasher = match &data_dir {
            Some(dir) => config.hasher(dir.secret()),
            None => {
                let mut secret = [0; 16];
                getrandom::fill(&mut secret).map_err(StoreError::Secret)?;
                config.hasher(&secret)
            }
        };
        let (manifest, cold) = data_dir
            .as_ref()
            .map(|dir| open_tiers(dir.path(), &config, &hasher))
            .transpose()?
            .unzip();
        let shared = Arc::new(Shared {
            hasher,
            cold,
            manifest: manifest.map(Mutex::new),
            log: OnceLock::new(),
            durability: match &data_dir {
                Some(_) => config.durability,
                None => Durability::None,
            },
            was_synced: AtomicBool::new(false),
            budget: Budget::new(config.tiny.map_or_else(
                || governor::entries_bytes_at_start(config.mem_limit_bytes),
                |tiny| tiny.entries_bytes,
            ))
            .keeping_at_most(governor::kept_bytes_max(config.mem_limit_bytes)),
            steps: config.steps(),
            pool: ReadPool::start(config.read_threads).map_err(StoreError::Thread)?,
            counters: Counters::default(),
            value_bytes_max: config.value_bytes_max,
            flights: Flights::default(),
            readings: Readings::new(config.mem_limit_bytes),
            spilled: Moment::default(),
            waits_for_merges: AtomicUsize::new(0),
            merge_wanted: Bell::default(),
            merge_done: Bell::default(),
            merge_trouble: Mutex::new(None),
            freeing: Freeing::default(),
            log_is_stale: AtomicBool::new(false),
            no_space_to_gain: AtomicBool::new(false),
            #[cfg(test)]
            hooks: crate::table::hooks::Hooks::default(),
        });
        let store = Self {
            tables: Arc::new(Tables::default()),
            next_table: AtomicU64::new(1),
            tables_max: config.tables_max,
            mem_limit_bytes: config.mem_limit_bytes,
            seen: Arc::new(Seen::default()),
            threads: Mutex::new(Vec::new()),
            stopped: AtomicBool::new(false),
            checkpointing: Mutex::new(()),
            backing_up: Mutex::new(()),
            checkpoint_wanted: Arc::default(),
            data_dir,
            shared,
        };
        // IMPORTANT: before anything is removed or written that the manifest or the log do not vouch for.
        store.check_log(&config)?;
        store.find_tables()?;
        store.open_log(&config)?;
        if config.tiny.is_none_or(|tiny| tiny.threads) {
            store.start_threads(config.tiny.is_none().then_some(config.mem_limit_bytes))?;
        }
        let store = Arc::new(store);
        if config.tiny.is_none_or(|tiny| tiny.threads) {
            store.start_checkpoints()?;
        }
        Ok(store)
    }

    /// The table of this number.
    ///
    /// # Errors
    /// `TableClosed` if it was closed, `NoSuchTable` if there never was one.
    pub fn table(&self, id: TableId) -> Result<Arc<Table>, TableError> {
        self.tables.get(id).ok_or_else(|| {
            if id > 0 && id < self.next_table.load(Relaxed) {
                WireError {
                    code: ErrorCode::TableClosed,
                    text: format!("table {id} is closed; open it again to make a new one"),
                }
            } else {
                WireError {
                    code: ErrorCode::NoSuchTable,
                    text: format!("there is no table {id}"),
                }
            }
        })
    }

    /// Frees a table in both tiers.
    ///
    /// # Errors
    /// It is closed already, or the change cannot be written down.
    pub fn close_table(&self, id: TableId) -> Result<(), TableError> {
        self.close_table_by(id, None).map(drop)
    }

    /// Closes as [`close_table`](Self::close_table) does, for a request that may be sent again; returns the
    /// record of the log that tells of it and of its answer, 0 if none does.
    pub(crate) fn close_table_by(&self, id: TableId, by: Option<By>) -> Result<Lsn, TableError> {
        let table = self.table(id)?;
        let mut by_name = self.tables.by_name.lock();
        let (emptied, lsn) = table.close(by)?;
        if let Some(name) = table.name() {
            by_name.remove(name);
        }
        drop(by_name);
        self.tables.by_id.write().remove(&id);
        table.free(emptied);
        Ok(lsn)
    }

    /// All tables' figures, named ones first; each one's `sessions` is left for the caller.
    pub fn tables(&self) -> Vec<TableInfo> {
        figures(&self.tables.all())
    }

    /// The tables for which `shown` holds, in no order.
    pub(crate) fn tables_that(&self, shown: impl Fn(&Table) -> bool) -> Vec<Arc<Table>> {
        let mut tables = self.tables.all();
        tables.retain(|table| shown(table));
        tables
    }

    /// The engine's figures; those of connections and sessions are left for the caller.
    pub fn stats(&self) -> Stats {
        let counters = &self.shared.counters;
        let cold = self.shared.cold.as_ref();
        let resident_bytes = governor::Resident::new().anonymous_bytes();
        Stats {
            memory_only: cold.is_none(),
            mem_limit_bytes: self.mem_limit_bytes,
            tracked_bytes: self.shared.budget.tracked_bytes() as u64,
            resident_bytes,
            resident_bytes_max: self
                .seen
                .resident_bytes_max
                .load(Relaxed)
                .max(resident_bytes),
            disk_bytes: cold.and_then(|cold| cold.disk_bytes().ok()).unwrap_or(0),
            disk_limit_bytes: cold.and_then(ColdStore::disk_limit_bytes).unwrap_or(0),
            spilled_entries: counters.spilled_entries.load(Relaxed),
            spilled_bytes: counters.spilled_bytes.load(Relaxed),
            promoted_entries: counters.promoted_entries.load(Relaxed),
            merges: counters.merges.load(Relaxed),
            merged_bytes: counters.merged_bytes.load(Relaxed),
            sled_bytes: cold.map_or(0, ColdStore::sled_bytes),
            cold_reads: cold.map_or(0, ColdStore::reads),
            stalls: counters.stalls.count.load(Relaxed),
            stall_ms: counters.stalls.total_us.load(Relaxed) / 1000,
            stall_ms_max: counters.stalls.longest_us.load(Relaxed) / 1000,
            merge_stalls: counters.merge_stalls.count.load(Relaxed),
            merge_stall_ms: counters.merge_stalls.total_us.load(Relaxed) / 1000,
            log_bytes: self.log().map_or(0, Log::bytes),
            log_trouble: self.log().and_then(Log::trouble).map(|error| error.text),
            tables: self.tables(),
            ..Stats::default()
        }
    }

    /// How many tables there are, named and temporary.
    pub(crate) fn tables_count(&self) -> usize {
        self.tables.count()
    }

    /// Where buffers for requests are charged.
    pub(crate) fn buffer_account(&self) -> BufferAccount {
        BufferAccount(Some(Arc::clone(&self.shared)))
    }

    /// Keeps an answer that may be asked for again: it is charged for as long as anybody has it.
    pub(crate) fn keep(&self, answer: Bytes) -> Bytes {
        self.shared.budget.kept().keep(answer)
    }

    /// Waits until a write of this many bytes may go in; hold what is returned until it has.
    ///
    /// # Errors
    /// What keeps RAM from becoming free, if that goes on: `DiskFull`, `Storage`, `Busy`.
    pub async fn admit(&self, bytes: usize) -> Result<Admission, TableError> {
        // Without a cold tier nothing that a write waits for would ever happen: the table itself
        // refuses what has no room, and takes what gives room back.
        let bytes = if self.shared.cold.is_some() { bytes } else { 0 };
        if bytes > 0 && (self.is_crowded() || !self.shared.budget.try_admit(bytes)) {
            let began = Instant::now();
            let admitted = self.wait_for_room(bytes).await;
            self.shared.counters.stalls.note(began.elapsed());
            admitted?;
        }
        Ok(Admission {
            shared: Arc::clone(&self.shared),
            bytes,
        })
    }

    /// Lets discards in where nothing else is, up to a bound: until they are spilled, each takes RAM.
    ///
    /// # Errors
    /// `refusal`, if the bound is reached.
    pub fn admit_discards(
        &self,
        bytes: usize,
        refusal: TableError,
    ) -> Result<Admission, TableError> {
        if !self.shared.budget.lets_discards_in(bytes) {
            return Err(refusal);
        }
        Ok(Admission {
            shared: Arc::clone(&self.shared),
            bytes: 0,
        })
    }

    fn is_crowded(&self) -> bool {
        self.shared.cold.as_ref().is_some_and(ColdStore::is_crowded)
    }

    async fn wait_for_room(&self, bytes: usize) -> Result<(), TableError> {
        self.wait_for_disk().await?;
        self.shared.budget.admit(bytes).await
    }

    /// Waits while the disk limit is reached and merges may still give something back.
    async fn wait_for_disk(&self) -> Result<(), TableError> {
        let Some(cold) = &self.shared.cold else {
            return Ok(());
        };
        let began = Instant::now();
        while let Some(full) = cold.crowded() {
            if self.shared.no_space_to_gain.load(Relaxed) || began.elapsed() > DISK_WAIT_MAX {
                return Err(cold_error(&full));
            }
            self.shared.merge_wanted.ring();
            tokio::time::sleep(DISK_LOOK_EVERY).await;
            // A close makes room as well, while the merging thread is busy with one long merge.
            cold.look_for_room().map_err(|error| cold_error(&error))?;
        }
        Ok(())
    }

    /// Spills and merges as the threads would do now.
    #[cfg(test)]
    pub(crate) fn relieve_now(&self) {
        governor::relieve_now(&self.shared, &self.tables);
        for table in self.tables.all() {
            while table.merge_one(crate::table::Need::Order).expect("a merge")
                == crate::table::MergeDone::Some
            {}
        }
    }

    #[cfg(test)]
    pub(crate) fn hooks(&self) -> &crate::table::hooks::Hooks {
        &self.shared.hooks
    }

    fn start_threads(&self, limit_bytes: Option<u64>) -> Result<(), StoreError> {
        let (shared, tables, seen) = (
            Arc::clone(&self.shared),
            Arc::clone(&self.tables),
            Arc::clone(&self.seen),
        );
        self.start_thread("governor", move || {
            governor::govern(&shared, &tables, &seen, limit_bytes)
        })?;
        if self.shared.cold.is_some() {
            let (shared, tables) = (Arc::clone(&self.shared), Arc::clone(&self.tables));
            self.start_thread("merge", move || governor::upkeep(&shared, &tables))?;
        }
        Ok(())
    }

    fn start_thread(
        &self,
        name: &str,
        run: impl FnOnce() + Send + 'static,
    ) -> Result<(), StoreError> {
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(run)
            .map_err(StoreError::Thread)?;
        self.threads.lock().push(thread);
        Ok(())
    }
}

/// The manifest, and what it names; made anew if it is gone.
fn open_tiers(
    dir: &Path,
    config: &StoreConfig,
    hasher: &KeyHasher,
) -> Result<(Manifest, ColdStore), StoreError> {
    let open_cold = || ColdStore::open(dir, config.cold_options(hasher));
    let mut cold = None;
    if Manifest::is_gone(dir) {
        let opened = open_cold()?;
        rebuild::make_manifest(dir, config, &opened, hasher)?;
        cold = Some(opened);
    }
    let (manifest, torn_bytes) = Manifest::open(dir)?;
    if torn_bytes > 0 {
        tracing::warn!(torn_bytes, "cut the manifest's torn tail");
    }
    Ok((manifest, cold.map_or_else(open_cold, Ok)?))
}

impl Drop for Store {
    // Without a stop before, this is as a crash: the threads end and hot entries are lost.
    fn drop(&mut self) {
        self.shared.budget.stop();
        self.shared.merge_wanted.ring();
        self.checkpoint_wanted.ring();
        if let Some(log) = self.shared.log.get() {
            log.abandon();
        }
    }
}
