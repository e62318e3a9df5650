//! Named tables and the sessions that write to them survive their server: what was answered is there,
//! and what is sent again is applied once.

mod server_support;

use std::path::Path;

use rhash_protocol::{
    Call, ErrorCode, Op, Ops, Outcome, Request, Response, TableId, TableKind, handshake::Ticket,
};
use server_support::{Peer, ServerProcess, TestResult, ops_bytes};

const ADD: Op<'static> = Op::AddAndGet {
    key: b"n",
    delta: 1,
};

/// How a server ends.
#[derive(Debug, Clone, Copy)]
enum End {
    Kill,
    Stop,
}

fn start(listen: &str, dir: &Path, durability: &str) -> TestResult<ServerProcess> {
    let data = dir.to_str().ok_or("not UTF-8")?;
    let args = ["--mem-limit", "24M", "--data", data, "--durability"];
    ServerProcess::start_at(listen, &[&args[..], &[durability]].concat())
}

/// Ends a server, and starts it again where it was.
fn restart(
    server: ServerProcess,
    dir: &Path,
    durability: &str,
    end: End,
) -> TestResult<ServerProcess> {
    let address = server.address.to_string();
    match end {
        End::Kill => drop(server),
        End::Stop => assert!(server.stop()?.success()),
    }
    start(&address, dir, durability)
}

async fn resume(server: &ServerProcess, ticket: Ticket) -> TestResult<Peer> {
    let peer = Peer::greet(server, Some(ticket)).await?;
    let peer = peer.map_err(|refusal| refusal.text)?;
    assert!(peer.welcome.resumed);
    Ok(peer)
}

/// Sends an addition of 1 under a number, with what is settled.
async fn send_add(peer: &mut Peer, table: TableId, sequence: u64, settled: u64) -> TestResult<u64> {
    let ops = ops_bytes(&[ADD]);
    let call = Call {
        sequence,
        settled,
        request: Request::Write {
            table,
            ops: Ops::new(1, &ops),
        },
    };
    peer.send_call(&call).await
}

/// The sum that an addition was answered with.
async fn sum(peer: &mut Peer, request: u64) -> TestResult<i64> {
    let answered = peer.answer_to(request).await?;
    match answered.response()? {
        Response::Written(outcomes) => match outcomes.iter().next().ok_or("no outcome")?? {
            Outcome::Value(value) => Ok(i64::from_le_bytes(value.try_into()?)),
            other => Err(format!("{other:?}").into()),
        },
        other => Err(format!("{other:?}").into()),
    }
}

/// Additions are sent, the server ends before most of them are answered, and all are sent again to the next
/// one: each gets the sum that it made the first time.
#[tokio::test]
async fn a_write_that_is_sent_again_to_the_next_server_gets_its_first_answer() -> TestResult {
    for durability in ["everysec", "always"] {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        let dir = tempfile::tempdir()?;
        let mut server = start("127.0.0.1:0", dir.path(), durability)?;
        let mut peer = Peer::connect(&server).await?;
        let ticket = peer.welcome.ticket;
        let (table, _) = peer.open_kind(Some("sums"), TableKind::Counters).await?;
        let mut settled = peer.sequence;
        let before = settled as i64;
        for round in 0..8 {
            let last = settled + rng.u64(1..60);
            let mut sent = Vec::new();
            for sequence in settled + 1..=last {
                sent.push(send_add(&mut peer, table, sequence, settled).await?);
            }
            let read = rng.usize(..=sent.len());
            for (number, request) in (settled + 1..).zip(sent.drain(..read)) {
                assert_eq!(sum(&mut peer, request).await?, number as i64 - before);
            }
            let end = if round % 3 == 2 { End::Stop } else { End::Kill };
            drop(peer);
            server = restart(server, dir.path(), durability, end)?;
            peer = resume(&server, ticket).await?;
            for sequence in settled + 1..=last {
                let request = send_add(&mut peer, table, sequence, settled).await?;
                let came = sum(&mut peer, request).await?;
                assert_eq!(came, sequence as i64 - before, "round {round}, {end:?}");
            }
            settled = last;
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_session_goes_on_with_its_named_tables_and_errs_on_its_temporary_ones() -> TestResult {
    let dir = tempfile::tempdir()?;
    let server = start("127.0.0.1:0", dir.path(), "everysec")?;
    let mut peer = Peer::connect(&server).await?;
    let (temporary, _) = peer.open(None).await?;
    let (named, _) = peer.open(Some("stays")).await?;
    let (let_go, _) = peer.open(Some("was let go of")).await?;
    let value = b"value".as_slice();
    for table in [temporary, named, let_go] {
        peer.write(table, &[Op::Put { key: b"k", value }]).await?;
    }
    peer.call(Request::Detach { table: let_go }).await?;
    peer.write(temporary, &[Op::Put { key: b"l", value }])
        .await?;
    let (ticket, sequence) = (peer.welcome.ticket, peer.sequence);
    drop(peer);

    let server = restart(server, dir.path(), "everysec", End::Kill)?;
    let mut peer = resume(&server, ticket).await?;
    peer.sequence = sequence;
    assert_eq!(peer.get(named, b"k").await?.as_deref(), Some(value));
    for (table, code) in [
        (temporary, ErrorCode::TableClosed),
        (let_go, ErrorCode::BadRequest),
    ] {
        let ops = ops_bytes(&[Op::Discard { key: b"k" }]);
        let ops = Ops::new(1, &ops);
        let answered = peer.call(Request::Write { table, ops }).await?;
        assert_eq!(answered.code()?, code, "{}", answered.error()?.text);
    }
    peer.write(named, &[Op::Discard { key: b"k" }]).await?;
    assert_eq!(peer.get(named, b"k").await?, None);
    let (again, _) = peer.open(Some("was let go of")).await?;
    assert_eq!(
        (again, peer.get(again, b"k").await?.as_deref()),
        (let_go, Some(value))
    );
    let (another, _) = peer.open(None).await?;
    assert!(another > temporary, "no number is given twice");
    Ok(())
}

#[tokio::test]
async fn clears_and_closes_survive_and_nothing_that_was_before_them_comes_back() -> TestResult {
    let dir = tempfile::tempdir()?;
    let mut server = start("127.0.0.1:0", dir.path(), "everysec")?;
    for end in [End::Kill, End::Stop, End::Kill] {
        let mut peer = Peer::connect(&server).await?;
        let (cleared, _) = peer.open(Some("cleared")).await?;
        let (closed, _) = peer.open(Some("closed")).await?;
        assert_eq!(peer.get(closed, b"before").await?, None);
        for table in [cleared, closed] {
            let value = b"v".as_slice();
            peer.write(
                table,
                &[Op::Put {
                    key: b"before",
                    value,
                }],
            )
            .await?;
        }
        peer.call(Request::Clear { table: cleared }).await?;
        peer.call(Request::Close { table: closed }).await?;
        peer.write(
            cleared,
            &[Op::Put {
                key: b"after",
                value: b"v",
            }],
        )
        .await?;
        drop(peer);
        server = restart(server, dir.path(), "everysec", end)?;
        let mut peer = Peer::connect(&server).await?;
        let (cleared, _) = peer.open(Some("cleared")).await?;
        assert_eq!(peer.get(cleared, b"before").await?, None);
        assert_eq!(
            peer.get(cleared, b"after").await?.as_deref(),
            Some(&b"v"[..])
        );
    }
    Ok(())
}

#[tokio::test]
async fn what_was_synced_survives_a_kill_whatever_the_level() -> TestResult {
    for durability in ["none", "everysec", "always"] {
        let dir = tempfile::tempdir()?;
        let server = start("127.0.0.1:0", dir.path(), durability)?;
        let mut peer = Peer::connect(&server).await?;
        let (table, _) = peer.open(Some("t")).await?;
        let put = |key| Op::Put { key, value: b"v" };
        peer.write(table, &[put(b"synced")]).await?;
        let answered = peer.call(Request::Sync).await?;
        assert_eq!(answered.response()?, Response::Done);
        peer.write(table, &[put(b"not synced")]).await?;
        drop(peer);
        let server = restart(server, dir.path(), durability, End::Kill)?;
        let mut peer = Peer::connect(&server).await?;
        let (table, _) = peer.open(Some("t")).await?;
        assert!(peer.get(table, b"synced").await?.is_some(), "{durability}");
        let after = peer.get(table, b"not synced").await?;
        assert_eq!(after.is_some(), durability != "none", "{durability}");
    }
    Ok(())
}

/// A log that was written under one level is not forgotten under another.
#[tokio::test]
async fn a_level_may_change_from_start_to_start() -> TestResult {
    let dir = tempfile::tempdir()?;
    let mut server = start("127.0.0.1:0", dir.path(), "everysec")?;
    for (number, durability) in ["none", "everysec", "always", "none", "none", "always"]
        .iter()
        .enumerate()
    {
        let mut peer = Peer::connect(&server).await?;
        let (table, _) = peer.open(Some("t")).await?;
        for before in 0..number {
            let key = before.to_le_bytes();
            assert!(
                peer.get(table, &key).await?.is_some(),
                "{before} of {number}"
            );
        }
        let key = number.to_le_bytes();
        let value = b"v".as_slice();
        peer.write(table, &[Op::Put { key: &key, value }]).await?;
        peer.call(Request::Sync).await?;
        drop(peer);
        server = restart(server, dir.path(), durability, End::Kill)?;
    }
    Ok(())
}

/// The log has more than fits memory: what is replayed is spilled meanwhile.
#[tokio::test]
async fn a_log_that_is_longer_than_memory_is_replayed_within_the_limit() -> TestResult {
    const VALUE_BYTES: usize = 4000;
    const VALUES: u32 = 7000;
    let dir = tempfile::tempdir()?;
    let server = start("127.0.0.1:0", dir.path(), "everysec")?;
    let mut peer = Peer::connect(&server).await?;
    let (table, _) = peer.open_kind(Some("lists"), TableKind::Lists).await?;
    for round in 0..2u32 {
        for first in (0..VALUES / 2).step_by(50) {
            let keys: Vec<_> = (first..first + 50).map(u32::to_le_bytes).collect();
            let bytes: Vec<_> = keys
                .iter()
                .map(|key| filled(*key, round, VALUE_BYTES))
                .collect();
            let ops: Vec<_> = keys
                .iter()
                .zip(&bytes)
                .map(|(key, bytes)| Op::Append { key, bytes })
                .collect();
            peer.write(table, &ops).await?;
        }
    }
    drop(peer);
    let server = restart(server, dir.path(), "everysec", End::Kill)?;
    let anonymous = server.status_bytes("RssAnon")?;
    assert!(anonymous <= 24 << 20, "{anonymous} bytes");
    let mut peer = Peer::connect(&server).await?;
    let (table, _) = peer.open_kind(Some("lists"), TableKind::Lists).await?;
    for number in (0..VALUES / 2).step_by(7) {
        let key = number.to_le_bytes();
        let expected = [0, 1].map(|round| filled(key, round, VALUE_BYTES)).concat();
        assert!(peer.get(table, &key).await? == Some(expected), "{number}");
    }
    Ok(())
}

/// Bytes that say whose they are.
fn filled(key: [u8; 4], round: u32, length: usize) -> Vec<u8> {
    let mut bytes = key.to_vec();
    bytes.resize(length, round as u8);
    bytes
}
