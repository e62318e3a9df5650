//! Opening tables, and making them where there are none.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use rhash_protocol::{Durability, ErrorCode, OpenMode, TableKind, WireError};

use super::{
    Opened, Store,
    names::{Cannot, check_names, check_same},
};
use crate::{
    data_dir::{
        Marks,
        manifest::{Edit, Maker, TableState},
    },
    log::{By, Lsn, Record},
    ranges::Ranges,
    table::{Table, TableError, TableSpec},
};

/// What a table is opened as.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Opening<'a> {
    /// None makes a temporary one.
    pub(crate) name: Option<&'a str>,
    pub(crate) kind: Option<TableKind>,
    pub(crate) codec: Option<&'a str>,
    pub(crate) mode: OpenMode,
    pub(crate) durability: Option<Durability>,
    /// The request that asks for it, which may be sent again.
    pub(crate) by: Option<By>,
    /// The record that tells of that request's session for the first time; 0 if one does already, or none.
    pub(crate) session_lsn: Lsn,
}

impl Store {
    /// Opens or makes a table. No name makes a temporary one.
    ///
    /// # Errors
    /// By the mode, `NoSuchTable` or `TableExists`; `WrongKind` or `WrongCodec` if the table is of
    /// another kind or codec than given; `BadRequest` for a name that cannot be one, or if a table
    /// would have to be made of no given kind or codec; `Busy` if there are too many tables.
    pub fn open_table(
        &self,
        name: Option<&str>,
        kind: Option<TableKind>,
        codec: Option<&str>,
        mode: OpenMode,
    ) -> Result<Opened, TableError> {
        self.open_as(&Opening {
            name,
            kind,
            codec,
            mode,
            durability: None,
            by: None,
            session_lsn: 0,
        })
    }

    /// Opens or makes a table as it is asked for.
    ///
    /// # Errors
    /// As [`open_table`](Self::open_table), and `WrongDurability` if the table has another durability than
    /// given, or cannot have that.
    pub(crate) fn open_as(&self, opening: &Opening<'_>) -> Result<Opened, TableError> {
        check_names(opening.name, opening.codec)?;
        let Some(name) = opening.name else {
            if let Some(durability) = opening.durability {
                return Err(Cannot::Outlive.have(durability));
            }
            return self.make_table(opening);
        };
        let mut by_name = self.tables.by_name.lock();
        match by_name.get(name).and_then(|&id| self.tables.get(id)) {
            // It made the table before an earlier server could say so.
            Some(table) if self.is_maker(opening, &table) => {
                check_same(&table, name, opening)?;
                Ok(Opened {
                    table,
                    created: true,
                })
            }
            Some(_) if opening.mode == OpenMode::CreateNew => Err(WireError {
                code: ErrorCode::TableExists,
                text: format!("table \"{name}\" exists; open it, or close it first"),
            }),
            Some(table) => {
                check_same(&table, name, opening)?;
                Ok(Opened {
                    table,
                    created: false,
                })
            }
            None if opening.mode == OpenMode::Existing
                || opening.kind.is_none()
                || opening.codec.is_none() =>
            {
                Err(WireError {
                    code: ErrorCode::NoSuchTable,
                    text: format!("there is no table \"{name}\""),
                })
            }
            None => {
                self.check_durability(opening.durability)?;
                let opened = self.make_table(opening)?;
                by_name.insert(name.to_owned(), opened.table.id());
                Ok(opened)
            }
        }
    }

    /// The durability of named tables that have none of their own.
    pub(crate) fn durability(&self) -> Durability {
        self.shared.durability
    }

    /// Whether a new table can have a durability of its own.
    fn check_durability(&self, durability: Option<Durability>) -> Result<(), TableError> {
        match durability {
            None | Some(Durability::None) => Ok(()),
            Some(durability) if self.shared.cold.is_none() => Err(Cannot::Keep.have(durability)),
            Some(durability) if self.log().is_none() => Err(Cannot::Log.have(durability)),
            Some(_) => Ok(()),
        }
    }

    fn make_table(&self, opening: &Opening<'_>) -> Result<Opened, TableError> {
        let (Some(kind), Some(codec)) = (opening.kind, opening.codec) else {
            return Err(WireError {
                code: ErrorCode::BadRequest,
                text: "a new table needs a kind and a codec".to_owned(),
            });
        };
        let place = self
            .tables
            .place(self.tables_max)
            .ok_or_else(|| WireError {
                code: ErrorCode::Busy,
                text: format!(
                    "there are {} tables, which is the limit; close some",
                    self.tables_max
                ),
            })?;
        let spec = TableSpec {
            id: self.next_table.fetch_add(1, Relaxed),
            name: opening.name.map(str::to_owned),
            kind,
            codec: codec.to_owned(),
            durability: opening.durability,
        };
        self.write_down_new(&spec, opening)?;
        let id = spec.id;
        let table = Table::new(spec, Arc::clone(&self.shared), Ranges::new());
        place.take(id, Arc::clone(&table));
        Ok(Opened {
            table,
            created: true,
        })
    }

    /// Who asks for a table, if that may be asked of the next server: where there is no log, no session
    /// outlives this one.
    fn maker(&self, opening: &Opening<'_>) -> Option<Maker> {
        let by = opening.by.filter(|_| self.log().is_some())?;
        Some(Maker {
            session: by.session,
            sequence: by.sequence,
        })
    }

    /// Whether the request made a table that is there.
    fn is_maker(&self, opening: &Opening<'_>, table: &Table) -> bool {
        let (Some(maker), Some(manifest)) = (self.maker(opening), &self.shared.manifest) else {
            return false;
        };
        let manifest = manifest.lock();
        let state = manifest.state().tables.get(&table.id());
        state.is_some_and(|state| state.maker == Some(maker))
    }

    /// Writes a new table into the manifest, if it is named.
    fn write_down_new(&self, spec: &TableSpec, opening: &Opening<'_>) -> Result<(), TableError> {
        let Some(name) = &spec.name else {
            return Ok(());
        };
        let session_lsn = opening.session_lsn;
        if let Some(log) = self.log()
            && session_lsn > 0
        {
            // IMPORTANT: before the table is there. The next server must know the session that made it, or
            // would tell it that somebody else did. Where the log has no room or failed, nothing is promised.
            let durability = spec.durability.unwrap_or(self.shared.durability);
            drop(log.wait_here(durability, session_lsn));
        }
        let id = spec.id;
        let state = TableState {
            name: name.clone(),
            kind: spec.kind,
            codec: spec.codec.clone(),
            ranges: Ranges::new(),
            marks: Marks::default(),
            emptied: 0,
            durability: spec.durability,
            maker: self.maker(opening),
        };
        let bytes = state.to_bytes();
        self.shared.record_durably(Edit::Table { id, state })?;
        if let Some(log) = self.log() {
            // The manifest is what tells of it; a log that failed is told of by the first write.
            let (table, state) = (id, bytes.as_slice());
            drop(log.append(&Record::Table { table, state }));
        }
        Ok(())
    }
}
