//! Objects of the standard library and of numpy, as [`Value`]s and back; and pickling.
//!
//! These types are not known to the stable interface of Python, so they are asked by name. A type is
//! what its module says under its name, and nothing else that looks like it.

use pyo3::{
    exceptions::PyTypeError,
    intern,
    prelude::*,
    type_object::PyTypeInfo,
    types::{PyBytes, PyComplex, PyDict, PyTuple, PyType},
};
use rhash_client::codec::{Array, Clock, Value, Zone};

use crate::encode::Role;

const MICROS_A_SECOND: i64 = 1_000_000;
const SECONDS_A_DAY: i64 = 86_400;
const MICROS_A_DAY: i64 = SECONDS_A_DAY * MICROS_A_SECOND;

/// Python's number of the day 1970-01-01.
const EPOCH_ORDINAL: i32 = 719_163;

/// The protocol of pickle that all supported versions of Python write and read.
const PICKLE_PROTOCOL: u8 = 4;

/// An object of one of these types, as a value.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) value: Value,
    pub(crate) is_mutable: bool,
}

/// Whether an object's type is a subtype of `T` and leaves its equality and hash alone.
pub(crate) fn compares_as<T: PyTypeInfo>(object: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = object.py();
    if !object.is_instance_of::<T>() {
        return Ok(false);
    }
    let (own, base) = (object.get_type(), py.get_type::<T>());
    for name in [intern!(py, "__eq__"), intern!(py, "__hash__")] {
        if !own.getattr(name)?.is(&base.getattr(name)?) {
            // Slots are wrapped anew each time: equal wrappers are the same slot.
            if !own.getattr(name)?.eq(base.getattr(name)?)? {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// A type's name with its module, for messages.
pub(crate) fn type_name(object: &Bound<'_, PyAny>) -> PyResult<String> {
    Ok(object.get_type().fully_qualified_name()?.to_string())
}

/// The object as `pickle` writes it.
pub(crate) fn pickled<'py>(object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    let py = object.py();
    let bytes = py
        .import(intern!(py, "pickle"))?
        .call_method1(intern!(py, "dumps"), (object, PICKLE_PROTOCOL))?;
    Ok(bytes.cast_into::<PyBytes>()?)
}

/// The object that `pickle` wrote.
pub(crate) fn unpickled<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    py.import(intern!(py, "pickle"))?
        .call_method1(intern!(py, "loads"), (PyBytes::new(py, bytes),))
}

/// An object's value, if it has one of the types that are known here.
pub(crate) fn value_of(object: &Bound<'_, PyAny>, role: Role) -> PyResult<Option<Found>> {
    let own = object.get_type();
    let (module, name) = (own.module()?.to_string(), own.name()?.to_string());
    let value = match (module.as_str(), name.as_str()) {
        ("datetime", "datetime") if is(&own, "datetime", &name)? => date_time(object)?,
        ("datetime", "date") if is(&own, "datetime", &name)? => {
            let ordinal: i32 = object.call_method0("toordinal")?.extract()?;
            Some(Value::Date(ordinal - EPOCH_ORDINAL))
        }
        ("datetime", "time") if is(&own, "datetime", &name)? => time(object, role)?,
        ("datetime", "timedelta") if is(&own, "datetime", &name)? => Some(Value::TimeSpan {
            days: object.getattr("days")?.extract()?,
            seconds: object.getattr("seconds")?.extract()?,
            micros: object.getattr("microseconds")?.extract()?,
        }),
        ("decimal", "Decimal") if is(&own, "decimal", &name)? => {
            Some(Value::Decimal(object.str()?.to_string()))
        }
        ("uuid", "UUID") if is(&own, "uuid", &name)? => {
            Some(Value::Uuid(object.getattr("bytes")?.extract()?))
        }
        ("numpy", _) => return numpy(object, &own, role),
        _ => None,
    };
    Ok(value.map(|value| Found {
        value,
        is_mutable: false,
    }))
}

fn is(own: &Bound<'_, PyType>, module: &str, name: &str) -> PyResult<bool> {
    Ok(own.py().import(module)?.getattr(name)?.is(own))
}

fn micros_of_day(object: &Bound<'_, PyAny>) -> PyResult<i64> {
    let part = |name: &str| -> PyResult<i64> { object.getattr(name)?.extract() };
    let seconds = part("hour")? * 3600 + part("minute")? * 60 + part("second")?;
    Ok(seconds * MICROS_A_SECOND + part("microsecond")?)
}

fn date_time(object: &Bound<'_, PyAny>) -> PyResult<Option<Value>> {
    let ordinal: i32 = object.call_method0("toordinal")?.extract()?;
    let micros = i64::from(ordinal - EPOCH_ORDINAL) * MICROS_A_DAY + micros_of_day(object)?;
    Ok(clock(object, micros)?.map(Value::DateTime))
}

fn time(object: &Bound<'_, PyAny>, role: Role) -> PyResult<Option<Value>> {
    let mut clock = clock(object, micros_of_day(object)?)?;
    // A zone with rules does not say how far ahead it is without a day: such a time is equal to
    // one without a zone.
    if role == Role::Key
        && let Some(clock) = &mut clock
        && object.call_method0("utcoffset")?.is_none()
    {
        clock.zone = None;
    }
    Ok(clock.map(Value::Time))
}

/// The clock of a time; none if its zone is of a type that is not known.
fn clock(object: &Bound<'_, PyAny>, micros: i64) -> PyResult<Option<Clock>> {
    let fold = object.getattr("fold")?.extract::<u8>()? != 0;
    let of_zone = |zone| Some(Clock { micros, fold, zone });
    let zone = object.getattr("tzinfo")?;
    if zone.is_none() {
        return Ok(of_zone(None));
    }
    let ahead = object.call_method0("utcoffset")?;
    let ahead_micros = if ahead.is_none() {
        0
    } else {
        let part = |name: &str| -> PyResult<i64> { ahead.getattr(name)?.extract() };
        part("days")? * MICROS_A_DAY + part("seconds")? * MICROS_A_SECOND + part("microseconds")?
    };
    let own = zone.get_type();
    let (module, name) = (own.module()?.to_string(), own.name()?.to_string());
    let (name, is_iana) = if module == "datetime" && is(&own, "datetime", "timezone")? {
        let arguments = zone
            .call_method0("__getinitargs__")?
            .cast_into::<PyTuple>()?;
        match arguments.get_item(1) {
            Ok(name) => (name.extract()?, false),
            Err(_without_name) => (String::new(), false),
        }
    } else if module == "zoneinfo" && name == "ZoneInfo" {
        match zone.getattr("key")?.extract::<Option<String>>()? {
            Some(key) => (key, true),
            None => return Ok(None),
        }
    } else {
        return Ok(None);
    };
    Ok(of_zone(Some(Zone {
        ahead_micros,
        name,
        is_iana,
    })))
}

/// An array or a number of numpy.
fn numpy(
    object: &Bound<'_, PyAny>,
    own: &Bound<'_, PyType>,
    role: Role,
) -> PyResult<Option<Found>> {
    let py = object.py();
    let numpy = py.import(intern!(py, "numpy"))?;
    let is_array = numpy.getattr("ndarray")?.is(own);
    if !is_array && !object.is_instance(&numpy.getattr("generic")?)? {
        return Ok(None);
    }
    let element = object.getattr("dtype")?;
    let kind: String = element.getattr("kind")?.extract()?;
    // Objects are pointers, and the text of a record does not name its fields.
    if kind == "O" || kind == "V" {
        return Ok(None);
    }
    if role == Role::Key && "biufcSU".contains(&kind) {
        let plain = object.call_method0("item")?;
        if !plain.get_type().is(own) {
            let mut bytes = Vec::new();
            crate::encode::Encoder::new(false).value(&plain, &mut bytes)?;
            let value =
                <Value as rhash_client::codec::Item<rhash_client::ValueCodec>>::decode(&bytes)
                    .map_err(|error| PyTypeError::new_err(error.to_string()))?;
            return Ok(Some(Found {
                value,
                is_mutable: false,
            }));
        }
    }
    let data = object.call_method0("tobytes")?.cast_into::<PyBytes>()?;
    Ok(Some(Found {
        value: Value::Array(Array {
            element: element.getattr("str")?.extract()?,
            shape: object.getattr("shape")?.extract()?,
            data: data.as_bytes().to_vec(),
            is_scalar: !is_array,
        }),
        is_mutable: is_array,
    }))
}

/// The object that a value of these types is.
pub(crate) fn object_of<'py>(py: Python<'py>, value: &Value) -> PyResult<Bound<'py, PyAny>> {
    let datetime = || py.import(intern!(py, "datetime"));
    match value {
        Value::Complex(real, imaginary) => {
            Ok(PyComplex::from_doubles(py, *real, *imaginary).into_any())
        }
        Value::Date(days) => day(&datetime()?.getattr("date")?, i64::from(*days)),
        Value::Time(clock) => {
            let micros = clock.micros.rem_euclid(MICROS_A_DAY);
            let midnight = datetime()?.getattr("time")?.call0()?;
            with_clock(&midnight, micros, clock)
        }
        Value::DateTime(clock) => {
            let (days, micros) = (
                clock.micros.div_euclid(MICROS_A_DAY),
                clock.micros.rem_euclid(MICROS_A_DAY),
            );
            let midnight = day(&datetime()?.getattr("datetime")?, days)?;
            with_clock(&midnight, micros, clock)
        }
        Value::TimeSpan {
            days,
            seconds,
            micros,
        } => datetime()?
            .getattr("timedelta")?
            .call1((days, seconds, micros)),
        Value::Decimal(text) => py.import("decimal")?.getattr("Decimal")?.call1((text,)),
        Value::Uuid(bytes) => {
            let named = PyDict::new(py);
            named.set_item("bytes", PyBytes::new(py, bytes))?;
            py.import("uuid")?.getattr("UUID")?.call((), Some(&named))
        }
        Value::Array(array) => array_of(py, array),
        other => Err(crate::errors::decode(
            py,
            &format!("a value that Python has no type for: {other:?}"),
        )),
    }
}

fn day<'py>(class: &Bound<'py, PyAny>, days: i64) -> PyResult<Bound<'py, PyAny>> {
    class.call_method1("fromordinal", (days + i64::from(EPOCH_ORDINAL),))
}

fn with_clock<'py>(
    midnight: &Bound<'py, PyAny>,
    micros: i64,
    clock: &Clock,
) -> PyResult<Bound<'py, PyAny>> {
    let py = midnight.py();
    let seconds = micros / MICROS_A_SECOND;
    let parts = PyDict::new(py);
    parts.set_item("hour", seconds / 3600)?;
    parts.set_item("minute", seconds / 60 % 60)?;
    parts.set_item("second", seconds % 60)?;
    parts.set_item("microsecond", micros % MICROS_A_SECOND)?;
    parts.set_item("fold", u8::from(clock.fold))?;
    if let Some(zone) = &clock.zone {
        parts.set_item("tzinfo", zone_of(py, zone)?)?;
    }
    midnight.call_method("replace", (), Some(&parts))
}

fn zone_of<'py>(py: Python<'py>, zone: &Zone) -> PyResult<Bound<'py, PyAny>> {
    if zone.is_iana {
        return py
            .import("zoneinfo")?
            .getattr("ZoneInfo")?
            .call1((&zone.name,));
    }
    let datetime = py.import("datetime")?;
    let timezone = datetime.getattr("timezone")?;
    if zone.ahead_micros == 0 && zone.name.is_empty() {
        return timezone.getattr("utc");
    }
    let ahead = datetime
        .getattr("timedelta")?
        .call1((0, 0, zone.ahead_micros))?;
    if zone.name.is_empty() {
        timezone.call1((ahead,))
    } else {
        timezone.call1((ahead, &zone.name))
    }
}

fn array_of<'py>(py: Python<'py>, array: &Array) -> PyResult<Bound<'py, PyAny>> {
    let numpy = py.import(intern!(py, "numpy"))?;
    let shape = PyTuple::new(py, &array.shape)?;
    // A buffer of its own that may be changed, as any array's.
    let buffer = pyo3::types::PyByteArray::new(py, &array.data);
    let element = numpy.call_method1("dtype", (&array.element,))?;
    // Without elements there is no buffer to look at. The shape is what somebody claims: it must not
    // ask for more memory than there are bytes.
    let flat = if array.data.is_empty() {
        let is_empty =
            array.shape.contains(&0) || element.getattr("itemsize")?.extract::<u64>()? == 0;
        if !is_empty {
            return Err(crate::errors::decode(py, "an array without its elements"));
        }
        numpy.call_method1("zeros", (&shape, &element))?
    } else {
        numpy
            .call_method1("frombuffer", (buffer, &element))?
            .call_method1("reshape", (&shape,))?
    };
    if array.is_scalar {
        flat.get_item(PyTuple::empty(py))
    } else {
        Ok(flat)
    }
}
