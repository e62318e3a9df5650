//! The tables by number and by name.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use parking_lot::{Mutex, RwLock};
use rhash_protocol::{TableId, TableInfo};

use crate::table::Table;

/// The tables by number and by name.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    pub(super) by_id: RwLock<HashMap<TableId, Arc<Table>>>,
    /// Taken before `by_id`; held while a named table is made or closed.
    pub(super) by_name: Mutex<HashMap<String, TableId>>,
    /// Tables that are being made; changed while `by_id` is held for writing.
    making: AtomicUsize,
}

/// The place of a table that is being made, given back if it is not.
#[derive(Debug)]
pub(super) struct Place<'a>(&'a Tables);

impl Tables {
    /// All tables, in no order.
    pub(crate) fn all(&self) -> Vec<Arc<Table>> {
        self.by_id.read().values().cloned().collect()
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.by_id.read().len()
    }

    /// The place for one more, if there are not so many yet, those included that are being made.
    pub(super) fn place(&self, count_max: usize) -> Option<Place<'_>> {
        let by_id = self.by_id.write();
        if by_id.len() + self.making.load(Relaxed) >= count_max {
            return None;
        }
        self.making.fetch_add(1, Relaxed);
        Some(Place(self))
    }

    /// The table of this number.
    pub(crate) fn get(&self, id: TableId) -> Option<Arc<Table>> {
        self.by_id.read().get(&id).cloned()
    }
}

impl Place<'_> {
    /// Puts the table there.
    pub(super) fn take(self, id: TableId, table: Arc<Table>) {
        let tables = self.0;
        let mut by_id = tables.by_id.write();
        by_id.insert(id, table);
        // IMPORTANT: still under the lock, or it would count twice for a moment.
        tables.making.fetch_sub(1, Relaxed);
        drop(by_id);
        std::mem::forget(self);
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let _by_id = self.0.by_id.write();
        self.0.making.fetch_sub(1, Relaxed);
    }
}

/// The figures of tables, named ones first; each one's `sessions` is left for the caller.
pub(crate) fn figures(tables: &[Arc<Table>]) -> Vec<TableInfo> {
    let mut figures: Vec<TableInfo> = tables.iter().map(|table| table.info()).collect();
    figures.sort_by(|left, right| {
        (left.name.is_none(), &left.name, left.table).cmp(&(
            right.name.is_none(),
            &right.name,
            right.table,
        ))
    });
    figures
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Store, StoreConfig};

    // Two that opened a table at once both found that there was room for one more.
    #[test]
    fn a_place_is_taken_before_its_table_is_made() {
        let tables = Tables::default();
        let first = tables.place(2).unwrap();
        let second = tables.place(2).unwrap();
        assert!(tables.place(2).is_none() && tables.count() == 0);
        drop(first);
        let third = tables.place(2).unwrap();
        assert!(tables.place(2).is_none());

        let store = Store::open(StoreConfig::new(64 << 20, None)).unwrap();
        let kind = Some(rhash_protocol::TableKind::Values);
        let mode = rhash_protocol::OpenMode::CreateNew;
        let opened = store.open_table(None, kind, Some("bytes"), mode).unwrap();
        third.take(1, opened.table);
        assert!(tables.place(2).is_none() && tables.count() == 1);
        drop(second);
        assert!(tables.place(2).is_some() && tables.place(1).is_none());
    }
}
