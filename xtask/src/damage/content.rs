//! What the base directories hold: a history of batches that follows from a seed, and what each key
//! was at every moment of it.
//!
//! A moment is a number of batches: the server applies each whole or not at all, so after any loss that is
//! allowed at all, what is there is the state at one moment. Values carry a serial number, so that no two
//! versions of a key are equal.

use std::collections::BTreeMap;

use fastrand::Rng;
use rhash_client::TableKind;

/// How many batches of the history were applied.
pub(super) type Moment = usize;

/// The tables. The last two are made while the log is being filled; what is written to `tail` says that
/// all before it was on stable storage.
pub(super) const TABLES: [(&str, TableKind); 6] = [
    ("wide", TableKind::Values),
    ("lists", TableKind::Lists),
    ("counters", TableKind::Counters),
    ("small", TableKind::Values),
    ("late", TableKind::Values),
    (TAIL, TableKind::Values),
];
const WIDE: usize = 0;
const LISTS: usize = 1;
const COUNTERS: usize = 2;
const SMALL: usize = 3;
const LATE: usize = 4;
const TAIL_TABLE: usize = 5;
const TAIL: &str = "tail";

/// Keys of each table.
const KEYS: [usize; 6] = [240, 100, 100, 24, 16, 10];
/// Keys that nothing is ever written to, for each table.
const STRANGERS: usize = 6;
/// One value in so many of the wide table is too long for an answer to a batch of gets.
const LONG_EVERY: usize = 120;
const LONG_BYTES: usize = 150_000;
/// Changes in a batch: at first, and while the log is filled.
const BATCH_FULL: usize = 30;
const BATCH_LOGGED: usize = 6;
/// What is written while the log is filled: more than half of the server's `--log-limit`, so that there is a
/// checkpoint.
pub(super) const LOGGED_BYTES: usize = 900 << 10;
/// What is written after that: less than what begins the next checkpoint.
const LAST_BATCHES: usize = 90;

/// What is done to one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    Put(Vec<u8>),
    Append(Vec<u8>),
    Add(i64),
    Discard,
}

/// What one request changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) table: usize,
    pub(super) changes: Vec<(Vec<u8>, Change)>,
}

impl Batch {
    /// About how long it is on the wire.
    pub(super) fn bytes(&self) -> usize {
        let bytes = |(key, change): &(Vec<u8>, Change)| match change {
            Change::Put(value) | Change::Append(value) => key.len() + value.len(),
            Change::Add(_) | Change::Discard => key.len(),
        };
        self.changes.iter().map(bytes).sum()
    }
}

/// The parts of the history.
#[derive(Debug)]
pub(super) struct History {
    /// All keys, once.
    pub(super) first: Vec<Batch>,
    /// Some of them again, or away.
    pub(super) second: Vec<Batch>,
    /// The same in small batches, until there must have been a checkpoint.
    pub(super) logged: Vec<Batch>,
    /// And after it.
    pub(super) last: Vec<Batch>,
    /// What is written after a sync.
    pub(super) tail: Vec<Batch>,
}

/// The states of one key: what it is from a moment on; none: it is not there.
type States = Vec<(Moment, Option<Vec<u8>>)>;

/// What is in a directory: every state of every key, by table.
#[derive(Debug, Clone)]
pub(super) struct Content {
    tables: Vec<Option<BTreeMap<Vec<u8>, States>>>,
    end: Moment,
}

/// Draws the history's keys and values.
struct Writer {
    rng: Rng,
    serial: u64,
    /// Which keys of which tables are there.
    present: BTreeMap<(usize, usize), bool>,
}

impl History {
    /// The history of this seed.
    pub(super) fn new(seed: u64) -> Self {
        let mut writer = Writer {
            rng: Rng::with_seed(seed),
            serial: 0,
            present: BTreeMap::new(),
        };
        let first = (WIDE..=SMALL).flat_map(|table| writer.all_of(table));
        let first = first.collect();
        let second = (WIDE..=SMALL).flat_map(|table| writer.some_of(table));
        let second = second.collect();
        let mut logged = Vec::new();
        let mut bytes = 0;
        while bytes < LOGGED_BYTES {
            let table = [WIDE, WIDE, LISTS, COUNTERS, SMALL][writer.rng.usize(..5)];
            let batch = writer.batch(table, BATCH_LOGGED);
            bytes += batch.bytes();
            logged.push(batch);
        }
        let last = (0..LAST_BATCHES).map(|_| {
            let table = [WIDE, LISTS, LISTS, COUNTERS, SMALL, LATE][writer.rng.usize(..6)];
            writer.batch(table, BATCH_LOGGED)
        });
        let last = last.collect();
        let tail = (0..KEYS[TAIL_TABLE]).map(|key| writer.one(TAIL_TABLE, key));
        let tail = tail.collect();
        Self {
            first,
            second,
            logged,
            last,
            tail,
        }
    }
}

impl Writer {
    /// Batches that write every key of a table once.
    fn all_of(&mut self, table: usize) -> Vec<Batch> {
        let keys: Vec<usize> = (0..KEYS[table]).collect();
        let changes = |keys: &[usize]| Batch {
            table,
            changes: keys.iter().map(|&key| self.write(table, key)).collect(),
        };
        keys.chunks(BATCH_FULL).map(changes).collect()
    }

    /// Batches that change about a third of a table.
    fn some_of(&mut self, table: usize) -> Vec<Batch> {
        let batches = KEYS[table].div_ceil(3).div_ceil(BATCH_FULL);
        (0..batches)
            .map(|_| self.batch(table, BATCH_FULL))
            .collect()
    }

    /// A batch of up to so many changes of a table, each of another key.
    fn batch(&mut self, table: usize, changes_max: usize) -> Batch {
        let mut keys: Vec<usize> = (0..self.rng.usize(1..=changes_max))
            .map(|_| self.rng.usize(..KEYS[table]))
            .collect();
        keys.sort_unstable();
        keys.dedup();
        let mut changes = Vec::new();
        for key in keys {
            let is_there = self.present.get(&(table, key)).copied().unwrap_or(false);
            if is_there && self.rng.usize(..8) == 0 {
                self.present.insert((table, key), false);
                changes.push((key_of(table, key), Change::Discard));
            } else {
                changes.push(self.write(table, key));
            }
        }
        Batch { table, changes }
    }

    fn one(&mut self, table: usize, key: usize) -> Batch {
        Batch {
            table,
            changes: vec![self.write(table, key)],
        }
    }

    fn write(&mut self, table: usize, key: usize) -> (Vec<u8>, Change) {
        self.present.insert((table, key), true);
        let change = match table {
            LISTS => {
                let bytes = self.rng.usize(8..400);
                Change::Append(self.content(bytes))
            }
            COUNTERS => Change::Add(self.rng.i64(1..1000)),
            WIDE if key % LONG_EVERY == 7 && self.serial < KEYS[WIDE] as u64 => {
                Change::Put(self.content(LONG_BYTES))
            }
            WIDE => {
                let bytes = self.rng.usize(8..5000);
                Change::Put(self.content(bytes))
            }
            _ => {
                let bytes = self.rng.usize(8..60);
                Change::Put(self.content(bytes))
            }
        };
        (key_of(table, key), change)
    }

    /// Bytes that are like no others: their serial number, and noise.
    fn content(&mut self, bytes: usize) -> Vec<u8> {
        self.serial += 1;
        let mut content = self.serial.to_le_bytes().to_vec();
        content.resize_with(bytes, || self.rng.u8(..));
        content
    }
}

fn key_of(table: usize, key: usize) -> Vec<u8> {
    format!("{} {key}", TABLES[table].0).into_bytes()
}

impl Content {
    /// What there is after these batches.
    pub(super) fn of<'a>(batches: impl IntoIterator<Item = &'a Batch>) -> Self {
        let mut tables: Vec<Option<BTreeMap<Vec<u8>, States>>> = vec![None; TABLES.len()];
        let mut end = 0;
        for batch in batches {
            end += 1;
            let keys = tables[batch.table].get_or_insert_default();
            for (key, change) in &batch.changes {
                let states = keys.entry(key.clone()).or_insert(vec![(0, None)]);
                let before = states.last().and_then(|(_, value)| value.clone());
                states.push((end, changed(before, change)));
            }
        }
        for (number, table) in tables.iter_mut().enumerate() {
            let Some(keys) = table else { continue };
            for stranger in 0..STRANGERS {
                keys.insert(key_of(number, 10_000 + stranger), vec![(0, None)]);
            }
        }
        Self { tables, end }
    }

    /// The moment after the last batch.
    pub(super) fn end(&self) -> Moment {
        self.end
    }

    /// The numbers of the tables that must be there.
    pub(super) fn tables(&self) -> impl Iterator<Item = usize> {
        let is_there = |number: &usize| self.tables[*number].is_some();
        (0..TABLES.len()).filter(is_there)
    }

    /// The keys of a table, and some that were never written.
    pub(super) fn keys(&self, table: usize) -> impl Iterator<Item = &[u8]> {
        let keys = self.tables[table].iter().flat_map(BTreeMap::keys);
        keys.map(Vec::as_slice)
    }

    /// What a key is at a moment.
    pub(super) fn at(&self, table: usize, key: &[u8], moment: Moment) -> Option<&[u8]> {
        let states = self.tables[table].as_ref()?.get(key)?;
        let next = states.partition_point(|(from, _)| *from <= moment);
        states[..next].last()?.1.as_deref()
    }

    /// Whether a key was this once.
    pub(super) fn was(&self, table: usize, key: &[u8], value: &[u8]) -> bool {
        let states = self.tables[table].as_ref().and_then(|keys| keys.get(key));
        states.is_some_and(|states| states.iter().any(|state| state.1.as_deref() == Some(value)))
    }

    /// How many entries a table has at a moment.
    pub(super) fn len(&self, table: usize, moment: Moment) -> u64 {
        let is_there = |key: &&[u8]| self.at(table, key, moment).is_some();
        self.keys(table).filter(is_there).count() as u64
    }
}

/// What a key is after a change.
fn changed(before: Option<Vec<u8>>, change: &Change) -> Option<Vec<u8>> {
    match change {
        Change::Put(value) => Some(value.clone()),
        Change::Append(bytes) => {
            let mut list = before.unwrap_or_default();
            list.extend_from_slice(bytes);
            Some(list)
        }
        Change::Add(delta) => {
            let sum = before.and_then(|bytes| bytes.try_into().ok());
            let sum = sum.map_or(0, i64::from_le_bytes).wrapping_add(*delta);
            Some(sum.to_le_bytes().to_vec())
        }
        Change::Discard => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_history_follows_from_its_seed() {
        let (one, other) = (History::new(7), History::new(7));
        assert_eq!((&one.first, &one.tail), (&other.first, &other.tail));
        assert_ne!(one.first, History::new(8).first);
        assert!(one.logged.iter().map(Batch::bytes).sum::<usize>() >= LOGGED_BYTES);
        let last: usize = one.last.iter().chain(&one.tail).map(Batch::bytes).sum();
        assert!(last < LOGGED_BYTES / 3, "{last} bytes after the checkpoint");
    }

    #[test]
    fn a_key_is_what_the_batches_up_to_the_moment_made_of_it() {
        let batch = |table, key: &str, change| Batch {
            table,
            changes: vec![(key.into(), change)],
        };
        let batches = [
            batch(LISTS, "l", Change::Append(vec![1])),
            batch(COUNTERS, "c", Change::Add(3)),
            batch(LISTS, "l", Change::Append(vec![2])),
            batch(COUNTERS, "c", Change::Add(-1)),
            batch(LISTS, "l", Change::Discard),
        ];
        let content = Content::of(&batches);
        let list = |moment| content.at(LISTS, b"l", moment).map(<[u8]>::to_vec);
        assert_eq!(
            (list(0), list(2), list(4)),
            (None, Some(vec![1]), Some(vec![1, 2]))
        );
        assert_eq!((list(5), content.end()), (None, 5));
        assert_eq!(
            content.at(COUNTERS, b"c", 5),
            Some(2i64.to_le_bytes().as_slice())
        );
        assert_eq!((content.len(LISTS, 4), content.len(LISTS, 5)), (1, 0));
        assert!(content.was(LISTS, b"l", &[1]) && !content.was(LISTS, b"l", &[2]));
        assert_eq!(content.tables().collect::<Vec<_>>(), [LISTS, COUNTERS]);
        assert_eq!(content.keys(LISTS).count(), 1 + STRANGERS);
    }
}
