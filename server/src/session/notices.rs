//! What a session is to be told unasked, until its connection's writer takes it.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, Ordering},
};

use parking_lot::Mutex;
use rhash_protocol::{Notice, TableId};
use tokio::sync::Notify;

/// Notices of one session. Of each table only the latest is kept, so that there are never more
/// than the session has tables.
#[derive(Debug, Default)]
pub(crate) struct Notices {
    sole: Mutex<HashMap<TableId, bool>>,
    /// Whether there are any; set under the lock of `sole`, read without it.
    any: AtomicBool,
    wake: Notify,
}

impl Notices {
    /// Puts a notice in the place of an older one about the same table.
    pub(crate) fn say_sole(&self, table: TableId, sole: bool) {
        let mut pending = self.sole.lock();
        pending.insert(table, sole);
        self.any.store(true, Ordering::Release);
        drop(pending);
        self.wake.notify_one();
    }

    /// Whether there are any.
    pub(crate) fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// Waits until there are some. Cancel safe.
    pub(crate) async fn wait(&self) {
        while !self.any() {
            self.wake.notified().await;
        }
    }

    /// Takes them all.
    pub(crate) fn take(&self) -> Vec<Notice> {
        let mut pending = self.sole.lock();
        self.any.store(false, Ordering::Release);
        pending
            .drain()
            .map(|(table, sole)| Notice::Sole { table, sole })
            .collect()
    }
}
