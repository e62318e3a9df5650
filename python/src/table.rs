//! The handle that `RHash` is made on: a mapping's operations, in Rust where they are hot.

use std::sync::Arc;

use parking_lot::Mutex;
use pyo3::{
    exceptions::{PyKeyError, PyTypeError, PyValueError},
    intern,
    prelude::*,
    types::{PyDict, PyTuple, PyType},
};
use rhash_protocol::OpenMode;

use crate::{
    client::Client,
    errors,
    opening::{self, Opened},
    scan::{Gives, Scan},
    shared::Shared,
};

/// A handle on a table of a server; without one before `_open`.
#[pyclass(frozen, subclass, module = "mivrhash._native", name = "Table")]
#[derive(Debug, Default)]
pub(crate) struct Table {
    shared: Mutex<Option<Arc<Shared>>>,
    opened: Mutex<Option<Arc<Opened>>>,
}

impl Table {
    /// What the handle is on; opened again in a child of the process that opened it.
    fn shared(&self, py: Python<'_>) -> PyResult<Arc<Shared>> {
        match &*self.shared.lock() {
            Some(shared) if shared.is_ours() => return Ok(Arc::clone(shared)),
            Some(_before_fork) => {}
            None => return Err(errors::closed(py)),
        }
        let opened = self.opened.lock().clone();
        let Some(opened) = opened else {
            return Err(errors::closed(py));
        };
        if opened.name.is_none() {
            let text = "a temporary table belongs to the process that made it, not to its children";
            return Err(errors::raise(py, "TableClosedError", text));
        }
        let shared = opened.open(py, OpenMode::Existing)?;
        let before = self.shared.lock().replace(Arc::clone(&shared));
        drop(before);
        Ok(shared)
    }

    fn take(&self) -> Option<Arc<Shared>> {
        self.shared.lock().take()
    }
}

fn key_error(key: &Bound<'_, PyAny>) -> PyErr {
    // As one argument, though it be a tuple.
    PyKeyError::new_err((key.clone().unbind(),))
}

#[pymethods]
impl Table {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self::default()
    }

    #[pyo3(signature = (client, name, kind, mode, durability, pickle, live))]
    #[expect(
        clippy::too_many_arguments,
        reason = "it is called from one place in Python"
    )]
    fn _open(
        &self,
        py: Python<'_>,
        client: Py<Client>,
        name: Option<String>,
        kind: &str,
        mode: &str,
        durability: Option<&str>,
        pickle: bool,
        live: bool,
    ) -> PyResult<()> {
        if name.as_deref() == Some("") {
            let text = "a table's name must not be empty; without one it is temporary";
            return Err(errors::raise(py, "UsageError", text));
        }
        let opened = Arc::new(Opened {
            client,
            name,
            kind: opening::kind(kind)?,
            durability: opening::durability(durability)?,
            pickle,
            live,
        });
        let shared = opened.open(py, opening::mode(mode)?)?;
        *self.opened.lock() = Some(opened);
        let before = self.shared.lock().replace(shared);
        drop(before);
        Ok(())
    }

    /// `Table[K, V]`: the types are for checkers only.
    #[classmethod]
    fn __class_getitem__<'py>(
        class: &Bound<'py, PyType>,
        _types: &Bound<'py, PyAny>,
    ) -> Bound<'py, PyType> {
        class.clone()
    }

    #[getter]
    fn _is_open(&self) -> bool {
        self.shared.lock().is_some()
    }

    /// The table's number on its server, as `stats` shows it.
    #[getter]
    fn table_id(&self, py: Python<'_>) -> PyResult<u64> {
        let shared = self.shared(py)?;
        Ok(shared.table(py)?.table_id())
    }

    fn __getitem__<'py>(
        slf: &Bound<'py, Self>,
        key: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let shared = slf.get().shared(py)?;
        match shared.get(py, shared.key(key)?)? {
            Some(value) => Ok(value),
            None => match slf.getattr_opt(intern!(py, "__missing__"))? {
                Some(missing) => missing.call1((key,)),
                None => Err(key_error(key)),
            },
        }
    }

    fn __setitem__(
        &self,
        py: Python<'_>,
        key: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let shared = self.shared(py)?;
        shared.set(py, shared.key(key)?, value)
    }

    fn __delitem__(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<()> {
        let shared = self.shared(py)?;
        if shared.remove(py, shared.key(key)?)? {
            Ok(())
        } else {
            Err(key_error(key))
        }
    }

    fn __contains__(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<bool> {
        let shared = self.shared(py)?;
        shared.contains(py, shared.key(key)?)
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        let count = self.shared(py)?.len(py)?;
        usize::try_from(count).map_err(|_too_many| PyValueError::new_err("too many entries"))
    }

    fn __bool__(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(!self.shared(py)?.is_empty(py)?)
    }

    fn __iter__(&self, py: Python<'_>) -> PyResult<Scan> {
        Scan::begin(py, self.shared(py)?, Gives::Keys)
    }

    fn _scan_values(&self, py: Python<'_>) -> PyResult<Scan> {
        Scan::begin(py, self.shared(py)?, Gives::Values)
    }

    fn _scan_items(&self, py: Python<'_>) -> PyResult<Scan> {
        Scan::begin(py, self.shared(py)?, Gives::Items)
    }

    /// The value of a key, or `default` where there is none.
    ///
    /// >>> with RHash() as h:
    /// ...     h["k"] = 1
    /// ...     h.get("k"), h.get("none"), h.get("none", 0)
    /// (1, None, 0)
    #[pyo3(signature = (key, default=None, /))]
    fn get<'py>(
        &self,
        py: Python<'py>,
        key: &Bound<'py, PyAny>,
        default: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let shared = self.shared(py)?;
        Ok(shared.get(py, shared.key(key)?)?.or(default))
    }

    /// What the cache knows of a key, as a tuple of its value or of nothing; else nothing, and the
    /// server has to be asked. Never waits.
    fn _try_get<'py>(
        &self,
        py: Python<'py>,
        key: &Bound<'py, PyAny>,
    ) -> PyResult<Option<Bound<'py, PyTuple>>> {
        let shared = self.shared(py)?;
        match shared.get_cached(py, shared.key(key)?)? {
            None => Ok(None),
            Some(None) => Ok(Some(PyTuple::empty(py))),
            Some(Some(value)) => PyTuple::new(py, [value]).map(Some),
        }
    }

    /// Sets the value of a key if the cache has room at once; gives whether it had. Never waits.
    fn _try_set(
        &self,
        py: Python<'_>,
        key: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
    ) -> PyResult<bool> {
        let shared = self.shared(py)?;
        shared.set_cached(py, shared.key(key)?, value)
    }

    /// Removes an entry and gives its value; without one gives `default`, or raises KeyError.
    ///
    /// >>> with RHash() as h:
    /// ...     h["k"] = 1
    /// ...     h.pop("k"), h.pop("k", "gone")
    /// (1, 'gone')
    #[pyo3(signature = (key, *default))]
    fn pop<'py>(
        &self,
        py: Python<'py>,
        key: &Bound<'py, PyAny>,
        default: &Bound<'py, PyTuple>,
    ) -> PyResult<Bound<'py, PyAny>> {
        if default.len() > 1 {
            let text = format!(
                "pop expected at most 2 arguments, got {}",
                default.len() + 1
            );
            return Err(PyTypeError::new_err(text));
        }
        let shared = self.shared(py)?;
        match shared.pop(py, shared.key(key)?)? {
            Some(value) => Ok(value),
            None => default.get_item(0).map_err(|_none| key_error(key)),
        }
    }

    /// Removes some entry and gives its key and value; KeyError if there is none.
    ///
    /// >>> with RHash() as h:
    /// ...     h["k"] = 1
    /// ...     h.popitem(), len(h)
    /// (('k', 1), 0)
    fn popitem<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
        match self.shared(py)?.pop_any(py)? {
            Some(entry) => Ok(entry),
            None => Err(PyKeyError::new_err("popitem(): the table is empty")),
        }
    }

    /// The value of a key, which is set to `default` first if it has none. The server decides.
    ///
    /// >>> with RHash() as h:
    /// ...     h.setdefault("k", []).append(1)
    /// ...     h.setdefault("k", []).append(2)
    /// ...     h["k"]
    /// [1, 2]
    #[pyo3(signature = (key, default=None, /))]
    fn setdefault<'py>(
        &self,
        py: Python<'py>,
        key: &Bound<'py, PyAny>,
        default: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let shared = self.shared(py)?;
        let default = default.unwrap_or_else(|| py.None().into_bound(py));
        shared.set_default(py, shared.key(key)?, &default)
    }

    /// The values of several keys in their order, with `default` for those that are missing.
    ///
    /// >>> with RHash() as h:
    /// ...     h.update(a=1, b=2)
    /// ...     h.get_many(["b", "none", "a"], 0)
    /// [2, 0, 1]
    #[pyo3(signature = (keys, default=None))]
    fn get_many<'py>(
        &self,
        py: Python<'py>,
        keys: &Bound<'py, PyAny>,
        default: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let default = default.unwrap_or_else(|| py.None().into_bound(py));
        let values = self.shared(py)?.get_many(keys, &default)?;
        Ok(values.into_any())
    }

    /// Sets all entries of a mapping, or of an iterable of pairs.
    ///
    /// >>> with RHash() as h:
    /// ...     h.set_many((n, n * n) for n in range(4))
    /// ...     sorted(h.items())
    /// [(0, 0), (1, 1), (2, 4), (3, 9)]
    fn set_many(&self, py: Python<'_>, entries: &Bound<'_, PyAny>) -> PyResult<()> {
        self.shared(py)?.set_many(py, entries)
    }

    /// Removes an entry, if there is one, without asking the server.
    ///
    /// >>> with RHash() as h:
    /// ...     h.discard("none")
    fn discard(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<()> {
        let shared = self.shared(py)?;
        shared.discard(py, shared.key(key)?)
    }

    /// Adds an item to the end of a key's list, which is not read for it; a table of lists only.
    ///
    /// >>> with RHash(kind="lists") as h:
    /// ...     h.append("k", 1)
    /// ...     h.append("k", "two")
    /// ...     h["k"]
    /// [1, 'two']
    fn append(
        &self,
        py: Python<'_>,
        key: &Bound<'_, PyAny>,
        item: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let shared = self.shared(py)?;
        let items = PyTuple::new(py, [item])?;
        shared.append(py, shared.key(key)?, &items)
    }

    /// Adds items to the end of a key's list, which is not read for it; a table of lists only.
    ///
    /// >>> with RHash(kind="lists") as h:
    /// ...     h.append_many("k", [1, 2])
    /// ...     h["k"]
    /// [1, 2]
    fn append_many(
        &self,
        py: Python<'_>,
        key: &Bound<'_, PyAny>,
        items: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let shared = self.shared(py)?;
        shared.append(py, shared.key(key)?, items)
    }

    /// Adds to a key's counter, which is not read for it; a table of counters only.
    ///
    /// >>> with RHash(kind="counters") as h:
    /// ...     h.add("k")
    /// ...     h.add("k", 41)
    /// ...     h["k"]
    /// 42
    #[pyo3(signature = (key, delta=1))]
    fn add(&self, py: Python<'_>, key: &Bound<'_, PyAny>, delta: i64) -> PyResult<()> {
        let shared = self.shared(py)?;
        shared.add(py, shared.key(key)?, delta)
    }

    /// Adds to a key's counter on the server and gives what it is after that.
    ///
    /// >>> with RHash(kind="counters") as h:
    /// ...     h.add_and_get("k", 5), h.add_and_get("k", -2)
    /// (5, 3)
    #[pyo3(signature = (key, delta=1))]
    fn add_and_get(&self, py: Python<'_>, key: &Bound<'_, PyAny>, delta: i64) -> PyResult<i64> {
        let shared = self.shared(py)?;
        shared.add_and_get(py, shared.key(key)?, delta)
    }

    /// Sets a key to `new` if it is `expected`, each a tuple of one value, or of none for no entry.
    fn _compare_and_swap(
        &self,
        py: Python<'_>,
        key: &Bound<'_, PyAny>,
        expected: &Bound<'_, PyTuple>,
        new: &Bound<'_, PyTuple>,
    ) -> PyResult<bool> {
        let shared = self.shared(py)?;
        let (expected, new) = (expected.get_item(0).ok(), new.get_item(0).ok());
        shared.compare_and_swap(py, shared.key(key)?, expected.as_ref(), new.as_ref())
    }

    /// Removes all entries, for everybody.
    fn clear(&self, py: Python<'_>) -> PyResult<()> {
        self.shared(py)?.clear(py)
    }

    /// Sends what is cached, and waits until the server has it: then others see it.
    fn flush(&self, py: Python<'_>) -> PyResult<()> {
        self.shared(py)?.flush(py)
    }

    /// Sets all entries in another table of this kind, as encoded.
    fn _copy_to(&self, py: Python<'_>, target: &Bound<'_, Self>) -> PyResult<()> {
        let (from, to) = (self.shared(py)?, target.get().shared(py)?);
        from.copy_to(py, &to)
    }

    /// Frees the table for everybody; a handle that is closed stays so.
    fn _close(&self, py: Python<'_>) -> PyResult<()> {
        let Some(shared) = self.take() else {
            return Ok(());
        };
        shared.forget(py);
        if !shared.is_ours() {
            return Ok(());
        }
        shared.ask(py, |table| table.close())
    }

    /// Lets go of the table without its server, if that is away and nothing waits for it; says whether it did.
    /// Only for a process that ends: what the table is made of is never dropped.
    fn _abandon(&self, py: Python<'_>) -> PyResult<bool> {
        let shared = self.shared(py)?;
        let is_named = self
            .opened
            .lock()
            .as_ref()
            .is_some_and(|opened| opened.name.is_some());
        if is_named {
            shared.settle(py)?;
        }
        let table = shared.table(py)?;
        if !table.is_away() || (is_named && table.has_pending()) {
            return Ok(false);
        }
        shared.forget(py);
        drop(self.take());
        // IMPORTANT: the last drop would wait for the server to be told.
        std::mem::forget(shared);
        Ok(true)
    }

    /// Sends what is cached and lets go of the table; a handle that is closed stays so.
    fn _detach(&self, py: Python<'_>) -> PyResult<()> {
        let Some(shared) = self.take() else {
            return Ok(());
        };
        if !shared.is_ours() {
            return Ok(());
        }
        let settled = shared.settle(py);
        let opened = self.opened.lock().clone();
        if opened.is_some_and(|opened| opened.client.get().is_closed()) {
            // It was flushed then, and its session ended: what came to change after that is lost.
            shared.forget(py);
            return settled;
        }
        let flushed = settled.and_then(|()| shared.ask(py, |table| table.flush()));
        shared.forget(py);
        // Other handles of this process, or calls of other threads, may still use it.
        if let Some(table) = Arc::into_inner(shared).and_then(Shared::into_table) {
            let detached = py.detach(move || table.detach());
            flushed?;
            return detached.map_err(|error| errors::of_client(py, &error));
        }
        flushed
    }
}
