//! The bytes of a tiny run, so that the format does not change unnoticed.

use super::*;

fn tiny_run(fixture: &Fixture) -> Arc<Run> {
    let record = |key: &str, kind, part: &[u8]| {
        let hash = fixture.options.hasher.hash(key.as_bytes());
        Owned {
            hash,
            kind,
            key: key.into(),
            part: part.to_vec(),
        }
    };
    let mut records = [
        record("a", RecordKind::Base, &[b'v'; 330]),
        record("a", RecordKind::Fragment, b"more"),
        record("bb", RecordKind::Tombstone, b""),
        record("ccc", RecordKind::Fragment, b""),
    ];
    records.sort_by_key(|record| record.hash.place);
    let mut writer = fixture.store.begin(0x1122, 0).unwrap();
    writer.set_note(b"note".to_vec());
    records
        .iter()
        .for_each(|record| writer.push(&record.borrow()).unwrap());
    writer.finish(false).unwrap()
}

#[test]
fn a_tiny_run_has_these_bytes() {
    let fixture = Fixture::new(HomeKind::Files, 64);
    let run = tiny_run(&fixture);
    let path = fixture
        .dir
        .path()
        .join(format!("runs/{:016x}.run", run.id()));
    let bytes = std::fs::read(path).unwrap();
    let lines: Vec<String> = bytes
        .chunks(32)
        .map(|line| line.iter().map(|byte| format!("{byte:02x}")).collect())
        .collect();
    assert_eq!(lines, GOLDEN, "{lines:#?}");
}

/// In lines of 32 bytes: the block, the hash column, padding, the leaf, the note, the directory, the footer.
const GOLDEN: [&str; 24] = [
    "04ca026176767676767676767676767676767676767676767676767676767676",
    "7676767676767676767676767676767676767676767676767676767676767676",
    "7676767676767676767676767676767676767676767676767676767676767676",
    "7676767676767676767676767676767676767676767676767676767676767676",
    "7676767676767676767676767676767676767676767676767676767676767676",
    "7676767676767676767676767676767676767676767676767676767676767676",
    "7676767676767676767676767676767676767676767676767676767676767676",
    "7676767676767676767676767676767676767676767676767676767676767676",
    "7676767676767676767676767676767676767676767676767676767676767676",
    "7676767676767676767676767676767676767676767676767676767676767676",
    "767676767676767676767676767603046d6f72650d006363630a0062620000cc",
    "065cad204f58b2e60941c167637ee806210cb3f74b4ca98c0611bba5f622d491",
    "c5e5d2b1051474623a43b6762c6d000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "8008000000002000200000000000000008000200000080000000001800020000",
    "0000040000000000000080081000800000000000000000000000000010000000",
    "4f58b2e60941c1670000000063010000630100008e0100001fdd54956e6f7465",
    "8d6df1874f58b2e60941c1670000000000000000c00100005c00000001000000",
    "0100000001000000030000003b7244c501000000000000002211000000000000",
    "0400000000000000030000000000000001000000000000005501000000000000",
    "4f58b2e60941c1672f9d6f18299c53822402000000000000010000006cfb69a1",
    "0100000008000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "824f61da01000000726861736872756e",
];

#[test]
fn the_golden_bytes_are_read() {
    let fixture = Fixture::new(HomeKind::Files, 64);
    let hex = |digits: &str| u8::from_str_radix(digits, 16).unwrap();
    let text = GOLDEN.concat();
    let bytes: Vec<u8> = (0..text.len() / 2)
        .map(|at| hex(&text[at * 2..at * 2 + 2]))
        .collect();
    std::fs::write(fixture.dir.path().join("runs/0000000000000001.run"), bytes).unwrap();
    let run = fixture.store.open_run(1).unwrap();
    assert_eq!(
        (run.table(), run.records(), run.keys(), run.tombstones()),
        (0x1122, 4, 3, 1)
    );
    let records = all_of(&run, 0);
    let hash = fixture.options.hasher.hash(b"bb");
    assert_eq!(
        records[3],
        Owned {
            hash,
            kind: RecordKind::Tombstone,
            key: b"bb".into(),
            part: vec![]
        }
    );
    assert!(run.seek_key(hash, b"bb").unwrap().is_some());
}
