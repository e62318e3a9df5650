//! Folding and merging, against a model in a map.

use std::collections::BTreeMap;

use rhash_protocol::TableKind;

use super::*;

/// What a key has after all runs up to one: a value, or none.
type Model = BTreeMap<Vec<u8>, Vec<u8>>;

const KINDS: [TableKind; 3] = [TableKind::Values, TableKind::Lists, TableKind::Counters];

/// Random records of a run whose keys are few, so that runs meet in them; and the model after it.
fn random_run(
    rng: &mut fastrand::Rng,
    hasher: &KeyHasher,
    kind: TableKind,
    model: &mut Model,
) -> Vec<Owned> {
    let mut names: Vec<Vec<u8>> = (0..60)
        .filter(|_| rng.u32(..3) == 0)
        .map(|number| format!("k{number}").into())
        .collect();
    names.sort_by_key(|name| (hasher.hash(name).place, name.clone()));
    let mut records = Vec::new();
    for key in names {
        let hash = hasher.hash(&key);
        let first = match (rng.u32(..5), kind) {
            (0, _) => RecordKind::Tombstone,
            (1 | 2, _) | (_, TableKind::Values) => RecordKind::Base,
            _ => RecordKind::Fragment,
        };
        let more = match (first, kind) {
            (RecordKind::Tombstone, TableKind::Values) => 0,
            _ if rng.u32(..3) == 0 => rng.usize(..5),
            _ => 0,
        };
        for number in 0..=more {
            let record_kind = if number == 0 {
                first
            } else {
                RecordKind::Fragment
            };
            let part = match (record_kind, kind) {
                (RecordKind::Tombstone, _) => Vec::new(),
                (_, TableKind::Counters) => rng.u64(..).to_le_bytes().to_vec(),
                _ => random_part(rng, 40_000),
            };
            apply(model, kind, record_kind, &key, &part);
            records.push(Owned {
                hash,
                kind: record_kind,
                key: key.clone(),
                part,
            });
        }
    }
    records
}

fn apply(model: &mut Model, kind: TableKind, record: RecordKind, key: &[u8], part: &[u8]) {
    if record != RecordKind::Fragment {
        model.remove(key);
    }
    if record == RecordKind::Tombstone {
        return;
    }
    let value = model.entry(key.to_vec()).or_default();
    if kind == TableKind::Counters {
        let number = |bytes: &[u8]| bytes.try_into().map_or(0, i64::from_le_bytes);
        *value = number(value)
            .wrapping_add(number(part))
            .to_le_bytes()
            .to_vec();
    } else {
        value.extend_from_slice(part);
    }
}

/// The live entries of runs, newest first, as a fold has them.
fn fold(runs: &[Arc<Run>], kind: TableKind) -> Model {
    let sources: Vec<BoxedSource> = runs
        .iter()
        .map(|run| Box::new(run.cursor(0, u64::MAX, 4000).unwrap()) as BoxedSource)
        .collect();
    let mut fold = Fold::new(sources, kind);
    let mut model = Model::new();
    while let Some(folded) = fold.next_key().unwrap() {
        if folded.deleted {
            assert!(folded.based && fold.next_part().unwrap().is_none());
            continue;
        }
        let mut value = Vec::new();
        while let Some(part) = fold.next_part().unwrap() {
            value.extend_from_slice(part);
        }
        assert!(
            model.insert(fold.key().to_vec(), value).is_none(),
            "a key comes once"
        );
    }
    model
}

fn plan(kind: TableKind, includes_oldest: bool) -> MergePlan {
    MergePlan {
        table: 5,
        kind,
        places: 0..=u64::MAX,
        includes_oldest,
        claim: unlimited(),
        sync: false,
        read_ahead_bytes: 8192,
        note: Vec::new(),
        says_nothing_is_left: false,
    }
}

#[test]
fn merges_keep_every_value() {
    let seed = seed("merges_keep");
    for home in [HomeKind::Files, HomeKind::Sled, HomeKind::Memory] {
        for (round, kind) in (0..8).flat_map(|round| KINDS.map(|kind| (round, kind))) {
            let place_bits = [64, 4, 0][round % 3];
            let mut rng = fastrand::Rng::with_seed(seed.wrapping_add(round as u64));
            let fixture = Fixture::new(home, place_bits);
            let mut model = Model::new();
            // Newest first.
            let mut runs: Vec<Arc<Run>> = Vec::new();
            for _ in 0..7 {
                let records = random_run(&mut rng, &fixture.options.hasher, kind, &mut model);
                runs.insert(0, fixture.write(&records));
                assert!(
                    fold(&runs, kind) == model,
                    "{home:?} {kind:?} round {round}"
                );
                let newest = rng.usize(..runs.len());
                let count = rng.usize(1..=runs.len() - newest);
                let plan = plan(kind, newest + count == runs.len());
                let inputs = runs[newest..newest + count].to_vec();
                let merged = fixture.store.merge(&inputs, &plan, &|_| true).unwrap();
                if let Some(merged) = &merged {
                    check_merged(merged, plan.includes_oldest);
                }
                inputs.iter().for_each(|run| run.remove_on_drop());
                runs.splice(newest..newest + count, merged);
                drop(inputs);
                assert!(
                    fold(&runs, kind) == model,
                    "{home:?} {kind:?} round {round}, merged"
                );
                assert_eq!(fixture.store.list().unwrap().len(), runs.len());
            }
        }
    }
}

fn check_merged(run: &Arc<Run>, includes_oldest: bool) {
    let records = all_of(run, 0);
    let mut last: Option<&Owned> = None;
    for record in &records {
        let continues = last.is_some_and(|last| last.key == record.key);
        let full = last.is_none_or(|last| last.part.len() == PART_BYTES_MAX);
        assert!(!continues || full, "parts are gathered");
        if includes_oldest {
            assert_eq!(
                record.kind == RecordKind::Base,
                !continues,
                "only bases are left"
            );
        }
        last = Some(record);
    }
}

#[test]
fn a_merge_of_some_places_leaves_the_others_alone() {
    let seed = seed("a_merge_of_some_places");
    let mut rng = fastrand::Rng::with_seed(seed);
    for kind in KINDS {
        let fixture = Fixture::new(HomeKind::Memory, 64);
        let mut model = Model::new();
        let hasher = &fixture.options.hasher;
        let mut runs = Vec::new();
        for _ in 0..4 {
            runs.insert(
                0,
                fixture.write(&random_run(&mut rng, hasher, kind, &mut model)),
            );
        }
        let middle = rng.u64(..);
        let mut halves = Model::new();
        for places in [0..=middle, middle + 1..=u64::MAX] {
            let plan = MergePlan {
                places: places.clone(),
                ..plan(kind, true)
            };
            let merged = fixture.store.merge(&runs, &plan, &|_| true).unwrap();
            if let Some(run) = &merged {
                assert!(places.contains(&run.first_place()) && places.contains(&run.last_place()));
            }
            halves.extend(fold(merged.as_slice(), kind));
        }
        assert!(halves == model);
    }
}

#[test]
fn next_key_skips_parts_that_were_not_taken() {
    let fixture = Fixture::new(HomeKind::Memory, 4);
    let mut rng = fastrand::Rng::with_seed(seed("next_key_skips"));
    let mut model = Model::new();
    let mut runs = Vec::new();
    for _ in 0..5 {
        let hasher = &fixture.options.hasher;
        let records = random_run(&mut rng, hasher, TableKind::Lists, &mut model);
        runs.insert(0, fixture.write(&records));
    }
    let sources = runs
        .iter()
        .map(|run| Box::new(run.cursor(0, u64::MAX, 0).unwrap()) as BoxedSource)
        .collect();
    let mut fold = Fold::new(sources, TableKind::Lists);
    let mut keys = Vec::new();
    while let Some(folded) = fold.next_key().unwrap() {
        if !folded.deleted {
            keys.push(fold.key().to_vec());
        }
        for _ in 0..rng.usize(..3) {
            let _part = fold.next_part().unwrap();
        }
    }
    let place = |key: &Vec<u8>| (fixture.options.hasher.hash(key).place, key.clone());
    assert!(keys.is_sorted_by_key(place));
    keys.sort();
    assert_eq!(keys, model.into_keys().collect::<Vec<_>>());
}

#[test]
fn a_merge_in_which_all_is_deleted_makes_no_run() {
    let fixture = Fixture::new(HomeKind::Files, 64);
    let key = b"gone".to_vec();
    let hash = fixture.options.hasher.hash(&key);
    let record = |kind, part: &[u8]| Owned {
        hash,
        kind,
        key: key.clone(),
        part: part.to_vec(),
    };
    let old = fixture.write(&[record(RecordKind::Base, b"value")]);
    let new = fixture.write(&[record(RecordKind::Tombstone, b"")]);
    let inputs = [new, old];
    let oldest = fixture
        .store
        .merge(&inputs, &plan(TableKind::Values, true), &|_| true)
        .unwrap();
    assert!(oldest.is_none());
    let partial = fixture
        .store
        .merge(&inputs, &plan(TableKind::Values, false), &|_| true);
    let partial = partial.unwrap().unwrap();
    assert_eq!(all_of(&partial, 0), [record(RecordKind::Tombstone, b"")]);
}

#[test]
fn a_fragment_that_is_empty_still_makes_its_key() {
    let fixture = Fixture::new(HomeKind::Memory, 64);
    let key = b"empty".to_vec();
    let hash = fixture.options.hasher.hash(&key);
    let record = |kind| Owned {
        hash,
        kind,
        key: key.clone(),
        part: Vec::new(),
    };
    let inputs = [
        fixture.write(&[record(RecordKind::Fragment)]),
        fixture.write(&[record(RecordKind::Fragment)]),
    ];
    for (includes_oldest, kind) in [(false, RecordKind::Fragment), (true, RecordKind::Base)] {
        let plan = plan(TableKind::Lists, includes_oldest);
        let merged = fixture
            .store
            .merge(&inputs, &plan, &|_| true)
            .unwrap()
            .unwrap();
        assert_eq!(all_of(&merged, 0), [record(kind)]);
    }
}

#[test]
fn a_counter_that_is_none_is_an_error() {
    let fixture = Fixture::new(HomeKind::Memory, 64);
    let key = b"counter".to_vec();
    let hash = fixture.options.hasher.hash(&key);
    let run = fixture.write(&[Owned {
        hash,
        kind: RecordKind::Base,
        key,
        part: vec![1; 7],
    }]);
    let merged = fixture
        .store
        .merge(&[run], &plan(TableKind::Counters, true), &|_| true);
    assert!(matches!(merged, Err(ColdError::NotACounter { bytes: 7 })));
}

#[test]
fn a_cancelled_merge_leaves_no_trace() {
    for home in HOMES {
        let fixture = Fixture::new(home, 64);
        let mut rng = fastrand::Rng::with_seed(8);
        let records = random_records(&mut rng, &fixture.options.hasher, 5000, 500);
        let run = fixture.write(&records);
        let calls = std::cell::Cell::new(0);
        let goes_on = |_| {
            calls.set(calls.get() + 1);
            calls.get() < 2
        };
        let merged = fixture
            .store
            .merge(&[run], &plan(TableKind::Lists, true), &goes_on);
        assert!(matches!(merged, Err(ColdError::Cancelled)));
        assert_eq!(fixture.store.list().unwrap().len(), 1);
    }
}
