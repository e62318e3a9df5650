//! The sessions that write to logged tables, as the log tells of them: the same records make the
//! ledger while the server runs and when it starts again, so it is at any moment what a start would
//! find, but for answers that were settled since. What it holds of each is bounded by what sessions may leave unsettled; it shares the bytes of answers
//! with them, and the account that these are charged to.

use std::collections::{BTreeMap, HashMap};

use rhash_protocol::{Response, TableId};

use super::record::{By, Holding, OwnedReply, Record, SessionRecord};
use crate::{dispatch::encode, governor::KeptAccount, session::SessionId};

/// The sessions, by number.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    sessions: HashMap<SessionId, Kept>,
    /// What answers are charged to that come with no charge: those that are read in the log.
    account: KeptAccount,
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
    /// No sessions, whose answers will be charged to this account.
    pub(crate) fn new(account: KeptAccount) -> Self {
        Self {
            sessions: HashMap::new(),
            account,
        }
    }

    /// Takes note of what a record that is read again says.
    pub(crate) fn replay(&mut self, record: &Record<'_>) {
        self.apply(record);
        let account = &self.account;
        let charge = |reply: OwnedReply| reply.map(|bytes| account.keep(bytes));
        match record {
            Record::Batch { by: Some(by), .. } | Record::Reply { by, .. } => {
                // If it is settled already, nothing is kept of it.
                let session = self.sessions.get_mut(&by.session);
                let replies = session.map(|kept| &mut kept.replies);
                if let Some(reply) = replies.and_then(|replies| replies.get_mut(&by.sequence)) {
                    *reply = charge(reply.clone());
                }
            }
            Record::Session(session) => {
                let replies = self.sessions.get_mut(&session.id);
                let replies = replies.map(|kept| kept.replies.values_mut());
                for reply in replies.into_iter().flatten() {
                    *reply = charge(reply.clone());
                }
            }
            // Their answers are this ledger's own.
            Record::Emptied { .. }
            | Record::Ended { .. }
            | Record::Batch { by: None, .. }
            | Record::Table { .. } => {}
        }
    }

    /// Takes note of what a record says. Of sessions that no record began nothing is kept.
    pub(super) fn apply(&mut self, record: &Record<'_>) {
        match record {
            Record::Batch {
                by: Some(by),
                reply,
                ..
            } => self.answer(by, reply.clone()),
            Record::Reply { by, reply, holding } => {
                self.answer(by, reply.clone());
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
                let done = self.account.keep(encode(&Response::Done));
                self.answer(by, OwnedReply::Body(done));
                if let Some(kept) = self.sessions.get_mut(&by.session).filter(|_| *close) {
                    kept.tables.remove(table);
                }
            }
            Record::Batch { by: None, .. }
            | Record::Emptied { by: None, .. }
            | Record::Table { .. } => {}
        }
    }

    /// The client has the answers of a session up to this number.
    pub(super) fn settle(&mut self, session: SessionId, settled: u64) {
        if let Some(kept) = self.sessions.get_mut(&session) {
            kept.settle(settled);
        }
    }

    /// Whether a request may be sent again that has no answer here.
    pub(crate) fn may_ask_again(&self, session: SessionId, sequence: u64) -> bool {
        self.sessions
            .get(&session)
            .is_some_and(|kept| sequence > kept.settled && !kept.replies.contains_key(&sequence))
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

    fn answer(&mut self, by: &By, reply: OwnedReply) {
        let Some(kept) = self.sessions.get_mut(&by.session) else {
            return;
        };
        kept.taken = kept.taken.max(by.sequence);
        kept.replies.insert(by.sequence, reply);
        kept.settle(by.settled);
    }
}

impl Kept {
    fn settle(&mut self, settled: u64) {
        self.settled = self.settled.max(settled);
        while self
            .replies
            .first_key_value()
            .is_some_and(|(number, _)| *number <= self.settled)
        {
            self.replies.pop_first();
        }
    }

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
    use bytes::Bytes;

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
            reply: OwnedReply::Written(0, Bytes::new()),
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
    fn what_is_read_in_the_log_is_charged_until_it_is_settled() {
        let account = KeptAccount::new(1 << 20);
        let mut ledger = Ledger::new(account.clone());
        let answer = |sequence, settled| Record::Reply {
            by: By {
                session: 1,
                sequence,
                settled,
            },
            reply: OwnedReply::Body(Bytes::from(vec![7; 1000])),
            holding: Holding::Same,
        };
        let session = SessionRecord {
            id: 1,
            secret: [0; 16],
            token: ("anybody".to_owned(), None),
            taken: 1,
            settled: 0,
            tables: vec![],
            replies: vec![(1, OwnedReply::Body(Bytes::from(vec![7; 1000])))],
        };
        ledger.replay(&Record::Session(Box::new(session)));
        let of_one = account.bytes();
        assert!((1000..1400).contains(&of_one), "{of_one} bytes");
        for sequence in 2..=4 {
            ledger.replay(&answer(sequence, 0));
            assert_eq!(account.bytes(), of_one * sequence as usize);
        }
        let sessions = ledger.snapshot();
        assert_eq!(account.bytes(), 4 * of_one, "they share the bytes");
        ledger.replay(&answer(5, 4));
        assert_eq!(account.bytes(), 5 * of_one, "the others are still kept");
        drop(sessions);
        assert_eq!(account.bytes(), of_one);
        ledger.replay(&Record::Ended { session: 1 });
        assert_eq!(account.bytes(), 0);
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
                reply: OwnedReply::Body(Bytes::from_static(b"opened")),
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
