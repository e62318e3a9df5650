//! What is recorded is what is read, and a damaged tail costs no more than itself.

use std::fs;

use fastrand::Rng;

use super::*;

fn table(name: &str) -> TableState {
    TableState {
        name: name.to_owned(),
        kind: TableKind::Lists,
        codec: "bytes".to_owned(),
        ranges: Ranges::new(),
        marks: Marks::default(),
        emptied: 0,
        durability: None,
        maker: None,
    }
}

/// Edits as a server makes them.
fn edits() -> Vec<Edit> {
    vec![
        Edit::Table {
            id: 1,
            state: table("one"),
        },
        Edit::Table {
            id: 2,
            state: TableState {
                durability: Some(Durability::None),
                maker: Some(Maker {
                    session: u64::MAX,
                    sequence: 300,
                }),
                ..table("two")
            },
        },
        Edit::Table {
            id: 3,
            state: TableState {
                durability: Some(Durability::Always),
                ..table("three")
            },
        },
        Edit::Spilled {
            id: 1,
            run: 10,
            first: 0,
            last: u64::MAX,
            marks: vec![Mark {
                first: 5,
                last: u64::MAX,
                lsn: 30,
            }],
        },
        Edit::Spilled {
            id: 1,
            run: 11,
            first: 0,
            last: 1 << 60,
            marks: vec![],
        },
        Edit::Split { id: 1, at: 1 << 63 },
        Edit::Spilled {
            id: 2,
            run: 12,
            first: 5,
            last: 9,
            marks: vec![],
        },
        Edit::Merged {
            id: 1,
            first: 0,
            removed: vec![11, 10],
            added: Some(13),
        },
        Edit::Merged {
            id: 1,
            first: 1 << 63,
            removed: vec![10],
            added: None,
        },
        Edit::Cleared { id: 2, lsn: 33 },
        Edit::Checkpoint {
            lsn: 20,
            logs: true,
        },
        Edit::Closed { id: 2 },
        Edit::Stopped { next_table: 7 },
    ]
}

#[test]
fn a_manifest_is_read_as_it_was_recorded() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut manifest, torn) = Manifest::open(dir.path()).expect("a manifest");
    assert_eq!((torn, manifest.was_stopped()), (0, true));
    for edit in edits() {
        let stops = matches!(edit, Edit::Stopped { .. });
        manifest.record(edit).expect("a record");
        let (again, torn) = Manifest::open(dir.path()).expect("the same manifest");
        assert_eq!((&again.state().tables, torn), (&manifest.state().tables, 0));
        assert_eq!(again.was_stopped(), stops);
        manifest = again;
    }
    manifest.begin().expect("written anew");
    let (again, _) = Manifest::open(dir.path()).expect("the same manifest");
    assert!(
        !again.was_stopped(),
        "a start that no stop followed is a crash, whatever was before"
    );
    let state = manifest.state();
    assert_eq!((state.tables.len(), state.next_table), (2, 7));
    assert_eq!(state.tables[&3].durability, Some(Durability::Always));
    let ranges = &state.tables[&1].ranges;
    assert_eq!(ranges.at(0).runs, [13]);
    // A run serves both halves of a split, even if it reaches into one only.
    assert_eq!(ranges.at(u64::MAX).runs, [11]);
    let marks = &state.tables[&1].marks;
    assert_eq!((marks.at(4), marks.at(5), state.checkpoint), (0, 30, 20));
}

/// What a server of format 1 wrote, byte by byte: tables, a clear and a spill without numbers of the log.
#[test]
fn a_manifest_of_format_1_is_read() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut bytes = b"rhash-mf\x01\0\0\0".to_vec();
    for payload in [
        b"\x01\x05\x03one\x01\x05bytes\x01\x00\x00".as_slice(),
        b"\x03\x05",
        b"\x04\x05\x0a\x00\x09",
        b"\x07\x08",
    ] {
        bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&crc32c::crc32c(payload).to_le_bytes());
        bytes.extend_from_slice(payload);
    }
    let path = dir.path().join("MANIFEST");
    fs::write(&path, &bytes).expect("a file");
    let (mut manifest, torn) = Manifest::open(dir.path()).expect("an old manifest");
    assert_eq!((torn, manifest.was_stopped()), (0, true));
    let mut one = table("one");
    one.ranges.add(&10, 0, 9);
    assert_eq!(manifest.state().tables[&5], one);
    assert_eq!(
        (manifest.state().next_table, manifest.state().logs),
        (8, false)
    );
    manifest.begin().expect("written anew");
    assert_eq!(fs::read(&path).expect("it was written anew")[8], 2);
    bytes[8] = 3;
    fs::write(&path, &bytes).expect("a file");
    assert!(matches!(
        Manifest::open(dir.path()),
        Err(DataDirError::Format { found: 3, .. })
    ));
}

/// A table as servers wrote it that knew no durability of its own, and as it is written now.
#[test]
fn a_table_without_a_durability_is_read_and_one_with_it_has_these_bytes() {
    let old = b"\x09\x05\x03one\x01\x05bytes\x01\x00\x00\x21\x00";
    let mut state = table("one");
    state.emptied = 33;
    let edit = Edit::Table {
        id: 5,
        state: state.clone(),
    };
    assert_eq!(read_edit(old), Ok(edit));
    state.durability = Some(Durability::Always);
    state.maker = Some(Maker {
        session: 7,
        sequence: 9,
    });
    let edit = Edit::Table { id: 5, state };
    let new = b"\x10\x05\x03one\x01\x05bytes\x01\x00\x00\x21\x00\x03\x01\x07\x09";
    assert_eq!(read_edit(new).as_ref(), Ok(&edit));
    let mut written = Vec::new();
    push_edit(&mut written, &edit);
    assert_eq!(&written[8..], new);
}

#[test]
fn makers_are_forgotten_once_they_are_settled() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut manifest, _) = Manifest::open(dir.path()).expect("a manifest");
    for (id, sequence) in [(1, 5), (2, 6)] {
        let state = TableState {
            maker: Some(Maker {
                session: 1,
                sequence,
            }),
            ..table(&format!("{id}"))
        };
        manifest
            .record(Edit::Table { id, state })
            .expect("a record");
    }
    manifest.forget_makers(|maker| maker.sequence <= 5);
    manifest.rewrite().expect("written anew");
    let (again, _) = Manifest::open(dir.path()).expect("the same manifest");
    let makers: Vec<_> = again
        .state()
        .tables
        .values()
        .map(|table| table.maker)
        .collect();
    assert!(matches!(
        makers[..],
        [None, Some(Maker { sequence: 6, .. })]
    ));
}

#[test]
fn a_torn_tail_is_cut_and_said_and_damage_before_it_never_makes_up_tables() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut manifest, _) = Manifest::open(dir.path()).expect("a manifest");
    manifest.begin().expect("written anew");
    let path = dir.path().join("MANIFEST");
    let mut ends = vec![fs::metadata(&path).expect("a file").len()];
    let mut states = vec![manifest.state().clone()];
    for edit in edits() {
        manifest.record(edit).expect("a record");
        ends.push(fs::metadata(&path).expect("a file").len());
        states.push(manifest.state().clone());
    }
    let whole = fs::read(&path).expect("a file");
    for length in ends[0]..whole.len() as u64 {
        fs::write(&path, &whole[..length as usize]).expect("a cut file");
        let (cut, torn) = Manifest::open(dir.path()).expect("a cut manifest");
        let kept = ends.partition_point(|end| *end <= length) - 1;
        assert_eq!(torn, length - ends[kept]);
        assert_eq!(cut.state().tables, states[kept].tables, "cut at {length}");
    }
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = Rng::with_seed(seed);
    for _ in 0..2000 {
        let mut damaged = whole.clone();
        let at = rng.usize(..damaged.len());
        damaged[at] ^= 1 << rng.u32(..8);
        fs::write(&path, &damaged).expect("a damaged file");
        // A record whose checksum is wrong ends the replay, so what is read is one of the states.
        if let Ok((read, _)) = Manifest::open(dir.path()) {
            assert!(
                states
                    .iter()
                    .any(|state| state.tables == read.state().tables)
            );
        }
    }
}

#[test]
fn a_manifest_that_grows_is_written_anew() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut manifest, _) = Manifest::open(dir.path()).expect("a manifest");
    manifest
        .record(Edit::Table {
            id: 1,
            state: table("t"),
        })
        .expect("a record");
    for run in 1..120_000 {
        manifest
            .record(Edit::Spilled {
                id: 1,
                run,
                first: 0,
                last: u64::MAX,
                marks: vec![],
            })
            .expect("a record");
        manifest
            .record(Edit::Cleared { id: 1, lsn: 0 })
            .expect("a record");
    }
    let length = fs::metadata(dir.path().join("MANIFEST"))
        .expect("a file")
        .len();
    assert!(length < 2 * REWRITE_BYTES_MIN, "{length} bytes");
    let (again, _) = Manifest::open(dir.path()).expect("the same manifest");
    assert_eq!(again.state().tables, manifest.state().tables);
}

/// A file that was lengthened before a power cut, and not written: eight zeros are the length and the checksum of an
/// empty record.
#[test]
fn a_tail_of_zeros_is_torn() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut manifest, _) = Manifest::open(dir.path()).expect("a manifest");
    for edit in edits() {
        manifest.record(edit).expect("a record");
    }
    let path = dir.path().join("MANIFEST");
    let whole = fs::read(&path).expect("a file");
    for zeros in [1, 7, 8, 9, 16, 4096, 3 * 4096] {
        let mut bytes = whole.clone();
        bytes.resize(whole.len() + zeros, 0);
        fs::write(&path, &bytes).expect("a file");
        let (read, torn) = Manifest::open(dir.path()).expect("a torn manifest");
        assert_eq!(torn, zeros as u64);
        assert_eq!(read.state().tables, manifest.state().tables);
    }
}

#[test]
fn damage_is_told_from_a_torn_tail_by_what_was_synced_behind_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut manifest, _) = Manifest::open(dir.path()).expect("a manifest");
    let all = edits();
    let (before, after) = all.split_at(6);
    for edit in before {
        manifest.record(edit.clone()).expect("a record");
    }
    manifest.sync().expect("a sync");
    let path = dir.path().join("MANIFEST");
    let synced = fs::metadata(&path).expect("a file").len() as usize;
    for edit in after {
        manifest.record(edit.clone()).expect("a record");
    }
    let whole = fs::read(&path).expect("a file");
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        fs::write(&path, &damaged).expect("a damaged file");
        match Manifest::open(dir.path()) {
            // The last ones may have been on their way to the disk, in any order.
            Ok((_, torn)) => assert!(at >= synced && torn > 0, "byte {at} of {synced}"),
            Err(error) => assert!(at < synced, "byte {at} of {synced}: {error}"),
        }
        assert_eq!(fs::read(&path).expect("a file"), damaged, "it is as it was");
    }
}

#[test]
fn a_manifest_whose_sync_failed_is_written_anew_before_it_says_that_it_is_synced() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut manifest, _) = Manifest::open(dir.path()).expect("a manifest");
    manifest.begin().expect("written anew");
    let all = edits();
    manifest.record(all[0].clone()).expect("a record");
    manifest.fail_sync();
    manifest.sync().expect_err("the disk failed");
    // What the kernel dropped.
    let path = dir.path().join("MANIFEST");
    fs::write(&path, b"").expect("a file");
    manifest.sync().expect("a sync");
    let (read, torn) = Manifest::open(dir.path()).expect("a manifest");
    assert_eq!((&read.state().tables, torn), (&manifest.state().tables, 0));
}

/// What was written anew took its name when all of it was on stable storage, so one that ends within that part is
/// damaged; it was once read as a manifest of fewer tables, whose runs the start then removed.
#[test]
fn a_manifest_that_ends_before_what_was_written_anew_is_damaged() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut manifest, _) = Manifest::open(dir.path()).expect("a manifest");
    for edit in edits() {
        manifest.record(edit).expect("a record");
    }
    manifest.rewrite().expect("written anew");
    let path = dir.path().join("MANIFEST");
    let whole = fs::read(&path).expect("a file");
    assert!(Manifest::open(dir.path()).is_ok());
    for length in 0..whole.len() {
        let mut zeroed = whole.clone();
        zeroed[length.max(HEADER_BYTES)..].fill(0);
        for damaged in [&whole[..length], &zeroed] {
            fs::write(&path, damaged).expect("a cut file");
            let error = Manifest::open(dir.path()).expect_err("it is cut");
            assert!(error.to_string().contains("MANIFEST is damaged"), "{error}");
        }
    }
}
