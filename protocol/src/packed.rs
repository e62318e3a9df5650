//! Batches as packed bytes: encoded by appending to a buffer, read in place by an iterator.
//!
//! Numbers are LEB128 varints, a run of bytes is its length and then the bytes. A batch carries its
//! count, and its iterator ends with an error at the first byte that does not fit, so a reader
//! that wants all or nothing calls `check` first. Nothing is allocated per entry on either side.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The packed bytes are not what their sender said they were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed batch: {0}")]
pub struct Malformed(pub &'static str);

/// One operation on one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "the fields are the operands that the variants' texts name"
)]
pub enum Op<'a> {
    /// Sets the value, blind.
    Put { key: &'a [u8], value: &'a [u8] },
    /// Adds bytes to the end of a list, blind; a missing list is empty.
    Append { key: &'a [u8], bytes: &'a [u8] },
    /// Adds to a counter, blind; a missing counter is 0; wraps.
    Add { key: &'a [u8], delta: i64 },
    /// Removes the entry, blind.
    Discard { key: &'a [u8] },
    /// Sets the value if there is none. Outcome: the value that was there, or absent.
    PutIfAbsent { key: &'a [u8], value: &'a [u8] },
    /// Sets the value if there is one. Outcome: the value that was there, or absent.
    Replace { key: &'a [u8], value: &'a [u8] },
    /// Sets the value (none: removes it) if it is now as expected (none: absent).
    /// Outcome: swapped, or else what is there.
    CompareAndSwap {
        key: &'a [u8],
        expected: Option<&'a [u8]>,
        new: Option<&'a [u8]>,
    },
    /// Removes the entry. Outcome: the value that was there, or absent.
    Remove { key: &'a [u8] },
    /// Adds to a counter. Outcome: its value after that, 8 bytes, little-endian.
    AddAndGet { key: &'a [u8], delta: i64 },
}

impl<'a> Op<'a> {
    /// The key that the operation is about.
    pub fn key(&self) -> &'a [u8] {
        match *self {
            Self::Put { key, .. }
            | Self::Append { key, .. }
            | Self::Add { key, .. }
            | Self::Discard { key }
            | Self::PutIfAbsent { key, .. }
            | Self::Replace { key, .. }
            | Self::CompareAndSwap { key, .. }
            | Self::Remove { key }
            | Self::AddAndGet { key, .. } => key,
        }
    }

    /// Whether the operation has an outcome, and so must know what is there before it applies.
    pub fn is_conditional(&self) -> bool {
        !matches!(
            self,
            Self::Put { .. } | Self::Append { .. } | Self::Add { .. } | Self::Discard { .. }
        )
    }
}

/// What came of a conditional operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// There was no entry.
    Absent,
    /// The value that was there, or for `AddAndGet` the one that is there now.
    Value(&'a [u8]),
    /// The compare-and-swap took place.
    Swapped,
}

/// What a get found for one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot<'a> {
    /// No entry.
    Absent,
    /// The value.
    Value(&'a [u8]),
    /// A value of about this many bytes, too long for a batch: fetch it by itself.
    Large(u64),
}

/// One entry of a scan's page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageEntry<'a> {
    /// The key; empty when only values were asked for and the value is here.
    pub key: &'a [u8],
    /// The value; `Absent` when only keys were asked for.
    pub value: Slot<'a>,
}

/// A page of a scan.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page<'a> {
    /// Where the next page begins; none after the last one.
    #[serde(with = "serde_bytes")]
    pub next: Option<Vec<u8>>,
    /// The entries.
    #[serde(borrow)]
    pub entries: PageEntries<'a>,
}

impl fmt::Debug for Page<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Page of {} entries", self.entries.count)
    }
}

macro_rules! packed {
    ($(#[$text:meta])* $name:ident<$life:lifetime>, $iter:ident, $item:ty, $read:path) => {
        $(#[$text])*
        #[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        pub struct $name<$life> {
            count: u32,
            #[serde(with = "serde_bytes")]
            bytes: &$life [u8],
        }

        impl<$life> $name<$life> {
            /// Wraps bytes that the matching `push` function made.
            pub fn new(count: u32, bytes: &$life [u8]) -> Self {
                Self { count, bytes }
            }

            /// How many entries the batch says it has.
            pub fn count(&self) -> usize {
                self.count as usize
            }

            /// The packed bytes.
            pub fn bytes(&self) -> &$life [u8] {
                self.bytes
            }

            /// The entries in order; the first that is malformed ends them with an error.
            pub fn iter(&self) -> $iter<$life> {
                $iter { left: self.count, bytes: self.bytes }
            }

            /// Reads all entries through once.
            ///
            /// # Errors
            /// [`Malformed`] if an entry does not fit, or if bytes are left over.
            pub fn check(&self) -> Result<(), Malformed> {
                let mut entries = self.iter();
                for entry in &mut entries {
                    entry?;
                }
                if entries.bytes.is_empty() { Ok(()) } else { Err(Malformed("bytes left over")) }
            }
        }

        impl fmt::Debug for $name<'_> {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(out, concat!(stringify!($name), "({} in {} bytes)"), self.count, self.bytes.len())
            }
        }

        #[doc = concat!("The entries of [`", stringify!($name), "`], in order.")]
        #[derive(Debug, Clone)]
        pub struct $iter<$life> {
            left: u32,
            bytes: &$life [u8],
        }

        impl<$life> Iterator for $iter<$life> {
            type Item = Result<$item, Malformed>;

            #[inline]
            fn next(&mut self) -> Option<Self::Item> {
                self.left = self.left.checked_sub(1)?;
                let entry = $read(&mut self.bytes);
                if entry.is_err() {
                    self.left = 0;
                }
                Some(entry)
            }
        }
    };
}

packed!(
    /// Operations of a `Write`; made by [`push_op`].
    Ops<'a>, OpsIter, Op<'a>, read_op
);
packed!(
    /// Outcomes of conditional operations; made by [`push_outcome`].
    Outcomes<'a>, OutcomesIter, Outcome<'a>, read_outcome
);
packed!(
    /// Keys of a `Get` or `Contains`; made by [`push_bytes`].
    Keys<'a>, KeysIter, &'a [u8], take_bytes
);
packed!(
    /// Answers of a `Get`; made by [`push_slot`].
    Values<'a>, ValuesIter, Slot<'a>, read_slot
);
packed!(
    /// Answers of a `Contains`: whether each key is there; made by [`push_presence`].
    Presence<'a>, PresenceIter, bool, read_presence
);
packed!(
    /// Entries of a scan's page; made by [`push_page_entry`].
    PageEntries<'a>, PageEntriesIter, PageEntry<'a>, read_page_entry
);

const OP_PUT: u8 = 0;
const OP_APPEND: u8 = 1;
const OP_ADD: u8 = 2;
const OP_DISCARD: u8 = 3;
const OP_PUT_IF_ABSENT: u8 = 4;
const OP_REPLACE: u8 = 5;
const OP_COMPARE_AND_SWAP: u8 = 6;
const OP_REMOVE: u8 = 7;
const OP_ADD_AND_GET: u8 = 8;

const SLOT_ABSENT: u8 = 0;
const SLOT_VALUE: u8 = 1;
const SLOT_LARGE: u8 = 2;
const OUTCOME_SWAPPED: u8 = 2;

/// Appends an operation to a batch.
pub fn push_op(batch: &mut Vec<u8>, op: &Op<'_>) {
    match *op {
        Op::Put { key, value } => push_key_value(batch, OP_PUT, key, value),
        Op::Append { key, bytes } => push_key_value(batch, OP_APPEND, key, bytes),
        Op::Add { key, delta } => push_key_delta(batch, OP_ADD, key, delta),
        Op::Discard { key } => push_key(batch, OP_DISCARD, key),
        Op::PutIfAbsent { key, value } => push_key_value(batch, OP_PUT_IF_ABSENT, key, value),
        Op::Replace { key, value } => push_key_value(batch, OP_REPLACE, key, value),
        Op::CompareAndSwap { key, expected, new } => {
            push_key(batch, OP_COMPARE_AND_SWAP, key);
            push_optional(batch, expected);
            push_optional(batch, new);
        }
        Op::Remove { key } => push_key(batch, OP_REMOVE, key),
        Op::AddAndGet { key, delta } => push_key_delta(batch, OP_ADD_AND_GET, key, delta),
    }
}

/// Appends an outcome to a batch.
pub fn push_outcome(batch: &mut Vec<u8>, outcome: &Outcome<'_>) {
    match *outcome {
        Outcome::Absent => batch.push(SLOT_ABSENT),
        Outcome::Value(value) => push_key(batch, SLOT_VALUE, value),
        Outcome::Swapped => batch.push(OUTCOME_SWAPPED),
    }
}

/// Appends what a get found to a batch.
pub fn push_slot(batch: &mut Vec<u8>, slot: &Slot<'_>) {
    match *slot {
        Slot::Absent => batch.push(SLOT_ABSENT),
        Slot::Value(value) => push_key(batch, SLOT_VALUE, value),
        Slot::Large(bytes) => {
            batch.push(SLOT_LARGE);
            push_number(batch, bytes);
        }
    }
}

/// Appends whether a key is there to a batch.
pub fn push_presence(batch: &mut Vec<u8>, present: bool) {
    batch.push(u8::from(present));
}

/// Appends an entry to a scan's page.
pub fn push_page_entry(batch: &mut Vec<u8>, entry: &PageEntry<'_>) {
    push_bytes(batch, entry.key);
    push_slot(batch, &entry.value);
}

/// Appends a run of bytes, after its length.
pub fn push_bytes(batch: &mut Vec<u8>, bytes: &[u8]) {
    push_number(batch, bytes.len() as u64);
    batch.extend_from_slice(bytes);
}

/// Appends a number as a LEB128 varint.
#[inline]
pub fn push_number(batch: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        batch.push(number as u8 | 0x80);
        number >>= 7;
    }
    batch.push(number as u8);
}

/// Takes a LEB128 varint from the front of `bytes`.
///
/// # Errors
/// [`Malformed`] if the bytes end inside it, or if it does not fit 64 bits.
#[inline]
pub fn take_number(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    let mut number = 0u64;
    for shift in (0..64u32).step_by(7) {
        let byte = take_byte(bytes)?;
        if shift == 63 && byte > 1 {
            break;
        }
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(number);
        }
    }
    Err(Malformed("a number over 64 bits"))
}

/// Takes a run of bytes, after its length, from the front of `bytes`.
///
/// # Errors
/// [`Malformed`] if fewer bytes are there than the length says.
#[inline]
pub fn take_bytes<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let length = take_number(bytes)?;
    let (head, tail) = usize::try_from(length)
        .ok()
        .and_then(|length| bytes.split_at_checked(length))
        .ok_or(Malformed("a length beyond the end"))?;
    *bytes = tail;
    Ok(head)
}

fn push_key(batch: &mut Vec<u8>, tag: u8, key: &[u8]) {
    batch.push(tag);
    push_bytes(batch, key);
}

fn push_key_value(batch: &mut Vec<u8>, tag: u8, key: &[u8], value: &[u8]) {
    push_key(batch, tag, key);
    push_bytes(batch, value);
}

fn push_key_delta(batch: &mut Vec<u8>, tag: u8, key: &[u8], delta: i64) {
    push_key(batch, tag, key);
    batch.extend_from_slice(&delta.to_le_bytes());
}

fn push_optional(batch: &mut Vec<u8>, value: Option<&[u8]>) {
    match value {
        None => batch.push(SLOT_ABSENT),
        Some(value) => push_key(batch, SLOT_VALUE, value),
    }
}

#[inline]
fn read_op<'a>(bytes: &mut &'a [u8]) -> Result<Op<'a>, Malformed> {
    let tag = take_byte(bytes)?;
    let key = take_bytes(bytes)?;
    Ok(match tag {
        OP_PUT => Op::Put {
            key,
            value: take_bytes(bytes)?,
        },
        OP_APPEND => Op::Append {
            key,
            bytes: take_bytes(bytes)?,
        },
        OP_ADD => Op::Add {
            key,
            delta: take_delta(bytes)?,
        },
        OP_DISCARD => Op::Discard { key },
        OP_PUT_IF_ABSENT => Op::PutIfAbsent {
            key,
            value: take_bytes(bytes)?,
        },
        OP_REPLACE => Op::Replace {
            key,
            value: take_bytes(bytes)?,
        },
        OP_COMPARE_AND_SWAP => Op::CompareAndSwap {
            key,
            expected: take_optional(bytes)?,
            new: take_optional(bytes)?,
        },
        OP_REMOVE => Op::Remove { key },
        OP_ADD_AND_GET => Op::AddAndGet {
            key,
            delta: take_delta(bytes)?,
        },
        _ => return Err(Malformed("an unknown operation")),
    })
}

fn read_outcome<'a>(bytes: &mut &'a [u8]) -> Result<Outcome<'a>, Malformed> {
    match take_byte(bytes)? {
        SLOT_ABSENT => Ok(Outcome::Absent),
        SLOT_VALUE => Ok(Outcome::Value(take_bytes(bytes)?)),
        OUTCOME_SWAPPED => Ok(Outcome::Swapped),
        _ => Err(Malformed("an unknown outcome")),
    }
}

#[inline]
fn read_slot<'a>(bytes: &mut &'a [u8]) -> Result<Slot<'a>, Malformed> {
    match take_byte(bytes)? {
        SLOT_ABSENT => Ok(Slot::Absent),
        SLOT_VALUE => Ok(Slot::Value(take_bytes(bytes)?)),
        SLOT_LARGE => Ok(Slot::Large(take_number(bytes)?)),
        _ => Err(Malformed("an unknown slot")),
    }
}

fn read_presence(bytes: &mut &[u8]) -> Result<bool, Malformed> {
    match take_byte(bytes)? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Malformed("neither present nor absent")),
    }
}

fn read_page_entry<'a>(bytes: &mut &'a [u8]) -> Result<PageEntry<'a>, Malformed> {
    Ok(PageEntry {
        key: take_bytes(bytes)?,
        value: read_slot(bytes)?,
    })
}

fn take_optional<'a>(bytes: &mut &'a [u8]) -> Result<Option<&'a [u8]>, Malformed> {
    match take_byte(bytes)? {
        SLOT_ABSENT => Ok(None),
        SLOT_VALUE => Ok(Some(take_bytes(bytes)?)),
        _ => Err(Malformed("neither a value nor none")),
    }
}

fn take_delta(bytes: &mut &[u8]) -> Result<i64, Malformed> {
    let (head, tail) = bytes
        .split_first_chunk::<8>()
        .ok_or(Malformed("a short counter"))?;
    *bytes = tail;
    Ok(i64::from_le_bytes(*head))
}

#[inline]
fn take_byte(bytes: &mut &[u8]) -> Result<u8, Malformed> {
    let (&byte, tail) = bytes
        .split_first()
        .ok_or(Malformed("the end inside an entry"))?;
    *bytes = tail;
    Ok(byte)
}

#[cfg(test)]
mod tests;
