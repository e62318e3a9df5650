//! What a client can ask for.

use serde::{Deserialize, Serialize};

use crate::packed::{Keys, Ops};

/// Names an open table on its server; never used twice by one data directory.
pub type TableId = u64;

/// A request in its envelope.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Call<'a> {
    /// The number of this request among those of its session that change something, counted from
    /// 1 without gaps; 0 for requests that change nothing. The server applies each number once
    /// and repeats its remembered answer when it is sent again.
    pub sequence: u64,
    /// All numbers up to and with this one have been answered: the server forgets their answers.
    pub settled: u64,
    /// What is asked.
    #[serde(borrow)]
    pub request: Request<'a>,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Request<'a> {
    /// Answered by `Pong`.
    Ping,
    /// Opens a table, or makes it. Answered by `Opened`. Sequenced.
    Open {
        /// The table's name; none makes a new temporary table of this session.
        #[serde(borrow)]
        name: Option<&'a str>,
        /// What its entries are; none accepts what the table has and never creates.
        kind: Option<TableKind>,
        /// How its keys and values are encoded; none accepts what the table has and never creates.
        codec: Option<&'a str>,
        /// What to do about a table that exists, or does not.
        mode: OpenMode,
        /// How safe a write to it is when it is answered; none accepts what the table has, and makes
        /// one that follows the server. A temporary table takes none.
        durability: Option<Durability>,
    },
    /// Lists all tables that this session may see. Answered by `Tables`.
    Tables,
    /// Counts a table's entries, exactly. Answered by `Count`.
    Len {
        /// The table.
        table: TableId,
    },
    /// Whether a table has no entry. Answered by `Empty`.
    IsEmpty {
        /// The table.
        table: TableId,
    },
    /// Removes all entries and gives back their RAM and disk. Answered by `Done`. Sequenced.
    Clear {
        /// The table.
        table: TableId,
    },
    /// Frees the table in both tiers, for everybody. Answered by `Done`. Sequenced.
    Close {
        /// The table.
        table: TableId,
    },
    /// Lets go of a table: a named one stays, a temporary one is freed. Answered by `Done`. Sequenced.
    Detach {
        /// The table.
        table: TableId,
    },
    /// Applies operations in order, all or none. Answered by `Written`. Sequenced.
    Write {
        /// The table.
        table: TableId,
        /// The operations.
        #[serde(borrow)]
        ops: Ops<'a>,
    },
    /// Reads entries. Answered by `Values`, for a prefix of the keys when the answer grew long.
    Get {
        /// The table.
        table: TableId,
        /// The keys.
        #[serde(borrow)]
        keys: Keys<'a>,
    },
    /// Asks which keys are there. Answered by `Present`.
    Contains {
        /// The table.
        table: TableId,
        /// The keys.
        #[serde(borrow)]
        keys: Keys<'a>,
    },
    /// Reads one value of any length. Answered by `Stream`, then chunk frames.
    Fetch {
        /// The table.
        table: TableId,
        /// The key.
        #[serde(with = "serde_bytes")]
        key: &'a [u8],
    },
    /// Reads a page of entries in the order of their hashes. Answered by `Page`.
    Scan {
        /// The table.
        table: TableId,
        /// Where the page before this one ended, as the server said; none begins.
        #[serde(with = "serde_bytes")]
        cursor: Option<&'a [u8]>,
        /// Which halves of the entries are wanted.
        what: ScanWhat,
        /// The most entries that the page may have.
        entries_max: u32,
    },
    /// The server's figures. Answered by `Stats`.
    Stats,
    /// Waits until all that was written before to named tables is on stable storage, whatever
    /// their durability. Answered by `Done`.
    Sync,
    /// Copies all named tables, as they are at one record of the log, to a new directory on the server's
    /// host. Answered by `BackedUp`, perhaps after minutes; others are answered meanwhile.
    Backup {
        /// The directory to make: an absolute path of at most
        /// [`PATH_BYTES_MAX`](crate::limits::PATH_BYTES_MAX) bytes, without NUL.
        dir: &'a str,
    },
}

impl Request<'_> {
    /// Whether this request changes something, and so carries a sequence number.
    pub fn is_sequenced(&self) -> bool {
        matches!(
            self,
            Self::Open { .. }
                | Self::Clear { .. }
                | Self::Close { .. }
                | Self::Detach { .. }
                | Self::Write { .. }
        )
    }
}

/// What the entries of a table are; fixed when the table is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TableKind {
    /// Each key has a value that is put whole.
    Values,
    /// Each key has a sequence of bytes that grows by appends; a put replaces it.
    Lists,
    /// Each key has a wrapping 64-bit integer that additions change.
    Counters,
}

impl TableKind {
    /// The kind's name as people read it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Values => "values",
            Self::Lists => "lists",
            Self::Counters => "counters",
        }
    }
}

/// How safe a write to a named table is when it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// As safe as RAM: it survives a clean stop.
    None,
    /// It survives the process; a machine that fails loses the last 1.5 seconds at most.
    EverySec,
    /// It survives the machine.
    Always,
}

impl Durability {
    /// All levels, the least safe first.
    pub const ALL: [Self; 3] = [Self::None, Self::EverySec, Self::Always];

    /// The level's name, as options have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::EverySec => "everysec",
            Self::Always => "always",
        }
    }

    /// The level of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.name() == name)
    }
}

/// What `Open` does about a table that exists, or does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum OpenMode {
    /// Open it, and make it first where there is none.
    OpenOrCreate,
    /// Open it; an error where there is none.
    Existing,
    /// Make it; an error where it exists.
    CreateNew,
}

/// Which halves of the entries a scan returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ScanWhat {
    /// Keys; the values are not sent.
    Keys,
    /// Values; a key is sent only for a value that must be fetched by itself.
    Values,
    /// Keys and values.
    Items,
}
