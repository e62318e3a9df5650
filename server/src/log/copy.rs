//! Copies of the log for backups: its records up to one of them, each verified as it is copied, in memory that does
//! not grow with them.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::{io, sync::Arc};

use super::{
    Log, LogError, Lsn,
    files::{LogFile, LogFiles},
    record::{FIXED_BYTES, HEAD_BYTES, Head, read_numbers},
    replay::io_error,
    segment::{BadHeader, HEADER_BYTES, check_header, header},
};

/// What is read, and written, at a time.
const BUFFER_BYTES: usize = 128 << 10;
/// A record's length and number are told by its first bytes.
const PEEK_BYTES: usize = HEAD_BYTES + FIXED_BYTES;

/// A segment, or the first part of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    /// The segment's first record, which names it.
    first: Lsn,
    /// The last record of the part; less than `first` if it has none.
    last: Lsn,
}

impl Log {
    /// The parts of the log that have its records up to `through`, which must be written. The caller sees to it
    /// that the log is not cut before they are copied.
    pub(crate) fn parts_through(&self, through: Lsn) -> Vec<Part> {
        let firsts = self.shared.progress.segments();
        let mut parts = Vec::new();
        for (index, &first) in firsts.iter().enumerate() {
            let next = firsts.get(index.saturating_add(1)).copied();
            // None has records that the next one begins with.
            let last = next.map_or(through, |next| next.saturating_sub(1).min(through));
            if first <= last {
                parts.push(Part { first, last });
            }
        }
        if parts.is_empty() {
            // Where there is a log there is a segment, or a start would miss it.
            parts.push(Part {
                first: through.saturating_add(1),
                last: through,
            });
        }
        parts
    }

    /// Copies a part as a segment of its own, on stable storage but for its name; says how long it is.
    ///
    /// # Errors
    /// Any of the file systems; [`LogError::Damaged`] for what is not the log's next record.
    pub(crate) fn copy_part(&self, part: Part, into: &dyn LogFiles) -> Result<u64, LogError> {
        let shared = &self.shared;
        copy_part(&*shared.files, shared.options.mark, part, into)
    }
}

/// Copies a part of the log in `files`.
fn copy_part(
    files: &dyn LogFiles,
    mark: u32,
    part: Part,
    into: &dyn LogFiles,
) -> Result<u64, LogError> {
    let Part { first, last } = part;
    let write_error = io_error(into, "write", first);
    let mut sink = Sink {
        file: into.create(first).map_err(io_error(into, "make", first))?,
        offset: 0,
        buffer: Vec::with_capacity(BUFFER_BYTES),
    };
    sink.push(&header(mark, first)).map_err(&write_error)?;
    if first <= last {
        let file = files.open(first).map_err(io_error(files, "open", first))?;
        let mut source = Source {
            file,
            buffer: Vec::new(),
            from: 0,
            offset: 0,
        };
        copy_header(files, mark, first, &mut source)?;
        for lsn in first..=last {
            let copied = copy_record(&mut source, &mut sink, lsn);
            copied.map_err(|error| error.widen(files, into, first, lsn))?;
        }
    }
    sink.end().map_err(write_error)
}

/// Why a record is not copied.
enum Fault {
    Read(io::Error),
    Write(io::Error),
    Damage { offset: u64, what: &'static str },
}

impl Fault {
    fn widen(self, files: &dyn LogFiles, into: &dyn LogFiles, first: Lsn, lsn: Lsn) -> LogError {
        match self {
            Self::Read(error) => io_error(files, "read", first)(error),
            Self::Write(error) => io_error(into, "write", first)(error),
            Self::Damage { offset, what } => LogError::Damaged {
                path: files.path(first),
                offset,
                lsn,
                what,
            },
        }
    }
}

/// Passes a segment's header, if that is as it should be.
fn copy_header(
    files: &dyn LogFiles,
    mark: u32,
    first: Lsn,
    source: &mut Source,
) -> Result<(), LogError> {
    let read_error = io_error(files, "read", first);
    let bytes = source.at_least(HEADER_BYTES).map_err(read_error)?;
    let path = files.path(first);
    match check_header(bytes, mark, first) {
        Ok(()) => {
            source.pass(HEADER_BYTES);
            Ok(())
        }
        Err(BadHeader::Format(found)) => Err(LogError::Format { path, found }),
        Err(BadHeader::Torn | BadHeader::Foreign) => Err(LogError::Damaged {
            path,
            offset: 0,
            lsn: first,
            what: "its header",
        }),
    }
}

/// Copies the next record, which must be number `lsn`.
fn copy_record(source: &mut Source, sink: &mut Sink, lsn: Lsn) -> Result<(), Fault> {
    let offset = source.offset();
    let damage = |what| Fault::Damage { offset, what };
    let peek = source.at_least(PEEK_BYTES).map_err(Fault::Read)?;
    let (bytes, body) = peek
        .split_first_chunk::<HEAD_BYTES>()
        .ok_or(damage("the record is missing"))?;
    let head = Head::read(*bytes);
    if head.body_bytes < FIXED_BYTES as u64
        || read_numbers(body).is_none_or(|(number, _)| number != lsn)
    {
        return Err(damage("not the next record"));
    }
    sink.push(bytes).map_err(Fault::Write)?;
    source.pass(HEAD_BYTES);
    let (mut left, mut crc) = (head.body_bytes, 0);
    while left > 0 {
        let piece = source.at_least(1).map_err(Fault::Read)?;
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
        let piece = piece.get(..length).unwrap_or_default();
        if piece.is_empty() {
            return Err(damage("the record is cut"));
        }
        crc = crc32c::crc32c_append(crc, piece);
        sink.push(piece).map_err(Fault::Write)?;
        source.pass(length);
        left = left.saturating_sub(length as u64);
    }
    if crc == head.crc() {
        Ok(())
    } else {
        Err(damage("the record's checksum"))
    }
}

/// Reads a file front to back.
struct Source {
    file: Arc<dyn LogFile>,
    buffer: Vec<u8>,
    /// What of the buffer was passed.
    from: usize,
    /// Where in the file the buffer begins.
    offset: u64,
}

impl Source {
    /// Where in the file the next bytes are.
    fn offset(&self) -> u64 {
        self.offset.saturating_add(self.from as u64)
    }

    /// The next bytes: so many at least, unless the file ends before.
    fn at_least(&mut self, bytes: usize) -> io::Result<&[u8]> {
        if self.buffer.len().saturating_sub(self.from) < bytes {
            self.offset = self.offset();
            self.from = 0;
            self.buffer.resize(BUFFER_BYTES, 0);
            let read = self.file.read_at(&mut self.buffer, self.offset)?;
            self.buffer.truncate(read);
        }
        Ok(self.buffer.get(self.from..).unwrap_or_default())
    }

    fn pass(&mut self, bytes: usize) {
        self.from = self.from.saturating_add(bytes).min(self.buffer.len());
    }
}

/// Writes a file front to back.
struct Sink {
    file: Arc<dyn LogFile>,
    /// Where in the file the buffer goes.
    offset: u64,
    buffer: Vec<u8>,
}

impl Sink {
    fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.buffer.len().saturating_add(bytes.len()) > BUFFER_BYTES {
            self.write()?;
        }
        // No piece is longer than the buffer of its source, which is as long as this one.
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        self.file.write_at(&self.buffer, self.offset)?;
        self.offset = self.offset.saturating_add(self.buffer.len() as u64);
        self.buffer.clear();
        Ok(())
    }

    /// Brings all to stable storage; says how long the file is.
    fn end(mut self) -> io::Result<u64> {
        self.write()?;
        self.file.sync()?;
        Ok(self.offset)
    }
}
