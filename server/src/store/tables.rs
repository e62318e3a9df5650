//! The tables by number and by name.

use std::{collections::HashMap, sync::Arc};

use parking_lot::{Mutex, RwLock};
use rhash_protocol::TableId;

use crate::table::Table;

/// The tables by number and by name.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    pub(super) by_id: RwLock<HashMap<TableId, Arc<Table>>>,
    /// Taken before `by_id`; held while a named table is made or closed.
    pub(super) by_name: Mutex<HashMap<String, TableId>>,
}

impl Tables {
    /// All tables, in no order.
    pub(crate) fn all(&self) -> Vec<Arc<Table>> {
        self.by_id.read().values().cloned().collect()
    }

    /// The table of this number.
    pub(crate) fn get(&self, id: TableId) -> Option<Arc<Table>> {
        self.by_id.read().get(&id).cloned()
    }
}
