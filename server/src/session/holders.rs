//! Which sessions have which tables open, and what each was told about being the only one.
//!
//! A session is told in the answer to its open, and by a notice whenever that changes. Between the
//! two there is a gap, in which the answer is made but not yet on its way: a change that falls into
//! it is told after the answer, never before.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use rhash_protocol::TableId;

use super::{SessionId, notices::Notices};

/// The holders of all tables.
#[derive(Debug, Default)]
pub(crate) struct Holders {
    tables: Mutex<HashMap<TableId, Vec<Holder>>>,
}

/// A session that has a table open.
#[derive(Debug)]
struct Holder {
    session: SessionId,
    notices: Arc<Notices>,
    /// What the session was told last; none while its answer is on the way.
    told: Option<bool>,
}

impl Holders {
    /// Notes that a session has a table open; tells whether it is the only one.
    pub(crate) fn open(&self, table: TableId, session: SessionId, notices: &Arc<Notices>) -> bool {
        let mut tables = self.tables.lock();
        let holders = tables.entry(table).or_default();
        match holders.iter_mut().find(|holder| holder.session == session) {
            Some(holder) => holder.told = None,
            None => {
                let notices = Arc::clone(notices);
                holders.push(Holder {
                    session,
                    notices,
                    told: None,
                });
            }
        }
        tell(table, holders);
        holders.len() == 1
    }

    /// Notes that the answer to an open, which said `sole`, is on its way.
    pub(crate) fn told(&self, table: TableId, session: SessionId, sole: bool) {
        let mut tables = self.tables.lock();
        let Some(holders) = tables.get_mut(&table) else {
            return;
        };
        if let Some(holder) = holders.iter_mut().find(|holder| holder.session == session) {
            holder.told = Some(sole);
        }
        tell(table, holders);
    }

    /// Notes that a session has let go of a table.
    pub(crate) fn release(&self, table: TableId, session: SessionId) {
        let mut tables = self.tables.lock();
        let Some(holders) = tables.get_mut(&table) else {
            return;
        };
        holders.retain(|holder| holder.session != session);
        tell(table, holders);
        if holders.is_empty() {
            tables.remove(&table);
        }
    }

    /// Notes that a table is gone, for everybody.
    pub(crate) fn forget(&self, table: TableId) {
        self.tables.lock().remove(&table);
    }

    /// Tells a session about one of its tables again, since it may have missed a notice while it
    /// had no connection.
    pub(crate) fn tell_again(&self, table: TableId, session: SessionId) {
        let mut tables = self.tables.lock();
        let Some(holders) = tables.get_mut(&table) else {
            return;
        };
        let sole = holders.len() == 1;
        if let Some(holder) = holders.iter_mut().find(|holder| holder.session == session) {
            holder.told = Some(sole);
            holder.notices.say_sole(table, sole);
        }
    }

    /// How many sessions have a table open.
    pub(crate) fn count(&self, table: TableId) -> u64 {
        self.tables
            .lock()
            .get(&table)
            .map_or(0, |holders| holders.len() as u64)
    }
}

/// Sends notices to those that were told otherwise.
fn tell(table: TableId, holders: &mut [Holder]) {
    let sole = holders.len() == 1;
    for holder in holders {
        if holder.told.is_some_and(|told| told != sole) {
            holder.told = Some(sole);
            holder.notices.say_sole(table, sole);
        }
    }
}

#[cfg(test)]
mod tests {
    use rhash_protocol::Notice;

    use super::*;

    const TABLE: TableId = 7;

    fn sole(sole: bool) -> Vec<Notice> {
        vec![Notice::Sole { table: TABLE, sole }]
    }

    #[test]
    fn the_only_holder_is_told_when_it_is_no_longer_and_when_it_is_again() {
        let holders = Holders::default();
        let (first, second) = (Arc::new(Notices::default()), Arc::new(Notices::default()));
        assert!(holders.open(TABLE, 1, &first));
        holders.told(TABLE, 1, true);
        assert!(!holders.open(TABLE, 2, &second));
        holders.told(TABLE, 2, false);
        assert_eq!((first.take(), second.take()), (sole(false), vec![]));
        assert_eq!(holders.count(TABLE), 2);

        holders.release(TABLE, 1);
        assert_eq!((first.take(), second.take()), (vec![], sole(true)));
        holders.release(TABLE, 2);
        assert_eq!(holders.count(TABLE), 0);
    }

    #[test]
    fn a_change_while_the_answer_is_on_its_way_is_told_after_it() {
        let holders = Holders::default();
        let (first, second) = (Arc::new(Notices::default()), Arc::new(Notices::default()));
        assert!(
            holders.open(TABLE, 1, &first),
            "this is what the answer says"
        );
        assert!(!holders.open(TABLE, 2, &second));
        assert!(!first.any(), "the answer has not left yet");
        holders.told(TABLE, 1, true);
        assert_eq!(first.take(), sole(false));
    }

    #[test]
    fn of_several_changes_the_last_is_told() {
        let holders = Holders::default();
        let first = Arc::new(Notices::default());
        holders.open(TABLE, 1, &first);
        holders.told(TABLE, 1, true);
        for session in 2..5 {
            holders.open(TABLE, session, &Arc::new(Notices::default()));
        }
        for session in 2..5 {
            holders.release(TABLE, session);
        }
        assert_eq!(first.take(), sole(true));
    }

    #[test]
    fn a_session_that_comes_back_is_told_again() {
        let holders = Holders::default();
        let first = Arc::new(Notices::default());
        holders.open(TABLE, 1, &first);
        holders.told(TABLE, 1, true);
        holders.tell_again(TABLE, 1);
        assert_eq!(first.take(), sole(true));
        holders.forget(TABLE);
        holders.tell_again(TABLE, 1);
        assert_eq!(first.take(), vec![]);
    }
}
