//! Reads of many keys: what the hot map knows at once, the rest in parallel on the read pool.

use std::sync::Arc;

use rhash_protocol::{
    Keys, Slot,
    limits::{ANSWER_BYTES_TARGET, BATCH_ENTRIES_MAX, INLINE_VALUE_BYTES_MAX},
    packed::{push_presence, push_slot},
};

use super::{
    Answer, PackedReply, Table, TableError,
    batch_read::BatchRead,
    check::{bad_request, check_key},
    lookup::{Hot, Lookup},
};
use crate::{
    hot::{Value, WARMED_AT_ONCE},
    key_hash::KeyHash,
};

/// Keys that one request may have read from below; the client asks again for the others.
const LOOKUPS_MAX: usize = 4096;

/// What a slot takes beyond its value, for how long an answer will be.
pub(super) const SLOT_BYTES: usize = 9;

/// How long the answer to a get may be. It ends before the first value that does not fit; a value
/// that does not even fit by itself is named as one to be fetched.
pub trait Allowance: std::fmt::Debug + Send + Sync {
    /// The bytes it may have.
    fn bytes(&self) -> usize;

    /// Makes it that many, if there is room; says whether it has.
    fn raise_to(&self, bytes: usize) -> bool;
}

/// As long as answers are.
#[derive(Debug, Clone, Copy)]
pub struct Unbounded;

impl Allowance for Unbounded {
    fn bytes(&self) -> usize {
        usize::MAX
    }

    fn raise_to(&self, _bytes: usize) -> bool {
        true
    }
}

/// Whether an answer may be that long.
pub(super) fn allows(allowance: &dyn Allowance, bytes: usize) -> bool {
    bytes <= allowance.bytes() || allowance.raise_to(bytes)
}

/// What is asked of each key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Question {
    Value,
    Presence,
}

/// What is known of one key of a batch.
#[derive(Debug)]
pub(super) enum Part {
    /// Its answer ends here in the packed bytes.
    Packed(usize),
    /// The lookup of this number will say.
    Lookup(usize),
}

impl Table {
    /// Reads a prefix of the keys, as long as an answer may be; a slot each.
    pub fn get(self: &Arc<Self>, keys: Keys<'_>) -> Answer<PackedReply> {
        self.get_within(keys, Arc::new(Unbounded))
    }

    /// Reads a prefix of the keys, as long as is allowed; a slot each.
    pub fn get_within(
        self: &Arc<Self>,
        keys: Keys<'_>,
        allowance: Arc<dyn Allowance>,
    ) -> Answer<PackedReply> {
        self.ask(keys, Question::Value, allowance)
    }

    /// Asks which of the keys are there.
    pub fn contains(self: &Arc<Self>, keys: Keys<'_>) -> Answer<PackedReply> {
        self.ask(keys, Question::Presence, Arc::new(Unbounded))
    }

    fn ask(
        self: &Arc<Self>,
        keys: Keys<'_>,
        question: Question,
        allowance: Arc<dyn Allowance>,
    ) -> Answer<PackedReply> {
        let hashed = match self.hash_all(keys) {
            Ok(hashed) => hashed,
            Err(error) => return Answer::Ready(Err(error)),
        };
        let mut packed = Vec::new();
        let mut parts = Vec::new();
        let mut lookups = Vec::new();
        let mut state = self.state.lock();
        if state.closed {
            return Answer::Ready(Err(self.closed_error()));
        }
        for (number, &(hash, key)) in hashed.iter().enumerate() {
            if number % WARMED_AT_ONCE == 0 {
                let ahead = hashed[number..].iter().take(WARMED_AT_ONCE);
                state.hot.warm(ahead.map(|(hash, _)| hash.place));
            }
            if packed.len() >= ANSWER_BYTES_TARGET || lookups.len() >= LOOKUPS_MAX {
                break;
            }
            match state.look(hash.place, key) {
                Hot::Below => {
                    parts.push(Part::Lookup(lookups.len()));
                    lookups.push(state.lookup(hash, key));
                    continue;
                }
                Hot::Value(_) if question == Question::Presence => push_presence(&mut packed, true),
                Hot::Value(value) if value.len() > INLINE_VALUE_BYTES_MAX => {
                    push_slot(&mut packed, &Slot::Large(value.len() as u64));
                }
                Hot::Value(value) => {
                    if allows(&*allowance, packed.len() + value.len() + SLOT_BYTES) {
                        push_value(&mut packed, &value);
                    } else if parts.is_empty() {
                        push_slot(&mut packed, &Slot::Large(value.len() as u64));
                    } else {
                        break;
                    }
                    state.hot.touch(hash.place, key);
                }
                Hot::Absent if question == Question::Presence => push_presence(&mut packed, false),
                Hot::Absent => push_slot(&mut packed, &Slot::Absent),
            }
            parts.push(Part::Packed(packed.len()));
        }
        drop(state);
        if lookups.is_empty() {
            return Answer::Ready(Ok(PackedReply {
                count: parts.len() as u32,
                bytes: packed,
            }));
        }
        let asked = Asked {
            question,
            allowance,
            packed,
            parts,
            lookups,
        };
        BatchRead::start(self, asked)
    }

    fn hash_all<'a>(&self, keys: Keys<'a>) -> Result<Vec<(KeyHash, &'a [u8])>, TableError> {
        if keys.count() > BATCH_ENTRIES_MAX {
            return Err(bad_request(format!(
                "a batch of {} keys, the limit is {BATCH_ENTRIES_MAX}",
                keys.count()
            )));
        }
        keys.check()
            .map_err(|malformed| bad_request(malformed.to_string()))?;
        let mut hashed = Vec::with_capacity(keys.count());
        for key in keys.iter() {
            let key = key.map_err(|malformed| bad_request(malformed.to_string()))?;
            check_key(key)?;
            hashed.push((self.shared.hasher.hash(key), key));
        }
        Ok(hashed)
    }
}

fn push_value(packed: &mut Vec<u8>, value: &Value<'_>) {
    if let Value::Inline(value) = value {
        return push_slot(packed, &Slot::Value(value));
    }
    let mut bytes = Vec::with_capacity(value.len());
    value.copy_to(&mut bytes);
    push_slot(packed, &Slot::Value(&bytes));
}

/// A batch of keys of which the hot map does not know all.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) question: Question,
    pub(super) allowance: Arc<dyn Allowance>,
    /// What it knows.
    pub(super) packed: Vec<u8>,
    pub(super) parts: Vec<Part>,
    /// What is to be looked for.
    pub(super) lookups: Vec<Lookup>,
}
