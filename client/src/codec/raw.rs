//! The codec `bytes`: keys and values are the bytes given, and so is a list's growth.

use rhash_protocol::TableKind;

use super::{Codec, CodecError, Element, EncodeAs, Item, List, Stored};

/// Stores bytes as they are: `Vec<u8>` keys, and values of `Vec<u8>` or [`List<u8>`](List).
/// `append_many(key, &[u8])` on such a list adds exactly these bytes.
#[derive(Debug, Clone, Copy)]
pub struct BytesCodec;

impl Codec for BytesCodec {
    fn name(_key: &str, _value: &str) -> String {
        "bytes".to_owned()
    }
}

impl Item<BytesCodec> for Vec<u8> {
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        out.extend_from_slice(self);
        Ok(())
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        Ok(bytes.to_vec())
    }
}

impl Element<BytesCodec> for u8 {
    fn encode_all(items: &[Self], out: &mut Vec<u8>) -> Result<(), CodecError> {
        out.extend_from_slice(items);
        Ok(())
    }

    fn decode_next(bytes: &mut &[u8]) -> Result<Self, CodecError> {
        let (&byte, rest) = bytes
            .split_first()
            .ok_or(CodecError::new("the end of a list"))?;
        *bytes = rest;
        Ok(byte)
    }

    fn decode_all(bytes: &[u8]) -> Result<Vec<Self>, CodecError> {
        Ok(bytes.to_vec())
    }
}

impl Stored<BytesCodec> for Vec<u8> {
    const KIND: TableKind = TableKind::Values;
    type Read = Self;

    fn decode_read(bytes: &[u8]) -> Result<Self, CodecError> {
        Ok(bytes.to_vec())
    }

    fn type_name() -> String {
        "bytes".to_owned()
    }
}

impl Stored<BytesCodec> for List<u8> {
    const KIND: TableKind = TableKind::Lists;
    type Read = Vec<u8>;

    fn decode_read(bytes: &[u8]) -> Result<Vec<u8>, CodecError> {
        Ok(bytes.to_vec())
    }

    fn type_name() -> String {
        "bytes".to_owned()
    }
}

macro_rules! stands_for_bytes {
    ($([$($generics:tt)*] $type:ty),*) => {$(
        impl<$($generics)*> EncodeAs<Vec<u8>, BytesCodec> for $type {
            fn encode_value(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
                out.extend_from_slice(self.as_ref());
                Ok(())
            }
        }
    )*};
}

stands_for_bytes!([] &[u8], [const N: usize] [u8; N], [const N: usize] &[u8; N], [] &str, [] String, [] &String);
