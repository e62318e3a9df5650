//! Damage is an error, never a wrong value, an absence or a panic.

use super::*;
use crate::cold::{home::Home, memory_home::MemoryHome};

fn memory(place_bits: u32) -> (Arc<MemoryHome>, ColdStore, ColdOptions) {
    let home = Arc::new(MemoryHome::default());
    let options = ColdOptions::new(hasher(place_bits));
    let as_home = Arc::clone(&home) as Arc<dyn Home>;
    (
        home,
        ColdStore::with_home(options.clone(), as_home),
        options,
    )
}

fn small_run(store: &ColdStore, hasher: &KeyHasher) -> (RunId, Vec<Owned>) {
    let mut rng = fastrand::Rng::with_seed(11);
    let mut records: Vec<Owned> = (0..18u32)
        .map(|number| {
            let key = format!("key {number}").into_bytes();
            let part = vec![rng.u8(..); rng.usize(120..200)];
            Owned {
                hash: hasher.hash(&key),
                kind: RecordKind::Base,
                key,
                part,
            }
        })
        .collect();
    records.sort_by(|a, b| (a.hash.place, &a.key).cmp(&(b.hash.place, &b.key)));
    let run = write(store, &records);
    assert!(
        run.has_hash_column(),
        "every kind of piece is there to be damaged"
    );
    (run.id(), records)
}

/// Reads the whole run in every way; each result is right or an error.
fn read_in_every_way(store: &ColdStore, id: RunId, records: &[Owned]) -> Result<(), ColdError> {
    let run = store.open_run(id)?;
    let mut first_error = Ok(());
    let mut block = Vec::new();
    for record in records {
        match run.look_whole(record.hash, &record.key, &mut block) {
            Ok(Whole::Value(value)) => assert_eq!(value, record.part),
            Ok(Whole::Unclear) => {}
            Ok(said) => panic!("a present key is {said:?}"),
            Err(error) => first_error = Err(error),
        }
        match run.seek_key(record.hash, &record.key) {
            Ok(found) => {
                let cursor = found.expect("present keys are never absent");
                assert_eq!(Owned::of(&cursor.head().unwrap()), *record);
            }
            Err(error) => first_error = Err(error),
        }
    }
    let mut keys = run.hashes(0, u64::MAX)?;
    for record in records {
        assert_eq!(keys.head(), Some((record.hash, record.kind)));
        keys.advance()?;
    }
    let mut cursor = run.cursor(0, u64::MAX, 100_000)?;
    for record in records {
        assert_eq!(
            cursor.head().map(|head| Owned::of(&head)).as_ref(),
            Some(record)
        );
        cursor.advance()?;
    }
    assert!(cursor.head().is_none() && keys.head().is_none());
    first_error
}

#[test]
fn every_flipped_bit_is_noticed() {
    let (home, store, options) = memory(64);
    let (id, records) = small_run(&store, &options.hasher);
    read_in_every_way(&store, id, &records).unwrap();
    let bytes = store.open_run(id).unwrap().bytes() as usize;
    for at in 0..bytes {
        for bit in 0..8 {
            home.edit(id, |run| run[at] ^= 1 << bit);
            let read = read_in_every_way(&store, id, &records);
            assert!(
                matches!(
                    read,
                    Err(ColdError::Damaged { .. } | ColdError::Format { .. })
                ),
                "bit {bit} of byte {at}: {read:?}"
            );
            home.edit(id, |run| run[at] ^= 1 << bit);
        }
    }
    read_in_every_way(&store, id, &records).unwrap();
}

#[test]
fn every_cut_is_noticed() {
    let (home, store, options) = memory(8);
    let (id, records) = small_run(&store, &options.hasher);
    let bytes = store.open_run(id).unwrap().bytes() as usize;
    for length in (0..bytes).rev() {
        home.edit(id, |run| run.truncate(length));
        let read = read_in_every_way(&store, id, &records);
        assert!(
            matches!(read, Err(ColdError::Damaged { .. })),
            "{length} bytes: {read:?}"
        );
    }
}

#[test]
fn pieces_in_the_wrong_place_are_noticed() {
    let (home, store, options) = memory(64);
    let (id, records) = small_run(&store, &options.hasher);
    let (other, _) = small_run(&store, &options.hasher);
    // The two runs are equal but for their ids; a block of one is not valid in the other.
    let mut block = Vec::new();
    home.edit(other, |run| block.extend_from_slice(&run[..600]));
    home.edit(id, |run| run[..600].copy_from_slice(&block));
    assert!(matches!(
        read_in_every_way(&store, id, &records),
        Err(ColdError::Damaged { .. })
    ));
}

#[test]
fn files_with_flipped_bytes_are_noticed() {
    let fixture = Fixture::new(HomeKind::Files, 64);
    let (id, records) = small_run(&fixture.store, &fixture.options.hasher);
    let path = fixture.dir.path().join(format!("runs/{id:016x}.run"));
    let good = std::fs::read(&path).unwrap();
    for at in 0..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 0x40;
        // A new file, since the old one may still be mapped.
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, &bytes).unwrap();
        // What pads the leaf to its page is not read, and so not verified.
        match read_in_every_way(&fixture.store, id, &records) {
            Ok(()) => assert_eq!(good[at], 0, "byte {at}"),
            Err(ColdError::Damaged { .. } | ColdError::Format { .. }) => {}
            Err(error) => panic!("byte {at}: {error:?}"),
        }
    }
}

#[test]
fn a_newer_format_and_another_secret_are_refused_by_name() {
    let (home, store, options) = memory(64);
    let (id, _) = small_run(&store, &options.hasher);
    let other = ColdOptions::new(KeyHasher::new(&[8; 16]));
    let other = ColdStore::with_home(other, Arc::clone(&home) as Arc<dyn Home>);
    assert!(matches!(other.open_run(id), Err(ColdError::OtherSecret { run }) if run == id));
    home.edit(id, |run| {
        let at = run.len() - 12;
        run[at] = 2;
    });
    let error = store.open_run(id).unwrap_err();
    let text = format!("run {id} has format 2, this version reads formats up to 1");
    assert_eq!(error.to_string(), text);
}

/// sled panicked over pages in each other's place when it was opened, and the server with it.
#[test]
fn pages_of_sled_in_the_wrong_place_are_found_or_said_and_no_panic() {
    const PAGE: usize = 4096;
    let fixture = Fixture::new(HomeKind::Sled, 64);
    for _ in 0..40 {
        small_run(&fixture.store, &fixture.options.hasher);
    }
    let Fixture {
        store,
        options,
        dir,
        ..
    } = fixture;
    store.sync().unwrap();
    drop(store);
    let path = dir.path().join("sled/db");
    let good = std::fs::read(&path).unwrap();
    let seed = seed("pages");
    let mut rng = fastrand::Rng::with_seed(seed);
    let pages = good.len() / PAGE;
    for _ in 0..20 {
        let (first, second) = (rng.usize(..pages), rng.usize(..pages));
        let mut bytes = good.clone();
        for at in 0..PAGE {
            bytes.swap(first * PAGE + at, second * PAGE + at);
        }
        let copy = tempfile::tempdir().unwrap();
        std::fs::create_dir(copy.path().join("sled")).unwrap();
        for entry in std::fs::read_dir(dir.path().join("sled")).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_file() {
                let to = copy.path().join("sled").join(entry.file_name());
                std::fs::copy(entry.path(), to).unwrap();
            }
        }
        std::fs::write(copy.path().join("sled/db"), &bytes).unwrap();
        // Either way it returns.
        drop(ColdStore::open(copy.path(), options.clone()));
    }
}
