//! Random operations on a remote table and on a `HashMap`, compared after each.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests; the lint's exception is for #[test] only"
)]

use std::{collections::HashMap, fmt::Debug};

use fastrand::Rng;
use rhash_client::{BincodeCodec, Client, Counter, EncodeAs, List, RemoteHash, Stored, Swap};

type Codec = BincodeCodec;

/// What a run is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    pub(crate) steps: usize,
    /// How many keys there are: few, so that operations meet.
    pub(crate) keys: u16,
    /// Long values are at most this long.
    pub(crate) value_bytes: usize,
    /// How many of a hundred values are long.
    pub(crate) long_percent: u8,
}

/// Entries of one bulk write.
const BULK_MAX: u16 = 10;

/// Tables of the three kinds, one after the other, each through `steps` operations; `disturb` is
/// called before each operation.
pub(crate) async fn run(client: &Client, seed: u64, run: Run, mut disturb: impl FnMut(&mut Rng)) {
    let mut rng = Rng::with_seed(seed);
    let name = |kind: &str| format!("model {kind} {seed}");
    let values: RemoteHash<u16, Vec<u8>> = client.table(name("values")).open().await.unwrap();
    let mut model = HashMap::new();
    for _ in 0..run.steps {
        disturb(&mut rng);
        common(&values, &mut model, &mut rng, run, |rng| bytes(rng, run)).await;
    }
    check_all(&values, &model).await;
    values.close().await.unwrap();

    let lists: RemoteHash<u16, List<u8>> = client.table(name("lists")).open().await.unwrap();
    let mut model = HashMap::new();
    for _ in 0..run.steps {
        disturb(&mut rng);
        if rng.bool() {
            list_step(&lists, &mut model, &mut rng, run).await;
        } else {
            common(&lists, &mut model, &mut rng, run, |rng| bytes(rng, run)).await;
        }
    }
    check_all(&lists, &model).await;
    lists.close().await.unwrap();

    let counters: RemoteHash<u16, Counter> = client.temporary().open().await.unwrap();
    let mut model = HashMap::new();
    for _ in 0..run.steps {
        disturb(&mut rng);
        if rng.bool() {
            counter_step(&counters, &mut model, &mut rng, run).await;
        } else {
            common(&counters, &mut model, &mut rng, run, |rng| rng.i64(-9..9)).await;
        }
    }
    check_all(&counters, &model).await;
    counters.detach().await.unwrap();
}

fn bytes(rng: &mut Rng, run: Run) -> Vec<u8> {
    const SHORT_BYTES: usize = 30;
    let is_long = rng.u8(..100) < run.long_percent;
    let length = rng.usize(
        ..=if is_long {
            run.value_bytes
        } else {
            SHORT_BYTES
        },
    );
    vec![rng.u8(..); length]
}

/// One operation that every kind of table has.
async fn common<V: Stored<Codec>>(
    table: &RemoteHash<u16, V>,
    model: &mut HashMap<u16, V::Read>,
    rng: &mut Rng,
    run: Run,
    mut value: impl FnMut(&mut Rng) -> V::Read,
) where
    V::Read: Clone + Debug + PartialEq,
    for<'a> &'a V::Read: EncodeAs<V, Codec>,
{
    let key = rng.u16(..run.keys);
    let new = value(rng);
    match rng.u8(..100) {
        0..25 => {
            table.insert(key, &new).await.unwrap();
            model.insert(key, new);
        }
        25..35 => {
            table.discard(key).await.unwrap();
            model.remove(&key);
        }
        35..60 => assert_eq!(table.get(key).await.unwrap().as_ref(), model.get(&key)),
        60..65 => {
            let keys: Vec<u16> = (0..rng.u16(..20)).map(|_| rng.u16(..run.keys)).collect();
            let expected: Vec<_> = keys.iter().map(|key| model.get(key).cloned()).collect();
            assert_eq!(table.get_many(&keys).await.unwrap(), expected);
        }
        65..70 => assert_eq!(
            table.contains_key(key).await.unwrap(),
            model.contains_key(&key)
        ),
        70..75 => assert_eq!(table.remove(key).await.unwrap(), model.remove(&key)),
        75..79 => {
            let old = table.replace(key, &new).await.unwrap();
            assert_eq!(old, model.get(&key).cloned());
            model.entry(key).and_modify(|value| *value = new);
        }
        79..83 => {
            let there = table.get_or_insert(key, &new).await.unwrap();
            assert_eq!(&there, model.entry(key).or_insert(new));
        }
        83..89 => swap(table, model, rng, key, new).await,
        89..91 => assert_eq!(table.len().await.unwrap(), model.len() as u64),
        91..92 => assert_eq!(table.is_empty().await.unwrap(), model.is_empty()),
        92..95 => table.flush().await.unwrap(),
        95..97 => {
            let mut bulk = table.bulk();
            for key in 0..rng.u16(..BULK_MAX) {
                bulk.insert(key, &new).unwrap();
                model.insert(key, new.clone());
                if bulk.is_full() {
                    bulk.send().await.unwrap();
                }
            }
            bulk.finish().await.unwrap();
        }
        97..98 => {
            let parity = rng.u16(..2);
            let before = model.len();
            model.retain(|key, _| key % 2 == parity);
            let removed = table.retain(|key, _| key % 2 == parity).await.unwrap();
            assert_eq!(removed, (before - model.len()) as u64);
        }
        98..99 => check_all(table, model).await,
        _ => {
            table.clear().await.unwrap();
            model.clear();
        }
    }
}

async fn swap<V: Stored<Codec>>(
    table: &RemoteHash<u16, V>,
    model: &mut HashMap<u16, V::Read>,
    rng: &mut Rng,
    key: u16,
    new: V::Read,
) where
    V::Read: Clone + Debug + PartialEq,
    for<'a> &'a V::Read: EncodeAs<V, Codec>,
{
    let there = model.get(&key).cloned();
    let expected = if rng.bool() {
        there.clone()
    } else {
        Some(new.clone())
    };
    let new = rng.bool().then_some(new);
    let swap = table
        .compare_and_swap(key, expected.as_ref(), new.as_ref())
        .await
        .unwrap();
    if expected != there {
        assert_eq!(swap, Swap::Found(there));
        return;
    }
    assert_eq!(swap, Swap::Done);
    match new {
        Some(new) => drop(model.insert(key, new)),
        None => drop(model.remove(&key)),
    }
}

async fn list_step(
    table: &RemoteHash<u16, List<u8>>,
    model: &mut HashMap<u16, Vec<u8>>,
    rng: &mut Rng,
    run: Run,
) {
    let key = rng.u16(..run.keys);
    let items = bytes(rng, run);
    match rng.u8(..10) {
        0..6 => {
            table.append_many(key, &items).await.unwrap();
            model.entry(key).or_default().extend_from_slice(&items);
        }
        6..8 => {
            table.append(key, 7).await.unwrap();
            model.entry(key).or_default().push(7);
        }
        8 => {
            let pairs: Vec<u16> = (0..rng.u16(..BULK_MAX))
                .map(|_| rng.u16(..run.keys))
                .collect();
            table
                .append_batch(pairs.iter().map(|&key| (key, &items)))
                .await
                .unwrap();
            for key in pairs {
                model.entry(key).or_default().extend_from_slice(&items);
            }
        }
        _ => {
            let mut items = Vec::new();
            let stream = table.stream(key).await.unwrap();
            assert_eq!(stream.is_some(), model.contains_key(&key));
            if let Some(mut stream) = stream {
                while let Some(item) = stream.next().await {
                    items.push(item.unwrap());
                }
                assert_eq!(Some(&items), model.get(&key));
            }
        }
    }
}

async fn counter_step(
    table: &RemoteHash<u16, Counter>,
    model: &mut HashMap<u16, i64>,
    rng: &mut Rng,
    run: Run,
) {
    let key = rng.u16(..run.keys);
    let delta = if rng.u8(..20) == 0 {
        i64::MAX
    } else {
        rng.i64(-100..100)
    };
    let mut add = |key| {
        let number = model.entry(key).or_default();
        *number = number.wrapping_add(delta);
        *number
    };
    match rng.u8(..10) {
        0..6 => {
            table.add(key, delta).await.unwrap();
            add(key);
        }
        6..9 => assert_eq!(table.add_and_get(key, delta).await.unwrap(), add(key)),
        _ => {
            table
                .add_batch((0..5).map(|key| (key, delta)))
                .await
                .unwrap();
            for key in 0..5 {
                add(key);
            }
        }
    }
}

async fn check_all<V: Stored<Codec>>(table: &RemoteHash<u16, V>, model: &HashMap<u16, V::Read>)
where
    V::Read: Clone + Debug + PartialEq,
{
    let mut entries = table.iter();
    let mut found = HashMap::new();
    while let Some(entry) = entries.next().await {
        let (key, value) = entry.unwrap();
        assert!(found.insert(key, value).is_none(), "{key} twice");
    }
    assert_eq!(&found, model);
}
