//! The fake server's connections.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use rhash_protocol::{
    Call, ErrorCode, Request, Response, WireError,
    assembler::{Assembler, AssemblyLimits},
    codec,
    connection::{ConnectionError, FrameReader, FrameWriter},
    frame::{Follow, FrameHead, FrameKind},
    handshake::{self, Limits, Welcome},
    limits::{BATCH_BYTES_TARGET, FRAME_BYTES_MAX, KEY_BYTES_MAX, PROTOCOL_VERSION},
};
use tokio::{
    net::{TcpListener, TcpStream, tcp::OwnedWriteHalf},
    sync::mpsc,
};

use super::{Shared, tables::Answer};

const NOTICES_MAX: usize = 1024;
const ASSEMBLY: AssemblyLimits = AssemblyLimits {
    bytes_max: 1 << 30,
    messages_max: 64,
};

type Writer = FrameWriter<OwnedWriteHalf>;

/// Serves until dropped.
pub(super) async fn listen(shared: Arc<Shared>, listener: TcpListener) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            return;
        };
        if shared.hooks.lock().refuse_connections {
            continue;
        }
        let shared = Arc::clone(&shared);
        drop(tokio::spawn(async move {
            let mut cut = shared.cut.subscribe();
            shared.live.fetch_add(1, Relaxed);
            tokio::select! {
                // A cut comes before whatever else could be done at the same moment.
                biased;
                _ = cut.changed() => {}
                // A client that goes away is what this server is for.
                ended = serve(&shared, stream) => drop(ended),
            }
            shared.live.fetch_sub(1, Relaxed);
        }));
    }
}

async fn serve(
    shared: &Shared,
    stream: TcpStream,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    stream.set_nodelay(true)?;
    let (read, write) = stream.into_split();
    let (mut reader, mut writer) = (FrameReader::new(read), FrameWriter::new(write));
    let hello = handshake::receive_hello(&mut reader).await?;
    let hooks = shared.hooks.lock().clone();
    if hello.token != hooks.token {
        let refusal = WireError {
            code: ErrorCode::Denied,
            text: "the token is wrong".to_owned(),
        };
        handshake::send_refusal(&mut writer, &refusal).await?;
        return Ok(());
    }
    let (notices, mut noticed) = mpsc::channel(NOTICES_MAX);
    let entered = shared.tables.lock().enter(hello.session, notices);
    let Some((ticket, resumed)) = entered else {
        let refusal = WireError {
            code: ErrorCode::SessionExpired,
            text: "the session is unknown".to_owned(),
        };
        handshake::send_refusal(&mut writer, &refusal).await?;
        return Ok(());
    };
    let welcome = Welcome {
        server: format!("fake {PROTOCOL_VERSION}"),
        ticket,
        resumed,
        lease_ms: 60_000,
        limits: Limits {
            key_bytes: KEY_BYTES_MAX as u64,
            value_bytes: hooks.value_bytes,
            frame_bytes: FRAME_BYTES_MAX as u64,
            batch_bytes: BATCH_BYTES_TARGET as u64,
            unsettled: hooks.unsettled,
        },
        memory_only: true,
    };
    handshake::send_welcome(&mut writer, &welcome).await?;
    shared.seen.lock().connections += 1;
    let mut assembler = Assembler::new(ASSEMBLY);
    let mut hold = shared.hold.subscribe();
    // The answer to a backup, and after how many pings it goes.
    let mut owed: Option<(u64, Answer, u32)> = None;
    loop {
        tokio::select! {
            biased;
            notice = noticed.recv() => {
                let Some(notice) = notice else { return Ok(()) };
                let mut body = Vec::new();
                codec::encode(&notice, &mut body)?;
                writer.write_message(FrameKind::Notice, 0, &body).await?;
                writer.flush().await?;
            }
            frame = reader.next() => {
                let Some(frame) = frame? else { return Ok(()) };
                let Some(message) = assembler.push(frame)? else { continue };
                let (id, answer, is_cut, pings) = {
                    let call: Call<'_> = codec::decode(&message.body)?;
                    let (mut hooks, mut seen) = (shared.hooks.lock(), shared.seen.lock());
                    let before = seen.writes;
                    let answer = shared.tables.lock().call(ticket.id, &call, &mut hooks, &mut seen);
                    let is_cut = seen.writes > before && counts_down(&mut hooks.cut_after_writes);
                    let pings = match call.request {
                        Request::Backup { .. } => hooks.backup_pings,
                        Request::Ping => {
                            owed.iter_mut().for_each(|(_, _, pings)| *pings -= 1);
                            0
                        }
                        _ => 0,
                    };
                    (message.request_id, answer, is_cut, pings)
                };
                if is_cut {
                    return Ok(());
                }
                if pings > 0 {
                    owed = Some((id, answer, pings));
                    continue;
                }
                hold.wait_for(|&hold| !hold).await?;
                send(shared, &mut writer, id, answer).await?;
                if let Some((id, answer, _)) = owed.take_if(|(_, _, pings)| *pings == 0) {
                    send(shared, &mut writer, id, answer).await?;
                }
                writer.flush().await?;
            }
        }
    }
}

/// Whether a countdown came to its end.
fn counts_down(count: &mut Option<u32>) -> bool {
    match count {
        Some(left) if *left > 1 => *left -= 1,
        Some(_) => {
            *count = None;
            return true;
        }
        None => {}
    }
    false
}

async fn send(
    shared: &Shared,
    writer: &mut Writer,
    request_id: u64,
    answer: Answer,
) -> Result<(), ConnectionError> {
    let value = match answer {
        Answer::Message(bytes) => {
            return writer
                .write_message(FrameKind::Response, request_id, &bytes)
                .await;
        }
        Answer::Value(value) => value,
    };
    let mut head = Vec::new();
    let present = value.is_some();
    drop(codec::encode(&Response::Stream { present }, &mut head));
    let Some(value) = value else {
        return writer
            .write_message(FrameKind::Response, request_id, &head)
            .await;
    };
    let more = |kind| FrameHead {
        kind,
        follow: Follow::More,
        request_id,
    };
    writer.write_frame(more(FrameKind::Response), &head).await?;
    let chunk_bytes = shared.hooks.lock().chunk_bytes;
    for chunk in value.chunks(chunk_bytes) {
        writer.write_frame(more(FrameKind::Chunk), chunk).await?;
        if counts_down(&mut shared.hooks.lock().cut_after_chunks) {
            writer.flush().await?;
            return Err(ConnectionError::HalfWritten);
        }
    }
    writer
        .write_frame(FrameHead::whole(FrameKind::Chunk, request_id), &[])
        .await
}
