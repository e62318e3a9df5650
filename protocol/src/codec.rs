//! Messages to bytes and back: the one user of bincode.
//!
//! Integers are varints, so small numbers are short; a decode reads no further than the bytes it
//! was given, allocates no more than they justify, and takes bytes left over for an error. What a
//! message borrows (names, keys, packed batches) is borrowed from those bytes.

use bincode::Options as _;
use serde::{Deserialize, Serialize};

/// A message could not be made into bytes, or bytes are not a message.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The message has a part that the codec has no form for.
    #[error("the message cannot be encoded")]
    Encode(#[source] bincode::Error),
    /// The bytes end early, go on too long, or hold something unknown.
    #[error("{bytes} bytes are not a message of the expected type")]
    Decode {
        /// How many bytes there were.
        bytes: usize,
        /// What did not fit.
        #[source]
        source: bincode::Error,
    },
}

/// Appends `message` to `out`.
///
/// # Errors
/// [`CodecError::Encode`] for types that serde cannot describe ahead; none of this crate is one.
pub fn encode<T: Serialize + ?Sized>(message: &T, out: &mut Vec<u8>) -> Result<(), CodecError> {
    let options = bincode::DefaultOptions::new()
        .with_varint_encoding()
        .with_no_limit();
    options
        .serialize_into(out, message)
        .map_err(CodecError::Encode)
}

/// The message that `bytes` are, all of them.
///
/// # Errors
/// [`CodecError::Decode`] if they are not exactly one message of this type.
pub fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, CodecError> {
    bincode::DefaultOptions::new()
        .with_varint_encoding()
        .with_limit(bytes.len() as u64)
        .reject_trailing_bytes()
        .deserialize(bytes)
        .map_err(|source| CodecError::Decode {
            bytes: bytes.len(),
            source,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_comes_back() {
        let mut bytes = vec![9];
        encode(&(1u64, "two", Some(300u32)), &mut bytes).unwrap();
        assert_eq!(
            bytes,
            [9, 1, 3, b't', b'w', b'o', 1, 251, 44, 1],
            "appended, in varints"
        );
        let back: (u64, &str, Option<u32>) = decode(&bytes[1..]).unwrap();
        assert_eq!(back, (1, "two", Some(300)));
    }

    #[test]
    fn bytes_left_over_are_an_error() {
        let error = decode::<u8>(&[1, 2]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "2 bytes are not a message of the expected type"
        );
    }

    #[test]
    fn a_length_beyond_the_bytes_is_an_error_before_anything_is_allocated() {
        // 253 announces eight bytes of length: 2^62 of them.
        let huge = [253, 0, 0, 0, 0, 0, 0, 0, 0x40];
        assert!(decode::<String>(&huge).is_err());
        assert!(decode::<Vec<u64>>(&huge).is_err());
        assert!(decode::<&[u8]>(&huge).is_err());
    }
}
