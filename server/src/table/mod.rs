//! Tables: the one place that knows both tiers.

use std::{sync::Arc, time::Duration};

use rhash_protocol::{
    Keys, OpenMode, Ops, ScanWhat, Stats, TableId, TableInfo, TableKind, WireError,
};
use tokio::sync::oneshot;

/// A result that is there at once, or comes from the read pool. What a table looked up in RAM was
/// looked up when the method was called, so later writes do not change it.
#[derive(Debug)]
pub enum Answer<T> {
    /// Known already.
    Ready(Result<T, TableError>),
    /// A read of cold entries is under way.
    Pending(oneshot::Receiver<Result<T, TableError>>),
}

/// Why a table refused; becomes a [`WireError`].
pub type TableError = WireError;

/// A packed batch that a table made: its count and its bytes (see `rhash_protocol::packed`).
#[derive(Debug, Clone, Default)]
pub struct PackedReply {
    /// Entries in the batch.
    pub count: u32,
    /// Their bytes.
    pub bytes: Vec<u8>,
}

/// A page of a scan.
#[derive(Debug, Clone, Default)]
pub struct PageReply {
    /// Where the next page begins.
    pub next: Option<Vec<u8>>,
    /// Its entries.
    pub entries: PackedReply,
}

/// What `Store::open_table` found or made.
#[derive(Debug)]
pub struct Opened {
    /// The table.
    pub table: Arc<Table>,
    /// Whether it was made now.
    pub created: bool,
}

/// What a store is made of.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// `--mem-limit`.
    pub mem_limit_bytes: u64,
    /// The data directory; none is `--memory-only`.
    pub data_dir: Option<std::path::PathBuf>,
    /// The longest value that a put may carry.
    pub value_bytes_max: usize,
    /// Threads that read cold blocks.
    pub read_threads: usize,
    /// Runs below this go to sled, others get a file.
    pub small_run_bytes: u64,
}

/// All tables, their tiers and the governor.
#[derive(Debug)]
pub struct Store {}

/// One table.
#[derive(Debug)]
pub struct Table {}

/// The bytes of one value, part by part, read by a thread of the read pool as they are taken.
pub type ValueStream = tokio::sync::mpsc::Receiver<Result<Vec<u8>, TableError>>;

#[expect(clippy::todo, clippy::unused_self, unused_variables, reason = "to be written")]
impl Store {
    pub fn open(config: StoreConfig) -> Result<Arc<Store>, StoreError> { todo!() }
    /// Opens or makes a table. `None` as name makes a temporary one.
    pub fn open_table(&self, name: Option<&str>, kind: Option<TableKind>, codec: Option<&str>, mode: OpenMode) -> Result<Opened, TableError> { todo!() }
    pub fn table(&self, id: TableId) -> Result<Arc<Table>, TableError> { todo!() }
    /// Frees a table in both tiers.
    pub fn close_table(&self, id: TableId) -> Result<(), TableError> { todo!() }
    /// `connections`, `sessions`, `operations`, `version`, `uptime_ms` and each table's `sessions` are left for the caller.
    pub fn stats(&self) -> Stats { todo!() }
    pub fn tables(&self) -> Vec<TableInfo> { todo!() }
    /// Waits until the governor lets a write of this many bytes in. Bounded; errs `OutOfMemory`, `DiskFull`, `Storage`.
    pub async fn admit(&self, bytes: usize) -> Result<(), TableError> { todo!() }
    /// Spills named tables, drops temporary ones, and marks the directory as cleanly stopped. Blocking.
    pub fn stop(&self) -> Result<(), StoreError> { todo!() }
}

/// Why a store could not open or stop.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StoreError(pub String);

#[expect(clippy::todo, clippy::unused_self, unused_variables, reason = "to be written")]
impl Table {
    pub fn id(&self) -> TableId { todo!() }
    pub fn name(&self) -> Option<&str> { todo!() }
    pub fn kind(&self) -> TableKind { todo!() }
    pub fn codec(&self) -> &str { todo!() }
    /// Applies a batch in order, all or nothing.
    pub fn write(self: &Arc<Self>, ops: Ops<'_>) -> Answer<PackedReply> { todo!() }
    /// Slots for a prefix of the keys.
    pub fn get(self: &Arc<Self>, keys: Keys<'_>) -> Answer<PackedReply> { todo!() }
    pub fn contains(self: &Arc<Self>, keys: Keys<'_>) -> Answer<PackedReply> { todo!() }
    pub fn fetch(self: &Arc<Self>, key: &[u8]) -> Answer<Option<ValueStream>> { todo!() }
    pub fn scan(self: &Arc<Self>, cursor: Option<&[u8]>, what: ScanWhat, entries_max: u32) -> Answer<PageReply> { todo!() }
    pub fn len(self: &Arc<Self>) -> Answer<u64> { todo!() }
    pub fn is_empty(self: &Arc<Self>) -> Answer<bool> { todo!() }
    pub fn clear(self: &Arc<Self>) -> Result<(), TableError> { todo!() }
}

const _: Duration = Duration::ZERO;
