//! What a session's connection works with: its open tables and its remembered answers.

use std::{collections::HashMap, sync::Arc};

use rhash_protocol::{ErrorCode, TableId, WireError};

use super::replies::Replies;
use crate::{store::Store, table::Table};

/// A session's tables and remembered answers.
#[derive(Debug, Default)]
pub(crate) struct Desk {
    /// The answers that the client may ask for again.
    pub(crate) replies: Replies,
    /// The tables that the session has open.
    pub(crate) tables: HashMap<TableId, Held>,
    /// The log tells of the session, so that it outlives the server.
    pub(crate) logged: bool,
}

/// A table that a session has open.
#[derive(Debug)]
pub(crate) struct Held {
    /// The table, which may have been closed by another session.
    pub(crate) table: Arc<Table>,
    /// How often the session opened it, less how often it let go of it.
    pub(crate) opens: u64,
}

impl Desk {
    /// A table that the session has open.
    ///
    /// # Errors
    /// What the store says if there is none; `BadRequest` if it is not open in this session.
    pub(crate) fn table(&self, store: &Store, id: TableId) -> Result<&Arc<Table>, WireError> {
        match self.tables.get(&id) {
            Some(held) => Ok(&held.table),
            None => Err(store.table(id).err().unwrap_or_else(|| WireError {
                code: ErrorCode::BadRequest,
                text: format!("table {id} is not open in this session; open it first"),
            })),
        }
    }
}
