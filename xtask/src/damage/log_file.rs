//! A segment of the log, read without the server's help: what of it a start may take for a torn tail.
//!
//! A server that was killed may leave a half-written end, which is cut. So bytes that are no record, with
//! nothing behind them that says they were safe, look like such an end, and so does a segment that was cut
//! or lost whole: nothing that is left tells of the writes that are gone. This is the limit of what can be told
//! from the files. What is lost then must be a suffix of the history, and no more than what lay behind the first
//! changed byte. Everything else is damage, at which a start has to stop.

use super::harm::first_difference;

const HEADER_BYTES: usize = 28;
/// Length and checksum.
const HEAD_BYTES: usize = 8;
/// Number, unsynced, kind.
const FIXED_BYTES: usize = 13;
const KIND_BATCH: u8 = 1;

/// A record, and where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RecordAt {
    start: usize,
    end: usize,
    number: u64,
    /// The last that was on stable storage had a number that is so much smaller.
    unsynced: u32,
    is_batch: bool,
}

/// The records of a sound segment.
pub(super) fn records(segment: &[u8]) -> Vec<RecordAt> {
    let mut records = Vec::new();
    let mut start = HEADER_BYTES;
    while let Some(record) = record_at(segment, start) {
        start = record.end;
        records.push(record);
    }
    records
}

fn record_at(segment: &[u8], start: usize) -> Option<RecordAt> {
    let head = segment.get(start..start + HEAD_BYTES + FIXED_BYTES)?;
    let length = u32::from_le_bytes(*head.first_chunk()?) as usize;
    let end = start + HEAD_BYTES + length;
    if length < FIXED_BYTES || end > segment.len() {
        return None;
    }
    Some(RecordAt {
        start,
        end,
        number: u64::from_le_bytes(*head.get(8..)?.first_chunk()?),
        unsynced: u32::from_le_bytes(*head.get(16..)?.first_chunk()?),
        is_batch: head[20] == KIND_BATCH,
    })
}

/// How many batches a start may give up if this is what became of the last segment; none: it is gone.
pub(super) fn batches_given_up(original: &[u8], damaged: Option<&[u8]>) -> usize {
    let records = records(original);
    let batches = |from: usize| {
        let lost = records.get(from..).unwrap_or_default();
        lost.iter().filter(|record| record.is_batch).count()
    };
    let Some(damaged) = damaged.filter(|damaged| damaged.len() > HEADER_BYTES) else {
        return batches(0);
    };
    let Some(at) = first_difference(original, damaged) else {
        return 0;
    };
    let first_bad = records.partition_point(|record| record.end <= at);
    let Some(bad) = records.get(first_bad).filter(|_| at >= HEADER_BYTES) else {
        return 0;
    };
    let vouches = |later: &RecordAt| {
        let is_whole = damaged.get(later.start..later.end) == original.get(later.start..later.end);
        is_whole && later.number.saturating_sub(u64::from(later.unsynced)) >= bad.number
    };
    if records[first_bad + 1..].iter().any(vouches) {
        return 0;
    }
    batches(first_bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Records of 20 bytes behind their heads: number, unsynced, kind.
    fn segment(said: &[(u64, u32, u8)]) -> Vec<u8> {
        let mut bytes = vec![9; HEADER_BYTES];
        for (number, unsynced, kind) in said {
            bytes.extend_from_slice(&20u32.to_le_bytes());
            bytes.extend_from_slice(&[5; 4]);
            bytes.extend_from_slice(&number.to_le_bytes());
            bytes.extend_from_slice(&unsynced.to_le_bytes());
            bytes.push(*kind);
            bytes.extend_from_slice(&[3; 7]);
        }
        bytes
    }

    fn flipped(bytes: &[u8], at: usize) -> Vec<u8> {
        let mut flipped = bytes.to_vec();
        flipped[at] ^= 4;
        flipped
    }

    #[test]
    fn a_bad_record_that_a_later_one_vouches_for_is_no_torn_tail() {
        // The fourth says that the two first were safe.
        let whole = segment(&[(1, 1, 4), (2, 2, 1), (3, 2, 1), (4, 2, 1)]);
        assert_eq!(records(&whole).len(), 4);
        let given_up = |at| batches_given_up(&whole, Some(&flipped(&whole, at)));
        let record = |number: usize| HEADER_BYTES + 28 * number;
        assert_eq!(given_up(3), 0, "the header is never torn");
        assert_eq!((given_up(record(0)), given_up(record(1) + 20)), (0, 0));
        assert_eq!((given_up(record(2)), given_up(record(3) + 27)), (2, 1));
        assert_eq!(batches_given_up(&whole, Some(&whole)), 0);
    }

    #[test]
    fn what_is_cut_off_is_given_up() {
        let whole = segment(&[(1, 1, 4), (2, 1, 1), (3, 1, 1), (4, 1, 1)]);
        let cut = |bytes: usize| batches_given_up(&whole, Some(&whole[..bytes]));
        assert_eq!((cut(10), cut(HEADER_BYTES)), (3, 3));
        assert_eq!((cut(HEADER_BYTES + 28), cut(HEADER_BYTES + 57)), (3, 2));
        assert_eq!((cut(whole.len() - 1), cut(whole.len())), (1, 0));
        assert_eq!(batches_given_up(&whole, None), 3);
    }
}
