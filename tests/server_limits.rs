//! Each limit of the server holds, is told in the error that it makes, and is shown by `stats`.

mod server_support;

use std::time::Instant;

use rhash_client::{Client, RemoteHash};
use rhash_protocol::{
    ErrorCode, Keys, LimitInfo, Op, OpenMode, Ops, Request, Response, ScanWhat, TableKind,
    WireError,
    connection::FrameReader,
    frame::{Follow, FrameHead, FrameKind},
    handshake,
};
use server_support::{DEADLINE, Peer, ServerProcess, TestResult, keys_bytes, ops_bytes};
use tokio::{net::TcpStream, time::timeout};

fn start(args: &[&str]) -> TestResult<ServerProcess> {
    let small = ["--memory-only", "--mem-limit", "24M"];
    ServerProcess::start(&[&small[..], args].concat())
}

async fn limit(peer: &mut Peer, name: &str) -> TestResult<LimitInfo> {
    let answer = peer.call(Request::Stats).await?;
    match answer.response()? {
        Response::Stats(stats) => {
            let found = stats.limits.into_iter().find(|limit| limit.name == name);
            Ok(found.ok_or_else(|| format!("no limit {name}"))?)
        }
        response => Err(format!("{response:?}").into()),
    }
}

async fn open(peer: &mut Peer, name: &str, mode: OpenMode) -> TestResult<Result<(), WireError>> {
    let open = Request::Open {
        name: Some(name),
        kind: Some(TableKind::Values),
        codec: Some("bytes"),
        mode,
        durability: None,
    };
    Ok(match peer.call(open).await?.response()? {
        Response::Error(error) => Err(error),
        _ => Ok(()),
    })
}

/// The error's code, and whether it says what was given, the limit or the way out.
fn assert_error(result: Result<(), WireError>, code: ErrorCode, words: &[&str]) {
    let error = result.expect_err("it is over the limit");
    assert_eq!(error.code, code, "{}", error.text);
    for word in words {
        assert!(error.text.contains(word), "no {word:?} in: {}", error.text);
    }
}

/// What a server says to a connection that has said nothing.
async fn word_to_a_stranger(stream: TcpStream) -> TestResult<WireError> {
    let mut reader = FrameReader::new(stream);
    let frame = timeout(DEADLINE, reader.next()).await??;
    Ok(handshake::decode_refusal(
        frame.ok_or("closed without a word")?,
    )?)
}

#[tokio::test]
async fn connections_and_sessions_are_bounded() -> TestResult {
    let server = start(&["--max-connections=3", "--max-sessions=2"])?;
    let mut first = Peer::connect(&server).await?;
    first.open(None).await?;
    let mut second = Peer::connect(&server).await?;
    second.open(None).await?;
    let third = Peer::greet(&server, None).await?.map(drop);
    assert_error(third, ErrorCode::Busy, &["2 sessions", "try again"]);
    // The third connection may take a moment to go.
    let began = Instant::now();
    while limit(&mut first, "connections").await?.used != Some(2) {
        assert!(began.elapsed() < DEADLINE);
    }
    let _third = TcpStream::connect(server.address).await?;
    while limit(&mut first, "connections").await?.used != Some(3) {
        assert!(began.elapsed() < DEADLINE);
    }
    let fourth = Peer::greet(&server, None).await?.map(drop);
    assert_error(fourth, ErrorCode::Busy, &["3 connections", "try again"]);
    let connections = limit(&mut first, "connections").await?;
    assert_eq!((connections.max, connections.reached), (3, 1));
    assert_eq!(limit(&mut first, "sessions").await?.reached, 1);
    Ok(())
}

#[tokio::test]
async fn tables_that_are_made_at_the_same_time_are_no_more_than_the_limit() -> TestResult {
    let server = start(&["--max-tables=4"])?;
    let mut observer = Peer::connect(&server).await?;
    for round in 0..5 {
        let mut connected = Vec::new();
        for _ in 0..40 {
            connected.push(Peer::connect(&server).await?);
        }
        let mut peers = Vec::new();
        for (number, mut peer) in connected.into_iter().enumerate() {
            let name = format!("{round}-{number}");
            let named = (number % 2 == 0).then_some(name.as_str());
            let open = Request::Open {
                name: named,
                kind: Some(TableKind::Values),
                codec: Some("bytes"),
                mode: OpenMode::OpenOrCreate,
                durability: None,
            };
            let sent = peer.send(open).await?;
            peers.push((peer, sent));
        }
        let mut made = Vec::new();
        for (peer, sent) in &mut peers {
            match peer.answer_to(*sent).await?.response()? {
                Response::Opened { table, .. } => made.push(table),
                Response::Error(error) => {
                    let words = ["4 tables", "close some"];
                    assert_error(Err(error), ErrorCode::Busy, &words);
                }
                response => return Err(format!("{response:?}").into()),
            }
        }
        assert_eq!(made.len(), 4, "in round {round}");
        assert_eq!(limit(&mut observer, "tables").await?.used, Some(4));
        for (peer, _) in &mut peers {
            for &table in &made {
                // Only one of them has it open.
                drop(peer.call(Request::Close { table }).await?);
            }
        }
        assert_eq!(limit(&mut observer, "tables").await?.used, Some(0));
    }
    assert_eq!(limit(&mut observer, "tables").await?.reached, 5 * 36);
    Ok(())
}

#[tokio::test]
async fn of_connections_that_say_nothing_the_oldest_goes() -> TestResult {
    let server = start(&["--max-connections-before-hello=2", "--hello-timeout=1h"])?;
    let mut peer = Peer::connect(&server).await?;
    let mut silent = Vec::new();
    for _ in 0..3 {
        silent.push(TcpStream::connect(server.address).await?);
    }
    let [first, second, third] = <[_; 3]>::try_from(silent).map_err(|_streams| "not three")?;
    // They reach the server in this order, but are looked at by several threads.
    let word = tokio::select! {
        word = word_to_a_stranger(first) => word?,
        word = word_to_a_stranger(second) => word?,
        word = word_to_a_stranger(third) => word?,
    };
    assert_eq!(word.code, ErrorCode::Busy);
    for _ in 0..10 {
        Peer::connect(&server).await?;
    }
    let strangers = limit(&mut peer, "connections_before_hello").await?;
    assert!(
        strangers.reached >= 1 && strangers.used <= Some(2),
        "{strangers:?}"
    );
    Ok(())
}

#[tokio::test]
async fn who_says_no_hello_in_time_is_told_so() -> TestResult {
    let server = start(&["--hello-timeout=50ms"])?;
    let word = word_to_a_stranger(TcpStream::connect(server.address).await?).await?;
    assert_eq!(word.text, "no hello within 0.05 s");
    let mut peer = Peer::connect(&server).await?;
    assert_eq!(limit(&mut peer, "hello_ms").await?.reached, 1);
    Ok(())
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_its_client_comes_back() -> TestResult {
    let server = start(&["--idle-timeout=1ms"])?;
    let client = Client::connect(&server.address.to_string()).await?;
    let table: RemoteHash<String, u32> = client.temporary().open().await?;
    table.insert("key", 1).await?;
    table.flush().await?;
    let mut idle = Peer::connect(&server).await?;
    assert!(idle.frame().await?.is_none(), "closed");
    // Its temporary table lives on with the session, and so do its values.
    table.insert("other", 2).await?;
    assert_eq!((table.len().await?, table.get("key").await?), (2, Some(1)));
    Ok(())
}

#[tokio::test]
async fn tables_and_their_names_are_bounded() -> TestResult {
    use OpenMode::{CreateNew, OpenOrCreate};
    let server = start(&[
        "--max-tables=3",
        "--max-tables-per-session=2",
        "--max-table-name=5",
    ])?;
    let mut first = Peer::connect(&server).await?;
    open(&mut first, "a", CreateNew)
        .await?
        .map_err(|error| error.text)?;
    open(&mut first, "b", CreateNew)
        .await?
        .map_err(|error| error.text)?;
    let third = open(&mut first, "c", CreateNew).await?;
    assert_error(third, ErrorCode::Busy, &["2 tables open", "close some"]);
    let mut second = Peer::connect(&server).await?;
    open(&mut second, "c", CreateNew)
        .await?
        .map_err(|error| error.text)?;
    for mode in [CreateNew, OpenOrCreate] {
        let fourth = open(&mut second, "d", mode).await?;
        assert_error(fourth, ErrorCode::Busy, &["3 tables", "close some"]);
    }
    assert_eq!(
        open(&mut second, "a", OpenOrCreate).await?,
        Ok(()),
        "it is there"
    );
    let mut third = Peer::connect(&server).await?;
    let temporary = third.open(None).await;
    assert!(temporary.is_err(), "{temporary:?}");
    let long = open(&mut third, "longer", OpenOrCreate).await?;
    assert_error(long, ErrorCode::BadRequest, &["6 bytes", "limit is 5"]);
    let tables = limit(&mut third, "tables").await?;
    assert_eq!((tables.max, tables.used, tables.reached), (3, Some(3), 3));
    assert_eq!(limit(&mut third, "table_name_bytes").await?.reached, 1);
    Ok(())
}

// A name is data: whatever it looks like, no file is called by it.
#[tokio::test]
async fn a_name_is_never_a_path() -> TestResult {
    let dir = tempfile::tempdir()?;
    let data = dir.path().join("data");
    let server = ServerProcess::start_in(&data)?;
    let mut peer = Peer::connect(&server).await?;
    for name in ["../escaped", "/tmp/rhash-escaped", "a/b", "..", "MANIFEST"] {
        let (table, _) = peer.open(Some(name)).await?;
        peer.put(table, b"key", b"value").await?;
    }
    for name in ["", "nul\0", "line\n", "esc\u{1b}[0m"] {
        let refused = open(&mut peer, name, OpenMode::OpenOrCreate).await?;
        assert_error(refused, ErrorCode::BadRequest, &["name"]);
    }
    drop(peer);
    assert!(server.stop()?.success());
    let beside: Vec<_> = std::fs::read_dir(dir.path())?.collect::<Result<_, _>>()?;
    assert_eq!(beside.len(), 1, "{beside:?}");
    assert!(!std::path::Path::new("/tmp/rhash-escaped").exists());
    let server = ServerProcess::start_in(&data)?;
    let mut peer = Peer::connect(&server).await?;
    let (table, _) = peer.open(Some("../escaped")).await?;
    assert_eq!(
        peer.get(table, b"key").await?.as_deref(),
        Some(&b"value"[..])
    );
    Ok(())
}

#[tokio::test]
async fn keys_batches_and_frames_are_bounded() -> TestResult {
    let server = start(&["--max-key=16", "--max-batch=2", "--max-frame=4K"])?;
    let mut peer = Peer::connect(&server).await?;
    assert_eq!(peer.welcome.limits.key_bytes, 16);
    assert_eq!(peer.welcome.limits.frame_bytes, 4096);
    let (table, _) = peer.open(Some("t")).await?;
    let (good, long) = ([b'k'; 16], [b'k'; 17]);
    peer.put(table, &good, b"value").await?;

    let put = Op::Put {
        key: &long,
        value: b"",
    };
    let (ops, keys) = (ops_bytes(&[put]), keys_bytes(&[&long]));
    let write = Request::Write {
        table,
        ops: Ops::new(1, &ops),
    };
    let get = Request::Get {
        table,
        keys: Keys::new(1, &keys),
    };
    let fetch = Request::Fetch { table, key: &long };
    for request in [write, get, fetch] {
        let error = peer.call(request).await?.error()?;
        assert_error(
            Err(error),
            ErrorCode::KeyTooLarge,
            &["17 bytes", "limit is 16"],
        );
    }
    assert_eq!(limit(&mut peer, "key_bytes").await?.reached, 3);

    let keys = keys_bytes(&[b"a", b"b", b"c"]);
    let keys = Keys::new(3, &keys);
    let error = peer
        .call(Request::Contains { table, keys })
        .await?
        .error()?;
    assert_error(
        Err(error),
        ErrorCode::BadRequest,
        &["3 operations or keys", "limit is 2"],
    );

    let frame = FrameHead {
        kind: FrameKind::Request,
        follow: Follow::Last,
        request_id: 9,
    };
    let mut other = Peer::connect(&server).await?;
    other.writer.write_frame(frame, &[0; 4097]).await?;
    other.writer.flush().await?;
    let word = other.last_word().await?;
    assert!(
        word.text.contains("4097 bytes is over the limit of 4096"),
        "{}",
        word.text
    );
    assert_eq!(limit(&mut peer, "frame_bytes").await?.reached, 1);

    // Clients follow what they are told.
    let client = Client::connect(&server.address.to_string()).await?;
    let table: RemoteHash<String, String> = client.table("long").open().await?;
    let value = "v".repeat(100_000);
    table.insert("key", value.as_str()).await?;
    table.flush().await?;
    let other = Client::connect(&server.address.to_string()).await?;
    let same: RemoteHash<String, String> = other.table("long").open().await?;
    assert_eq!(same.get("key").await?, Some(value));
    Ok(())
}

// A scan's next page that was asked for ahead, of a table that was closed meanwhile, once kept the
// room that its own refusal waited for.
#[tokio::test]
async fn a_read_that_is_refused_does_not_wait_for_its_own_room() -> TestResult {
    let server = start(&["--max-answers-in-flight=192K"])?;
    let mut peer = Peer::connect(&server).await?;
    let scan = Request::Scan {
        table: 77,
        cursor: None,
        what: ScanWhat::Items,
        entries_max: 10,
    };
    let answer = timeout(DEADLINE, peer.call(scan)).await??;
    let Response::Error(error) = answer.response()? else {
        return Err("a table that nobody has opened was scanned".into());
    };
    assert_eq!(error.code, ErrorCode::NoSuchTable, "{}", error.text);
    Ok(())
}

#[test]
fn a_limit_that_makes_no_sense_is_a_usage_error() -> TestResult {
    let output = server_support::run_to_end(&["--mem-limit", "24M", "--max-batch=0"])?;
    let stderr = String::from_utf8(output.stderr)?;
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr.contains("--max-batch 0 is not between 1 and 65536"),
        "{stderr}"
    );
    Ok(())
}
