//! Reads: what the caches know is given at once, for all else the server is asked.

use bytes::Bytes;
use pyo3::{prelude::*, types::PyList};
use rhash_client::blocking::encoded::{EncodedKey, Moment};

use super::{Shared, many::Many};
use crate::errors;

impl Shared {
    /// The value of a key.
    pub(crate) fn get<'py>(
        &self,
        py: Python<'py>,
        key: EncodedKey,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        if let Some(object) = self.look_live(py, key.bytes())? {
            return Ok(Some(object));
        }
        let table = self.table(py)?;
        let moment = table.moment();
        let cached = table.get_cached(&key);
        let value = match cached.map_err(|error| errors::of_client(py, &error))? {
            Some(known) => known,
            None => return self.get_remote(py, key),
        };
        self.answer(py, key.bytes(), value, moment)
    }

    /// What a read gave that began at `moment`.
    pub(super) fn answer<'py>(
        &self,
        py: Python<'py>,
        key: &[u8],
        value: Option<Bytes>,
        moment: Moment,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        match value {
            Some(bytes) => self.given(py, key, &bytes, moment).map(Some),
            None => self.reconcile(py, key, None, moment),
        }
    }

    /// What the cache knows of a key: its value, or that there is none; or nothing. Never waits, for
    /// tables without live values.
    pub(crate) fn get_cached<'py>(
        &self,
        py: Python<'py>,
        key: EncodedKey,
    ) -> PyResult<Option<Option<Bound<'py, PyAny>>>> {
        let cached = self.table(py)?.get_cached(&key);
        match cached.map_err(|error| errors::of_client(py, &error))? {
            None => Ok(None),
            Some(None) => Ok(Some(None)),
            Some(Some(bytes)) => self
                .decode(py, &bytes)
                .map(|(value, _decoder)| Some(Some(value))),
        }
    }

    fn get_remote<'py>(
        &self,
        py: Python<'py>,
        key: EncodedKey,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let own = Bytes::copy_from_slice(key.bytes());
        let moment = self.table(py)?.moment();
        let run = match moment.epoch() {
            // What is fetched ahead is of use only if it may be kept.
            Some(_) => self.trail.lock().run(&own),
            None => None,
        };
        let value = match run {
            Some(run) if run.len() > 1 => {
                let keys: Vec<_> = run
                    .iter()
                    .map(|key| self.raw_key(py, key))
                    .collect::<PyResult<_>>()?;
                let mut values = self.ask(py, |table| table.get_ahead(keys))?;
                let bytes = values.iter().flatten().map(Bytes::len).sum();
                self.trail.lock().learn(values.len(), bytes);
                if values.is_empty() {
                    None
                } else {
                    values.swap_remove(0)
                }
            }
            _ => self.ask(py, |table| table.get(key))?,
        };
        self.answer(py, &own, value, moment)
    }

    /// The values of several keys, in their order.
    pub(crate) fn get_many<'py>(
        &self,
        keys: &Bound<'py, PyAny>,
        default: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyList>> {
        let mut many = Many::new(self, default);
        let mut piece = Vec::new();
        let mut pieces = self.table(keys.py())?.pieces(keys.len().ok());
        for key in keys.try_iter()? {
            piece.push(self.key(&key?)?);
            if piece.len() >= pieces.keys() {
                many.ask(std::mem::take(&mut piece))?;
                pieces.next();
            }
        }
        if !piece.is_empty() {
            many.ask(piece)?;
        }
        many.finish()
    }

    /// Whether there is an entry.
    pub(crate) fn contains(&self, py: Python<'_>, key: EncodedKey) -> PyResult<bool> {
        if self.look_live(py, key.bytes())?.is_some() {
            return Ok(true);
        }
        let cached = self.table(py)?.get_cached(&key);
        match cached.map_err(|error| errors::of_client(py, &error))? {
            Some(known) => Ok(known.is_some()),
            None => self.ask(py, |table| table.contains(key)),
        }
    }

    /// Remembers the keys of a page that an iteration gave.
    pub(crate) fn remember(&self, page: Vec<Bytes>) {
        self.trail.lock().push(page);
    }
}
