//! The memory limit holds, as the kernel counts it, while a server takes in far more.

mod server_support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use rhash_protocol::{
    Call, ErrorCode, Keys, Op, OpenMode, Ops, Outcome, Request, Response, Slot, TableId, TableKind,
};
use server_support::{Peer, ServerProcess, TestResult, keys_bytes, ops_bytes};

/// The room that the answer takes which tells what is left.
const ANSWER_BYTES: u64 = 4 << 10;
const LIMIT_BYTES: u64 = 24 << 20;
const SAMPLE_EVERY: Duration = Duration::from_millis(20);
const TABLES: u64 = 10_000;
const CONNECTIONS: u64 = 200;
/// That many connections are for servers with a little more than the least memory.
const CONNECTIONS_LIMIT_BYTES: u64 = 32 << 20;

/// The most anonymous and shared memory that the server was seen to have.
struct Watch {
    most: Arc<AtomicU64>,
    done: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Watch {
    /// Looks every 20 ms from now on.
    fn start(server: &Arc<ServerProcess>) -> Self {
        let (most, done) = (
            Arc::new(AtomicU64::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let mut watch = Self {
            most: Arc::clone(&most),
            done: Arc::clone(&done),
            thread: None,
        };
        let server = Arc::clone(server);
        watch.thread = Some(std::thread::spawn(move || {
            while !done.load(Relaxed) {
                let figure = |name| server.status_bytes(name).unwrap_or(0);
                most.fetch_max(figure("RssAnon") + figure("RssShmem"), Relaxed);
                std::thread::park_timeout(SAMPLE_EVERY);
            }
        }));
        watch
    }

    /// Ends the looks: something was seen, and never more than this.
    fn end_within(self, limit_bytes: u64) {
        let most = self.most.load(Relaxed);
        assert!(
            most > 0 && most <= limit_bytes,
            "{most} bytes under a limit of {limit_bytes}"
        );
    }
}

impl Drop for Watch {
    // The server is killed by whoever drops it last. That must not be a thread which the end of
    // the process cuts off: the server would go on alone.
    fn drop(&mut self) {
        self.done.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            drop(thread.join());
        }
    }
}

fn value(number: u64) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(number);
    // Most are small, some are large, a few are as large as may be (an eighth of the limit).
    let length = match number % 1000 {
        0 => 3 << 20,
        1..20 => rng.usize(..100_000),
        _ => rng.usize(..300),
    };
    vec![number as u8; length]
}

#[tokio::test]
async fn values_of_all_lengths_far_beyond_the_limit_stay_under_it() -> TestResult {
    let dir = tempfile::tempdir()?;
    let server = Arc::new(ServerProcess::start_in(dir.path())?);
    let watch = Watch::start(&server);
    let mut peer = Peer::connect(&server).await?;
    let (table, _) = peer.open(Some("values")).await?;
    let (mut number, mut bytes) = (0u64, 0);
    while bytes < 4 * LIMIT_BYTES as usize {
        let key = number.to_le_bytes();
        let value = value(number);
        bytes += key.len() + value.len();
        peer.write(
            table,
            &[Op::Put {
                key: &key,
                value: &value,
            }],
        )
        .await?;
        number += 1;
    }
    let mut rng = fastrand::Rng::with_seed(1);
    for _ in 0..500 {
        let wanted = rng.u64(..number);
        let expected = value(wanted);
        let packed = keys_bytes(&[&wanted.to_le_bytes()]);
        let answered = peer
            .call(Request::Get {
                table,
                keys: Keys::new(1, &packed),
            })
            .await?;
        let Response::Values(values) = answered.response()? else {
            return Err("not values".into());
        };
        match values.iter().next().ok_or("no slot")?? {
            Slot::Value(found) => assert!(found == expected, "value {wanted}"),
            Slot::Large(_) => assert!(expected.len() > 100_000, "value {wanted}"),
            Slot::Absent => return Err(format!("value {wanted} is lost").into()),
        }
    }
    watch.end_within(LIMIT_BYTES);
    Ok(())
}

#[tokio::test]
async fn ten_thousand_small_tables_fit_the_least_limit_and_are_given_back() -> TestResult {
    let dir = tempfile::tempdir()?;
    let server = Arc::new(ServerProcess::start_in(dir.path())?);
    let watch = Watch::start(&server);
    let mut peer = Peer::connect(&server).await?;
    let mut tables = Vec::new();
    for number in 0..TABLES {
        let request = Request::Open {
            name: None,
            kind: Some(TableKind::Values),
            codec: Some("bytes"),
            mode: OpenMode::OpenOrCreate,
            durability: None,
        };
        let answered = peer.call(request).await?;
        let Response::Opened { table, .. } = answered.response()? else {
            return Err("not opened".into());
        };
        tables.push(table);
        peer.put(table, b"number", &number.to_be_bytes()).await?;
    }
    for (number, &table) in tables.iter().enumerate().step_by(97) {
        let expected = (number as u64).to_be_bytes().to_vec();
        assert_eq!(peer.get(table, b"number").await?, Some(expected));
    }
    for table in tables {
        let answered = peer.call(Request::Close { table }).await?;
        assert!(matches!(answered.response()?, Response::Done));
    }
    let answered = peer.call(Request::Stats).await?;
    let Response::Stats(stats) = answered.response()? else {
        return Err("not stats".into());
    };
    assert_eq!((stats.tables.len(), stats.sled_bytes), (0, 0));
    let tracked = stats.tracked_bytes;
    assert!(tracked <= ANSWER_BYTES, "{tracked} bytes are left");
    watch.end_within(LIMIT_BYTES);
    Ok(())
}

/// A batch of entries with values of one length, of `table`'s making.
async fn put_batch(
    peer: &mut Peer,
    table: TableId,
    numbers: std::ops::Range<u64>,
    value_bytes: usize,
) -> TestResult {
    let keys: Vec<[u8; 8]> = numbers.clone().map(u64::to_le_bytes).collect();
    let values: Vec<Vec<u8>> = numbers.map(|n| vec![n as u8; value_bytes]).collect();
    let ops = keys.iter().zip(&values);
    let ops: Vec<Op<'_>> = ops.map(|(key, value)| Op::Put { key, value }).collect();
    peer.write(table, &ops).await
}

/// Values of 4,000 bytes came from the heap one by one. What a spill freed lay between live ones,
/// was kept by the allocator, and came on top of what the next entries took: 34 MiB of 32.
#[tokio::test]
async fn values_of_a_few_kilobytes_far_beyond_the_limit_stay_under_it() -> TestResult {
    let dir = tempfile::tempdir()?;
    let server = Arc::new(ServerProcess::start_in(dir.path())?);
    let watch = Watch::start(&server);
    let mut peer = Peer::connect(&server).await?;
    let (table, _) = peer.open(None).await?;
    let (batch, bytes) = (40, 4000);
    for number in 0..4 * LIMIT_BYTES / bytes / batch {
        let numbers = number * batch..(number + 1) * batch;
        put_batch(&mut peer, table, numbers, bytes as usize).await?;
    }
    let expected = Some(vec![7; bytes as usize]);
    assert_eq!(peer.get(table, &7u64.to_le_bytes()).await?, expected);
    watch.end_within(LIMIT_BYTES);
    Ok(())
}

/// Each connection's buffers were bounded, and their sum was not: 73 MiB of 32.
#[tokio::test]
async fn two_hundred_busy_connections_stay_under_the_limit() -> TestResult {
    let dir = tempfile::tempdir()?;
    let data = dir.path().to_str().ok_or("not UTF-8")?;
    let limit = CONNECTIONS_LIMIT_BYTES.to_string();
    let server = ServerProcess::start(&["--mem-limit", &limit, "--data", data])?;
    let server = Arc::new(server);
    let watch = Watch::start(&server);
    let mut peers = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut peer = Peer::connect(&server).await?;
        let (table, _) = peer.open(None).await?;
        peers.push((peer, table));
    }
    // Requests and answers as long as one frame holds, from and to all at once.
    let (count, bytes) = (100, 2000);
    let busy = peers.into_iter().map(|(mut peer, table)| async move {
        for from in [0, count, 2 * count] {
            put_batch(&mut peer, table, from..from + count, bytes).await?;
        }
        let keys: Vec<[u8; 8]> = (0..count).map(u64::to_le_bytes).collect();
        let keys: Vec<&[u8]> = keys.iter().map(|key| &key[..]).collect();
        let packed = keys_bytes(&keys);
        let keys = Keys::new(keys.len() as u32, &packed);
        let answered = peer.call(Request::Get { table, keys }).await?;
        let Response::Values(values) = answered.response()? else {
            return Err("not values".into());
        };
        for (number, slot) in values.iter().enumerate() {
            let expected = vec![number as u8; bytes];
            assert_eq!(slot?, Slot::Value(&expected));
        }
        TestResult::Ok(())
    });
    for done in futures_util::future::join_all(busy).await {
        done?;
    }
    watch.end_within(CONNECTIONS_LIMIT_BYTES);
    Ok(())
}

/// Sessions remove long values, whose answers may be asked for again, and never say that they have them.
#[tokio::test]
async fn answers_that_nobody_settles_stay_within_the_limit() -> TestResult {
    const SESSIONS: u8 = 40;
    const VALUES: u8 = 6;
    const VALUE_BYTES: usize = 200_000;
    let dir = tempfile::tempdir()?;
    let server = ServerProcess::start_in(dir.path())?;
    let (mut peers, mut refused, mut most) = (Vec::new(), 0, 0);
    for session in 0..SESSIONS {
        let mut peer = Peer::connect(&server).await?;
        let (table, _) = peer.open(Some("t")).await?;
        let value = vec![session; VALUE_BYTES];
        for number in 0..VALUES {
            peer.put(table, &[session, number], &value).await?;
        }
        let settled = peer.sequence;
        for number in 0..VALUES {
            let ops = ops_bytes(&[Op::Remove {
                key: &[session, number],
            }]);
            peer.sequence += 1;
            let call = Call {
                sequence: peer.sequence,
                settled,
                request: Request::Write {
                    table,
                    ops: Ops::new(1, &ops),
                },
            };
            let sent = peer.send_call(&call).await?;
            let answered = peer.answer_to(sent).await?;
            match answered.response()? {
                Response::Written(_) => {}
                Response::Error(error) if error.code == ErrorCode::Busy => refused += 1,
                response => return Err(format!("{response:?}").into()),
            }
        }
        peers.push((peer, table));
        most = most.max(server.status_bytes("RssAnon")?);
    }
    assert!(most <= LIMIT_BYTES, "{most} bytes");
    assert!(refused > 0, "not all can be kept");
    // Once they settle there is room, and what was refused is still there.
    for (peer, _) in &mut peers {
        peer.call(Request::Ping).await?;
    }
    let (peer, table) = peers.last_mut().ok_or("no session")?;
    let key = [SESSIONS - 1, VALUES - 1];
    let ops = ops_bytes(&[Op::Remove { key: &key }]);
    let ops = Ops::new(1, &ops);
    let removed = peer.call(Request::Write { table: *table, ops }).await?;
    let Response::Written(outcomes) = removed.response()? else {
        return Err(removed.error()?.text.into());
    };
    let outcome = outcomes.iter().next().ok_or("no outcome")??;
    assert!(matches!(outcome, Outcome::Value(value) if value.len() == VALUE_BYTES));
    Ok(())
}
