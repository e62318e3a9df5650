//! One connection, from its hello to its end.
//!
//! Requests are taken in the order in which they come. One that changes something is finished
//! before the next is taken; a read that finds all it needs in RAM is answered at once, and one
//! that needs the disk is answered later, while the next requests are taken. What waits to be
//! sent is bounded by the [`Window`], what is being received by the [`AssemblyRoom`], and both over
//! all connections by the [`Commons`].

mod commons;
mod window;
mod assembly;
mod pace;
mod intake;
mod socket;
mod secure;
mod stint;
mod strangers;
mod outbox;
mod opening;
pub(crate) mod stream;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use rhash_protocol::{
    ErrorCode, Notice, WireError,
    assembler::{Assembler, AssemblyError, AssemblyLimits, Message},
    connection::{ConnectionError, FrameReader, FrameWriter},
    frame::{Follow, Frame, FrameError, FrameKind, HEADER_BYTES},
    handshake,
};
use tokio::{
    io::AsyncReadExt as _,
    net::TcpStream,
    sync::{OwnedMutexGuard, Semaphore, mpsc, watch},
    time::{Instant, timeout},
};

pub(crate) use commons::Commons;
pub(crate) use outbox::Outgoing;
pub(crate) use stint::Line;
pub(crate) use strangers::{Stranger, Strangers};
pub(crate) use window::{ANSWER_BYTES_MAX, LOOKUP_BYTES, Room, Window};

use crate::{
    dispatch::HeldBack,
    hub::{ConnectionCount, Hub},
    limits::Limit,
    session::{Desk, Session, Stop},
};
use assembly::{AssemblyRoom, Incoming};
use intake::{Intake, assembly_failed, connection_failed, ended, taken_away};
use opening::{Arrival, Opened, Refused};
use outbox::Patience;
use pace::Pace;
use socket::{Sink, Source};
use stint::{PART_BYTES_MAX, Stint};

/// A connection that is quiet for this long gives back the room that it needed for long frames.
const QUIET: Duration = Duration::from_secs(2);

/// How long a connection that ends may take to send what it owes, and then its last word; less if the
/// server stops and has less time.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// How long a connection that is one too many may take to be told so.
const REFUSAL_MAX: Duration = Duration::from_secs(2);

/// The most long requests that may be under way at once on a connection.
const LONG_REQUESTS_MAX: usize = 4;

/// The most values that a connection may be sent as streams at once.
const STREAMS_MAX: usize = 16;

/// Why a connection ends.
#[derive(Debug)]
pub(crate) enum End {
    /// The client closed it, or can no longer be reached.
    Closed,
    /// Another connection took the session up.
    TakenOver,
    /// It asked for nothing for so long.
    Idle,
    /// The token that the session began with is no longer valid.
    Revoked,
    /// The server stops.
    Stopping,
    /// What came is not the protocol, or came too slowly.
    Failed(WireError),
}

/// A connection that has something to say, or is to be told something.
#[derive(Debug)]
pub(crate) struct Guest {
    /// Of no runtime.
    pub(crate) stream: std::net::TcpStream,
    pub(crate) peer: SocketAddr,
    pub(crate) stranger: Stranger,
    /// When it came.
    pub(crate) since: Instant,
    pub(crate) counted: ConnectionCount,
}

/// Serves a connection to its end.
pub(crate) async fn serve(guest: Guest, hub: Arc<Hub>) {
    let Guest {
        stream,
        peer,
        mut stranger,
        since,
        counted,
    } = guest;
    hub.comings_and_goings.turn().await;
    let stream = match TcpStream::from_std(stream) {
        Ok(stream) => stream,
        Err(error) => {
            tracing::warn!(%peer, %error, "a connection could not be served");
            return;
        }
    };
    opening::prepare(&stream);
    let split = tokio::select! {
        // In the clear it is done at once, and one that has to go is told so.
        biased;
        split = secure::secure(stream, &hub, hello_left(&hub, since)) => split,
        () = stranger.displaced() => Err(Refused {
            reason: "others came after it that say no hello".to_owned(),
        }),
    };
    let (source, sink) = match split {
        Ok(split) => split,
        Err(Refused { reason }) => {
            secure::note_refusal(&hub, peer, &reason);
            return;
        }
    };
    let (received, sent) = (source.meter(), sink.meter());
    let mut reader = FrameReader::new(source);
    let mut writer = FrameWriter::new(sink);
    let arrival = Arrival {
        peer: peer.ip(),
        stranger: &mut stranger,
        hello_left: hello_left(&hub, since),
    };
    match opening::open(&mut reader, &mut writer, &hub, arrival).await {
        Ok(opened) => {
            drop(stranger);
            reader.limit_frames(usize::try_from(hub.limits.frame_bytes).unwrap_or(usize::MAX));
            let lines = Lines {
                reader,
                writer,
                received: Pace::new(received),
                sent: Pace::new(sent),
            };
            run(lines, opened, &hub, peer).await;
        }
        Err(Refused { reason }) => tracing::debug!(%peer, reason, "a connection was refused"),
    }
    drop(counted);
}

/// How much longer one that came then may take to say hello.
fn hello_left(hub: &Hub, since: Instant) -> Duration {
    hub.limits.hello_time.saturating_sub(since.elapsed())
}

/// Tells a connection that it is one too many, by TLS where the server speaks that: a client that was
/// told in the clear would take this for a port without TLS.
pub(crate) async fn refuse(stream: TcpStream, hub: &Hub) {
    let refusal = WireError {
        code: ErrorCode::Busy,
        text: format!(
            "the server has {} connections, its limit; try again later",
            hub.limits.connections
        ),
    };
    let told = async {
        let (mut source, sink) = secure::secure(stream, hub, hub.limits.hello_time)
            .await
            .ok()?;
        let mut writer = FrameWriter::new(sink);
        handshake::send_refusal(&mut writer, &refusal).await.ok()?;
        writer.shutdown().await.ok()?;
        // A socket that is closed before its peer's hello was read takes back what it was sent.
        let mut hello = [0; 512];
        while source.read(&mut hello).await.ok()? > 0 {}
        Some(())
    };
    // Whether it arrives is the peer's affair.
    drop(timeout(REFUSAL_MAX, told).await);
}

/// A connection's two directions, and how fast its peer is in each.
struct Lines {
    reader: FrameReader<Source>,
    writer: FrameWriter<Sink>,
    received: Pace,
    sent: Pace,
}

async fn run(lines: Lines, opened: Opened, hub: &Arc<Hub>, peer: SocketAddr) {
    let Lines {
        mut reader,
        mut writer,
        received,
        sent,
    } = lines;
    let Opened { attachment, desk } = opened;
    let session = Arc::clone(attachment.session());
    let token = session.grant().name.clone();
    tracing::debug!(%peer, session = session.id(), token, "a connection begins");
    let (outbox, queue) = mpsc::channel(outbox::OUTGOING_MAX);
    let notices = Arc::clone(session.notices());
    let window = Arc::new(Window::new(
        hub.limits.answers_per_connection_bytes,
        Arc::clone(&hub.answers_room),
    ));
    let patience = Patience {
        pace: sent,
        rooms: [
            Arc::clone(&hub.answers_room),
            Arc::clone(&hub.requests_room),
        ],
        window: Arc::clone(&window),
    };
    let stint = Stint::new(Arc::clone(&hub.line));
    let mut writing = tokio::spawn(async move {
        let written = outbox::write_out(&mut writer, queue, notices, patience, stint).await;
        // A writer that failed goes at once, so that the peer sees the end.
        written.map(|()| writer)
    });
    let mut clerk = Clerk {
        hub: Arc::clone(hub),
        session,
        desk,
        outbox,
        window,
        streams: Arc::new(Semaphore::new(STREAMS_MAX)),
        held_back: None,
        stint: Stint::new(Arc::clone(&hub.line)),
        stop: attachment.stop(),
    };
    let end = clerk.take_requests(&mut reader, received).await;
    tracing::debug!(%peer, session = clerk.session.id(), ?end, "a connection ends");
    hub.comings_and_goings.turn().await;
    // The clerk's end of the queue goes; the queue ends with the last read that is under way.
    drop(clerk);
    if matches!(end, End::TakenOver) {
        writing.abort();
    }
    match timeout(DRAIN_MAX, &mut writing).await {
        Ok(Ok(Ok(mut writer))) => {
            // Whether the last word arrives matters to nobody any more.
            drop(timeout(DRAIN_MAX, last_word(&mut writer, end)).await);
        }
        Ok(_) => {}
        Err(_elapsed) => writing.abort(),
    }
    // Only now does the lease begin.
    drop(attachment);
}

async fn last_word(writer: &mut FrameWriter<Sink>, end: End) -> Result<(), ConnectionError> {
    let error = match &end {
        End::Failed(error) => Some(error.clone()),
        End::Revoked => Some(WireError {
            code: ErrorCode::Denied,
            text: "the token that this session began with was revoked".to_owned(),
        }),
        _ => None,
    };
    match (end, error) {
        (_, Some(error)) => {
            if let Err(error) = handshake::send_refusal(writer, &error).await {
                tracing::debug!(%error, "the reason of an end could not be sent");
            }
        }
        (End::Stopping, _) => outbox::write_notice(writer, &Notice::ShuttingDown).await?,
        _ => {}
    }
    writer.shutdown().await
}

/// Takes one connection's requests.
#[derive(Debug)]
pub(crate) struct Clerk {
    pub(crate) hub: Arc<Hub>,
    pub(crate) session: Arc<Session>,
    pub(crate) desk: OwnedMutexGuard<Desk>,
    pub(crate) outbox: mpsc::Sender<Outgoing>,
    pub(crate) window: Arc<Window>,
    pub(crate) streams: Arc<Semaphore>,
    /// Takes answers that wait for the log, once there were any.
    pub(crate) held_back: Option<mpsc::Sender<HeldBack>>,
    stint: Stint,
    /// Says when another connection takes the session up, or when it is revoked.
    stop: watch::Receiver<Stop>,
}

impl Clerk {
    async fn take_requests(&mut self, reader: &mut FrameReader<Source>, pace: Pace) -> End {
        let mut intake = Intake {
            assembler: Assembler::new(AssemblyLimits {
                bytes_max: self.hub.request_bytes_max(),
                messages_max: LONG_REQUESTS_MAX,
            }),
            room: AssemblyRoom::new(Arc::clone(&self.hub.requests_room)),
            stop: self.stop.clone(),
            stopping: self.hub.stopping.clone(),
            outbox: self.outbox.clone(),
            pace,
            idle_since: Instant::now(),
        };
        reader.trim(self.hub.read_ahead_bytes());
        loop {
            if let Err(end) = self.take_frame(reader, &mut intake).await {
                return end;
            }
        }
    }

    /// Takes the next frame, or gives back what a quiet connection does not need.
    async fn take_frame(
        &mut self,
        reader: &mut FrameReader<Source>,
        intake: &mut Intake,
    ) -> Result<(), End> {
        let halves = intake.assembler.bytes() > 0 || reader.has_unread();
        let header = if halves {
            intake.keep_pace(reader.next_header()).await?
        } else {
            intake.pace.restart();
            let header = intake.unless_ended(timeout(QUIET, reader.next_header()));
            match header.await? {
                Ok(header) => header,
                Err(_elapsed) => {
                    reader.trim(self.hub.read_ahead_bytes());
                    intake.room.release();
                    return self.unless_idle(intake);
                }
            }
        };
        intake.idle_since = Instant::now();
        let header = header
            .map_err(|error| self.failed(error))?
            .ok_or(End::Closed)?;
        // Room for a long body is found before it is read.
        let frame_bytes = HEADER_BYTES + header.body_bytes();
        let (head, half) = (header.head(), intake.assembler.bytes());
        let incoming = if head.follow == Follow::More || head.kind == FrameKind::Chunk {
            Some(Incoming::Parts(half.saturating_add(frame_bytes)))
        } else if frame_bytes > reader.capacity() {
            Some(Incoming::Frame(frame_bytes))
        } else {
            None
        };
        if let Some(incoming) = incoming {
            self.unless_ended(intake.room.cover(incoming)).await?;
        }
        while reader.unread().len() < frame_bytes {
            let part = intake.keep_pace(reader.read_part(frame_bytes, PART_BYTES_MAX));
            let part = part.await?.map_err(|error| self.failed(error))?;
            self.stint.take(part).await;
        }
        // To read a long frame is work, and to take it apart is as much again.
        self.stint.take(frame_bytes).await;
        let frame = reader.next().await;
        let frame = frame
            .map_err(|error| self.failed(error))?
            .ok_or(End::Closed)?;
        self.take_message(frame, &mut intake.assembler).await?;
        if intake.assembler.bytes() == 0 {
            let (ahead_bytes, buffer_bytes) = (self.hub.read_ahead_bytes(), reader.capacity());
            if buffer_bytes <= ahead_bytes || !intake.room.keep(buffer_bytes) {
                if buffer_bytes > ahead_bytes {
                    reader.trim(ahead_bytes);
                }
                intake.room.release();
            }
        }
        Ok(())
    }

    /// Ends a connection that has asked for nothing for too long, and owes no answer.
    fn unless_idle(&self, intake: &Intake) -> Result<(), End> {
        let idle = intake.idle_since.elapsed();
        let owes = self.streams.available_permits() < STREAMS_MAX || self.window.is_in_use();
        match self.hub.limits.idle_time {
            Some(idle_max) if idle >= idle_max && !owes => {
                self.hub.reached.count(Limit::IdleTime);
                Err(End::Idle)
            }
            _ => Ok(()),
        }
    }

    fn failed(&self, error: ConnectionError) -> End {
        if let ConnectionError::Frame(FrameError::Length { .. }) = error {
            self.hub.reached.count(Limit::FrameBytes);
        }
        connection_failed(error)
    }

    async fn take_message(
        &mut self,
        frame: Frame<'_>,
        assembler: &mut Assembler,
    ) -> Result<(), End> {
        match assembler.push(frame) {
            Ok(None) => Ok(()),
            Ok(Some(Message {
                kind: FrameKind::Request,
                request_id,
                body,
            })) => self.take_call(request_id, &body).await,
            Ok(Some(Message { kind, .. })) => Err(End::Failed(WireError {
                code: ErrorCode::BadRequest,
                text: format!("a frame of kind {kind:?}, where only requests are expected"),
            })),
            Err(error) => {
                if let AssemblyError::Bytes { .. } = error {
                    self.hub.reached.count(Limit::ValueBytes);
                }
                Err(End::Failed(assembly_failed(error)))
            }
        }
    }

    /// Gives something to the connection's writer.
    pub(crate) async fn send(&self, outgoing: Outgoing) -> Result<(), End> {
        let bytes = outgoing.body.len();
        let sent = self.unless_taken_away(self.outbox.send(outgoing)).await?;
        sent.map_err(|_writer_is_gone| End::Closed)?;
        self.stint.made(bytes);
        Ok(())
    }

    /// Sends an answer that is here, when there is room for it.
    pub(crate) async fn send_answer(&self, request_id: u64, body: Bytes) -> Result<(), End> {
        let room = self.window.reserve(body.len());
        let room = self.unless_taken_away(room).await?;
        self.send(Outgoing::answer(request_id, body, room)).await
    }

    /// Waits for what a request needs of which nothing was done yet, unless the connection ends before.
    pub(crate) async fn unless_ended<F: Future>(&self, wait: F) -> Result<F::Output, End> {
        // Mostly there is nothing to wait for, and then the second branch does not begin.
        tokio::select! {
            biased;
            output = wait => Ok(output),
            end = async {
                let (mut stop, mut stopping) = (self.stop.clone(), self.hub.stopping.clone());
                ended(&mut stop, &mut stopping, &self.outbox).await
            } => Err(end),
        }
    }

    /// Waits for what the answer needs to something that was done, unless the session is taken from this
    /// connection before: a server that stops sends it yet.
    pub(crate) async fn unless_taken_away<F: Future>(&self, wait: F) -> Result<F::Output, End> {
        tokio::select! {
            biased;
            output = wait => Ok(output),
            end = async { taken_away(&mut self.stop.clone()).await } => Err(end),
        }
    }
}

#[cfg(test)]
mod tests;
