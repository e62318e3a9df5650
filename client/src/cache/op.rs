//! A write that waits in the cache, and what two of them on one key come to.

use bytes::Bytes;
use rhash_protocol::{Op, packed::push_op};

/// A blind write of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CachedOp {
    /// Sets the value.
    Put(Bytes),
    /// Removes the entry: a tombstone.
    Discard,
    /// Fragments of a list, as one.
    Append(Vec<u8>),
    /// Fragments of a counter, summed.
    Add(i64),
}

impl CachedOp {
    /// What the value is after this write, if that does not depend on what was there before:
    /// some value, or none.
    pub(crate) fn known(&self) -> Option<Option<&Bytes>> {
        match self {
            Self::Put(value) => Some(Some(value)),
            Self::Discard => Some(None),
            Self::Append(_) | Self::Add(_) => None,
        }
    }

    /// One write that does what this one and then `later` do.
    pub(crate) fn then(self, later: Self) -> Self {
        match (self, later) {
            (Self::Append(mut first), Self::Append(second)) => {
                first.extend_from_slice(&second);
                Self::Append(first)
            }
            (Self::Put(value), Self::Append(bytes)) => {
                let mut value = Vec::from(value);
                value.extend_from_slice(&bytes);
                Self::Put(value.into())
            }
            (Self::Discard, Self::Append(bytes)) => Self::Put(bytes.into()),
            (Self::Add(first), Self::Add(second)) => Self::Add(first.wrapping_add(second)),
            (Self::Put(value), Self::Add(delta)) => {
                Self::Put(counter_bytes(counter(&value).wrapping_add(delta)))
            }
            (Self::Discard, Self::Add(delta)) => Self::Put(counter_bytes(delta)),
            // A table has one kind, so fragments of lists and counters never meet; what is left
            // are writes that replace whatever was there.
            (_, later) => later,
        }
    }

    /// How long this write would be with `later` behind it; 0 if nothing grows.
    pub(crate) fn grown_bytes(&self, later: &Self) -> usize {
        match (self, later) {
            (Self::Append(first), Self::Append(second)) => first.len() + second.len(),
            (Self::Put(value), Self::Append(bytes)) => value.len() + bytes.len(),
            _ => 0,
        }
    }

    /// The bytes that this write holds in memory, its struct apart.
    pub(crate) fn heap_bytes(&self) -> usize {
        match self {
            Self::Put(value) => value.len(),
            Self::Append(bytes) => bytes.capacity(),
            Self::Discard | Self::Add(_) => 0,
        }
    }

    /// Appends this write of `key` to a batch; gives the number of operations: more than one for
    /// a list that is longer than the server takes at once.
    pub(crate) fn push(&self, key: &[u8], op_bytes_max: usize, batch: &mut Vec<u8>) -> u32 {
        let (op, rest) = match self {
            Self::Put(value) => {
                let (value, rest) = value.split_at(value.len().min(op_bytes_max));
                (Op::Put { key, value }, rest)
            }
            Self::Append(bytes) => {
                let (bytes, rest) = bytes.split_at(bytes.len().min(op_bytes_max));
                (Op::Append { key, bytes }, rest)
            }
            Self::Discard => (Op::Discard { key }, &[][..]),
            Self::Add(delta) => (Op::Add { key, delta: *delta }, &[][..]),
        };
        push_op(batch, &op);
        let mut count = 1;
        for bytes in rest.chunks(op_bytes_max.max(1)) {
            push_op(batch, &Op::Append { key, bytes });
            count += 1;
        }
        count
    }
}

fn counter_bytes(number: i64) -> Bytes {
    Bytes::copy_from_slice(&number.to_le_bytes())
}

/// A counter's number; what is no counter counts as 0, as a missing entry does.
fn counter(bytes: &[u8]) -> i64 {
    bytes.try_into().map_or(0, i64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(value: &'static [u8]) -> CachedOp {
        CachedOp::Put(Bytes::from_static(value))
    }

    fn append(bytes: &[u8]) -> CachedOp {
        CachedOp::Append(bytes.to_vec())
    }

    #[test]
    fn two_writes_come_to_one() {
        let nine = || CachedOp::Put(counter_bytes(9));
        let cases = [
            (append(b"ab"), append(b"c"), append(b"abc")),
            (put(b"ab"), append(b"c"), put(b"abc")),
            (CachedOp::Discard, append(b"c"), put(b"c")),
            (append(b"ab"), put(b"c"), put(b"c")),
            (append(b"ab"), CachedOp::Discard, CachedOp::Discard),
            (put(b"a"), put(b"b"), put(b"b")),
            (CachedOp::Add(2), CachedOp::Add(-5), CachedOp::Add(-3)),
            (
                CachedOp::Add(i64::MAX),
                CachedOp::Add(1),
                CachedOp::Add(i64::MIN),
            ),
            (CachedOp::Put(counter_bytes(4)), CachedOp::Add(5), nine()),
            (CachedOp::Discard, CachedOp::Add(9), nine()),
        ];
        for (first, second, both) in cases {
            let name = format!("{first:?} then {second:?}");
            assert_eq!(first.then(second), both, "{name}");
        }
    }
}
