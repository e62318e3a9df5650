//! Bytes that make sense to each decoder.

use rhash_client::{Item, Value, ValueCodec};
use rhash_protocol::{
    BackupInfo, Call, Durability, ErrorCode, Keys, LimitInfo, Notice, Op, OpenMode, Ops, Outcomes,
    Request, Response, ScanWhat, Slot, Stats, TableInfo, TableKind, Values, WireError, codec,
    frame::{Follow, FrameHead, FrameKind},
    handshake::{Hello, Limits, Ticket, Welcome},
    packed::{
        Page, PageEntries, PageEntry, Presence, push_bytes, push_op, push_page_entry,
        push_presence, push_slot,
    },
};
use serde::Serialize;

/// A message as bytes; none of these is one that cannot be encoded.
fn encoded(message: &impl Serialize) -> Vec<u8> {
    let mut bytes = Vec::new();
    assert!(codec::encode(message, &mut bytes).is_ok());
    bytes
}

pub(crate) fn frames() -> Vec<Vec<u8>> {
    let frame = |kind, follow, request_id, body: &[u8]| {
        let head = FrameHead {
            kind,
            follow,
            request_id,
        };
        let mut bytes = head
            .header(body)
            .map_or_else(|_| Vec::new(), |header| header.to_vec());
        bytes.extend_from_slice(body);
        bytes
    };
    let whole = frame(FrameKind::Request, Follow::Last, 1, b"whole");
    let first = frame(FrameKind::Request, Follow::More, 2, b"first");
    let last = frame(FrameKind::Chunk, Follow::Last, 2, b"last");
    vec![
        [&whole[..], &first, &whole, &last].concat(),
        [&first[..], &last].concat(),
        frame(FrameKind::Refusal, Follow::Last, 0, &[7; 300]),
        whole,
    ]
}

fn ops() -> Vec<u8> {
    let key = b"key".as_slice();
    let value = b"value".as_slice();
    let mut bytes = Vec::new();
    for op in [
        Op::Put { key, value },
        Op::Append { key, bytes: value },
        Op::Add { key, delta: -5 },
        Op::Discard { key },
        Op::PutIfAbsent { key, value },
        Op::Replace { key, value },
        Op::CompareAndSwap {
            key,
            expected: Some(value),
            new: None,
        },
        Op::Remove { key },
        Op::AddAndGet {
            key,
            delta: i64::MAX,
        },
    ] {
        push_op(&mut bytes, &op);
    }
    bytes
}

pub(crate) fn requests() -> Vec<Vec<u8>> {
    let ops = ops();
    let mut keys = Vec::new();
    push_bytes(&mut keys, b"one");
    push_bytes(&mut keys, &[7; 100]);
    let table = 7;
    let requests = [
        Request::Ping,
        Request::Open {
            name: Some("name"),
            kind: Some(TableKind::Lists),
            codec: Some("bytes"),
            mode: OpenMode::CreateNew,
            durability: None,
        },
        Request::Write {
            table,
            ops: Ops::new(9, &ops),
        },
        Request::Get {
            table,
            keys: Keys::new(2, &keys),
        },
        Request::Contains {
            table,
            keys: Keys::new(2, &keys),
        },
        Request::Fetch { table, key: b"key" },
        Request::Scan {
            table,
            cursor: Some(&[0; 9]),
            what: ScanWhat::Items,
            entries_max: 100,
        },
        Request::Stats,
        Request::Backup {
            dir: "/backups/monday",
        },
    ];
    let call = |request| Call {
        sequence: 3,
        settled: 2,
        request,
    };
    requests.map(|request| encoded(&call(request))).to_vec()
}

fn table() -> TableInfo {
    TableInfo {
        name: Some("table".to_owned()),
        table: 1,
        kind: TableKind::Counters,
        codec: "bytes".to_owned(),
        entries_estimate: 300,
        hot_entries: 1,
        hot_bytes: 70_000,
        cold_runs: 3,
        cold_bytes: 4,
        sessions: 5,
        durability: Durability::EverySec,
        own_durability: true,
    }
}

pub(crate) fn responses() -> Vec<Vec<u8>> {
    let (mut slots, mut presence, mut page) = (Vec::new(), Vec::new(), Vec::new());
    for slot in [Slot::Absent, Slot::Value(b"value"), Slot::Large(1 << 40)] {
        push_slot(&mut slots, &slot);
        push_presence(&mut presence, true);
        push_page_entry(
            &mut page,
            &PageEntry {
                key: b"key",
                value: slot,
            },
        );
    }
    let limits = vec![LimitInfo {
        name: "limit".to_owned(),
        max: 1,
        used: Some(2),
        reached: 3,
    }];
    let stats = Stats {
        version: "1".to_owned(),
        limits,
        tables: vec![table(), table()],
        ..Stats::default()
    };
    let error = WireError {
        code: ErrorCode::Busy,
        text: "busy".to_owned(),
    };
    let responses = [
        Response::Error(error),
        Response::Tables(vec![table(), table(), table()]),
        Response::Written(Outcomes::new(3, &slots)),
        Response::Values(Values::new(3, &slots)),
        Response::Present(Presence::new(3, &presence)),
        Response::Page(Page {
            next: Some(vec![1; 9]),
            entries: PageEntries::new(3, &page),
        }),
        Response::Stats(Box::new(stats)),
        Response::BackedUp(BackupInfo {
            record: 1 << 40,
            tables: 3,
            ..BackupInfo::default()
        }),
    ];
    let mut all: Vec<Vec<u8>> = responses.iter().map(encoded).collect();
    all.push(encoded(&Notice::Sole {
        table: 7,
        sole: true,
    }));
    all
}

pub(crate) fn greetings() -> Vec<Vec<u8>> {
    let ticket = Ticket {
        id: 1 << 40,
        secret: [9; 16],
    };
    let hello = Hello {
        session: Some(ticket),
        token: "rhash_00".to_owned(),
        client: "client".to_owned(),
    };
    let welcome = Welcome {
        server: "server".to_owned(),
        ticket,
        resumed: true,
        lease_ms: 60_000,
        limits: Limits {
            key_bytes: 1,
            value_bytes: 2,
            frame_bytes: 3,
            batch_bytes: 4,
            unsettled: 5,
        },
        memory_only: false,
    };
    let refusal = WireError {
        code: ErrorCode::Denied,
        text: "no".to_owned(),
    };
    vec![encoded(&hello), encoded(&welcome), encoded(&refusal)]
}

pub(crate) fn values() -> Vec<Vec<u8>> {
    let nested = Value::List(vec![
        Value::Int(-300),
        Value::Str("text".to_owned()),
        Value::List(vec![Value::Null, Value::Bool(true), Value::Float(0.5)]),
        Value::Map(vec![(
            Value::Str("key".to_owned()),
            Value::Bytes(vec![1, 2]),
        )]),
    ]);
    let mut seeds = Vec::new();
    for value in [nested, Value::Int(i64::MIN), Value::Null] {
        let mut bytes = Vec::new();
        assert!(Item::<ValueCodec>::encode(&value, &mut bytes).is_ok());
        seeds.push(bytes);
    }
    // Lists in lists, deeper than any that would be let in.
    seeds.push(seeds[0][..1].repeat(500));
    seeds
}

pub(crate) fn runs() -> Vec<Vec<u8>> {
    // Lengths and tags by hand: a record of a key of three bytes and a part of five, and numbers of
    // a section with two blocks.
    let record = [&[3 << 2, 5][..], b"keypart!"].concat();
    let mut section = vec![0; 40];
    section[20] = 100;
    section[24] = 1;
    section[28] = 2;
    section.extend_from_slice(&[0xff; 64]);
    section.extend_from_slice(&[0; 16 + 12]);
    let column = [&[2 << 2, 1, 2, 3, 4, 5, 6][..]; 5].concat();
    vec![record.repeat(20), section, column, vec![0; 300]]
}

pub(crate) fn tokens() -> Vec<Vec<u8>> {
    let hash = "0123456789abcdef".repeat(4);
    let text = format!(
        "# tokens\n\nname sha256:{hash} a*,b?c read,write\nother sha256:{} * admin\n",
        hash.replace('0', "f")
    );
    vec![
        text.into_bytes(),
        "*a".repeat(300).into_bytes(),
        b"a*b?c*".to_vec(),
    ]
}

pub(crate) fn arguments() -> Vec<Vec<u8>> {
    [
        "512M",
        "1.5GiB",
        "65536",
        "18446744073709551615",
        "500ms",
        "24h",
        "rhash+tls://rhash_00@host.example:10080/",
        "[::1]:7",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}
