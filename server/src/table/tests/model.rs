//! A table does what a map does, whatever is spilled, merged or promoted meanwhile.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use fastrand::Rng;
use rhash_protocol::{Op, TableKind};

use super::support::{
    Came, assert_sound, contains, first_seed, get, open, open_logged, open_table, scan, sequences,
    tiny, wait, write,
};
use crate::{
    hot::{SWEEPS, Sweep},
    log::{Durability, Lsn},
    store::{Store, Tiny},
    table::{MergeDone, Need, Table},
};

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

const STEPS: usize = 300;
/// Merges for garbage must come to an end, however wrong estimates are.
const MERGES_MAX: usize = 1000;

/// With so little RAM for entries a replay has to spill.
const LITTLE_RAM_BYTES: usize = 32 << 10;

/// Which states the sequences have been in, for the test to insist on.
#[derive(Debug, Default)]
struct Visited {
    hot: u64,
    in_transit: u64,
    cold: u64,
    sled_runs: u64,
    file_runs: u64,
    merges: u64,
    whole_merges: u64,
    splits: u64,
    promoted: u64,
    restarts: u64,
    large_values: u64,
    shared_runs: u64,
    cold_tombstones: u64,
    crashes: u64,
    lost_writes: u64,
    replayed: u64,
    spilled_replays: u64,
    checkpoints: u64,
    lost_manifests: u64,
}

struct Sequence<'a> {
    rng: Rng,
    dir: &'a Path,
    place_bits: u32,
    durability: Durability,
    /// The writes that may be lost, oldest first: the record of each, and the map before it.
    unacked: Vec<(Lsn, Model)>,
    kind: TableKind,
    store: Arc<Store>,
    table: Arc<Table>,
    model: Model,
    keys: Vec<Vec<u8>>,
}

/// An operation that owns its operands.
#[derive(Debug, Clone)]
enum Owned {
    Put(Vec<u8>, Vec<u8>),
    Append(Vec<u8>, Vec<u8>),
    Add(Vec<u8>, i64),
    Discard(Vec<u8>),
    PutIfAbsent(Vec<u8>, Vec<u8>),
    Replace(Vec<u8>, Vec<u8>),
    CompareAndSwap(Vec<u8>, Option<Vec<u8>>, Option<Vec<u8>>),
    Remove(Vec<u8>),
    AddAndGet(Vec<u8>, i64),
}

impl Owned {
    fn op(&self) -> Op<'_> {
        match self {
            Self::Put(key, value) => Op::Put { key, value },
            Self::Append(key, bytes) => Op::Append { key, bytes },
            Self::Add(key, delta) => Op::Add { key, delta: *delta },
            Self::Discard(key) => Op::Discard { key },
            Self::PutIfAbsent(key, value) => Op::PutIfAbsent { key, value },
            Self::Replace(key, value) => Op::Replace { key, value },
            Self::CompareAndSwap(key, expected, new) => Op::CompareAndSwap {
                key,
                expected: expected.as_deref(),
                new: new.as_deref(),
            },
            Self::Remove(key) => Op::Remove { key },
            Self::AddAndGet(key, delta) => Op::AddAndGet { key, delta: *delta },
        }
    }

    /// What a map does.
    fn apply(&self, model: &mut Model) -> Option<Came> {
        let came = |value: Option<&Vec<u8>>| {
            value.map_or(Came::Absent, |value| Came::Value(value.clone()))
        };
        match self.clone() {
            Self::Put(key, value) => {
                model.insert(key, value);
                None
            }
            Self::Append(key, bytes) => {
                model.entry(key).or_default().extend_from_slice(&bytes);
                None
            }
            Self::Add(key, delta) => {
                add(model, key, delta);
                None
            }
            Self::Discard(key) => {
                model.remove(&key);
                None
            }
            Self::PutIfAbsent(key, value) => {
                let outcome = came(model.get(&key));
                model.entry(key).or_insert(value);
                Some(outcome)
            }
            Self::Replace(key, value) => {
                let outcome = came(model.get(&key));
                model.entry(key).and_modify(|old| *old = value);
                Some(outcome)
            }
            Self::CompareAndSwap(key, expected, new) => {
                if model.get(&key) != expected.as_ref() {
                    return Some(came(model.get(&key)));
                }
                match new {
                    Some(new) => drop(model.insert(key, new)),
                    None => drop(model.remove(&key)),
                }
                Some(Came::Swapped)
            }
            Self::Remove(key) => Some(came(model.remove(&key).as_ref())),
            Self::AddAndGet(key, delta) => Some(Came::Value(add(model, key, delta))),
        }
    }
}

fn add(model: &mut Model, key: Vec<u8>, delta: i64) -> Vec<u8> {
    let value = model.entry(key).or_insert_with(|| vec![0; 8]);
    let old = i64::from_le_bytes(value.as_slice().try_into().expect("8 bytes"));
    *value = old.wrapping_add(delta).to_le_bytes().to_vec();
    value.clone()
}

impl<'a> Sequence<'a> {
    fn new(seed: u64, dir: &'a Path, place_bits: u32, durability: Durability) -> Self {
        let mut rng = Rng::with_seed(seed);
        let kind = [TableKind::Values, TableKind::Lists, TableKind::Counters][rng.usize(..3)];
        let keys = (0..rng.usize(5..60))
            .map(|number| {
                let length = if rng.u8(..) < 4 {
                    3000
                } else {
                    rng.usize(..20)
                };
                let mut key = format!("{number}").into_bytes();
                key.resize(key.len() + length, b'k');
                key
            })
            .collect();
        let store = open_logged(dir, tiny(place_bits), durability);
        let table = open_table(&store, "t", kind);
        Self {
            rng,
            dir,
            place_bits,
            durability,
            unacked: Vec::new(),
            kind,
            store,
            table,
            model: Model::new(),
            keys,
        }
    }

    fn run(&mut self, visited: &mut Visited) {
        for _ in 0..STEPS {
            self.step(visited);
        }
        self.check_all();
        let info = self.table.info();
        visited.promoted += self.store.stats().promoted_entries;
        visited.merges += self.store.stats().merges;
        assert_eq!(info.name.as_deref(), Some("t"));
    }

    fn any_sweep(&mut self) -> Sweep {
        SWEEPS[self.rng.usize(..SWEEPS.len())]
    }

    fn step(&mut self, visited: &mut Visited) {
        match self.rng.u32(..100) {
            0..45 => self.write(visited),
            45..65 => self.read(visited),
            65..68 => self.check_len(),
            68..70 => self.check_scan(),
            70..80 => {
                let target = self.rng.usize(1..8192);
                let sweep = self.any_sweep();
                self.table.spill(target, sweep).expect("a spill");
                self.note_runs(visited);
            }
            80..84 => {
                let sweep = self.any_sweep();
                drop(self.table.take_out(self.rng.usize(1..4096), sweep));
            }
            84..90 => self.merge(visited),
            90..94 if self.durability == Durability::None => self.merge(visited),
            90..92 => {
                self.store.checkpoint().expect("a checkpoint");
                visited.checkpoints += 1;
            }
            92..94 => {
                self.crash(visited);
                // Again without a checkpoint in between.
                while self.rng.bool() {
                    self.crash(visited);
                }
            }
            94..96 => self.restart(visited),
            96 => {
                self.table.clear().expect("a clear");
                self.model.clear();
                self.unacked.clear();
            }
            97 => self.close_and_make_anew(),
            _ => {
                // Repeated reads bring entries back to RAM.
                for _ in 0..2 {
                    self.read(visited);
                }
            }
        }
    }

    fn key(&mut self) -> Vec<u8> {
        self.keys[self.rng.usize(..self.keys.len())].clone()
    }

    fn value(&mut self, visited: &mut Visited) -> Vec<u8> {
        if self.kind == TableKind::Counters {
            return self.rng.i64(-5..5).to_le_bytes().to_vec();
        }
        let length = match self.rng.u32(..200) {
            0 => self.rng.usize(60_000..200_000),
            1..8 => self.rng.usize(1900..9000),
            8..20 => 0,
            _ => self.rng.usize(..200),
        };
        visited.large_values += u64::from(length > crate::cold::PART_BYTES_MAX);
        let fill = self.rng.u8(..);
        (0..length).map(|at| fill.wrapping_add(at as u8)).collect()
    }

    fn operation(&mut self, visited: &mut Visited) -> Owned {
        let (key, value) = (self.key(), self.value(visited));
        let delta = if self.rng.u8(..) == 0 {
            i64::MAX
        } else {
            self.rng.i64(-9..9)
        };
        match (self.rng.u32(..12), self.kind) {
            (0..3, TableKind::Lists) => Owned::Append(key, value),
            (0..3, TableKind::Counters) => Owned::Add(key, delta),
            (3, TableKind::Lists) => Owned::Append(key, value),
            (3, TableKind::Counters) => Owned::AddAndGet(key, delta),
            (0..6, _) => Owned::Put(key, value),
            (6 | 7, _) => Owned::Discard(key),
            (8, _) => Owned::PutIfAbsent(key, value),
            (9, _) => Owned::Replace(key, value),
            (10, _) => Owned::Remove(key),
            _ => {
                let expected = match self.rng.u8(..4) {
                    0 => None,
                    1 => Some(value.clone()),
                    _ => self.model.get(&key).cloned(),
                };
                let new = self.rng.bool().then_some(value);
                Owned::CompareAndSwap(key, expected, new)
            }
        }
    }

    fn write(&mut self, visited: &mut Visited) {
        let count = if self.rng.bool() {
            1
        } else {
            self.rng.usize(1..8)
        };
        let batch: Vec<Owned> = (0..count).map(|_| self.operation(visited)).collect();
        let ops: Vec<Op<'_>> = batch.iter().map(Owned::op).collect();
        if let Some(log) = self.store.log() {
            if self.rng.u8(..4) == 0 {
                log.wait_acked(log.last()).expect("it is written");
                self.unacked.clear();
            }
            self.unacked.push((log.last() + 1, self.model.clone()));
        }
        let mut after = self.model.clone();
        let expected: Vec<Came> = batch.iter().filter_map(|op| op.apply(&mut after)).collect();
        match write(&self.table, &ops) {
            Ok(came) => {
                assert_eq!(came, expected, "{batch:?}");
                self.model = after;
            }
            // A list may have grown beyond what an operation returns; nothing was applied then.
            Err(error) => assert_eq!(
                error.code,
                rhash_protocol::ErrorCode::ValueTooLarge,
                "{}",
                error.text
            ),
        }
    }

    fn read(&mut self, visited: &mut Visited) {
        let keys: Vec<Vec<u8>> = (0..self.rng.usize(1..6)).map(|_| self.key()).collect();
        let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
        for key in &keys {
            self.note_residency(key, visited);
        }
        let expected: Vec<_> = keys
            .iter()
            .map(|&key| self.model.get(key).cloned())
            .collect();
        assert_eq!(get(&self.table, &keys).expect("a get"), expected);
        let present: Vec<bool> = expected.iter().map(Option::is_some).collect();
        assert_eq!(contains(&self.table, &keys), present);
    }

    fn note_residency(&self, key: &[u8], visited: &mut Visited) {
        let place = self.table.shared.hasher.hash(key).place;
        let state = self.table.state.lock();
        if state.hot.get(place, key).is_some() {
            visited.hot += 1;
        } else if state.transit.iter().any(|frozen| frozen.covers(place)) {
            visited.in_transit += 1;
        } else if !state.cold.at(place).runs.is_empty() {
            visited.cold += 1;
        }
    }

    fn note_runs(&self, visited: &mut Visited) {
        let files = std::fs::read_dir(self.dir.join("runs")).map_or(0, Iterator::count) as u64;
        let runs = self.table.runs();
        visited.file_runs += files;
        visited.sled_runs += u64::from(self.store.stats().sled_bytes > 0);
        visited.cold_tombstones += runs.iter().map(|run| run.tombstones()).sum::<u64>();
        let state = self.table.state.lock();
        let in_ranges: usize = state.cold.iter().map(|range| range.runs.len()).sum();
        visited.shared_runs += u64::from(in_ranges > runs.len());
        visited.splits += u64::from(state.cold.len() > 1);
    }

    fn merge(&mut self, visited: &mut Visited) {
        if self.rng.bool() {
            let need = [Need::Order, Need::Space][self.rng.usize(..2)];
            let mut merges = 0;
            while self.table.merge_one(need).expect("a merge") == MergeDone::Some {
                merges += 1;
                assert!(merges < MERGES_MAX, "still merging");
            }
        } else if self.table.merge_some(&mut self.rng).expect("a merge") {
            visited.whole_merges += 1;
        }
        self.note_runs(visited);
    }

    fn check_len(&self) {
        assert_eq!(
            wait(self.table.len()).expect("a count"),
            self.model.len() as u64
        );
        assert_eq!(
            wait(self.table.is_empty()).expect("a look"),
            self.model.is_empty()
        );
    }

    fn check_scan(&mut self) {
        let entries_max = self.rng.u32(1..30);
        let mut found = scan(&self.table, entries_max);
        found.sort();
        let expected: Vec<_> = self
            .model
            .iter()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        assert!(
            found == expected,
            "a scan found {} of {} entries",
            found.len(),
            expected.len()
        );
    }

    fn check_all(&mut self) {
        self.check_len();
        self.check_scan();
        let keys: Vec<&[u8]> = self.keys.iter().map(Vec::as_slice).collect();
        let expected: Vec<_> = keys
            .iter()
            .map(|&key| self.model.get(key).cloned())
            .collect();
        assert!(
            get(&self.table, &keys).expect("a get") == expected,
            "all keys read"
        );
    }

    fn restart(&mut self, visited: &mut Visited) {
        visited.promoted += self.store.stats().promoted_entries;
        visited.merges += self.store.stats().merges;
        visited.restarts += 1;
        self.store.stop().expect("a clean stop");
        self.unacked.clear();
        self.reopen(1 << 30, visited);
    }

    /// As a kill does: what waits in RAM to be written to the log is lost.
    fn crash(&mut self, visited: &mut Visited) {
        visited.crashes += 1;
        let log = self.store.log().expect("a log");
        log.abandon();
        let acked = (0..=log.last()).rev().find(|lsn| log.is_acked(*lsn));
        let entries_bytes = [LITTLE_RAM_BYTES, 1 << 30][self.rng.usize(..2)];
        self.reopen(entries_bytes, visited);
        visited.spilled_replays += u64::from(self.store.stats().spilled_entries > 0);
        let survived = self.store.log().expect("a log").last();
        assert!(acked.is_some_and(|acked| acked <= survived));
        let lost = self.unacked.iter().position(|(lsn, _)| *lsn > survived);
        if let Some(first) = lost {
            visited.lost_writes += (self.unacked.len() - first) as u64;
            self.model = self.unacked[first].1.clone();
        }
        self.unacked.clear();
        visited.replayed += u64::from(self.table.hot_use().bytes > 2000);
        self.check_all();
    }

    fn reopen(&mut self, entries_bytes: usize, visited: &mut Visited) {
        // The old store holds the directory's lock until nothing refers to it.
        let placeholder = open(None, tiny(64));
        self.table = open_table(&placeholder, "t", self.kind);
        self.store = placeholder;
        if self.rng.u8(..4) == 0 {
            assert_sound(self.dir, tiny(self.place_bits));
        }
        if self.rng.u8(..3) == 0 {
            std::fs::remove_file(self.dir.join("MANIFEST")).expect("there is a manifest");
            visited.lost_manifests += 1;
        }
        let tiny = Tiny {
            entries_bytes,
            ..tiny(self.place_bits)
        };
        self.store = open_logged(self.dir, tiny, self.durability);
        self.table = open_table(&self.store, "t", self.kind);
    }

    fn close_and_make_anew(&mut self) {
        self.store.close_table(self.table.id()).expect("a close");
        assert_eq!(self.store.stats().tables.len(), 0);
        self.table = open_table(&self.store, "t", self.kind);
        self.model.clear();
        self.unacked.clear();
    }
}

fn run_sequences(count: u64, place_bits: u32, durability: Durability) -> Visited {
    let first = first_seed();
    let mut visited = Visited::default();
    for seed in first..first + count {
        let dir = tempfile::tempdir().expect("a directory");
        let run = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            Sequence::new(seed, dir.path(), place_bits, durability).run(&mut visited);
        }));
        if let Err(panic) = run {
            eprintln!(
                "failed with RHASH_MODEL_SEED={seed} RHASH_MODEL_SEQUENCES=1, {place_bits} place bits"
            );
            std::panic::resume_unwind(panic);
        }
    }
    println!("{count} sequences from seed {first}: {visited:?}");
    visited
}

#[test]
fn every_operation_agrees_with_a_map_in_every_state() {
    let visited = run_sequences(sequences(150), 64, Durability::None);
    if sequences(150) < 100 {
        return;
    }
    for (count, what) in [
        (visited.hot, "hot reads"),
        (visited.in_transit, "reads in transit"),
        (visited.cold, "cold reads"),
        (visited.sled_runs, "runs in sled"),
        (visited.file_runs, "runs in files"),
        (visited.merges, "merges"),
        (visited.whole_merges, "forced merges"),
        (visited.splits, "split ranges"),
        (visited.shared_runs, "runs shared by ranges"),
        (visited.promoted, "promotions"),
        (visited.restarts, "restarts"),
        (visited.lost_manifests, "manifests made anew"),
        (visited.large_values, "values of several parts"),
        (visited.cold_tombstones, "tombstones in runs"),
    ] {
        assert!(count > 0, "no {what}");
    }
}

#[test]
fn every_operation_agrees_with_a_map_where_all_places_collide() {
    run_sequences(sequences(60), 8, Durability::None);
}

#[test]
fn what_was_written_to_the_log_survives_crashes_and_is_applied_once() {
    let visited = run_sequences(sequences(16), 64, Durability::EverySec);
    if sequences(16) < 15 {
        return;
    }
    for (count, what) in [
        (visited.crashes, "crashes"),
        (visited.lost_writes, "writes lost"),
        (visited.replayed, "replays"),
        (visited.checkpoints, "checkpoints"),
        (visited.lost_manifests, "manifests made anew"),
        (visited.restarts, "restarts"),
        (visited.merges, "merges"),
        (visited.in_transit, "reads in transit"),
        (visited.promoted, "promotions"),
    ] {
        assert!(count > 0, "no {what}");
    }
    // Rare enough that a few sequences may be without; `recovery` has one for certain.
    assert!(
        sequences(16) < 100 || visited.spilled_replays > 0,
        "no replays that spilled"
    );
}

#[test]
fn nothing_acknowledged_is_lost_or_doubled_where_all_places_collide() {
    run_sequences(sequences(8), 8, Durability::Always);
}
