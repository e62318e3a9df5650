//! What a session's connection works with: its open tables and its remembered answers.

use std::{collections::HashMap, sync::Arc};

use rhash_protocol::{Durability, ErrorCode, TableId, WireError};

use super::replies::Replies;
use crate::{store::Store, table::Table};

/// A session's tables and remembered answers.
#[derive(Debug)]
pub(crate) struct Desk {
    /// The answers that the client may ask for again.
    pub(crate) replies: Replies,
    /// The tables that the session has open.
    pub(crate) tables: HashMap<TableId, Held>,
    /// The log tells of the session, so that it outlives the server.
    pub(crate) logged: bool,
    /// That of the safest table that it had open and that is logged; none: it had no such table.
    pub(crate) durability: Durability,
    /// It had a named table open that is not logged.
    pub(crate) has_unlogged: bool,
}

impl Default for Desk {
    fn default() -> Self {
        Self {
            replies: Replies::default(),
            tables: HashMap::new(),
            logged: false,
            durability: Durability::None,
            has_unlogged: false,
        }
    }
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
    /// What the store says if there is none; `TableClosed` if it is one that the session had open on an earlier
    /// server, of which no log tells; `BadRequest` if it is not open in this session.
    pub(crate) fn table(&self, store: &Store, id: TableId) -> Result<&Arc<Table>, WireError> {
        match self.tables.get(&id) {
            Some(held) => Ok(&held.table),
            None => Err(match store.table(id) {
                Ok(table) => self.not_open(&table),
                Err(error) => error,
            }),
        }
    }

    fn not_open(&self, table: &Table) -> WireError {
        if self.replies.are_restored()
            && table.log().is_none()
            && let Some(name) = table.name()
        {
            return WireError {
                code: ErrorCode::TableClosed,
                text: format!(
                    "the server was started again, and table \"{name}\" has durability none: nobody knows \
                     which of the last writes to it are there; open it again"
                ),
            };
        }
        WireError {
            code: ErrorCode::BadRequest,
            text: format!(
                "table {} is not open in this session; open it first",
                table.id()
            ),
        }
    }
}
