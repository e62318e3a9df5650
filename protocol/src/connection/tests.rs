//! Readers and writers over streams in memory.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{ReadBuf, duplex};

use super::*;
use crate::assembler::{Assembler, AssemblyLimits};

/// Gives its bytes in pieces, with a pause before each.
struct Pieces {
    bytes: Vec<u8>,
    at: usize,
    piece_bytes: usize,
    paused: bool,
}

impl Pieces {
    fn new(bytes: &[u8], piece_bytes: usize) -> Self {
        Self {
            bytes: bytes.to_vec(),
            at: 0,
            piece_bytes,
            paused: false,
        }
    }
}

impl AsyncRead for Pieces {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        self.paused = !self.paused;
        if self.paused {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let length = self
            .piece_bytes
            .min(out.remaining())
            .min(self.bytes.len() - self.at);
        out.put_slice(&self.bytes[self.at..self.at + length]);
        self.at += length;
        Poll::Ready(Ok(()))
    }
}

async fn written(messages: &[(u64, &[u8])]) -> Vec<u8> {
    let mut writer = FrameWriter::new(Vec::new());
    for (request_id, message) in messages {
        writer
            .write_message(FrameKind::Request, *request_id, message)
            .await
            .unwrap();
    }
    writer.flush().await.unwrap();
    writer.sink
}

#[tokio::test]
async fn frames_arrive_in_whatever_pieces_they_come() {
    let long = vec![7; 100_000];
    let bytes = written(&[(1, b"one"), (2, b""), (3, &long), (4, b"four")]).await;
    for piece_bytes in [1, 19, 20, 21, 4096, bytes.len()] {
        let mut reader = FrameReader::new(Pieces::new(&bytes, piece_bytes));
        for (request_id, body) in [(1, &b"one"[..]), (2, b""), (3, &long), (4, b"four")] {
            let frame = reader.next().await.unwrap().unwrap();
            assert_eq!(
                frame,
                Frame {
                    head: FrameHead::whole(FrameKind::Request, request_id),
                    body
                }
            );
        }
        assert!(
            reader.next().await.unwrap().is_none(),
            "a clean end is a value"
        );
    }
}

#[tokio::test]
async fn a_reader_that_is_given_up_loses_nothing() {
    let bytes = written(&[(1, b"one"), (2, &[5; 3000])]).await;
    let mut reader = FrameReader::new(Pieces::new(&bytes, 7));
    for request_id in [1, 2] {
        let mut polls = 0;
        loop {
            // The source pauses before every piece: each call here gets at most one of them.
            let next = polled_twice(reader.next()).await;
            polls += 1;
            if let Some(frame) = next {
                assert_eq!(frame.unwrap().unwrap().head.request_id, request_id);
                break;
            }
        }
        assert!(polls > 1, "the call was given up at least once");
    }
}

/// Polls a future twice, then drops it.
async fn polled_twice<F: Future>(future: F) -> Option<F::Output> {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(move |context| {
        for _ in 0..2 {
            if let Poll::Ready(output) = future.as_mut().poll(context) {
                return Poll::Ready(Some(output));
            }
        }
        Poll::Ready(None)
    })
    .await
}

#[tokio::test]
async fn a_long_frame_can_be_read_part_by_part() {
    let long = vec![7; 100_000];
    let bytes = written(&[(1, &long), (2, b"after")]).await;
    for (piece_bytes, part_bytes_max) in [(21, 1), (1, 4096), (bytes.len(), 4096), (4096, 70_000)] {
        let mut reader = FrameReader::new(Pieces::new(&bytes, piece_bytes));
        let header = reader.next_header().await.unwrap().unwrap();
        let frame_bytes = HEADER_BYTES + header.body_bytes();
        while reader.unread().len() < frame_bytes {
            let before = reader.unread().len();
            let part_bytes = reader.read_part(frame_bytes, part_bytes_max).await.unwrap();
            assert!((1..=part_bytes_max).contains(&part_bytes));
            assert_eq!(reader.unread().len(), before + part_bytes);
        }
        assert_eq!(reader.next().await.unwrap().unwrap().body, long);
        assert_eq!(reader.next().await.unwrap().unwrap().body, b"after");
        assert_eq!(reader.next().await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_stream_that_ends_between_two_parts_says_how_much_is_missing() {
    let bytes = written(&[(1, &[7; 1000])]).await;
    let mut reader = FrameReader::new(Pieces::new(&bytes[..700], 100));
    let header = reader.next_header().await.unwrap().unwrap();
    let frame_bytes = HEADER_BYTES + header.body_bytes();
    while reader.unread().len() < 700 {
        reader.read_part(frame_bytes, 64).await.unwrap();
    }
    let end = reader.read_part(frame_bytes, 64).await.unwrap_err();
    assert!(
        matches!(end, ConnectionError::Torn { missing } if missing == frame_bytes - 700),
        "{end:?}"
    );
}

#[tokio::test]
async fn a_stream_that_ends_inside_a_frame_says_where() {
    let bytes = written(&[(1, b"body")]).await;
    for (length, missing) in [(1, 19), (19, 1), (20, 4), (23, 1)] {
        let mut reader = FrameReader::new(&bytes[..length]);
        let error = reader.next().await.unwrap_err();
        assert!(
            matches!(error, ConnectionError::Torn { missing: found } if found == missing),
            "{length} of {} bytes: {error:?}",
            bytes.len()
        );
    }
}

#[tokio::test]
async fn a_length_over_the_limit_is_refused_before_room_is_made() {
    let mut header = FrameHead::whole(FrameKind::Request, 1).header(b"").unwrap();
    header[..4].copy_from_slice(&(u32::MAX).to_le_bytes());
    let mut reader = FrameReader::new(&header[..]);
    let error = reader.next().await.unwrap_err();
    assert!(
        matches!(error, ConnectionError::Frame(FrameError::Length { .. })),
        "{error:?}"
    );
    assert!(reader.buffer.capacity() <= READ_AHEAD_BYTES);
}

#[tokio::test]
async fn the_room_of_long_frames_is_given_back() {
    let bytes = written(&[(1, &vec![1; FRAME_BYTES_MAX]), (2, b"x")]).await;
    let mut reader = FrameReader::new(&bytes[..]);
    reader.next().await.unwrap().unwrap();
    assert!(reader.buffer.capacity() > FRAME_BYTES_MAX);
    assert!(reader.buffer.capacity() <= FRAME_BYTES_MAX + HEADER_BYTES);
    reader.trim(READ_AHEAD_BYTES);
    assert!(reader.buffer.capacity() <= READ_AHEAD_BYTES);
    assert_eq!(reader.next().await.unwrap().unwrap().body, b"x");
}

#[tokio::test]
async fn small_frames_leave_in_one_write() {
    let mut writer = FrameWriter::new(Vec::new());
    let head = FrameHead::whole(FrameKind::Response, 1);
    for _ in 0..100 {
        writer.write_frame(head, &[1; 50]).await.unwrap();
    }
    assert!(writer.sink.is_empty(), "they wait for company");
    writer.flush().await.unwrap();
    assert_eq!(writer.sink.len(), 100 * (HEADER_BYTES + 50));

    for _ in 0..10_000 {
        writer.write_frame(head, &[1; 50]).await.unwrap();
        assert!(
            writer.buffer.len() <= GATHER_BYTES_MAX,
            "but not without bound"
        );
    }
}

#[tokio::test]
async fn long_messages_go_in_chunks_and_come_out_whole() {
    let message: Vec<u8> = (0..FRAME_BYTES_MAX * 2 + 5)
        .map(|at| (at % 251) as u8)
        .collect();
    for length in [
        0,
        FRAME_BYTES_MAX,
        FRAME_BYTES_MAX + 1,
        2 * FRAME_BYTES_MAX,
        message.len(),
    ] {
        let message = &message[..length];
        let bytes = written(&[(9, message)]).await;
        let mut reader = FrameReader::new(&bytes[..]);
        let limits = AssemblyLimits {
            bytes_max: length,
            messages_max: 1,
        };
        let mut assembler = Assembler::new(limits);
        let mut frames = 0;
        let whole = loop {
            let frame = reader.next().await.unwrap().unwrap();
            frames += 1;
            if let Some(whole) = assembler.push(frame).unwrap() {
                break whole;
            }
        };
        assert_eq!((whole.kind, whole.request_id), (FrameKind::Request, 9));
        assert!(*whole.body == *message);
        assert_eq!(frames, length.div_ceil(FRAME_BYTES_MAX).max(1));
    }
}

#[tokio::test]
async fn a_writer_that_was_given_up_half_way_says_so_ever_after() {
    let (sink, _source) = duplex(64);
    let mut writer = FrameWriter::new(sink);
    let head = FrameHead::whole(FrameKind::Response, 1);
    let given_up = polled_twice(writer.write_frame(head, &[0; 20_000])).await;
    assert!(given_up.is_none(), "nobody reads, so it cannot have ended");
    let error = writer.flush().await.unwrap_err();
    assert!(matches!(error, ConnectionError::HalfWritten), "{error:?}");
}
