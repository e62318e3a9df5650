//! An open table: what handles on it in this process share.
//!
//! Each method first does what needs no waiting, with the interpreter held; only what has to ask the
//! server lets go of it. No lock is held while Python runs or the server is asked.

use std::cell::Cell;

use bytes::Bytes;
use parking_lot::Mutex;
use pyo3::{
    exceptions::{PyOverflowError, PyTypeError},
    prelude::*,
    types::{PyList, PyString, PyTuple},
};
use rhash_client::{
    TableKind,
    blocking::encoded::{EncodedKey, EncodedTable},
};

mod living;
mod many;
mod read;
mod write;

use crate::{
    decode::Decoder,
    encode::Encoder,
    errors::{self, Failure},
    fork::Owned,
    live::Live,
    trail::Trail,
};

/// Room for a usual value.
const VALUE_BYTES_USUAL: usize = 120;

/// The longest value that is encoded in a buffer for all values, and copied from there.
const SCRATCH_BYTES_MAX: usize = 64 << 10;

thread_local! {
    /// That buffer. Who encodes takes it away, since Python may run and encode meanwhile.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

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
        let mut scratch = SCRATCH.take();
        scratch.clear();
        let encoded = self.encode_to(value, scratch);
        let (mut encoded, scratch) = encoded?;
        if scratch.len() > SCRATCH_BYTES_MAX {
            encoded.bytes = scratch;
        } else {
            // Its exact length: the cache keeps it for long.
            encoded.bytes = scratch.as_slice().to_vec();
            SCRATCH.set(scratch);
        }
        Ok(encoded)
    }

    /// Encodes behind what is in `bytes`, and gives them back beside all else.
    fn encode_to(
        &self,
        value: &Bound<'_, PyAny>,
        mut bytes: Vec<u8>,
    ) -> PyResult<(Encoded, Vec<u8>)> {
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
        let encoded = Encoded {
            bytes: Vec::new(),
            is_mutable: encoder.is_mutable,
            objects: encoder.objects,
        };
        Ok((encoded, bytes))
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

    /// An object from its bytes, and what its decoder noted.
    fn decode<'py>(&self, py: Python<'py>, bytes: &[u8]) -> PyResult<(Bound<'py, PyAny>, Decoder)> {
        let mut decoder = Decoder::new(self.pickle);
        let object = match self.kind {
            TableKind::Values => decoder.whole(py, bytes)?,
            TableKind::Lists => decoder.elements(py, bytes)?.into_any(),
            TableKind::Counters => match bytes.try_into() {
                Ok(bytes) => i64::from_le_bytes(bytes).into_pyobject(py)?.into_any(),
                Err(_) => return Err(errors::decode(py, "a counter that has not 8 bytes")),
            },
        };
        Ok((object, decoder))
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
}
