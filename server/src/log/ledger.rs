//! The sessions that write to logged tables, as the log tells of them: the same records make the
//! ledger while the server runs and when it starts again, so it is at any moment what a start would
//! find. What it holds of each is bounded by what sessions may leave unsettled.

use std::collections::{BTreeMap, HashMap};

use rhash_protocol::{Response, TableId};

use super::record::{By, Holding, OwnedReply, Record, ReplyRef, SessionRecord};
use crate::{dispatch::encode, session::SessionId};

/// The sessions, by number.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    sessions: HashMap<SessionId, Kept>,
}

#[derive(Debug)]
struct Kept {
    secret: [u8; 16],
    token: (String, Option<[u8; 32]>),
    taken: u64,
    settled: u64,
    tables: BTreeMap<TableId, u64>,
    replies: BTreeMap<u64, OwnedReply>,
}

impl Ledger {
    /// Takes note of what a record that is read again says.
    pub(crate) fn replay(&mut self, record: &Record<'_>) {
        self.apply(record);
    }

    /// Takes note of what a record says. Of sessions that no record began nothing is kept.
    pub(super) fn apply(&mut self, record: &Record<'_>) {
        match record {
            Record::Batch {
                by: Some(by),
                reply,
                ..
            } => self.answer(by, *reply),
            Record::Reply { by, reply, holding } => {
                self.answer(by, *reply);
                if let (Some(kept), Holding::Opens(table, opens)) =
                    (self.sessions.get_mut(&by.session), holding)
                {
                    match opens {
                        0 => drop(kept.tables.remove(table)),
                        opens => drop(kept.tables.insert(*table, *opens)),
                    }
                }
            }
            Record::Session(session) => drop(self.sessions.insert(session.id, Kept::of(session))),
            Record::Ended { session } => drop(self.sessions.remove(session)),
            Record::Emptied {
                table,
                close,
                by: Some(by),
            } => {
                self.answer(by, ReplyRef::Body(&encode(&Response::Done)));
                if let Some(kept) = self.sessions.get_mut(&by.session).filter(|_| *close) {
                    kept.tables.remove(table);
                }
            }
            Record::Batch { by: None, .. }
            | Record::Emptied { by: None, .. }
            | Record::Table { .. } => {}
        }
    }

    /// Whether a request may be sent again that has no answer here.
    pub(crate) fn may_ask_again(&self, session: SessionId, sequence: u64) -> bool {
        self.sessions.get(&session).is_some_and(|kept| {
            sequence > kept.settled && !kept.replies.contains_key(&sequence)
        })
    }

    /// Whether a session is in it.
    pub(super) fn has(&self, session: SessionId) -> bool {
        self.sessions.contains_key(&session)
    }

    /// The numbers of all sessions.
    pub(super) fn ids(&self) -> Vec<SessionId> {
        self.sessions.keys().copied().collect()
    }

    /// A session, as a record that says the same; its answers are shared.
    pub(super) fn session(&self, id: SessionId) -> Option<SessionRecord> {
        self.sessions.get(&id).map(|kept| kept.to_record(id))
    }

    /// All sessions, as records that say the same.
    pub(crate) fn snapshot(&self) -> Vec<SessionRecord> {
        let sessions = self.sessions.iter();
        sessions.map(|(&id, kept)| kept.to_record(id)).collect()
    }

    fn answer(&mut self, by: &By, reply: ReplyRef<'_>) {
        let Some(kept) = self.sessions.get_mut(&by.session) else {
            return;
        };
        kept.taken = kept.taken.max(by.sequence);
        kept.settled = kept.settled.max(by.settled);
        kept.replies.insert(by.sequence, reply.to_owned());
        while kept
            .replies
            .first_key_value()
            .is_some_and(|(number, _)| *number <= kept.settled)
        {
            kept.replies.pop_first();
        }
    }
}

impl Kept {
    fn of(session: &SessionRecord) -> Self {
        Self {
            secret: session.secret,
            token: session.token.clone(),
            taken: session.taken,
            settled: session.settled,
            tables: session.tables.iter().copied().collect(),
            replies: session.replies.iter().cloned().collect(),
        }
    }

    fn to_record(&self, id: SessionId) -> SessionRecord {
        SessionRecord {
            id,
            secret: self.secret,
            token: self.token.clone(),
            taken: self.taken,
            settled: self.settled,
            tables: self
                .tables
                .iter()
                .map(|(&id, &opens)| (id, opens))
                .collect(),
            replies: self
                .replies
                .iter()
                .map(|(&number, reply)| (number, reply.clone()))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun() -> Ledger {
        let mut ledger = Ledger::default();
        ledger.apply(&Record::Session(Box::new(SessionRecord {
            id: 1,
            secret: [0; 16],
            token: ("anybody".to_owned(), None),
            taken: 2,
            settled: 2,
            tables: vec![],
            replies: vec![],
        })));
        ledger
    }

    fn batch(session: SessionId, sequence: u64, settled: u64) -> Record<'static> {
        Record::Batch {
            table: 1,
            by: Some(By {
                session,
                sequence,
                settled,
            }),
            count: 0,
            ops: b"",
            reply: ReplyRef::Written(0, b""),
        }
    }

    #[test]
    fn answers_are_kept_until_they_are_settled() {
        let mut ledger = begun();
        for sequence in 3..=6 {
            ledger.apply(&batch(1, sequence, sequence.saturating_sub(3)));
        }
        ledger.apply(&batch(9, 1, 0));
        let sessions = ledger.snapshot();
        assert_eq!(sessions.len(), 1, "nobody began session 9");
        let numbers: Vec<u64> = sessions[0]
            .replies
            .iter()
            .map(|(number, _)| *number)
            .collect();
        assert_eq!((sessions[0].taken, sessions[0].settled), (6, 3));
        assert_eq!(numbers, [4, 5, 6]);
    }

    #[test]
    fn a_snapshot_makes_the_same_ledger() {
        let mut ledger = begun();
        ledger.apply(&batch(1, 3, 2));
        let by = By {
            session: 1,
            sequence: 4,
            settled: 2,
        };
        for (opens, tables) in [(2, vec![(7, 2)]), (0, vec![])] {
            ledger.apply(&Record::Reply {
                by,
                reply: ReplyRef::Body(b"opened"),
                holding: Holding::Opens(7, opens),
            });
            let snapshot = ledger.snapshot();
            assert_eq!(snapshot[0].tables, tables);
            let mut again = Ledger::default();
            let records = snapshot
                .iter()
                .cloned()
                .map(|session| Record::Session(Box::new(session)));
            records.for_each(|record| again.apply(&record));
            assert_eq!(again.snapshot(), snapshot);
        }
        ledger.apply(&Record::Ended { session: 1 });
        assert!(ledger.snapshot().is_empty() && !ledger.has(1));
    }
}
