//! A look at one record says what the records say, or that it takes a cursor to know.

use std::collections::BTreeMap;

use super::*;
use crate::cold::memory_home::MemoryHome;

/// What a look may say of a key with these records, and whether it may leave it to a cursor.
fn agrees(said: Whole<'_>, records: &[Owned]) -> bool {
    match said {
        Whole::Unclear => true,
        Whole::Nothing => records.is_empty(),
        Whole::Value(value) => {
            matches!(records, [only] if only.kind == RecordKind::Base && only.part == value)
        }
        Whole::Deleted => matches!(records, [only] if only.kind == RecordKind::Tombstone),
    }
}

#[test]
fn a_look_says_what_the_records_say_or_leaves_it_to_a_cursor() {
    let seed = seed("a_look_says");
    for kind in HOMES {
        for place_bits in [64, 8, 0] {
            println!("{kind:?}, places of {place_bits} bits");
            let fixture = Fixture::new(kind, place_bits);
            let mut rng = fastrand::Rng::with_seed(seed);
            let hasher = &fixture.options.hasher;
            let records = random_records(&mut rng, hasher, 500, 3000);
            let run = fixture.write(&records);
            let mut of_key: BTreeMap<Vec<u8>, Vec<Owned>> = BTreeMap::new();
            for record in records {
                of_key.entry(record.key.clone()).or_default().push(record);
            }
            for number in 0..200u32 {
                of_key
                    .entry(format!("absent {number}").into_bytes())
                    .or_default();
            }
            let (mut block, mut settled) = (Vec::new(), 0);
            for (key, records) in &of_key {
                let hash = hasher.hash(key);
                let may_contain = run.glance(hash).may_contain();
                assert!(may_contain || records.is_empty(), "{key:?}");
                let said = run.look_whole(hash, key, &mut block).unwrap();
                assert!(agrees(said, records), "{key:?}: {said:?}, {records:?}");
                assert!(may_contain || said == Whole::Nothing, "{key:?}");
                let is_whole =
                    matches!(records.as_slice(), [only] if only.kind != RecordKind::Fragment);
                // Places that several keys share may go on in the next block.
                if place_bits == 64 && (is_whole || records.is_empty()) {
                    assert!(said != Whole::Unclear, "{key:?}");
                    settled += 1;
                }
            }
            assert!(place_bits < 64 || settled > 400, "{settled}");
        }
    }
}

#[test]
fn a_value_of_several_records_is_left_to_a_cursor_in_one_block_and_in_several() {
    let fixture = Fixture::new(HomeKind::Files, 64);
    for part_bytes in [10, PART_BYTES_MAX] {
        let key = b"key".to_vec();
        let hash = fixture.options.hasher.hash(&key);
        for first in [RecordKind::Base, RecordKind::Tombstone] {
            let record = |kind, part_bytes| Owned {
                hash,
                kind,
                key: key.clone(),
                part: vec![1; part_bytes],
            };
            let first_bytes = if first == RecordKind::Base {
                part_bytes
            } else {
                0
            };
            let records = [
                record(first, first_bytes),
                record(RecordKind::Fragment, part_bytes),
            ];
            let run = fixture.write(&records);
            let mut block = Vec::new();
            let said = run.look_whole(hash, &key, &mut block).unwrap();
            assert!(said == Whole::Unclear, "{first:?} of {part_bytes}");
        }
    }
}

/// The filters of all runs are asked before the first is looked into. Where an older one's are damaged,
/// a value in a newer one must be found all the same.
#[test]
fn filters_that_cannot_be_read_are_an_error_of_the_look_alone() {
    let home = Arc::new(MemoryHome::default());
    let options = ColdOptions::new(hasher(64));
    let as_home = Arc::clone(&home) as Arc<dyn home::Home>;
    let store = ColdStore::with_home(options.clone(), as_home);
    let key = b"key".to_vec();
    let hash = options.hasher.hash(&key);
    let record = Owned {
        hash,
        kind: RecordKind::Base,
        key: key.clone(),
        part: vec![7; 100],
    };
    let run = write(&store, std::slice::from_ref(&record));
    let mut block = Vec::new();
    let said = run.look_whole(hash, &key, &mut block).unwrap();
    assert!(said == Whole::Value(&record.part) && run.glance(hash).may_contain());
    let leaf = run.section(0).unwrap().leaf_start().unwrap() as usize;
    home.edit(run.id(), |bytes| bytes[leaf] ^= 1);
    let run = store.open_run(run.id()).unwrap();
    assert!(matches!(run.glance(hash), Glance::Unclear));
    let looked = run.look_whole(hash, &key, &mut block);
    assert!(
        matches!(looked, Err(ColdError::Damaged { .. })),
        "{looked:?}"
    );
}
