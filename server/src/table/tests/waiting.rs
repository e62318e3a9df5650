//! Who reads cold keys: the thread that asks, while reads do not wait for the disk; else the pool.

use std::{fs, path::Path, sync::Arc};

use rhash_protocol::{Keys, Op, TableKind, packed::push_bytes};

use super::support::{first_seed, get, open_faulty, open_table, wait, write};
use crate::{
    cold::Faults,
    hot::Sweep,
    store::Store,
    table::{Answer, Table},
    waiting,
};

const KEYS: u32 = 600;

/// Runs of the table: the first has all keys, the next every second one anew, the last every third.
const RUNS: u32 = 3;

fn is_in(run: u32, key: u32) -> bool {
    key.is_multiple_of(run + 1)
}

/// A table with no entry in RAM.
fn cold_table(dir: &Path) -> (Arc<Store>, Arc<Table>, Arc<Faults>) {
    let (store, faults) = open_faulty(dir);
    let table = open_table(&store, "t", TableKind::Values);
    for run in 0..RUNS {
        for key in (0..KEYS).filter(|&key| is_in(run, key)) {
            let (key, value) = (key.to_be_bytes(), value_in(run, key));
            write(
                &table,
                &[Op::Put {
                    key: &key,
                    value: &value,
                }],
            )
            .expect("a write");
        }
        while table.has_unspilled() {
            table.spill(usize::MAX, Sweep::All).expect("a spill");
        }
    }
    assert_eq!(table.runs_deepest(), RUNS as usize);
    (store, table, faults)
}

fn value_in(run: u32, key: u32) -> Vec<u8> {
    [key, run].map(u32::to_be_bytes).concat().repeat(10)
}

/// The newest.
fn value(key: u32) -> Vec<u8> {
    let run = (0..RUNS).rfind(|&run| is_in(run, key));
    value_in(run.expect("the first has all"), key)
}

fn check(table: &Arc<Table>, keys: &[u32]) {
    let names: Vec<_> = keys.iter().map(|key| key.to_be_bytes()).collect();
    let names: Vec<&[u8]> = names.iter().map(|name| &name[..]).collect();
    let expected: Vec<_> = keys
        .iter()
        .map(|&key| (key < KEYS).then(|| value(key)))
        .collect();
    assert_eq!(get(table, &names).expect("a get"), expected);
}

/// Whether the answer to a get of these keys was there at once.
fn is_ready(table: &Arc<Table>, keys: &[u32]) -> bool {
    let mut packed = Vec::new();
    keys.iter()
        .for_each(|key| push_bytes(&mut packed, &key.to_be_bytes()));
    let count = keys.len() as u32;
    let answer = table.get(Keys::new(count, &packed));
    let is_ready = matches!(answer, Answer::Ready(_));
    assert_eq!(wait(answer).expect("a get").count, count);
    is_ready
}

/// Whether the file system says that something lies in the page cache.
fn tells(dir: &Path) -> bool {
    let path = dir.join("probe");
    fs::write(&path, [7; 100]).expect("a file");
    let file = fs::File::open(&path).expect("the file");
    crate::cold::is_read_at_once(&file, &mut [0; 100], 0)
}

#[test]
fn the_thread_that_asks_reads_what_is_in_the_page_cache() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_store, table, faults) = cold_table(dir.path());
    // No key is asked for twice, since that would bring it into RAM. Of a few nobody waits to know of the disk.
    assert_eq!(is_ready(&table, &[0]), tells(dir.path()));
    let some: Vec<u32> = (400..420).collect();
    assert!(!is_ready(&table, &some), "nothing is known of the disk yet");
    let first: Vec<u32> = (1..100).chain(KEYS..KEYS + 50).collect();
    check(&table, &first);
    if !tells(dir.path()) {
        assert!(!is_ready(&table, &[100]));
        return;
    }
    assert!((100..200).all(|key| is_ready(&table, &[key])));
    let several: Vec<u32> = (200..300).collect();
    check(&table, &several);
    faults.slow_reads(1);
    check(&table, &[300]);
    check(&table, &[301, 302, KEYS + 1]);
    let (others, here) = faults.waited();
    assert!(others > 0 && !here, "the pool waits, and not the thread");
    faults.slow_reads(0);
    let some: Vec<u32> = (303..323).collect();
    assert!(!is_ready(&table, &some), "the disk was waited for");
    (323..400).for_each(|key| check(&table, &[key]));
    let pool = &table.shared.pool;
    assert!(pool.is_calm(), "waits are forgotten after a while");
}

#[test]
fn an_index_is_said_to_be_in_use_as_often_as_blocks_come_from_the_disk() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_store, table, faults) = cold_table(dir.path());
    let some: Vec<u32> = (0..100).collect();
    check(&table, &some);
    if tells(dir.path()) {
        assert_eq!(faults.uses(), 0, "all blocks were in RAM");
    }
    let before = faults.uses();
    faults.slow_reads(1);
    let others: Vec<u32> = (100..200).collect();
    check(&table, &others);
    // For each key the filter and the places of the run that has it, and of a few the other runs and directories.
    let uses = faults.uses() - before;
    assert!((200..=400).contains(&uses), "{uses} for 100 blocks");
}

#[test]
fn the_blocks_of_all_runs_of_a_list_are_begun_with_before_one_is_waited_for() {
    // In files, whose indexes are mapped.
    const PART_BYTES: usize = 4000;
    const PARTS: u8 = 5;
    let dir = tempfile::tempdir().expect("a directory");
    let (store, faults) = open_faulty(dir.path());
    let table = open_table(&store, "l", TableKind::Lists);
    for part in 0..PARTS {
        let append = Op::Append {
            key: b"list",
            bytes: &[part; PART_BYTES],
        };
        write(&table, &[append]).expect("an append");
        table.spill(usize::MAX, Sweep::All).expect("a spill");
    }
    let whole: Vec<u8> = (0..PARTS).flat_map(|part| [part; PART_BYTES]).collect();
    let reads_of_a_get = || {
        let before = faults.reads();
        assert_eq!(
            get(&table, &[b"list"]).expect("a get"),
            [Some(whole.clone())]
        );
        faults.reads() - before
    };
    // Indexes are verified when they are read for the first time.
    reads_of_a_get();
    faults.slow_reads(1);
    assert_eq!(
        reads_of_a_get(),
        2 * u64::from(PARTS),
        "one of each run is tried first"
    );
}

#[test]
fn answers_are_right_however_many_reads_wait() {
    let seed = first_seed();
    println!("RHASH_MODEL_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let dir = tempfile::tempdir().expect("a directory");
    let (_store, table, faults) = cold_table(dir.path());
    for _ in 0..300 {
        faults.slow_reads([0, 0, 1, 2, 7, 50][random.usize(..6)]);
        let count = [1, 5, 40, 128, 200][random.usize(..5)];
        let keys: Vec<u32> = (0..count).map(|_| random.u32(1..KEYS + 20)).collect();
        check(&table, &keys);
    }
    faults.slow_reads(0);
    faults.fail_read(1);
    let key = 0u32.to_be_bytes();
    assert!(get(&table, &[&key]).is_err(), "a failure is no wait");
    assert!(waiting::never(|| get(&table, &[&key])).is_some());
}
