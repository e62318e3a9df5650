//! The codec `value`: a tag byte, then what the tag says. Shared by the command line, Python and
//! Rust, so its bytes are fixed.
//!
//! | tag | value | what follows |
//! |---|---|---|
//! | 00 | null | |
//! | 01 | false | |
//! | 02 | true | |
//! | 03 | whole number of 64 bits | varint of `(n << 1) ^ (n >> 63)` |
//! | 04 | whole number beyond 64 bits | sign byte (0, or 1 below zero), length, magnitude with the least byte first and no zero at its end |
//! | 05 | floating point | 8 bytes, IEEE 754, little-endian |
//! | 06 | text | length, UTF-8 |
//! | 07 | bytes | length, bytes |
//! | 08 | list | count, values |
//! | 09 | map | count, then key and value in turn |
//! | 0a-0f | not used | |
//! | 10-7f | types of other languages | length, content |
//! | 80-ff | not used | |
//!
//! Lengths and counts are LEB128 varints. Of the types of other languages these are given away:
//! 10 tuple, 11 set, 12 frozen set, 13 complex, 14 date, 15 time, 16 date and time, 17 time span,
//! 18 decimal, 19 n-dimensional array, 1a UUID, 1b named tuple or record. A reader that does not
//! know one carries it through, since its length is there.
//!
//! **As a key** a number is encoded by what it is equal to: true and 1.0 as the whole number 1,
//! -0.0 as 0, a float without fraction as a whole number of whatever length, each NaN as the same
//! one. That holds inside of lists and maps too; a map's pairs are sorted by their bytes, so that
//! maps that are equal are the same key. Nothing is normalised in values.

use rhash_protocol::{
    TableKind,
    packed::{push_bytes, push_number, take_bytes, take_number},
};

use super::{
    Codec, CodecError, Element, EncodeAs, Item, List, Stored, VALUE_DEPTH_MAX, value::Value,
};

/// Encodes [`Value`]s, and what converts to them, in a format that describes itself.
#[derive(Debug, Clone, Copy)]
pub struct ValueCodec;

const TAG_NULL: u8 = 0x00;
const TAG_FALSE: u8 = 0x01;
const TAG_TRUE: u8 = 0x02;
const TAG_INT: u8 = 0x03;
const TAG_BIG_INT: u8 = 0x04;
const TAG_FLOAT: u8 = 0x05;
const TAG_STR: u8 = 0x06;
const TAG_BYTES: u8 = 0x07;
const TAG_LIST: u8 = 0x08;
const TAG_MAP: u8 = 0x09;
const TAG_EXTENSION_FIRST: u8 = 0x10;
const TAG_EXTENSION_LAST: u8 = 0x7f;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Key,
    Value,
}

fn push(value: &Value, role: Role, depth: usize, out: &mut Vec<u8>) -> Result<(), CodecError> {
    if role == Role::Key
        && let Some(number) = value.key_number()
    {
        return push_scalar(&number, out);
    }
    let Some(depth_left) = depth.checked_sub(1) else {
        return Err(CodecError::new(format!(
            "nested deeper than {VALUE_DEPTH_MAX}"
        )));
    };
    match value {
        Value::List(items) => {
            out.push(TAG_LIST);
            push_number(out, items.len() as u64);
            items
                .iter()
                .try_for_each(|item| push(item, role, depth_left, out))
        }
        Value::Map(pairs) => {
            out.push(TAG_MAP);
            push_number(out, pairs.len() as u64);
            push_pairs(pairs, role, depth_left, out)
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
    let mut encoded = Vec::with_capacity(pairs.len());
    for (key, value) in pairs {
        let mut pair = Vec::new();
        push(key, role, depth, &mut pair)?;
        push(value, role, depth, &mut pair)?;
        encoded.push(pair);
    }
    if role == Role::Key {
        encoded.sort_unstable();
    }
    encoded.iter().for_each(|pair| out.extend_from_slice(pair));
    Ok(())
}

fn push_scalar(value: &Value, out: &mut Vec<u8>) -> Result<(), CodecError> {
    match value {
        Value::Null => out.push(TAG_NULL),
        Value::Bool(false) => out.push(TAG_FALSE),
        Value::Bool(true) => out.push(TAG_TRUE),
        Value::Int(number) => {
            out.push(TAG_INT);
            push_number(out, ((number << 1) ^ (number >> 63)).cast_unsigned());
        }
        Value::BigInt {
            negative,
            magnitude,
        } => {
            out.extend_from_slice(&[TAG_BIG_INT, u8::from(*negative)]);
            push_bytes(out, magnitude);
        }
        Value::Float(float) => {
            out.push(TAG_FLOAT);
            out.extend_from_slice(&float.to_le_bytes());
        }
        Value::Str(text) => {
            out.push(TAG_STR);
            push_bytes(out, text.as_bytes());
        }
        Value::Bytes(bytes) => {
            out.push(TAG_BYTES);
            push_bytes(out, bytes);
        }
        Value::Extension { tag, payload } => {
            if !(TAG_EXTENSION_FIRST..=TAG_EXTENSION_LAST).contains(tag) {
                return Err(CodecError::new(format!(
                    "no extension has the tag {tag:#04x}"
                )));
            }
            out.push(*tag);
            push_bytes(out, payload);
        }
        Value::List(_) | Value::Map(_) => unreachable!("the caller takes these apart"),
    }
    Ok(())
}

fn take(bytes: &mut &[u8], depth: usize) -> Result<Value, CodecError> {
    let short = || CodecError::new("the end inside a value");
    let (&tag, rest) = bytes.split_first().ok_or_else(short)?;
    *bytes = rest;
    Ok(match tag {
        TAG_NULL => Value::Null,
        TAG_FALSE => Value::Bool(false),
        TAG_TRUE => Value::Bool(true),
        TAG_INT => {
            let folded = take_number(bytes).map_err(|_malformed| short())?;
            Value::Int((folded >> 1).cast_signed() ^ -(folded & 1).cast_signed())
        }
        TAG_BIG_INT => {
            let (&sign, rest) = bytes.split_first().ok_or_else(short)?;
            *bytes = rest;
            let magnitude = take_bytes(bytes).map_err(|_malformed| short())?;
            Value::whole(sign != 0, magnitude.to_vec())
        }
        TAG_FLOAT => {
            let (float, rest) = bytes.split_first_chunk().ok_or_else(short)?;
            *bytes = rest;
            Value::Float(f64::from_le_bytes(*float))
        }
        TAG_STR => {
            let text = take_bytes(bytes).map_err(|_malformed| short())?;
            let text = std::str::from_utf8(text);
            Value::Str(
                text.map_err(|_invalid| CodecError::new("text that is not UTF-8"))?
                    .into(),
            )
        }
        TAG_BYTES => Value::Bytes(take_bytes(bytes).map_err(|_malformed| short())?.to_vec()),
        TAG_LIST | TAG_MAP => take_nested(tag, bytes, depth)?,
        TAG_EXTENSION_FIRST..=TAG_EXTENSION_LAST => Value::Extension {
            tag,
            payload: take_bytes(bytes).map_err(|_malformed| short())?.to_vec(),
        },
        _ => return Err(CodecError::new(format!("unknown tag {tag:#04x}"))),
    })
}

fn take_nested(tag: u8, bytes: &mut &[u8], depth: usize) -> Result<Value, CodecError> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err(CodecError::new(format!(
            "nested deeper than {VALUE_DEPTH_MAX}"
        )));
    };
    let count = take_number(bytes).map_err(|_malformed| CodecError::new("a count cut short"))?;
    // No room is reserved by the count: it is what the sender claims.
    if tag == TAG_LIST {
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

impl Codec for ValueCodec {
    fn name(_key: &str, _value: &str) -> String {
        "value".to_owned()
    }
}

impl Item<ValueCodec> for Value {
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        push(self, Role::Value, VALUE_DEPTH_MAX, out)
    }

    fn encode_key(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        push(self, Role::Key, VALUE_DEPTH_MAX, out)
    }

    fn decode(mut bytes: &[u8]) -> Result<Self, CodecError> {
        let value = take(&mut bytes, VALUE_DEPTH_MAX)?;
        match bytes.len() {
            0 => Ok(value),
            left => Err(CodecError::new(format!("{left} bytes after a value"))),
        }
    }
}

impl Element<ValueCodec> for Value {
    fn encode_all(items: &[Self], out: &mut Vec<u8>) -> Result<(), CodecError> {
        items
            .iter()
            .try_for_each(|item| push(item, Role::Value, VALUE_DEPTH_MAX, out))
    }

    fn decode_next(bytes: &mut &[u8]) -> Result<Self, CodecError> {
        take(bytes, VALUE_DEPTH_MAX)
    }
}

impl Stored<ValueCodec> for Value {
    const KIND: TableKind = TableKind::Values;
    type Read = Self;

    fn decode_read(bytes: &[u8]) -> Result<Self, CodecError> {
        Self::decode(bytes)
    }

    fn type_name() -> String {
        "value".to_owned()
    }
}

impl Stored<ValueCodec> for List<Value> {
    const KIND: TableKind = TableKind::Lists;
    type Read = Vec<Value>;

    fn decode_read(bytes: &[u8]) -> Result<Vec<Value>, CodecError> {
        Value::decode_all(bytes)
    }

    fn type_name() -> String {
        "value".to_owned()
    }
}

macro_rules! stands_for_value {
    ($($type:ty),*) => {$(
        impl EncodeAs<Value, ValueCodec> for $type {
            fn encode_value(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
                Item::encode(&Value::from(self.clone()), out)
            }

            fn encode_key(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
                Item::encode_key(&Value::from(self.clone()), out)
            }
        }
    )*};
}

stands_for_value!(bool, i64, i32, u32, u64, f64, &str, String, &[u8], Vec<u8>);

#[cfg(test)]
mod tests {
    use super::*;

    fn value_bytes(value: &Value) -> Vec<u8> {
        let mut out = Vec::new();
        Item::encode(value, &mut out).unwrap();
        out
    }

    fn key_bytes(value: impl Into<Value>) -> Vec<u8> {
        let mut out = Vec::new();
        Item::encode_key(&value.into(), &mut out).unwrap();
        out
    }

    #[test]
    fn values_are_these_bytes_and_come_back() {
        let big = Value::BigInt {
            negative: true,
            magnitude: vec![0, 0, 0, 0, 0, 0, 0, 0, 1],
        };
        let cases: &[(Value, &[u8])] = &[
            (Value::Null, &[0]),
            (false.into(), &[1]),
            (true.into(), &[2]),
            (0i64.into(), &[3, 0]),
            ((-1i64).into(), &[3, 1]),
            (300i64.into(), &[3, 0xd8, 4]),
            (
                i64::MIN.into(),
                &[3, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1],
            ),
            (
                u64::MAX.into(),
                &[4, 0, 8, 255, 255, 255, 255, 255, 255, 255, 255],
            ),
            (big, &[4, 1, 9, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
            (1.0.into(), &[5, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f]),
            ("hé".into(), &[6, 3, b'h', 0xc3, 0xa9]),
            (vec![1u8, 0].into(), &[7, 2, 1, 0]),
            (vec![Value::Null, 1i64.into()].into(), &[8, 2, 0, 3, 2]),
            (
                vec![("a".into(), Value::Null)].into(),
                &[9, 1, 6, 1, b'a', 0],
            ),
            (
                Value::Extension {
                    tag: 0x10,
                    payload: vec![9],
                },
                &[0x10, 1, 9],
            ),
        ];
        for (value, bytes) in cases {
            assert_eq!(value_bytes(value), *bytes, "{value:?}");
            assert_eq!(Value::decode(bytes).unwrap(), *value);
        }
    }

    #[test]
    fn equal_numbers_are_one_key() {
        for number in [
            key_bytes(1i64),
            key_bytes(1.0),
            key_bytes(true),
            key_bytes(1u64),
        ] {
            assert_eq!(number, [3, 2]);
        }
        assert_eq!(key_bytes(-0.0), key_bytes(false));
        assert_eq!(
            key_bytes(9_007_199_254_740_993i64 as f64),
            key_bytes(9_007_199_254_740_992i64)
        );
        assert_eq!(
            key_bytes(18_446_744_073_709_551_616.0),
            [4, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 1]
        );
        assert_eq!(key_bytes(-9_223_372_036_854_775_808.0), key_bytes(i64::MIN));
        assert_eq!(key_bytes(f64::NAN), key_bytes(-f64::NAN));
        assert_ne!(key_bytes(1.5), key_bytes(1i64));
        assert_eq!(
            key_bytes(vec![Value::Float(2.0), Value::Bool(true)]),
            key_bytes(vec![Value::Int(2), Value::Int(1)])
        );
        let pairs = |first: i64, second: i64| {
            vec![(first.into(), Value::Null), (second.into(), Value::Null)]
        };
        assert_eq!(key_bytes(pairs(1, 2)), key_bytes(pairs(2, 1)));
        assert_ne!(
            value_bytes(&1.0.into()),
            value_bytes(&1i64.into()),
            "values stay apart"
        );
    }

    #[test]
    fn bytes_that_are_no_value_are_errors() {
        for bytes in [
            &[][..],
            &[3],
            &[5, 1],
            &[6, 5, b'a'],
            &[6, 1, 0xff],
            &[8, 2, 0],
            &[0x0a],
            &[0x80],
            &[0, 0],
            &[8, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1],
        ] {
            assert!(Value::decode(bytes).is_err(), "{bytes:?}");
        }
        let mut deep = [8, 1].repeat(VALUE_DEPTH_MAX + 1);
        deep.push(0);
        assert!(
            Value::decode(&deep)
                .unwrap_err()
                .to_string()
                .starts_with("nested deeper")
        );
        let nested = (0..=VALUE_DEPTH_MAX).fold(Value::Null, |inner, _| Value::List(vec![inner]));
        assert!(Item::encode(&nested, &mut Vec::new()).is_err());
    }
}
