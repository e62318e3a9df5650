//! The hot map against a map, and what freezing takes and leaves.

use std::{collections::BTreeMap, sync::Arc};

use fastrand::Rng;

use super::*;
use crate::{cold::RecordSource as _, key_hash::KeyHasher};

fn hasher() -> KeyHasher {
    KeyHasher::new(&[7; 16])
}

fn value_of(map: &HotMap, place: u64, key: &[u8]) -> Option<Vec<u8>> {
    let entry = map.get(place, key)?;
    let mut bytes = Vec::new();
    entry.value.copy_to(&mut bytes);
    (entry.header.state != State::Tombstone).then_some(bytes)
}

/// The sum of what the buckets say, which the running account must equal.
fn counted_bytes(map: &HotMap) -> usize {
    map.fixed_bytes()
        + map
            .buckets
            .iter()
            .map(Bucket::footprint_bytes)
            .sum::<usize>()
}

#[test]
fn a_hot_map_agrees_with_a_map_while_it_splits_and_collects_garbage() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = Rng::with_seed(seed);
    let hasher = hasher();
    let mut map = HotMap::new();
    let mut model = BTreeMap::<Vec<u8>, Vec<u8>>::new();
    for _ in 0..60_000 {
        let key = format!("key {}", rng.u32(..8000)).into_bytes();
        let place = hasher.hash(&key).place;
        let length = if rng.u8(..) == 0 {
            rng.usize(..5000)
        } else {
            rng.usize(..60)
        };
        let value = vec![rng.u8(..); length];
        match rng.u8(..8) {
            0..4 => {
                map.put(place, &key, &value).expect("room");
                model.insert(key, value);
            }
            4 | 5 => {
                map.append(place, &key, &value, CleanBase::MayGo)
                    .expect("room");
                model.entry(key).or_default().extend_from_slice(&value);
            }
            6 => {
                map.forget(place, &key);
                model.remove(&key);
            }
            _ => assert_eq!(value_of(&map, place, &key), model.get(&key).cloned()),
        }
    }
    assert!(map.depth > 1, "it has split");
    assert_eq!(map.len(), model.len());
    assert_eq!(map.footprint_bytes(), counted_bytes(&map));
    for (key, value) in &model {
        assert_eq!(
            value_of(&map, hasher.hash(key).place, key).as_ref(),
            Some(value)
        );
    }
}

#[test]
fn sweeping_takes_every_dirty_entry_once_in_order_and_leaves_what_was_read() {
    let hasher = hasher();
    let mut map = HotMap::new();
    let keys: Vec<Vec<u8>> = (0..20_000u32)
        .map(|number| number.to_le_bytes().to_vec())
        .collect();
    for key in &keys {
        map.put(hasher.hash(key).place, key, b"some value")
            .expect("room");
    }
    for key in keys.iter().step_by(100) {
        map.touch(hasher.hash(key).place, key);
    }
    let before = map.footprint_bytes();
    let mut taken = 0;
    let mut last = None;
    for _ in 0..4 {
        let swept = map.sweep(before / 4, u64::MAX, Sweep::Spare);
        let frozen = Arc::new(swept.frozen.expect("something to take"));
        let mut source = FrozenSource::dirty(Arc::clone(&frozen), hasher.clone());
        while let Some(head) = source.head() {
            let position = Some((head.hash.place, head.key.to_vec()));
            assert!(position > last, "in order");
            assert!(frozen.covers(head.hash.place));
            assert_eq!(head.part, b"some value");
            last = position;
            taken += 1;
            source.advance().expect("no disk is read");
        }
    }
    assert_eq!(taken + map.len(), keys.len());
    let read = keys.len() / 100;
    assert!(map.len() >= read, "what was read stays");
    assert!(
        keys.iter()
            .step_by(100)
            .all(|key| map.get(hasher.hash(key).place, key).is_some())
    );
    assert_eq!(map.footprint_bytes(), counted_bytes(&map));
    // What is not read again goes once it ages.
    while map.len() > 0 {
        drop(map.sweep(usize::MAX, u64::MAX, Sweep::Age));
    }
    assert_eq!(map.used_bytes(), 0);
}

#[test]
fn what_is_in_use_is_counted_to_the_byte() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = Rng::with_seed(seed);
    let hasher = hasher();
    let mut map = HotMap::new();
    for step in 0..60_000 {
        let key = rng.u16(..4000).to_le_bytes();
        let place = hasher.hash(&key).place;
        let length = if rng.u8(..) == 0 { 5000 } else { 60 };
        let value = vec![1; rng.usize(..length)];
        match rng.u8(..10) {
            0..3 => map.put(place, &key, &value).expect("room"),
            3 => map
                .append(place, &key, &value, CleanBase::MayGo)
                .expect("room"),
            4 => map
                .promote(place, &key, Some(&value), Dirt::Clean, Origin::Reads)
                .expect("room"),
            5 => map.forget(place, &key),
            6 if step % 50 == 0 => {
                let sweep = SWEEPS[rng.usize(..SWEEPS.len())];
                drop(map.sweep(rng.usize(..100_000), u64::MAX, sweep));
            }
            _ => map.touch(place, &key),
        }
    }
    let counted: usize = map.buckets.iter().map(Bucket::count_used_bytes).sum();
    assert!(counted > 0);
    assert_eq!(map.used_bytes(), counted);
    assert_eq!(map.footprint_bytes(), counted_bytes(&map));
    let entries: usize = map.buckets.iter().map(Bucket::len).sum();
    assert_eq!(map.len(), entries);
}

#[test]
fn a_stream_of_writes_passes_by_what_was_read() {
    let hasher = hasher();
    let mut map = HotMap::new();
    let key = |number: u32| number.to_le_bytes();
    for number in 0..2000 {
        let place = hasher.hash(&key(number)).place;
        map.put(place, &key(number), &[0; 50]).expect("room");
        map.touch(place, &key(number));
    }
    for number in 2000..40_000 {
        map.put(hasher.hash(&key(number)).place, &key(number), &[0; 50])
            .expect("room");
        if number % 4000 == 0 {
            while !map.sweep(100_000, u64::MAX, Sweep::Spare).ends {}
        }
    }
    let hot = (0..2000).filter(|&number| {
        map.get(hasher.hash(&key(number)).place, &key(number))
            .is_some()
    });
    assert_eq!(hot.count(), 2000);
    assert!(map.len() < 8000, "{} entries", map.len());
}

#[test]
fn of_more_than_may_stay_the_most_used_stay() {
    let hasher = hasher();
    let mut map = HotMap::new();
    let key = |number: u32| number.to_le_bytes();
    for number in 0..20_000 {
        let place = hasher.hash(&key(number)).place;
        map.put(place, &key(number), &[0; 50]).expect("room");
        for _ in 0..1 + number % 3 {
            map.touch(place, &key(number));
        }
    }
    while !map.sweep(100_000, u64::MAX, Sweep::Age).ends {}
    let stayed = |uses: u32| {
        let is_hot = |number: &u32| {
            map.get(hasher.hash(&key(*number)).place, &key(*number))
                .is_some()
        };
        (0..20_000)
            .filter(|number| 1 + number % 3 == uses)
            .filter(is_hot)
            .count()
    };
    let (once, twice, thrice) = (stayed(1), stayed(2), stayed(3));
    println!("{once} read once, {twice} twice, {thrice} three times");
    assert_eq!(once, 0);
    assert!(twice > 100 && twice < 6000);
    assert!(thrice > 6600);
}

#[test]
fn a_small_entry_takes_at_most_thirty_three_bytes_beyond_its_payload() {
    let hasher = hasher();
    let mut map = HotMap::new();
    let entries = 300_000u64;
    let mut worst = 0.0f64;
    for number in 0..entries {
        let mut key = [0; 16];
        key[..8].copy_from_slice(&number.to_le_bytes());
        map.put(hasher.hash(&key).place, &key, &[1; 100])
            .expect("room");
        // All buckets split at about the same time, and are half full then.
        if number >= 100_000 && number % 10_000 == 0 {
            let beyond = map.footprint_bytes() as f64 / number as f64 - 116.0;
            worst = worst.max(beyond);
        }
    }
    println!("at most {worst:.1} bytes beyond the payload");
    assert!(worst <= 33.0, "{worst:.1}");
}

#[test]
fn an_append_to_a_long_clean_list_keeps_only_what_is_new_unless_it_must_stay() {
    for (clean_base, kept) in [(CleanBase::MayGo, 3), (CleanBase::Stays, 1003)] {
        let mut map = HotMap::new();
        map.promote(1, b"k", Some(&[9; 1000]), Dirt::Clean, Origin::Reads)
            .expect("room");
        map.append(1, b"k", b"new", clean_base).expect("room");
        let entry = map.get(1, b"k").expect("an entry");
        assert_eq!(entry.value.len(), kept);
        assert!(!entry.header.clean);
    }
}

#[test]
fn a_snapshot_ends_where_it_was_cut() {
    let hasher = hasher();
    let mut map = HotMap::new();
    for number in 0..5000u32 {
        let key = number.to_le_bytes();
        map.put(hasher.hash(&key).place, &key, &[0; 96])
            .expect("room");
    }
    let (mut from, mut after): (u64, Option<Vec<u8>>) = (0, None);
    let mut seen = 0;
    loop {
        let snapshot = map.snapshot(from, after.as_deref(), 10_000);
        seen += snapshot.len();
        match snapshot.last_key() {
            Some(key) => {
                assert_eq!(snapshot.len(), 100);
                (from, after) = (snapshot.last(), Some(key.to_vec()));
            }
            None => break,
        }
    }
    assert_eq!(seen, 5000);
}

/// Fragments that leave take the garbage along that their growth left, which once was more than the copy has.
#[test]
fn a_checkpoint_copies_what_is_dirty_once_and_leaves_whole_values_clean() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = Rng::with_seed(seed);
    let hasher = hasher();
    let mut map = HotMap::new();
    map.set_logged();
    let mut bases = 0;
    for number in 0..3000u32 {
        let key = number.to_le_bytes();
        let place = hasher.hash(&key).place;
        if number % 3 == 0 {
            map.put(place, &key, b"value").expect("room");
            bases += 1;
        } else {
            for _ in 0..rng.usize(1..20) {
                let bytes = vec![7; rng.usize(1..150)];
                map.append(place, &key, &bytes, CleanBase::MayGo)
                    .expect("room");
            }
        }
    }
    for written in [3000, 0] {
        let (mut copied, mut ends) = (0, false);
        map.set_hand(0);
        while !ends {
            let swept = map.sweep(64 * 1024, u64::MAX, Sweep::Checkpoint);
            ends = swept.ends;
            if let Some(frozen) = swept.frozen {
                assert!(frozen.live_bytes() <= frozen.footprint_bytes());
                copied += frozen.len();
            }
        }
        assert_eq!((copied, map.len()), (written, bases));
        assert_eq!(map.footprint_bytes(), counted_bytes(&map));
    }
}
