//! Tests of the cache without a server.

use std::time::Duration;

use super::*;

const SLOT: Slot = 7;

fn cache(bytes_max: usize) -> Cache {
    let cache = Cache::new(CacheLimits {
        bytes_max,
        items_max: None,
        flush_bytes: bytes_max / 2,
        flush_interval: Duration::from_secs(60),
        op_bytes_max: 1000,
    });
    cache.open(SLOT, true);
    cache
}

fn key(name: &str) -> Vec<u8> {
    let mut key = SLOT.to_le_bytes().to_vec();
    key.extend_from_slice(name.as_bytes());
    key
}

fn put(value: &'static str) -> CachedOp {
    CachedOp::Put(Bytes::from_static(value.as_bytes()))
}

fn value(cache: &Cache, name: &str) -> Option<Option<Bytes>> {
    match cache.look(SLOT, &key(name)) {
        Look::Value(value) => Some(value),
        Look::Fragments | Look::Miss(_) => None,
    }
}

fn mark(cache: &Cache, name: &str) -> ReadMark {
    match cache.look(SLOT, &key(name)) {
        Look::Miss(mark) => mark,
        other => panic!("{other:?}"),
    }
}

fn write(cache: &Cache, name: &str, op: CachedOp) {
    let written = cache.write(SLOT, &key(name), op);
    assert!(
        matches!(written, Written::Cached | Written::FlushNow),
        "{written:?}"
    );
}

#[test]
fn an_answer_that_came_to_be_old_is_not_kept() {
    let cache = cache(100_000);
    let old = Some(Bytes::from_static(b"old"));
    let read = mark(&cache, "k");
    write(&cache, "k", put("new"));
    let batch = cache.take_batch(SLOT).unwrap();
    cache.settle(SLOT, batch.number, &batch.keys);
    cache.install(SLOT, key("k").into(), old.clone(), read);
    assert_eq!(value(&cache, "k"), Some(Some(Bytes::from_static(b"new"))));

    let read = mark(&cache, "l");
    cache.forget_clean(SLOT);
    cache.install(SLOT, key("l").into(), old.clone(), read);
    assert_eq!(value(&cache, "l"), None, "the table was cleared meanwhile");

    let read = mark(&cache, "m");
    cache.set_sole(SLOT, false);
    cache.set_sole(SLOT, true);
    cache.install(SLOT, key("m").into(), old.clone(), read);
    assert_eq!(
        value(&cache, "m"),
        None,
        "somebody else was there meanwhile"
    );

    let read = mark(&cache, "n");
    cache.install(SLOT, key("n").into(), old.clone(), read);
    assert_eq!(value(&cache, "n"), Some(old));
}

/// A read that begins between a conditional write's sending and its answer may have been answered
/// from before it.
#[test]
fn a_read_during_a_conditional_write_is_not_kept() {
    let cache = cache(100_000);
    let (old, new) = (
        Some(Bytes::from_static(b"old")),
        Some(Bytes::from_static(b"new")),
    );
    let begun = cache.touch(SLOT, &key("k"));
    let read = mark(&cache, "k");
    cache.install_written(SLOT, key("k").into(), new.clone(), begun);
    cache.install(SLOT, key("k").into(), old.clone(), read);
    assert_eq!(value(&cache, "k"), Some(new.clone()));

    let first = cache.touch(SLOT, &key("k"));
    let second = cache.touch(SLOT, &key("k"));
    cache.install_written(SLOT, key("k").into(), old, second);
    assert_eq!(
        value(&cache, "k").flatten(),
        Some(Bytes::from_static(b"old"))
    );
    cache.install_written(SLOT, key("k").into(), new, first);
    assert_eq!(
        value(&cache, "k"),
        None,
        "two writes at once: nobody knows which came last"
    );
}

#[test]
fn a_key_is_in_one_batch_at_a_time_and_a_failed_one_goes_before_later_writes() {
    let cache = cache(100_000);
    write(&cache, "k", CachedOp::Append(b"1".to_vec()));
    let first = cache.take_batch(SLOT).unwrap();
    write(&cache, "k", CachedOp::Append(b"2".to_vec()));
    write(&cache, "l", put("x"));
    let second = cache.take_batch(SLOT).unwrap();
    assert_eq!(second.keys.len(), 1, "only the other key");
    assert!(cache.take_batch(SLOT).is_none());
    assert!(cache.take_one(SLOT, &key("k")).is_none());
    cache.restore(SLOT, &first, None);
    let both = cache.take_one(SLOT, &key("k")).unwrap();
    let mut expected = Vec::new();
    CachedOp::Append(b"12".to_vec()).push(b"k", 1000, &mut expected);
    assert_eq!(both.packed, expected);
    let stamp = cache.stamp_last();
    cache.settle(SLOT, second.number, &second.keys);
    assert!(!cache.settled_up_to(SLOT, stamp));
    cache.settle(SLOT, both.number, &both.keys);
    assert!(cache.settled_up_to(SLOT, stamp));
}

#[test]
fn the_account_returns_to_nothing() {
    let mut rng = fastrand::Rng::with_seed(1);
    let cache = cache(6000);
    let mut flying = Vec::new();
    for _ in 0..20_000 {
        let name = rng.u8(..50).to_string();
        match rng.u8(..12) {
            0..6 => {
                let bytes = vec![0; rng.usize(..60)];
                let op = match rng.u8(..3) {
                    0 => CachedOp::Put(bytes.into()),
                    1 => CachedOp::Append(bytes),
                    _ => CachedOp::Discard,
                };
                drop(cache.write(SLOT, &key(&name), op));
            }
            6 => flying.extend(cache.take_batch(SLOT)),
            7 => flying.extend(cache.take_one(SLOT, &key(&name))),
            8 if !flying.is_empty() => {
                let batch = flying.swap_remove(rng.usize(..flying.len()));
                cache.settle(SLOT, batch.number, &batch.keys);
            }
            9 if !flying.is_empty() => {
                let batch = flying.swap_remove(rng.usize(..flying.len()));
                cache.restore(SLOT, &batch, None);
            }
            10 => drop(cache.touch(SLOT, &key(&name))),
            _ => {
                if let Look::Miss(mark) = cache.look(SLOT, &key(&name)) {
                    cache.install(SLOT, key(&name).into(), None, mark);
                }
            }
        }
        // Fragments restored before later ones may go over by the size of a batch.
        assert!(cache.bytes() <= 2 * 6000, "{}", cache.bytes());
    }
    for batch in flying {
        cache.settle(SLOT, batch.number, &batch.keys);
    }
    while let Some(batch) = cache.take_batch(SLOT) {
        cache.settle(SLOT, batch.number, &batch.keys);
    }
    for name in 0..50u8 {
        let _mark = cache.touch(SLOT, &key(&name.to_string()));
    }
    assert_eq!((cache.bytes(), cache.items()), (0, 0));
}

#[test]
fn the_flusher_is_sent_to_tables_by_age_and_by_fill_but_not_to_those_that_refuse() {
    let cache = cache(6000);
    let now = Instant::now();
    assert_eq!(cache.next_due(now), Due::Later(None));
    write(&cache, "k", put("v"));
    assert!(matches!(cache.next_due(now), Due::Later(Some(_))));
    assert_eq!(
        cache.next_due(now + Duration::from_secs(61)),
        Due::Table(SLOT),
        "by age"
    );
    for name in 0..20 {
        write(&cache, &name.to_string(), put("v"));
    }
    assert_eq!(cache.next_due(now), Due::Table(SLOT), "by fill");
    let batch = cache.take_batch(SLOT).unwrap();
    assert_eq!(cache.next_due(now), Due::Later(None), "all is in flight");
    let retry = now + Duration::from_secs(5);
    cache.restore(SLOT, &batch, Some(retry));
    assert_eq!(
        cache.next_due(now),
        Due::Later(Some(retry)),
        "refused: later"
    );
    assert_eq!(cache.next_due(retry), Due::Table(SLOT));
}

#[test]
fn a_closed_table_names_what_it_loses() {
    let cache = cache(6000);
    write(&cache, "k", put("v"));
    write(&cache, "l", CachedOp::Add(1));
    let mut keys = cache.close(SLOT).first().to_vec();
    keys.sort();
    assert_eq!(keys, [b"k".to_vec(), b"l".to_vec()]);
    assert_eq!(cache.bytes(), 0);
    assert!(matches!(cache.look(SLOT, &key("k")), Look::Miss(_)));
    assert!(matches!(
        cache.write(SLOT, &key("k"), put("v")),
        Written::TooLarge(_)
    ));
}

#[test]
fn a_pass_over_many_keys_pushes_nothing_out_and_what_comes_again_is_kept() {
    let cache = cache(40_000);
    let value = vec![7; 100];
    let key =
        |number: u32| Arc::<[u8]>::from([&SLOT.to_le_bytes()[..], &number.to_le_bytes()].concat());
    let mut kept = 0;
    for number in 0..10_000 {
        let key = key(number);
        if !cache.admits(&key, value.len()) {
            continue;
        }
        kept += 1;
        let Look::Miss(mark) = cache.look(SLOT, &key) else {
            panic!("nothing was written")
        };
        cache.install(SLOT, key, Some(value.clone().into()), mark);
    }
    assert!((100..400).contains(&kept), "{kept} fit");
    let in_use = |number| matches!(cache.look(SLOT, &key(number)), Look::Value(_));
    assert!((0..kept).all(in_use), "the first ones are there still");
    assert!(cache.admits(&key(9_999), value.len()), "it was read before");
    assert!(!cache.admits(&key(10_000), value.len()));
}
