//! Python objects to bytes of the codec `value`, without anything in between.

use pyo3::{
    exceptions::{PyTypeError, PyValueError},
    prelude::*,
    types::{
        PyBool, PyByteArray, PyBytes, PyComplex, PyDict, PyFloat, PyFrozenSet, PyInt, PyList,
        PySet, PyString, PyTuple,
    },
};
use rhash_client::codec::{
    Item, VALUE_DEPTH_MAX, Value, ValueCodec,
    tags::{self, close_content, push_bytes, push_float, push_int, push_number},
};

use crate::rare;

/// Encodes objects, and notes what the cache of live objects wants to know of them.
#[derive(Debug)]
pub(crate) struct Encoder {
    /// Whether objects of other types are pickled.
    pickle: bool,
    /// Whether something in what was encoded can be changed in place.
    pub(crate) is_mutable: bool,
    /// The objects that were encoded.
    pub(crate) objects: usize,
}

/// What is encoded: keys that are equal get the same bytes, values keep their types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Key,
    Value,
}

impl Encoder {
    pub(crate) fn new(pickle: bool) -> Self {
        Self {
            pickle,
            is_mutable: false,
            objects: 0,
        }
    }

    /// Appends a key.
    pub(crate) fn key(&mut self, key: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> PyResult<()> {
        self.push(key, Role::Key, VALUE_DEPTH_MAX, out)
    }

    /// Appends a value.
    pub(crate) fn value(&mut self, value: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> PyResult<()> {
        self.push(value, Role::Value, VALUE_DEPTH_MAX, out)
    }

    /// Appends the elements of a list, one behind the other, as a table of lists has them.
    pub(crate) fn elements(&mut self, items: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> PyResult<()> {
        self.is_mutable = true;
        for item in items.try_iter()? {
            self.value(&item?, out)?;
        }
        Ok(())
    }

    fn push(
        &mut self,
        object: &Bound<'_, PyAny>,
        role: Role,
        depth: usize,
        out: &mut Vec<u8>,
    ) -> PyResult<()> {
        self.objects += 1;
        if let Ok(text) = object.cast_exact::<PyString>() {
            return push_text(text, out);
        }
        if let Ok(bytes) = object.cast_exact::<PyBytes>() {
            out.push(tags::BYTES);
            push_bytes(out, bytes.as_bytes());
            return Ok(());
        }
        if let Ok(number) = object.cast_exact::<PyInt>() {
            return push_whole(number, out);
        }
        if let Ok(float) = object.cast_exact::<PyFloat>() {
            let float = float.value();
            if role == Role::Key {
                return push_normal(&Value::Float(float), out);
            }
            push_float(out, float);
            return Ok(());
        }
        if object.is_none() {
            out.push(tags::NULL);
            return Ok(());
        }
        if let Ok(truth) = object.cast_exact::<PyBool>() {
            match (role, truth.is_true()) {
                (Role::Key, truth) => push_int(out, i64::from(truth)),
                (Role::Value, false) => out.push(tags::FALSE),
                (Role::Value, true) => out.push(tags::TRUE),
            }
            return Ok(());
        }
        if let Ok(tuple) = object.cast_exact::<PyTuple>() {
            return self.push_tuple(tuple, role, depth, out);
        }
        match role {
            Role::Key => self.push_other_key(object, depth, out),
            Role::Value => self.push_container(object, depth, out),
        }
    }

    fn push_tuple(
        &mut self,
        tuple: &Bound<'_, PyTuple>,
        role: Role,
        depth: usize,
        out: &mut Vec<u8>,
    ) -> PyResult<()> {
        let depth = deeper(depth)?;
        out.push(tags::TUPLE);
        let start = out.len();
        for item in tuple.iter_borrowed() {
            self.push(&item, role, depth, out)?;
        }
        close_content(out, start);
        Ok(())
    }

    fn push_container(
        &mut self,
        object: &Bound<'_, PyAny>,
        depth: usize,
        out: &mut Vec<u8>,
    ) -> PyResult<()> {
        if let Ok(list) = object.cast_exact::<PyList>() {
            self.is_mutable = true;
            let depth = deeper(depth)?;
            out.push(tags::LIST);
            push_number(out, list.len() as u64);
            for item in list.iter() {
                self.push(&item, Role::Value, depth, out)?;
            }
            return Ok(());
        }
        if let Ok(dict) = object.cast_exact::<PyDict>() {
            self.is_mutable = true;
            let depth = deeper(depth)?;
            out.push(tags::MAP);
            push_number(out, dict.len() as u64);
            for (key, value) in dict.iter() {
                self.push(&key, Role::Value, depth, out)?;
                self.push(&value, Role::Value, depth, out)?;
            }
            return Ok(());
        }
        if object.is_exact_instance_of::<PySet>() {
            self.is_mutable = true;
            out.push(tags::SET);
            return self.push_members(object, Role::Value, depth, out);
        }
        if object.is_exact_instance_of::<PyFrozenSet>() {
            out.push(tags::FROZEN_SET);
            return self.push_members(object, Role::Value, depth, out);
        }
        if let Ok(bytes) = object.cast_exact::<PyByteArray>() {
            self.is_mutable = true;
            out.push(tags::BYTE_ARRAY);
            push_bytes(out, &bytes.to_vec());
            return Ok(());
        }
        self.push_rare(object, Role::Value, out)
    }

    /// The members of a set, in the order of their bytes.
    fn push_members(
        &mut self,
        set: &Bound<'_, PyAny>,
        role: Role,
        depth: usize,
        out: &mut Vec<u8>,
    ) -> PyResult<()> {
        let depth = deeper(depth)?;
        let mut members = Vec::new();
        for member in set.try_iter()? {
            let mut bytes = Vec::new();
            self.push(&member?, role, depth, &mut bytes)?;
            members.push(bytes);
        }
        members.sort_unstable();
        members.dedup();
        let start = out.len();
        members
            .iter()
            .for_each(|member| out.extend_from_slice(member));
        close_content(out, start);
        Ok(())
    }

    /// A key that is no plain text, number, bytes or tuple.
    fn push_other_key(
        &mut self,
        key: &Bound<'_, PyAny>,
        depth: usize,
        out: &mut Vec<u8>,
    ) -> PyResult<()> {
        // Raises the TypeError of a dict for what cannot be a key.
        key.hash()?;
        if key.is_exact_instance_of::<PyFrozenSet>() {
            out.push(tags::FROZEN_SET);
            return self.push_members(key, Role::Key, depth, out);
        }
        // What only adds to a plain type, and leaves its equality alone, is equal to it.
        if rare::compares_as::<PyString>(key)? {
            return push_text(key.cast::<PyString>()?, out);
        }
        if rare::compares_as::<PyInt>(key)? {
            return push_whole(key.cast::<PyInt>()?, out);
        }
        if rare::compares_as::<PyFloat>(key)? {
            return push_normal(&Value::Float(key.extract()?), out);
        }
        if rare::compares_as::<PyBytes>(key)? {
            out.push(tags::BYTES);
            push_bytes(out, key.cast::<PyBytes>()?.as_bytes());
            return Ok(());
        }
        if rare::compares_as::<PyTuple>(key)? {
            return self.push_tuple(key.cast::<PyTuple>()?, Role::Key, depth, out);
        }
        self.push_rare(key, Role::Key, out)
    }

    /// Types of the standard library and of numpy, and what has to be pickled.
    fn push_rare(
        &mut self,
        object: &Bound<'_, PyAny>,
        role: Role,
        out: &mut Vec<u8>,
    ) -> PyResult<()> {
        if let Ok(number) = object.cast_exact::<PyComplex>() {
            let number = Value::Complex(number.real(), number.imag());
            return push_as(&number, role, out);
        }
        if let Some(found) = rare::value_of(object, role)? {
            self.is_mutable |= found.is_mutable;
            return push_as(&found.value, role, out);
        }
        if !self.pickle {
            let name = rare::type_name(object)?;
            let what = match role {
                Role::Key => "keys",
                Role::Value => "values",
            };
            return Err(PyTypeError::new_err(format!(
                "{what} of type {name} are stored only by a table that was opened with pickle=True"
            )));
        }
        self.is_mutable = true;
        out.push(tags::PICKLE);
        push_bytes(out, rare::pickled(object)?.as_bytes());
        Ok(())
    }
}

fn deeper(depth: usize) -> PyResult<usize> {
    depth.checked_sub(1).ok_or_else(|| {
        PyValueError::new_err(format!(
            "nested deeper than {VALUE_DEPTH_MAX}, or inside of itself"
        ))
    })
}

fn push_as(value: &Value, role: Role, out: &mut Vec<u8>) -> PyResult<()> {
    match role {
        Role::Key => push_normal(value, out),
        Role::Value => <Value as Item<ValueCodec>>::encode(value, out)
            .map_err(|error| PyTypeError::new_err(error.to_string())),
    }
}

/// A key in the form of what it is equal to.
fn push_normal(value: &Value, out: &mut Vec<u8>) -> PyResult<()> {
    <Value as Item<ValueCodec>>::encode_key(value, out)
        .map_err(|error| PyTypeError::new_err(error.to_string()))
}

fn push_text(text: &Bound<'_, PyString>, out: &mut Vec<u8>) -> PyResult<()> {
    match text.to_cow() {
        Ok(utf8) => {
            out.push(tags::STR);
            push_bytes(out, utf8.as_bytes());
        }
        Err(_surrogates) => {
            let bytes = text.call_method1("encode", ("utf-8", "surrogatepass"))?;
            out.push(tags::SURROGATES);
            push_bytes(out, bytes.cast::<PyBytes>()?.as_bytes());
        }
    }
    Ok(())
}

fn push_whole(number: &Bound<'_, PyInt>, out: &mut Vec<u8>) -> PyResult<()> {
    if let Ok(small) = number.extract::<i64>() {
        push_int(out, small);
        return Ok(());
    }
    let negative = number.lt(0)?;
    let absolute = number.abs()?;
    let bits: usize = absolute.call_method0("bit_length")?.extract()?;
    let magnitude = absolute.call_method1("to_bytes", (bits.div_ceil(8), "little"))?;
    tags::push_big_int(out, negative, magnitude.cast::<PyBytes>()?.as_bytes());
    Ok(())
}
