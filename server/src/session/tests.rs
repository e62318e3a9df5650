//! Sessions as connections come and go, and as tokens are read again.

use super::*;
use crate::access::tokens::NewToken;

const LEASE: Duration = Duration::from_secs(60);
const SESSIONS_MAX: u64 = 100;

fn sessions() -> Arc<Sessions> {
    Arc::new(Sessions::new(LEASE, SESSIONS_MAX))
}

fn anybody() -> Arc<Grant> {
    Arc::new(Grant::everything())
}

fn code<T>(result: Result<T, WireError>) -> Option<ErrorCode> {
    result.err().map(|error| error.code)
}

#[tokio::test]
async fn a_session_lives_as_long_as_its_lease_after_its_connection() {
    let sessions = sessions();
    let attachment = sessions.begin(anybody()).unwrap();
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

    drop(sessions.resume(&ticket, &anybody()).unwrap());
    let (ended, _) = sessions.reap(Instant::now() + LEASE);
    assert_eq!(ended.len(), 1);
    assert_eq!(
        code(sessions.resume(&ticket, &anybody())),
        Some(ErrorCode::SessionExpired)
    );
    assert_eq!(sessions.count(), 0);
}

#[tokio::test]
async fn a_ticket_of_another_secret_or_of_nobody_is_refused() {
    let sessions = sessions();
    let attachment = sessions.begin(anybody()).unwrap();
    let mut ticket = attachment.session().ticket();
    ticket.secret[15] ^= 1;
    assert_eq!(
        code(sessions.resume(&ticket, &anybody())),
        Some(ErrorCode::SessionExpired)
    );
    let stranger = Ticket {
        id: 1,
        secret: [0; 16],
    };
    assert_eq!(
        code(sessions.resume(&stranger, &anybody())),
        Some(ErrorCode::SessionExpired)
    );
    assert_eq!(*attachment.stop().borrow(), Stop::No, "nobody took it");
}

#[tokio::test]
async fn taking_a_session_up_stops_the_connection_that_had_it() {
    let sessions = sessions();
    let first = sessions.begin(anybody()).unwrap();
    let mut stopped = first.stop();
    let second = sessions
        .resume(&first.session().ticket(), &anybody())
        .unwrap();
    let told = *stopped.wait_for(|stop| *stop != Stop::No).await.unwrap();
    assert_eq!(told, Stop::TakenOver);
    drop(first);
    assert_eq!(
        sessions.reap(Instant::now() + 2 * LEASE).0.len(),
        0,
        "the second has it"
    );
    assert_eq!(*second.stop().borrow(), Stop::No);
}

#[tokio::test]
async fn sessions_without_tables_make_room_for_new_ones_and_others_do_not() {
    let sessions = sessions();
    let held: Vec<_> = (1..SESSIONS_MAX)
        .map(|_| sessions.begin(anybody()).unwrap())
        .collect();
    let ticket = sessions.begin(anybody()).unwrap().session().ticket();
    let _last = sessions.begin(anybody()).unwrap();
    assert_eq!(
        code(sessions.resume(&ticket, &anybody())),
        Some(ErrorCode::SessionExpired)
    );
    assert_eq!(code(sessions.begin(anybody())), Some(ErrorCode::Busy));
    drop(held);
    assert!(sessions.begin(anybody()).is_ok());
}

// A crowd that came and went once had all sessions looked at for each one that came.
#[tokio::test]
async fn where_there_are_too_many_a_share_of_them_goes_at_once_and_the_oldest_first() {
    let sessions = Arc::new(Sessions::new(LEASE, 4 * ROOM_SHARE));
    let tickets: Vec<Ticket> = (0..4 * ROOM_SHARE)
        .map(|_| sessions.begin(anybody()).unwrap().session().ticket())
        .collect();
    drop(sessions.begin(anybody()).unwrap());
    assert_eq!(sessions.count(), 4 * ROOM_SHARE - 4 + 1);
    let gone =
        |ticket| code(sessions.resume(ticket, &anybody())) == Some(ErrorCode::SessionExpired);
    assert!(tickets[..4].iter().all(gone) && !tickets[4..].iter().any(gone));
}

#[tokio::test]
async fn a_session_belongs_to_the_token_that_it_began_with_and_ends_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tokens");
    let [a, b] = ["a", "b"].map(|name| NewToken::draw(name, "*", "read").unwrap());
    std::fs::write(&file, format!("{}\n{}\n", a.line, b.line)).unwrap();
    let access = Access::new(Some(file.clone())).unwrap();
    let [of_a, of_b] = [&a, &b].map(|token| access.admit(&token.secret).unwrap());
    let sessions = sessions();
    let attachment = sessions.begin(Arc::clone(&of_a)).unwrap();
    let ticket = attachment.session().ticket();
    assert_eq!(
        code(sessions.resume(&ticket, &of_b)),
        Some(ErrorCode::Denied)
    );

    let more = a.line.replace(" read", " read,write");
    std::fs::write(&file, format!("{more}\n{}\n", b.line)).unwrap();
    access.reload().unwrap();
    assert!(sessions.renew_grants(&access).is_empty());
    assert!(attachment.session().grant().rights.write);

    std::fs::write(&file, &b.line).unwrap();
    access.reload().unwrap();
    assert_eq!(sessions.renew_grants(&access).len(), 1);
    assert_eq!(*attachment.stop().borrow(), Stop::Revoked);
    assert_eq!(
        code(sessions.resume(&ticket, &of_a)),
        Some(ErrorCode::SessionExpired)
    );
    drop(attachment);
    assert_eq!(sessions.count(), 0);
}
