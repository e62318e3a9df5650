//! Values to bytes.

use super::{
    super::{
        CodecError, VALUE_DEPTH_MAX,
        value::{Array, Clock, Value},
    },
    tags::{self, close_content, push_big_int, push_bytes, push_float, push_int, push_number},
};

/// What a value is encoded for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Key,
    Value,
}

/// Appends a value; it may hold others `depth` deep.
pub(super) fn push(
    value: &Value,
    role: Role,
    depth: usize,
    out: &mut Vec<u8>,
) -> Result<(), CodecError> {
    if role == Role::Key
        && let Some(equal) = value.key_form()
    {
        return push_scalar(&equal, out);
    }
    let Some(depth_left) = depth.checked_sub(1) else {
        return Err(CodecError::new(format!(
            "nested deeper than {VALUE_DEPTH_MAX}"
        )));
    };
    let each = |items: &[Value], out: &mut Vec<u8>| {
        items
            .iter()
            .try_for_each(|item| push(item, role, depth_left, out))
    };
    match value {
        Value::List(items) => {
            out.push(tags::LIST);
            push_number(out, items.len() as u64);
            each(items, out)
        }
        Value::Map(pairs) => {
            out.push(tags::MAP);
            push_number(out, pairs.len() as u64);
            push_pairs(pairs, role, depth_left, out)
        }
        Value::Tuple(items) => {
            out.push(tags::TUPLE);
            let start = out.len();
            each(items, out)?;
            close_content(out, start);
            Ok(())
        }
        Value::Set(items) if role == Role::Value => {
            out.push(tags::SET);
            push_members(items, role, depth_left, out)
        }
        Value::Set(items) | Value::FrozenSet(items) => {
            out.push(tags::FROZEN_SET);
            push_members(items, role, depth_left, out)
        }
        scalar => push_scalar(scalar, out),
    }
}

fn push_pairs(
    pairs: &[(Value, Value)],
    role: Role,
    depth: usize,
    out: &mut Vec<u8>,
) -> Result<(), CodecError> {
    if role == Role::Value {
        return pairs.iter().try_for_each(|(key, value)| {
            push(key, role, depth, out)?;
            push(value, role, depth, out)
        });
    }
    let mut encoded = Vec::with_capacity(pairs.len());
    for (key, value) in pairs {
        let mut pair = Vec::new();
        push(key, role, depth, &mut pair)?;
        push(value, role, depth, &mut pair)?;
        encoded.push(pair);
    }
    encoded.sort_unstable();
    encoded.iter().for_each(|pair| out.extend_from_slice(pair));
    Ok(())
}

fn push_members(
    items: &[Value],
    role: Role,
    depth: usize,
    out: &mut Vec<u8>,
) -> Result<(), CodecError> {
    let mut encoded = Vec::with_capacity(items.len());
    for item in items {
        let mut bytes = Vec::new();
        push(item, role, depth, &mut bytes)?;
        encoded.push(bytes);
    }
    encoded.sort_unstable();
    encoded.dedup();
    let start = out.len();
    encoded.iter().for_each(|item| out.extend_from_slice(item));
    close_content(out, start);
    Ok(())
}

fn push_scalar(value: &Value, out: &mut Vec<u8>) -> Result<(), CodecError> {
    match value {
        Value::Null => out.push(tags::NULL),
        Value::Bool(false) => out.push(tags::FALSE),
        Value::Bool(true) => out.push(tags::TRUE),
        Value::Int(number) => push_int(out, *number),
        Value::BigInt {
            negative,
            magnitude,
        } => push_big_int(out, *negative, magnitude),
        Value::Float(float) => push_float(out, *float),
        Value::Str(text) => {
            out.push(tags::STR);
            push_bytes(out, text.as_bytes());
        }
        Value::Bytes(bytes) => {
            out.push(tags::BYTES);
            push_bytes(out, bytes);
        }
        extension => return push_extension(extension, out),
    }
    Ok(())
}

fn push_extension(value: &Value, out: &mut Vec<u8>) -> Result<(), CodecError> {
    let start = out.len() + 1;
    match value {
        Value::Complex(real, imaginary) => {
            out.push(tags::COMPLEX);
            out.extend_from_slice(&real.to_le_bytes());
            out.extend_from_slice(&imaginary.to_le_bytes());
        }
        Value::Date(days) => {
            out.push(tags::DATE);
            out.extend_from_slice(&days.to_le_bytes());
        }
        Value::Time(clock) => {
            out.push(tags::TIME);
            push_clock(clock, out);
        }
        Value::DateTime(clock) => {
            out.push(tags::DATE_TIME);
            push_clock(clock, out);
        }
        Value::TimeSpan {
            days,
            seconds,
            micros,
        } => {
            out.push(tags::TIME_SPAN);
            out.extend_from_slice(&days.to_le_bytes());
            out.extend_from_slice(&seconds.to_le_bytes());
            out.extend_from_slice(&micros.to_le_bytes());
        }
        Value::Decimal(text) => {
            out.push(tags::DECIMAL);
            out.extend_from_slice(text.as_bytes());
        }
        Value::Array(array) => {
            out.push(tags::ARRAY);
            push_array(array, out);
        }
        Value::Uuid(bytes) => {
            out.push(tags::UUID);
            out.extend_from_slice(bytes);
        }
        Value::Extension { tag, payload } => {
            if !(tags::EXTENSION_FIRST..=tags::EXTENSION_LAST).contains(tag) {
                return Err(CodecError::new(format!(
                    "no extension has the tag {tag:#04x}"
                )));
            }
            out.push(*tag);
            out.extend_from_slice(payload);
        }
        _ => return Err(CodecError::new("a value that this codec has no form for")),
    }
    close_content(out, start);
    Ok(())
}

fn push_clock(clock: &Clock, out: &mut Vec<u8>) {
    out.extend_from_slice(&clock.micros.to_le_bytes());
    let fold = if clock.fold { tags::CLOCK_FOLD } else { 0 };
    let Some(zone) = &clock.zone else {
        return out.push(fold);
    };
    let iana = if zone.is_iana { tags::CLOCK_IANA } else { 0 };
    out.push(fold | tags::CLOCK_ZONE | iana);
    out.extend_from_slice(&zone.ahead_micros.to_le_bytes());
    out.extend_from_slice(zone.name.as_bytes());
}

fn push_array(array: &Array, out: &mut Vec<u8>) {
    out.push(u8::from(array.is_scalar));
    push_bytes(out, array.element.as_bytes());
    push_number(out, array.shape.len() as u64);
    array
        .shape
        .iter()
        .for_each(|length| push_number(out, *length));
    out.extend_from_slice(&array.data);
}
