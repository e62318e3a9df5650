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

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use rhash_protocol::{ErrorCode, WireError, handshake::Ticket};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

pub(crate) use desk::{Desk, Held, TABLES_OPEN_MAX};
pub(crate) use holders::Holders;
pub(crate) use notices::Notices;
pub(crate) use replies::{Turn, UNSETTLED_MAX};

/// Names a session.
pub(crate) type SessionId = u64;

/// The most sessions, with and without a connection.
pub(crate) const SESSIONS_MAX: usize = 8192;

/// What the server keeps for a client.
#[derive(Debug)]
pub(crate) struct Session {
    id: SessionId,
    secret: [u8; 16],
    /// Held by the connection that has the session, for as long as it has it.
    desk: Arc<tokio::sync::Mutex<Desk>>,
    notices: Arc<Notices>,
    /// Taken after the lock of the registry's map.
    link: Mutex<Link>,
}

/// A session's connection.
#[derive(Debug)]
enum Link {
    /// One has it, or is about to; it ends when told to.
    Connected {
        attachment: u64,
        stop: watch::Sender<bool>,
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
    by_id: Mutex<HashMap<SessionId, Arc<Session>>>,
    next_attachment: AtomicU64,
    /// Rung when a session may expire earlier than the reaper knows.
    lost: Notify,
}

impl Sessions {
    /// No sessions, of which each may be without a connection for the length of `lease`.
    pub(crate) fn new(lease: Duration) -> Self {
        Self {
            lease,
            by_id: Mutex::default(),
            next_attachment: AtomicU64::new(0),
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
    pub(crate) fn begin(self: &Arc<Self>) -> Result<Attachment, WireError> {
        let (id, secret) = draw_ticket()?;
        let mut by_id = self.by_id.lock();
        if by_id.len() >= SESSIONS_MAX {
            let idle = oldest_empty(&by_id).ok_or_else(too_many)?;
            by_id.remove(&idle);
        }
        let (attachment, link, stop) = self.new_link();
        let session = Arc::new(Session {
            id,
            secret,
            desk: Arc::default(),
            notices: Arc::default(),
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
    /// `SessionExpired` if there is none of this ticket.
    pub(crate) fn resume(self: &Arc<Self>, ticket: &Ticket) -> Result<Attachment, WireError> {
        let by_id = self.by_id.lock();
        let session = by_id
            .get(&ticket.id)
            .filter(|session| session.has_secret(&ticket.secret))
            .ok_or_else(|| self.expired())?;
        let mut link = session.link.lock();
        match &*link {
            Link::Ended => return Err(self.expired()),
            Link::Connected { stop, .. } => drop(stop.send_replace(true)),
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

    /// Waits until a session loses its connection. Cancel safe.
    pub(crate) async fn session_lost(&self) {
        self.lost.notified().await;
    }

    fn new_link(&self) -> (u64, Link, watch::Receiver<bool>) {
        let attachment = self.next_attachment.fetch_add(1, Relaxed);
        let (stop, stopped) = watch::channel(false);
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
    stop: watch::Receiver<bool>,
}

impl Attachment {
    /// The session.
    pub(crate) fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// Becomes true when another connection takes the session up.
    pub(crate) fn stop(&self) -> watch::Receiver<bool> {
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

/// The session without connection and tables that would expire first. Many short-lived clients
/// leave such ones behind, and nothing is lost with them.
fn oldest_empty(by_id: &HashMap<SessionId, Arc<Session>>) -> Option<SessionId> {
    by_id
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
        .min_by_key(|(expires, _)| *expires)
        .map(|(_, session)| session.id)
}

fn too_many() -> WireError {
    WireError {
        code: ErrorCode::Busy,
        text: format!("the server has {SESSIONS_MAX} sessions, its limit; try again later"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(60);

    fn sessions() -> Arc<Sessions> {
        Arc::new(Sessions::new(LEASE))
    }

    fn code<T>(result: Result<T, WireError>) -> Option<ErrorCode> {
        result.err().map(|error| error.code)
    }

    #[tokio::test]
    async fn a_session_lives_as_long_as_its_lease_after_its_connection() {
        let sessions = sessions();
        let attachment = sessions.begin().unwrap();
        let ticket = attachment.session().ticket();
        assert_eq!(
            sessions.reap(Instant::now() + 2 * LEASE).0.len(),
            0,
            "it is connected"
        );
        drop(attachment);
        sessions.session_lost().await;
        let (ended, next) = sessions.reap(Instant::now());
        assert!(ended.is_empty());
        assert!(next.is_some_and(|next| next > Instant::now() && next <= Instant::now() + LEASE));

        drop(sessions.resume(&ticket).unwrap());
        let (ended, _) = sessions.reap(Instant::now() + LEASE);
        assert_eq!(ended.len(), 1);
        assert_eq!(
            code(sessions.resume(&ticket)),
            Some(ErrorCode::SessionExpired)
        );
        assert_eq!(sessions.count(), 0);
    }

    #[tokio::test]
    async fn a_ticket_of_another_secret_or_of_nobody_is_refused() {
        let sessions = sessions();
        let attachment = sessions.begin().unwrap();
        let mut ticket = attachment.session().ticket();
        ticket.secret[15] ^= 1;
        assert_eq!(
            code(sessions.resume(&ticket)),
            Some(ErrorCode::SessionExpired)
        );
        let stranger = Ticket {
            id: 1,
            secret: [0; 16],
        };
        assert_eq!(
            code(sessions.resume(&stranger)),
            Some(ErrorCode::SessionExpired)
        );
        assert!(!*attachment.stop().borrow(), "nobody took it");
    }

    #[tokio::test]
    async fn taking_a_session_up_stops_the_connection_that_had_it() {
        let sessions = sessions();
        let first = sessions.begin().unwrap();
        let mut stopped = first.stop();
        let second = sessions.resume(&first.session().ticket()).unwrap();
        assert!(*stopped.wait_for(|stop| *stop).await.unwrap());
        drop(first);
        assert_eq!(
            sessions.reap(Instant::now() + 2 * LEASE).0.len(),
            0,
            "the second has it"
        );
        assert!(!*second.stop().borrow());
    }

    #[tokio::test]
    async fn sessions_without_tables_make_room_for_new_ones_and_others_do_not() {
        let sessions = sessions();
        let held: Vec<_> = (1..SESSIONS_MAX)
            .map(|_| sessions.begin().unwrap())
            .collect();
        let ticket = sessions.begin().unwrap().session().ticket();
        let _last = sessions.begin().unwrap();
        assert_eq!(
            code(sessions.resume(&ticket)),
            Some(ErrorCode::SessionExpired)
        );
        assert_eq!(code(sessions.begin()), Some(ErrorCode::Busy));
        drop(held);
        assert!(sessions.begin().is_ok());
    }
}
