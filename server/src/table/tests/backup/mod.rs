//! Backups: what they have is what all tables had at one moment, and where none can be made, nothing stays of it.
//!
//! Here is what these tests share: writers whose every step changes several tables one after the other, so that
//! what the tables hold says up to which step they were written.

mod moments;
mod refused;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rhash_protocol::{BackupInfo, Op, OpenMode, TableKind, WireError};

use super::support::{config, get_one, open_logged, open_table, scan, tiny, write};
use crate::{
    cold::Faults,
    log::Durability,
    store::{Store, Tiny},
    table::Table,
};

const WRITERS: u8 = 4;
/// Numbers in a list.
const LIST_ITEMS: u32 = 100;
/// Keys that a writer puts and discards in turn.
const SLOTS: u32 = 50;
/// Counters of a writer, but for the one that counts its steps.
const SUMS: u32 = 7;

/// Budgets so small that all levels, both homes and several segments of the log are there.
fn small() -> Tiny {
    Tiny {
        entries_bytes: 150_000,
        ..tiny(64)
    }
}

/// The tables that a step changes, in this order.
struct Tables {
    lists: Arc<Table>,
    more_lists: Arc<Table>,
    sums: Arc<Table>,
    values: Arc<Table>,
}

fn list_key(writer: u8, number: u32) -> Vec<u8> {
    let list = number / LIST_ITEMS;
    [&[writer][..], &list.to_le_bytes()].concat()
}

fn value_of(number: u32) -> Vec<u8> {
    let mut value = number.to_le_bytes().to_vec();
    value.resize(64, number as u8);
    value
}

impl Tables {
    fn of(store: &Store) -> Self {
        Self {
            lists: open_table(store, "lists", TableKind::Lists),
            more_lists: open_table(store, "more lists", TableKind::Lists),
            sums: open_table(store, "sums", TableKind::Counters),
            values: open_table(store, "values", TableKind::Values),
        }
    }

    /// What a writer does for a number, table by table.
    fn step(&self, writer: u8, number: u32) {
        let (key, bytes) = (list_key(writer, number), &number.to_le_bytes());
        for table in [&self.lists, &self.more_lists] {
            write(table, &[Op::Append { key: &key, bytes }]).expect("an append");
        }
        let sum = [writer, (number % SUMS) as u8];
        let adds = [
            Op::Add {
                key: &[writer],
                delta: 1,
            },
            Op::Add {
                key: &sum,
                delta: i64::from(number),
            },
        ];
        write(&self.sums, &adds).expect("additions");
        let (key, value) = ([writer, (number % SLOTS) as u8], value_of(number));
        let op = match number % 9 {
            0 => Op::Discard { key: &key },
            _ => Op::Put {
                key: &key,
                value: &value,
            },
        };
        write(&self.values, &[op]).expect("a write");
    }

    /// The numbers that a writer's lists have, which must be all from 0 on, each once.
    fn listed(table: &Arc<Table>, writer: u8) -> u32 {
        let mut count = 0;
        while let Some(list) = get_one(table, &list_key(writer, count)) {
            let (numbers, rest) = list.as_chunks::<4>();
            assert!(rest.is_empty());
            for number in numbers {
                assert_eq!(u32::from_le_bytes(*number), count, "writer {writer}");
                count += 1;
            }
            if !count.is_multiple_of(LIST_ITEMS) {
                break;
            }
        }
        count
    }

    fn sum(&self, key: &[u8]) -> i64 {
        get_one(&self.sums, key).map_or(0, |sum| {
            i64::from_le_bytes(sum.try_into().expect("a counter"))
        })
    }

    /// Whether a writer's values are what so many steps leave.
    fn values_are_of(&self, writer: u8, steps: u32) -> bool {
        (0..SLOTS).all(|slot| {
            let last = (0..steps).rev().find(|number| number % SLOTS == slot);
            let expected = last.filter(|number| number % 9 != 0).map(value_of);
            get_one(&self.values, &[writer, slot as u8]) == expected
        })
    }

    /// How many steps of each writer are whole. Of the one that comes next the tables may have a first part.
    fn steps(&self) -> Vec<u32> {
        let of_writer = |writer| {
            let listed = Self::listed(&self.lists, writer);
            let listed_more = Self::listed(&self.more_lists, writer);
            let added = self.sum(&[writer]) as u32;
            for rest in 0..SUMS {
                let numbers = (0..added).filter(|number| number % SUMS == rest);
                let expected: u32 = numbers.sum();
                assert_eq!(self.sum(&[writer, rest as u8]), i64::from(expected));
            }
            let written = [added, added.saturating_sub(1)]
                .into_iter()
                .find(|&steps| self.values_are_of(writer, steps))
                .expect("values as of a step");
            let steps = [listed, listed_more, added, written];
            assert!(
                steps.is_sorted_by(|before, after| before >= after),
                "{steps:?}"
            );
            assert!(listed - written <= 1, "{steps:?}");
            written
        };
        (0..WRITERS).map(of_writer).collect()
    }
}

/// What is there of it is the beginning of one round.
fn check_fleeting(store: &Store) {
    let found = store.open_table(Some("fleeting"), None, None, OpenMode::Existing);
    let Ok(found) = found else {
        return;
    };
    let mut entries = scan(&found.table, 100);
    entries.sort();
    for (number, (key, value)) in entries.iter().enumerate() {
        assert_eq!((&key[..], value), (&[number as u8][..], &entries[0].1));
    }
}

/// Makes a backup; until it is there, nothing has its name.
fn back_up(store: &Store, dir: &Path) -> Result<BackupInfo, WireError> {
    let made = store.backup(dir, &|| {
        assert!(!dir.exists(), "it has its name before it is whole");
        true
    });
    let partial = partial_of(dir);
    assert!(!partial.exists(), "{} stays", partial.display());
    made
}

fn partial_of(dir: &Path) -> PathBuf {
    PathBuf::from(format!("{}.partial", dir.display()))
}

/// Opens the copy twice, the second time after a clean stop; returns the steps that it has.
fn steps_in(dir: &Path, info: &BackupInfo) -> Vec<u32> {
    let mut seen = Vec::new();
    for round in 0..2 {
        let store = open_logged(dir, small(), Durability::EverySec);
        let names: Vec<_> = store.tables().into_iter().map(|table| table.name).collect();
        assert!(names.iter().all(Option::is_some), "no temporary tables");
        if round == 0 {
            assert!(names.len() as u64 <= info.tables, "{names:?}");
        }
        check_fleeting(&store);
        let tables = Tables::of(&store);
        seen.push(tables.steps());
        drop(tables);
        store.stop().expect("a clean stop");
    }
    assert_eq!(seen[0], seen[1]);
    seen.remove(0)
}

/// A store with a table that has runs in both homes, and something in the log.
fn filled(dir: &Path, faults: Option<&Arc<Faults>>) -> Arc<Store> {
    let mut config = config(Some(dir), small());
    config.durability = Durability::EverySec;
    config.log_limit_bytes = 64 << 10;
    config.faults = faults.cloned();
    let store = Store::open(config).expect("a store");
    let tables = Tables::of(&store);
    for number in 0..300 {
        tables.step(0, number);
        if number % 100 == 50 {
            store.checkpoint().expect("a checkpoint");
        }
    }
    store
}
