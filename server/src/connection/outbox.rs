//! A connection's way out: one task writes answers, chunks and notices in the order in which they
//! were given to it, as many in one write as are there.

use std::{io, sync::Arc};

use bytes::Bytes;
use rhash_protocol::{
    Notice, codec,
    connection::{ConnectionError, FrameWriter},
    frame::{Follow, FrameHead, FrameKind},
};
use tokio::{
    io::AsyncWrite,
    sync::{mpsc, mpsc::error::TryRecvError},
};

use super::{
    Commons,
    pace::{Pace, SPELL_BYTES_MIN, SPELL_SHARE},
    stint::Stint,
    window::{Room, Window},
};
use crate::session::Notices;

/// The most frames and messages that wait to be written; their bytes are bounded by the window.
pub(crate) const OUTGOING_MAX: usize = 1024;

/// What is to be written.
#[derive(Debug)]
pub(crate) struct Outgoing {
    /// A frame's head; a message that `Last` follows may be of any length and is split.
    pub(crate) head: FrameHead,
    /// Its body.
    pub(crate) body: Bytes,
    /// The room that it takes until it is written.
    pub(crate) room: Room,
}

impl Outgoing {
    /// A whole answer.
    pub(crate) fn answer(request_id: u64, body: Bytes, room: Room) -> Self {
        Self {
            head: FrameHead::whole(FrameKind::Response, request_id),
            body,
            room,
        }
    }
}

/// Writes what comes until nothing can come any more.
pub(crate) async fn write_out<W>(
    writer: &mut FrameWriter<W>,
    mut queue: mpsc::Receiver<Outgoing>,
    notices: Arc<Notices>,
    mut patience: Patience,
    stint: Stint,
) -> Result<(), ConnectionError>
where
    W: AsyncWrite + Unpin,
{
    loop {
        let outgoing = match queue.try_recv() {
            Ok(outgoing) => Some(outgoing),
            Err(TryRecvError::Disconnected) => return writer.flush().await,
            Err(TryRecvError::Empty) => {
                patience.keep(writer.flush()).await?;
                writer.trim();
                tokio::select! {
                    outgoing = queue.recv() => match outgoing {
                        Some(outgoing) => Some(outgoing),
                        None => return writer.flush().await,
                    },
                    () = notices.wait() => None,
                }
            }
        };
        if let Some(outgoing) = outgoing {
            if stint.is_over_with_answer(outgoing.body.len()) {
                // What is written waits for nobody else's turn.
                patience.keep(writer.flush()).await?;
                stint.next().await;
            }
            patience.keep(write(writer, outgoing)).await?;
        }
        if notices.any() {
            let taken = notices.take();
            // IMPORTANT: a notice may contradict an answer that was given to this task before it,
            // and then is the newer of the two: what is in the queue now goes first.
            for _ in 0..queue.len() {
                let Ok(outgoing) = queue.try_recv() else {
                    break;
                };
                patience.keep(write(writer, outgoing)).await?;
            }
            for notice in taken {
                patience.keep(write_notice(writer, &notice)).await?;
            }
        }
    }
}

/// How long a peer is waited for that takes nothing.
#[derive(Debug)]
pub(crate) struct Patience {
    /// How fast it takes what is sent.
    pub(crate) pace: Pace,
    /// What others may wait for as long as it does: its answers take room of one, and the request
    /// that comes after them, which is not taken meanwhile, of another.
    pub(crate) rooms: [Arc<Commons>; 2],
    /// What its own answers take: the more, the faster it must take them where others wait.
    pub(crate) window: Arc<Window>,
}

impl Patience {
    /// Writes on for as long as it takes, or until the peer has taken hardly anything for a while
    /// and others wait for room: then the connection ends, and its client may ask again.
    async fn keep(
        &mut self,
        writing: impl Future<Output = Result<(), ConnectionError>>,
    ) -> Result<(), ConnectionError> {
        let Self {
            pace,
            rooms,
            window,
        } = self;
        let spell_bytes_min = SPELL_BYTES_MIN.max(window.bytes_in_use() as u64 / SPELL_SHARE);
        let is_wanted = |_| rooms.iter().any(|room| room.is_wanted());
        let written = pace.keep(spell_bytes_min, writing, is_wanted).await;
        written.unwrap_or_else(|stalled| {
            let text = format!(
                "the peer took {} bytes in {} s",
                stalled.moved_bytes,
                stalled.time.as_secs()
            );
            Err(io::Error::new(io::ErrorKind::TimedOut, text).into())
        })
    }
}

/// Writes one notice.
pub(crate) async fn write_notice<W>(
    writer: &mut FrameWriter<W>,
    notice: &Notice,
) -> Result<(), ConnectionError>
where
    W: AsyncWrite + Unpin,
{
    let mut body = Vec::new();
    match codec::encode(notice, &mut body) {
        Ok(()) => {
            writer
                .write_frame(FrameHead::whole(FrameKind::Notice, 0), &body)
                .await
        }
        Err(error) => {
            tracing::error!(%error, "a notice cannot be encoded");
            Ok(())
        }
    }
}

async fn write<W>(writer: &mut FrameWriter<W>, outgoing: Outgoing) -> Result<(), ConnectionError>
where
    W: AsyncWrite + Unpin,
{
    let Outgoing { head, body, room } = outgoing;
    match head.follow {
        Follow::More => writer.write_frame(head, &body).await?,
        Follow::Last => {
            writer
                .write_message(head.kind, head.request_id, &body)
                .await?
        }
    }
    drop(room);
    Ok(())
}

#[cfg(test)]
mod tests {
    use rhash_protocol::connection::FrameReader;

    use super::*;
    use crate::{
        connection::{Line, commons::Share, socket::Meter},
        session::Holders,
        store::BufferAccount,
    };

    fn commons() -> Arc<Commons> {
        Arc::new(Commons::new(1, BufferAccount::of_nothing()))
    }

    fn patience() -> Patience {
        Patience {
            pace: Pace::new(Meter::default()),
            rooms: [commons(), commons()],
            window: Arc::new(Window::new(0, commons())),
        }
    }

    fn stint() -> Stint {
        Stint::new(Arc::new(Line::new(1)))
    }

    // A peer that stops reading once held up all who waited for room to send a request in.
    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_nothing_gives_way_to_who_waits_for_room_of_either_kind() {
        for wanted in 0..2 {
            let mut patience = patience();
            let room = Arc::clone(&patience.rooms[wanted]);
            let _taken: [Share; 2] = [room.take(1).await, room.take(1).await];
            let mut third = Box::pin(room.take(1));
            let (_answers, queue) = {
                let (sender, queue) = mpsc::channel(8);
                let body = Bytes::from(vec![0; 100_000]);
                let answer = Outgoing::answer(1, body, Room::default());
                sender.send(answer).await.unwrap();
                (sender, queue)
            };
            // Nobody reads at the other end.
            let (sink, _unread) = tokio::io::duplex(1000);
            let mut writer = FrameWriter::new(sink);
            patience.pace = Pace::new(Meter::default());
            let written = tokio::select! {
                biased;
                _ = &mut third => unreachable!("all room is taken"),
                written = write_out(&mut writer, queue, Arc::default(), patience, stint()) => written,
            };
            let error = written.unwrap_err();
            let cause = std::error::Error::source(&error).unwrap().to_string();
            assert_eq!(cause, "the peer took 0 bytes in 3 s");
        }
    }

    async fn kinds(written: &[u8]) -> Vec<(FrameKind, u64)> {
        let mut reader = FrameReader::new(written);
        let mut kinds = Vec::new();
        while let Some(frame) = reader.next().await.unwrap() {
            kinds.push((frame.head.kind, frame.head.request_id));
        }
        kinds
    }

    #[tokio::test]
    async fn answers_leave_in_order_and_the_end_of_the_queue_ends_the_task() {
        let (sender, queue) = mpsc::channel(8);
        for request_id in 1..=3 {
            let answer = Outgoing::answer(request_id, Bytes::from_static(b"x"), Room::default());
            sender.send(answer).await.unwrap();
        }
        drop(sender);
        let mut written = Vec::new();
        let mut writer = FrameWriter::new(&mut written);
        write_out(&mut writer, queue, Arc::default(), patience(), stint())
            .await
            .unwrap();
        let response = FrameKind::Response;
        assert_eq!(
            kinds(&written).await,
            [(response, 1), (response, 2), (response, 3)]
        );
    }

    #[tokio::test]
    async fn a_notice_follows_the_answers_that_were_there_before_it() {
        let (sender, queue) = mpsc::channel(8);
        let notices: Arc<Notices> = Arc::default();
        let holders = Holders::default();
        holders.open(7, 1, &notices);
        for request_id in 1..=3 {
            let answer = Outgoing::answer(request_id, Bytes::from_static(b"x"), Room::default());
            sender.send(answer).await.unwrap();
        }
        holders.told(7, 1, true);
        holders.open(7, 2, &Arc::default());
        drop(sender);
        let mut written = Vec::new();
        let mut writer = FrameWriter::new(&mut written);
        write_out(&mut writer, queue, notices, patience(), stint())
            .await
            .unwrap();
        assert_eq!(kinds(&written).await.pop(), Some((FrameKind::Notice, 0)));
    }
}
