//! What a server can answer.

use serde::{Deserialize, Serialize, Serializer};

use crate::{
    limits::ERROR_TEXT_BYTES_MAX,
    packed::{Outcomes, Page, Presence, Values},
    request::{Durability, TableId, TableKind},
};

/// An answer to a request, under the same request id.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Response<'a> {
    /// The request failed; nothing of it was applied.
    Error(WireError),
    /// To `Ping`.
    Pong,
    /// To `Clear`, `Close` and `Detach`.
    Done,
    /// To `Open`.
    Opened {
        /// Names the table from now on.
        table: TableId,
        /// What its entries are.
        kind: TableKind,
        /// How its keys and values are encoded.
        codec: String,
        /// Whether this request made it.
        created: bool,
        /// Whether no other session has it open, so that clean entries may be cached.
        sole: bool,
    },
    /// To `Tables`.
    Tables(Vec<TableInfo>),
    /// To `Len`.
    Count(u64),
    /// To `IsEmpty`.
    Empty(bool),
    /// To `Write`: the outcomes of its conditional operations, in their order.
    Written(#[serde(borrow)] Outcomes<'a>),
    /// To `Get`: a slot for each key, in their order; fewer than asked (at least one) when the
    /// answer grew long, and the client asks again for the others.
    Values(#[serde(borrow)] Values<'a>),
    /// To `Contains`.
    Present(#[serde(borrow)] Presence<'a>),
    /// To `Fetch`: whether there is a value. If so this is a frame of its own with MORE set, and
    /// the value's bytes follow in chunk frames as they are read, the last one without MORE; an
    /// `Error` in the place of a chunk, without MORE, says that they end too early. Such a stream
    /// may be longer than memory: a receiver takes it chunk by chunk, not through an assembler.
    Stream {
        /// Whether there is a value.
        present: bool,
    },
    /// To `Scan`.
    Page(#[serde(borrow)] Page<'a>),
    /// To `Stats`.
    Stats(Box<Stats>),
    /// To `Backup`.
    BackedUp(BackupInfo),
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireError {
    /// What a program does about it depends on this.
    pub code: ErrorCode,
    /// What a person reads: the value given, the limit, the way out. Beyond
    /// [`ERROR_TEXT_BYTES_MAX`] bytes it is cut as it is sent.
    #[serde(serialize_with = "cut_text")]
    pub text: String,
}

fn cut_text<S: Serializer>(text: &str, out: S) -> Result<S::Ok, S::Error> {
    let end = text.floor_char_boundary(ERROR_TEXT_BYTES_MAX);
    out.serialize_str(text.get(..end).unwrap_or_default())
}

/// Why a request failed, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ErrorCode {
    /// The request makes no sense as sent; sending it again will not help.
    BadRequest,
    /// No table of that name.
    NoSuchTable,
    /// A table of that name exists, and a new one was asked for.
    TableExists,
    /// The table was closed, by this client or another.
    TableClosed,
    /// The table's entries are of another kind.
    WrongKind,
    /// The table's keys and values are encoded in another way.
    WrongCodec,
    /// A key is longer than the limit.
    KeyTooLarge,
    /// A value is longer than the limit.
    ValueTooLarge,
    /// The session's lease ran out: its temporary tables and remembered answers are gone.
    SessionExpired,
    /// The memory limit is reached and there is no cold tier; nothing of the batch was stored.
    OutOfMemory,
    /// The disk or its limit is full; reads, discards and closes still work.
    DiskFull,
    /// Reading or writing the disk failed.
    Storage,
    /// What was read from the disk failed its checksum.
    Damaged,
    /// The server is stopping.
    ShuttingDown,
    /// A bound of the server (tables, sessions, retries) is reached; try again later.
    Busy,
    /// The client speaks another version of the protocol.
    WrongVersion,
    /// The token is missing or does not allow this.
    Denied,
    /// The table has another durability than was asked for, or the server cannot give it that.
    WrongDurability,
}

/// Something that the server says unasked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Notice {
    /// Whether this session is the only one that has the table open. Clean entries may be cached
    /// only while it is.
    Sole {
        /// The table.
        table: TableId,
        /// Whether it is.
        sole: bool,
    },
    /// The server stops after what is under way.
    ShuttingDown,
}

/// One table, as `Tables` and `Stats` list it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableInfo {
    /// The table's name; none if it is temporary.
    pub name: Option<String>,
    /// Names it in requests.
    pub table: TableId,
    /// `values`, `lists` or `counters`.
    pub kind: TableKind,
    /// How its keys and values are encoded.
    pub codec: String,
    /// About how many entries it has: keys present in both tiers count twice.
    pub entries_estimate: u64,
    /// Entries in RAM.
    pub hot_entries: u64,
    /// The RAM that they take, their index included.
    pub hot_bytes: u64,
    /// Runs on disk.
    pub cold_runs: u64,
    /// The disk that they take.
    pub cold_bytes: u64,
    /// How many sessions have it open.
    pub sessions: u64,
    /// How safe a write to it is when it is answered; `none` for a temporary table.
    pub durability: Durability,
    /// Whether that is the table's own, which stays; else it follows the server's `--durability`.
    pub own_durability: bool,
}

/// The server's figures; counters count from its start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// The server's version.
    pub version: String,
    /// How long it has run.
    pub uptime_ms: u64,
    /// Whether it has no cold tier.
    pub memory_only: bool,
    /// `--mem-limit`.
    pub mem_limit_bytes: u64,
    /// What the server itself counts: hot entries, indexes, buffers.
    pub tracked_bytes: u64,
    /// Anonymous and shared memory of the process, as the kernel counts it.
    pub resident_bytes: u64,
    /// The greatest `resident_bytes` that the governor saw.
    pub resident_bytes_max: u64,
    /// All files of the data directory.
    pub disk_bytes: u64,
    /// `--disk-limit`; 0 if there is none.
    pub disk_limit_bytes: u64,
    /// Entries written to the cold tier by spills.
    pub spilled_entries: u64,
    /// Bytes written to the cold tier by spills.
    pub spilled_bytes: u64,
    /// Entries brought back to RAM by reads.
    pub promoted_entries: u64,
    /// Merges done.
    pub merges: u64,
    /// Bytes written by merges.
    pub merged_bytes: u64,
    /// Bytes of runs that are kept in sled.
    pub sled_bytes: u64,
    /// Blocks read from the cold tier for gets.
    pub cold_reads: u64,
    /// Writes that waited for RAM to become free.
    pub stalls: u64,
    /// How long they waited, summed.
    pub stall_ms: u64,
    /// How long the one that waited longest did.
    pub stall_ms_max: u64,
    /// Spills that waited for merges, since a table had too many runs to be read quickly.
    pub merge_stalls: u64,
    /// How long they waited, summed.
    pub merge_stall_ms: u64,
    /// The log of named tables on disk; 0 if there is none.
    pub log_bytes: u64,
    /// What keeps writes from the log, if anything does: a disk that is full or has failed.
    pub log_trouble: Option<String>,
    /// Connections open now.
    pub connections: u64,
    /// Sessions alive now, connected or within their lease.
    pub sessions: u64,
    /// Operations answered: each key, write or scanned entry of a batch counts.
    pub operations: u64,
    /// What clients may ask at most.
    pub limits: Vec<LimitInfo>,
    /// All tables.
    pub tables: Vec<TableInfo>,
}

/// What a backup is made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupInfo {
    /// The last record of the log that is in it: all writes up to this one, and none behind it.
    pub record: u64,
    /// Named tables.
    pub tables: u64,
    /// Runs that share the disk of the server's own, by hard links.
    pub runs_linked: u64,
    /// How long they are.
    pub linked_bytes: u64,
    /// Runs that were copied.
    pub runs_copied: u64,
    /// How long they are.
    pub copied_bytes: u64,
    /// The log that was copied.
    pub log_bytes: u64,
}

/// A limit of the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitInfo {
    /// What it bounds; ends with the unit, `_bytes` or `_ms`, if it is no count.
    pub name: String,
    /// The limit.
    pub max: u64,
    /// What is used of it now, where that makes sense.
    pub used: Option<u64>,
    /// How often it was reached.
    pub reached: u64,
}
