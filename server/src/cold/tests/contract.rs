//! What every home promises through the store, and the reader on top of it.

use std::collections::BTreeMap;

use super::*;

/// Runs `test` on a store of every home, with places of 64, 8 and 0 bits.
fn on_every_home(test: impl Fn(&Fixture)) {
    for kind in HOMES {
        for place_bits in [64, 8, 0] {
            println!("{kind:?}, places of {place_bits} bits");
            test(&Fixture::new(kind, place_bits));
        }
    }
}

#[test]
fn records_come_back_as_they_were_pushed() {
    let seed = seed("records_come_back");
    on_every_home(|fixture| {
        let mut rng = fastrand::Rng::with_seed(seed);
        for (keys, part_bytes_max) in [(1, 10), (700, 2000), (60, PART_BYTES_MAX)] {
            let records = random_records(&mut rng, &fixture.options.hasher, keys, part_bytes_max);
            let run = fixture.write(&records);
            for read_ahead_bytes in [0, 3000, 128 * 1024] {
                assert!(
                    all_of(&run, read_ahead_bytes) == records,
                    "ahead {read_ahead_bytes}"
                );
            }
            let reopened = fixture.store.open_run(run.id()).unwrap();
            assert_eq!(reopened.summary(), run.summary());
            assert!(all_of(&reopened, 10_000) == records);
        }
    });
}

#[test]
fn a_summary_counts_what_was_pushed() {
    let seed = seed("a_summary_counts");
    on_every_home(|fixture| {
        let mut rng = fastrand::Rng::with_seed(seed);
        let records = random_records(&mut rng, &fixture.options.hasher, 300, 300);
        let mut writer = fixture.store.begin(9, 1000).unwrap();
        writer.set_note(vec![3; 50]);
        records
            .iter()
            .for_each(|record| writer.push(&record.borrow()).unwrap());
        let run = writer.finish(true).unwrap();
        assert_eq!(run.note().unwrap(), [3; 50]);
        let keys: BTreeMap<_, _> = records.iter().map(|r| (r.key.clone(), r.kind)).collect();
        let tombstones = records
            .iter()
            .filter(|r| r.kind == RecordKind::Tombstone)
            .count();
        let payload: usize = records.iter().map(|r| r.key.len() + r.part.len()).sum();
        let expected = RunSummary {
            id: run.id(),
            table: 9,
            records: records.len() as u64,
            keys: keys.len() as u64,
            tombstones: tombstones as u64,
            payload_bytes: payload as u64,
            first_place: records.first().unwrap().hash.place,
            last_place: records.last().unwrap().hash.place,
            has_hash_column: run.has_hash_column(),
        };
        assert_eq!(*run.summary(), expected);
        assert!(run.bytes() > payload as u64);
    });
}

#[test]
fn seeks_find_every_key_and_no_other() {
    let seed = seed("seeks_find");
    on_every_home(|fixture| seek_all(fixture, seed));
}

/// A seek that went on into a place's next section took the block buffered of the one before for the
/// block at the same offset, and called the run damaged. It takes such a layout to see that.
#[test]
fn a_seek_that_goes_on_into_the_next_section_reads_its_blocks() {
    let seed = 11_434_863_213_753_786_466;
    seek_all(&Fixture::new(HomeKind::Memory, 0), seed);
}

fn seek_all(fixture: &Fixture, seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let hasher = &fixture.options.hasher;
    let records = random_records(&mut rng, hasher, 500, 3000);
    let run = fixture.write(&records);
    let mut of_key: BTreeMap<&[u8], Vec<Owned>> = BTreeMap::new();
    for record in &records {
        of_key.entry(&record.key).or_default().push(record.clone());
    }
    for (&key, expected) in &of_key {
        let hash = hasher.hash(key);
        assert!(run.may_contain(hash).unwrap());
        let cursor = run
            .seek_key(hash, key)
            .unwrap()
            .expect("a key that was pushed");
        let mut found = drain(cursor);
        assert!(found.iter().all(|record| record.hash.place == hash.place));
        found.truncate(expected.len());
        assert!(found == *expected);
    }
    let mut maybe = 0;
    for number in 0..500u32 {
        let key = format!("absent {number}");
        let hash = hasher.hash(key.as_bytes());
        assert!(run.seek_key(hash, key.as_bytes()).unwrap().is_none());
        maybe += u32::from(run.may_contain(hash).unwrap());
    }
    assert!(maybe < 100, "{maybe} of 500 absent keys pass the filters");
}

#[test]
fn absent_keys_cost_no_read_and_present_ones_cost_one() {
    let fixture = Fixture::new(HomeKind::Files, 64);
    let mut rng = fastrand::Rng::with_seed(1);
    let hasher = &fixture.options.hasher;
    let records = random_records(&mut rng, hasher, 20_000, 100);
    let run = fixture.write(&records);
    let before = fixture.store.reads();
    for number in 0..1000u32 {
        let key = number.to_le_bytes();
        let hash = hasher.hash(&key);
        if !run.may_contain(hash).unwrap() {
            assert!(run.seek_key(hash, &key).unwrap().is_none());
        }
    }
    assert_eq!(fixture.store.reads(), before);
    let base = |record: &&Owned| record.kind == RecordKind::Base;
    for record in records.iter().filter(base).step_by(50) {
        assert!(run.seek_key(record.hash, &record.key).unwrap().is_some());
    }
    let present = records.iter().filter(base).step_by(50).count() as u64;
    assert_eq!(fixture.store.reads(), before + present);
}

#[test]
fn cursors_begin_and_end_at_any_place() {
    let seed = seed("cursors_begin_and_end");
    on_every_home(|fixture| {
        let mut rng = fastrand::Rng::with_seed(seed);
        let records = random_records(&mut rng, &fixture.options.hasher, 600, 1500);
        let run = fixture.write(&records);
        for _ in 0..60 {
            let mut place = || {
                let near = records[rng.usize(..records.len())].hash.place;
                near.wrapping_add(rng.u64(..3)).wrapping_sub(1)
            };
            let (from, to) = (place(), place());
            let inside = |place: u64| from <= place && place <= to;
            let expected: Vec<_> = records
                .iter()
                .filter(|record| inside(record.hash.place))
                .cloned()
                .collect();
            assert!(
                drain(run.cursor(from, to, 5000).unwrap()) == expected,
                "{from}..={to}"
            );
            let bytes: usize = expected.iter().map(|r| r.key.len() + r.part.len()).sum();
            assert!(run.bytes_between(from, to).unwrap() >= bytes as u64);
            assert_eq!(
                hashes(&run, from, to),
                first_of_keys(&expected),
                "{from}..={to}"
            );
        }
    });
}

fn hashes(run: &Arc<Run>, from: u64, to: u64) -> Vec<(KeyHash, RecordKind)> {
    let mut cursor = run.hashes(from, to).unwrap();
    let mut found = Vec::new();
    while let Some(head) = cursor.head() {
        found.push(head);
        cursor.advance().unwrap();
    }
    found
}

fn first_of_keys(records: &[Owned]) -> Vec<(KeyHash, RecordKind)> {
    let mut keys: Vec<&Owned> = records.iter().collect();
    keys.dedup_by(|later, first| later.key == first.key);
    keys.into_iter()
        .map(|record| (record.hash, record.kind))
        .collect()
}

#[test]
fn keys_are_counted_from_the_column_where_values_are_large() {
    on_every_home(|fixture| {
        let hasher = &fixture.options.hasher;
        for (value_bytes, has_column) in [(400, true), (8, false)] {
            let mut records: Vec<Owned> = (0..3000u32)
                .map(|number| {
                    let key = number.to_be_bytes().to_vec();
                    let kind = RecordKind::Base;
                    Owned {
                        hash: hasher.hash(&key),
                        kind,
                        key,
                        part: vec![1; value_bytes],
                    }
                })
                .collect();
            records.sort_by(|a, b| (a.hash.place, &a.key).cmp(&(b.hash.place, &b.key)));
            let run = fixture.write(&records);
            // Where all places are equal, the column is so small that it is always worth it.
            if hasher.hash(b"a").place != hasher.hash(b"b").place {
                assert_eq!(run.has_hash_column(), has_column);
            }
            assert_eq!(hashes(&run, 0, u64::MAX), first_of_keys(&records));
        }
    });
}

#[test]
fn an_empty_run_is_empty() {
    on_every_home(|fixture| {
        let run = fixture.write(&[]);
        let run = fixture.store.open_run(run.id()).unwrap();
        assert_eq!((run.records(), run.keys()), (0, 0));
        assert!(all_of(&run, 0).is_empty());
        assert!(hashes(&run, 0, u64::MAX).is_empty());
        let hash = fixture.options.hasher.hash(b"key");
        assert!(run.seek_key(hash, b"key").unwrap().is_none());
        assert_eq!(run.bytes_between(0, u64::MAX).unwrap(), 0);
    });
}

#[test]
fn a_record_at_its_limits_comes_back_and_one_beyond_is_refused() {
    on_every_home(|fixture| {
        let mut records = Vec::new();
        for fill in [1u8, 2, 3] {
            let key = vec![fill; KEY_BYTES_MAX];
            let hash = fixture.options.hasher.hash(&key);
            let part = vec![fill; PART_BYTES_MAX];
            records.push(Owned {
                hash,
                kind: RecordKind::Base,
                key,
                part,
            });
        }
        records.sort_by(|a, b| (a.hash.place, &a.key).cmp(&(b.hash.place, &b.key)));
        assert!(all_of(&fixture.write(&records), 0) == records);
        let mut writer = fixture.store.begin(1, 10).unwrap();
        let mut record = records.remove(0);
        record.part.push(0);
        assert!(matches!(
            writer.push(&record.borrow()),
            Err(ColdError::TooLong { .. })
        ));
        record.part.pop();
        record.key.push(0);
        assert!(matches!(
            writer.push(&record.borrow()),
            Err(ColdError::TooLong { .. })
        ));
    });
}

#[test]
fn runs_are_listed_opened_and_removed() {
    for kind in HOMES {
        let fixture = Fixture::new(kind, 64);
        let mut rng = fastrand::Rng::with_seed(3);
        let records = random_records(&mut rng, &fixture.options.hasher, 50, 100);
        let ids: Vec<RunId> = (0..5).map(|_| fixture.write(&records).id()).collect();
        fixture.store.sync().unwrap();
        let fixture = fixture.reopen();
        let found = fixture.store.list().unwrap();
        assert_eq!(found.iter().map(|run| run.id).collect::<Vec<_>>(), ids);
        assert!(
            found
                .iter()
                .all(|run| run.summary.as_ref().unwrap().table == 5)
        );

        let run = fixture.store.open_run(ids[1]).unwrap();
        assert_eq!(run.bytes(), found[1].bytes);
        assert!(all_of(&run, 0) == records);
        fixture.store.remove(ids[0]).unwrap();
        fixture.store.remove(ids[0]).unwrap();
        let missing = fixture.store.open_run(ids[0]);
        assert!(matches!(missing, Err(ColdError::Missing { run }) if run == ids[0]));

        // A reader in flight finishes before the bytes go.
        let cursor = run.cursor(0, u64::MAX, 0).unwrap();
        run.remove_on_drop();
        drop(run);
        assert!(drain(cursor) == records);
        assert!(matches!(
            fixture.store.open_run(ids[1]),
            Err(ColdError::Missing { .. })
        ));
        let left: Vec<_> = fixture
            .store
            .list()
            .unwrap()
            .iter()
            .map(|run| run.id)
            .collect();
        assert_eq!(left, ids[2..]);
        assert!(fixture.write(&records).id() > ids[4]);
    }
}

#[test]
fn a_dropped_writer_leaves_no_trace() {
    on_every_home(|fixture| {
        let mut rng = fastrand::Rng::with_seed(4);
        let records = random_records(&mut rng, &fixture.options.hasher, 3000, 500);
        let mut writer = fixture.store.begin(1, 1000).unwrap();
        records
            .iter()
            .for_each(|record| writer.push(&record.borrow()).unwrap());
        let id = writer.id();
        drop(writer);
        assert!(fixture.store.list().unwrap().is_empty());
        assert!(matches!(
            fixture.store.open_run(id),
            Err(ColdError::Missing { .. })
        ));
        let left = std::fs::read_dir(fixture.dir.path().join("runs"));
        assert!(left.is_err() || left.unwrap().next().is_none());
    });
}

#[test]
fn a_long_value_is_streamed_from_a_seek() {
    on_every_home(|fixture| {
        let key = b"long".to_vec();
        let hash = fixture.options.hasher.hash(&key);
        let records: Vec<Owned> = (0..80u8)
            .map(|number| {
                let kind = if number == 0 {
                    RecordKind::Base
                } else {
                    RecordKind::Fragment
                };
                Owned {
                    hash,
                    kind,
                    key: key.clone(),
                    part: vec![number; PART_BYTES_MAX],
                }
            })
            .collect();
        let run = fixture.write(&records);
        assert_eq!((run.keys(), run.records()), (1, 80));
        let cursor = run.seek_key(hash, &key).unwrap().unwrap();
        assert!(drain(cursor) == records);
        assert_eq!(hashes(&run, 0, u64::MAX), [(hash, RecordKind::Base)]);
    });
}

#[test]
fn threads_read_a_run_while_it_is_merged_and_removed() {
    for kind in HOMES {
        let fixture = Fixture::new(kind, 64);
        let mut rng = fastrand::Rng::with_seed(6);
        let records = random_records(&mut rng, &fixture.options.hasher, 2000, 300);
        let run = fixture.write(&records);
        let plan = MergePlan {
            table: 5,
            kind: rhash_protocol::TableKind::Lists,
            places: 0..=u64::MAX,
            includes_oldest: false,
            claim: unlimited(),
            sync: false,
            read_ahead_bytes: 4096,
            note: Vec::new(),
            says_nothing_is_left: false,
        };
        std::thread::scope(|scope| {
            for offset in 0..3 {
                let (run, records) = (Arc::clone(&run), &records);
                scope.spawn(move || {
                    for record in records.iter().skip(offset * 7).step_by(5) {
                        let cursor = run.seek_key(record.hash, &record.key).unwrap().unwrap();
                        assert_eq!(cursor.head().unwrap().key, record.key);
                    }
                });
            }
            let inputs = [Arc::clone(&run)];
            let merged = fixture
                .store
                .merge(&inputs, &plan, &|_| true)
                .unwrap()
                .unwrap();
            run.remove_on_drop();
            merged.sync().unwrap();
            assert_eq!(merged.keys(), run.keys());
        });
        let id = run.id();
        drop(run);
        assert!(matches!(
            fixture.store.open_run(id),
            Err(ColdError::Missing { .. })
        ));
    }
}
