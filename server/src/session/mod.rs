//! Sessions: what the server keeps for a client, also while it has no connection.
//!
//! A session has at most one connection. A client that comes with its ticket takes its session up
//! again, and the connection that had it before is told to stop; it finishes the request that it
//! is at, so that the answer is remembered, and gives the session's desk free. When no connection
//! has taken a session up for the length of the lease, the reaper ends it: its temporary tables
//! are closed, its named ones let go of, its ticket is unknown from then on.

mod replies;
mod notices;
mod holders;
mod desk;
mod restore;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::{Mutex, RwLock};
use rhash_protocol::{ErrorCode, WireError, handshake::Ticket};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use crate::access::{Access, grant::Grant};
pub(crate) use desk::{Desk, Held};
pub(crate) use holders::Holders;
pub(crate) use notices::Notices;
pub(crate) use replies::{Turn, UNSETTLED_MAX};

/// Where there are too many sessions, this share of them makes room at once, since all are looked at to
/// find them.
const ROOM_SHARE: u64 = 64;

/// Names a session.
pub(crate) type SessionId = u64;

/// What the server keeps for a client.
#[derive(Debug)]
pub(crate) struct Session {
    id: SessionId,
    secret: [u8; 16],
    /// Held by the connection that has the session, for as long as it has it.
    desk: Arc<tokio::sync::Mutex<Desk>>,
    notices: Arc<Notices>,
    /// What its client may do.
    grant: RwLock<Arc<Grant>>,
    /// Taken after the lock of the registry's map.
    link: Mutex<Link>,
}

/// What a connection is told about its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Nothing: it goes on.
    No,
    /// Another connection took the session up.
    TakenOver,
    /// The token that the session began with is no longer valid.
    Revoked,
}

/// A session's connection.
#[derive(Debug)]
enum Link {
    /// One has it, or is about to; it ends when told to.
    Connected {
        attachment: u64,
        stop: watch::Sender<Stop>,
    },
    /// None has it, and none may take it up after this.
    Lost { expires: Instant },
    /// The session has ended.
    Ended,
}

impl Session {
    /// Names the session.
    pub(crate) fn id(&self) -> SessionId {
        self.id
    }

    /// What lets its client take it up again.
    pub(crate) fn ticket(&self) -> Ticket {
        Ticket {
            id: self.id,
            secret: self.secret,
        }
    }

    /// What its client is to be told unasked.
    pub(crate) fn notices(&self) -> &Arc<Notices> {
        &self.notices
    }

    /// Its tables and remembered answers, which one connection at a time works with.
    pub(crate) fn desk(&self) -> Arc<tokio::sync::Mutex<Desk>> {
        Arc::clone(&self.desk)
    }

    /// What its client may do now.
    pub(crate) fn grant(&self) -> Arc<Grant> {
        Arc::clone(&self.grant.read())
    }

    fn has_secret(&self, secret: &[u8; 16]) -> bool {
        // All bytes are looked at, so that the time taken says nothing about them.
        let differences = self
            .secret
            .iter()
            .zip(secret)
            .fold(0, |sum, (a, b)| sum | (a ^ b));
        differences == 0
    }
}

/// All sessions.
#[derive(Debug)]
pub(crate) struct Sessions {
    lease: Duration,
    /// The most sessions, with and without a connection.
    sessions_max: u64,
    by_id: Mutex<HashMap<SessionId, Arc<Session>>>,
    next_attachment: AtomicU64,
    /// Those that made room for others, until the log is told.
    evicted: Mutex<Vec<SessionId>>,
    /// Rung when a session may expire earlier than the reaper knows.
    lost: Notify,
}

impl Sessions {
    /// No sessions, of which each may be without a connection for the length of `lease`, and of
    /// which there may be so many.
    pub(crate) fn new(lease: Duration, sessions_max: u64) -> Self {
        Self {
            lease,
            sessions_max,
            by_id: Mutex::default(),
            next_attachment: AtomicU64::new(0),
            evicted: Mutex::default(),
            lost: Notify::new(),
        }
    }

    /// How long a session may be without a connection.
    pub(crate) fn lease(&self) -> Duration {
        self.lease
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        self.by_id.lock().len() as u64
    }

    /// Begins a session for a connection.
    ///
    /// # Errors
    /// `Busy` if there are too many, `Storage` if the system gives no random bytes.
    pub(crate) fn begin(self: &Arc<Self>, grant: Arc<Grant>) -> Result<Attachment, WireError> {
        let (id, secret) = draw_ticket()?;
        let mut by_id = self.by_id.lock();
        if by_id.len() as u64 >= self.sessions_max {
            let idle = oldest_empty(&by_id, self.sessions_max / ROOM_SHARE);
            if idle.is_empty() {
                return Err(too_many(self.sessions_max));
            }
            for id in &idle {
                by_id.remove(id);
            }
            self.evicted.lock().extend(idle);
        }
        let (attachment, link, stop) = self.new_link();
        let session = Arc::new(Session {
            id,
            secret,
            desk: Arc::default(),
            notices: Arc::default(),
            grant: RwLock::new(grant),
            link: Mutex::new(link),
        });
        by_id.insert(id, Arc::clone(&session));
        Ok(Attachment {
            sessions: Arc::clone(self),
            session,
            number: attachment,
            stop,
        })
    }

    /// Takes a session up again; tells the connection that has it to stop.
    ///
    /// # Errors
    /// `SessionExpired` if there is none of this ticket, `Denied` if it began with another token.
    pub(crate) fn resume(
        self: &Arc<Self>,
        ticket: &Ticket,
        grant: &Grant,
    ) -> Result<Attachment, WireError> {
        let by_id = self.by_id.lock();
        let session = by_id
            .get(&ticket.id)
            .filter(|session| session.has_secret(&ticket.secret))
            .ok_or_else(|| self.expired())?;
        if session.grant.read().name != grant.name {
            return Err(WireError {
                code: ErrorCode::Denied,
                text: format!("the session is not one of the token {}", grant.name),
            });
        }
        let mut link = session.link.lock();
        match &*link {
            Link::Ended => return Err(self.expired()),
            Link::Connected { stop, .. } => drop(stop.send_replace(Stop::TakenOver)),
            Link::Lost { .. } => {}
        }
        let (attachment, new_link, stop) = self.new_link();
        *link = new_link;
        drop(link);
        let session = Arc::clone(session);
        Ok(Attachment {
            sessions: Arc::clone(self),
            session,
            number: attachment,
            stop,
        })
    }

    /// Ends the sessions whose lease has run out; gives them, and when the next one's may.
    pub(crate) fn reap(&self, now: Instant) -> (Vec<Arc<Session>>, Option<Instant>) {
        let mut ended = Vec::new();
        let mut next: Option<Instant> = None;
        self.by_id.lock().retain(|_, session| {
            let mut link = session.link.lock();
            if let Link::Lost { expires } = *link {
                if expires <= now {
                    *link = Link::Ended;
                    ended.push(Arc::clone(session));
                    return false;
                }
                next = Some(next.map_or(expires, |next| next.min(expires)));
            }
            true
        });
        (ended, next)
    }

    /// Gives each session what its token grants now; ends and gives those whose token was revoked.
    pub(crate) fn renew_grants(&self, access: &Access) -> Vec<Arc<Session>> {
        let mut revoked = Vec::new();
        self.by_id.lock().retain(|_, session| {
            let renewed = access.renew(&session.grant());
            let stays = renewed.is_some();
            match renewed {
                Some(grant) => *session.grant.write() = grant,
                None => {
                    let link = std::mem::replace(&mut *session.link.lock(), Link::Ended);
                    if let Link::Connected { stop, .. } = link {
                        stop.send_replace(Stop::Revoked);
                    }
                    revoked.push(Arc::clone(session));
                }
            }
            stays
        });
        revoked
    }

    /// The sessions that made room for others since this was asked last.
    pub(crate) fn take_evicted(&self) -> Vec<SessionId> {
        std::mem::take(&mut *self.evicted.lock())
    }

    /// Waits until a session loses its connection. Cancel safe.
    pub(crate) async fn session_lost(&self) {
        self.lost.notified().await;
    }

    fn new_link(&self) -> (u64, Link, watch::Receiver<Stop>) {
        let attachment = self.next_attachment.fetch_add(1, Relaxed);
        let (stop, stopped) = watch::channel(Stop::No);
        (attachment, Link::Connected { attachment, stop }, stopped)
    }

    fn expired(&self) -> WireError {
        WireError {
            code: ErrorCode::SessionExpired,
            text: format!(
                "the session is unknown: its lease of {} s ran out, or the server was started \
                 again; temporary tables are gone, named ones can be opened in a new session",
                self.lease.as_secs_f64()
            ),
        }
    }
}

/// A connection's hold on a session; begins the lease when it is dropped.
#[derive(Debug)]
pub(crate) struct Attachment {
    sessions: Arc<Sessions>,
    session: Arc<Session>,
    number: u64,
    stop: watch::Receiver<Stop>,
}

impl Attachment {
    /// The session.
    pub(crate) fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// Says when another connection takes the session up, or when it is revoked.
    pub(crate) fn stop(&self) -> watch::Receiver<Stop> {
        self.stop.clone()
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        let mut link = self.session.link.lock();
        // Another connection may have the session by now; then the lease is not ours to begin.
        if matches!(*link, Link::Connected { attachment, .. } if attachment == self.number) {
            *link = Link::Lost {
                expires: Instant::now() + self.sessions.lease,
            };
            drop(link);
            self.sessions.lost.notify_one();
        }
    }
}

fn draw_ticket() -> Result<(SessionId, [u8; 16]), WireError> {
    let mut bytes = [0; 24];
    getrandom::fill(&mut bytes).map_err(|error| WireError {
        code: ErrorCode::Storage,
        text: format!("the system gives no random bytes: {error}"),
    })?;
    let [id @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = bytes;
    let [_, _, _, _, _, _, _, _, secret @ ..] = bytes;
    Ok((u64::from_le_bytes(id), secret))
}

/// The sessions without connection and tables that would expire first, so many or at least one, if
/// there are any. Many short-lived clients leave such ones behind, and nothing is lost with them.
fn oldest_empty(by_id: &HashMap<SessionId, Arc<Session>>, count: u64) -> Vec<SessionId> {
    let mut empty: Vec<(Instant, SessionId)> = by_id
        .values()
        .filter_map(|session| match *session.link.lock() {
            Link::Lost { expires } => Some((expires, session)),
            _ => None,
        })
        .filter(|(_, session)| {
            session
                .desk
                .try_lock()
                .is_ok_and(|desk| desk.tables.is_empty())
        })
        .map(|(expires, session)| (expires, session.id))
        .collect();
    let count = usize::try_from(count).unwrap_or(usize::MAX).max(1);
    if count < empty.len() {
        empty.select_nth_unstable(count);
        empty.truncate(count);
    }
    empty.into_iter().map(|(_, id)| id).collect()
}

fn too_many(sessions_max: u64) -> WireError {
    WireError {
        code: ErrorCode::Busy,
        text: format!("the server has {sessions_max} sessions, its limit; try again later"),
    }
}

#[cfg(test)]
mod tests;
