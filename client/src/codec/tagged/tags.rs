//! The tags of the codec `value`, and the small pieces that its bytes are made of: for those who
//! write and read them without a [`Value`](super::super::Value) in between.

pub use rhash_protocol::packed::{Malformed, push_bytes, push_number, take_bytes, take_number};

/// Nothing.
pub const NULL: u8 = 0x00;
/// False.
pub const FALSE: u8 = 0x01;
/// True.
pub const TRUE: u8 = 0x02;
/// A whole number of 64 bits.
pub const INT: u8 = 0x03;
/// A whole number beyond 64 bits.
pub const BIG_INT: u8 = 0x04;
/// A floating-point number.
pub const FLOAT: u8 = 0x05;
/// Text.
pub const STR: u8 = 0x06;
/// Bytes.
pub const BYTES: u8 = 0x07;
/// A list.
pub const LIST: u8 = 0x08;
/// A map.
pub const MAP: u8 = 0x09;
/// The first tag whose content has its length before it.
pub const EXTENSION_FIRST: u8 = 0x10;
/// A tuple.
pub const TUPLE: u8 = 0x10;
/// A set.
pub const SET: u8 = 0x11;
/// A frozen set.
pub const FROZEN_SET: u8 = 0x12;
/// A complex number.
pub const COMPLEX: u8 = 0x13;
/// A date.
pub const DATE: u8 = 0x14;
/// A time.
pub const TIME: u8 = 0x15;
/// A date and time.
pub const DATE_TIME: u8 = 0x16;
/// A time span.
pub const TIME_SPAN: u8 = 0x17;
/// A decimal.
pub const DECIMAL: u8 = 0x18;
/// An array.
pub const ARRAY: u8 = 0x19;
/// A UUID.
pub const UUID: u8 = 0x1a;
/// Text of Python with single surrogates, which UTF-8 has no form for.
pub const SURROGATES: u8 = 0x1c;
/// An object of Python as `pickle` writes it.
pub const PICKLE: u8 = 0x1d;
/// Bytes that may change: Python's `bytearray`.
pub const BYTE_ARRAY: u8 = 0x1e;
/// The last tag whose content has its length before it.
pub const EXTENSION_LAST: u8 = 0x7f;

/// The flag of a clock that shows the second of two equal times.
pub const CLOCK_FOLD: u8 = 1;
/// The flag of a clock whose zone is known.
pub const CLOCK_ZONE: u8 = 2;
/// The flag of a zone that the IANA's table has.
pub const CLOCK_IANA: u8 = 4;

/// Appends a whole number of 64 bits with its tag.
pub fn push_int(out: &mut Vec<u8>, number: i64) {
    out.push(INT);
    push_number(out, ((number << 1) ^ (number >> 63)).cast_unsigned());
}

/// Takes what [`push_int`] wrote behind the tag.
///
/// # Errors
/// [`Malformed`] if there is no whole number.
pub fn take_int(bytes: &mut &[u8]) -> Result<i64, Malformed> {
    let folded = take_number(bytes)?;
    Ok((folded >> 1).cast_signed() ^ -(folded & 1).cast_signed())
}

/// Appends a whole number of any length with its tag; its magnitude comes with the least byte first
/// and no zero at its end, and does not fit 64 bits.
pub fn push_big_int(out: &mut Vec<u8>, negative: bool, magnitude: &[u8]) {
    out.extend_from_slice(&[BIG_INT, u8::from(negative)]);
    push_bytes(out, magnitude);
}

/// Appends a floating-point number with its tag.
pub fn push_float(out: &mut Vec<u8>, float: f64) {
    out.push(FLOAT);
    out.extend_from_slice(&float.to_le_bytes());
}

/// Puts the length of all that was written since `start` there.
pub fn close_content(out: &mut Vec<u8>, start: usize) {
    /// The lengths that one byte holds.
    const ONE_BYTE_MAX: usize = 0x7f;
    let bytes = out.len().saturating_sub(start);
    let mut length = Vec::with_capacity(size_of::<u64>() + 2);
    if bytes <= ONE_BYTE_MAX {
        out.insert(start, bytes as u8);
    } else {
        push_number(&mut length, bytes as u64);
        out.splice(start..start, length);
    }
}
