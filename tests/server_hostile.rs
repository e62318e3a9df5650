//! Under abuse a server goes on: others are answered, its memory keeps its limit, and what was
//! abused is given back.
//!
//! `cargo xtask hostile` runs this at full scale, on a release build, where it also holds the p99 of
//! others against that of a quiet server, and of one beside another that is abused.

mod server_support;

use std::time::{Duration, Instant};

use rhash_protocol::{
    Call, Keys, Op, Ops, Request, Response, TableId, codec,
    frame::{Follow, FrameHead, FrameKind},
    limits::{BATCH_BYTES_TARGET, FRAME_BYTES_MAX, HELLO_BYTES_MAX},
};
use server_support::{
    DEADLINE, Peer, ServerProcess, TestResult,
    abuse::{MEM_LIMIT, WAIT_MAX, connect_in_the_end, hold, scaled, start},
    keys_bytes, ops_bytes,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    time::{sleep, timeout},
};

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
    let start = || start(&["--hello-timeout=300ms"]);
    hold("lengths that lie", start, async |server| {
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
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let start = || start(&[]);
    hold("mutated frames", start, async |server| {
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
    let start = || start(&["--max-connections=2000", "--max-sessions=4000"]);
    hold("slow clients", start, async |server| {
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

/// How long a client that is none of the abusers rests between its batches.
const BETWEEN_BATCHES: Duration = Duration::from_millis(2);

// A long request that came at two KiB a second once kept nearly all the room that there is for
// requests, and whoever else had a batch to send waited for hours.
#[tokio::test]
async fn long_requests_that_trickle_in() -> TestResult {
    let start = || start(&[]);
    hold("long requests that trickle in", start, async |server| {
        let begun = FrameHead {
            kind: FrameKind::Request,
            follow: Follow::More,
            request_id: 1,
        };
        let mut slow = Vec::new();
        for number in 0..scaled(400, 100) {
            let mut peer = Peer::connect(server).await?;
            // The short ones fit where the long ones do not.
            let first = vec![0; FRAME_BYTES_MAX >> (number % 6)];
            peer.writer
                .get_mut()
                .write_all(&begun.header(&first)?)
                .await?;
            slow.push(peer);
        }
        let trickle = async {
            loop {
                for peer in &mut slow {
                    // Those that gave way are gone.
                    drop(peer.writer.get_mut().write_all(&[0; 2048]).await);
                }
                sleep(Duration::from_secs(1)).await;
            }
        };
        let mut other = Peer::connect(server).await?;
        let (table, _) = other.open(None).await?;
        let batches = async {
            for _ in 0..scaled(2000, 200) {
                let began = Instant::now();
                other.put(table, b"key", &[7; BATCH_BYTES_TARGET]).await?;
                let took = began.elapsed();
                assert!(took <= WAIT_MAX, "a batch waited {took:?}");
                // As fast as it can it would be a load of its own, which others wait for by right.
                sleep(BETWEEN_BATCHES).await;
            }
            TestResult::Ok(())
        };
        tokio::select! {
            () = trickle => Ok(()),
            done = batches => done,
        }
    })
    .await
}

#[tokio::test]
async fn clients_that_never_read() -> TestResult {
    let start = || start(&[]);
    hold("clients that never read", start, async |server| {
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
    let start = || start(&[]);
    hold("half-closed and reset", start, async |server| {
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
    // So many need more memory than there is in the other tests.
    let many = [
        "--memory-only",
        "--mem-limit=384M",
        "--max-connections=12000",
        "--max-sessions=12000",
    ];
    let start = || ServerProcess::start(&many);
    hold("many connections at once", start, async |server| {
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
    let start =
        || ServerProcess::start_with_files(256, &["--memory-only", "--mem-limit", MEM_LIMIT]);
    hold("256 file descriptors", start, async |server| {
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
        connect_in_the_end(server.address).await.map(drop)
    })
    .await
}
