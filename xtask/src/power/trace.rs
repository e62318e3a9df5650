//! What a server did to its disk, as the preloaded library wrote it down.

use std::ops::Range;
use std::path::Path;

use crate::failure::Failure;

/// Names a file or a directory, for good: an inode that is used again is another one.
pub(crate) type FileId = u64;

/// The directory that is traced.
pub(crate) const ROOT: FileId = 1;

/// A record's head.
const HEAD_BYTES: usize = 32;

/// All that was written down, in the order in which it happened.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    /// The file as it is; events point into it.
    pub(crate) bytes: Vec<u8>,
    pub(crate) events: Vec<Event>,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    /// When it began, by the monotonic clock. What comes later in the trace began no earlier.
    pub(crate) at_ns: u64,
    pub(crate) what: What,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    /// A file was made, empty. Paths are below the root.
    Created { file: FileId, path: String },
    /// Bytes were written, which lie in the trace.
    Written {
        file: FileId,
        offset: u64,
        bytes: Range<usize>,
    },
    /// A file got this length.
    Cut { file: FileId, bytes: u64 },
    /// A sync of a file or directory began.
    SyncBegan { file: FileId, sync: u64 },
    /// It ended well.
    SyncEnded { file: FileId, sync: u64 },
    /// It failed.
    SyncFailed { file: FileId, sync: u64 },
    /// A name took the place of another.
    Renamed { from: String, to: String },
    /// A name is gone.
    Unlinked { path: String },
    /// A directory was made.
    DirMade { dir: FileId, path: String },
    /// A directory is gone.
    DirRemoved { path: String },
    /// A file has one more name.
    Linked { from: String, to: String },
    /// The kernel was asked to write a part of a file, which promises nothing.
    RangeSynced { file: FileId },
}

impl Trace {
    /// Reads a trace; a record that its writer was killed in is none.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let bytes = std::fs::read(path).map_err(|error| Failure::new(path.display(), error))?;
        Self::parse(bytes)
            .map_err(|at| Failure::Failed(format!("{}: no record at byte {at}", path.display())))
    }

    /// Takes it from bytes; else says where there is no record.
    fn parse(bytes: Vec<u8>) -> Result<Self, usize> {
        let mut events = Vec::new();
        let mut at = 0;
        while let Some(head) = bytes.get(at..at + HEAD_BYTES) {
            let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
            if length < HEAD_BYTES {
                return Err(at);
            }
            if bytes.len() < at + length {
                break;
            }
            let event = event(head, &bytes, at + HEAD_BYTES..at + length);
            events.push(event.ok_or(at)?);
            at += length;
        }
        Ok(Self { bytes, events })
    }
}

fn event(head: &[u8], all: &[u8], body: Range<usize>) -> Option<Event> {
    let word = |at: usize| Some(u64::from_le_bytes(*head.get(at..)?.first_chunk()?));
    let (at_ns, file, number) = (word(8)?, word(16)?, word(24)?);
    let text = || String::from_utf8(all.get(body.clone())?.to_vec()).ok();
    let two = || {
        let both = text()?;
        let (from, to) = both.split_once('\0')?;
        Some((from.to_owned(), to.to_owned()))
    };
    let what = match head.get(4)? {
        1 => What::Created {
            file,
            path: text()?,
        },
        2 => What::Written {
            file,
            offset: number,
            bytes: body,
        },
        3 => What::Cut {
            file,
            bytes: number,
        },
        4 => What::SyncBegan { file, sync: number },
        5 => What::SyncEnded { file, sync: number },
        6 => What::SyncFailed { file, sync: number },
        7 => {
            let (from, to) = two()?;
            What::Renamed { from, to }
        }
        8 => What::Unlinked { path: text()? },
        9 => What::DirMade {
            dir: file,
            path: text()?,
        },
        10 => What::DirRemoved { path: text()? },
        11 => {
            let (from, to) = two()?;
            What::Linked { from, to }
        }
        12 => What::RangeSynced { file },
        _ => return None,
    };
    Some(Event { at_ns, what })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u32, numbers: [u64; 3], body: &[u8]) -> Vec<u8> {
        let mut record = ((HEAD_BYTES + body.len()) as u32).to_le_bytes().to_vec();
        record.extend_from_slice(&kind.to_le_bytes());
        for number in numbers {
            record.extend_from_slice(&number.to_le_bytes());
        }
        record.extend_from_slice(body);
        record
    }

    #[test]
    fn records_become_events_and_a_torn_last_one_none() {
        let mut bytes = record(1, [7, 2, 0], b"data/MANIFEST");
        bytes.extend(record(2, [8, 2, 512], b"abc"));
        bytes.extend(record(7, [9, 0, 0], b"a\0b"));
        bytes.extend(&record(2, [10, 2, 0], b"torn")[..20]);
        let trace = Trace::parse(bytes).unwrap();
        let whats: Vec<&What> = trace.events.iter().map(|event| &event.what).collect();
        let path = "data/MANIFEST".to_owned();
        assert_eq!(*whats[0], What::Created { file: 2, path });
        let What::Written { offset, bytes, .. } = whats[1] else {
            panic!("{whats:?}");
        };
        assert_eq!((*offset, &trace.bytes[bytes.clone()]), (512, &b"abc"[..]));
        let (from, to) = ("a".to_owned(), "b".to_owned());
        assert_eq!(*whats[2], What::Renamed { from, to });
        assert_eq!(whats.len(), 3);
        assert_eq!(trace.events[0].at_ns, 7);
    }

    #[test]
    fn what_is_no_record_is_told_with_its_place() {
        let mut bytes = record(4, [1, 1, 1], b"");
        bytes.extend(record(99, [1, 1, 1], b""));
        assert_eq!(Trace::parse(bytes).unwrap_err(), HEAD_BYTES);
    }
}
