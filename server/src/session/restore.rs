//! Sessions of an earlier server, as its log tells of them: their clients may take them up again.

use std::{collections::HashMap, sync::Arc};

use parking_lot::{Mutex, RwLock};
use rhash_protocol::{Durability, ErrorCode, Response, WireError};
use tokio::time::Instant;

use super::{Desk, Held, Holders, Link, Session, Sessions, replies::Replies};
use crate::{
    access::{Access, grant::Grant, tokens::TokenHash},
    dispatch::encode,
    log::{OwnedReply, SessionRecord},
    store::Store,
};

impl Sessions {
    /// Takes up the sessions that the log tells of, each for the length of a lease. Those whose token is no
    /// longer valid end.
    pub(crate) fn restore(&self, store: &Store, access: &Access, holders: &Holders) {
        let expires = Instant::now() + self.lease;
        for mut record in store.logged_sessions() {
            let (name, hash) = record.token.clone();
            let known = Grant {
                name,
                hash: hash.map(TokenHash::from_bytes),
                ..Grant::everything()
            };
            let mut by_id = self.by_id.lock();
            let grant = access.renew(&known);
            let has_room = (by_id.len() as u64) < self.sessions_max;
            let Some(grant) = grant.filter(|_| has_room) else {
                if let Some(log) = store.log() {
                    log.end_session(record.id);
                }
                continue;
            };
            let opens_before = record.tables.len();
            // Tables that were closed since are missed when they are asked for.
            let is_logged = |id| store.table(id).is_ok_and(|table| table.log().is_some());
            record.tables.retain(|(id, _)| is_logged(*id));
            if let Some(log) = store.log()
                && record.tables.len() < opens_before
            {
                // IMPORTANT: a table that is not logged any more may be so again after the next start. The session
                // must not have it open then, or what it sends again may be applied twice.
                log.tell_session(record.clone());
            }
            let session = Arc::new(Session {
                id: record.id,
                secret: record.secret,
                desk: Arc::new(tokio::sync::Mutex::new(desk_of(&record, store))),
                notices: Arc::default(),
                grant: RwLock::new(grant),
                link: Mutex::new(Link::Lost { expires }),
            });
            for (table, _) in &record.tables {
                holders.open(*table, record.id, &session.notices);
            }
            by_id.insert(record.id, session);
        }
        self.lost.notify_one();
    }
}

/// What a session had, but for what ended with its server.
fn desk_of(record: &SessionRecord, store: &Store) -> Desk {
    let mut tables = HashMap::new();
    let mut durability = Durability::None;
    for &(id, opens) in &record.tables {
        if let Ok(table) = store.table(id) {
            durability = durability.max(table.durability());
            tables.insert(id, Held { table, opens });
        }
    }
    let lost = store.keep(encode(&Response::Error(WireError {
        code: ErrorCode::TableClosed,
        text: "the server was started again: its temporary tables are gone, and of those with durability \
               none nobody knows which of the last writes are there; open them again"
            .to_owned(),
    })));
    let lost = OwnedReply::Body(lost);
    let kept = record.replies.iter().cloned().collect();
    Desk {
        replies: Replies::restored(record.taken, record.settled, kept, &lost),
        tables,
        logged: true,
        durability,
        has_unlogged: false,
    }
}
