//! Every request, response and notice as literal bytes: a change of any of them is a change of the
//! protocol's version.

#![expect(clippy::unwrap_used, reason = "a test helper fails by panicking")]

use rhash_protocol::{
    BackupInfo, Call, Durability, ErrorCode, Keys, LimitInfo, Notice, OpenMode, Ops, Outcomes,
    Request, Response, ScanWhat, Stats, TableInfo, TableKind, Values, WireError, codec,
    packed::{Page, PageEntries, Presence},
};
use serde::{Deserialize, Serialize};

#[track_caller]
fn is<'a, T>(message: &T, bytes: &'a [u8])
where
    T: Serialize + Deserialize<'a> + PartialEq + std::fmt::Debug,
{
    let mut encoded = Vec::new();
    codec::encode(message, &mut encoded).unwrap();
    assert_eq!(encoded, bytes, "{message:?} as {}", encoded.escape_ascii());
    assert_eq!(codec::decode::<T>(bytes).unwrap(), *message);
}

#[track_caller]
fn request(request: Request<'_>, bytes: &[u8]) {
    let mut call = vec![0x03, 0x02];
    call.extend_from_slice(bytes);
    is(
        &Call {
            sequence: 3,
            settled: 2,
            request,
        },
        &call,
    );
}

#[test]
fn requests() {
    request(Request::Ping, b"\x00");
    request(
        Request::Open {
            name: Some("people"),
            kind: Some(TableKind::Values),
            codec: Some("bytes"),
            mode: OpenMode::OpenOrCreate,
            durability: None,
        },
        b"\x01\x01\x06people\x01\x00\x01\x05bytes\x00\x00",
    );
    for (byte, durability) in (0..).zip(Durability::ALL) {
        request(
            Request::Open {
                name: Some("t"),
                kind: None,
                codec: None,
                mode: OpenMode::OpenOrCreate,
                durability: Some(durability),
            },
            &[b"\x01\x01\x01t\x00\x00\x00\x01".as_slice(), &[byte]].concat(),
        );
    }
    request(
        Request::Open {
            name: None,
            kind: None,
            codec: None,
            mode: OpenMode::Existing,
            durability: None,
        },
        b"\x01\x00\x00\x00\x01\x00",
    );
    request(
        Request::Open {
            name: None,
            kind: Some(TableKind::Lists),
            codec: None,
            mode: OpenMode::CreateNew,
            durability: None,
        },
        b"\x01\x00\x01\x01\x00\x02\x00",
    );
    request(
        Request::Open {
            name: None,
            kind: Some(TableKind::Counters),
            codec: None,
            mode: OpenMode::CreateNew,
            durability: None,
        },
        b"\x01\x00\x01\x02\x00\x02\x00",
    );
    request(Request::Tables, b"\x02");
    request(Request::Len { table: 7 }, b"\x03\x07");
    request(Request::IsEmpty { table: 251 }, b"\x04\xfb\xfb\x00");
    request(Request::Clear { table: 7 }, b"\x05\x07");
    request(Request::Close { table: 7 }, b"\x06\x07");
    request(Request::Detach { table: 7 }, b"\x07\x07");
    request(
        Request::Write {
            table: 7,
            ops: Ops::new(2, b"\x00\x01k\x01v\x03\x01k"),
        },
        b"\x08\x07\x02\x08\x00\x01k\x01v\x03\x01k",
    );
    request(
        Request::Get {
            table: 7,
            keys: Keys::new(1, b"\x01k"),
        },
        b"\x09\x07\x01\x02\x01k",
    );
    request(
        Request::Contains {
            table: 7,
            keys: Keys::new(1, b"\x01k"),
        },
        b"\x0a\x07\x01\x02\x01k",
    );
    request(
        Request::Fetch {
            table: 7,
            key: b"key",
        },
        b"\x0b\x07\x03key",
    );
    request(
        Request::Scan {
            table: 7,
            cursor: None,
            what: ScanWhat::Keys,
            entries_max: 9,
        },
        b"\x0c\x07\x00\x00\x09",
    );
    request(
        Request::Scan {
            table: 7,
            cursor: Some(b"c"),
            what: ScanWhat::Values,
            entries_max: 1,
        },
        b"\x0c\x07\x01\x01c\x01\x01",
    );
    request(
        Request::Scan {
            table: 7,
            cursor: Some(b""),
            what: ScanWhat::Items,
            entries_max: 1,
        },
        b"\x0c\x07\x01\x00\x02\x01",
    );
    request(Request::Stats, b"\x0d");
    request(Request::Sync, b"\x0e");
    request(Request::Backup { dir: "/b" }, b"\x0f\x02/b");
}

fn info() -> TableInfo {
    TableInfo {
        name: Some("t".into()),
        table: 7,
        kind: TableKind::Lists,
        codec: "value".into(),
        entries_estimate: 1,
        hot_entries: 2,
        hot_bytes: 3,
        cold_runs: 4,
        cold_bytes: 5,
        sessions: 6,
        durability: Durability::Always,
        own_durability: true,
    }
}

const INFO: &[u8] = b"\x01\x01t\x07\x01\x05value\x01\x02\x03\x04\x05\x06\x02\x01";

#[test]
fn responses() {
    let error = WireError {
        code: ErrorCode::TableClosed,
        text: "closed".into(),
    };
    is(&Response::Error(error), b"\x00\x03\x06closed");
    is(&Response::Pong, b"\x01");
    is(&Response::Done, b"\x02");
    is(
        &Response::Opened {
            table: 7,
            kind: TableKind::Counters,
            codec: "bincode".into(),
            created: true,
            sole: false,
        },
        b"\x03\x07\x02\x07bincode\x01\x00",
    );
    let mut tables = b"\x04\x01".to_vec();
    tables.extend_from_slice(INFO);
    is(&Response::Tables(vec![info()]), &tables);
    is(&Response::Count(70_000), b"\x05\xfc\x70\x11\x01\x00");
    is(&Response::Empty(true), b"\x06\x01");
    is(
        &Response::Written(Outcomes::new(1, b"\x02")),
        b"\x07\x01\x01\x02",
    );
    is(
        &Response::Values(Values::new(1, b"\x01\x01v")),
        b"\x08\x01\x03\x01\x01v",
    );
    is(
        &Response::Present(Presence::new(2, b"\x01\x00")),
        b"\x09\x02\x02\x01\x00",
    );
    is(&Response::Stream { present: true }, b"\x0a\x01");
    is(
        &Response::Page(Page {
            next: Some(b"c".to_vec()),
            entries: PageEntries::new(1, b"\x01k\x00"),
        }),
        b"\x0b\x01\x01c\x01\x03\x01k\x00",
    );
    is(
        &Response::Page(Page {
            next: None,
            entries: PageEntries::new(0, b""),
        }),
        b"\x0b\x00\x00\x00",
    );
    is(
        &Response::BackedUp(BackupInfo {
            record: 70_000,
            tables: 1,
            runs_linked: 2,
            linked_bytes: 3,
            runs_copied: 4,
            copied_bytes: 5,
            log_bytes: 6,
        }),
        b"\x0d\xfc\x70\x11\x01\x00\x01\x02\x03\x04\x05\x06",
    );
}

#[test]
fn stats() {
    let stats = Stats {
        version: "1.2".into(),
        uptime_ms: 1,
        memory_only: true,
        mem_limit_bytes: 2,
        tracked_bytes: 3,
        resident_bytes: 4,
        resident_bytes_max: 5,
        disk_bytes: 6,
        disk_limit_bytes: 22,
        spilled_entries: 7,
        spilled_bytes: 8,
        promoted_entries: 9,
        merges: 10,
        merged_bytes: 11,
        sled_bytes: 12,
        cold_reads: 13,
        stalls: 14,
        stall_ms: 15,
        stall_ms_max: 16,
        merge_stalls: 17,
        merge_stall_ms: 18,
        log_bytes: 23,
        log_trouble: Some("t".into()),
        connections: 19,
        sessions: 20,
        operations: 21,
        limits: vec![
            LimitInfo {
                name: "l".into(),
                max: 1,
                used: Some(2),
                reached: 3,
            },
            LimitInfo {
                name: String::new(),
                max: 4,
                used: None,
                reached: 5,
            },
        ],
        tables: vec![info()],
    };
    let mut bytes =
        b"\x0c\x031.2\x01\x01\x02\x03\x04\x05\x06\x16\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10\x11\x12\x17\x01\x01t\x13\x14\x15\x02\x01l\x01\x01\x02\x03\x00\x04\x00\x05\x01"
            .to_vec();
    bytes.extend_from_slice(INFO);
    is(&Response::Stats(Box::new(stats)), &bytes);
}

#[test]
fn error_codes() {
    for (byte, code) in [
        ErrorCode::BadRequest,
        ErrorCode::NoSuchTable,
        ErrorCode::TableExists,
        ErrorCode::TableClosed,
        ErrorCode::WrongKind,
        ErrorCode::WrongCodec,
        ErrorCode::KeyTooLarge,
        ErrorCode::ValueTooLarge,
        ErrorCode::SessionExpired,
        ErrorCode::OutOfMemory,
        ErrorCode::DiskFull,
        ErrorCode::Storage,
        ErrorCode::Damaged,
        ErrorCode::ShuttingDown,
        ErrorCode::Busy,
        ErrorCode::WrongVersion,
        ErrorCode::Denied,
        ErrorCode::WrongDurability,
    ]
    .into_iter()
    .enumerate()
    {
        is(&code, &[byte as u8]);
    }
}

#[test]
fn notices() {
    is(
        &Notice::Sole {
            table: 7,
            sole: true,
        },
        b"\x00\x07\x01",
    );
    is(&Notice::ShuttingDown, b"\x01");
}
