//! Under abuse a server goes on: others are answered, its memory keeps its limit, and what was
//! abused is given back.
//!
//! `cargo xtask hostile` runs this at full scale, on a release build, where it also holds the p99 of
//! others against that of a quiet server.

mod server_support;

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use rhash_protocol::{
    Call, Keys, LimitInfo, Op, Ops, Request, Response, TableId, codec,
    frame::{Follow, FrameHead, FrameKind},
    limits::{FRAME_BYTES_MAX, HELLO_BYTES_MAX},
};
use server_support::{DEADLINE, Peer, ServerProcess, TestResult, keys_bytes, ops_bytes};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    time::{sleep, timeout},
};

/// What a server of these tests may take.
const MEM_LIMIT: &str = "64M";
const MEM_LIMIT_BYTES: u64 = 64 << 20;

/// Threads for requests that may touch the disk end when they have had nothing to do for 10 s; at full
/// scale that is waited for.
const BLOCKING_THREADS: usize = 8;

/// How long the bystander is measured on a quiet server.
const QUIET: Duration = Duration::from_millis(500);

/// At full scale the p99 of others may be so many times that of a quiet server.
const P99_FACTOR: f64 = 2.0;

/// At any scale, nobody waits longer for an answer.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// Whether all is done as often as it is meant to be, or as often as a test has time for.
fn is_full() -> bool {
    std::env::var_os("RHASH_HOSTILE").is_some_and(|value| value == "full")
}

fn scaled(full: usize, short: usize) -> usize {
    if is_full() { full } else { short }
}

/// What a server has of what the system counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Resources {
    descriptors: usize,
    threads: usize,
}

impl Resources {
    fn of(server: &ServerProcess) -> TestResult<Self> {
        let count = |what: &str| -> TestResult<usize> {
            Ok(fs::read_dir(format!("/proc/{}/{what}", server.id()))?.count())
        };
        Ok(Self {
            descriptors: count("fd")?,
            threads: count("task")?,
        })
    }
}

/// A client like any other, in a thread of its own, that gets a value over and over.
struct Bystander {
    stop: Arc<AtomicBool>,
    memory_bytes_max: Arc<AtomicU64>,
    thread: thread::JoinHandle<Result<Vec<Duration>, String>>,
}

impl Bystander {
    fn start(server: &ServerProcess) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let memory_bytes_max = Arc::new(AtomicU64::new(0));
        let (address, id) = (server.address, server.id());
        let (stopped, memory) = (Arc::clone(&stop), Arc::clone(&memory_bytes_max));
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|error| error.to_string())?;
            let watched = runtime.block_on(async {
                let stream = TcpStream::connect(address).await?;
                let mut peer = Peer::greet_over(stream, None, "")
                    .await?
                    .map_err(|refusal| refusal.text)?;
                let (table, _) = peer.open(Some("bystander")).await?;
                peer.put(table, b"key", &[7; 100]).await?;
                let mut times = Vec::new();
                while !stopped.load(Relaxed) {
                    let began = Instant::now();
                    let value = peer.get(table, b"key").await?;
                    times.push(began.elapsed());
                    if value.as_deref() != Some(&[7; 100]) {
                        return Err(format!("a wrong value: {value:?}").into());
                    }
                    if times.len().is_multiple_of(64) {
                        memory.fetch_max(anonymous_bytes(id)?, Relaxed);
                    }
                    // Many clients ask now and then, and not one all the time.
                    sleep(Duration::from_micros(200)).await;
                }
                TestResult::Ok(times)
            });
            watched.map_err(|error| error.to_string())
        });
        Self {
            stop,
            memory_bytes_max,
            thread,
        }
    }

    fn stop(self) -> TestResult<Vec<Duration>> {
        self.stop.store(true, Relaxed);
        let times = self
            .thread
            .join()
            .map_err(|_panic| "the bystander panicked")?;
        let mut times = times?;
        times.sort_unstable();
        Ok(times)
    }
}

/// What counts against a memory limit.
fn anonymous_bytes(id: u32) -> TestResult<u64> {
    let status = fs::read_to_string(format!("/proc/{id}/status"))?;
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|line| line.trim().strip_suffix(" kB"));
        number
            .and_then(|number| number.parse::<u64>().ok())
            .unwrap_or(0)
    };
    Ok((kib("RssAnon:") + kib("RssShmem:")) * 1024)
}

fn p99(times: &[Duration]) -> Duration {
    let at = (times.len() * 99 / 100).min(times.len().saturating_sub(1));
    times.get(at).copied().unwrap_or_default()
}

/// Does something bad to a server while somebody else uses it, and sees that nothing comes of it.
#[expect(clippy::print_stdout, reason = "the figures are what it is run for")]
async fn hold(
    name: &str,
    server: &ServerProcess,
    attack: impl AsyncFnOnce(&ServerProcess) -> TestResult,
) -> TestResult {
    let quiet = Bystander::start(server);
    sleep(QUIET).await;
    let quiet = quiet.stop()?;
    let mut observer = Peer::connect(server).await?;
    let before = settled(server, &mut observer, None).await?;

    let bystander = Bystander::start(server);
    let began = Instant::now();
    let attacked = attack(server).await;
    let took = began.elapsed();
    let memory_bytes = bystander.memory_bytes_max.load(Relaxed);
    let times = bystander
        .stop()
        .map_err(|error| format!("{name}: the bystander: {error}"))?;
    attacked.map_err(|error| format!("{name}: {error}"))?;
    let after = settled(server, &mut observer, Some(before)).await?;

    let worst = times.last().copied().unwrap_or_default();
    let (quiet, under) = (p99(&quiet), p99(&times));
    println!(
        "{name}: {took:.1?}; p99 {quiet:.0?} quiet, {under:.0?} under it, worst {worst:.1?} of {}; \
         {:.1} MiB of {MEM_LIMIT}; {before:?}, {after:?} after it",
        times.len(),
        memory_bytes as f64 / (1 << 20) as f64,
    );
    assert!(
        memory_bytes <= MEM_LIMIT_BYTES,
        "{name}: {memory_bytes} bytes"
    );
    assert!(worst <= WAIT_MAX, "{name}: somebody waited {worst:?}");
    if is_full() {
        let factor = under.as_secs_f64() / quiet.as_secs_f64();
        assert!(
            factor <= P99_FACTOR,
            "{name}: p99 {factor:.1} times that of a quiet server"
        );
    }
    Ok(())
}

/// Waits until connections are gone but the observer's, and descriptors and threads are no more than
/// they were.
async fn settled(
    server: &ServerProcess,
    observer: &mut Peer,
    before: Option<Resources>,
) -> TestResult<Resources> {
    let began = Instant::now();
    loop {
        let now = Resources::of(server)?;
        let is_back = before.is_none_or(|before| {
            let threads = before.threads + if is_full() { 0 } else { BLOCKING_THREADS };
            now.descriptors <= before.descriptors && now.threads <= threads
        });
        let connections = match is_back {
            true => limit(observer, "connections").await?.used,
            false => None,
        };
        if connections == Some(1) {
            return Ok(now);
        }
        if began.elapsed() > DEADLINE {
            return Err(format!("{connections:?} connections, {now:?} of {before:?}").into());
        }
        // Each look is a request that keeps a thread from ending that is for these.
        sleep(Duration::from_millis(if is_full() { 500 } else { 10 })).await;
    }
}

async fn limit(peer: &mut Peer, name: &str) -> TestResult<LimitInfo> {
    match peer.call(Request::Stats).await?.response()? {
        Response::Stats(stats) => {
            let found = stats.limits.into_iter().find(|limit| limit.name == name);
            Ok(found.ok_or_else(|| format!("no limit {name}"))?)
        }
        response => Err(format!("{response:?}").into()),
    }
}

fn start(args: &[&str]) -> TestResult<ServerProcess> {
    let small = ["--memory-only", "--mem-limit", MEM_LIMIT];
    ServerProcess::start(&[&small[..], args].concat())
}

/// Reads until the other side has closed; how it does so is its affair.
async fn until_closed(mut stream: TcpStream) -> TestResult {
    let mut rest = [0; 4096];
    loop {
        match timeout(DEADLINE, stream.read(&mut rest)).await? {
            Ok(0) | Err(_) => return Ok(()),
            Ok(_) => {}
        }
    }
}

/// Lengths that mean something to those who count.
const LENGTHS: [u64; 9] = [
    0,
    HELLO_BYTES_MAX as u64,
    HELLO_BYTES_MAX as u64 + 1,
    FRAME_BYTES_MAX as u64,
    FRAME_BYTES_MAX as u64 + 1,
    1 << 31,
    (1 << 32) - 1,
    1 << 63,
    u64::MAX,
];

#[tokio::test]
async fn lengths_that_lie() -> TestResult {
    let server = start(&["--hello-timeout=300ms"])?;
    hold("lengths that lie", &server, async |server| {
        for length in LENGTHS {
            for kind in [FrameKind::Hello, FrameKind::Request] {
                // Before a hello: the header of a frame of that length, and nothing after it.
                let mut header = FrameHead::whole(kind, length).header(&[])?;
                header[..4].copy_from_slice(&(length as u32).to_le_bytes());
                let mut stream = TcpStream::connect(server.address).await?;
                stream.write_all(&header).await?;
                until_closed(stream).await?;
            }
            // After it: in a header, and as the length of what is inside a request.
            let mut header = FrameHead::whole(FrameKind::Request, 1).header(&[])?;
            header[..4].copy_from_slice(&(length as u32).to_le_bytes());
            let mut peer = Peer::connect(server).await?;
            peer.writer.get_mut().write_all(&header).await?;
            drop(peer);
            lie_inside(server, length).await?;
        }
        Ok(())
    })
    .await
}

/// Requests whose inner lengths and counts are `length`.
async fn lie_inside(server: &ServerProcess, length: u64) -> TestResult {
    let mut peer = Peer::connect(server).await?;
    let (table, _) = peer.open(None).await?;
    let keys = keys_bytes(&[b"key"]);
    let call = Call {
        sequence: 0,
        settled: 0,
        request: Request::Get {
            table,
            keys: Keys::new(length as u32, &keys),
        },
    };
    let mut body = Vec::new();
    codec::encode(&call, &mut body)?;
    let mut tail_is_a_lie = body.clone();
    // The last bytes are the packed keys, before which their length stands.
    let at = tail_is_a_lie.len() - keys.len() - 1;
    tail_is_a_lie.splice(at..=at, [&[0xfd][..], &length.to_le_bytes()].concat());
    for body in [body, tail_is_a_lie] {
        let head = FrameHead::whole(FrameKind::Request, 1);
        peer.writer.write_frame(head, &body).await?;
        peer.writer.flush().await?;
        let (_, answer) = peer.receive().await?;
        if length != 1 {
            let is_empty = length as u32 == 0;
            assert!(
                is_empty || answer.error().is_ok(),
                "{length}: {:?}",
                answer.response()?
            );
        }
    }
    Ok(())
}

#[tokio::test]
async fn mutated_frames() -> TestResult {
    let server = start(&[])?;
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    hold("mutated frames", &server, async |server| {
        let frames = scaled(1_000_000, 60_000);
        let mut sent = 0;
        let mut peer = Peer::connect(server).await?;
        let (table, _) = peer.open(None).await?;
        let bodies = bodies(table)?;
        while sent < frames {
            // With checksums that fit, so that the server looks at what is inside.
            let mut expected = 0;
            for _ in 0..200 {
                let mut body = bodies[random.usize(..bodies.len())].clone();
                for _ in 0..random.usize(1..4) {
                    let at = random.usize(..body.len());
                    body[at] = random.u8(..);
                }
                // The sequence stays none, so that one answer is not a matter of those before it.
                body[0] = 0;
                expected += 1;
                let head = FrameHead::whole(FrameKind::Request, expected);
                peer.writer.write_frame(head, &body).await?;
            }
            peer.writer.flush().await?;
            let mut answered = 0;
            while answered < expected {
                match peer.receive().await {
                    Ok(_) => answered += 1,
                    // Some ask for what ends a connection, such as a value as a stream.
                    Err(_) => break,
                }
            }
            sent += expected as usize;
            if answered < expected {
                peer = Peer::connect(server).await?;
                peer.open(None).await?;
            }
        }
        // With those that do not fit, each of which ends a connection.
        for _ in 0..scaled(5000, 300) {
            let mut stream = TcpStream::connect(server.address).await?;
            let noise: Vec<u8> = (0..random.usize(1..200)).map(|_| random.u8(..)).collect();
            drop(stream.write_all(&noise).await);
        }
        Ok(())
    })
    .await
}

/// Bodies of requests that change nothing.
fn bodies(table: TableId) -> TestResult<Vec<Vec<u8>>> {
    let keys = keys_bytes(&[b"key", b"other"]);
    let ops = ops_bytes(&[Op::Discard { key: b"key" }]);
    let requests = [
        Request::Ping,
        Request::Tables,
        Request::Len { table },
        Request::Get {
            table,
            keys: Keys::new(2, &keys),
        },
        Request::Contains {
            table,
            keys: Keys::new(2, &keys),
        },
        Request::Write {
            table,
            ops: Ops::new(1, &ops),
        },
    ];
    let mut bodies = Vec::new();
    for request in requests {
        let mut body = Vec::new();
        let call = Call {
            sequence: 0,
            settled: 0,
            request,
        };
        codec::encode(&call, &mut body)?;
        bodies.push(body);
    }
    Ok(bodies)
}

#[tokio::test]
async fn slow_clients() -> TestResult {
    let server = start(&["--max-connections=4000", "--max-sessions=4000"])?;
    hold("slow clients", &server, async |server| {
        let header = FrameHead::whole(FrameKind::Hello, 0).header(&[0; 100])?;
        let mut clients = Vec::new();
        for _ in 0..scaled(2000, 400) {
            clients.push(TcpStream::connect(server.address).await?);
        }
        // Some who have said hello are as slow with their requests.
        let mut known = Vec::new();
        for _ in 0..scaled(200, 50) {
            known.push(Peer::connect(server).await?);
        }
        let long = FrameHead {
            kind: FrameKind::Request,
            follow: Follow::More,
            request_id: 1,
        };
        let long = long.header(&[0; 100_000])?;
        for second in 0..scaled(8, 3) {
            for stream in &mut clients {
                // Those that are too slow have been closed by then.
                drop(stream.write_all(&header[second..=second]).await);
            }
            for peer in &mut known {
                drop(
                    peer.writer
                        .get_mut()
                        .write_all(&long[second..=second])
                        .await,
                );
            }
            sleep(Duration::from_secs(1)).await;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn clients_that_never_read() -> TestResult {
    let server = start(&[])?;
    hold("clients that never read", &server, async |server| {
        let mut clients = Vec::new();
        for _ in 0..scaled(200, 40) {
            let socket = TcpSocket::new_v4()?;
            socket.set_recv_buffer_size(4096)?;
            let stream = socket.connect(server.address).await?;
            let greeted = Peer::greet_over(stream, None, "").await?;
            let mut peer = greeted.map_err(|refusal| refusal.text)?;
            let (table, _) = peer.open(Some("shared")).await?;
            peer.put(table, b"long", &[7; 50_000]).await?;
            clients.push((peer, table));
        }
        let keys = keys_bytes(&[b"long"]);
        for (peer, table) in &mut clients {
            for _ in 0..200 {
                let keys = Keys::new(1, &keys);
                let asked = peer.send(Request::Get {
                    table: *table,
                    keys,
                });
                // When the server no longer takes requests, that is what it should do.
                if timeout(Duration::from_millis(20), asked).await.is_err() {
                    break;
                }
            }
        }
        sleep(Duration::from_secs(1)).await;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn half_closed_and_reset_connections() -> TestResult {
    let server = start(&[])?;
    hold("half-closed and reset", &server, async |server| {
        for number in 0..scaled(10_000, 1500) {
            let mut stream = TcpStream::connect(server.address).await?;
            match number % 4 {
                0 => stream.shutdown().await?,
                1 => stream.set_zero_linger()?,
                2 => {
                    drop(stream.write_all(&[0x30, 0, 0]).await);
                    stream.shutdown().await?;
                }
                _ => {
                    let greeted = Peer::greet_over(stream, None, "").await?;
                    // A full server says so, which is no failure here.
                    if let Ok(mut peer) = greeted {
                        peer.send(Request::Ping).await?;
                    }
                    continue;
                }
            }
            drop(stream);
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn many_connections_at_once() -> TestResult {
    let server = start(&["--max-connections=12000", "--max-sessions=12000"])?;
    hold("many connections at once", &server, async |server| {
        let mut clients = Vec::new();
        for number in 0..scaled(10_000, 1000) {
            // Ports of one address are fewer than connections.
            let socket = TcpSocket::new_v4()?;
            socket.bind(([127, 0, 1 + (number / 5000) as u8, 1], 0).into())?;
            let stream = socket.connect(server.address).await?;
            let greeted = timeout(DEADLINE, Peer::greet_over(stream, None, "")).await??;
            clients.push(greeted.map_err(|refusal| refusal.text)?);
        }
        for peer in &mut clients {
            assert_eq!(peer.call(Request::Ping).await?.response()?, Response::Pong);
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn few_file_descriptors() -> TestResult {
    let server =
        ServerProcess::start_with_files(256, &["--memory-only", "--mem-limit", MEM_LIMIT])?;
    hold("256 file descriptors", &server, async |server| {
        let mut streams = Vec::new();
        for _ in 0..600 {
            // The kernel takes them on where the server has no descriptor for them.
            let connected = TcpStream::connect(server.address);
            if let Ok(Ok(stream)) = timeout(Duration::from_millis(200), connected).await {
                streams.push(stream);
            }
        }
        sleep(Duration::from_millis(500)).await;
        drop(streams);
        Peer::connect(server).await.map(drop)
    })
    .await
}
