//! Reading the log at a start: all records in order, a torn tail cut, damage told.

use std::{io, path::PathBuf};

use rhash_protocol::packed::Malformed;

use super::{
    Lsn,
    files::LogFiles,
    record::{Record, read_record},
    segment::{BadHeader, HEADER_BYTES, LOG_FORMAT, Next, SegmentReader, check_header},
};

/// Why the log cannot be read or made.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file system failed.
    #[error("cannot {what} {path}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A segment has bytes that nobody wrote, and records behind them that were acknowledged.
    #[error(
        "{path} is damaged at byte {offset} ({what}): acknowledged writes from number {lsn} on \
         cannot be read; restore the data directory from a copy, or give another --data"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// The record that should be there.
        lsn: Lsn,
        /// What is wrong.
        what: &'static str,
    },
    /// A segment is of another version.
    #[error(
        "{path} has format {found}, and this server reads format {LOG_FORMAT} only; use the \
         rhash-server that wrote it to stop cleanly once"
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// A segment that should be there is not.
    #[error(
        "the log has no record {lsn}: {path} is missing; restore it, or the data directory, from a \
         copy, or give another --data"
    )]
    Missing {
        /// The first record that is not there.
        lsn: Lsn,
        /// The file that would begin with it.
        path: PathBuf,
    },
    /// What a record says cannot be done.
    #[error("record {lsn} in {path} cannot be applied: {text}")]
    Refused {
        /// The record.
        lsn: Lsn,
        /// The file that it is in.
        path: PathBuf,
        /// Why.
        text: String,
    },
}

/// What a start found in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// The number of the next record.
    pub(crate) next: Lsn,
    /// The segments that stay, with their lengths.
    pub(crate) segments: Vec<(Lsn, u64)>,
    /// What was cut off the last one.
    pub(crate) torn: Option<Torn>,
}

/// The end of a segment that a crash left half-written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Torn {
    pub(crate) path: PathBuf,
    /// Where it was cut.
    pub(crate) offset: u64,
    /// How much was cut.
    pub(crate) bytes: u64,
}

/// Which records there must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The first one that is not in runs; there may be some before it.
    pub(crate) from: Lsn,
    /// The last one that something else says was on stable storage: bad bytes up to it are no torn tail.
    pub(crate) through: Lsn,
}

impl Wanted {
    /// Those from this one on, of which nothing else is known.
    pub(crate) fn from(from: Lsn) -> Self {
        let through = from.saturating_sub(1);
        Self { from, through }
    }
}

/// Reads all records and gives each to `apply`; cuts a torn tail.
///
/// # Errors
/// [`LogError`]; nothing is changed but by `apply`.
pub(crate) fn read_log(
    files: &dyn LogFiles,
    mark: u32,
    wanted: Wanted,
    apply: impl FnMut(Lsn, Record<'_>) -> Result<(), String>,
) -> Result<Found, LogError> {
    Reading {
        files,
        mark,
        through: wanted.through,
        apply,
        on_damage: Err,
    }
    .run(wanted.from)
}

/// Reads all records that can be read, and gives each to `apply`; what cannot be read is skipped, and told to
/// `on_damage`.
///
/// # Errors
/// [`LogError`] of the file system, and for another format.
pub(crate) fn read_sound(
    files: &dyn LogFiles,
    mark: u32,
    wanted: Wanted,
    apply: impl FnMut(Lsn, Record<'_>) -> Result<(), String>,
    mut on_damage: impl FnMut(LogError),
) -> Result<Found, LogError> {
    Reading {
        files,
        mark,
        through: wanted.through,
        apply,
        on_damage: |error| match error {
            LogError::Io { .. } | LogError::Format { .. } => Err(error),
            damage => {
                on_damage(damage);
                Ok(())
            }
        },
    }
    .run(wanted.from)
}

/// A log being read.
struct Reading<'a, A, D> {
    files: &'a dyn LogFiles,
    mark: u32,
    /// See [`Wanted::through`].
    through: Lsn,
    apply: A,
    /// Says whether to go on behind damage.
    on_damage: D,
}

impl<A, D> Reading<'_, A, D>
where
    A: FnMut(Lsn, Record<'_>) -> Result<(), String>,
    D: FnMut(LogError) -> Result<(), LogError>,
{
    fn run(mut self, from: Lsn) -> Result<Found, LogError> {
        let firsts = segments(self.files)?;
        let mut found = Found {
            next: from,
            segments: Vec::new(),
            torn: None,
        };
        let Some(&oldest) = firsts.first() else {
            return Ok(found);
        };
        if oldest > from {
            (self.on_damage)(missing(self.files, from))?;
        }
        found.next = oldest;
        for (index, &first) in firsts.iter().enumerate() {
            if first != found.next {
                (self.on_damage)(missing(self.files, found.next))?;
                found.next = first.max(found.next);
            }
            let is_last = index + 1 == firsts.len();
            self.read_segment(first, is_last, &mut found)?;
        }
        if found.next <= self.through {
            // The manifest says that there were more.
            (self.on_damage)(missing(self.files, found.next))?;
            found.next = self.through + 1;
        }
        Ok(found)
    }

    fn read_segment(
        &mut self,
        first: Lsn,
        is_last: bool,
        found: &mut Found,
    ) -> Result<(), LogError> {
        let files = self.files;
        let file = files.open(first).map_err(io_error(files, "open", first))?;
        if is_last {
            // What is read may be in the page cache alone, and runs will soon stand for it.
            file.sync().map_err(io_error(files, "sync", first))?;
        }
        let mut reader =
            SegmentReader::new(file.clone()).map_err(io_error(files, "read", first))?;
        if !self.check_header(first, is_last, &mut reader, found)? {
            return Ok(());
        }
        while !self.read_records(first, &mut reader, found)? {
            let (lsn, offset) = (found.next, reader.offset());
            let is_vouched_for = !is_last
                || lsn <= self.through
                || reader
                    .later_says_synced(lsn)
                    .map_err(io_error(files, "read", first))?;
            if !is_vouched_for {
                file.truncate(offset)
                    .map_err(io_error(files, "cut", first))?;
                found.torn = Some(Torn {
                    path: files.path(first),
                    offset,
                    bytes: reader.bytes() - offset,
                });
                found.segments.push((first, offset));
                return Ok(());
            }
            let what = match is_last {
                false => "not a record, and segments follow",
                true if lsn <= self.through => "not a record, and runs have what it said",
                true => "not a record, and sound ones follow",
            };
            (self.on_damage)(damaged(files.path(first), offset, lsn, what))?;
            let next = reader.resume(lsn).map_err(io_error(files, "read", first))?;
            let Some(next) = next else {
                break;
            };
            found.next = next;
        }
        found.segments.push((first, reader.bytes()));
        Ok(())
    }

    /// Whether there are records behind the header.
    fn check_header(
        &mut self,
        first: Lsn,
        is_last: bool,
        reader: &mut SegmentReader,
        found: &mut Found,
    ) -> Result<bool, LogError> {
        let files = self.files;
        let path = || files.path(first);
        let header = reader.header().map_err(io_error(files, "read", first))?;
        match check_header(header, self.mark, first) {
            Ok(()) => Ok(true),
            Err(BadHeader::Format(found)) => Err(LogError::Format {
                path: path(),
                found,
            }),
            // Records are written once the header is on stable storage.
            Err(BadHeader::Torn) if is_last && reader.bytes() <= HEADER_BYTES as u64 => {
                files
                    .remove(first)
                    .map_err(io_error(files, "remove", first))?;
                found.torn = Some(Torn {
                    path: path(),
                    offset: 0,
                    bytes: reader.bytes(),
                });
                Ok(false)
            }
            Err(BadHeader::Torn) => {
                (self.on_damage)(damaged(path(), 0, first, "its header"))?;
                // Each record has a checksum of its own.
                Ok(true)
            }
            Err(BadHeader::Foreign) => {
                let what = "it belongs to another data directory, or has another name";
                (self.on_damage)(damaged(path(), 0, first, what))?;
                found.segments.push((first, reader.bytes()));
                Ok(false)
            }
        }
    }

    /// Reads records up to the end of a segment, or to bytes that are none: then false.
    fn read_records(
        &mut self,
        first: Lsn,
        reader: &mut SegmentReader,
        found: &mut Found,
    ) -> Result<bool, LogError> {
        let files = self.files;
        loop {
            let lsn = found.next;
            let refused = match reader.next(lsn).map_err(io_error(files, "read", first))? {
                Next::Body(body) => read_record(body)
                    .map_err(|Malformed(what)| what.to_owned())
                    .and_then(|record| (self.apply)(lsn, record))
                    .err(),
                Next::End => return Ok(true),
                Next::Bad => return Ok(false),
            };
            if let Some(text) = refused {
                let path = files.path(first);
                (self.on_damage)(LogError::Refused { lsn, path, text })?;
            }
            found.next += 1;
        }
    }
}

/// The segments that have records, or else the last one. What else is there could not be begun on a disk
/// that was full or failed, and the one before it went on.
fn segments(files: &dyn LogFiles) -> Result<Vec<Lsn>, LogError> {
    let mut firsts = files.list().map_err(io_error(files, "list", 0))?;
    let mut empty = Vec::new();
    for &first in &firsts {
        let bytes = files.open(first).and_then(|file| file.bytes());
        if bytes.map_err(io_error(files, "read", first))? <= HEADER_BYTES as u64 {
            empty.push(first);
        }
    }
    if empty.len() == firsts.len() {
        empty.pop();
    }
    for first in empty {
        files
            .remove(first)
            .map_err(io_error(files, "remove", first))?;
        firsts.retain(|kept| *kept != first);
    }
    Ok(firsts)
}

fn missing(files: &dyn LogFiles, lsn: Lsn) -> LogError {
    LogError::Missing {
        lsn,
        path: files.path(lsn),
    }
}

fn damaged(path: PathBuf, offset: u64, lsn: Lsn, what: &'static str) -> LogError {
    LogError::Damaged {
        path,
        offset,
        lsn,
        what,
    }
}

/// Puts the cause of an I/O error into the error.
pub(super) fn io_error<'a>(
    files: &'a dyn LogFiles,
    what: &'static str,
    first: Lsn,
) -> impl Fn(io::Error) -> LogError + 'a {
    move |source| LogError::Io {
        what,
        path: files.path(first),
        source,
    }
}
