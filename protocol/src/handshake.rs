//! How a connection opens: the client's hello, and a welcome or a refusal.
//!
//! The body of each of the three begins with the magic and the protocol's version in fixed bytes,
//! so that a stranger, or a peer of another version, is told apart before anything that depends on
//! the version is decoded. A refusal keeps its form in every version.

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    WireError,
    codec::{self, CodecError},
    connection::{ConnectionError, FrameReader, FrameWriter},
    frame::{Frame, FrameHead, FrameKind},
    limits::{HELLO_BYTES_MAX, PROTOCOL_VERSION},
};

/// The first bytes of every hello, welcome and refusal.
pub const MAGIC: [u8; 8] = *b"rhash\r\n\0";

/// What a client says first.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The session to go on with; none begins a new one.
    pub session: Option<Ticket>,
    /// What lets the client in, where the server asks for it; else empty.
    pub token: String,
    /// What the client calls itself, for the server's log.
    pub client: String,
}

impl std::fmt::Debug for Hello {
    // The token stays out of logs.
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Hello")
            .field("session", &self.session)
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}

/// What lets a client go on with its session over another connection.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// Names the session.
    pub id: u64,
    /// Keeps others from taking it.
    pub secret: [u8; 16],
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Ticket({})", self.id)
    }
}

/// What the server says to a client that it takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The server's version, for people.
    pub server: String,
    /// What takes up this session again after a lost connection.
    pub ticket: Ticket,
    /// Whether this is the session that the client asked for, and not a new one.
    pub resumed: bool,
    /// How long the session outlives a connection.
    pub lease_ms: u64,
    /// What the server accepts.
    pub limits: Limits,
    /// Whether the server has no cold tier.
    pub memory_only: bool,
}

/// What a server accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// The longest key.
    pub key_bytes: u64,
    /// The longest value that a write may carry.
    pub value_bytes: u64,
    /// The longest body of a frame.
    pub frame_bytes: u64,
    /// Where a client closes a batch of writes; one operation alone may be longer.
    pub batch_bytes: u64,
    /// The most answers that a client may leave unsettled: the server remembers no more.
    pub unsettled: u64,
}

/// What came of a hello.
#[derive(Debug)]
pub enum Greeting {
    /// The server takes the client.
    Welcome(Welcome),
    /// It does not, and says why.
    Refusal(WireError),
}

/// A connection did not open.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The peer closed the connection before it said anything.
    #[error("the peer closed the connection before the handshake was done")]
    Closed,
    /// The peer speaks something else.
    #[error("the peer does not speak the rhash protocol")]
    NotRhash(#[source] Option<ConnectionError>),
    /// The peer speaks another version of the protocol.
    #[error("the peer speaks version {theirs} of the rhash protocol, this side version {ours}")]
    Version {
        /// As the peer said.
        theirs: u32,
        /// [`PROTOCOL_VERSION`].
        ours: u32,
    },
    /// The peer's greeting has the right beginning and makes no sense after it.
    #[error("the peer's greeting is malformed")]
    Malformed(#[source] CodecError),
    /// What this side wanted to say is too long.
    #[error("a greeting of {bytes} bytes is over the limit of {limit}")]
    TooLong {
        /// As encoded.
        bytes: usize,
        /// [`HELLO_BYTES_MAX`].
        limit: usize,
    },
    /// This side's greeting could not be encoded.
    #[error("the greeting cannot be encoded")]
    Encode(#[source] CodecError),
    /// The stream failed.
    #[error("the connection failed during the handshake")]
    Connection(#[source] ConnectionError),
}

/// Opens a connection as a client.
///
/// # Errors
/// [`HandshakeError`] if the stream fails or the peer is no server of this version. A server that
/// answers and says no is not an error here, but a [`Greeting::Refusal`].
pub async fn greet<R, W>(
    reader: &mut FrameReader<R>,
    writer: &mut FrameWriter<W>,
    hello: &Hello,
) -> Result<Greeting, HandshakeError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    send(writer, FrameKind::Hello, hello).await?;
    let frame = receive(reader).await?;
    match frame.head.kind {
        FrameKind::Welcome => Ok(Greeting::Welcome(open_envelope(frame)?)),
        FrameKind::Refusal => {
            let (_, body) = split_envelope(frame.body)?;
            codec::decode(body)
                .map(Greeting::Refusal)
                .map_err(HandshakeError::Malformed)
        }
        _ => Err(HandshakeError::NotRhash(None)),
    }
}

/// Takes a client's hello, as a server.
///
/// # Errors
/// [`HandshakeError`] if the stream fails or the peer is no client of this version.
pub async fn receive_hello<R>(reader: &mut FrameReader<R>) -> Result<Hello, HandshakeError>
where
    R: AsyncRead + Unpin,
{
    let frame = receive(reader).await?;
    match frame.head.kind {
        FrameKind::Hello => open_envelope(frame),
        _ => Err(HandshakeError::NotRhash(None)),
    }
}

/// Answers a hello with a welcome.
///
/// # Errors
/// [`HandshakeError`] if the stream fails.
pub async fn send_welcome<W>(
    writer: &mut FrameWriter<W>,
    welcome: &Welcome,
) -> Result<(), HandshakeError>
where
    W: AsyncWrite + Unpin,
{
    send(writer, FrameKind::Welcome, welcome).await
}

/// Answers a hello with a refusal, or says why a connection ends.
///
/// # Errors
/// [`HandshakeError`] if the stream fails, or if the text of the refusal is too long.
pub async fn send_refusal<W>(
    writer: &mut FrameWriter<W>,
    refusal: &WireError,
) -> Result<(), HandshakeError>
where
    W: AsyncWrite + Unpin,
{
    send(writer, FrameKind::Refusal, refusal).await
}

/// The refusal that `frame` is: a server may end a connection with one at any time.
///
/// # Errors
/// [`HandshakeError`] if it is not one.
pub fn decode_refusal(frame: Frame<'_>) -> Result<WireError, HandshakeError> {
    let (_, body) = split_envelope(frame.body)?;
    codec::decode(body).map_err(HandshakeError::Malformed)
}

async fn send<W, T>(
    writer: &mut FrameWriter<W>,
    kind: FrameKind,
    message: &T,
) -> Result<(), HandshakeError>
where
    W: AsyncWrite + Unpin,
    T: Serialize,
{
    let mut body = MAGIC.to_vec();
    body.extend_from_slice(&PROTOCOL_VERSION.to_le_bytes());
    codec::encode(message, &mut body).map_err(HandshakeError::Encode)?;
    if body.len() > HELLO_BYTES_MAX {
        return Err(HandshakeError::TooLong {
            bytes: body.len(),
            limit: HELLO_BYTES_MAX,
        });
    }
    let head = FrameHead::whole(kind, 0);
    writer
        .write_frame(head, &body)
        .await
        .map_err(HandshakeError::Connection)?;
    writer.flush().await.map_err(HandshakeError::Connection)
}

async fn receive<R>(reader: &mut FrameReader<R>) -> Result<Frame<'_>, HandshakeError>
where
    R: AsyncRead + Unpin,
{
    match reader.next_within(HELLO_BYTES_MAX).await {
        Ok(Some(frame)) => Ok(frame),
        Ok(None) => Err(HandshakeError::Closed),
        Err(error @ ConnectionError::Io(_)) => Err(HandshakeError::Connection(error)),
        // Whoever does not even begin with a frame is no rhash peer, of any version.
        Err(error) => Err(HandshakeError::NotRhash(Some(error))),
    }
}

fn open_envelope<'a, T: Deserialize<'a>>(frame: Frame<'a>) -> Result<T, HandshakeError> {
    let (theirs, body) = split_envelope(frame.body)?;
    if theirs != PROTOCOL_VERSION {
        return Err(HandshakeError::Version {
            theirs,
            ours: PROTOCOL_VERSION,
        });
    }
    codec::decode(body).map_err(HandshakeError::Malformed)
}

fn split_envelope(body: &[u8]) -> Result<(u32, &[u8]), HandshakeError> {
    let after_magic = body
        .strip_prefix(&MAGIC)
        .ok_or(HandshakeError::NotRhash(None))?;
    let (version, rest) = after_magic
        .split_first_chunk::<4>()
        .ok_or(HandshakeError::NotRhash(None))?;
    Ok((u32::from_le_bytes(*version), rest))
}

#[cfg(test)]
mod tests;
