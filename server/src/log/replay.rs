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
    mut apply: impl FnMut(Lsn, Record<'_>) -> Result<(), String>,
) -> Result<Found, LogError> {
    let Wanted { from, through } = wanted;
    let firsts = segments(files)?;
    let mut found = Found {
        next: from,
        segments: Vec::new(),
        torn: None,
    };
    let Some(&oldest) = firsts.first() else {
        return Ok(found);
    };
    if oldest > from {
        return Err(missing(files, from));
    }
    found.next = oldest;
    for (index, &first) in firsts.iter().enumerate() {
        if first != found.next {
            return Err(missing(files, found.next));
        }
        let end = End {
            is_last: index + 1 == firsts.len(),
            through,
        };
        read_segment(files, mark, first, end, &mut found, &mut apply)?;
    }
    if found.next <= through {
        // The manifest says that there were more.
        return Err(missing(files, found.next));
    }
    Ok(found)
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

/// How a segment may end.
#[derive(Debug, Clone, Copy)]
struct End {
    /// Only the last one may be torn, …
    is_last: bool,
    /// … and only behind this record.
    through: Lsn,
}

fn read_segment(
    files: &dyn LogFiles,
    mark: u32,
    first: Lsn,
    end: End,
    found: &mut Found,
    apply: &mut impl FnMut(Lsn, Record<'_>) -> Result<(), String>,
) -> Result<(), LogError> {
    let End { is_last, through } = end;
    let path = || files.path(first);
    let file = files.open(first).map_err(io_error(files, "open", first))?;
    if is_last {
        // What is read may be in the page cache alone, and runs will soon stand for it.
        file.sync().map_err(io_error(files, "sync", first))?;
    }
    let mut reader = SegmentReader::new(file.clone()).map_err(io_error(files, "read", first))?;
    let header = reader.header().map_err(io_error(files, "read", first))?;
    match check_header(header, mark, first) {
        Ok(()) => {}
        Err(BadHeader::Format(found)) => {
            return Err(LogError::Format {
                path: path(),
                found,
            });
        }
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
            return Ok(());
        }
        Err(bad) => {
            let what = match bad {
                BadHeader::Torn => "its header",
                _ => "it belongs to another data directory, or has another name",
            };
            return Err(damaged(path(), 0, first, what));
        }
    }
    loop {
        let lsn = found.next;
        match reader.next(lsn).map_err(io_error(files, "read", first))? {
            Next::Body(body) => {
                let record = read_record(body);
                let applied = record.map_err(|Malformed(what)| what.to_owned());
                applied
                    .and_then(|record| apply(lsn, record))
                    .map_err(|text| LogError::Refused {
                        lsn,
                        path: path(),
                        text,
                    })?;
                found.next += 1;
            }
            Next::End => {
                found.segments.push((first, reader.bytes()));
                return Ok(());
            }
            Next::Bad => break,
        }
    }
    let (lsn, offset) = (found.next, reader.offset());
    if !is_last {
        return Err(damaged(
            path(),
            offset,
            lsn,
            "not a record, and segments follow",
        ));
    }
    if lsn <= through {
        let what = "not a record, and runs have what it said";
        return Err(damaged(path(), offset, lsn, what));
    }
    let is_vouched_for = reader.later_says_synced(lsn);
    if is_vouched_for.map_err(io_error(files, "read", first))? {
        return Err(damaged(
            path(),
            offset,
            lsn,
            "not a record, and sound ones follow",
        ));
    }
    file.truncate(offset)
        .map_err(io_error(files, "cut", first))?;
    found.torn = Some(Torn {
        path: path(),
        offset,
        bytes: reader.bytes() - offset,
    });
    found.segments.push((first, offset));
    Ok(())
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
