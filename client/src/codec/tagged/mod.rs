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
//! | 05 | floating point | 8 bytes, IEEE 754 |
//! | 06 | text | length, UTF-8 |
//! | 07 | bytes | length, bytes |
//! | 08 | list | count, values |
//! | 09 | map | count, then key and value in turn |
//! | 0a-0f | not used | |
//! | 10 | tuple | length, values |
//! | 11 | set | length, values in the order of their bytes |
//! | 12 | frozen set | length, values in the order of their bytes |
//! | 13 | complex number | length, real and imaginary part as 8 bytes each, IEEE 754 |
//! | 14 | date | length, days since 1970-01-01 in 4 bytes |
//! | 15 | time | length, microseconds since midnight in 8 bytes, *flags*, *zone* |
//! | 16 | date and time | length, microseconds since 1970-01-01 00:00 by the same clock in 8 bytes, *flags*, *zone* |
//! | 17 | time span | length, days, seconds and microseconds in 4 bytes each |
//! | 18 | decimal | length, as text |
//! | 19 | array | length, 1 for a single number or else 0, length and text of numpy's name of the type, number of dimensions, their lengths, elements |
//! | 1a | UUID | length, 16 bytes |
//! | 1b | not used | |
//! | 1c | text of Python with single surrogates | length, UTF-8 with surrogates as if they were characters |
//! | 1d | object of Python | length, as `pickle` writes it |
//! | 1e | bytes that may change | length, bytes |
//! | 1f-7f | not used yet | length, content |
//! | 80-ff | not used | |
//!
//! Lengths, counts and numbers of dimensions are LEB128 varints; numbers of fixed width have their
//! least byte first and a sign. *Flags* are a byte: 1 for the second of two equal times, as when a
//! summer ends, 2 if a zone follows, 4 if the zone's name is the IANA's. The *zone* is how far it is
//! ahead of UTC, in microseconds in 8 bytes, and its name, which may be empty. A reader that does not
//! know a tag from 10 to 7f carries its content through.
//!
//! **As a key** a value is encoded by what it is equal to: true and 1.0 as the whole number 1, -0.0
//! as 0, a float without fraction as a whole number of whatever length, each NaN as the same one. A
//! complex number without an imaginary part is its real part. A decimal is a whole number, or else
//! the float that has exactly its value, or else is written as `-?[0-9]+E-?[0-9]+` without zeros at
//! either end of the digits. A set is a frozen set; a time with a zone is that time in UTC, in a zone
//! without a name. A map's pairs are sorted by their bytes. All of that holds inside of lists,
//! tuples, sets and maps too. Nothing is normalised in values.

use rhash_protocol::TableKind;

use super::{
    Codec, CodecError, Element, EncodeAs, Item, List, Stored, VALUE_DEPTH_MAX, value::Value,
};

mod decode;
mod encode;
mod equal;
pub mod tags;
#[cfg(test)]
mod tests;

use self::{
    decode::take,
    encode::{Role, push},
};

/// Encodes [`Value`]s, and what converts to them, in a format that describes itself.
#[derive(Debug, Clone, Copy)]
pub struct ValueCodec;

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
