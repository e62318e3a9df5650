//! Numbers in as few bytes as they need: seven bits a byte, the low ones first, the high bit of
//! each byte but the last set.

/// The longest encoding of a 64-bit number.
pub(crate) const VARINT_BYTES_MAX: usize = 10;

/// Appends a number.
#[inline]
pub(crate) fn push(bytes: &mut Vec<u8>, number: u64) {
    let mut encoded = [0; VARINT_BYTES_MAX];
    let length = put(number, &mut encoded, 0);
    bytes.extend_from_slice(&encoded[..length]);
}

/// Writes a number into `bytes` from `at` on and returns where it ends.
///
/// # Panics
/// If there is no room for it.
#[inline]
pub(crate) fn put(mut number: u64, bytes: &mut [u8], mut at: usize) -> usize {
    while number >= 0x80 {
        bytes[at] = number as u8 | 0x80;
        number >>= 7;
        at += 1;
    }
    bytes[at] = number as u8;
    at + 1
}

/// Takes a number from the front; none if the bytes end inside it or it does not fit 64 bits.
#[inline]
pub(crate) fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64u32).step_by(7) {
        let (&byte, tail) = bytes.split_first()?;
        *bytes = tail;
        if shift == 63 && byte > 1 {
            return None;
        }
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_have_these_bytes() {
        for (number, expected) in [
            (0, &[0][..]),
            (127, &[127]),
            (128, &[128, 1]),
            (u64::MAX, &[255, 255, 255, 255, 255, 255, 255, 255, 255, 1]),
        ] {
            let mut bytes = Vec::new();
            push(&mut bytes, number);
            assert_eq!(bytes, expected);
        }
    }

    #[test]
    fn what_is_no_number_is_refused() {
        assert_eq!(take(&mut &[][..]), None);
        assert_eq!(take(&mut &[0x80][..]), None);
        assert_eq!(
            take(&mut &[255, 255, 255, 255, 255, 255, 255, 255, 255, 2][..]),
            None
        );
    }

    proptest! {
        #[test]
        fn numbers_read_back(numbers in prop::collection::vec(any::<u64>(), 0..20), bits in 0u32..64) {
            let mut bytes = Vec::new();
            for number in &numbers {
                push(&mut bytes, number >> bits);
            }
            let mut rest = &bytes[..];
            for number in &numbers {
                prop_assert_eq!(take(&mut rest), Some(number >> bits));
            }
            prop_assert!(rest.is_empty());
        }
    }
}
