//! Bytes of the codec `value` to Python objects, without anything in between.

use pyo3::{
    exceptions::PyValueError,
    prelude::*,
    types::{
        PyBool, PyByteArray, PyBytes, PyDict, PyFloat, PyFrozenSet, PyInt, PyList, PySet, PyString,
        PyTuple,
    },
};
use rhash_client::codec::{
    Item, VALUE_DEPTH_MAX, Value, ValueCodec,
    tags::{self, Malformed, take_bytes, take_int, take_number},
};

use crate::{errors, rare};

/// Decodes objects, and notes what the cache of live objects wants to know of them.
#[derive(Debug)]
pub(crate) struct Decoder {
    /// Whether pickled objects are read.
    pickle: bool,
    /// Whether something in what was decoded can be changed in place.
    pub(crate) is_mutable: bool,
    /// The objects that were decoded.
    pub(crate) objects: usize,
}

impl Decoder {
    pub(crate) fn new(pickle: bool) -> Self {
        Self {
            pickle,
            is_mutable: false,
            objects: 0,
        }
    }

    /// The object that all of `bytes` are.
    pub(crate) fn whole<'py>(
        &mut self,
        py: Python<'py>,
        mut bytes: &[u8],
    ) -> PyResult<Bound<'py, PyAny>> {
        let object = self.take(py, &mut bytes, VALUE_DEPTH_MAX)?;
        match bytes.len() {
            0 => Ok(object),
            left => Err(errors::decode(py, &format!("{left} bytes after a value"))),
        }
    }

    /// The list whose elements all of `bytes` are, one behind the other.
    pub(crate) fn elements<'py>(
        &mut self,
        py: Python<'py>,
        mut bytes: &[u8],
    ) -> PyResult<Bound<'py, PyList>> {
        let mut items = Vec::new();
        while !bytes.is_empty() {
            items.push(self.take(py, &mut bytes, VALUE_DEPTH_MAX)?);
        }
        self.is_mutable = true;
        PyList::new(py, items)
    }

    /// Takes one object from the front of `bytes`.
    pub(crate) fn take<'py>(
        &mut self,
        py: Python<'py>,
        bytes: &mut &[u8],
        depth: usize,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.objects += 1;
        let short = |_malformed: Malformed| errors::decode(py, "the end inside a value");
        let Some((&tag, rest)) = bytes.split_first() else {
            return Err(errors::decode(py, "the end inside a value"));
        };
        let whole = *bytes;
        *bytes = rest;
        Ok(match tag {
            tags::NULL => py.None().into_bound(py),
            tags::FALSE => PyBool::new(py, false).to_owned().into_any(),
            tags::TRUE => PyBool::new(py, true).to_owned().into_any(),
            tags::INT => {
                let number = take_int(bytes).map_err(short)?;
                number.into_pyobject(py)?.into_any()
            }
            tags::BIG_INT => self.take_big(py, bytes)?,
            tags::FLOAT => {
                let Some((float, rest)) = bytes.split_first_chunk() else {
                    return Err(errors::decode(py, "the end inside a value"));
                };
                *bytes = rest;
                PyFloat::new(py, f64::from_le_bytes(*float)).into_any()
            }
            tags::STR => PyString::from_bytes(py, take_bytes(bytes).map_err(short)?)?.into_any(),
            tags::BYTES => PyBytes::new(py, take_bytes(bytes).map_err(short)?).into_any(),
            tags::LIST | tags::MAP => self.take_counted(py, tag, bytes, depth)?,
            tags::EXTENSION_FIRST..=tags::EXTENSION_LAST => {
                let content = take_bytes(bytes).map_err(short)?;
                let taken = whole.get(..whole.len() - bytes.len()).unwrap_or_default();
                self.extension(py, tag, content, taken, depth)?
            }
            _ => return Err(errors::decode(py, &format!("unknown tag {tag:#04x}"))),
        })
    }

    fn take_counted<'py>(
        &mut self,
        py: Python<'py>,
        tag: u8,
        bytes: &mut &[u8],
        depth: usize,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.is_mutable = true;
        let depth = deeper(depth)?;
        let count = take_number(bytes)
            .map_err(|_malformed| errors::decode(py, "the end inside a value"))?;
        if tag == tags::LIST {
            // No more room is reserved than the bytes can fill: the count is what somebody claims.
            let mut items = Vec::with_capacity((count as usize).min(bytes.len()));
            for _ in 0..count {
                items.push(self.take(py, bytes, depth)?);
            }
            return Ok(PyList::new(py, items)?.into_any());
        }
        let dict = PyDict::new(py);
        for _ in 0..count {
            let key = self.take(py, bytes, depth)?;
            dict.set_item(key, self.take(py, bytes, depth)?)?;
        }
        Ok(dict.into_any())
    }

    fn take_big<'py>(&self, py: Python<'py>, bytes: &mut &[u8]) -> PyResult<Bound<'py, PyAny>> {
        let short = || errors::decode(py, "the end inside a value");
        let (&sign, rest) = bytes.split_first().ok_or_else(short)?;
        *bytes = rest;
        let magnitude = take_bytes(bytes).map_err(|_malformed| short())?;
        let number = py
            .get_type::<PyInt>()
            .call_method1("from_bytes", (PyBytes::new(py, magnitude), "little"))?;
        if sign == 0 { Ok(number) } else { number.neg() }
    }

    /// A value that its content fills to the last byte; `taken` is both with the tag.
    fn extension<'py>(
        &mut self,
        py: Python<'py>,
        tag: u8,
        content: &[u8],
        taken: &[u8],
        depth: usize,
    ) -> PyResult<Bound<'py, PyAny>> {
        match tag {
            tags::TUPLE => Ok(PyTuple::new(py, self.take_all(py, content, depth)?)?.into_any()),
            tags::SET => {
                self.is_mutable = true;
                Ok(PySet::new(py, self.take_all(py, content, depth)?)?.into_any())
            }
            tags::FROZEN_SET => {
                Ok(PyFrozenSet::new(py, self.take_all(py, content, depth)?)?.into_any())
            }
            tags::BYTE_ARRAY => {
                self.is_mutable = true;
                Ok(PyByteArray::new(py, content).into_any())
            }
            tags::SURROGATES => {
                PyBytes::new(py, content).call_method1("decode", ("utf-8", "surrogatepass"))
            }
            tags::PICKLE if self.pickle => {
                self.is_mutable = true;
                rare::unpickled(py, content)
            }
            tags::PICKLE => Err(errors::decode(
                py,
                "a pickled object, which is read only by a table that was opened with pickle=True",
            )),
            _ => {
                let value = <Value as Item<ValueCodec>>::decode(taken)
                    .map_err(|error| errors::decode(py, &error.to_string()))?;
                self.is_mutable |= matches!(&value, Value::Array(array) if !array.is_scalar);
                rare::object_of(py, &value)
            }
        }
    }

    fn take_all<'py>(
        &mut self,
        py: Python<'py>,
        mut content: &[u8],
        depth: usize,
    ) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let depth = deeper(depth)?;
        let mut items = Vec::new();
        while !content.is_empty() {
            items.push(self.take(py, &mut content, depth)?);
        }
        Ok(items)
    }
}

fn deeper(depth: usize) -> PyResult<usize> {
    depth
        .checked_sub(1)
        .ok_or_else(|| PyValueError::new_err(format!("nested deeper than {VALUE_DEPTH_MAX}")))
}
