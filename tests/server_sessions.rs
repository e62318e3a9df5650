//! Sessions: what outlives a connection, what is applied once, what a lease ends.

mod server_support;

use std::time::{Duration, Instant};

use rhash_protocol::{Call, ErrorCode, Notice, Op, Ops, Request, Response, TableKind};
use server_support::{DEADLINE, Peer, ServerProcess, TestResult, ops_bytes};

const ADD: Op<'static> = Op::AddAndGet {
    key: b"n",
    delta: 1,
};

/// A call that adds 1 to a counter.
fn add<'a>(table: u64, sequence: u64, ops: &'a [u8]) -> Call<'a> {
    Call {
        sequence,
        settled: 0,
        request: Request::Write {
            table,
            ops: Ops::new(1, ops),
        },
    }
}

#[tokio::test]
async fn a_write_that_is_sent_again_is_applied_once() -> TestResult {
    let server = ServerProcess::start_small()?;
    let mut peer = Peer::connect(&server).await?;
    let (table, _) = peer.open_kind(None, TableKind::Counters).await?;
    let ops = ops_bytes(&[ADD]);
    let sent = peer.send_call(&add(table, 2, &ops)).await?;
    let first = peer.answer_to(sent).await?;
    let ticket = peer.welcome.ticket;
    drop(peer);

    let mut peer = Peer::greet(&server, Some(ticket))
        .await?
        .map_err(|refusal| refusal.text)?;
    assert!(peer.welcome.resumed);
    for _ in 0..3 {
        let sent = peer.send_call(&add(table, 2, &ops)).await?;
        assert_eq!(
            peer.answer_to(sent).await?.0,
            first.0,
            "the remembered answer"
        );
    }
    assert_eq!(
        peer.get(table, b"n").await?,
        Some(1i64.to_le_bytes().to_vec())
    );
    let sent = peer.send_call(&add(table, 3, &ops)).await?;
    peer.answer_to(sent).await?;
    assert_eq!(
        peer.get(table, b"n").await?,
        Some(2i64.to_le_bytes().to_vec())
    );
    Ok(())
}

#[tokio::test]
async fn writes_whose_connection_broke_before_the_answers_are_applied_once() -> TestResult {
    let server = ServerProcess::start_small()?;
    let mut peer = Peer::connect(&server).await?;
    let (table, _) = peer.open_kind(None, TableKind::Counters).await?;
    let ops = ops_bytes(&[ADD]);
    for round in 0..20u64 {
        let first = 2 + round * 10;
        for sequence in first..first + 10 {
            peer.send_call(&add(table, sequence, &ops)).await?;
        }
        // Some of these arrived, some did not, none was answered as far as the client knows.
        let ticket = peer.welcome.ticket;
        peer = Peer::greet(&server, Some(ticket))
            .await?
            .map_err(|refusal| refusal.text)?;
        for sequence in first..first + 10 {
            let sent = peer.send_call(&add(table, sequence, &ops)).await?;
            assert!(matches!(
                peer.answer_to(sent).await?.response()?,
                Response::Written(_)
            ));
        }
    }
    assert_eq!(
        peer.get(table, b"n").await?,
        Some(200i64.to_le_bytes().to_vec())
    );
    Ok(())
}

#[tokio::test]
async fn a_gap_and_a_settled_number_are_errors_that_apply_nothing() -> TestResult {
    let server = ServerProcess::start_small()?;
    let mut peer = Peer::connect(&server).await?;
    let (table, _) = peer.open_kind(None, TableKind::Counters).await?;
    let ops = ops_bytes(&[ADD]);
    let settled = Call {
        settled: 1,
        ..add(table, 1, &ops)
    };
    let without_number = add(table, 0, &ops);
    let ahead = Call {
        settled: 9,
        ..add(table, 2, &ops)
    };
    for call in [add(table, 3, &ops), settled, without_number, ahead] {
        let sent = peer.send_call(&call).await?;
        assert_eq!(
            peer.answer_to(sent).await?.code()?,
            ErrorCode::BadRequest,
            "{call:?}"
        );
    }
    let numbered_read = Call {
        sequence: 2,
        settled: 0,
        request: Request::Ping,
    };
    let sent = peer.send_call(&numbered_read).await?;
    assert_eq!(peer.answer_to(sent).await?.code()?, ErrorCode::BadRequest);
    assert_eq!(peer.get(table, b"n").await?, None);
    let sent = peer.send_call(&add(table, 2, &ops)).await?;
    assert!(matches!(
        peer.answer_to(sent).await?.response()?,
        Response::Written(_)
    ));
    Ok(())
}

#[tokio::test]
async fn a_lease_that_runs_out_frees_temporary_tables_and_the_ticket() -> TestResult {
    let server =
        ServerProcess::start(&["--memory-only", "--mem-limit", "24M", "--lease", "200ms"])?;
    let mut other = Peer::connect(&server).await?;
    let mut peer = Peer::connect(&server).await?;
    let (table, _) = peer.open(None).await?;
    peer.put(table, b"k", b"v").await?;
    let ticket = peer.welcome.ticket;
    drop(peer);
    let begin = Instant::now();
    loop {
        let answered = other.call(Request::Stats).await?;
        let Response::Stats(stats) = answered.response()? else {
            return Err("no stats".into());
        };
        if stats.sessions == 1 && stats.tables.is_empty() {
            break;
        }
        assert!(begin.elapsed() < DEADLINE, "{stats:?}");
    }
    assert!(
        begin.elapsed() >= Duration::from_millis(190),
        "not before the lease ran out"
    );
    let refusal = Peer::greet(&server, Some(ticket))
        .await?
        .err()
        .ok_or("it was resumed")?;
    assert_eq!(refusal.code, ErrorCode::SessionExpired);
    assert!(refusal.text.contains("lease of 0.2 s"), "{}", refusal.text);
    assert_eq!(
        other.call(Request::Len { table }).await?.code()?,
        ErrorCode::TableClosed
    );
    Ok(())
}

#[tokio::test]
async fn a_session_that_comes_back_in_time_finds_its_temporary_table() -> TestResult {
    let server = ServerProcess::start_small()?;
    let mut peer = Peer::connect(&server).await?;
    let (table, _) = peer.open(None).await?;
    peer.put(table, b"k", b"v").await?;
    let ticket = peer.welcome.ticket;
    drop(peer);
    let mut peer = Peer::greet(&server, Some(ticket))
        .await?
        .map_err(|refusal| refusal.text)?;
    assert_eq!(peer.get(table, b"k").await?, Some(b"v".to_vec()));
    Ok(())
}

#[tokio::test]
async fn a_ticket_of_an_earlier_server_has_expired() -> TestResult {
    let dir = tempfile::tempdir()?;
    let server = ServerProcess::start_in(dir.path())?;
    let ticket = Peer::connect(&server).await?.welcome.ticket;
    server.stop()?;
    let server = ServerProcess::start_in(dir.path())?;
    let refusal = Peer::greet(&server, Some(ticket))
        .await?
        .err()
        .ok_or("it was resumed")?;
    assert_eq!(refusal.code, ErrorCode::SessionExpired);
    Ok(())
}

#[tokio::test]
async fn a_session_that_is_taken_up_elsewhere_leaves_its_old_connection() -> TestResult {
    let server = ServerProcess::start_small()?;
    let mut old = Peer::connect(&server).await?;
    let (table, _) = old.open(None).await?;
    let ticket = old.welcome.ticket;
    let mut new = Peer::greet(&server, Some(ticket))
        .await?
        .map_err(|refusal| refusal.text)?;
    assert!(old.frame().await?.is_none(), "the old connection is closed");
    new.sequence = 1;
    new.put(table, b"k", b"v").await?;
    Ok(())
}

#[tokio::test]
async fn a_table_of_another_session_cannot_be_used_by_its_number() -> TestResult {
    let server = ServerProcess::start_small()?;
    let mut owner = Peer::connect(&server).await?;
    let (table, _) = owner.open(None).await?;
    let mut stranger = Peer::connect(&server).await?;
    assert_eq!(
        stranger.call(Request::Len { table }).await?.code()?,
        ErrorCode::BadRequest
    );
    assert_eq!(
        stranger.call(Request::Close { table }).await?.code()?,
        ErrorCode::BadRequest
    );
    let answered = stranger.call(Request::Tables).await?;
    assert_eq!(
        answered.response()?,
        Response::Tables(vec![]),
        "nor is it listed"
    );
    assert_eq!(owner.len(table).await?, 0);
    Ok(())
}

#[tokio::test]
async fn the_only_session_of_a_table_is_told_when_it_is_no_longer() -> TestResult {
    let server = ServerProcess::start_small()?;
    let mut first = Peer::connect(&server).await?;
    let (table, sole) = first.open(Some("shared")).await?;
    assert!(sole);
    let mut second = Peer::connect(&server).await?;
    assert_eq!(second.open(Some("shared")).await?, (table, false));
    assert_eq!(
        first.wait_for_notice().await?,
        Notice::Sole { table, sole: false }
    );

    second.call(Request::Detach { table }).await?;
    assert_eq!(
        first.wait_for_notice().await?,
        Notice::Sole { table, sole: true }
    );

    // One that was away is told what it may have missed.
    let ticket = first.welcome.ticket;
    drop(first);
    second.open(Some("shared")).await?;
    let mut first = Peer::greet(&server, Some(ticket))
        .await?
        .map_err(|refusal| refusal.text)?;
    assert_eq!(
        first.wait_for_notice().await?,
        Notice::Sole { table, sole: false }
    );
    Ok(())
}

#[tokio::test]
async fn a_table_that_was_closed_is_closed_for_all_and_made_anew_by_its_name() -> TestResult {
    let server = ServerProcess::start_small()?;
    let (mut first, mut second) = (Peer::connect(&server).await?, Peer::connect(&server).await?);
    let (table, _) = first.open(Some("t")).await?;
    second.open(Some("t")).await?;
    first.put(table, b"k", b"v").await?;
    assert_eq!(
        second.call(Request::Close { table }).await?.response()?,
        Response::Done
    );

    let ops = ops_bytes(&[Op::Put {
        key: b"k",
        value: b"w",
    }]);
    let write = Request::Write {
        table,
        ops: Ops::new(1, &ops),
    };
    for request in [write, Request::Len { table }, Request::Clear { table }] {
        let error = first.call(request).await?.error()?;
        assert_eq!(error.code, ErrorCode::TableClosed, "{}", error.text);
    }
    assert_eq!(
        first.call(Request::Close { table }).await?.code()?,
        ErrorCode::TableClosed
    );
    let (again, _) = first.open(Some("t")).await?;
    assert_ne!(again, table);
    assert_eq!(first.len(again).await?, 0);
    Ok(())
}

#[tokio::test]
async fn a_table_opened_twice_stays_until_it_is_let_go_of_twice() -> TestResult {
    let server = ServerProcess::start_small()?;
    let mut peer = Peer::connect(&server).await?;
    let (table, _) = peer.open(Some("t")).await?;
    peer.open(Some("t")).await?;
    assert_eq!(
        peer.call(Request::Detach { table }).await?.response()?,
        Response::Done
    );
    peer.put(table, b"k", b"v").await?;
    assert_eq!(
        peer.call(Request::Detach { table }).await?.response()?,
        Response::Done
    );
    assert_eq!(
        peer.call(Request::Len { table }).await?.code()?,
        ErrorCode::BadRequest
    );
    let (table, _) = peer.open(Some("t")).await?;
    assert_eq!(peer.len(table).await?, 1, "a named table stays");
    Ok(())
}

#[tokio::test]
async fn a_server_that_stops_says_so() -> TestResult {
    let server = ServerProcess::start_small()?;
    let mut peer = Peer::connect(&server).await?;
    peer.call(Request::Ping).await?;
    server.signal("TERM")?;
    let frame = peer.frame().await?.ok_or("closed without a word")?;
    assert_eq!(
        rhash_protocol::codec::decode::<Notice>(frame.body)?,
        Notice::ShuttingDown
    );
    assert!(peer.frame().await?.is_none());
    assert_eq!(server.wait()?.code(), Some(0));
    Ok(())
}
