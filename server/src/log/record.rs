//! A record of the log as bytes.
//!
//! ```text
//! length u32     of what follows the checksum
//! crc32c u32     of what follows it
//! lsn u64        one more than that of the record before
//! unsynced u32   how many records before this one may not have been on stable storage when it was
//!                made: damage further back is damage, not a torn tail
//! kind u8
//! …              by the kind; numbers are varints, a run of bytes follows its length
//! ```
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use bytes::Bytes;
use rhash_protocol::{
    TableId,
    packed::{Malformed, push_bytes, push_number, take_bytes, take_number},
};

use super::Lsn;
use crate::session::SessionId;

/// Length and checksum.
pub(super) const HEAD_BYTES: usize = 8;
/// What every record has behind these: number, unsynced, kind.
pub(super) const FIXED_BYTES: usize = 13;

const KIND_BATCH: u8 = 1;
const KIND_EMPTIED: u8 = 2;
const KIND_REPLY: u8 = 3;
const KIND_SESSION: u8 = 4;
const KIND_ENDED: u8 = 5;
const KIND_TABLE: u8 = 6;

/// Which request of which session a record comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct By {
    /// The session.
    pub(crate) session: SessionId,
    /// The request's number in it.
    pub(crate) sequence: u64,
    /// The client has the answers up to this number.
    pub(crate) settled: u64,
}

/// What a request changed about the tables that its session has open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holding {
    /// Nothing.
    Same,
    /// It has this table open so many times now; 0: no more.
    Opens(TableId, u64),
}

/// A session as it was at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SessionRecord {
    pub(crate) id: SessionId,
    pub(crate) secret: [u8; 16],
    /// The token that it began with: its name and its hash; no hash if none was asked for.
    pub(crate) token: (String, Option<[u8; 32]>),
    /// The last request that was answered.
    pub(crate) taken: u64,
    /// The last one whose answer the client has.
    pub(crate) settled: u64,
    /// The named tables that it has open, and how many times.
    pub(crate) tables: Vec<(TableId, u64)>,
    /// The answers that are kept, by number.
    pub(crate) replies: Vec<(u64, OwnedReply)>,
}

/// An answer that may be asked for again; copies of it share its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OwnedReply {
    /// The outcomes of a batch: how many, and their packed bytes.
    Written(u32, Bytes),
    /// A response's bytes as they were sent.
    Body(Bytes),
}

/// What one record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Record<'a> {
    /// A batch was applied to a table: blind operations alone, since conditional ones are written
    /// as what they came to.
    Batch {
        table: TableId,
        by: Option<By>,
        count: u32,
        ops: &'a [u8],
        reply: OwnedReply,
    },
    /// A table was cleared, or closed; the answer to the request that did so is that it is done.
    Emptied {
        table: TableId,
        close: bool,
        by: Option<By>,
    },
    /// A request was answered that is in no batch.
    Reply {
        by: By,
        reply: OwnedReply,
        holding: Holding,
    },
    /// A session as it is now, whatever was said of it before.
    Session(Box<SessionRecord>),
    /// A session is over.
    Ended { session: SessionId },
    /// A table was made, or is there and has no run that would say so if the manifest were lost. The bytes are the
    /// manifest's.
    Table { table: TableId, state: &'a [u8] },
}

impl OwnedReply {
    /// Its bytes.
    pub(crate) fn bytes(&self) -> &Bytes {
        match self {
            Self::Written(_, bytes) | Self::Body(bytes) => bytes,
        }
    }

    /// The same answer, with other bytes that say the same.
    pub(crate) fn map(self, bytes: impl FnOnce(Bytes) -> Bytes) -> Self {
        match self {
            Self::Written(count, outcomes) => Self::Written(count, bytes(outcomes)),
            Self::Body(body) => Self::Body(bytes(body)),
        }
    }
}

/// Appends a record to `out`, whole.
pub(super) fn push_record(out: &mut Vec<u8>, lsn: Lsn, unsynced: u32, record: &Record<'_>) {
    let begin = out.len();
    out.extend_from_slice(&[0; HEAD_BYTES]);
    out.extend_from_slice(&lsn.to_le_bytes());
    out.extend_from_slice(&unsynced.to_le_bytes());
    push_payload(out, record);
    let (head, body) = out
        .get_mut(begin..)
        .and_then(|record| record.split_first_chunk_mut::<HEAD_BYTES>())
        .unzip();
    if let (Some(head), Some(body)) = (head, body) {
        let (length, crc) = (body.len() as u32, crc32c::crc32c(body));
        *head = (u64::from(length) | u64::from(crc) << 32).to_le_bytes();
    }
}

fn push_payload(out: &mut Vec<u8>, record: &Record<'_>) {
    match record {
        Record::Batch {
            table,
            by,
            count,
            ops,
            reply,
        } => {
            out.push(KIND_BATCH);
            push_number(out, *table);
            out.push(u8::from(by.is_some()));
            if let Some(by) = by {
                push_by(out, by);
                push_reply(out, reply);
            }
            push_number(out, u64::from(*count));
            push_bytes(out, ops);
        }
        Record::Emptied { table, close, by } => {
            out.push(KIND_EMPTIED);
            push_number(out, *table);
            out.push(u8::from(*close) | u8::from(by.is_some()) << 1);
            if let Some(by) = by {
                push_by(out, by);
            }
        }
        Record::Reply { by, reply, holding } => {
            out.push(KIND_REPLY);
            push_by(out, by);
            push_reply(out, reply);
            match holding {
                Holding::Same => out.push(0),
                Holding::Opens(table, opens) => {
                    out.push(1);
                    push_number(out, *table);
                    push_number(out, *opens);
                }
            }
        }
        Record::Session(session) => {
            out.push(KIND_SESSION);
            push_session(out, session);
        }
        Record::Ended { session } => {
            out.push(KIND_ENDED);
            out.extend_from_slice(&session.to_le_bytes());
        }
        Record::Table { table, state } => {
            out.push(KIND_TABLE);
            push_number(out, *table);
            push_bytes(out, state);
        }
    }
}

fn push_by(out: &mut Vec<u8>, by: &By) {
    // Drawn at random, so that a varint would be longer.
    out.extend_from_slice(&by.session.to_le_bytes());
    push_number(out, by.sequence);
    push_number(out, by.settled);
}

fn push_reply(out: &mut Vec<u8>, reply: &OwnedReply) {
    match reply {
        OwnedReply::Written(count, bytes) => {
            out.push(0);
            push_number(out, u64::from(*count));
            push_bytes(out, bytes);
        }
        OwnedReply::Body(bytes) => {
            out.push(1);
            push_bytes(out, bytes);
        }
    }
}

fn push_session(out: &mut Vec<u8>, session: &SessionRecord) {
    out.extend_from_slice(&session.id.to_le_bytes());
    out.extend_from_slice(&session.secret);
    push_bytes(out, session.token.0.as_bytes());
    push_bytes(out, session.token.1.as_ref().map_or(&[], |hash| &hash[..]));
    push_number(out, session.taken);
    push_number(out, session.settled);
    push_number(out, session.tables.len() as u64);
    for (table, opens) in &session.tables {
        push_number(out, *table);
        push_number(out, *opens);
    }
    push_number(out, session.replies.len() as u64);
    for (number, reply) in &session.replies {
        push_number(out, *number);
        push_reply(out, reply);
    }
}

/// A record's head: how long it is, and its checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// The bytes behind the checksum.
    pub(super) body_bytes: u64,
    crc: u32,
}

impl Head {
    pub(super) fn read(bytes: [u8; HEAD_BYTES]) -> Self {
        let both = u64::from_le_bytes(bytes);
        Self {
            body_bytes: both & u64::from(u32::MAX),
            crc: (both >> 32) as u32,
        }
    }

    /// The checksum of the body that was written.
    pub(super) fn crc(self) -> u32 {
        self.crc
    }

    /// Whether a body is the one that was written.
    pub(super) fn is_of(self, body: &[u8]) -> bool {
        body.len() as u64 == self.body_bytes && crc32c::crc32c(body) == self.crc
    }
}

/// A record's number, and how many before it were unsynced when it was made.
pub(super) fn read_numbers(body: &[u8]) -> Option<(Lsn, u32)> {
    let (lsn, rest) = body.split_first_chunk::<8>()?;
    let (unsynced, _) = rest.split_first_chunk::<4>()?;
    Some((u64::from_le_bytes(*lsn), u32::from_le_bytes(*unsynced)))
}

/// Reads a record's body, whose checksum is right.
pub(super) fn read_record(body: &[u8]) -> Result<Record<'_>, Malformed> {
    let mut rest = body.get(12..).ok_or(Malformed("a short record"))?;
    let bytes = &mut rest;
    let record = match take_byte(bytes)? {
        KIND_BATCH => {
            let table = take_number(bytes)?;
            let (by, reply) = match take_byte(bytes)? {
                0 => (None, OwnedReply::Written(0, Bytes::new())),
                1 => (Some(take_by(bytes)?), take_reply(bytes)?),
                _ => return Err(Malformed("neither a session nor none")),
            };
            Record::Batch {
                table,
                by,
                reply,
                count: take_u32(bytes)?,
                ops: take_bytes(bytes)?,
            }
        }
        KIND_EMPTIED => {
            let (table, flags) = (take_number(bytes)?, take_byte(bytes)?);
            if flags > 3 {
                return Err(Malformed("neither cleared nor closed"));
            }
            Record::Emptied {
                table,
                close: flags & 1 == 1,
                by: (flags & 2 == 2).then(|| take_by(bytes)).transpose()?,
            }
        }
        KIND_REPLY => Record::Reply {
            by: take_by(bytes)?,
            reply: take_reply(bytes)?,
            holding: match take_byte(bytes)? {
                0 => Holding::Same,
                1 => Holding::Opens(take_number(bytes)?, take_number(bytes)?),
                _ => return Err(Malformed("an unknown change of tables")),
            },
        },
        KIND_SESSION => Record::Session(Box::new(take_session(bytes)?)),
        KIND_ENDED => Record::Ended {
            session: take_u64(bytes)?,
        },
        KIND_TABLE => Record::Table {
            table: take_number(bytes)?,
            state: take_bytes(bytes)?,
        },
        _ => return Err(Malformed("an unknown kind of record")),
    };
    if bytes.is_empty() {
        Ok(record)
    } else {
        Err(Malformed("bytes left over"))
    }
}

fn take_byte(bytes: &mut &[u8]) -> Result<u8, Malformed> {
    let (&byte, rest) = bytes.split_first().ok_or(Malformed("a short record"))?;
    *bytes = rest;
    Ok(byte)
}

fn take_array<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], Malformed> {
    let (array, rest) = bytes
        .split_first_chunk::<N>()
        .ok_or(Malformed("a short record"))?;
    *bytes = rest;
    Ok(*array)
}

fn take_u64(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    take_array(bytes).map(u64::from_le_bytes)
}

fn take_u32(bytes: &mut &[u8]) -> Result<u32, Malformed> {
    u32::try_from(take_number(bytes)?).map_err(|_too_large| Malformed("a count over 32 bits"))
}

fn take_by(bytes: &mut &[u8]) -> Result<By, Malformed> {
    Ok(By {
        session: take_u64(bytes)?,
        sequence: take_number(bytes)?,
        settled: take_number(bytes)?,
    })
}

fn take_reply(bytes: &mut &[u8]) -> Result<OwnedReply, Malformed> {
    let reply = match take_byte(bytes)? {
        0 => OwnedReply::Written(take_u32(bytes)?, Bytes::copy_from_slice(take_bytes(bytes)?)),
        1 => OwnedReply::Body(Bytes::copy_from_slice(take_bytes(bytes)?)),
        _ => return Err(Malformed("an unknown answer")),
    };
    Ok(reply)
}

fn take_session(bytes: &mut &[u8]) -> Result<SessionRecord, Malformed> {
    let (id, secret) = (take_u64(bytes)?, take_array(bytes)?);
    let name = std::str::from_utf8(take_bytes(bytes)?)
        .map_err(|_not_utf8| Malformed("text that is not UTF-8"))?
        .to_owned();
    let hash = match take_bytes(bytes)? {
        [] => None,
        hash => Some(
            hash.try_into()
                .map_err(|_wrong_length| Malformed("a hash of another length"))?,
        ),
    };
    let (taken, settled) = (take_number(bytes)?, take_number(bytes)?);
    // Each takes a byte at least, so a count beyond the bytes ends with an error.
    let tables = (0..take_number(bytes)?)
        .map(|_| Ok((take_number(bytes)?, take_number(bytes)?)))
        .collect::<Result<_, Malformed>>()?;
    let replies = (0..take_number(bytes)?)
        .map(|_| Ok((take_number(bytes)?, take_reply(bytes)?)))
        .collect::<Result<_, Malformed>>()?;
    Ok(SessionRecord {
        id,
        secret,
        token: (name, hash),
        taken,
        settled,
        tables,
        replies,
    })
}

/// Reads bytes as a record's body, whatever its checksum; that it returns is the point.
pub(crate) fn read_arbitrary(bytes: &[u8]) {
    drop(read_record(bytes));
}

/// The bodies of records, one of each kind.
pub(crate) fn sample_bodies() -> Vec<Vec<u8>> {
    let body = |record| {
        let mut bytes = Vec::new();
        push_record(&mut bytes, 1, 0, &record);
        bytes.split_off(HEAD_BYTES)
    };
    samples().into_iter().map(body).collect()
}

/// One of each kind.
fn samples() -> Vec<Record<'static>> {
    let by = By {
        session: 0x0102_0304_0506_0708,
        sequence: 9,
        settled: 7,
    };
    let session = SessionRecord {
        id: 3,
        secret: *b"sixteen bytes ok",
        token: ("ci".to_owned(), Some([7; 32])),
        taken: 9,
        settled: 7,
        tables: vec![(4, 1)],
        replies: vec![(8, OwnedReply::Written(0, Bytes::new()))],
    };
    vec![
        Record::Batch {
            table: 300,
            by: Some(by),
            count: 2,
            ops: b"operations",
            reply: OwnedReply::Written(1, Bytes::from_static(b"\x00")),
        },
        Record::Batch {
            table: 1,
            by: None,
            count: 1,
            ops: b"op",
            reply: OwnedReply::Written(0, Bytes::new()),
        },
        Record::Emptied {
            table: 5,
            close: true,
            by: None,
        },
        Record::Emptied {
            table: 5,
            close: false,
            by: Some(by),
        },
        Record::Reply {
            by,
            reply: OwnedReply::Body(Bytes::from_static(b"body")),
            holding: Holding::Opens(5, 2),
        },
        Record::Session(Box::new(session)),
        Record::Ended { session: 3 },
        Record::Table {
            table: 6,
            state: b"state",
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        for (number, record) in samples().into_iter().enumerate() {
            let mut bytes = b"before".to_vec();
            push_record(&mut bytes, number as u64, 3, &record);
            let head = Head::read(bytes[6..14].try_into().unwrap());
            let body = &bytes[14..];
            assert!(head.is_of(body));
            assert_eq!(read_numbers(body), Some((number as u64, 3)));
            assert_eq!(read_record(body), Ok(record));
        }
    }

    #[test]
    fn a_record_has_these_bytes() {
        let mut bytes = Vec::new();
        let record = Record::Batch {
            table: 300,
            by: Some(By {
                session: 0x0102_0304_0506_0708,
                sequence: 9,
                settled: 7,
            }),
            count: 2,
            ops: b"ops",
            reply: OwnedReply::Written(1, Bytes::from_static(b"\x00")),
        };
        push_record(&mut bytes, 0x1122, 5, &record);
        let body =
            b"\x22\x11\0\0\0\0\0\0\x05\0\0\0\x01\xac\x02\x01\x08\x07\x06\x05\x04\x03\x02\x01\
                     \x09\x07\x00\x01\x01\x00\x02\x03ops";
        assert_eq!(&bytes[..4], &(body.len() as u32).to_le_bytes());
        assert_eq!(&bytes[4..8], &crc32c::crc32c(body).to_le_bytes());
        assert_eq!(&bytes[8..], body);
    }

    #[test]
    fn no_bytes_make_reading_a_record_panic() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        for record in samples() {
            let mut bytes = Vec::new();
            push_record(&mut bytes, 1, 0, &record);
            let body = &bytes[HEAD_BYTES..];
            for length in 0..body.len() {
                assert_ne!(read_record(&body[..length]).as_ref(), Ok(&record));
            }
            for _ in 0..500 {
                let mut body = body.to_vec();
                let at = rng.usize(..body.len());
                body[at] = rng.u8(..);
                drop(read_record(&body));
            }
        }
    }
}
