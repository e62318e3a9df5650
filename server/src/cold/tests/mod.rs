//! Tests of the cold tier, and what they share: stores of every home, random records.

mod contract;
mod copies;
mod damage;
mod sled_tree;
mod faults;
mod glance;
mod golden;
mod homes;
mod merge;

use std::sync::Arc;

use super::*;
use crate::key_hash::{KeyHash, KeyHasher};

/// A record that owns its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Owned {
    hash: KeyHash,
    kind: RecordKind,
    key: Vec<u8>,
    part: Vec<u8>,
}

impl Owned {
    fn of(record: &Record<'_>) -> Self {
        let Record {
            hash,
            kind,
            key,
            part,
        } = *record;
        Self {
            hash,
            kind,
            key: key.to_vec(),
            part: part.to_vec(),
        }
    }

    fn borrow(&self) -> Record<'_> {
        Record {
            hash: self.hash,
            kind: self.kind,
            key: &self.key,
            part: &self.part,
        }
    }
}

/// The homes that every contract is tried on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HomeKind {
    Files,
    Sled,
    Memory,
    Faulty,
}

const HOMES: [HomeKind; 4] = [
    HomeKind::Files,
    HomeKind::Sled,
    HomeKind::Memory,
    HomeKind::Faulty,
];

/// A store of one home, with its directory.
struct Fixture {
    store: ColdStore,
    options: ColdOptions,
    dir: tempfile::TempDir,
    kind: HomeKind,
}

impl Fixture {
    fn new(kind: HomeKind, place_bits: u32) -> Self {
        let mut options = ColdOptions::new(hasher(place_bits));
        options.small_run_bytes = if kind == HomeKind::Sled { u64::MAX } else { 0 };
        if kind == HomeKind::Faulty {
            options.faults = Some(Arc::default());
        }
        let dir = tempfile::tempdir().unwrap();
        let store = match kind {
            HomeKind::Files | HomeKind::Sled => {
                ColdStore::open(dir.path(), options.clone()).unwrap()
            }
            HomeKind::Memory | HomeKind::Faulty => ColdStore::in_memory(options.clone()),
        };
        Self {
            store,
            options,
            dir,
            kind,
        }
    }

    /// Stops and starts the store, if its runs outlive it.
    fn reopen(self) -> Self {
        let Self {
            store,
            options,
            dir,
            kind,
        } = self;
        let store = match kind {
            HomeKind::Files | HomeKind::Sled => {
                drop(store);
                ColdStore::open(dir.path(), options.clone()).unwrap()
            }
            HomeKind::Memory | HomeKind::Faulty => store,
        };
        Self {
            store,
            options,
            dir,
            kind,
        }
    }

    fn faults(&self) -> Arc<Faults> {
        Arc::clone(self.options.faults.as_ref().unwrap())
    }

    fn write(&self, records: &[Owned]) -> Arc<Run> {
        write(&self.store, records)
    }
}

fn hasher(place_bits: u32) -> KeyHasher {
    KeyHasher::new(&[7; 16]).with_place_bits(place_bits)
}

/// Room in stores without a limit.
fn unlimited() -> Claim {
    Claim {
        purpose: Purpose::Merge,
        bytes: 0,
    }
}

fn write(store: &ColdStore, records: &[Owned]) -> Arc<Run> {
    let mut writer = store.begin(5, 1000).unwrap();
    for record in records {
        writer.push(&record.borrow()).unwrap();
    }
    writer.finish(false).unwrap()
}

fn drain(mut source: impl RecordSource) -> Vec<Owned> {
    let mut records = Vec::new();
    while let Some(record) = source.head() {
        records.push(Owned::of(&record));
        source.advance().unwrap();
    }
    records
}

fn all_of(run: &Arc<Run>, read_ahead_bytes: usize) -> Vec<Owned> {
    drain(run.cursor(0, u64::MAX, read_ahead_bytes).unwrap())
}

/// Records in order, of about `keys` keys, each with a base or tombstone and fragments as chance
/// has it; part lengths up to `part_bytes_max`, most of them small.
fn random_records(
    rng: &mut fastrand::Rng,
    hasher: &KeyHasher,
    keys: usize,
    part_bytes_max: usize,
) -> Vec<Owned> {
    let mut names: Vec<Vec<u8>> = (0..keys)
        .map(|_| {
            let bytes = if rng.u32(..200) == 0 {
                rng.usize(..=KEY_BYTES_MAX)
            } else {
                rng.usize(..24)
            };
            std::iter::repeat_with(|| rng.u8(..)).take(bytes).collect()
        })
        .collect();
    names.sort_by_key(|name| (hasher.hash(name).place, name.clone()));
    names.dedup();
    let mut records = Vec::new();
    for key in names {
        let hash = hasher.hash(&key);
        let first = match rng.u32(..4) {
            0 => RecordKind::Fragment,
            1 => RecordKind::Tombstone,
            _ => RecordKind::Base,
        };
        let more = if rng.u32(..8) == 0 { rng.usize(..6) } else { 0 };
        for number in 0..=more {
            let kind = if number == 0 {
                first
            } else {
                RecordKind::Fragment
            };
            let part = if kind == RecordKind::Tombstone {
                Vec::new()
            } else {
                random_part(rng, part_bytes_max)
            };
            records.push(Owned {
                hash,
                kind,
                key: key.clone(),
                part,
            });
        }
    }
    records
}

fn random_part(rng: &mut fastrand::Rng, bytes_max: usize) -> Vec<u8> {
    let bytes = match rng.u32(..40) {
        0 => rng.usize(..=bytes_max),
        1 => bytes_max,
        2..8 => 0,
        _ => rng.usize(..=bytes_max.min(150)),
    };
    std::iter::repeat_with(|| rng.u8(..)).take(bytes).collect()
}

/// A seed that is new each time, printed so that a failure can be repeated.
fn seed(name: &str) -> u64 {
    let seed = fastrand::u64(..);
    println!("{name}: seed {seed}");
    seed
}
