//! Reads of many keys, in pieces that overlap: while the server works on one, the next is encoded
//! and sent, and the one before is decoded. So both sides of a connection are busy.

use std::collections::VecDeque;

use pyo3::{prelude::*, types::PyList};
use rhash_client::blocking::encoded::{EncodedKey, EncodedRead, Moment, PIECES_UNDER_WAY_MAX};

use super::Shared;

/// A read of many keys.
#[derive(Debug)]
pub(super) struct Many<'a, 'py> {
    shared: &'a Shared,
    /// The value of keys that are missing.
    default: &'a Bound<'py, PyAny>,
    under_way: VecDeque<(Moment, EncodedRead)>,
    objects: Vec<Bound<'py, PyAny>>,
}

impl<'a, 'py> Many<'a, 'py> {
    /// A read of nothing yet.
    pub(super) fn new(shared: &'a Shared, default: &'a Bound<'py, PyAny>) -> Self {
        Self {
            shared,
            default,
            under_way: VecDeque::new(),
            objects: Vec::new(),
        }
    }

    /// Asks for one more piece.
    pub(super) fn ask(&mut self, keys: Vec<EncodedKey>) -> PyResult<()> {
        if self.under_way.len() >= PIECES_UNDER_WAY_MAX {
            self.take()?;
        }
        let py = self.default.py();
        let moment = self.shared.table(py)?.moment();
        let read = self.shared.ask(py, |table| table.ask_many(keys))?;
        self.under_way.push_back((moment, read));
        Ok(())
    }

    /// All values, in the order of their keys.
    pub(super) fn finish(mut self) -> PyResult<Bound<'py, PyList>> {
        while !self.under_way.is_empty() {
            self.take()?;
        }
        PyList::new(self.default.py(), self.objects)
    }

    /// Takes the piece that was asked for first.
    fn take(&mut self) -> PyResult<()> {
        let Some((moment, read)) = self.under_way.pop_front() else {
            return Ok(());
        };
        let py = self.default.py();
        let values = self.shared.ask(py, |table| table.take_many(read))?;
        self.objects.reserve(values.len());
        for (key, value) in values {
            let object = self.shared.answer(py, key.bytes(), value, moment)?;
            let object = object.unwrap_or_else(|| self.default.clone());
            self.objects.push(object);
        }
        Ok(())
    }
}
