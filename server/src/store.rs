//! The store: all tables, the tiers' homes, and the threads that look after them.

use std::{
    collections::HashMap,
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
};

use parking_lot::{Mutex, RwLock};
use rhash_protocol::{
    ErrorCode, OpenMode, Stats, TableId, TableInfo, TableKind, WireError,
    limits::{CODEC_NAME_BYTES_MAX, TABLE_NAME_BYTES_MAX, VALUE_BYTES_MAX},
};

use crate::{
    cold::{ColdError, ColdOptions, ColdStore, Faults, Run, RunId},
    counters::{Counters, count},
    data_dir::{
        DataDir, DataDirError,
        manifest::{Edit, Manifest, State as ManifestState, TableState},
    },
    governor::{self, Bell, Budget, Seen, Steps},
    key_hash::KeyHasher,
    pool::ReadPool,
    ranges::Ranges,
    readings::Readings,
    shared::Shared,
    table::{Table, TableError, TableSpec},
};

/// The most tables that a server has open.
pub const TABLES_MAX: usize = 1 << 20;

/// What a store is made of.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// `--mem-limit`.
    pub mem_limit_bytes: u64,
    /// The data directory; none is `--memory-only`.
    pub data_dir: Option<PathBuf>,
    /// The longest value that a put may carry.
    pub value_bytes_max: usize,
    /// Threads that read cold blocks.
    pub read_threads: usize,
    /// Runs below this go to sled, others get a file.
    pub small_run_bytes: u64,
    /// For tests: how much is done at a time, and how much entries may take, far below what a
    /// server needs. None: all follows from the memory limit.
    pub tiny: Option<Tiny>,
    /// For tests: lets the disk fail on purpose.
    pub faults: Option<Arc<Faults>>,
}

/// Budgets that only tests want.
#[derive(Debug, Clone, Copy)]
pub struct Tiny {
    /// What entries may take.
    pub entries_bytes: usize,
    /// What one spill takes.
    pub spill_bytes: usize,
    /// A range is split beyond this.
    pub range_bytes: u64,
    /// Leading bits of a key's hash that are kept.
    pub place_bits: u32,
    /// Whether the governor and the merging thread run.
    pub threads: bool,
}

impl StoreConfig {
    /// The defaults under a memory limit; `None` as directory has no cold tier.
    pub fn new(mem_limit_bytes: u64, data_dir: Option<PathBuf>) -> Self {
        Self {
            mem_limit_bytes,
            data_dir,
            value_bytes_max: usize::try_from(mem_limit_bytes / 8)
                .unwrap_or(usize::MAX)
                .min(VALUE_BYTES_MAX),
            read_threads: 16,
            small_run_bytes: 1 << 20,
            tiny: None,
            faults: None,
        }
    }
}

/// Why a store could not open or stop.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The cold tier failed.
    #[error(transparent)]
    Cold(#[from] ColdError),
    /// A table could not be spilled.
    #[error("table {table}: {text}")]
    Table {
        /// Which one.
        table: String,
        /// Why.
        text: String,
    },
    /// A thread could not be started.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    /// No secret could be drawn.
    #[error("cannot draw a secret: {0}")]
    Secret(getrandom::Error),
}

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

impl Drop for Admission {
    fn drop(&mut self) {
        self.shared.budget.release(self.bytes);
    }
}

/// The tables by number and by name.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    by_id: RwLock<HashMap<TableId, Arc<Table>>>,
    /// Taken before `by_id`; held while a named table is made or closed.
    by_name: Mutex<HashMap<String, TableId>>,
}

impl Tables {
    /// All tables, in no order.
    pub(crate) fn all(&self) -> Vec<Arc<Table>> {
        self.by_id.read().values().cloned().collect()
    }

    fn get(&self, id: TableId) -> Option<Arc<Table>> {
        self.by_id.read().get(&id).cloned()
    }
}

/// All tables, their tiers and the governor.
#[derive(Debug)]
pub struct Store {
    shared: Arc<Shared>,
    tables: Arc<Tables>,
    next_table: AtomicU64,
    mem_limit_bytes: u64,
    seen: Arc<Seen>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    stopped: AtomicBool,
    /// Holds the directory's lock.
    _data_dir: Option<DataDir>,
}

impl Store {
    /// Opens a store: locks and reads its directory, finds its tables, drops what a crash left.
    ///
    /// # Errors
    /// The directory is in use, of another format, damaged, or cannot be read or written.
    pub fn open(config: StoreConfig) -> Result<Arc<Self>, StoreError> {
        let data_dir = config.data_dir.as_deref().map(DataDir::open).transpose()?;
        let hasher = match &data_dir {
            Some(dir) => KeyHasher::new(dir.secret()),
            None => {
                let mut secret = [0; 16];
                getrandom::fill(&mut secret).map_err(StoreError::Secret)?;
                KeyHasher::new(&secret)
            }
        };
        let hasher = match config.tiny {
            Some(tiny) => hasher.with_place_bits(tiny.place_bits),
            None => hasher,
        };
        let (manifest, cold) = match &data_dir {
            Some(dir) => {
                let (manifest, torn_bytes) = Manifest::open(dir.path())?;
                if torn_bytes > 0 {
                    tracing::warn!(torn_bytes, "cut the manifest's torn tail");
                }
                let mut options =
                    ColdOptions::new(hasher.clone()).with_mem_limit(config.mem_limit_bytes);
                options.small_run_bytes = config.small_run_bytes;
                options.faults = config.faults.clone();
                (Some(manifest), Some(ColdStore::open(dir.path(), options)?))
            }
            None => (None, None),
        };
        let shared = Arc::new(Shared {
            hasher,
            cold,
            manifest: manifest.map(Mutex::new),
            budget: Budget::new(config.tiny.map_or_else(
                || governor::entries_bytes_at_start(config.mem_limit_bytes),
                |tiny| tiny.entries_bytes,
            )),
            steps: steps(&config),
            pool: ReadPool::start(config.read_threads).map_err(StoreError::Thread)?,
            counters: Counters::default(),
            value_bytes_max: config.value_bytes_max,
            readings: Readings::new(),
            merge_wanted: Bell::default(),
            merge_done: Bell::default(),
            merge_trouble: Mutex::new(None),
            #[cfg(test)]
            hooks: crate::table::hooks::Hooks::default(),
        });
        let store = Self {
            tables: Arc::new(Tables::default()),
            next_table: AtomicU64::new(1),
            mem_limit_bytes: config.mem_limit_bytes,
            seen: Arc::new(Seen::default()),
            threads: Mutex::new(Vec::new()),
            stopped: AtomicBool::new(false),
            _data_dir: data_dir,
            shared,
        };
        store.find_tables()?;
        if config.tiny.is_none_or(|tiny| tiny.threads) {
            store.start_threads(config.tiny.is_none().then_some(config.mem_limit_bytes))?;
        }
        Ok(Arc::new(store))
    }

    /// Opens or makes a table. No name makes a temporary one.
    ///
    /// # Errors
    /// By the mode, `NoSuchTable` or `TableExists`; `WrongKind` or `WrongCodec` if the table is of
    /// another kind or codec than given; `BadRequest` for a name that cannot be one, or if a table
    /// would have to be made of no given kind or codec.
    pub fn open_table(
        &self,
        name: Option<&str>,
        kind: Option<TableKind>,
        codec: Option<&str>,
        mode: OpenMode,
    ) -> Result<Opened, TableError> {
        check_names(name, codec)?;
        let Some(name) = name else {
            return self.make_table(None, kind, codec);
        };
        let mut by_name = self.tables.by_name.lock();
        match by_name.get(name).and_then(|&id| self.tables.get(id)) {
            Some(_) if mode == OpenMode::CreateNew => Err(WireError {
                code: ErrorCode::TableExists,
                text: format!("table \"{name}\" exists; open it, or close it first"),
            }),
            Some(table) => {
                check_same(&table, name, kind, codec)?;
                Ok(Opened {
                    table,
                    created: false,
                })
            }
            None if mode == OpenMode::Existing || kind.is_none() || codec.is_none() => {
                Err(WireError {
                    code: ErrorCode::NoSuchTable,
                    text: format!("there is no table \"{name}\""),
                })
            }
            None => {
                let opened = self.make_table(Some(name), kind, codec)?;
                by_name.insert(name.to_owned(), opened.table.id());
                Ok(opened)
            }
        }
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
        let table = self.table(id)?;
        let mut by_name = self.tables.by_name.lock();
        table.close()?;
        if let Some(name) = table.name() {
            by_name.remove(name);
        }
        self.tables.by_id.write().remove(&id);
        Ok(())
    }

    /// All tables' figures, named ones first; each one's `sessions` is left for the caller.
    pub fn tables(&self) -> Vec<TableInfo> {
        let mut tables: Vec<TableInfo> =
            self.tables.all().iter().map(|table| table.info()).collect();
        tables.sort_by(|left, right| {
            (left.name.is_none(), &left.name, left.table).cmp(&(
                right.name.is_none(),
                &right.name,
                right.table,
            ))
        });
        tables
    }

    /// The engine's figures; those of connections and sessions are left for the caller.
    pub fn stats(&self) -> Stats {
        let counters = &self.shared.counters;
        let cold = self.shared.cold.as_ref();
        Stats {
            memory_only: cold.is_none(),
            mem_limit_bytes: self.mem_limit_bytes,
            tracked_bytes: self.shared.budget.tracked_bytes() as u64,
            resident_bytes: governor::Resident::new().anonymous_bytes(),
            resident_bytes_max: self.seen.resident_bytes_max.load(Relaxed),
            disk_bytes: cold.and_then(|cold| cold.disk_bytes().ok()).unwrap_or(0),
            spilled_entries: counters.spilled_entries.load(Relaxed),
            spilled_bytes: counters.spilled_bytes.load(Relaxed),
            promoted_entries: counters.promoted_entries.load(Relaxed),
            merges: counters.merges.load(Relaxed),
            merged_bytes: counters.merged_bytes.load(Relaxed),
            sled_bytes: cold.map_or(0, ColdStore::sled_bytes),
            cold_reads: cold.map_or(0, ColdStore::reads),
            stall_ms: counters.stall_us.load(Relaxed) / 1000,
            tables: self.tables(),
            ..Stats::default()
        }
    }

    /// Waits until a write of this many bytes may go in; hold what is returned until it has.
    ///
    /// # Errors
    /// What keeps RAM from becoming free, if that goes on: `DiskFull`, `Storage`, `Busy`.
    pub async fn admit(&self, bytes: usize) -> Result<Admission, TableError> {
        // Without a cold tier nothing that a write waits for would ever happen: the table itself
        // refuses what has no room, and takes what gives room back.
        let bytes = if self.shared.cold.is_some() { bytes } else { 0 };
        if bytes > 0 {
            let waited_us = self.shared.budget.admit(bytes).await?;
            count(&self.shared.counters.stall_us, waited_us);
        }
        Ok(Admission {
            shared: Arc::clone(&self.shared),
            bytes,
        })
    }

    /// Ends the threads, spills named tables, drops temporary ones, and marks the directory as
    /// cleanly stopped. Blocks while it writes. A store that was stopped does nothing more.
    ///
    /// # Errors
    /// A table could not be spilled, or the disk not be synced; what is on disk is as after a crash.
    pub fn stop(&self) -> Result<(), StoreError> {
        self.shared.budget.stop();
        self.shared.merge_wanted.ring();
        if self.stopped.swap(true, Relaxed) {
            return Ok(());
        }
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the store had panicked");
            }
        }
        let Some(cold) = &self.shared.cold else {
            return Ok(());
        };
        for table in self.tables.all() {
            let Some(name) = table.name() else {
                // Closing a table that somebody closes at the same time is as good.
                drop(self.close_table(table.id()));
                continue;
            };
            while table.has_unspilled() {
                table
                    .spill(self.shared.steps.spill_bytes)
                    .map_err(|error| StoreError::Table {
                        table: name.to_owned(),
                        text: error.text,
                    })?;
            }
            for run in table.runs() {
                run.sync()?;
            }
        }
        cold.sync()?;
        if let Some(manifest) = &self.shared.manifest {
            // IMPORTANT: the runs are synced before the manifest says that the stop was clean.
            let mut manifest = manifest.lock();
            manifest.record(Edit::Stopped {
                next_table: self.next_table.load(Relaxed),
            })?;
            manifest.rewrite()?;
        }
        Ok(())
    }

    #[cfg(test)]
    pub(crate) fn hooks(&self) -> &crate::table::hooks::Hooks {
        &self.shared.hooks
    }

    fn make_table(
        &self,
        name: Option<&str>,
        kind: Option<TableKind>,
        codec: Option<&str>,
    ) -> Result<Opened, TableError> {
        let (Some(kind), Some(codec)) = (kind, codec) else {
            return Err(WireError {
                code: ErrorCode::BadRequest,
                text: "a new table needs a kind and a codec".to_owned(),
            });
        };
        if self.tables.by_id.read().len() >= TABLES_MAX {
            return Err(WireError {
                code: ErrorCode::Busy,
                text: format!("there are {TABLES_MAX} tables, which is the limit; close some"),
            });
        }
        let id = self.next_table.fetch_add(1, Relaxed);
        if let Some(name) = name {
            let state = TableState {
                name: name.to_owned(),
                kind,
                codec: codec.to_owned(),
                ranges: Ranges::new(),
            };
            self.shared.record(Edit::Table { id, state })?;
        }
        let spec = TableSpec {
            id,
            name: name.map(str::to_owned),
            kind,
            codec: codec.to_owned(),
        };
        let table = Table::new(spec, Arc::clone(&self.shared), Ranges::new());
        self.tables.by_id.write().insert(id, Arc::clone(&table));
        Ok(Opened {
            table,
            created: true,
        })
    }

    /// Opens the tables that the manifest names, and removes runs that belong to none.
    fn find_tables(&self) -> Result<(), StoreError> {
        let (Some(cold), Some(manifest)) = (&self.shared.cold, &self.shared.manifest) else {
            return Ok(());
        };
        let state = manifest.lock().state().clone();
        self.next_table.fetch_max(state.next_table, Relaxed);
        if !state.stopped {
            warn_of_crash(&state);
        }
        let mut used = Vec::new();
        for (&id, table) in &state.tables {
            let mut opened: HashMap<RunId, Arc<Run>> = HashMap::new();
            for run in table.ranges.runs() {
                match cold.open_run(run) {
                    Ok(open) => drop(opened.insert(run, open)),
                    Err(error) => tracing::error!(
                        table = table.name, run, error = %crate::shared::error_text(&error),
                        "dropped a run that cannot be opened; its entries are missing"
                    ),
                }
                used.push(run);
            }
            let ranges = table.ranges.map(|run| opened.get(run).cloned());
            let spec = TableSpec {
                id,
                name: Some(table.name.clone()),
                kind: table.kind,
                codec: table.codec.clone(),
            };
            self.tables.by_name.lock().insert(table.name.clone(), id);
            let table = Table::new(spec, Arc::clone(&self.shared), ranges);
            self.tables.by_id.write().insert(id, table);
        }
        used.sort_unstable();
        self.remove_leftovers(cold, &used)
    }

    fn remove_leftovers(&self, cold: &ColdStore, used: &[RunId]) -> Result<(), StoreError> {
        let (mut runs, mut bytes) = (0u64, 0u64);
        for found in cold.list()? {
            if let Ok(summary) = &found.summary {
                self.next_table
                    .fetch_max(summary.table.saturating_add(1), Relaxed);
            }
            if used.binary_search(&found.id).is_err() {
                cold.remove(found.id)?;
                runs += 1;
                bytes += found.bytes;
            }
        }
        if runs > 0 {
            tracing::info!(
                runs,
                bytes,
                "removed runs of temporary tables and unfinished work"
            );
        }
        Ok(())
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
            self.start_thread("merge", move || governor::merge(&shared, &tables))?;
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

impl Drop for Store {
    // Without a stop before, this is as a crash: the threads end and hot entries are lost.
    fn drop(&mut self) {
        self.shared.budget.stop();
        self.shared.merge_wanted.ring();
    }
}

fn steps(config: &StoreConfig) -> Steps {
    match config.tiny {
        None => Steps::under(config.mem_limit_bytes),
        Some(tiny) => Steps {
            spill_bytes: tiny.spill_bytes,
            ranges_soon: usize::MAX,
            range_bytes_soon: tiny.range_bytes,
            range_bytes_late: tiny.range_bytes,
        },
    }
}

fn warn_of_crash(state: &ManifestState) {
    let tables: Vec<&str> = state
        .tables
        .values()
        .map(|table| table.name.as_str())
        .collect();
    tracing::warn!(
        ?tables,
        "the server was not stopped cleanly: entries of these tables that were only in RAM are lost"
    );
}

fn check_names(name: Option<&str>, codec: Option<&str>) -> Result<(), TableError> {
    let bad = |text: String| {
        Err(WireError {
            code: ErrorCode::BadRequest,
            text,
        })
    };
    match (name, codec) {
        (Some(""), _) => bad("a table's name must not be empty".to_owned()),
        (Some(name), _) if name.len() > TABLE_NAME_BYTES_MAX => bad(format!(
            "a table name of {} bytes, the limit is {TABLE_NAME_BYTES_MAX}",
            name.len()
        )),
        (Some(name), _) if name.chars().any(char::is_control) => {
            bad(format!("the table name {name:?} holds control characters"))
        }
        (_, Some(codec)) if codec.len() > CODEC_NAME_BYTES_MAX => bad(format!(
            "a codec name of {} bytes, the limit is {CODEC_NAME_BYTES_MAX}",
            codec.len()
        )),
        _ => Ok(()),
    }
}

/// Whether a table is what its opener takes it for.
fn check_same(
    table: &Table,
    name: &str,
    kind: Option<TableKind>,
    codec: Option<&str>,
) -> Result<(), TableError> {
    if let Some(kind) = kind
        && kind != table.kind()
    {
        return Err(WireError {
            code: ErrorCode::WrongKind,
            text: format!(
                "the entries of table \"{name}\" are {}, not {}; open it as what it is, or close it",
                table.kind().name(),
                kind.name()
            ),
        });
    }
    if let Some(codec) = codec
        && codec != table.codec()
    {
        return Err(WireError {
            code: ErrorCode::WrongCodec,
            text: format!(
                "table \"{name}\" has codec {}, not {codec}; open it with the types that it was made with",
                table.codec()
            ),
        });
    }
    Ok(())
}
