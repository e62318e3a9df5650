//! Bytes to values.

use super::{
    super::{
        CodecError, VALUE_DEPTH_MAX,
        value::{Array, Clock, Value, Zone},
    },
    tags::{self, Malformed, take_bytes, take_int, take_number},
};

/// Takes one value from the front of `bytes`; it may hold others `depth` deep.
pub(super) fn take(bytes: &mut &[u8], depth: usize) -> Result<Value, CodecError> {
    let tag = take_byte(bytes)?;
    Ok(match tag {
        tags::NULL => Value::Null,
        tags::FALSE => Value::Bool(false),
        tags::TRUE => Value::Bool(true),
        tags::INT => Value::Int(take_int(bytes).map_err(short)?),
        tags::BIG_INT => {
            let sign = take_byte(bytes)?;
            let magnitude = take_bytes(bytes).map_err(short)?;
            Value::whole(sign != 0, magnitude.to_vec())
        }
        tags::FLOAT => Value::Float(f64::from_le_bytes(take_array(bytes)?)),
        tags::STR => Value::Str(text(take_bytes(bytes).map_err(short)?)?),
        tags::BYTES => Value::Bytes(take_bytes(bytes).map_err(short)?.to_vec()),
        tags::LIST | tags::MAP => take_counted(tag, bytes, depth)?,
        tags::EXTENSION_FIRST..=tags::EXTENSION_LAST => {
            extension(tag, take_bytes(bytes).map_err(short)?, depth)?
        }
        _ => return Err(CodecError::new(format!("unknown tag {tag:#04x}"))),
    })
}

fn take_counted(tag: u8, bytes: &mut &[u8], depth: usize) -> Result<Value, CodecError> {
    let depth = deeper(depth)?;
    let count = take_number(bytes).map_err(|_malformed| CodecError::new("a count cut short"))?;
    // No room is reserved by the count: it is what the sender claims.
    if tag == tags::LIST {
        let mut items = Vec::new();
        for _ in 0..count {
            items.push(take(bytes, depth)?);
        }
        return Ok(Value::List(items));
    }
    let mut pairs = Vec::new();
    for _ in 0..count {
        pairs.push((take(bytes, depth)?, take(bytes, depth)?));
    }
    Ok(Value::Map(pairs))
}

/// A value that its content fills to the last byte.
fn extension(tag: u8, content: &[u8], depth: usize) -> Result<Value, CodecError> {
    let mut rest = content;
    let bytes = &mut rest;
    let value = match tag {
        tags::TUPLE => Value::Tuple(take_all(bytes, depth)?),
        tags::SET => Value::Set(take_all(bytes, depth)?),
        tags::FROZEN_SET => Value::FrozenSet(take_all(bytes, depth)?),
        tags::COMPLEX => Value::Complex(
            f64::from_le_bytes(take_array(bytes)?),
            f64::from_le_bytes(take_array(bytes)?),
        ),
        tags::DATE => Value::Date(i32::from_le_bytes(take_array(bytes)?)),
        tags::TIME => Value::Time(take_clock(bytes)?),
        tags::DATE_TIME => Value::DateTime(take_clock(bytes)?),
        tags::TIME_SPAN => Value::TimeSpan {
            days: i32::from_le_bytes(take_array(bytes)?),
            seconds: u32::from_le_bytes(take_array(bytes)?),
            micros: u32::from_le_bytes(take_array(bytes)?),
        },
        tags::DECIMAL => Value::Decimal(text(take_rest(bytes))?),
        tags::ARRAY => Value::Array(take_elements(bytes)?),
        tags::UUID => Value::Uuid(take_array(bytes)?),
        _ => Value::Extension {
            tag,
            payload: take_rest(bytes).to_vec(),
        },
    };
    if rest.is_empty() {
        Ok(value)
    } else {
        Err(CodecError::new(format!(
            "{} bytes too many in a value with tag {tag:#04x}",
            rest.len()
        )))
    }
}

fn take_all(bytes: &mut &[u8], depth: usize) -> Result<Vec<Value>, CodecError> {
    let depth = deeper(depth)?;
    let mut items = Vec::new();
    while !bytes.is_empty() {
        items.push(take(bytes, depth)?);
    }
    Ok(items)
}

fn take_clock(bytes: &mut &[u8]) -> Result<Clock, CodecError> {
    let micros = i64::from_le_bytes(take_array(bytes)?);
    let flags = take_byte(bytes)?;
    let zone = if flags & tags::CLOCK_ZONE != 0 {
        Some(Zone {
            ahead_micros: i64::from_le_bytes(take_array(bytes)?),
            name: text(take_rest(bytes))?,
            is_iana: flags & tags::CLOCK_IANA != 0,
        })
    } else {
        None
    };
    Ok(Clock {
        micros,
        fold: flags & tags::CLOCK_FOLD != 0,
        zone,
    })
}

fn take_elements(bytes: &mut &[u8]) -> Result<Array, CodecError> {
    let is_scalar = take_byte(bytes)? != 0;
    let element = text(take_bytes(bytes).map_err(short)?)?;
    let dimensions = take_number(bytes).map_err(short)?;
    let mut shape = Vec::new();
    for _ in 0..dimensions {
        shape.push(take_number(bytes).map_err(short)?);
    }
    Ok(Array {
        element,
        shape,
        data: take_rest(bytes).to_vec(),
        is_scalar,
    })
}

fn take_byte(bytes: &mut &[u8]) -> Result<u8, CodecError> {
    let [byte] = take_array(bytes)?;
    Ok(byte)
}

fn take_array<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], CodecError> {
    let (taken, rest) = bytes
        .split_first_chunk()
        .ok_or_else(|| CodecError::new("the end inside a value"))?;
    *bytes = rest;
    Ok(*taken)
}

fn take_rest<'a>(bytes: &mut &'a [u8]) -> &'a [u8] {
    std::mem::take(bytes)
}

fn text(bytes: &[u8]) -> Result<String, CodecError> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.to_owned()),
        Err(_invalid) => Err(CodecError::new("text that is not UTF-8")),
    }
}

fn deeper(depth: usize) -> Result<usize, CodecError> {
    depth
        .checked_sub(1)
        .ok_or_else(|| CodecError::new(format!("nested deeper than {VALUE_DEPTH_MAX}")))
}

fn short(_malformed: Malformed) -> CodecError {
    CodecError::new("the end inside a value")
}
