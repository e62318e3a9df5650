//! How a connection gets its session: hello, ticket, welcome.

use std::{net::IpAddr, sync::Arc, time::Duration};

use rhash_protocol::{
    ErrorCode, WireError,
    connection::{FrameReader, FrameWriter},
    handshake::{self, HandshakeError, Hello, Welcome},
    limits::CLIENT_NAME_BYTES_MAX,
};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::TcpStream,
    sync::OwnedMutexGuard,
    time::{Instant, sleep, timeout},
};

use super::{
    socket::{Sink, Source},
    strangers::Stranger,
};
use crate::{
    access::{Turn, grant::Grant},
    hub::{Hub, VERSION},
    limits::Limit,
    session::{Attachment, Desk},
    tls::begins_tls,
};

/// How long a peer may take to take a welcome or a refusal.
const GREETING_MAX: Duration = Duration::from_secs(10);

/// How long a connection that takes up a session waits for the one that had it.
const DESK_WAIT_MAX: Duration = Duration::from_secs(10);

/// A connection that is silent for this long is asked by the kernel whether its peer lives.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 3;

/// What the kernel keeps for a peer, beyond what that has room for. It would keep megabytes for each that
/// reads nothing, and its socket would be ready for more only when a third of them had left.
#[cfg(target_os = "linux")]
const UNSENT_BYTES_MAX: u32 = 128 * 1024;

/// Why a connection got no session.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) reason: String,
}

/// Who comes.
#[derive(Debug)]
pub(super) struct Arrival<'a> {
    pub(super) peer: IpAddr,
    pub(super) stranger: &'a mut Stranger,
    pub(super) hello_left: Duration,
}

/// A connection's session, and its desk.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) attachment: Attachment,
    pub(super) desk: OwnedMutexGuard<Desk>,
}

/// Sets what a connection's socket needs: answers leave at once, those that a peer does not take stay
/// few, and a peer that has vanished without a word is noticed, so that its lease can begin.
pub(super) fn prepare(stream: &TcpStream) {
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_PROBES);
    let socket = SockRef::from(stream);
    let set = stream
        .set_nodelay(true)
        .and_then(|()| socket.set_tcp_keepalive(&keepalive));
    #[cfg(target_os = "linux")]
    let set = set.and_then(|()| socket.set_tcp_notsent_lowat(UNSENT_BYTES_MAX));
    if let Err(error) = set {
        tracing::debug!(%error, "a socket option could not be set");
    }
}

/// Takes a hello, and gives it a session.
pub(super) async fn open(
    reader: &mut FrameReader<Source>,
    writer: &mut FrameWriter<Sink>,
    hub: &Arc<Hub>,
    arrival: Arrival<'_>,
) -> Result<Opened, Refused> {
    let mut stopping = hub.stopping.clone();
    let Arrival {
        peer,
        stranger,
        hello_left,
    } = arrival;
    let greeting = timeout(hello_left, handshake::receive_hello(reader));
    let hello = tokio::select! {
        greeting = greeting => match greeting {
            Ok(Ok(hello)) => Ok(hello),
            Ok(Err(error)) => Err(no_hello(&error, reader.unread())),
            Err(_elapsed) => {
                hub.reached.count(Limit::HelloTime);
                Err(Some(WireError {
                    code: ErrorCode::BadRequest,
                    text: format!("no hello within {} s", hub.limits.hello_time.as_secs_f64()),
                }))
            }
        },
        () = stranger.displaced() => {
            hub.reached.count(Limit::ConnectionsBeforeHello);
            Err(Some(WireError {
                code: ErrorCode::Busy,
                text: format!(
                    "{} connections that say no hello came after this one, the limit",
                    hub.limits.connections_before_hello
                ),
            }))
        }
        _ = stopping.wait_for(|stopping| *stopping) => Err(Some(WireError {
            code: ErrorCode::ShuttingDown,
            text: "the server is stopping".to_owned(),
        })),
    };
    hub.comings_and_goings.turn().await;
    let opened = match hello {
        Ok(hello) => match hub.access.admit(&hello.token) {
            Some(grant) => take(&hello, grant, hub)
                .await
                .map(|opened| (opened, hello))
                .map_err(Some),
            None => Err(turn_away(&hello, hub, peer).await),
        },
        Err(refusal) => Err(refusal),
    };
    match opened {
        Ok((opened, hello)) => {
            welcome(writer, hub, &opened, &hello).await?;
            Ok(opened)
        }
        Err(None) => Err(Refused {
            reason: "the peer left without a hello, or tried too many tokens".to_owned(),
        }),
        Err(Some(refusal)) => {
            if let Ok(Ok(())) =
                timeout(GREETING_MAX, handshake::send_refusal(writer, &refusal)).await
            {
                drop(timeout(GREETING_MAX, writer.shutdown()).await);
            }
            Err(Refused {
                reason: refusal.text,
            })
        }
    }
}

/// What to answer to what is no hello; nothing to a peer that is gone.
fn no_hello(error: &HandshakeError, came: &[u8]) -> Option<WireError> {
    let code = match error {
        HandshakeError::Closed | HandshakeError::Connection(_) => return None,
        HandshakeError::Version { .. } => ErrorCode::WrongVersion,
        _ => ErrorCode::BadRequest,
    };
    let hint = match begins_tls(came) {
        Some(true) => "; this port does not speak TLS, as the server runs without --tls-cert",
        _ => "",
    };
    Some(WireError {
        code,
        text: format!("this is rhash-server {VERSION}: {error}{hint}"),
    })
}

/// What to answer to a token that is none, at the pace that its address may try them; nothing to
/// one that tries too many.
async fn turn_away(hello: &Hello, hub: &Hub, peer: IpAddr) -> Option<WireError> {
    hub.reached.count(Limit::Tokens);
    match hub.access.failures.turn(peer, Instant::now()) {
        Turn::Never => return None,
        Turn::After(wait) => sleep(wait).await,
    }
    let text = if hello.token.is_empty() {
        "this server asks for a token; give one by the client's option, its address \
         (rhash://TOKEN@HOST), or the environment variable RHASH_TOKEN"
    } else {
        "the token is not one of this server's"
    };
    tracing::warn!(%peer, given = !hello.token.is_empty(), "a client without a valid token");
    Some(WireError {
        code: ErrorCode::Denied,
        text: text.to_owned(),
    })
}

async fn take(hello: &Hello, grant: Arc<Grant>, hub: &Arc<Hub>) -> Result<Opened, WireError> {
    if hello.client.len() > CLIENT_NAME_BYTES_MAX {
        return Err(WireError {
            code: ErrorCode::BadRequest,
            text: format!(
                "a client's name of {} bytes, the limit is {CLIENT_NAME_BYTES_MAX}",
                hello.client.len()
            ),
        });
    }
    let attachment = match &hello.session {
        None => hub
            .sessions
            .begin(Arc::clone(&grant))
            .inspect_err(|_| hub.reached.count(Limit::Sessions))?,
        Some(ticket) => hub.sessions.resume(ticket, &grant)?,
    };
    if let Some(log) = hub.store.log() {
        let evicted = hub.sessions.take_evicted();
        evicted.into_iter().for_each(|id| log.end_session(id));
    }
    // IMPORTANT: asked again now that the session is there to be revoked. Tokens that were read
    // again since would else be without effect on it.
    if hub.access.renew(&grant).is_none_or(|now| now != grant) {
        hub.end_sessions(hub.sessions.renew_grants(&hub.access))
            .await;
    }
    let desk = attachment.session().desk().lock_owned();
    let desk = timeout(DESK_WAIT_MAX, desk)
        .await
        .map_err(|_elapsed| WireError {
            code: ErrorCode::Busy,
            text: "the session's last connection still works on a request; try again".to_owned(),
        })?;
    Ok(Opened { attachment, desk })
}

async fn welcome(
    writer: &mut FrameWriter<Sink>,
    hub: &Arc<Hub>,
    opened: &Opened,
    hello: &Hello,
) -> Result<(), Refused> {
    let session = opened.attachment.session();
    let welcome = Welcome {
        server: format!("rhash-server {VERSION}"),
        ticket: session.ticket(),
        resumed: hello.session.is_some(),
        lease_ms: u64::try_from(hub.sessions.lease().as_millis()).unwrap_or(u64::MAX),
        limits: hub.welcome_limits(),
        memory_only: hub.memory_only,
    };
    tracing::debug!(session = session.id(), client = ?hello.client, resumed = welcome.resumed, "hello");
    match timeout(GREETING_MAX, handshake::send_welcome(writer, &welcome)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            return Err(Refused {
                reason: error.to_string(),
            });
        }
        Err(_elapsed) => {
            return Err(Refused {
                reason: "the peer takes no welcome".to_owned(),
            });
        }
    }
    // What was pending for the last connection may have been sent to it or not.
    drop(session.notices().take());
    for &table in opened.desk.tables.keys() {
        hub.holders.tell_again(table, session.id());
    }
    Ok(())
}
