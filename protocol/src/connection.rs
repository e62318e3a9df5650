//! Frames over any async stream.
//!
//! [`FrameReader`] keeps one buffer and hands out frames borrowed from it; [`FrameWriter`] gathers
//! small frames into one write and sends long bodies without copying them. Neither owns a task or
//! a deadline: those are the caller's. Messages in several frames are put together by an
//! [`Assembler`](crate::assembler::Assembler).

use bytes::{Buf, BufMut as _};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::{
    frame::{Follow, Frame, FrameError, FrameHead, FrameKind, HEADER_BYTES, Header},
    limits::{FRAME_BYTES_MAX, HELLO_BYTES_MAX},
};

/// What a reader's buffer holds between long frames, and so the most that it reads ahead of one.
const READ_AHEAD_BYTES: usize = 32 * 1024;

/// Frames gather in a writer's buffer until they are this many bytes.
const GATHER_BYTES_MAX: usize = 32 * 1024;

/// Longer bodies are not copied into the buffer but written from where they are.
const COPIED_BODY_BYTES_MAX: usize = 8 * 1024;

/// The stream failed, or what came over it is not the protocol.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// Reading or writing failed.
    #[error("the connection failed")]
    Io(#[from] std::io::Error),
    /// What came is not a frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The stream ended inside a frame.
    #[error("the connection ended inside a frame, {missing} bytes before its end")]
    Torn {
        /// How many bytes of the header, or else of the body, did not come.
        missing: usize,
    },
    /// A write was given up half-way, so that nothing can follow it.
    #[error("an earlier write on this connection was given up half-way")]
    HalfWritten,
}

/// Reads frames.
#[derive(Debug)]
pub struct FrameReader<R> {
    source: R,
    /// Bytes received; those before `taken` were handed out.
    buffer: Vec<u8>,
    taken: usize,
    ahead_bytes: usize,
    body_bytes_max: usize,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// A reader of what comes from `source`.
    pub fn new(source: R) -> Self {
        Self {
            source,
            buffer: Vec::new(),
            taken: 0,
            ahead_bytes: READ_AHEAD_BYTES,
            body_bytes_max: FRAME_BYTES_MAX,
        }
    }

    /// Takes no frames with longer bodies from now on; 256 KiB is the most.
    pub fn limit_frames(&mut self, body_bytes_max: usize) {
        self.body_bytes_max = body_bytes_max.min(FRAME_BYTES_MAX);
    }

    /// The header of the next frame, whose body may still be on its way, so that room can be found
    /// for it first; none when the stream ended after the frame before.
    ///
    /// Cancel safe, as [`next`](Self::next), which gives the whole frame.
    ///
    /// # Errors
    /// As for [`next`](Self::next).
    pub async fn next_header(&mut self) -> Result<Option<Header>, ConnectionError> {
        self.header_within(self.body_bytes_max).await
    }

    /// The next frame; none when the stream ended after the one before.
    ///
    /// Cancel safe: a call that is dropped loses nothing, the next one goes on where it was.
    ///
    /// # Errors
    /// [`ConnectionError`] if the stream fails, ends inside a frame or is not made of frames.
    /// After an error the reader is of no more use.
    pub async fn next(&mut self) -> Result<Option<Frame<'_>>, ConnectionError> {
        self.next_within(self.body_bytes_max).await
    }

    /// Like [`next`](Self::next), with a lower limit for the length of the body.
    ///
    /// # Errors
    /// As for [`next`](Self::next).
    pub async fn next_within(
        &mut self,
        body_bytes_max: usize,
    ) -> Result<Option<Frame<'_>>, ConnectionError> {
        let Some(header) = self.header_within(body_bytes_max).await? else {
            return Ok(None);
        };
        let frame_bytes = HEADER_BYTES.saturating_add(header.body_bytes());
        while self.unread().len() < frame_bytes {
            self.part_within(frame_bytes, body_bytes_max, usize::MAX)
                .await?;
        }
        let begin = self.taken;
        self.taken = begin.saturating_add(frame_bytes);
        let body = self
            .buffer
            .get(begin.saturating_add(HEADER_BYTES)..self.taken);
        Ok(Some(header.verify(body.unwrap_or_default())?))
    }

    async fn header_within(
        &mut self,
        body_bytes_max: usize,
    ) -> Result<Option<Header>, ConnectionError> {
        loop {
            if let Some(header) = self.unread().first_chunk() {
                return Ok(Some(Header::parse(header, body_bytes_max)?));
            }
            if self.fill(HEADER_BYTES, body_bytes_max, usize::MAX).await? == 0 {
                return match HEADER_BYTES.saturating_sub(self.unread().len()) {
                    HEADER_BYTES => Ok(None),
                    missing => Err(ConnectionError::Torn { missing }),
                };
            }
        }
    }

    /// Reads once what has come, at most `bytes_max`, of a frame of `frame_bytes` that has begun, and
    /// gives how much that was. Whoever reads a long frame part by part can do something else between
    /// two of them.
    ///
    /// Cancel safe, as [`next`](Self::next), which gives the frame once all of it is here.
    ///
    /// # Errors
    /// [`ConnectionError`] if the stream fails or ends.
    pub async fn read_part(
        &mut self,
        frame_bytes: usize,
        bytes_max: usize,
    ) -> Result<usize, ConnectionError> {
        self.part_within(frame_bytes, self.body_bytes_max, bytes_max)
            .await
    }

    async fn part_within(
        &mut self,
        frame_bytes: usize,
        body_bytes_max: usize,
        bytes_max: usize,
    ) -> Result<usize, ConnectionError> {
        match self.fill(frame_bytes, body_bytes_max, bytes_max).await? {
            0 => Err(ConnectionError::Torn {
                missing: frame_bytes.saturating_sub(self.unread().len()),
            }),
            received => Ok(received),
        }
    }

    /// Whether bytes of a frame, or whole frames, are here already.
    pub fn has_unread(&self) -> bool {
        !self.unread().is_empty()
    }

    /// The bytes that were received and not yet handed out.
    pub fn unread(&self) -> &[u8] {
        self.buffer.get(self.taken..).unwrap_or_default()
    }

    /// How much it can hold without more memory.
    pub fn capacity(&self) -> usize {
        self.buffer.capacity()
    }

    /// Gives back the room that long frames needed, but for `ahead_bytes`, which is also the most
    /// that is read ahead from now on.
    pub fn trim(&mut self, ahead_bytes: usize) {
        self.ahead_bytes = ahead_bytes.clamp(HEADER_BYTES, READ_AHEAD_BYTES);
        self.drop_taken();
        self.buffer.shrink_to(self.ahead_bytes);
    }

    /// Reads once, at most `bytes_max`, making room for a frame of `frame_bytes` first, and gives how much
    /// that was: nothing at the end of the stream.
    async fn fill(
        &mut self,
        frame_bytes: usize,
        body_bytes_max: usize,
        bytes_max: usize,
    ) -> Result<usize, ConnectionError> {
        self.drop_taken();
        // A peer that has not introduced itself gets no more room than its hello may need.
        let ahead = if body_bytes_max <= HELLO_BYTES_MAX {
            body_bytes_max
        } else {
            self.ahead_bytes
        };
        let room = frame_bytes.max(ahead);
        if self.buffer.capacity() < room {
            self.buffer
                .reserve_exact(room.saturating_sub(self.buffer.len()));
        }
        let spare = self.buffer.capacity().saturating_sub(self.buffer.len());
        let received = self
            .source
            .read_buf(&mut (&mut self.buffer).limit(spare.min(bytes_max.max(1))))
            .await?;
        Ok(received)
    }

    fn drop_taken(&mut self) {
        self.buffer.drain(..self.taken);
        self.taken = 0;
    }
}

/// Writes frames.
///
/// Not cancel safe: a call that is dropped may have sent part of a frame. The writer remembers
/// that, and every later call errs with [`ConnectionError::HalfWritten`].
#[derive(Debug)]
pub struct FrameWriter<W> {
    sink: W,
    /// Frames that wait for company.
    buffer: Vec<u8>,
    body_bytes_max: usize,
    half_written: bool,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    /// A writer to `sink`.
    pub fn new(sink: W) -> Self {
        Self {
            sink,
            buffer: Vec::new(),
            body_bytes_max: FRAME_BYTES_MAX,
            half_written: false,
        }
    }

    /// Splits messages into frames with no longer bodies from now on, as the peer asks; 1 to 256 KiB.
    pub fn limit_frames(&mut self, body_bytes_max: usize) {
        self.body_bytes_max = body_bytes_max.clamp(1, FRAME_BYTES_MAX);
    }

    /// The sink itself. What goes to it directly goes before what was written and not yet flushed.
    pub fn get_mut(&mut self) -> &mut W {
        &mut self.sink
    }

    /// Writes one frame, or keeps it until enough have gathered or [`flush`](Self::flush) is called.
    ///
    /// # Errors
    /// [`ConnectionError`] if the stream fails, or if the body is too long for one frame.
    pub async fn write_frame(
        &mut self,
        head: FrameHead,
        body: &[u8],
    ) -> Result<(), ConnectionError> {
        let header = head.header(body)?;
        self.buffer.extend_from_slice(&header);
        if body.len() > COPIED_BODY_BYTES_MAX {
            return self.send(body).await;
        }
        self.buffer.extend_from_slice(body);
        if self.buffer.len() > GATHER_BYTES_MAX {
            return self.send(&[]).await;
        }
        Ok(())
    }

    /// Writes a message of any length: one frame, or a first one and chunks.
    ///
    /// # Errors
    /// [`ConnectionError`] if the stream fails.
    pub async fn write_message(
        &mut self,
        kind: FrameKind,
        request_id: u64,
        message: &[u8],
    ) -> Result<(), ConnectionError> {
        let mut kind = kind;
        let mut rest = message;
        while let Some((body, after)) = rest.split_at_checked(self.body_bytes_max)
            && !after.is_empty()
        {
            let head = FrameHead {
                kind,
                follow: Follow::More,
                request_id,
            };
            self.write_frame(head, body).await?;
            kind = FrameKind::Chunk;
            rest = after;
        }
        self.write_frame(FrameHead::whole(kind, request_id), rest)
            .await
    }

    /// Sends all that was written.
    ///
    /// # Errors
    /// [`ConnectionError`] if the stream fails.
    pub async fn flush(&mut self) -> Result<(), ConnectionError> {
        self.send(&[]).await?;
        Ok(self.sink.flush().await?)
    }

    /// Sends all that was written and ends the stream.
    ///
    /// # Errors
    /// [`ConnectionError`] if the stream fails.
    pub async fn shutdown(&mut self) -> Result<(), ConnectionError> {
        self.flush().await?;
        Ok(self.sink.shutdown().await?)
    }

    /// Gives back the memory that many frames needed which were sent together.
    pub fn trim(&mut self) {
        if self.buffer.is_empty() {
            self.buffer.shrink_to(COPIED_BODY_BYTES_MAX);
        }
    }

    /// Sends what has gathered, and `body` after it.
    async fn send(&mut self, body: &[u8]) -> Result<(), ConnectionError> {
        if self.half_written {
            return Err(ConnectionError::HalfWritten);
        }
        if self.buffer.is_empty() && body.is_empty() {
            return Ok(());
        }
        self.half_written = true;
        self.sink
            .write_all_buf(&mut Buf::chain(self.buffer.as_slice(), body))
            .await?;
        self.half_written = false;
        self.buffer.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
