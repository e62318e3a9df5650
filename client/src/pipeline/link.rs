//! One connection after the other: opening, reading, writing, coming back.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use rhash_protocol::{
    ErrorCode, Notice, Response,
    assembler::{Assembler, AssemblyLimits},
    codec,
    connection::{ConnectionError, FrameReader, FrameWriter},
    frame::{Follow, Frame, FrameKind},
    handshake::{self, Greeting, HandshakeError, Hello, Ticket, Welcome},
    limits::request_bytes_max,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::mpsc,
};
use tracing::{debug, warn};

use super::{Answer, LinkState, PipelineConfig, Shared, StreamPart, calls::CallId};
use crate::{
    error::{Error, ErrorKind, Result},
    tls::alert_text,
};

/// Messages in parts that a server may send at the same time.
const ASSEMBLED_MESSAGES_MAX: usize = 1024;

/// How often a stream whose reader is slow looks whether others wait behind it.
const STREAM_PATIENCE: Duration = Duration::from_millis(50);

/// What comes from the server, in the clear or not.
type Source = Box<dyn AsyncRead + Send + Unpin>;

/// What goes to it.
type Sink = Box<dyn AsyncWrite + Send + Unpin>;

/// An open connection.
pub(super) struct Link {
    reader: FrameReader<Source>,
    writer: FrameWriter<Sink>,
    pub(super) welcome: Welcome,
}

/// Connects and says hello.
pub(super) async fn open(config: &PipelineConfig, session: Option<Ticket>) -> Result<Link> {
    let opening = async {
        let stream = TcpStream::connect(config.address.host_and_port())
            .await
            .map_err(|error| {
                let text = format!("cannot connect to {}: {error}", config.address);
                Error::with_source(ErrorKind::Connection, text, error)
            })?;
        // Frames are gathered before they are written, so waiting for more would only delay them.
        stream
            .set_nodelay(true)
            .map_err(|error| lost(&config.address.to_string(), error))?;
        let (source, sink) = split(config, stream).await?;
        let (mut reader, mut writer) = (FrameReader::new(source), FrameWriter::new(sink));
        let hello = Hello {
            session,
            token: config.token.expose().to_owned(),
            client: config.client_name.clone(),
        };
        match handshake::greet(&mut reader, &mut writer, &hello).await {
            Ok(Greeting::Welcome(welcome)) => {
                let frame_bytes = usize::try_from(welcome.limits.frame_bytes);
                writer.limit_frames(frame_bytes.unwrap_or(usize::MAX));
                Ok(Link {
                    reader,
                    writer,
                    welcome,
                })
            }
            Ok(Greeting::Refusal(refusal)) => Err(refusal.into()),
            Err(error) => Err(handshake_failed(config, error)),
        }
    };
    match tokio::time::timeout(config.connect_timeout, opening).await {
        Ok(opened) => opened,
        Err(_elapsed) => {
            let text = format!(
                "no greeting from {} within {:?}",
                config.address, config.connect_timeout
            );
            Err(Error::new(ErrorKind::Connection, text))
        }
    }
}

async fn split(config: &PipelineConfig, stream: TcpStream) -> Result<(Source, Sink)> {
    Ok(match &config.tls {
        None => {
            let (source, sink) = stream.into_split();
            (Box::new(source), Box::new(sink))
        }
        Some(tls) => {
            let stream = tls.connect(stream, &config.address).await?;
            let (source, sink) = tokio::io::split(stream);
            (Box::new(source), Box::new(sink))
        }
    })
}

fn handshake_failed(config: &PipelineConfig, error: HandshakeError) -> Error {
    if let Some(text) = alert_text(&error) {
        let text = format!("{}: {text}", config.address);
        return Error::with_source(ErrorKind::Untrusted, text, error);
    }
    let kind = match &error {
        HandshakeError::Version { .. } => ErrorKind::WrongVersion,
        HandshakeError::NotRhash(_) | HandshakeError::Malformed(_) => ErrorKind::Protocol,
        HandshakeError::TooLong { .. } | HandshakeError::Encode(_) => ErrorKind::Usage,
        HandshakeError::Closed | HandshakeError::Connection(_) => ErrorKind::Connection,
    };
    Error::with_source(kind, format!("{}: {error}", config.address), error)
}

fn lost(address: &str, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::with_source(
        ErrorKind::Connection,
        format!("the connection to {address} was lost"),
        error,
    )
}

/// Drives connections until the pipeline ends.
pub(super) async fn run(shared: Arc<Shared>, first: Link) {
    let mut shut = shared.shut.subscribe();
    let mut link = first;
    loop {
        let error = tokio::select! {
            error = drive(&shared, link) => error,
            _ = shut.wait_for(|&shut| shut) => return,
        };
        let failed = {
            let mut state = shared.state.lock();
            if matches!(state.link, LinkState::Shut) {
                return;
            }
            state.link = LinkState::Down {
                since: Instant::now(),
                error: error.clone(),
            };
            state.calls.lost()
        };
        for waiting in failed {
            waiting.answer.fail(error.clone());
        }
        warn!(%error, "connection lost");
        shared.tell(|events| events.link_lost());
        link = tokio::select! {
            link = reconnect(&shared) => link,
            _ = shut.wait_for(|&shut| shut) => return,
        };
    }
}

/// Tries to connect until it works.
async fn reconnect(shared: &Shared) -> Link {
    let config = &shared.config;
    let mut backoff = config.backoff_min;
    let since = Instant::now();
    loop {
        let ticket = shared.state.lock().ticket;
        match open(config, ticket).await {
            Ok(link) => {
                shared.take_up(&link.welcome);
                return link;
            }
            Err(error) => {
                debug!(%error, "cannot reconnect");
                if error.kind() == ErrorKind::SessionExpired {
                    // The next hello is that of a stranger: a server refuses a ticket it does not know.
                    shared.state.lock().ticket = None;
                }
                let down = {
                    let mut state = shared.state.lock();
                    if let LinkState::Down { error: last, .. } = &mut state.link {
                        *last = error.clone();
                    }
                    let hopeless = matches!(error.kind(), ErrorKind::Denied | ErrorKind::Untrusted);
                    (hopeless || since.elapsed() >= config.retry_deadline)
                        .then(|| state.calls.impatient())
                };
                for answer in down.into_iter().flatten() {
                    answer.fail(error.clone());
                }
            }
        }
        tokio::time::sleep(backoff).await;
        backoff = (backoff * 2).min(config.backoff_max);
    }
}

/// Reads and writes one connection until it fails.
async fn drive(shared: &Arc<Shared>, link: Link) -> Error {
    let Link {
        mut reader,
        mut writer,
        welcome,
    } = link;
    let address = shared.config.address.to_string();
    let value_bytes_max = usize::try_from(welcome.limits.value_bytes).unwrap_or(usize::MAX);
    let mut assembler = Assembler::new(AssemblyLimits {
        bytes_max: request_bytes_max(value_bytes_max).saturating_mul(2),
        messages_max: ASSEMBLED_MESSAGES_MAX,
    });
    let writing = {
        let shared = Arc::clone(shared);
        async move { write_calls(&shared, &mut writer).await }
    };
    // A task of its own, so that writing goes on while an answer is taken apart.
    let mut writing = AbortOnDrop(tokio::spawn(writing));
    let reading = async {
        loop {
            match reader.next().await {
                Ok(Some(frame)) => take_frame(shared, &mut assembler, frame).await?,
                Ok(None) => return Err(lost(&address, "the server closed it")),
                Err(error) => return Err(lost(&address, error)),
            }
        }
    };
    let error = tokio::select! {
        result = reading => {
            let Err::<std::convert::Infallible, _>(error) = result;
            error
        }
        result = &mut writing.0 => match result {
            // It has ended, and must not be waited for again.
            Ok(error) => return lost(&address, error),
            Err(error) => return lost(&address, error),
        },
        () = shared.give_up.notified() => lost(&address, "the server is silent"),
    };
    // IMPORTANT: the old writer has ended before calls are queued again for the next connection,
    // or it could take one of them and send it to nobody.
    writing.0.abort();
    let _aborted = (&mut writing.0).await;
    error
}

struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn write_calls(shared: &Shared, writer: &mut FrameWriter<Sink>) -> ConnectionError {
    loop {
        let next = shared.state.lock().calls.next_to_send();
        let result = match next {
            Some((id, body)) => writer.write_message(FrameKind::Request, id, &body).await,
            None => {
                let flushed = writer.flush().await;
                if flushed.is_ok() && !shared.state.lock().calls.has_to_send() {
                    shared.to_send.notified().await;
                }
                flushed
            }
        };
        if let Err(error) = result {
            return error;
        }
    }
}

async fn take_frame(shared: &Shared, assembler: &mut Assembler, frame: Frame<'_>) -> Result<()> {
    let id = frame.head.request_id;
    match frame.head.kind {
        FrameKind::Response | FrameKind::Chunk => {
            let streamed = {
                let mut state = shared.state.lock();
                state.received_last = Instant::now();
                matches!(state.calls.answer_mut(id), Some(Answer::Stream(_)))
            };
            if streamed {
                return take_stream_frame(shared, id, frame).await;
            }
            // What belongs to a stream that nobody reads any more.
            if frame.head.kind == FrameKind::Chunk && shared.is_nowhere(id) {
                if frame.head.follow == Follow::Last {
                    assembler.forget(id);
                    shared.finish(id);
                }
                return Ok(());
            }
            let message = assembler.push(frame).map_err(|error| {
                Error::with_source(ErrorKind::Protocol, error.to_string(), error)
            })?;
            if let Some(message) = message {
                let body = Bytes::from(message.body.into_owned());
                if let Some(Answer::Message(sender)) = shared.finish(id) {
                    // Whoever asked may have given up.
                    drop(sender.send(Ok(body)));
                }
            }
            Ok(())
        }
        FrameKind::Notice => {
            match codec::decode(frame.body) {
                Ok(Notice::Sole { table, sole }) => shared.tell(|events| events.sole(table, sole)),
                Ok(Notice::ShuttingDown) => debug!("the server is stopping"),
                Err(error) => warn!(%error, "a notice cannot be read"),
            }
            Ok(())
        }
        FrameKind::Refusal => match handshake::decode_refusal(frame) {
            Ok(refusal) => {
                if refusal.code == ErrorCode::SessionExpired {
                    shared.state.lock().ticket = None;
                }
                Err(refusal.into())
            }
            Err(error) => Err(Error::with_source(
                ErrorKind::Protocol,
                error.to_string(),
                error,
            )),
        },
        kind => Err(Error::new(
            ErrorKind::Protocol,
            format!("unexpected frame {kind:?}"),
        )),
    }
}

/// Passes a frame of a fetched value on to its reader.
async fn take_stream_frame(shared: &Shared, id: CallId, frame: Frame<'_>) -> Result<()> {
    let last = frame.head.follow == Follow::Last;
    if frame.head.kind == FrameKind::Response {
        let part = match codec::decode(frame.body) {
            // After a reconnect the reader knows already that there is a value.
            Ok(Response::Stream { present: true }) if shared.was_passed_on(id) => None,
            Ok(Response::Stream { present }) => Some(StreamPart::Present(present)),
            Ok(Response::Error(error)) => Some(StreamPart::Failed(error.into())),
            Ok(response) => Some(StreamPart::Failed(super::unexpected(&response))),
            Err(error) => {
                return Err(Error::with_source(
                    ErrorKind::Protocol,
                    error.to_string(),
                    error,
                ));
            }
        };
        if let Some(part) = part {
            pass_on(shared, id, part).await;
        }
    } else if let Some(bytes) = shared.unread_part(id, frame.body) {
        pass_on(shared, id, StreamPart::Bytes(bytes)).await;
    }
    if last {
        if frame.head.kind == FrameKind::Chunk {
            pass_on(shared, id, StreamPart::End).await;
        }
        shared.finish(id);
    }
    Ok(())
}

/// Gives a part to a stream's reader. While it is slow, this holds up the connection, which is
/// what keeps memory bounded; but not for longer than until others wait too, who may be what the
/// reader itself waits for.
async fn pass_on(shared: &Shared, id: CallId, part: StreamPart) {
    let parts: mpsc::Sender<StreamPart> = match shared.state.lock().calls.answer_mut(id) {
        Some(Answer::Stream(stream)) => stream.parts.clone(),
        _ => return,
    };
    loop {
        match tokio::time::timeout(STREAM_PATIENCE, parts.reserve()).await {
            Ok(Ok(place)) => return place.send(part),
            Ok(Err(_closed)) => break,
            Err(_elapsed) if shared.state.lock().calls.len() > 1 => break,
            Err(_elapsed) => {}
        }
    }
    if let Some(answer) = shared.state.lock().calls.answer_mut(id) {
        // The reader learns of it when its channel is empty and closed.
        *answer = Answer::Nowhere;
    }
}

impl Shared {
    fn tell(&self, what: impl FnOnce(&dyn super::Events)) {
        if let Some(events) = self.events.get().and_then(std::sync::Weak::upgrade) {
            what(&*events);
        }
    }

    /// The call has its whole answer.
    fn finish(&self, id: CallId) -> Option<Answer> {
        let finished = self.state.lock().calls.finish(id)?;
        if finished.sequence > 0 {
            self.settled.notify_waiters();
        }
        Some(finished.answer)
    }

    fn is_nowhere(&self, id: CallId) -> bool {
        matches!(
            self.state.lock().calls.answer_mut(id),
            Some(Answer::Nowhere)
        )
    }

    fn was_passed_on(&self, id: CallId) -> bool {
        match self.state.lock().calls.answer_mut(id) {
            Some(Answer::Stream(stream)) => stream.passed > 0,
            _ => false,
        }
    }

    /// What of a chunk the reader does not have yet.
    fn unread_part(&self, id: CallId, body: &[u8]) -> Option<Bytes> {
        let mut state = self.state.lock();
        let Some(Answer::Stream(stream)) = state.calls.answer_mut(id) else {
            return None;
        };
        let skip = usize::try_from(stream.skip)
            .unwrap_or(usize::MAX)
            .min(body.len());
        stream.skip -= skip as u64;
        let rest = body.get(skip..).unwrap_or_default();
        stream.passed += rest.len() as u64;
        (!rest.is_empty()).then(|| Bytes::copy_from_slice(rest))
    }

    /// A new connection is there: goes on with the session, or mourns it.
    fn take_up(&self, welcome: &Welcome) {
        let mut state = self.state.lock();
        state.link = LinkState::Up;
        state.ticket = Some(welcome.ticket);
        state.limits = welcome.limits;
        state.received_last = Instant::now();
        if welcome.resumed {
            state.calls.resend();
            drop(state);
        } else {
            let calls = state.calls.expire();
            drop(state);
            // IMPORTANT: tables learn of it before their calls fail, or a caller could still
            // write to a table whose session is over.
            self.tell(|events| events.session_expired());
            let error = expired();
            for waiting in calls {
                waiting.answer.fail(error.clone());
            }
            self.settled.notify_waiters();
        }
        self.to_send.notify_one();
    }
}

pub(crate) fn expired() -> Error {
    Error::new(
        ErrorKind::SessionExpired,
        "the server no longer knows this session: its temporary tables are gone, and writes that \
         were not answered may or may not have been applied",
    )
}
