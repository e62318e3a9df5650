//! What can change about the tables, as the manifest writes it down.
//!
//! Edits 1, 3 and 4 are those of format 1, which knew no log, and 9 is of a table without a durability of its
//! own: they are read, and no longer written.

use rhash_protocol::{
    Durability, TableId, TableKind,
    packed::{Malformed, push_bytes, push_number, take_bytes, take_number},
};

use super::marks::{Mark, Marks, push_marks, take_marks};
use crate::{
    cold::RunId,
    log::Lsn,
    ranges::{Range, Ranges},
    session::SessionId,
};

/// The tag of the edit that says all of a table, as it is written now.
const TABLE: u8 = 16;

/// A named table as the manifest knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TableState {
    pub(crate) name: String,
    pub(crate) kind: TableKind,
    pub(crate) codec: String,
    pub(crate) ranges: Ranges<RunId>,
    /// How far the runs say what the log does.
    pub(crate) marks: Marks,
    /// The table was made or emptied with this record: those up to it say nothing of it any more.
    pub(crate) emptied: Lsn,
    /// How safe its writes are; none follows the server.
    pub(crate) durability: Option<Durability>,
    /// The request that made it, while that may be sent again.
    pub(crate) maker: Option<Maker>,
}

/// A request that made a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Maker {
    pub(crate) session: SessionId,
    /// The request's number in it.
    pub(crate) sequence: u64,
}

impl TableState {
    /// The table as bytes, for the log.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        push_table(&mut bytes, self);
        bytes
    }

    /// Reads what [`to_bytes`](Self::to_bytes) made.
    pub(crate) fn from_bytes(mut bytes: &[u8]) -> Result<Self, Malformed> {
        let table = take_table(&mut bytes)?;
        if bytes.is_empty() {
            Ok(table)
        } else {
            Err(Malformed("bytes left over"))
        }
    }

    /// The table without its runs, and without what these say of the log.
    pub(crate) fn bare(&self) -> Self {
        Self {
            name: self.name.clone(),
            kind: self.kind,
            codec: self.codec.clone(),
            ranges: Ranges::new(),
            marks: Marks::default(),
            emptied: self.emptied,
            durability: self.durability,
            maker: None,
        }
    }
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Edit {
    /// A named table was made, or is there with these ranges.
    Table { id: TableId, state: TableState },
    /// A table was closed.
    Closed { id: TableId },
    /// A table lost all its runs, with this record of the log.
    Cleared { id: TableId, lsn: Lsn },
    /// A run was spilled.
    Spilled {
        id: TableId,
        run: RunId,
        first: u64,
        last: u64,
        /// How far the run, with those below it, says what the log does.
        marks: Vec<Mark>,
    },
    /// Neighbours in the range from `first` were merged.
    Merged {
        id: TableId,
        first: u64,
        removed: Vec<RunId>,
        added: Option<RunId>,
    },
    /// A range was split.
    Split { id: TableId, at: u64 },
    /// All that the log says up to this record is in runs, and these are on stable storage. `logs`: whether
    /// there must be a log from there on.
    Checkpoint { lsn: Lsn, logs: bool },
    /// The server stopped cleanly.
    Stopped { next_table: TableId },
    /// A server uses the directory.
    Started { next_table: TableId },
    /// So many bytes of the file were on stable storage before this was written.
    Synced { bytes: u64 },
    /// Runs have what the log says up to this record, some of it without a mark.
    Told { lsn: Lsn },
}

pub(super) fn push_edit(out: &mut Vec<u8>, edit: &Edit) {
    let mut payload = Vec::new();
    match edit {
        Edit::Table { id, state } => {
            payload.push(TABLE);
            push_number(&mut payload, *id);
            push_table(&mut payload, state);
        }
        Edit::Closed { id } => push_numbers(&mut payload, 2, &[*id]),
        Edit::Cleared { id, lsn } => push_numbers(&mut payload, 10, &[*id, *lsn]),
        Edit::Spilled {
            id,
            run,
            first,
            last,
            marks,
        } => {
            push_numbers(&mut payload, 11, &[*id, *run, *first, *last]);
            push_marks(&mut payload, marks);
        }
        Edit::Checkpoint { lsn, logs } => {
            push_numbers(&mut payload, 12, &[*lsn, u64::from(*logs)]);
        }
        Edit::Merged {
            id,
            first,
            removed,
            added,
        } => {
            push_numbers(&mut payload, 5, &[*id, *first, removed.len() as u64]);
            removed
                .iter()
                .for_each(|run| push_number(&mut payload, *run));
            // Run numbers begin at 1, so 0 is none.
            push_number(&mut payload, added.unwrap_or(0));
        }
        Edit::Split { id, at } => push_numbers(&mut payload, 6, &[*id, *at]),
        Edit::Stopped { next_table } => push_numbers(&mut payload, 7, &[*next_table]),
        Edit::Started { next_table } => push_numbers(&mut payload, 8, &[*next_table]),
        Edit::Synced { bytes } => push_numbers(&mut payload, 13, &[*bytes]),
        Edit::Told { lsn } => push_numbers(&mut payload, 20, &[*lsn]),
    }
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(&crc32c::crc32c(&payload).to_le_bytes());
    out.extend_from_slice(&payload);
}

/// Appends all that is known of a table.
pub(super) fn push_table(payload: &mut Vec<u8>, state: &TableState) {
    push_bytes(payload, state.name.as_bytes());
    payload.push(kind_number(state.kind));
    push_bytes(payload, state.codec.as_bytes());
    push_ranges(payload, &state.ranges);
    push_number(payload, state.emptied);
    state.marks.push(payload);
    payload.push(durability_number(state.durability));
    payload.push(u8::from(state.maker.is_some()));
    if let Some(Maker { session, sequence }) = state.maker {
        push_number(payload, session);
        push_number(payload, sequence);
    }
}

/// Takes what [`push_table`] appended.
pub(super) fn take_table(bytes: &mut &[u8]) -> Result<TableState, Malformed> {
    read_table(bytes, TABLE)
}

fn push_numbers(payload: &mut Vec<u8>, tag: u8, numbers: &[u64]) {
    payload.push(tag);
    numbers
        .iter()
        .for_each(|number| push_number(payload, *number));
}

fn push_ranges(payload: &mut Vec<u8>, ranges: &Ranges<RunId>) {
    push_number(payload, ranges.len() as u64);
    for range in ranges.iter() {
        push_number(payload, range.first);
        push_number(payload, range.runs.len() as u64);
        range.runs.iter().for_each(|run| push_number(payload, *run));
    }
}

pub(super) fn read_edit(mut payload: &[u8]) -> Result<Edit, Malformed> {
    let bytes = &mut payload;
    let (&tag, rest) = bytes.split_first().ok_or(Malformed("an empty record"))?;
    *bytes = rest;
    let id = take_number(bytes)?;
    let edit = match tag {
        1 | 9 | TABLE => Edit::Table {
            id,
            state: read_table(bytes, tag)?,
        },
        2 => Edit::Closed { id },
        3 => Edit::Cleared { id, lsn: 0 },
        10 => Edit::Cleared {
            id,
            lsn: take_number(bytes)?,
        },
        4 | 11 => Edit::Spilled {
            id,
            run: take_number(bytes)?,
            first: take_number(bytes)?,
            last: take_number(bytes)?,
            marks: match tag {
                11 => take_marks(bytes)?,
                _ => Vec::new(),
            },
        },
        12 => Edit::Checkpoint {
            lsn: id,
            logs: take_number(bytes)? != 0,
        },
        5 => {
            let first = take_number(bytes)?;
            let removed = read_runs(bytes)?;
            let added = take_number(bytes)?;
            Edit::Merged {
                id,
                first,
                removed,
                added: (added != 0).then_some(added),
            }
        }
        6 => Edit::Split {
            id,
            at: take_number(bytes)?,
        },
        7 => Edit::Stopped { next_table: id },
        8 => Edit::Started { next_table: id },
        13 => Edit::Synced { bytes: id },
        20 => Edit::Told { lsn: id },
        _ => return Err(Malformed("an unknown edit")),
    };
    if bytes.is_empty() {
        Ok(edit)
    } else {
        Err(Malformed("bytes left over"))
    }
}

fn read_table(bytes: &mut &[u8], tag: u8) -> Result<TableState, Malformed> {
    let name = read_text(bytes)?;
    let kind = match read_byte(bytes)? {
        0 => TableKind::Values,
        1 => TableKind::Lists,
        2 => TableKind::Counters,
        _ => return Err(Malformed("an unknown kind")),
    };
    let codec = read_text(bytes)?;
    let count = take_number(bytes)?;
    let mut parts = Vec::new();
    for _ in 0..count {
        parts.push(Range {
            first: take_number(bytes)?,
            runs: read_runs(bytes)?,
        });
    }
    let ranges = Ranges::from_parts(parts).ok_or(Malformed("ranges out of order"))?;
    let mut state = TableState {
        name,
        kind,
        codec,
        ranges,
        marks: Marks::default(),
        emptied: 0,
        durability: None,
        maker: None,
    };
    if tag >= 9 {
        state.emptied = take_number(bytes)?;
        state.marks = Marks::take(bytes)?;
    }
    if tag >= TABLE {
        state.durability = read_durability(bytes)?;
        state.maker = match read_byte(bytes)? {
            0 => None,
            1 => Some(Maker {
                session: take_number(bytes)?,
                sequence: take_number(bytes)?,
            }),
            _ => return Err(Malformed("neither a maker nor none")),
        };
    }
    Ok(state)
}

fn read_byte(bytes: &mut &[u8]) -> Result<u8, Malformed> {
    let (&byte, rest) = bytes.split_first().ok_or(Malformed("a short record"))?;
    *bytes = rest;
    Ok(byte)
}

fn read_runs(bytes: &mut &[u8]) -> Result<Vec<RunId>, Malformed> {
    let count = take_number(bytes)?;
    // Each number takes a byte at least, so a count beyond the bytes ends with an error.
    (0..count).map(|_| take_number(bytes)).collect()
}

fn read_text(bytes: &mut &[u8]) -> Result<String, Malformed> {
    std::str::from_utf8(take_bytes(bytes)?)
        .map(str::to_owned)
        .map_err(|_not_utf8| Malformed("text that is not UTF-8"))
}

fn durability_number(durability: Option<Durability>) -> u8 {
    match durability {
        None => 0,
        Some(Durability::None) => 1,
        Some(Durability::EverySec) => 2,
        Some(Durability::Always) => 3,
    }
}

fn read_durability(bytes: &mut &[u8]) -> Result<Option<Durability>, Malformed> {
    match read_byte(bytes)? {
        0 => Ok(None),
        1 => Ok(Some(Durability::None)),
        2 => Ok(Some(Durability::EverySec)),
        3 => Ok(Some(Durability::Always)),
        _ => Err(Malformed("an unknown durability")),
    }
}

fn kind_number(kind: TableKind) -> u8 {
    match kind {
        TableKind::Values => 0,
        TableKind::Lists => 1,
        TableKind::Counters => 2,
    }
}
