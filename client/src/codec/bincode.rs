//! The codec of serde types: bincode 1.3 with varints, and the Rust types' names in the table's.

use std::fmt::Write as _;

use bincode::Options;
use rhash_protocol::{
    TableKind,
    limits::{CODEC_NAME_BYTES_MAX, VALUE_BYTES_MAX},
};
use serde::{Serialize, de::DeserializeOwned};

use super::{Codec, CodecError, Element, EncodeAs, Item, List, Stored, short_type_name};

/// Encodes any serde type; the default. The table's name for it is `bincode(K,V)`, so that a table
/// is not opened with other types by mistake.
///
/// A key type must encode equal values equally: a `HashMap` or `HashSet` as (part of) a key does
/// not, since its order changes.
#[derive(Debug, Clone, Copy)]
pub struct BincodeCodec;

fn options() -> impl Options {
    bincode::DefaultOptions::new()
        .with_varint_encoding()
        .with_limit(VALUE_BYTES_MAX as u64)
}

impl Codec for BincodeCodec {
    fn name(key: &str, value: &str) -> String {
        let mut name = format!("bincode({key},{value})");
        if name.len() > CODEC_NAME_BYTES_MAX {
            // Long names are cut, and their hash tells apart what the cut makes equal.
            let hash = fnv(name.as_bytes());
            let keep = CODEC_NAME_BYTES_MAX - "~0123456789abcdef".len();
            let end = (0..=keep)
                .rev()
                .find(|&end| name.is_char_boundary(end))
                .unwrap_or(0);
            name.truncate(end);
            // Writing to a String cannot fail.
            let _infallible = write!(name, "~{hash:016x}");
        }
        name
    }
}

fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

fn encode<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), CodecError> {
    options()
        .serialize_into(out, value)
        .map_err(|error| CodecError::new(error.to_string()))
}

impl<T: Serialize + DeserializeOwned + Send + Sync + 'static> Item<BincodeCodec> for T {
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        encode(self, out)
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        options()
            .reject_trailing_bytes()
            .deserialize(bytes)
            .map_err(|error| not_a::<T>(bytes.len(), &error))
    }
}

impl<T: Serialize + DeserializeOwned + Send + Sync + 'static> Element<BincodeCodec> for T {
    fn encode_all(items: &[Self], out: &mut Vec<u8>) -> Result<(), CodecError> {
        items.iter().try_for_each(|item| encode(item, out))
    }

    fn decode_next(bytes: &mut &[u8]) -> Result<Self, CodecError> {
        if bytes.is_empty() {
            return Err(CodecError::new("the end inside a list"));
        }
        let before = *bytes;
        // The reader form takes from the front and leaves the rest.
        options()
            .allow_trailing_bytes()
            .deserialize_from(&mut *bytes)
            .map_err(|error| {
                *bytes = before;
                not_a::<T>(before.len(), &error)
            })
    }
}

fn not_a<T>(bytes: usize, error: &bincode::Error) -> CodecError {
    CodecError::new(format!(
        "{bytes} bytes are not a {}: {error}",
        short_type_name::<T>()
    ))
}

impl<T: Serialize + DeserializeOwned + Send + Sync + 'static> Stored<BincodeCodec> for T {
    const KIND: TableKind = TableKind::Values;
    type Read = T;

    fn decode_read(bytes: &[u8]) -> Result<T, CodecError> {
        T::decode(bytes)
    }

    fn type_name() -> String {
        short_type_name::<T>()
    }
}

impl<T: Serialize + DeserializeOwned + Send + Sync + 'static> Stored<BincodeCodec> for List<T> {
    const KIND: TableKind = TableKind::Lists;
    type Read = Vec<T>;

    fn decode_read(bytes: &[u8]) -> Result<Vec<T>, CodecError> {
        <T as Element<BincodeCodec>>::decode_all(bytes)
    }

    fn type_name() -> String {
        format!("List<{}>", short_type_name::<T>())
    }
}

impl EncodeAs<String, BincodeCodec> for &str {
    fn encode_value(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        encode(*self, out)
    }
}

impl<T: Serialize + DeserializeOwned + Send + Sync + 'static> EncodeAs<Vec<T>, BincodeCodec>
    for &[T]
{
    fn encode_value(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        encode(*self, out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_str_encodes_as_a_string() {
        let (mut one, mut two) = (Vec::new(), Vec::new());
        EncodeAs::<String, BincodeCodec>::encode_key(&"grain", &mut one).unwrap();
        EncodeAs::<String, BincodeCodec>::encode_key(&"grain".to_owned(), &mut two).unwrap();
        assert_eq!(one, two);
        assert_eq!(one, b"\x05grain");
    }

    #[test]
    fn a_list_is_its_elements_and_nothing_else() {
        let mut out = Vec::new();
        EncodeAs::<List<String>, BincodeCodec>::encode_value(
            &["a".to_owned(), "bc".to_owned()],
            &mut out,
        )
        .unwrap();
        assert_eq!(out, b"\x01a\x02bc");
        let back = <List<String> as Stored<BincodeCodec>>::decode_read(&out).unwrap();
        assert_eq!(back, ["a", "bc"]);
        let mut short = &out[..4];
        <String as Element<BincodeCodec>>::decode_next(&mut short).unwrap();
        assert!(<String as Element<BincodeCodec>>::decode_next(&mut short).is_err());
        assert_eq!(short, b"\x02b", "what is not whole stays");
    }

    #[test]
    fn trailing_bytes_and_wrong_types_are_errors() {
        assert!(<u8 as Item<BincodeCodec>>::decode(&[1, 2]).is_err());
        let error = <String as Item<BincodeCodec>>::decode(&[9, b'x']).unwrap_err();
        assert!(
            error.to_string().starts_with("2 bytes are not a String"),
            "{error}"
        );
    }

    #[test]
    fn long_names_are_cut_and_stay_different() {
        let long = |end: &str| BincodeCodec::name(&"x".repeat(400), end);
        assert_eq!(long("a").len(), CODEC_NAME_BYTES_MAX);
        assert_ne!(long("a"), long("b"));
    }
}
