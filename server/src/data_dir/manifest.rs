//! The manifest: which named tables there are, and which runs each has where.
//!
//! A file of edits, each with its length and checksum, replayed at the start and written anew,
//! shortened to what still holds, at each start and stop and whenever it has grown. A tail that a
//! crash tore is cut and reported; damage before what a later edit says was on stable storage is an error. Temporary tables are not in it: they end with their server.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use rhash_protocol::{Durability, TableId, TableKind, packed::Malformed};

use super::{
    DataDirError,
    edit::{push_edit, read_edit},
    io_error,
    marks::{Mark, Marks},
    replace_file,
};
use crate::{log::Lsn, ranges::Ranges};

pub(crate) use super::edit::{Edit, Maker, TableState};

/// The format of the manifest. Format 1 knew no log; a server writes it anew as 2.
const MANIFEST_FORMAT: u32 = 2;
const MANIFEST_FORMAT_MIN: u32 = 1;
/// From this format on a manifest that is written anew ends with an [`Edit::Synced`], and takes its name only then:
/// one without any has lost a part that was there.
const MANIFEST_FORMAT_WHOLE: u32 = 2;

const MAGIC: &[u8; 8] = b"rhash-mf";
const HEADER_BYTES: usize = 12;
/// Before this size the manifest is not written anew while the server runs.
const REWRITE_BYTES_MIN: u64 = 1 << 20;
/// Nor before it is this many times as long as when it was last written.
const REWRITE_GROWTH: u64 = 4;

/// An [`Edit::Synced`] has no more bytes than this: its kind, and a number.
const SYNCED_BYTES_MAX: u32 = 11;

/// All that the manifest says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) tables: BTreeMap<TableId, TableState>,
    /// No table with this number or a higher one was ever named.
    pub(crate) next_table: TableId,
    /// The server stopped cleanly after the last edit.
    pub(crate) stopped: bool,
    /// All that the log says up to this record is in runs.
    pub(crate) checkpoint: Lsn,
    /// There must be a log that goes on from there.
    pub(crate) logs: bool,
    /// The last record after that of which a run has anything, with a mark or without; 0 for none.
    pub(crate) told: Lsn,
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
    /// How much of the file is on stable storage, …
    synced_bytes: u64,
    /// … and how much of that a record says.
    vouched_bytes: u64,
    /// The file at hand may no longer be the one of that name, or lack what was written to it, so it must be
    /// written anew.
    in_doubt: bool,
    /// A test's disk: the next sync fails.
    #[cfg(test)]
    sync_fails: bool,
}

impl Manifest {
    /// Reads the manifest, or makes one; also returns how many bytes of a torn tail there are. The file
    /// stays as it is until the first change.
    pub(crate) fn open(dir: &Path) -> Result<(Self, u64), DataDirError> {
        let path = dir.join("MANIFEST");
        let (mut state, torn_bytes, file) = match Self::read(dir)? {
            Some((state, torn_bytes)) => {
                let file = File::options().read(true).write(true).open(&path);
                (state, torn_bytes, file.map_err(io_error("open", &path))?)
            }
            None => {
                if Self::is_gone(dir) {
                    return Err(DataDirError::Incomplete {
                        dir: dir.to_owned(),
                        missing: "MANIFEST",
                    });
                }
                let state = State {
                    stopped: true,
                    next_table: 1,
                    ..State::default()
                };
                let (file, _) = write_anew(&path, &state).map_err(io_error("write", &path))?;
                (state, 0, file)
            }
        };
        let was_stopped = std::mem::take(&mut state.stopped);
        let manifest = Self {
            path,
            file,
            state,
            was_stopped,
            bytes: 0,
            bytes_when_rewritten: 0,
            synced_bytes: 0,
            vouched_bytes: 0,
            in_doubt: true,
            #[cfg(test)]
            sync_fails: false,
        };
        Ok((manifest, torn_bytes))
    }

    /// Whether there are data and no manifest.
    pub(crate) fn is_gone(dir: &Path) -> bool {
        let has_data = ["runs", "sled", "log"]
            .iter()
            .any(|data| dir.join(data).exists());
        has_data && !dir.join("MANIFEST").exists()
    }

    /// Reads a manifest and changes nothing; none if there is none. Also returns how many bytes of a torn tail there
    /// are.
    pub(crate) fn read(dir: &Path) -> Result<Option<(State, u64)>, DataDirError> {
        let path = dir.join("MANIFEST");
        match std::fs::read(&path) {
            Ok(bytes) => replay(dir, &path, &bytes).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_error("read", &path)(error)),
        }
    }

    /// Writes a manifest that says this, where there is none or one that cannot be read.
    pub(crate) fn make(dir: &Path, state: &State) -> Result<(), DataDirError> {
        let path = dir.join("MANIFEST");
        write_anew(&path, state)
            .map(drop)
            .map_err(io_error("write", &path))
    }

    /// Says that a server uses the directory: from here on, what does not end with a stop is a crash.
    pub(crate) fn begin(&mut self) -> Result<(), DataDirError> {
        self.rewrite()
    }

    /// Whether the server that used the directory before had stopped cleanly.
    pub(crate) fn was_stopped(&self) -> bool {
        self.was_stopped
    }

    /// What the manifest says.
    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// Forgets the makers of tables that will not be asked for again; the file says so when it is next written
    /// anew.
    pub(crate) fn forget_makers(&mut self, is_settled: impl Fn(&Maker) -> bool) {
        for table in self.state.tables.values_mut() {
            table.maker = table.maker.filter(|maker| !is_settled(maker));
        }
    }

    /// Writes down a change; after an error nothing is changed.
    pub(crate) fn record(&mut self, edit: Edit) -> Result<(), DataDirError> {
        if self.in_doubt {
            self.rewrite()?;
        }
        let mut record = Vec::new();
        if self.vouched_bytes < self.synced_bytes {
            let bytes = self.synced_bytes;
            push_edit(&mut record, &Edit::Synced { bytes });
        }
        push_edit(&mut record, &edit);
        // IMPORTANT: at the offset, not at the end: what a failed write left there would hide all
        // that comes after it.
        self.file
            .write_all_at(&record, self.bytes)
            .map_err(io_error("write", &self.path))?;
        self.bytes += record.len() as u64;
        self.vouched_bytes = self.synced_bytes;
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

    /// Brings what was recorded to stable storage.
    ///
    /// # Errors
    /// What was recorded may be there or not, and is still what [`state`](Self::state) says.
    pub(crate) fn sync(&mut self) -> Result<(), DataDirError> {
        if self.in_doubt {
            return self.rewrite();
        }
        let synced = self.sync_file();
        if synced.is_ok() {
            self.synced_bytes = self.bytes;
        }
        // IMPORTANT: the kernel may have dropped what it could not write, and a second sync would call that a
        // success; so the next one writes all of it again.
        self.in_doubt = synced.is_err();
        synced.map_err(io_error("sync", &self.path))
    }

    fn sync_file(&mut self) -> io::Result<()> {
        #[cfg(test)]
        if std::mem::take(&mut self.sync_fails) {
            return Err(io::Error::other("a sync that a test lets fail"));
        }
        self.file.sync_data()
    }

    /// Lets the next sync fail.
    #[cfg(test)]
    pub(crate) fn fail_sync(&mut self) {
        self.sync_fails = true;
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
        (self.synced_bytes, self.vouched_bytes) = (bytes, bytes);
        Ok(())
    }
}

impl State {
    /// The last record of the log that it tells of.
    pub(crate) fn last_told(&self) -> Lsn {
        let tables = self.tables.values();
        let told = tables.map(|table| table.marks.highest().max(table.emptied));
        let told = told.max().unwrap_or(0);
        told.max(self.told).max(self.checkpoint)
    }

    /// The bytes of a manifest that says this and no more.
    pub(crate) fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Applies a change; false for a merge of runs that are not named, which tables never ask for.
    fn apply(&mut self, edit: Edit) -> bool {
        self.stopped &= matches!(edit, Edit::Synced { .. });
        let mut fits = true;
        match edit {
            Edit::Table { id, state } => {
                self.next_table = self.next_table.max(id.saturating_add(1));
                self.tables.insert(id, state);
            }
            Edit::Closed { id } => {
                self.tables.remove(&id);
            }
            Edit::Cleared { id, lsn } => self.change(id, |table| {
                table.ranges = Ranges::new();
                table.marks = Marks::default();
                table.emptied = lsn;
            }),
            Edit::Spilled {
                id,
                run,
                first,
                last,
                marks,
            } => {
                let told = marks.iter().map(|mark| mark.lsn).max().unwrap_or(0);
                self.told = self.told.max(told);
                self.change(id, |table| {
                    table.ranges.add(&run, first, last);
                    marks.iter().for_each(|mark| table.marks.raise(mark));
                });
            }
            Edit::Merged {
                id,
                first,
                removed,
                added,
            } => self.change(id, |table| {
                fits = table.ranges.replace(first, &removed, added.as_ref());
            }),
            Edit::Split { id, at } => self.change(id, |table| table.ranges.split(at)),
            Edit::Checkpoint { lsn, logs } => {
                self.checkpoint = lsn;
                self.logs = logs;
                if self.told <= lsn {
                    self.told = 0;
                }
                for table in self.tables.values_mut() {
                    table.marks.forget(lsn);
                }
            }
            Edit::Stopped { next_table } => {
                self.next_table = self.next_table.max(next_table);
                self.stopped = true;
            }
            Edit::Started { next_table } => self.next_table = self.next_table.max(next_table),
            Edit::Synced { .. } => {}
            Edit::Told { lsn } => self.told = self.told.max(lsn),
        }
        fits
    }

    fn change(&mut self, id: TableId, change: impl FnOnce(&mut TableState)) {
        if let Some(table) = self.tables.get_mut(&id) {
            change(table);
        }
    }
}

fn write_anew(path: &Path, state: &State) -> io::Result<(File, u64)> {
    let bytes = encode(state);
    let file = replace_file(path, &bytes)?;
    Ok((file, bytes.len() as u64))
}

/// A manifest as short as it can be.
fn encode(state: &State) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&MANIFEST_FORMAT.to_le_bytes());
    let next_table = state.next_table;
    push_edit(&mut bytes, &Edit::Started { next_table });
    push_edit(
        &mut bytes,
        &Edit::Checkpoint {
            lsn: state.checkpoint,
            logs: state.logs,
        },
    );
    if state.told > 0 {
        push_edit(&mut bytes, &Edit::Told { lsn: state.told });
    }
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
    // Nothing is there unless all of it is.
    let synced = Edit::Synced {
        bytes: bytes.len() as u64,
    };
    push_edit(&mut bytes, &synced);
    bytes
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
    if !(MANIFEST_FORMAT_MIN..=MANIFEST_FORMAT).contains(&found) {
        return Err(DataDirError::Format {
            dir: dir.to_owned(),
            found,
        });
    }
    let mut state = State::default();
    let mut is_whole = found < MANIFEST_FORMAT_WHOLE;
    while !rest.is_empty() {
        let offset = bytes.len() - rest.len();
        let Some(payload) = take_record(&mut rest) else {
            if let Some(later) = vouches_for(bytes, offset) {
                return Err(damaged(format!(
                    "no record at byte {offset}, and the one at {later} says that it was on stable storage"
                )));
            }
            if is_whole {
                return Ok((state, (bytes.len() - offset) as u64));
            }
            break;
        };
        let edit = read_edit(payload)
            .map_err(|Malformed(what)| damaged(format!("{what} in the record at {offset}")))?;
        is_whole |= matches!(edit, Edit::Synced { .. });
        if !state.apply(edit) {
            // Runs that should have gone are looked for when their table is opened, and missed there.
            tracing::warn!(
                offset,
                "the manifest tells of a merge of runs that it does not name"
            );
        }
    }
    if is_whole {
        return Ok((state, 0));
    }
    let end = bytes.len() - rest.len();
    Err(damaged(format!(
        "it ends at byte {end}, before the record that says how much of it was written"
    )))
}

/// Where behind bytes that are no record one says that these were on stable storage when it was made: then
/// they are damaged, and not the tail that a crash tore.
fn vouches_for(bytes: &[u8], offset: usize) -> Option<usize> {
    (offset..bytes.len()).find(|at| {
        let mut rest = bytes.get(*at..).unwrap_or_default();
        let length = rest
            .first_chunk::<4>()
            .map(|length| u32::from_le_bytes(*length));
        // Others are longer, and their checksums are not worth the time.
        length.is_some_and(|length| length <= SYNCED_BYTES_MAX)
            && take_record(&mut rest).is_some_and(|payload| {
                matches!(read_edit(payload), Ok(Edit::Synced { bytes }) if bytes > offset as u64)
            })
    })
}

/// The next record's payload; none if what is left is not a whole and sound record.
fn take_record<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    if *length == [0; 4] {
        // No record is empty, but a file that was lengthened and not written has zeros there, whose checksum
        // would be right.
        return None;
    }
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    let (payload, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    if crc32c::crc32c(payload) != u32::from_le_bytes(*crc) {
        return None;
    }
    *bytes = rest;
    Some(payload)
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
    let mut marks = Marks::default();
    marks.raise(&Mark {
        first: 0,
        last: 9,
        lsn: 1,
    });
    let state = TableState {
        name: "sample".to_owned(),
        kind: TableKind::Lists,
        codec: "bytes".to_owned(),
        ranges,
        marks,
        emptied: 3,
        durability: Some(Durability::Always),
        maker: Some(Maker {
            session: 1 << 40,
            sequence: 2,
        }),
    };
    let merged = Edit::Merged {
        id: 1,
        first: 0,
        removed: vec![1, 2, 300],
        added: Some(70_000),
    };
    let mut whole = MAGIC.to_vec();
    whole.extend_from_slice(&MANIFEST_FORMAT.to_le_bytes());
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
