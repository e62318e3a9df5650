//! An open table: what handles on it in this process share.
//!
//! Each method first does what needs no waiting, with the interpreter held; only what has to ask the
//! server lets go of it. No lock is held while Python runs or the server is asked.

use bytes::Bytes;
use parking_lot::Mutex;
use pyo3::{
    exceptions::{PyOverflowError, PyTypeError},
    prelude::*,
    types::{PyList, PyString, PyTuple},
};
use rhash_client::{
    TableKind,
    blocking::encoded::{EncodedKey, EncodedTable, EncodedWrite},
};
use rhash_protocol::ScanWhat;

use crate::{
    decode::Decoder,
    encode::Encoder,
    errors::{self, Failure},
    fork::Owned,
    live::{Live, LiveEntry, Print},
    trail::Trail,
};

/// Room for a usual value.
const VALUE_BYTES_USUAL: usize = 120;

/// An open table.
#[derive(Debug)]
pub(crate) struct Shared {
    table: Owned<EncodedTable>,
    pub(crate) kind: TableKind,
    pickle: bool,
    /// Live values; none where that is switched off.
    live: Option<Live>,
    trail: Mutex<Trail>,
    /// Keys that `popitem` has read ahead.
    pops: Mutex<Vec<Bytes>>,
}

/// What was encoded of a value.
struct Encoded {
    bytes: Vec<u8>,
    is_mutable: bool,
    objects: usize,
}

impl Shared {
    pub(crate) fn new(table: EncodedTable, kind: TableKind, pickle: bool, live: usize) -> Self {
        Self {
            table: Owned::new(table),
            kind,
            pickle,
            // A counter is a number: it cannot change in place.
            live: (live > 0 && kind != TableKind::Counters).then(|| Live::new(live)),
            trail: Mutex::default(),
            pops: Mutex::default(),
        }
    }

    pub(crate) fn is_ours(&self) -> bool {
        self.table.is_ours()
    }

    /// Whether another handle may be given this one.
    pub(crate) fn fits(&self, kind: TableKind, pickle: bool, live: bool) -> bool {
        let has_live = self.live.is_some() || self.kind == TableKind::Counters;
        self.is_ours() && self.kind == kind && self.pickle == pickle && has_live == live
    }

    /// Takes the table out; none in a child of the process that opened it.
    pub(crate) fn into_table(self) -> Option<EncodedTable> {
        self.table.into_inner()
    }

    pub(crate) fn table(&self, py: Python<'_>) -> PyResult<&EncodedTable> {
        self.table.get().ok_or_else(|| errors::closed(py))
    }

    /// Asks the server while others run Python.
    pub(crate) fn ask<T: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&EncodedTable) -> rhash_client::Result<T> + Send,
    ) -> PyResult<T> {
        let table = self.table(py)?;
        py.detach(|| work(table))
            .map_err(|error| errors::of_client(py, &error))
    }

    pub(crate) fn key(&self, key: &Bound<'_, PyAny>) -> PyResult<EncodedKey> {
        let py = key.py();
        let encode = |out: &mut Vec<u8>| -> Result<(), Failure> {
            Encoder::new(self.pickle)
                .key(key, out)
                .map_err(Failure::from)
        };
        self.table(py)?
            .key(encode)
            .map_err(|failure| failure.into_py(py))
    }

    pub(crate) fn raw_key(&self, py: Python<'_>, bytes: &[u8]) -> PyResult<EncodedKey> {
        let encode = |out: &mut Vec<u8>| -> Result<(), Failure> {
            out.extend_from_slice(bytes);
            Ok(())
        };
        self.table(py)?
            .key(encode)
            .map_err(|failure| failure.into_py(py))
    }

    pub(crate) fn decode_key<'py>(
        &self,
        py: Python<'py>,
        bytes: &[u8],
    ) -> PyResult<Bound<'py, PyAny>> {
        Decoder::new(self.pickle).whole(py, bytes)
    }

    fn encode(&self, value: &Bound<'_, PyAny>) -> PyResult<Encoded> {
        let mut bytes = Vec::with_capacity(VALUE_BYTES_USUAL);
        let mut encoder = Encoder::new(self.pickle);
        match self.kind {
            TableKind::Values => encoder.value(value, &mut bytes)?,
            TableKind::Lists => {
                if !value.is_instance_of::<PyList>() && !value.is_instance_of::<PyTuple>() {
                    return Err(PyTypeError::new_err("a table of lists holds lists"));
                }
                encoder.elements(value, &mut bytes)?;
            }
            TableKind::Counters => {
                let number: i64 = value.extract().map_err(|error: PyErr| {
                    let py = value.py();
                    if error.is_instance_of::<PyOverflowError>(py) {
                        PyOverflowError::new_err("a counter has 64 bits")
                    } else {
                        PyTypeError::new_err("a table of counters holds whole numbers")
                    }
                })?;
                bytes.extend_from_slice(&number.to_le_bytes());
            }
        }
        Ok(Encoded {
            bytes,
            is_mutable: encoder.is_mutable,
            objects: encoder.objects,
        })
    }

    /// The elements of a list, encoded for an append.
    fn encode_elements(&self, items: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
        if self.kind != TableKind::Lists {
            let text = "only a table of lists has appends: open it with kind=\"lists\"";
            return Err(errors::raise(items.py(), "WrongKindError", text));
        }
        if items.is_instance_of::<PyString>() {
            return Err(PyTypeError::new_err(
                "append_many takes a list of items, not a string",
            ));
        }
        let mut bytes = Vec::with_capacity(VALUE_BYTES_USUAL);
        Encoder::new(self.pickle).elements(items, &mut bytes)?;
        Ok(bytes)
    }

    /// An object from its bytes, which is live from now on if it can change.
    pub(crate) fn decode<'py>(
        &self,
        py: Python<'py>,
        key: &[u8],
        bytes: &[u8],
    ) -> PyResult<Bound<'py, PyAny>> {
        let mut decoder = Decoder::new(self.pickle);
        let object = match self.kind {
            TableKind::Values => decoder.whole(py, bytes)?,
            TableKind::Lists => decoder.elements(py, bytes)?.into_any(),
            TableKind::Counters => match bytes.try_into() {
                Ok(bytes) => i64::from_le_bytes(bytes).into_pyobject(py)?.into_any(),
                Err(_) => return Err(errors::decode(py, "a counter that has not 8 bytes")),
            },
        };
        if decoder.is_mutable
            && let Some(live) = &self.live
        {
            let cost = LiveEntry::cost(key.len(), bytes.len(), decoder.objects);
            self.keep(py, live, key, &object, Print::of(bytes), cost)?;
        }
        Ok(object)
    }

    /// Makes an object live.
    fn keep(
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
        for (key, gone) in live.put(key, entry) {
            self.write_back(py, live, &key, &gone)?;
        }
        Ok(())
    }

    /// Writes a live value if it changed; gives whether it did.
    fn write_back(
        &self,
        py: Python<'_>,
        live: &Live,
        key: &[u8],
        entry: &LiveEntry,
    ) -> PyResult<bool> {
        let encoded = self.encode(entry.object.bind(py))?;
        let print = Print::of(&encoded.bytes);
        if print == entry.print {
            return Ok(false);
        }
        self.put_encoded(py, self.raw_key(py, key)?, encoded.bytes)?;
        live.agreed(key, &entry.object, print, self.table(py)?.epoch());
        Ok(true)
    }

    /// Writes what changed in live values.
    pub(crate) fn settle(&self, py: Python<'_>) -> PyResult<()> {
        let Some(live) = &self.live else {
            return Ok(());
        };
        if live.is_empty() || !self.is_ours() {
            return Ok(());
        }
        for (key, entry) in live.all(py) {
            self.write_back(py, live, &key, &entry)?;
        }
        Ok(())
    }

    /// Writes what changed in the live value of a key, and forgets it: what follows goes past it.
    fn settle_key(&self, py: Python<'_>, key: &[u8]) -> PyResult<()> {
        if let Some(live) = &self.live
            && let Some(entry) = live.remove(key)
        {
            self.write_back(py, live, key, &entry)?;
        }
        Ok(())
    }

    /// The live value of a key, unless the table's may be another by now.
    fn look_live<'py>(&self, py: Python<'py>, key: &[u8]) -> PyResult<Option<Bound<'py, PyAny>>> {
        let Some(live) = &self.live else {
            return Ok(None);
        };
        let Some(entry) = live.get(py, key) else {
            return Ok(None);
        };
        let is_current = entry.epoch.is_some() && entry.epoch == self.table(py)?.epoch();
        // What this process changed is its own write, which it reads.
        if is_current || self.write_back(py, live, key, &entry)? {
            return Ok(Some(entry.object.into_bound(py)));
        }
        live.remove(key);
        Ok(None)
    }

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
        let cached = table.get_cached(&key);
        let value = match cached.map_err(|error| errors::of_client(py, &error))? {
            Some(known) => known,
            None => return self.get_remote(py, key),
        };
        match value {
            Some(bytes) => self.decode(py, key.bytes(), &bytes).map(Some),
            None => Ok(None),
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
                .decode(py, key.bytes(), &bytes)
                .map(|value| Some(Some(value))),
        }
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

    fn get_remote<'py>(
        &self,
        py: Python<'py>,
        key: EncodedKey,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let own = Bytes::copy_from_slice(key.bytes());
        let run = match self.table(py)?.epoch() {
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
                let mut values = self.ask(py, |table| table.get_many(keys))?;
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
        match value {
            Some(bytes) => self.decode(py, &own, &bytes).map(Some),
            None => Ok(None),
        }
    }

    /// The values of several keys, in their order.
    pub(crate) fn get_many<'py>(
        &self,
        py: Python<'py>,
        keys: &Bound<'py, PyAny>,
        default: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyList>> {
        let mut encoded = Vec::new();
        for key in keys.try_iter()? {
            let key = self.key(&key?)?;
            if let Some(live) = &self.live
                && let Some(entry) = live.get(py, key.bytes())
            {
                self.write_back(py, live, key.bytes(), &entry)?;
            }
            encoded.push(key);
        }
        let raw: Vec<Vec<u8>> = match &self.live {
            Some(_) => encoded.iter().map(|key| key.bytes().to_vec()).collect(),
            None => Vec::new(),
        };
        let values = self.ask(py, |table| table.get_many(encoded))?;
        let mut objects = Vec::with_capacity(values.len());
        for (at, value) in values.iter().enumerate() {
            let key = raw.get(at).map(Vec::as_slice).unwrap_or_default();
            objects.push(match value {
                None => default.clone(),
                Some(bytes) => match self.look_live(py, key)? {
                    Some(object) => object,
                    None => self.decode(py, key, bytes)?,
                },
            });
        }
        PyList::new(py, objects)
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
        if !encoded.is_mutable {
            let old = live.remove(key.bytes());
            self.put_encoded(py, key, encoded.bytes)?;
            drop(old);
            return Ok(());
        }
        let own = key.bytes().to_vec();
        let print = Print::of(&encoded.bytes);
        let cost = LiveEntry::cost(own.len(), encoded.bytes.len(), encoded.objects);
        // A tuple becomes a list where lists are stored, and comes back as one.
        let stays = self.kind != TableKind::Lists || value.is_instance_of::<PyList>();
        self.put_encoded(py, key, encoded.bytes)?;
        if stays {
            self.keep(py, live, &own, value, print, cost)
        } else {
            drop(live.remove(&own));
            Ok(())
        }
    }

    fn put_encoded(&self, py: Python<'_>, key: EncodedKey, bytes: Vec<u8>) -> PyResult<()> {
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
        if let Some(live) = &self.live {
            drop(live.remove(key.bytes()));
        }
        self.write(py, key, EncodedWrite::discard())
    }

    /// Removes an entry and gives what was there, encoded, and its object if that was live.
    fn take(
        &self,
        py: Python<'_>,
        key: EncodedKey,
    ) -> PyResult<Option<(Bytes, Option<Py<PyAny>>)>> {
        let own = key.bytes().to_vec();
        let live = match &self.live {
            Some(live) => live.get(py, &own),
            None => None,
        };
        self.settle_key(py, &own)?;
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
        Ok(taken.map(|bytes| (bytes, live.map(|entry| entry.object))))
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
        let own = key.bytes().to_vec();
        match self.take(py, key)? {
            None => Ok(None),
            Some((_, Some(object))) => Ok(Some(object.into_bound(py))),
            Some((bytes, None)) => {
                let object = self.decode(py, &own, &bytes)?;
                if let Some(live) = &self.live {
                    drop(live.remove(&own));
                }
                Ok(Some(object))
            }
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
        let known = match table.epoch() {
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
                    && let Some(live) = &self.live
                {
                    self.keep(py, live, &own, default, print, cost)?;
                }
                there
            }
        };
        match there {
            Some(bytes) => self.decode(py, &own, &bytes),
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

    pub(crate) fn len(&self, py: Python<'_>) -> PyResult<u64> {
        self.settle(py)?;
        self.ask(py, EncodedTable::len)
    }

    pub(crate) fn is_empty(&self, py: Python<'_>) -> PyResult<bool> {
        self.settle(py)?;
        self.ask(py, EncodedTable::is_empty)
    }

    pub(crate) fn clear(&self, py: Python<'_>) -> PyResult<()> {
        self.forget(py);
        self.ask(py, EncodedTable::clear)
    }

    pub(crate) fn flush(&self, py: Python<'_>) -> PyResult<()> {
        self.settle(py)?;
        self.ask(py, EncodedTable::flush)
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

    /// Forgets what was read ahead or is live.
    pub(crate) fn forget(&self, _py: Python<'_>) {
        if let Some(live) = &self.live {
            live.clear();
        }
        self.pops.lock().clear();
        *self.trail.lock() = Trail::default();
    }

    /// Remembers the keys of a page that an iteration gave.
    pub(crate) fn remember(&self, page: Vec<Bytes>) {
        self.trail.lock().push(page);
    }

    /// A value that an iteration gave: the live one, if there is one.
    pub(crate) fn iterated<'py>(
        &self,
        py: Python<'py>,
        key: &[u8],
        bytes: &[u8],
    ) -> PyResult<Bound<'py, PyAny>> {
        if let Some(live) = &self.live
            && !live.is_empty()
            && let Some(object) = self.look_live(py, key)?
        {
            return Ok(object);
        }
        self.decode(py, key, bytes)
    }
}
