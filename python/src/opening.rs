//! Which table to open, and how; kept, so that a child of this process can open it again.

use std::sync::{Arc, Weak};

use pyo3::{exceptions::PyValueError, prelude::*};
use rhash_client::{Durability, TableKind, blocking::encoded::EncodedSpec};
use rhash_protocol::OpenMode;

use crate::{client::Client, errors, shared::Shared};

/// The codec of all tables of this package.
const CODEC: &str = "value";

/// How a table was opened.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) client: Py<Client>,
    pub(crate) name: Option<String>,
    pub(crate) kind: TableKind,
    pub(crate) durability: Option<Durability>,
    pub(crate) pickle: bool,
    pub(crate) live: bool,
}

impl Opened {
    /// Opens the table, or joins those of this client that have it open.
    pub(crate) fn open(&self, py: Python<'_>, mode: OpenMode) -> PyResult<Arc<Shared>> {
        let client = self.client.get();
        let there = match &self.name {
            Some(name) if mode != OpenMode::CreateNew => {
                let there = client.shares.lock().get(name).and_then(Weak::upgrade);
                there.filter(|there| there.fits(self.kind, self.pickle, self.live))
            }
            _ => None,
        };
        if let (Some(there), None) = (&there, self.durability) {
            return Ok(Arc::clone(there));
        }
        let connection = client.connection(py)?;
        let spec = EncodedSpec {
            name: self.name.clone(),
            kind: self.kind,
            codec: CODEC.to_owned(),
            mode,
            durability: self.durability,
        };
        let table = py
            .detach(move || connection.open_encoded(spec))
            .map_err(|error| errors::of_client(py, &error))?;
        if let Some(there) = there {
            // It was opened to be told whether it has that durability, and stays open with this one.
            py.detach(move || drop(table));
            return Ok(there);
        }
        let live_bytes = if self.live { client.live_bytes() } else { 0 };
        let shared = Arc::new(Shared::new(table, self.kind, self.pickle, live_bytes));
        if let Some(name) = &self.name {
            let mut shares = client.shares.lock();
            shares.retain(|_, share| share.strong_count() > 0);
            shares.insert(name.clone(), Arc::downgrade(&shared));
        }
        Ok(shared)
    }
}

/// What a table holds, from its name in Python.
pub(crate) fn kind(name: &str) -> PyResult<TableKind> {
    match name {
        "values" => Ok(TableKind::Values),
        "lists" => Ok(TableKind::Lists),
        "counters" => Ok(TableKind::Counters),
        other => Err(PyValueError::new_err(format!(
            "kind is {other:?}, not 'values', 'lists' or 'counters'"
        ))),
    }
}

/// How safe writes are, from its name in Python.
pub(crate) fn durability(name: Option<&str>) -> PyResult<Option<Durability>> {
    let Some(name) = name else {
        return Ok(None);
    };
    match Durability::from_name(name) {
        Some(durability) => Ok(Some(durability)),
        None => Err(PyValueError::new_err(format!(
            "durability is {name:?}, not 'none', 'everysec' or 'always'"
        ))),
    }
}

/// What to do about a table that exists, or does not, from its name in Python.
pub(crate) fn mode(name: &str) -> PyResult<OpenMode> {
    match name {
        "open" => Ok(OpenMode::OpenOrCreate),
        "existing" => Ok(OpenMode::Existing),
        "create" => Ok(OpenMode::CreateNew),
        other => Err(PyValueError::new_err(format!(
            "mode is {other:?}, not 'open', 'existing' or 'create'"
        ))),
    }
}
