//! A value of any length on its way out, chunk by chunk, between other answers.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use rhash_protocol::{
    ErrorCode, Response,
    frame::{Follow, FrameHead, FrameKind},
    limits::FRAME_BYTES_MAX,
};
use tokio::{sync::mpsc, time::timeout};

use super::{Outgoing, Room, Window};
use crate::{
    dispatch::encode,
    table::{TableError, ValueStream},
};

/// A part of a value as it is read takes about so much at most.
const PART_BYTES_MAX: usize = FRAME_BYTES_MAX / 4 * 3;

/// Where a stream's frames go.
#[derive(Debug)]
pub(crate) struct StreamOut {
    pub(crate) request_id: u64,
    pub(crate) outbox: mpsc::Sender<Outgoing>,
    pub(crate) window: Arc<Window>,
    /// A stream keeps the files alive that it comes from, but no longer than this.
    pub(crate) time_max: Duration,
}

/// The writer is gone, and with it the connection.
struct WriterGone;

impl StreamOut {
    /// Sends what was found, as fast as the client takes it.
    pub(crate) async fn send(self, found: Result<Option<ValueStream>, TableError>) {
        let sent = match found {
            Ok(Some(parts)) => match timeout(self.time_max, self.send_parts(parts)).await {
                Ok(sent) => sent,
                Err(_elapsed) => self.send_last(&Response::Error(self.too_slow())).await,
            },
            Ok(None) => self.send_last(&Response::Stream { present: false }).await,
            Err(error) => self.send_last(&Response::Error(error)).await,
        };
        if let Err(WriterGone) = sent {
            tracing::debug!(request = self.request_id, "a stream was given up");
        }
    }

    fn too_slow(&self) -> TableError {
        TableError {
            code: ErrorCode::Busy,
            text: format!(
                "the value was not taken within {} s, the server's limit",
                self.time_max.as_secs_f64()
            ),
        }
    }

    async fn send_parts(&self, mut parts: ValueStream) -> Result<(), WriterGone> {
        let head = encode(&Response::Stream { present: true });
        self.frame(FrameKind::Response, Follow::More, head).await?;
        loop {
            // IMPORTANT: room before the part is read, or many streams to slow peers would each
            // hold one that nobody has counted.
            let mut room = self.window.reserve(PART_BYTES_MAX).await;
            let mut part = match parts.recv().await {
                None => break,
                Some(Ok(part)) => Bytes::from(part),
                Some(Err(error)) => {
                    drop(room);
                    return self.send_last(&Response::Error(error)).await;
                }
            };
            while !part.is_empty() {
                let chunk = part.split_to(part.len().min(FRAME_BYTES_MAX));
                // The last chunk gives the room back.
                let room = if part.is_empty() {
                    std::mem::take(&mut room)
                } else {
                    Room::default()
                };
                self.send_in(room, FrameKind::Chunk, Follow::More, chunk)
                    .await?;
            }
        }
        self.frame(FrameKind::Chunk, Follow::Last, Bytes::new())
            .await
    }

    async fn send_last(&self, response: &Response<'_>) -> Result<(), WriterGone> {
        self.frame(FrameKind::Response, Follow::Last, encode(response))
            .await
    }

    async fn frame(&self, kind: FrameKind, follow: Follow, body: Bytes) -> Result<(), WriterGone> {
        let room = self.window.reserve(body.len()).await;
        self.send_in(room, kind, follow, body).await
    }

    async fn send_in(
        &self,
        room: Room,
        kind: FrameKind,
        follow: Follow,
        body: Bytes,
    ) -> Result<(), WriterGone> {
        let head = FrameHead {
            kind,
            follow,
            request_id: self.request_id,
        };
        let sent = self.outbox.send(Outgoing { head, body, room }).await;
        sent.map_err(|_writer_is_gone| WriterGone)
    }
}
