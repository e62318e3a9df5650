//! Tables over the wire: every operation, in RAM and on disk, and what comes out of order.

mod server_support;

use std::{collections::BTreeMap, path::Path};

use rhash_protocol::{
    ErrorCode, Keys, Op, OpenMode, Ops, Outcome, Request, Response, ScanWhat, Slot, TableKind,
    codec,
    frame::{Follow, FrameKind},
};
use server_support::{Peer, ServerProcess, TestResult, keys_bytes, ops_bytes};

/// A server whose tables are mostly on disk: 20 MB of values under a limit of 24.
async fn server_with_cold_values(dir: &Path) -> TestResult<(ServerProcess, Peer, u64)> {
    let server = ServerProcess::start_in(dir)?;
    let mut peer = Peer::connect(&server).await?;
    let (table, _) = peer.open(Some("cold")).await?;
    let mut number = 0u32;
    while number < 20_000 {
        let keys: Vec<[u8; 4]> = (number..number + 100).map(u32::to_be_bytes).collect();
        let values: Vec<Vec<u8>> = (number..number + 100).map(value).collect();
        let puts: Vec<Op<'_>> = keys
            .iter()
            .zip(&values)
            .map(|(key, value)| Op::Put { key, value })
            .collect();
        peer.write(table, &puts).await?;
        number += 100;
    }
    Ok((server, peer, table))
}

fn value(number: u32) -> Vec<u8> {
    number.to_le_bytes().repeat(256)
}

#[tokio::test]
async fn conditional_operations_tell_what_was_there() -> TestResult {
    let server = ServerProcess::start_small()?;
    let mut peer = Peer::connect(&server).await?;
    let (table, _) = peer.open(None).await?;
    let key = b"k".as_slice();
    let ops = [
        Op::Replace { key, value: b"0" },
        Op::PutIfAbsent { key, value: b"1" },
        Op::PutIfAbsent { key, value: b"2" },
        Op::CompareAndSwap {
            key,
            expected: Some(b"9"),
            new: Some(b"3"),
        },
        Op::CompareAndSwap {
            key,
            expected: Some(b"1"),
            new: Some(b"3"),
        },
        Op::Put { key, value: b"4" },
        Op::Replace { key, value: b"5" },
        Op::Remove { key },
        Op::Remove { key },
    ];
    let bytes = ops_bytes(&ops);
    let request = Request::Write {
        table,
        ops: Ops::new(ops.len() as u32, &bytes),
    };
    let answered = peer.call(request).await?;
    let Response::Written(outcomes) = answered.response()? else {
        return Err("no".into());
    };
    let outcomes: Result<Vec<_>, _> = outcomes.iter().collect();
    let expected = [
        Outcome::Absent,
        Outcome::Absent,
        Outcome::Value(b"1"),
        Outcome::Value(b"1"),
        Outcome::Swapped,
        Outcome::Value(b"4"),
        Outcome::Value(b"5"),
        Outcome::Absent,
    ];
    assert_eq!(outcomes?, expected);
    Ok(())
}

#[tokio::test]
async fn a_table_is_opened_as_what_it_is() -> TestResult {
    let server = ServerProcess::start_small()?;
    let mut peer = Peer::connect(&server).await?;
    peer.open(Some("t")).await?;
    let open = |name, kind, codec, mode| Request::Open {
        name: Some(name),
        kind,
        codec,
        mode,
        durability: None,
    };
    let (values, lists) = (Some(TableKind::Values), Some(TableKind::Lists));
    let bytes = Some("bytes");
    for (request, code) in [
        (
            open("t", lists, bytes, OpenMode::OpenOrCreate),
            ErrorCode::WrongKind,
        ),
        (
            open("t", values, Some("value"), OpenMode::OpenOrCreate),
            ErrorCode::WrongCodec,
        ),
        (
            open("t", values, bytes, OpenMode::CreateNew),
            ErrorCode::TableExists,
        ),
        (
            open("u", values, bytes, OpenMode::Existing),
            ErrorCode::NoSuchTable,
        ),
        (
            open("u", None, None, OpenMode::OpenOrCreate),
            ErrorCode::NoSuchTable,
        ),
    ] {
        assert_eq!(
            peer.call(request.clone()).await?.code()?,
            code,
            "{request:?}"
        );
    }
    let answered = peer.call(open("t", None, None, OpenMode::Existing)).await?;
    let Response::Opened {
        kind,
        codec,
        created,
        ..
    } = answered.response()?
    else {
        return Err("not opened".into());
    };
    assert_eq!(
        (kind, codec.as_str(), created),
        (TableKind::Values, "bytes", false)
    );
    Ok(())
}

#[tokio::test]
async fn cold_reads_are_right_and_do_not_hold_up_what_follows() -> TestResult {
    let dir = tempfile::tempdir()?;
    let (server, mut peer, table) = server_with_cold_values(dir.path()).await?;
    let answered = peer.call(Request::Stats).await?;
    let Response::Stats(stats) = answered.response()? else {
        return Err("no stats".into());
    };
    assert!(
        stats.spilled_entries > 0 && stats.tables[0].cold_bytes > 0,
        "{stats:?}"
    );

    // Many gets at once, then pings: answers come in any order, each to its request.
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut waiting = BTreeMap::new();
    for _ in 0..500 {
        let number = random.u32(..20_000);
        let keys = keys_bytes(&[&number.to_be_bytes()]);
        let request = Request::Get {
            table,
            keys: Keys::new(1, &keys),
        };
        waiting.insert(peer.send(request).await?, Some(number));
        waiting.insert(peer.send(Request::Ping).await?, None);
    }
    while !waiting.is_empty() {
        let (request_id, answered) = peer.receive().await?;
        match (waiting.remove(&request_id), answered.response()?) {
            (Some(Some(number)), Response::Values(values)) => {
                let expected = value(number);
                assert_eq!(
                    values.iter().next(),
                    Some(Ok(Slot::Value(&expected))),
                    "{number}"
                );
            }
            (Some(None), Response::Pong) => {}
            (asked, response) => return Err(format!("{asked:?}: {response:?}").into()),
        }
    }
    let taken = server.status_bytes("RssAnon")?;
    assert!(taken < 24 << 20, "{taken} bytes");
    Ok(())
}

#[tokio::test]
async fn a_read_sees_the_writes_that_were_sent_before_it() -> TestResult {
    let dir = tempfile::tempdir()?;
    let (_server, mut peer, table) = server_with_cold_values(dir.path()).await?;
    for number in 0..100u32 {
        let key = number.to_be_bytes();
        let keys = keys_bytes(&[&key]);
        let get = Request::Get {
            table,
            keys: Keys::new(1, &keys),
        };
        let before = peer.send(get.clone()).await?;
        let ops = ops_bytes(&[Op::Put {
            key: &key,
            value: b"new",
        }]);
        let write = peer
            .send(Request::Write {
                table,
                ops: Ops::new(1, &ops),
            })
            .await?;
        let after = peer.send(get).await?;
        let mut answers = BTreeMap::new();
        for _ in 0..3 {
            let (request_id, answered) = peer.receive().await?;
            answers.insert(request_id, answered);
        }
        let old = value(number);
        for (request_id, expected) in [(before, old.as_slice()), (after, b"new")] {
            let Response::Values(values) = answers[&request_id].response()? else {
                return Err("no values".into());
            };
            assert_eq!(
                values.iter().next(),
                Some(Ok(Slot::Value(expected))),
                "{number}"
            );
        }
        assert!(matches!(answers[&write].response()?, Response::Written(_)));
    }
    Ok(())
}

#[tokio::test]
async fn a_scan_goes_on_from_its_cursor_over_another_connection() -> TestResult {
    let dir = tempfile::tempdir()?;
    let (server, mut peer, table) = server_with_cold_values(dir.path()).await?;
    let mut cursor: Option<Vec<u8>> = None;
    let mut seen = BTreeMap::new();
    loop {
        let (what, entries_max) = (ScanWhat::Keys, 3000);
        let request = Request::Scan {
            table,
            cursor: cursor.as_deref(),
            what,
            entries_max,
        };
        let answered = peer.call(request).await?;
        let Response::Page(page) = answered.response()? else {
            return Err("no page".into());
        };
        assert!(page.entries.count() <= 3000);
        for entry in page.entries.iter() {
            *seen.entry(entry?.key.to_vec()).or_insert(0) += 1;
        }
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
        peer = Peer::connect(&server).await?;
        assert_eq!(peer.open(Some("cold")).await?.0, table);
    }
    assert_eq!(seen.len(), 20_000);
    assert!(seen.values().all(|&times| times == 1));
    assert_eq!(peer.len(table).await?, 20_000);
    Ok(())
}

#[tokio::test]
async fn a_list_larger_than_memory_is_fetched_as_a_stream_between_other_answers() -> TestResult {
    const PARTS: u32 = 160;
    let dir = tempfile::tempdir()?;
    let server = ServerProcess::start_in(dir.path())?;
    let mut peer = Peer::connect(&server).await?;
    let (table, _) = peer.open_kind(Some("lists"), TableKind::Lists).await?;
    for number in 0..PARTS {
        let bytes = vec![number as u8; 256 * 1024];
        peer.write(
            table,
            &[Op::Append {
                key: b"long",
                bytes: &bytes,
            }],
        )
        .await?;
    }
    let fetch = peer
        .send(Request::Fetch {
            table,
            key: b"long",
        })
        .await?;
    let ping = peer.send(Request::Ping).await?;
    let (mut at, mut ponged_at) = (0usize, None);
    loop {
        let frame = peer.frame().await?.ok_or("closed")?;
        match (frame.head.kind, frame.head.request_id) {
            (FrameKind::Response, id) if id == ping => ponged_at = Some(at),
            (FrameKind::Response, id) if id == fetch => {
                let response = codec::decode::<Response<'_>>(frame.body)?;
                assert_eq!(response, Response::Stream { present: true });
                assert_eq!(frame.head.follow, Follow::More);
            }
            (FrameKind::Chunk, id) if id == fetch => {
                for &byte in frame.body {
                    assert_eq!(usize::from(byte), at / (256 * 1024), "byte {at}");
                    at += 1;
                }
                if frame.head.follow == Follow::Last {
                    break;
                }
            }
            _ => return Err(format!("{frame:?}").into()),
        }
    }
    assert_eq!(
        at,
        PARTS as usize * 256 * 1024,
        "40 MiB under a limit of 24"
    );
    assert!(
        ponged_at.is_some_and(|pong| pong < at),
        "the ping did not wait for the end"
    );
    let taken = server.status_bytes("RssAnon")?;
    assert!(taken < 24 << 20, "{taken} bytes");

    let absent = peer
        .call(Request::Fetch {
            table,
            key: b"none",
        })
        .await?;
    assert_eq!(absent.response()?, Response::Stream { present: false });
    Ok(())
}

#[tokio::test]
async fn a_server_without_a_disk_refuses_what_it_has_no_room_for_and_keeps_the_rest() -> TestResult
{
    let server = ServerProcess::start_small()?;
    let mut peer = Peer::connect(&server).await?;
    assert!(peer.welcome.memory_only);
    let (table, _) = peer.open(None).await?;
    let value = vec![7; 100_000];
    let mut stored = 0u32;
    let error = loop {
        let key = stored.to_be_bytes();
        let second = (stored + 1).to_be_bytes();
        let put = |key| Op::Put { key, value: &value };
        let ops = ops_bytes(&[put(&key), put(&second)]);
        let answered = peer
            .call(Request::Write {
                table,
                ops: Ops::new(2, &ops),
            })
            .await?;
        match answered.response()? {
            Response::Written(_) => stored += 2,
            Response::Error(error) => break error,
            response => return Err(format!("{response:?}").into()),
        }
        assert!(stored < 1000, "100 MB under a limit of 24");
    };
    assert_eq!(error.code, ErrorCode::OutOfMemory);
    assert!(stored > 20, "only {stored} values of 100 kB fit 24 MiB");
    assert_eq!(
        peer.len(table).await?,
        u64::from(stored),
        "the batch as a whole was refused"
    );
    for number in 0..stored {
        assert!(
            peer.get(table, &number.to_be_bytes()).await?.is_some(),
            "{number}"
        );
    }
    let discards: Vec<[u8; 4]> = (0..stored).map(u32::to_be_bytes).collect();
    let discards: Vec<Op<'_>> = discards.iter().map(|key| Op::Discard { key }).collect();
    peer.write(table, &discards).await?;
    peer.put(table, b"again", &value).await?;
    let taken = server.status_bytes("RssAnon")?;
    assert!(taken < 24 << 20, "{taken} bytes");
    Ok(())
}

#[tokio::test]
async fn the_figures_count_what_was_done() -> TestResult {
    let server = ServerProcess::start_small()?;
    let mut peer = Peer::connect(&server).await?;
    let (table, _) = peer.open(Some("t")).await?;
    peer.write(
        table,
        &[
            Op::Put {
                key: b"a",
                value: b"",
            },
            Op::Discard { key: b"b" },
        ],
    )
    .await?;
    peer.get(table, b"a").await?;
    let _second = Peer::connect(&server).await?;
    let answered = peer.call(Request::Stats).await?;
    let Response::Stats(stats) = answered.response()? else {
        return Err("no stats".into());
    };
    assert_eq!(stats.version, env!("CARGO_PKG_VERSION"));
    assert_eq!(
        (stats.connections, stats.sessions, stats.operations),
        (2, 2, 3)
    );
    assert_eq!((stats.memory_only, stats.mem_limit_bytes), (true, 24 << 20));
    assert!(stats.resident_bytes > 0 && stats.resident_bytes < 24 << 20);
    let [info] = stats.tables.as_slice() else {
        return Err("not one table".into());
    };
    assert_eq!(
        (info.name.as_deref(), info.table, info.sessions),
        (Some("t"), table, 1)
    );
    Ok(())
}
