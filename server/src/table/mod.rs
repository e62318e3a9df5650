//! Tables: the one place that knows both tiers.
//!
//! What a key's entry is, from new to old: the hot map; the intervals in transit, which left the
//! hot map and are being written; the runs of the key's range. A base or a tombstone ends the look
//! down, a fragment goes on. `write` changes the hot map, `read` folds all levels, `scan` and
//! `count` do so in order, `spill` moves intervals down, and `merge` keeps the runs few, as `due`
//! decides, to whom `depth` says what is too many, and `survey` what is garbage.

mod check;
mod write;
mod lookup;
mod read;
mod batch_read;
mod stream;
mod scan;
mod count;
mod note;
mod spill;
mod checkpoint;
mod interval;
mod survey;
mod depth;
mod due;
mod deletes;
mod merge;
mod give_way;
#[cfg(test)]
pub(crate) mod hooks;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Instant,
};

use bytes::Bytes;
use parking_lot::Mutex;
use rhash_protocol::{Durability, ErrorCode, TableId, TableInfo, TableKind, WireError};
use tokio::sync::oneshot;

pub use stream::ValueStream;

use crate::{
    cold::{Run, RunId},
    data_dir::manifest::Edit,
    hot::{Frozen, HotMap},
    log::{By, Log, Lsn, Record},
    ranges::{Ranges, RunHandle},
    shared::Shared,
};

pub(crate) use lookup::{Found, ReadName};
pub(crate) use merge::{MergeDone, Need};
pub(crate) use note::read_note;
pub use read::{Allowance, Unbounded};
pub(crate) use spill::Spilled;

use deletes::LookedAt;
use depth::Depths;
use due::SETTLED_AFTER;
use survey::Survey;

/// A log of more than this that tells mostly of what is gone is cut.
const STALE_LOG_BYTES_MIN: u64 = 8 << 20;

/// A result that is there at once, or comes from the read pool. What a table looked up in RAM was
/// looked up when the method was called, so later writes do not change it.
#[derive(Debug)]
pub enum Answer<T> {
    /// Known already.
    Ready(Result<T, TableError>),
    /// A read of cold entries is under way.
    Pending(oneshot::Receiver<Result<T, TableError>>),
}

/// Why a table refused, as the client will be told.
pub type TableError = WireError;

/// A packed batch that a table made: its count and its bytes (see `rhash_protocol::packed`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PackedReply {
    /// Entries in the batch.
    pub count: u32,
    /// Their bytes.
    pub bytes: Vec<u8>,
}

/// What a write came to: the outcomes of its conditional operations, packed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriteReply {
    /// Outcomes in the batch.
    pub count: u32,
    /// Their bytes, which are charged for as long as anybody keeps them.
    pub bytes: Bytes,
    /// The record of the log that tells of the write; 0 if none does.
    pub lsn: Lsn,
}

/// The request that a write comes from, if it may be sent again.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asker {
    pub(crate) by: By,
    /// What is kept of the answers to its session.
    pub(crate) kept_bytes: usize,
}

/// A page of a scan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PageReply {
    /// Where the next page begins.
    pub next: Option<Vec<u8>>,
    /// Its entries.
    pub entries: PackedReply,
}

/// What a table has in RAM, without what is in transit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HotUse {
    /// All of it.
    pub(crate) bytes: usize,
    /// What belongs to entries that were read of late.
    pub(crate) used_bytes: usize,
}

/// One table.
#[derive(Debug)]
pub struct Table {
    id: TableId,
    name: Option<String>,
    kind: TableKind,
    codec: String,
    /// How safe its writes are; none follows the server.
    own_durability: Option<Durability>,
    shared: Arc<Shared>,
    /// Held while the set of runs or of intervals in transit changes: by a spill's first and last step, a
    /// merge's last, clear and close. Taken before `state` and before the manifest.
    structure: Mutex<()>,
    state: Mutex<State>,
    /// What is known of the garbage in each range, by its first place; the merging thread's own.
    surveys: Mutex<BTreeMap<u64, Survey>>,
    /// The hot map as it was when it was last looked at for deletes; the merging thread's own.
    looked_at: Mutex<Option<LookedAt>>,
}

/// The levels of a table; what is done under the lock is done in RAM alone.
#[derive(Debug)]
struct State {
    hot: HotMap,
    /// Intervals that are being written, newest first.
    transit: Vec<Arc<Frozen>>,
    cold: Arc<Ranges<Arc<Run>>>,
    /// When a run was last spilled; none: not since the start.
    spilled_at: Option<Instant>,
    /// Changes whenever something leaves RAM or disk, so that a reader sees that what it read
    /// below may be of yesterday.
    epoch: u64,
    /// How often the table was cleared or closed.
    emptied: u64,
    /// The last record of the log that was applied; 0 for none.
    lsn: Lsn,
    closed: bool,
}

/// What a table had, freed when this is dropped: outside of all locks, since a large one takes a while.
#[derive(Debug)]
pub(crate) struct Emptied {
    _hot: HotMap,
    _transit: Vec<Arc<Frozen>>,
    cold: Arc<Ranges<Arc<Run>>>,
}

impl Emptied {
    fn disk_bytes(&self) -> u64 {
        self.cold.runs().iter().map(|run| run.bytes()).sum()
    }
}

impl RunHandle for Arc<Run> {
    fn run_id(&self) -> RunId {
        self.id()
    }
}

/// What a table is made with.
#[derive(Debug, Clone)]
pub(crate) struct TableSpec {
    pub(crate) id: TableId,
    pub(crate) name: Option<String>,
    pub(crate) kind: TableKind,
    pub(crate) codec: String,
    pub(crate) durability: Option<Durability>,
}

impl Table {
    /// A table with these runs.
    pub(crate) fn new(spec: TableSpec, shared: Arc<Shared>, cold: Ranges<Arc<Run>>) -> Arc<Self> {
        let state = State {
            hot: HotMap::new(),
            transit: Vec::new(),
            cold: Arc::new(cold),
            spilled_at: None,
            epoch: 0,
            emptied: 0,
            lsn: 0,
            closed: false,
        };
        shared.budget.settle(0, state.hot.footprint_bytes());
        Arc::new(Self {
            id: spec.id,
            name: spec.name,
            kind: spec.kind,
            codec: spec.codec,
            own_durability: spec.durability,
            shared,
            structure: Mutex::new(()),
            state: Mutex::new(state),
            surveys: Mutex::new(BTreeMap::new()),
            looked_at: Mutex::new(None),
        })
    }

    /// Names the table on this server; never given to another.
    pub fn id(&self) -> TableId {
        self.id
    }

    /// The table's name; none if it is temporary.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// What its entries are.
    pub fn kind(&self) -> TableKind {
        self.kind
    }

    /// How many runs are too many for it.
    pub(crate) fn depths(&self) -> Depths {
        Depths::of(self.kind)
    }

    /// How its keys and values are encoded.
    pub fn codec(&self) -> &str {
        &self.codec
    }

    /// How safe a write to it is when it is answered.
    pub fn durability(&self) -> Durability {
        match self.name {
            Some(_) => self.own_durability.unwrap_or(self.shared.durability),
            None => Durability::None,
        }
    }

    /// The durability that it was made with; none follows the server's.
    pub fn own_durability(&self) -> Option<Durability> {
        self.own_durability
    }

    /// The table's figures; `sessions` is left for the caller.
    pub fn info(&self) -> TableInfo {
        let state = self.state.lock();
        let runs = state.cold.runs();
        let hot_entries = state.hot.len()
            + state
                .transit
                .iter()
                .map(|frozen| frozen.len())
                .sum::<usize>();
        let cold_keys: u64 = runs
            .iter()
            .map(|run| run.keys().saturating_sub(run.tombstones()))
            .sum();
        TableInfo {
            name: self.name.clone(),
            table: self.id,
            kind: self.kind,
            codec: self.codec.clone(),
            entries_estimate: hot_entries as u64 + cold_keys,
            hot_entries: hot_entries as u64,
            hot_bytes: state.ram_bytes() as u64,
            cold_runs: runs.len() as u64,
            cold_bytes: runs.iter().map(|run| run.bytes()).sum(),
            sessions: 0,
            durability: self.durability(),
            own_durability: self.own_durability.is_some(),
        }
    }

    /// Removes all entries and gives back their RAM and disk.
    ///
    /// # Errors
    /// The table is closed, or the change cannot be written down.
    pub fn clear(&self) -> Result<(), TableError> {
        self.clear_by(None).map(drop)
    }

    /// Clears as [`clear`](Self::clear) does, for a request that may be sent again; returns the record of the
    /// log that tells of it and of its answer, 0 if none does.
    pub(crate) fn clear_by(&self, by: Option<By>) -> Result<Lsn, TableError> {
        let (emptied, lsn) = self.empty(false, by)?;
        self.free(emptied);
        Ok(lsn)
    }

    /// Takes the table out of both tiers; it is freed with what is returned. Reads that are under way
    /// still find what they looked up. Returns the record of the log as well, 0 for none.
    pub(crate) fn close(&self, by: Option<By>) -> Result<(Emptied, Lsn), TableError> {
        self.empty(true, by)
    }

    /// Frees what the table had: at once, or, if that takes long, in a moment.
    pub(crate) fn free(&self, emptied: Emptied) {
        let disk_bytes = emptied.disk_bytes();
        if let Some(log) = self.log()
            && log.bytes() > STALE_LOG_BYTES_MIN
            && log.bytes() / 2 < disk_bytes
        {
            self.shared.log_is_stale.store(true, Relaxed);
        }
        self.shared.freeing.free(emptied, disk_bytes);
    }

    /// Whether the table was closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// How often the table was cleared or closed: what was seen before is then gone.
    fn emptied(&self) -> u64 {
        self.state.lock().emptied
    }

    /// All runs of the table.
    pub(crate) fn runs(&self) -> Vec<Arc<Run>> {
        self.state.lock().cold.runs()
    }

    /// The RAM that the hot map takes, without what is in transit.
    pub(crate) fn hot_use(&self) -> HotUse {
        let state = self.state.lock();
        HotUse {
            bytes: state.hot.footprint_bytes(),
            used_bytes: state.hot.used_bytes(),
        }
    }

    /// The log that tells of writes to this table; none for temporary tables, and for those whose
    /// durability is none.
    pub(crate) fn log(&self) -> Option<&Log> {
        match self.durability() {
            Durability::None => None,
            Durability::EverySec | Durability::Always => self.shared.log.get(),
        }
    }

    /// The last record of the log that was applied; 0 for none.
    pub(crate) fn last_record(&self) -> Lsn {
        self.state.lock().lsn
    }

    /// Whether nothing of the table can be spilled, since the log failed that vouches for it.
    pub(crate) fn is_stuck(&self) -> bool {
        self.log().is_some_and(|log| log.failure().is_some())
    }

    fn empty(&self, close: bool, by: Option<By>) -> Result<(Emptied, Lsn), TableError> {
        let _structure = self.structure.lock();
        if self.is_closed() {
            return Err(self.closed_error());
        }
        let (emptied, lsn) = match self.log() {
            None => {
                let lsn = match self.shared.log.get() {
                    // An earlier server may have logged what was written to it: that says nothing any more.
                    Some(log) => log.last(),
                    None => self.last_record(),
                };
                self.record_emptied(close, lsn)?;
                (self.empty_ram(&mut self.state.lock(), close), 0)
            }
            Some(log) => {
                let mut state = self.state.lock();
                let table = self.id;
                if let Some(error) = log.blocked() {
                    return Err(error);
                }
                let lsn = log.append(&Record::Emptied { table, close, by })?;
                let emptied = self.empty_ram(&mut state, close);
                state.logged(lsn);
                drop(state);
                // IMPORTANT: before the manifest says so, or writes before this one could be lost that
                // a start would find it after.
                let recorded = log
                    .sync_through(lsn)
                    .and_then(|()| self.record_emptied(close, lsn));
                if let Err(error) = recorded {
                    // A checkpoint would cut the only record of it, if there is one.
                    log.fail(&error.text);
                    return Err(error);
                }
                (emptied, lsn)
            }
        };
        self.tell_of_change();
        for run in emptied.cold.runs() {
            run.remove_on_drop();
        }
        Ok((emptied, lsn))
    }

    /// Empties the table as the log says; says so in the manifest.
    ///
    /// # Errors
    /// The change cannot be written down.
    pub(crate) fn replay_emptied(&self, lsn: Lsn, close: bool) -> Result<Emptied, TableError> {
        self.record_emptied(close, lsn)?;
        let mut state = self.state.lock();
        let emptied = self.empty_ram(&mut state, close);
        state.logged(lsn);
        drop(state);
        for run in emptied.cold.runs() {
            run.remove_on_drop();
        }
        Ok(emptied)
    }

    fn record_emptied(&self, close: bool, lsn: Lsn) -> Result<(), TableError> {
        let id = self.id;
        match (&self.name, close) {
            (None, _) => Ok(()),
            (Some(_), true) => self.shared.record_durably(Edit::Closed { id }),
            (Some(_), false) => self.shared.record_durably(Edit::Cleared { id, lsn }),
        }
    }

    fn empty_ram(&self, state: &mut State, close: bool) -> Emptied {
        let bytes_before = state.ram_bytes();
        // What is being spilled is no longer in transit, so its run will not be taken in.
        let hot = std::mem::replace(&mut state.hot, HotMap::new());
        let transit = std::mem::take(&mut state.transit);
        let cold = std::mem::replace(&mut state.cold, Arc::new(Ranges::new()));
        state.epoch += 1;
        state.emptied += 1;
        state.closed = close;
        let bytes_after = if close { 0 } else { state.ram_bytes() };
        self.shared.budget.settle(bytes_before, bytes_after);
        Emptied {
            _hot: hot,
            _transit: transit,
            cold,
        }
    }

    /// Runs `read` on the pool, and answers with what it returns.
    fn on_pool<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&Arc<Self>) -> Result<T, TableError> + Send + 'static,
    ) -> Answer<T> {
        let (sender, receiver) = oneshot::channel();
        let table = Arc::clone(self);
        let job = move || {
            // Nobody may wait any more, which is no failure.
            drop(sender.send(read(&table)));
        };
        match self.shared.pool.submit(job) {
            Ok(()) => Answer::Pending(receiver),
            Err(_busy) => Answer::Ready(Err(busy_error())),
        }
    }

    fn closed_error(&self) -> TableError {
        let name = self
            .name
            .as_deref()
            .map_or_else(|| format!("{}", self.id), |name| format!("\"{name}\""));
        TableError {
            code: ErrorCode::TableClosed,
            text: format!("table {name} is closed; open it again to make a new one"),
        }
    }
}

impl State {
    /// A record of the log was applied.
    fn logged(&mut self, lsn: Lsn) {
        self.lsn = lsn;
        self.hot.set_logged();
    }

    /// The RAM that the table takes.
    fn ram_bytes(&self) -> usize {
        self.hot.footprint_bytes()
            + self
                .transit
                .iter()
                .map(|frozen| frozen.footprint_bytes())
                .sum::<usize>()
    }

    /// Whether nothing was spilled for a while.
    fn is_settled(&self) -> bool {
        self.spilled_at
            .is_none_or(|spilled_at| spilled_at.elapsed() >= SETTLED_AFTER)
    }

    /// Whether no level below the hot map can have a key of this place.
    fn nothing_below(&self, place: u64) -> bool {
        !self.transit.iter().any(|frozen| frozen.covers(place))
            && self.cold.at(place).runs.is_empty()
    }
}

fn busy_error() -> TableError {
    TableError {
        code: ErrorCode::Busy,
        text: "too many reads of cold entries are waiting; try again, or with smaller batches"
            .to_owned(),
    }
}

fn full_error() -> TableError {
    TableError {
        code: ErrorCode::Busy,
        text: "too many entries share one place in RAM; try again after they were spilled"
            .to_owned(),
    }
}
