//! A copy of a run is a run file that reads as the run does, whatever home that has.

use std::{cell::Cell, fs, path::Path};

use super::*;

/// A directory of run files, as a data directory has one.
fn runs_dir(dir: &Path) -> std::path::PathBuf {
    let runs = dir.join(RUNS_DIR);
    fs::create_dir_all(&runs).unwrap();
    runs
}

/// A store of files on another directory, under the same secret.
fn opened(dir: &Path, options: &ColdOptions) -> ColdStore {
    let options = ColdOptions {
        small_run_bytes: 0,
        faults: None,
        ..options.clone()
    };
    ColdStore::open(dir, options).unwrap()
}

fn assert_reads_alike(copy: &Arc<Run>, run: &Arc<Run>, records: &[Owned], hasher: &KeyHasher) {
    assert_eq!(copy.summary(), run.summary());
    assert_eq!(copy.bytes(), run.bytes());
    for read_ahead_bytes in [0, 3000, 128 * 1024] {
        assert!(all_of(copy, read_ahead_bytes) == records);
    }
    let (mut block, mut other) = (Vec::new(), Vec::new());
    for record in records {
        let cursor = copy.seek_key(record.hash, &record.key).unwrap();
        let cursor = cursor.expect("a key that was pushed");
        assert_eq!(cursor.head().unwrap().key, record.key);
        assert_eq!(
            copy.look_whole(record.hash, &record.key, &mut block)
                .unwrap(),
            run.look_whole(record.hash, &record.key, &mut other)
                .unwrap()
        );
        assert!(copy.glance(record.hash).may_contain());
    }
    for number in 0..300u32 {
        let key = format!("absent {number}");
        let hash = hasher.hash(key.as_bytes());
        assert!(copy.seek_key(hash, key.as_bytes()).unwrap().is_none());
    }
    let (mut ours, mut theirs) = (
        copy.hashes(0, u64::MAX).unwrap(),
        run.hashes(0, u64::MAX).unwrap(),
    );
    while let Some(head) = theirs.head() {
        assert_eq!(ours.head(), Some(head));
        ours.advance().unwrap();
        theirs.advance().unwrap();
    }
    assert!(ours.head().is_none());
}

/// Runs in sled have blocks, and leaves, that lie otherwise than those in files; the large ones here are mapped where
/// they are files, the small ones are not.
#[test]
fn a_copy_reads_as_its_run_does_whatever_home_that_has() {
    let seed = seed("a_copy_reads");
    let mut rng = fastrand::Rng::with_seed(seed);
    for kind in HOMES {
        for place_bits in [64, 8] {
            for (keys, part_bytes_max) in [(0, 0), (1, 10), (40, 100), (900, 2000), (5000, 400)] {
                let fixture = Fixture::new(kind, place_bits);
                let hasher = &fixture.options.hasher;
                let records = random_records(&mut rng, hasher, keys, part_bytes_max);
                let run = fixture.write(&records);
                let dir = tempfile::tempdir().unwrap();
                run.copy_into(&runs_dir(dir.path()), &|| true).unwrap();
                let store = opened(dir.path(), &fixture.options);
                let copy = store.open_run(run.id()).unwrap();
                println!("{kind:?}, {place_bits} bits, {} bytes", run.bytes());
                assert_reads_alike(&copy, &run, &records, hasher);
            }
        }
    }
}

#[test]
fn a_link_outlives_its_run_and_only_files_have_one() {
    for kind in HOMES {
        let fixture = Fixture::new(kind, 64);
        let mut rng = fastrand::Rng::with_seed(5);
        let hasher = &fixture.options.hasher;
        let records = random_records(&mut rng, hasher, 500, 500);
        let run = fixture.write(&records);
        let beside = fixture.dir.path().join("beside");
        let linked = run.link_into(&runs_dir(&beside));
        assert_eq!(linked, kind == HomeKind::Files, "{kind:?}");
        if !linked {
            continue;
        }
        assert!(!run.link_into(&beside.join(RUNS_DIR)), "it is there");
        let id = run.id();
        run.remove_on_drop();
        drop(run);
        assert!(fixture.store.open_run(id).is_err());
        let store = opened(&beside, &fixture.options);
        assert!(all_of(&store.open_run(id).unwrap(), 0) == records);
    }
}

#[test]
fn a_copy_that_fails_or_is_given_up_says_so() {
    let fixture = Fixture::new(HomeKind::Faulty, 64);
    let mut rng = fastrand::Rng::with_seed(6);
    let records = random_records(&mut rng, &fixture.options.hasher, 8000, 1000);
    let run = fixture.write(&records);
    let copy = |goes_on: &dyn Fn() -> bool| {
        let dir = tempfile::tempdir().unwrap();
        run.copy_into(&runs_dir(dir.path()), goes_on)
    };
    fixture.faults().fail_read(2);
    assert!(matches!(copy(&|| true), Err(ColdError::Io { .. })));
    let looks = Cell::new(0);
    let goes_on = || {
        looks.set(looks.get() + 1);
        looks.get() < 2
    };
    assert!(matches!(copy(&goes_on), Err(ColdError::Cancelled)));
    copy(&|| true).unwrap();
    let error = run
        .copy_into(Path::new("/none/such"), &|| true)
        .unwrap_err();
    assert!(
        error.to_string().contains("cannot create /none/such/"),
        "{error}"
    );
}

/// A run that sled lost a value of must not become a copy that looks whole.
#[test]
fn a_run_that_is_cut_is_not_copied() {
    for kind in [HomeKind::Files, HomeKind::Sled] {
        let fixture = Fixture::new(kind, 64);
        let mut rng = fastrand::Rng::with_seed(7);
        let records = random_records(&mut rng, &fixture.options.hasher, 300, 300);
        let run = fixture.write(&records);
        // What is open does not know that its bytes are gone.
        match kind {
            HomeKind::Files => {
                let path = fixture.dir.path().join(RUNS_DIR);
                let path = path.join(format!("{:016x}.run", run.id()));
                let file = fs::File::options().write(true).open(path).unwrap();
                file.set_len(run.bytes() - 10).unwrap();
            }
            _ => fixture.store.remove(run.id()).unwrap(),
        }
        let dir = tempfile::tempdir().unwrap();
        let copied = run.copy_into(&runs_dir(dir.path()), &|| true);
        assert!(matches!(copied, Err(ColdError::Damaged { .. })), "{kind:?}");
    }
}
