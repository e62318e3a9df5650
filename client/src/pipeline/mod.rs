//! The pipeline to one server: many calls at a time over one connection, which comes back.
//!
//! Every call has an id, and those that change something a sequence number; calls go out in the
//! order in which they were made. When the connection is lost, a new one takes up the session and
//! all unanswered calls are sent again under the same numbers, so that the server applies each
//! once. When the session is lost, they fail with [`ErrorKind::SessionExpired`] and none is
//! repeated. The bytes of unanswered calls are bounded.

use std::{
    ops::Range,
    sync::{Arc, OnceLock, Weak},
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::Mutex;
use rhash_protocol::{
    Request, Response, TableId, codec,
    handshake::{Limits, Ticket},
};
use tokio::sync::{Notify, Semaphore, mpsc, oneshot, watch};

use crate::{
    address::Address,
    error::{Error, ErrorKind, Result},
    tls::Tls,
    token::Token,
};

mod calls;
mod link;

use self::calls::{Answer, Calls, Fate, StreamAnswer};
pub(crate) use self::{calls::StreamPart, link::expired};

/// Parts of a stream that wait for their reader.
const STREAM_PARTS_MAX: usize = 16;

/// How a pipeline connects and how long it waits.
#[derive(Debug, Clone)]
pub(crate) struct PipelineConfig {
    pub(crate) address: Address,
    pub(crate) token: Token,
    pub(crate) tls: Option<Tls>,
    pub(crate) client_name: String,
    pub(crate) in_flight_bytes: usize,
    pub(crate) connect_timeout: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) retry_deadline: Duration,
    pub(crate) backoff_min: Duration,
    pub(crate) backoff_max: Duration,
}

/// What a pipeline tells its client, from the task that reads and in the order of the wire.
pub(crate) trait Events: Send + Sync {
    /// Whether this client is the only one that has the table open.
    fn sole(&self, table: TableId, sole: bool);
    /// The connection was lost: notices may be missed.
    fn link_lost(&self);
    /// The session is over; all tables that were opened in it are lost to this client.
    fn session_expired(&self);
}

/// How patient a caller is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Errs when the server is away or silent for too long.
    Bounded,
    /// Waits for the answer or the session's end; the caller looks after its own deadline.
    Endless,
    /// Waits for the answer however long it takes, but errs when the connection is lost: what was asked
    /// must not be asked twice. The caller sees to it that a silent server is noticed.
    Once,
}

impl Patience {
    /// What becomes of a call that waits like this when its connection is lost.
    fn fate(self) -> Fate {
        match self {
            Self::Bounded => Fate::Resent,
            Self::Endless => Fate::Kept,
            Self::Once => Fate::Failed,
        }
    }
}

/// An answer, as it came.
#[derive(Debug)]
pub(crate) struct Reply {
    bytes: Bytes,
}

/// A connection's state.
#[derive(Debug, Clone)]
enum LinkState {
    Up,
    Down { since: Instant, error: Error },
    Shut,
}

struct Shared {
    config: PipelineConfig,
    state: Mutex<State>,
    /// Wakes the task that writes.
    to_send: Notify,
    /// Wakes those that wait for sequence numbers to be settled.
    settled: Notify,
    /// Tells a live connection that it is to be given up.
    give_up: Notify,
    room: Arc<Semaphore>,
    events: OnceLock<Weak<dyn Events>>,
    shut: watch::Sender<bool>,
}

struct State {
    calls: Calls,
    link: LinkState,
    /// Takes the session up again; none after it was refused.
    ticket: Option<Ticket>,
    limits: Limits,
    received_last: Instant,
}

/// The pipeline; ends with its last owner.
pub(crate) struct Pipeline {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Pipeline {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Pipeline")
            .field("address", &self.shared.config.address)
            .finish()
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.shut();
    }
}

impl Pipeline {
    /// Connects for the first time; without success this is an error, and not tried again.
    pub(crate) async fn connect(config: PipelineConfig) -> Result<Self> {
        let link = link::open(&config, None).await?;
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                calls: Calls::default(),
                link: LinkState::Up,
                ticket: Some(link.welcome.ticket),
                limits: link.welcome.limits,
                received_last: Instant::now(),
            }),
            to_send: Notify::new(),
            settled: Notify::new(),
            give_up: Notify::new(),
            room: Arc::new(Semaphore::new(config.in_flight_bytes)),
            events: OnceLock::new(),
            shut: watch::Sender::new(false),
            config,
        });
        tokio::spawn(link::run(Arc::clone(&shared), link));
        Ok(Self { shared })
    }

    /// Says who is to be told of events. Called once, before any table is opened.
    pub(crate) fn listen(&self, events: Weak<dyn Events>) {
        // A second listener would be a fault of this crate, and the first one stays.
        let _second = self.shared.events.set(events);
    }

    /// What the server accepts.
    pub(crate) fn limits(&self) -> Limits {
        self.shared.state.lock().limits
    }

    /// Since when the server is away, and why.
    pub(crate) fn away(&self) -> Option<(Instant, Error)> {
        match &self.shared.state.lock().link {
            LinkState::Down { since, error } => Some((*since, error.clone())),
            LinkState::Up | LinkState::Shut => None,
        }
    }

    /// Makes a call and waits for its answer.
    pub(crate) async fn call(&self, request: Request<'_>, patience: Patience) -> Result<Reply> {
        let answer = self.send(request, patience).await?;
        self.wait(answer, patience).await
    }

    /// Puts a call into the pipeline: it waits for room only. What is sent earlier, is earlier on
    /// the server.
    pub(crate) async fn send(
        &self,
        request: Request<'_>,
        patience: Patience,
    ) -> Result<PendingReply> {
        let (sender, receiver) = oneshot::channel();
        self.push(request, Answer::Message(sender), patience)
            .await?;
        Ok(PendingReply { receiver })
    }

    /// Waits for the answer to a call that was sent.
    pub(crate) async fn wait(&self, reply: PendingReply, patience: Patience) -> Result<Reply> {
        let answer = match patience {
            Patience::Endless | Patience::Once => reply.receiver.await,
            Patience::Bounded => {
                let timeout = self.shared.config.request_timeout;
                match tokio::time::timeout(timeout, reply.receiver).await {
                    Ok(answer) => answer,
                    Err(_elapsed) => return Err(self.shared.timed_out()),
                }
            }
        };
        // The sender is dropped without an answer only when the pipeline ends.
        Ok(Reply {
            bytes: answer.map_err(|_dropped| shut_down())??,
        })
    }

    /// Asks for one value of any length, from byte `skip` on.
    pub(crate) async fn fetch(
        &self,
        table: TableId,
        key: &[u8],
        skip: u64,
    ) -> Result<mpsc::Receiver<StreamPart>> {
        let (parts, receiver) = mpsc::channel(STREAM_PARTS_MAX);
        let answer = Answer::Stream(StreamAnswer {
            parts,
            passed: skip,
            skip,
        });
        self.push(Request::Fetch { table, key }, answer, Patience::Bounded)
            .await?;
        Ok(receiver)
    }

    async fn push(&self, request: Request<'_>, answer: Answer, patience: Patience) -> Result<()> {
        let shared = &self.shared;
        let size = request_bytes(&request).clamp(1, shared.config.in_flight_bytes);
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        let room = Arc::clone(&shared.room).acquire_many_owned(size);
        let room = shared
            .bounded(patience, room)
            .await?
            .map_err(|_closed| shut_down())?;
        loop {
            // Enabled before the look, so that no wake-up is lost between look and wait.
            let settled = shared.settled.notified();
            tokio::pin!(settled);
            settled.as_mut().enable();
            {
                let mut state = shared.state.lock();
                match &state.link {
                    LinkState::Shut => return Err(shut_down()),
                    LinkState::Down { since, error }
                        if patience != Patience::Endless
                            && since.elapsed() >= shared.config.retry_deadline =>
                    {
                        return Err(error.clone());
                    }
                    LinkState::Down { .. } | LinkState::Up => {}
                }
                let unsettled_max = state.limits.unsettled.max(1);
                if !request.is_sequenced() || state.calls.has_window(unsettled_max) {
                    state.calls.push(request, answer, patience.fate(), room)?;
                    break;
                }
            }
            shared.bounded(patience, settled).await?;
        }
        shared.to_send.notify_one();
        Ok(())
    }

    /// Ends the connection; calls that are not answered fail.
    pub(crate) fn shut(&self) {
        self.shared.shut.send_replace(true);
        self.shared.room.close();
        let calls = {
            let mut state = self.shared.state.lock();
            state.link = LinkState::Shut;
            state.calls.expire()
        };
        for waiting in calls {
            waiting.answer.fail(shut_down());
        }
        self.shared.settled.notify_waiters();
    }
}

/// The answer to a call that was sent, when it comes.
#[derive(Debug)]
pub(crate) struct PendingReply {
    receiver: oneshot::Receiver<Result<Bytes>>,
}

impl Reply {
    /// What the server said; its error is the call's.
    pub(crate) fn response(&self) -> Result<Response<'_>> {
        match codec::decode(&self.bytes) {
            Ok(Response::Error(error)) => Err(error.into()),
            Ok(response) => Ok(response),
            Err(error) => Err(Error::with_source(
                ErrorKind::Protocol,
                "an answer cannot be read",
                error,
            )),
        }
    }

    /// The whole answer as it came, for parts that [`span`](Self::span) found.
    pub(crate) fn bytes(&self) -> Bytes {
        self.bytes.clone()
    }

    /// Where a part lies in the answer.
    pub(crate) fn span(&self, part: &[u8]) -> Range<usize> {
        let start = part
            .as_ptr()
            .addr()
            .wrapping_sub(self.bytes.as_ptr().addr());
        match start.checked_add(part.len()) {
            Some(end) if end <= self.bytes.len() => start..end,
            // An empty part may lie anywhere.
            _ => 0..0,
        }
    }

    /// A part of the answer, without copying it.
    pub(crate) fn slice(&self, part: &[u8]) -> Bytes {
        self.bytes.slice_ref(part)
    }
}

impl Shared {
    /// Waits for something inside the client, as long as the caller is patient.
    async fn bounded<T>(&self, patience: Patience, wait: impl Future<Output = T>) -> Result<T> {
        match patience {
            Patience::Endless => Ok(wait.await),
            Patience::Bounded | Patience::Once => {
                tokio::time::timeout(self.config.request_timeout, wait)
                    .await
                    .map_err(|_elapsed| self.timed_out())
            }
        }
    }

    fn timed_out(&self) -> Error {
        let timeout = self.config.request_timeout;
        let state = self.state.lock();
        match &state.link {
            LinkState::Down { error, .. } => error.clone(),
            LinkState::Up | LinkState::Shut => {
                if state.received_last.elapsed() >= timeout {
                    // Nothing at all was heard: the connection is dead, though nobody said so.
                    self.give_up.notify_one();
                }
                let text = format!("no answer within {timeout:?}");
                Error::new(ErrorKind::Timeout, text)
            }
        }
    }
}

pub(crate) fn shut_down() -> Error {
    Error::new(ErrorKind::Usage, "the client was shut down")
}

/// An answer of another type than the request's.
pub(crate) fn unexpected(response: &Response<'_>) -> Error {
    let mut text = format!("unexpected answer {response:?}");
    text.truncate(
        text.char_indices()
            .nth(100)
            .map_or(text.len(), |(end, _)| end),
    );
    Error::new(ErrorKind::Protocol, text)
}

/// About how many bytes a request takes while it is not answered.
fn request_bytes(request: &Request<'_>) -> usize {
    const BASE: usize = 128;
    let body = match request {
        Request::Write { ops, .. } => ops.bytes().len(),
        Request::Get { keys, .. } | Request::Contains { keys, .. } => keys.bytes().len(),
        Request::Fetch { key, .. } => key.len(),
        _ => 0,
    };
    BASE + body
}
