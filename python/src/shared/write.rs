//! Writes: blind ones go to the cache, what depends on what is there is decided on the server, unless
//! this client is alone with the table and knows.

use bytes::Bytes;
use pyo3::{
    exceptions::PyValueError,
    intern,
    prelude::*,
    types::{PyDict, PyList},
};
use rhash_client::{
    TableKind,
    blocking::encoded::{EncodedKey, EncodedWrite},
};
use rhash_protocol::ScanWhat;

use super::Shared;
use crate::{
    errors,
    live::{Live, LiveEntry, Print},
};

impl Shared {
    /// Sets the value of a key.
    pub(crate) fn set(
        &self,
        py: Python<'_>,
        key: EncodedKey,
        value: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let encoded = self.encode(value)?;
        let Some(live) = &self.live else {
            return self.put_encoded(py, key, encoded.bytes);
        };
        let own = key.bytes().to_vec();
        if !encoded.is_mutable || !self.stays(value) {
            self.put_encoded(py, key, encoded.bytes)?;
            self.forget_key(&own);
            return Ok(());
        }
        let print = Print::of(&encoded.bytes);
        let cost = LiveEntry::cost(own.len(), encoded.bytes.len(), encoded.objects);
        self.put_encoded(py, key, encoded.bytes)?;
        self.keep_written(py, live, &own, value, print, cost)
    }

    /// Sets all entries of a mapping, or of an iterable of pairs.
    pub(crate) fn set_many(&self, py: Python<'_>, entries: &Bound<'_, PyAny>) -> PyResult<()> {
        if let Ok(dict) = entries.cast::<PyDict>() {
            // A copy: the dict may change while a write waits.
            for entry in dict.items().iter() {
                let (key, value): (Bound<'_, PyAny>, Bound<'_, PyAny>) = entry.extract()?;
                self.set(py, self.key(&key)?, &value)?;
            }
            return Ok(());
        }
        if let Some(keys) = entries.getattr_opt(intern!(py, "keys"))? {
            for key in keys.call0()?.try_iter()? {
                let key = key?;
                self.set(py, self.key(&key)?, &entries.get_item(&key)?)?;
            }
            return Ok(());
        }
        for (at, entry) in entries.try_iter()?.enumerate() {
            let entry = entry?.try_iter()?.collect::<PyResult<Vec<_>>>()?;
            let [key, value] = entry.as_slice() else {
                let text = format!("element #{at} has length {}; 2 is required", entry.len());
                return Err(PyValueError::new_err(text));
            };
            self.set(py, self.key(key)?, value)?;
        }
        Ok(())
    }

    /// Whether a value comes back as what it is: a tuple becomes a list where lists are stored.
    fn stays(&self, value: &Bound<'_, PyAny>) -> bool {
        self.kind != TableKind::Lists || value.is_instance_of::<PyList>()
    }

    /// Makes an object live that was written just now.
    fn keep_written(
        &self,
        py: Python<'_>,
        live: &Live,
        key: &[u8],
        object: &Bound<'_, PyAny>,
        print: Print,
        cost: usize,
    ) -> PyResult<()> {
        let entry = LiveEntry {
            object: object.clone().unbind(),
            print,
            epoch: self.table(py)?.epoch(),
            cost,
        };
        self.keep(py, live, key, entry)
    }

    /// Sets the value of a key if the cache has room; gives whether it had. Never waits, for tables
    /// without live values.
    pub(crate) fn set_cached(
        &self,
        py: Python<'_>,
        key: EncodedKey,
        value: &Bound<'_, PyAny>,
    ) -> PyResult<bool> {
        let encoded = self.encode(value)?;
        let table = self.table(py)?;
        table
            .check_value(encoded.bytes.len())
            .and_then(|()| table.write_cached(&key, EncodedWrite::put(encoded.bytes)))
            .map(|back| back.is_none())
            .map_err(|error| errors::of_client(py, &error))
    }

    pub(super) fn put_encoded(
        &self,
        py: Python<'_>,
        key: EncodedKey,
        bytes: Vec<u8>,
    ) -> PyResult<()> {
        self.table(py)?
            .check_value(bytes.len())
            .map_err(|error| errors::of_client(py, &error))?;
        self.write(py, key, EncodedWrite::put(bytes))
    }

    fn write(&self, py: Python<'_>, key: EncodedKey, write: EncodedWrite) -> PyResult<()> {
        let cached = self.table(py)?.write_cached(&key, write);
        match cached.map_err(|error| errors::of_client(py, &error))? {
            None => Ok(()),
            Some(back) => self.ask(py, |table| table.write(key, back)),
        }
    }

    /// Removes an entry, if there is one; blind.
    pub(crate) fn discard(&self, py: Python<'_>, key: EncodedKey) -> PyResult<()> {
        let own = key.bytes().to_vec();
        self.write(py, key, EncodedWrite::discard())?;
        self.forget_key(&own);
        Ok(())
    }

    /// Removes an entry and gives what was there, encoded, and its object if that was live.
    fn take(
        &self,
        py: Python<'_>,
        key: EncodedKey,
    ) -> PyResult<Option<(Bytes, Option<Py<PyAny>>)>> {
        let live = self.settle_key(py, key.bytes())?;
        let table = self.table(py)?;
        // Only this client has the table: what it knows is so.
        let known = match table.epoch() {
            Some(_) => table.get_cached(&key),
            None => Ok(None),
        };
        let taken = match known.map_err(|error| errors::of_client(py, &error))? {
            Some(None) => None,
            Some(Some(bytes)) => {
                self.write(py, key, EncodedWrite::discard())?;
                Some(bytes)
            }
            None => self.ask(py, |table| table.remove(key))?,
        };
        Ok(taken.map(|bytes| {
            // Another client may have changed the entry since its object was made.
            let same = live.filter(|(_, print)| *print == Print::of(&bytes));
            (bytes, same.map(|(object, _)| object))
        }))
    }

    /// Removes an entry; gives whether there was one.
    pub(crate) fn remove(&self, py: Python<'_>, key: EncodedKey) -> PyResult<bool> {
        Ok(self.take(py, key)?.is_some())
    }

    /// Removes an entry and gives the value that was there, which is not live any more.
    pub(crate) fn pop<'py>(
        &self,
        py: Python<'py>,
        key: EncodedKey,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        match self.take(py, key)? {
            None => Ok(None),
            Some((_, Some(object))) => Ok(Some(object.into_bound(py))),
            Some((bytes, None)) => Ok(Some(self.decode(py, &bytes)?.0)),
        }
    }

    /// Removes some entry and gives it; none if there is none.
    pub(crate) fn pop_any<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<Option<(Bound<'py, PyAny>, Bound<'py, PyAny>)>> {
        loop {
            let next = self.pops.lock().pop();
            let Some(key) = next else {
                self.settle(py)?;
                let page = self.ask(py, |table| {
                    let mut pages = table.scan(ScanWhat::Keys);
                    pages
                        .find(|page| page.as_ref().map_or(true, |page| !page.is_empty()))
                        .transpose()
                })?;
                let Some(page) = page else {
                    return Ok(None);
                };
                *self.pops.lock() = page.into_iter().map(|entry| entry.key).collect();
                continue;
            };
            if let Some(value) = self.pop(py, self.raw_key(py, &key)?)? {
                return Ok(Some((self.decode_key(py, &key)?, value)));
            }
        }
    }

    /// The value of a key, which is set first if it has none.
    pub(crate) fn set_default<'py>(
        &self,
        py: Python<'py>,
        key: EncodedKey,
        default: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        if let Some(object) = self.look_live(py, key.bytes())? {
            return Ok(object);
        }
        let own = key.bytes().to_vec();
        let table = self.table(py)?;
        let moment = table.moment();
        let known = match moment.epoch() {
            Some(_) => table.get_cached(&key),
            None => Ok(None),
        };
        let there = match known.map_err(|error| errors::of_client(py, &error))? {
            Some(Some(bytes)) => Some(bytes),
            Some(None) => {
                self.set(py, key, default)?;
                return Ok(default.clone());
            }
            None => {
                let encoded = self.encode(default)?;
                let checked = self.table(py)?.check_value(encoded.bytes.len());
                checked.map_err(|error| errors::of_client(py, &error))?;
                let print = Print::of(&encoded.bytes);
                let cost = LiveEntry::cost(own.len(), encoded.bytes.len(), encoded.objects);
                let there = self.ask(py, |table| table.put_if_absent(key, encoded.bytes))?;
                if there.is_none()
                    && encoded.is_mutable
                    && self.stays(default)
                    && let Some(live) = &self.live
                {
                    self.keep_written(py, live, &own, default, print, cost)?;
                }
                there
            }
        };
        match there {
            Some(bytes) => self.given(py, &own, &bytes, moment),
            None => Ok(default.clone()),
        }
    }

    /// Adds items to the end of a list; blind.
    pub(crate) fn append(
        &self,
        py: Python<'_>,
        key: EncodedKey,
        items: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let bytes = self.encode_elements(items)?;
        self.settle_key(py, key.bytes())?;
        self.table(py)?
            .check_value(bytes.len())
            .map_err(|error| errors::of_client(py, &error))?;
        self.write(py, key, EncodedWrite::append(bytes))
    }

    fn check_counters(&self, py: Python<'_>) -> PyResult<()> {
        if self.kind == TableKind::Counters {
            return Ok(());
        }
        let text = "only a table of counters has additions: open it with kind=\"counters\"";
        Err(errors::raise(py, "WrongKindError", text))
    }

    /// Adds to a counter; blind.
    pub(crate) fn add(&self, py: Python<'_>, key: EncodedKey, delta: i64) -> PyResult<()> {
        self.check_counters(py)?;
        self.write(py, key, EncodedWrite::add(delta))
    }

    /// Adds to a counter and gives what it is after that.
    pub(crate) fn add_and_get(&self, py: Python<'_>, key: EncodedKey, delta: i64) -> PyResult<i64> {
        self.check_counters(py)?;
        let after = self.ask(py, |table| table.add_and_get(key, delta))?;
        match after.as_deref().map(<[u8; 8]>::try_from) {
            None => Ok(delta),
            Some(Ok(bytes)) => Ok(i64::from_le_bytes(bytes)),
            Some(Err(_)) => Err(errors::decode(py, "a counter that has not 8 bytes")),
        }
    }

    /// Sets the value of a key if it is `expected` now; gives whether it was.
    pub(crate) fn compare_and_swap(
        &self,
        py: Python<'_>,
        key: EncodedKey,
        expected: Option<&Bound<'_, PyAny>>,
        new: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<bool> {
        let encode = |value: Option<&Bound<'_, PyAny>>| {
            value
                .map(|value| self.encode(value).map(|encoded| encoded.bytes))
                .transpose()
        };
        let (expected, new) = (encode(expected)?, encode(new)?);
        self.settle_key(py, key.bytes())?;
        let swapped = self.ask(py, |table| table.compare_and_swap(key, expected, new))?;
        Ok(swapped.is_ok())
    }

    /// Sets all entries in another table of this kind, as encoded.
    pub(crate) fn copy_to(&self, py: Python<'_>, target: &Self) -> PyResult<()> {
        self.settle(py)?;
        let mut pages = self.table(py)?.scan(ScanWhat::Items);
        while let Some(page) = py.detach(|| pages.next()) {
            for entry in page.map_err(|error| errors::of_client(py, &error))? {
                let key = target.raw_key(py, &entry.key)?;
                target.put_encoded(py, key, entry.value.to_vec())?;
            }
        }
        Ok(())
    }
}
