//! How keys and values become bytes: three codecs, chosen by type and named in the table.
//!
//! A codec is a type parameter of [`RemoteHash`](crate::RemoteHash). What is encodable is said by
//! [`Item`] (a whole key or value), [`Element`] (a part of a list, which knows its own end),
//! [`Stored`] (what a table holds: a plain value type, [`List`] or [`Counter`]) and [`EncodeAs`]
//! (what a method takes in its place, such as `&str` for a `String`).

use std::fmt;

use rhash_protocol::TableKind;

mod bincode;
mod raw;
mod tagged;
mod value;

pub use self::{
    bincode::BincodeCodec,
    raw::BytesCodec,
    tagged::{ValueCodec, tags},
    value::{Array, Clock, VALUE_DEPTH_MAX, Value, Zone},
};

/// How a table's keys and values are encoded.
pub trait Codec: Send + Sync + 'static {
    /// The name that the table carries, for keys and values of these Rust types.
    fn name(key: &str, value: &str) -> String;
}

/// A type that a codec turns into bytes as a whole key or value.
///
/// Equal keys must encode equal: the server compares keys as bytes.
pub trait Item<C>: Sized + Send + Sync + 'static {
    /// Appends the encoded value.
    ///
    /// # Errors
    /// [`CodecError`] for values that this codec has no form for.
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), CodecError>;

    /// Appends the value as encoded for a key, where that differs.
    ///
    /// # Errors
    /// As for `encode`.
    fn encode_key(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        self.encode(out)
    }

    /// The value that all of `bytes` are.
    ///
    /// # Errors
    /// [`CodecError`] if they are not exactly one.
    fn decode(bytes: &[u8]) -> Result<Self, CodecError>;
}

/// A type that can be an element of a list: its encoding says where it ends.
pub trait Element<C>: Sized + Send + Sync + 'static {
    /// Appends the encoded elements, one after the other.
    ///
    /// # Errors
    /// [`CodecError`] for values that this codec has no form for.
    fn encode_all(items: &[Self], out: &mut Vec<u8>) -> Result<(), CodecError>;

    /// Takes one element from the front of `bytes`.
    ///
    /// # Errors
    /// [`CodecError`] if they do not begin with a whole one.
    fn decode_next(bytes: &mut &[u8]) -> Result<Self, CodecError>;

    /// All elements that `bytes` are.
    ///
    /// # Errors
    /// [`CodecError`] if they are not whole elements.
    fn decode_all(mut bytes: &[u8]) -> Result<Vec<Self>, CodecError> {
        let mut items = Vec::new();
        while !bytes.is_empty() {
            items.push(Self::decode_next(&mut bytes)?);
        }
        Ok(items)
    }
}

/// What a table can hold under codec `C`: any [`Item`], a [`List`] of elements, or a [`Counter`].
pub trait Stored<C>: Send + Sync + 'static {
    /// The kind of table.
    const KIND: TableKind;
    /// What a read returns: the item, a `Vec` of the elements, an `i64`.
    type Read: Send + 'static;

    /// The value that all of `bytes` are.
    ///
    /// # Errors
    /// [`CodecError`] if they are not one.
    fn decode_read(bytes: &[u8]) -> Result<Self::Read, CodecError>;

    /// The Rust type's name, as codecs put it into the table's.
    fn type_name() -> String;
}

/// Something that encodes as a `T` does: `T`, `&T`, and what else stands for it.
pub trait EncodeAs<T, C>: Send {
    /// Appends it as a value.
    ///
    /// # Errors
    /// [`CodecError`] for values that this codec has no form for.
    fn encode_value(&self, out: &mut Vec<u8>) -> Result<(), CodecError>;

    /// Appends it as a key.
    ///
    /// # Errors
    /// As for `encode_value`.
    fn encode_key(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        self.encode_value(out)
    }
}

/// Marks a table of lists: `RemoteHash<K, List<T>>` stores each list as its concatenated elements
/// and grows it by blind appends.
pub struct List<T> {
    // Function pointers are Send and Sync whatever T is, which fits a type that has no values.
    marker: std::marker::PhantomData<fn() -> T>,
}

impl<T> fmt::Debug for List<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("List")
    }
}

/// Marks a table of counters: `RemoteHash<K, Counter>` stores wrapping 64-bit integers that grow by
/// blind additions.
#[derive(Debug)]
pub struct Counter {
    // Nobody can make one: it is a name for a kind of table.
    _private: (),
}

/// A value cannot be encoded, or bytes are not a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct CodecError {
    text: String,
}

impl CodecError {
    /// An error that reads like this: lower case, without a full stop.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into() }
    }
}

impl<T: Item<C>, C> EncodeAs<T, C> for T {
    fn encode_value(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        Item::encode(self, out)
    }

    fn encode_key(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        Item::encode_key(self, out)
    }
}

impl<T: Item<C>, C> EncodeAs<T, C> for &T {
    fn encode_value(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        Item::encode(*self, out)
    }

    fn encode_key(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        Item::encode_key(*self, out)
    }
}

impl<T: Element<C>, C> EncodeAs<List<T>, C> for &[T] {
    fn encode_value(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        T::encode_all(self, out)
    }
}

impl<T: Element<C>, C> EncodeAs<List<T>, C> for Vec<T> {
    fn encode_value(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        T::encode_all(self, out)
    }
}

impl<T: Element<C>, C> EncodeAs<List<T>, C> for &Vec<T> {
    fn encode_value(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        T::encode_all(self, out)
    }
}

impl<T: Element<C>, C, const N: usize> EncodeAs<List<T>, C> for [T; N] {
    fn encode_value(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        T::encode_all(self, out)
    }
}

impl<T: Element<C>, C, const N: usize> EncodeAs<List<T>, C> for &[T; N] {
    fn encode_value(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        T::encode_all(*self, out)
    }
}

impl<C> EncodeAs<Counter, C> for i64 {
    fn encode_value(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        out.extend_from_slice(&self.to_le_bytes());
        Ok(())
    }
}

impl<C> EncodeAs<Counter, C> for &i64 {
    fn encode_value(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        out.extend_from_slice(&self.to_le_bytes());
        Ok(())
    }
}

impl<C: Codec> Stored<C> for Counter {
    const KIND: TableKind = TableKind::Counters;
    type Read = i64;

    fn decode_read(bytes: &[u8]) -> Result<i64, CodecError> {
        match bytes.try_into() {
            Ok(bytes) => Ok(i64::from_le_bytes(bytes)),
            Err(_) => Err(CodecError::new(format!(
                "a counter of {} bytes, not 8",
                bytes.len()
            ))),
        }
    }

    fn type_name() -> String {
        "Counter".to_owned()
    }
}

/// The name of the codec of a table with these types.
pub fn codec_name<K: 'static, V: Stored<C>, C: Codec>() -> String {
    C::name(&short_type_name::<K>(), &V::type_name())
}

/// A type's name without the paths: these change when a type moves to another module, and its
/// encoding does not.
pub(crate) fn short_type_name<T>() -> String {
    let full = std::any::type_name::<T>();
    let mut short = String::with_capacity(full.len());
    let mut word = String::new();
    for character in full.chars() {
        match character {
            ':' => word.clear(),
            _ if character.is_alphanumeric() || character == '_' => word.push(character),
            _ => {
                short.push_str(&word);
                word.clear();
                if character != ' ' {
                    short.push(character);
                }
            }
        }
    }
    short.push_str(&word);
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_carry_types_without_their_paths() {
        let name = codec_name::<String, Vec<Option<u64>>, BincodeCodec>();
        assert_eq!(name, "bincode(String,Vec<Option<u64>>)");
        let name = codec_name::<(u8, std::time::Duration), List<u32>, BincodeCodec>();
        assert_eq!(name, "bincode((u8,Duration),List<u32>)");
        assert_eq!(
            codec_name::<String, Counter, BincodeCodec>(),
            "bincode(String,Counter)"
        );
        assert_eq!(codec_name::<Vec<u8>, List<u8>, BytesCodec>(), "bytes");
        assert_eq!(codec_name::<Value, Value, ValueCodec>(), "value");
    }
}
