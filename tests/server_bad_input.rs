//! What a server does with what no client of it would send.

mod server_support;

use std::time::Duration;

use rhash_protocol::{
    Call, ErrorCode, Keys, Op, OpenMode, Ops, Request, Response, TableKind, WireError, codec,
    connection::FrameReader,
    frame::{Follow, FrameHead, FrameKind},
    handshake::{self, MAGIC},
    limits::{FRAME_BYTES_MAX, KEY_BYTES_MAX},
};
use server_support::{DEADLINE, Peer, ServerProcess, TestResult, keys_bytes, ops_bytes};
use tokio::{io::AsyncWriteExt as _, net::TcpStream, time::timeout};

/// Sends bytes instead of a hello; gives the refusal.
async fn refusal_of(server: &ServerProcess, bytes: &[u8]) -> TestResult<WireError> {
    let mut stream = TcpStream::connect(server.address).await?;
    stream.write_all(bytes).await?;
    let mut reader = FrameReader::new(stream);
    let frame = timeout(DEADLINE, reader.next())
        .await??
        .ok_or("closed without a word")?;
    let refusal = handshake::decode_refusal(frame)?;
    // Where the server did not read all that was sent, the end of the connection is abrupt.
    assert!(!matches!(
        timeout(DEADLINE, reader.next()).await?,
        Ok(Some(_))
    ));
    Ok(refusal)
}

#[tokio::test]
async fn strangers_are_told_what_they_have_reached() -> TestResult {
    let server = ServerProcess::start_small()?;
    let refusal = refusal_of(&server, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await?;
    assert_eq!(refusal.code, ErrorCode::BadRequest);
    assert!(refusal.text.contains("rhash-server"), "{}", refusal.text);
    assert!(
        refusal.text.contains("does not speak the rhash protocol"),
        "{}",
        refusal.text
    );

    let mut hello = MAGIC.to_vec();
    hello.extend_from_slice(&7u32.to_le_bytes());
    let mut bytes = FrameHead::whole(FrameKind::Hello, 0)
        .header(&hello)?
        .to_vec();
    bytes.extend_from_slice(&hello);
    let refusal = refusal_of(&server, &bytes).await?;
    assert_eq!(refusal.code, ErrorCode::WrongVersion);
    assert!(refusal.text.contains("version 7"), "{}", refusal.text);
    Ok(())
}

#[tokio::test]
async fn random_bytes_never_stop_the_server() -> TestResult {
    let server = ServerProcess::start_small()?;
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..100 {
        let mut stream = TcpStream::connect(server.address).await?;
        let bytes: Vec<u8> = (0..random.usize(..300)).map(|_| random.u8(..)).collect();
        stream.write_all(&bytes).await?;
    }
    for _ in 0..100 {
        // A good beginning, then noise in the place of frames.
        let mut peer = Peer::connect(&server).await?;
        let body: Vec<u8> = (0..random.usize(..100)).map(|_| random.u8(..)).collect();
        peer.writer
            .write_frame(FrameHead::whole(FrameKind::Request, 1), &body)
            .await?;
        peer.writer.flush().await?;
        let (_, answered) = peer.receive().await?;
        drop(answered.response()?);
    }
    let mut peer = Peer::connect(&server).await?;
    assert_eq!(peer.call(Request::Ping).await?.response()?, Response::Pong);
    Ok(())
}

#[tokio::test]
async fn a_damaged_frame_ends_the_connection_with_a_word() -> TestResult {
    let server = ServerProcess::start_small()?;
    let mut peer = Peer::connect(&server).await?;
    let good = FrameHead::whole(FrameKind::Request, 1).header(&[0, 0, 0])?;
    let mut stream = peer.reader.unread().to_vec();
    assert!(stream.is_empty());
    stream.extend_from_slice(&good);
    stream.extend_from_slice(&[0, 0, 1]);
    // The writer only makes good frames: the bad one goes as the body of nothing.
    write_raw(&mut peer, &stream).await?;
    let error = peer.last_word().await?;
    assert_eq!(error.code, ErrorCode::BadRequest);
    assert!(error.text.contains("checksum"), "{}", error.text);
    Ok(())
}

#[tokio::test]
async fn a_frame_over_the_limit_ends_the_connection_with_a_word() -> TestResult {
    let server = ServerProcess::start_small()?;
    let mut peer = Peer::connect(&server).await?;
    let mut header = FrameHead::whole(FrameKind::Request, 1).header(&[])?;
    header[..4].copy_from_slice(&(FRAME_BYTES_MAX as u32 + 1).to_le_bytes());
    write_raw(&mut peer, &header).await?;
    let error = peer.last_word().await?;
    assert!(
        error
            .text
            .contains("262145 bytes is over the limit of 262144"),
        "{}",
        error.text
    );
    Ok(())
}

#[tokio::test]
async fn frames_out_of_order_end_the_connection_with_a_word() -> TestResult {
    let server = ServerProcess::start_small()?;
    for (kind, words) in [
        (FrameKind::Chunk, "no message under way"),
        (FrameKind::Response, "only requests"),
    ] {
        let mut peer = Peer::connect(&server).await?;
        peer.writer
            .write_frame(FrameHead::whole(kind, 9), b"x")
            .await?;
        peer.writer.flush().await?;
        let error = peer.last_word().await?;
        assert!(error.text.contains(words), "{kind:?}: {}", error.text);
    }
    Ok(())
}

#[tokio::test]
async fn keys_and_values_over_their_limits_are_refused_and_the_connection_goes_on() -> TestResult {
    let server =
        ServerProcess::start(&["--memory-only", "--mem-limit", "24M", "--max-value", "1M"])?;
    let mut peer = Peer::connect(&server).await?;
    assert_eq!(peer.welcome.limits.value_bytes, 1 << 20);
    let (table, _) = peer.open(None).await?;
    let long_key = vec![1; KEY_BYTES_MAX + 1];
    let long_value = vec![2; (1 << 20) + 1];
    for (op, code) in [
        (
            Op::Put {
                key: &long_key,
                value: b"v",
            },
            ErrorCode::KeyTooLarge,
        ),
        (
            Op::Put {
                key: b"k",
                value: &long_value,
            },
            ErrorCode::ValueTooLarge,
        ),
    ] {
        // Whole or not at all: the good operation before the bad one is not applied either.
        let ops = ops_bytes(&[
            Op::Put {
                key: b"good",
                value: b"v",
            },
            op,
        ]);
        let request = Request::Write {
            table,
            ops: Ops::new(2, &ops),
        };
        assert_eq!(peer.call(request).await?.code()?, code);
    }
    let keys = keys_bytes(&[&long_key]);
    let request = Request::Get {
        table,
        keys: Keys::new(1, &keys),
    };
    assert_eq!(peer.call(request).await?.code()?, ErrorCode::KeyTooLarge);
    assert_eq!(peer.len(table).await?, 0);
    peer.put(table, &long_key[1..], &long_value[1..]).await?;
    assert_eq!(peer.len(table).await?, 1);
    Ok(())
}

#[tokio::test]
async fn a_request_longer_than_any_value_ends_the_connection() -> TestResult {
    let server = ServerProcess::start_small()?;
    let mut peer = Peer::connect(&server).await?;
    let chunk = vec![0; FRAME_BYTES_MAX];
    let mut kind = FrameKind::Request;
    // The server may close the connection while chunks are still on their way.
    for _ in 0..64 {
        let head = FrameHead {
            kind,
            follow: Follow::More,
            request_id: 1,
        };
        if peer.writer.write_frame(head, &chunk).await.is_err() {
            break;
        }
        kind = FrameKind::Chunk;
    }
    drop(peer);
    let mut peer = Peer::connect(&server).await?;
    assert_eq!(peer.call(Request::Ping).await?.response()?, Response::Pong);
    Ok(())
}

#[tokio::test]
async fn malformed_batches_names_and_calls_are_refused_and_the_connection_goes_on() -> TestResult {
    let server = ServerProcess::start_small()?;
    let mut peer = Peer::connect(&server).await?;
    let (table, _) = peer.open(None).await?;
    let ops = ops_bytes(&[Op::Put {
        key: b"k",
        value: b"v",
    }]);
    for ops in [
        Ops::new(2, &ops),
        Ops::new(0, &ops),
        Ops::new(1, b"\xff\x01k"),
    ] {
        let answered = peer.call(Request::Write { table, ops }).await?;
        assert_eq!(answered.code()?, ErrorCode::BadRequest, "{ops:?}");
    }
    let keys = Keys::new(3, b"\x01k");
    let answered = peer.call(Request::Get { table, keys }).await?;
    assert_eq!(answered.code()?, ErrorCode::BadRequest);
    for name in ["", &"x".repeat(256)] {
        let (kind, codec) = (Some(TableKind::Values), Some("bytes"));
        let mode = OpenMode::OpenOrCreate;
        let open = Request::Open {
            name: Some(name),
            kind,
            codec,
            mode,
            durability: None,
        };
        assert_eq!(
            peer.call(open).await?.code()?,
            ErrorCode::BadRequest,
            "{name:?}"
        );
    }
    let mut body = Vec::new();
    codec::encode(
        &Call {
            sequence: 0,
            settled: 0,
            request: Request::Ping,
        },
        &mut body,
    )?;
    body.push(0);
    peer.writer
        .write_frame(FrameHead::whole(FrameKind::Request, 77), &body)
        .await?;
    peer.writer.flush().await?;
    assert_eq!(
        peer.answer_to(77).await?.code()?,
        ErrorCode::BadRequest,
        "a byte left over"
    );
    assert_eq!(peer.len(table).await?, 0);
    Ok(())
}

#[tokio::test]
async fn half_sent_requests_of_many_do_not_hold_up_another_nor_fill_the_memory() -> TestResult {
    let server = ServerProcess::start_small()?;
    let before = server.status_bytes("RssAnon")?;
    let mut halves = Vec::new();
    for _ in 0..60 {
        let mut peer = Peer::connect(&server).await?;
        let chunk = vec![1; FRAME_BYTES_MAX];
        let mut kind = FrameKind::Request;
        // 2 MiB of a request that never ends; the server takes what it has room for.
        for _ in 0..8 {
            let head = FrameHead {
                kind,
                follow: Follow::More,
                request_id: 1,
            };
            let written = peer.writer.write_frame(head, &chunk);
            if timeout(Duration::from_millis(20), written).await.is_err() {
                break;
            }
            kind = FrameKind::Chunk;
        }
        halves.push(peer);
    }
    let mut peer = Peer::connect(&server).await?;
    let (table, _) = peer.open(None).await?;
    peer.put(table, b"k", b"v").await?;
    assert_eq!(peer.get(table, b"k").await?, Some(b"v".to_vec()));
    let taken = server.status_bytes("RssAnon")?;
    assert!(
        taken < 24 << 20,
        "{before} bytes before, {taken} with 60 half requests"
    );
    drop(halves);
    // With the halves gone there is room for a long request again.
    peer.put(table, b"long", &vec![3; 2 << 20]).await?;
    assert_eq!(peer.len(table).await?, 2);
    Ok(())
}

#[tokio::test]
async fn a_frame_that_comes_in_pieces_is_taken_when_it_is_whole() -> TestResult {
    let server = ServerProcess::start_small()?;
    let (mut slow, mut other) = (Peer::connect(&server).await?, Peer::connect(&server).await?);
    let mut body = Vec::new();
    codec::encode(
        &Call {
            sequence: 0,
            settled: 0,
            request: Request::Ping,
        },
        &mut body,
    )?;
    let mut bytes = FrameHead::whole(FrameKind::Request, 5)
        .header(&body)?
        .to_vec();
    bytes.extend_from_slice(&body);
    for byte in bytes {
        write_raw(&mut slow, &[byte]).await?;
        assert_eq!(other.call(Request::Ping).await?.response()?, Response::Pong);
    }
    assert_eq!(slow.answer_to(5).await?.response()?, Response::Pong);
    Ok(())
}

#[tokio::test]
async fn a_write_of_which_half_was_sent_is_not_applied() -> TestResult {
    let server = ServerProcess::start_small()?;
    let mut peer = Peer::connect(&server).await?;
    let (table, _) = peer.open(None).await?;
    let ops = ops_bytes(&[Op::Put {
        key: b"k",
        value: &[1; 1000],
    }]);
    let request = Request::Write {
        table,
        ops: Ops::new(1, &ops),
    };
    let call = Call {
        sequence: 2,
        settled: 1,
        request,
    };
    let mut body = Vec::new();
    codec::encode(&call, &mut body)?;
    let header = FrameHead::whole(FrameKind::Request, 9).header(&body)?;
    write_raw(&mut peer, &header).await?;
    write_raw(&mut peer, &body[..500]).await?;
    let ticket = peer.welcome.ticket;
    drop(peer);
    let mut peer = Peer::greet(&server, Some(ticket))
        .await?
        .map_err(|refusal| refusal.text)?;
    assert_eq!(peer.len(table).await?, 0);
    let sent = peer.send_call(&call).await?;
    assert!(matches!(
        peer.answer_to(sent).await?.response()?,
        Response::Written(_)
    ));
    assert_eq!(peer.len(table).await?, 1);
    Ok(())
}

#[tokio::test]
async fn one_connection_too_many_is_told_so_and_the_others_go_on() -> TestResult {
    let server = ServerProcess::start_small()?;
    let mut peers = Vec::new();
    let refusal = loop {
        match Peer::greet(&server, None).await? {
            Ok(peer) => peers.push(peer),
            Err(refusal) => break refusal,
        }
        assert!(peers.len() < 1000, "no bound under 24 MiB");
    };
    assert_eq!(refusal.code, ErrorCode::Busy);
    assert!(
        refusal
            .text
            .contains(&format!("{} connections", peers.len())),
        "{}",
        refusal.text
    );
    for peer in &mut peers {
        assert_eq!(peer.call(Request::Ping).await?.response()?, Response::Pong);
    }
    let taken = server.status_bytes("RssAnon")?;
    assert!(
        taken < 24 << 20,
        "{taken} bytes for {} connections",
        peers.len()
    );
    Ok(())
}

/// Writes bytes that are no frame.
async fn write_raw(peer: &mut Peer, bytes: &[u8]) -> TestResult {
    peer.writer.get_mut().write_all(bytes).await?;
    Ok(())
}
