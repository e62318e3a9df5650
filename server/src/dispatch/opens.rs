//! Which tables a session has open: opening them, letting go of them, freeing them.

use bytes::Bytes;
use rhash_protocol::{ErrorCode, OpenMode, Response, TableId, WireError};

use super::{Numbers, encode};
use crate::{
    connection::{Clerk, End},
    limits::Limit,
    log::{By, Holding, Lsn},
    session::Held,
    store::Opening,
};

impl Clerk {
    /// Closes a table; returns the record that tells of it and of its answer, 0 for none.
    pub(super) async fn close(&mut self, table: TableId, by: By) -> Result<Lsn, WireError> {
        self.desk.table(&self.hub.store, table)?;
        let closed = self
            .hub
            .blocking(move |hub| hub.store.close_table_by(table, Some(by)))
            .await;
        let gone = match &closed {
            Ok(_) => true,
            Err(error) => error.code == ErrorCode::TableClosed,
        };
        if gone {
            self.desk.tables.remove(&table);
            self.hub.holders.forget(table);
        }
        closed
    }

    pub(super) async fn detach(&mut self, id: TableId) -> Result<Bytes, WireError> {
        self.desk.table(&self.hub.store, id)?;
        if let Some(held) = self.desk.tables.get_mut(&id) {
            held.opens -= 1;
            if held.opens > 0 {
                return Ok(encode(&Response::Done));
            }
        }
        let held = self.desk.tables.remove(&id);
        self.hub.holders.release(id, self.session.id());
        if held.is_some_and(|held| held.table.name().is_none()) {
            let closed = self
                .hub
                .blocking(move |hub| hub.store.close_table(id))
                .await;
            closed.or_else(|error| match error.code {
                ErrorCode::TableClosed => Ok(()),
                _ => Err(error),
            })?;
        }
        Ok(encode(&Response::Done))
    }

    pub(super) async fn open(&mut self, numbers: Numbers, opening: Opening<'_>) -> Result<(), End> {
        match self.open_table(opening).await {
            Ok((id, sole, body)) => {
                let holding = self.begin_holding(id);
                self.remember_and_send(numbers, body, holding).await?;
                // From here on a change of it is told; before, it would have overtaken the answer.
                self.hub.holders.told(id, self.session.id(), sole);
                Ok(())
            }
            Err(error) => {
                let body = encode(&Response::Error(error));
                self.remember_and_send(numbers, body, Holding::Same).await
            }
        }
    }

    async fn open_table(
        &mut self,
        opening: Opening<'_>,
    ) -> Result<(TableId, bool, Bytes), WireError> {
        let limits = &self.hub.limits;
        if self.desk.tables.len() as u64 >= limits.tables_per_session {
            self.hub.reached.count(Limit::TablesPerSession);
            return Err(WireError {
                code: ErrorCode::Busy,
                text: format!(
                    "this session has {} tables open, the limit; close some",
                    limits.tables_per_session
                ),
            });
        }
        let may_make = self.session.grant().rights_on(opening.name).write;
        let asked = opening.mode;
        let mode = match (asked, opening.name) {
            // Making it errs, but not before it is known that it would be made.
            (OpenMode::OpenOrCreate, Some(_)) if !may_make => OpenMode::Existing,
            (asked, _) => asked,
        };
        let name = opening.name.map(str::to_owned);
        let codec = opening.codec.map(str::to_owned);
        let Opening {
            kind,
            durability,
            by,
            ..
        } = opening;
        let session_lsn = self.begin_opening(opening.name, mode, durability);
        let opened = self
            .hub
            .blocking(move |hub| {
                hub.store.open_as(&Opening {
                    name: name.as_deref(),
                    kind,
                    codec: codec.as_deref(),
                    mode,
                    durability,
                    by,
                    session_lsn,
                })
            })
            .await
            .map_err(|error| match error.code {
                ErrorCode::NoSuchTable if mode != asked => {
                    self.denied("make", opening.name, Some(&error.text))
                }
                ErrorCode::Busy => {
                    self.hub.reached.count(Limit::Tables);
                    error
                }
                _ => error,
            })?;
        let id = opened.table.id();
        let (kind, codec) = (opened.table.kind(), opened.table.codec().to_owned());
        let sole = self
            .hub
            .holders
            .open(id, self.session.id(), self.session.notices());
        let held = self.desk.tables.entry(id);
        held.or_insert(Held {
            table: opened.table,
            opens: 0,
        })
        .opens += 1;
        let created = opened.created;
        let response = Response::Opened {
            table: id,
            kind,
            codec,
            created,
            sole,
        };
        Ok((id, sole, encode(&response)))
    }
}
