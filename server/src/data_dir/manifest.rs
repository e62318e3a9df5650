//! The manifest: which named tables there are, and which runs each has where.
//!
//! A file of edits, each with its length and checksum, replayed at the start and written anew,
//! shortened to what still holds, at each start and stop and whenever it has grown. A tail that a
//! crash tore is cut and reported. Temporary tables are not in it: they end with their server.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use rhash_protocol::{
    TableId, TableKind,
    packed::{Malformed, push_bytes, push_number, take_bytes, take_number},
};

use super::{DATA_FORMAT, DataDirError, io_error, replace_file};
use crate::{
    cold::RunId,
    ranges::{Range, Ranges},
};

const MAGIC: &[u8; 8] = b"rhash-mf";
const HEADER_BYTES: usize = 12;
/// Before this size the manifest is not written anew while the server runs.
const REWRITE_BYTES_MIN: u64 = 1 << 20;
/// Nor before it is this many times as long as when it was last written.
const REWRITE_GROWTH: u64 = 4;

/// A named table as the manifest knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TableState {
    pub(crate) name: String,
    pub(crate) kind: TableKind,
    pub(crate) codec: String,
    pub(crate) ranges: Ranges<RunId>,
}

/// All that the manifest says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) tables: BTreeMap<TableId, TableState>,
    /// No table with this number or a higher one was ever named.
    pub(crate) next_table: TableId,
    /// The server stopped cleanly after the last edit.
    pub(crate) stopped: bool,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Edit {
    /// A named table was made, or is there with these ranges.
    Table { id: TableId, state: TableState },
    /// A table was closed.
    Closed { id: TableId },
    /// A table lost all its runs.
    Cleared { id: TableId },
    /// A run was spilled.
    Spilled {
        id: TableId,
        run: RunId,
        first: u64,
        last: u64,
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
    /// The server stopped cleanly.
    Stopped { next_table: TableId },
    /// A server uses the directory.
    Started { next_table: TableId },
}

/// The open manifest.
#[derive(Debug)]
pub(crate) struct Manifest {
    path: PathBuf,
    file: File,
    state: State,
    /// Whether the server that used the directory before had stopped cleanly.
    was_stopped: bool,
    bytes: u64,
    bytes_when_rewritten: u64,
    /// The file at hand may no longer be the one of that name, so it must be written anew.
    in_doubt: bool,
}

impl Manifest {
    /// Reads the manifest, or makes one; also returns how many bytes of a torn tail were cut.
    pub(crate) fn open(dir: &Path) -> Result<(Self, u64), DataDirError> {
        let path = dir.join("MANIFEST");
        let (mut state, torn_bytes) = match std::fs::read(&path) {
            Ok(bytes) => replay(dir, &path, &bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if dir.join("runs").exists() || dir.join("sled").exists() {
                    return Err(DataDirError::Incomplete {
                        dir: dir.to_owned(),
                        missing: "MANIFEST",
                    });
                }
                (
                    State {
                        stopped: true,
                        next_table: 1,
                        ..State::default()
                    },
                    0,
                )
            }
            Err(error) => return Err(io_error("read", &path)(error)),
        };
        // From here on, what does not end with a stop is a crash.
        let was_stopped = std::mem::take(&mut state.stopped);
        let (file, bytes) = write_anew(&path, &state).map_err(io_error("write", &path))?;
        let manifest = Self {
            path,
            file,
            state,
            was_stopped,
            bytes,
            bytes_when_rewritten: bytes,
            in_doubt: false,
        };
        Ok((manifest, torn_bytes))
    }

    /// Whether the server that used the directory before had stopped cleanly.
    pub(crate) fn was_stopped(&self) -> bool {
        self.was_stopped
    }

    /// What the manifest says.
    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// Writes down a change; after an error nothing is changed.
    pub(crate) fn record(&mut self, edit: Edit) -> Result<(), DataDirError> {
        if self.in_doubt {
            self.rewrite()?;
        }
        let mut record = Vec::new();
        push_edit(&mut record, &edit);
        // IMPORTANT: at the offset, not at the end: what a failed write left there would hide all
        // that comes after it.
        self.file
            .write_all_at(&record, self.bytes)
            .map_err(io_error("write", &self.path))?;
        self.bytes += record.len() as u64;
        let fits = self.state.apply(edit);
        debug_assert!(fits, "tables merge what the manifest names");
        if self.bytes > REWRITE_BYTES_MIN
            && self.bytes > self.bytes_when_rewritten * REWRITE_GROWTH
            && let Err(error) = self.rewrite()
        {
            // The change is written down all the same; the next one tries again.
            tracing::warn!(%error, "could not shorten the manifest");
        }
        Ok(())
    }

    /// Writes the manifest anew, as short as it can be, and syncs it.
    pub(crate) fn rewrite(&mut self) -> Result<(), DataDirError> {
        self.in_doubt = true;
        let (file, bytes) =
            write_anew(&self.path, &self.state).map_err(io_error("write", &self.path))?;
        self.in_doubt = false;
        self.file = file;
        self.bytes = bytes;
        self.bytes_when_rewritten = bytes;
        Ok(())
    }
}

impl State {
    /// Applies a change; false for a merge of runs that are not named, which tables never ask for.
    fn apply(&mut self, edit: Edit) -> bool {
        self.stopped = false;
        let mut fits = true;
        match edit {
            Edit::Table { id, state } => {
                self.next_table = self.next_table.max(id.saturating_add(1));
                self.tables.insert(id, state);
            }
            Edit::Closed { id } => {
                self.tables.remove(&id);
            }
            Edit::Cleared { id } => self.change(id, |ranges| *ranges = Ranges::new()),
            Edit::Spilled {
                id,
                run,
                first,
                last,
            } => {
                self.change(id, |ranges| ranges.add(&run, first, last));
            }
            Edit::Merged {
                id,
                first,
                removed,
                added,
            } => self.change(id, |ranges| {
                fits = ranges.replace(first, &removed, added.as_ref());
            }),
            Edit::Split { id, at } => self.change(id, |ranges| ranges.split(at)),
            Edit::Stopped { next_table } => {
                self.next_table = self.next_table.max(next_table);
                self.stopped = true;
            }
            Edit::Started { next_table } => self.next_table = self.next_table.max(next_table),
        }
        fits
    }

    fn change(&mut self, id: TableId, change: impl FnOnce(&mut Ranges<RunId>)) {
        if let Some(table) = self.tables.get_mut(&id) {
            change(&mut table.ranges);
        }
    }
}

fn write_anew(path: &Path, state: &State) -> io::Result<(File, u64)> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&DATA_FORMAT.to_le_bytes());
    let next_table = state.next_table;
    push_edit(&mut bytes, &Edit::Started { next_table });
    for (&id, state) in &state.tables {
        push_edit(
            &mut bytes,
            &Edit::Table {
                id,
                state: state.clone(),
            },
        );
    }
    if state.stopped {
        push_edit(
            &mut bytes,
            &Edit::Stopped {
                next_table: state.next_table,
            },
        );
    }
    let file = replace_file(path, &bytes)?;
    Ok((file, bytes.len() as u64))
}

fn replay(dir: &Path, path: &Path, bytes: &[u8]) -> Result<(State, u64), DataDirError> {
    let damaged = |what: String| DataDirError::Damaged {
        path: path.to_owned(),
        what,
    };
    let Some((header, mut rest)) = bytes.split_at_checked(HEADER_BYTES) else {
        return Err(damaged("it is too short".to_owned()));
    };
    let Some(format) = header
        .strip_prefix(MAGIC)
        .and_then(|format| format.first_chunk::<4>())
    else {
        return Err(damaged("it does not begin as one".to_owned()));
    };
    let found = u32::from_le_bytes(*format);
    if found != DATA_FORMAT {
        return Err(DataDirError::Format {
            dir: dir.to_owned(),
            found,
        });
    }
    let mut state = State::default();
    while !rest.is_empty() {
        let offset = bytes.len() - rest.len();
        let Some(payload) = take_record(&mut rest) else {
            return Ok((state, (bytes.len() - offset) as u64));
        };
        let edit = read_edit(payload)
            .map_err(|Malformed(what)| damaged(format!("{what} in the record at {offset}")))?;
        if !state.apply(edit) {
            // Runs that should have gone are looked for when their table is opened, and missed there.
            tracing::warn!(
                offset,
                "the manifest tells of a merge of runs that it does not name"
            );
        }
    }
    Ok((state, 0))
}

/// The next record's payload; none if what is left is not a whole and sound record.
fn take_record<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    let (payload, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    if crc32c::crc32c(payload) != u32::from_le_bytes(*crc) {
        return None;
    }
    *bytes = rest;
    Some(payload)
}

fn push_edit(out: &mut Vec<u8>, edit: &Edit) {
    let mut payload = Vec::new();
    match edit {
        Edit::Table { id, state } => {
            payload.push(1);
            push_number(&mut payload, *id);
            push_bytes(&mut payload, state.name.as_bytes());
            payload.push(kind_number(state.kind));
            push_bytes(&mut payload, state.codec.as_bytes());
            push_ranges(&mut payload, &state.ranges);
        }
        Edit::Closed { id } => push_numbers(&mut payload, 2, &[*id]),
        Edit::Cleared { id } => push_numbers(&mut payload, 3, &[*id]),
        Edit::Spilled {
            id,
            run,
            first,
            last,
        } => {
            push_numbers(&mut payload, 4, &[*id, *run, *first, *last]);
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
    }
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(&crc32c::crc32c(&payload).to_le_bytes());
    out.extend_from_slice(&payload);
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

fn read_edit(mut payload: &[u8]) -> Result<Edit, Malformed> {
    let bytes = &mut payload;
    let (&tag, rest) = bytes.split_first().ok_or(Malformed("an empty record"))?;
    *bytes = rest;
    let id = take_number(bytes)?;
    let edit = match tag {
        1 => Edit::Table {
            id,
            state: read_table(bytes)?,
        },
        2 => Edit::Closed { id },
        3 => Edit::Cleared { id },
        4 => Edit::Spilled {
            id,
            run: take_number(bytes)?,
            first: take_number(bytes)?,
            last: take_number(bytes)?,
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
        _ => return Err(Malformed("an unknown edit")),
    };
    if bytes.is_empty() {
        Ok(edit)
    } else {
        Err(Malformed("bytes left over"))
    }
}

fn read_table(bytes: &mut &[u8]) -> Result<TableState, Malformed> {
    let name = read_text(bytes)?;
    let (&kind, rest) = bytes.split_first().ok_or(Malformed("no kind"))?;
    *bytes = rest;
    let kind = match kind {
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
    Ok(TableState {
        name,
        kind,
        codec,
        ranges,
    })
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

fn kind_number(kind: TableKind) -> u8 {
    match kind {
        TableKind::Values => 0,
        TableKind::Lists => 1,
        TableKind::Counters => 2,
    }
}

/// Reads bytes as a manifest, and as one record of it that no checksum keeps from being read; that
/// it returns is the point.
pub(crate) fn read_arbitrary(bytes: &[u8]) {
    drop(replay(
        Path::new("arbitrary"),
        Path::new("arbitrary"),
        bytes,
    ));
    drop(read_edit(bytes));
}

/// A manifest, and the payloads of its longer records.
pub(crate) fn samples() -> Vec<Vec<u8>> {
    let mut ranges = Ranges::new();
    ranges.add(&3, 0, u64::MAX);
    ranges.split(1 << 63);
    let state = TableState {
        name: "sample".to_owned(),
        kind: TableKind::Lists,
        codec: "bytes".to_owned(),
        ranges,
    };
    let merged = Edit::Merged {
        id: 1,
        first: 0,
        removed: vec![1, 2, 300],
        added: Some(70_000),
    };
    let mut whole = MAGIC.to_vec();
    whole.extend_from_slice(&DATA_FORMAT.to_le_bytes());
    let mut samples = Vec::new();
    for edit in [Edit::Table { id: 1, state }, merged, Edit::Closed { id: 1 }] {
        let from = whole.len();
        push_edit(&mut whole, &edit);
        // After the length and the checksum.
        samples.extend(whole.get(from + 8..).map(<[u8]>::to_vec));
    }
    samples.push(whole);
    samples
}

#[cfg(test)]
mod tests;
