//! Iterators over a table's keys, values or entries.

use std::sync::Arc;

use parking_lot::Mutex;
use pyo3::{exceptions::PyValueError, prelude::*, types::PyTuple};
use rhash_client::blocking::encoded::{EncodedEntry, EncodedPages, Moment};
use rhash_protocol::ScanWhat;

use crate::{errors, fork::Owned, shared::Shared};

/// What an iterator gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gives {
    Keys,
    Values,
    Items,
}

#[derive(Debug)]
struct State {
    /// None while a page is read, and after the last one.
    pages: Option<Owned<EncodedPages>>,
    page: std::vec::IntoIter<EncodedEntry>,
    is_reading: bool,
}

/// Goes through a table once, page by page.
#[pyclass(frozen, module = "mivrhash._native", name = "Scan")]
#[derive(Debug)]
pub(crate) struct Scan {
    shared: Arc<Shared>,
    gives: Gives,
    /// When it began.
    moment: Moment,
    state: Mutex<State>,
}

impl Scan {
    pub(crate) fn begin(py: Python<'_>, shared: Arc<Shared>, gives: Gives) -> PyResult<Self> {
        shared.settle(py)?;
        let what = match gives {
            Gives::Keys => ScanWhat::Keys,
            // Values that can change are live under their keys.
            Gives::Values | Gives::Items => ScanWhat::Items,
        };
        let table = shared.table(py)?;
        let moment = table.moment();
        let pages = table.scan(what);
        Ok(Self {
            shared,
            gives,
            moment,
            state: Mutex::new(State {
                pages: Some(Owned::new(pages)),
                page: Vec::new().into_iter(),
                is_reading: false,
            }),
        })
    }

    fn value<'py>(&self, py: Python<'py>, entry: &EncodedEntry) -> PyResult<Bound<'py, PyAny>> {
        self.shared.given(py, &entry.key, &entry.value, self.moment)
    }

    /// Reads the next page; gives whether there was one.
    fn turn(&self, py: Python<'_>) -> PyResult<bool> {
        let pages = {
            let mut state = self.state.lock();
            if state.is_reading {
                return Err(PyValueError::new_err(
                    "the iterator is at work in another thread",
                ));
            }
            let pages = state.pages.take();
            state.is_reading = pages.is_some();
            pages
        };
        let Some(pages) = pages else {
            return Ok(false);
        };
        let Some(mut pages) = pages.into_inner() else {
            return Err(errors::closed(py));
        };
        let (pages, page) = py.detach(|| {
            let page = pages.next();
            (pages, page)
        });
        let mut state = self.state.lock();
        state.is_reading = false;
        match page {
            Some(Ok(page)) => {
                if self.gives == Gives::Keys {
                    let keys = page.iter().map(|entry| entry.key.clone()).collect();
                    self.shared.remember(keys);
                }
                state.pages = Some(Owned::new(pages));
                state.page = page.into_iter();
                Ok(true)
            }
            Some(Err(error)) => {
                drop(state);
                Err(errors::of_client(py, &error))
            }
            None => Ok(false),
        }
    }
}

#[pymethods]
impl Scan {
    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        loop {
            let entry = self.state.lock().page.next();
            let Some(entry) = entry else {
                if self.turn(py)? {
                    continue;
                }
                return Ok(None);
            };
            return Ok(Some(match self.gives {
                Gives::Keys => self.shared.decode_key(py, &entry.key)?,
                Gives::Values => self.value(py, &entry)?,
                Gives::Items => {
                    let key = self.shared.decode_key(py, &entry.key)?;
                    let value = self.value(py, &entry)?;
                    PyTuple::new(py, [key, value])?.into_any()
                }
            }));
        }
    }
}
