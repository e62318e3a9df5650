//! Sizes in bytes and spans of time as people write them: `512M`, `8GiB`, `60s`.

use std::{fmt, str::FromStr, time::Duration};

/// A number of bytes that is read and shown as people write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

/// A text is no size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// It is not a number and a unit.
    #[error(
        "\"{text}\" is not a size; write bytes, or a number with K, M, G or T (powers of 1024), \
         such as 512M, 1.5G or 8GiB"
    )]
    Form {
        /// What was given.
        text: String,
    },
    /// It is more than can be counted.
    #[error("\"{text}\" is more than any memory or disk; the greatest size is 16777215T")]
    Overflow {
        /// What was given.
        text: String,
    },
}

/// The units by their letters, the least first.
const UNITS: [(char, u32); 4] = [('K', 10), ('M', 20), ('G', 30), ('T', 40)];

/// More digits after the point than any size needs.
const DECIMALS_MAX: usize = 6;

impl FromStr for ByteSize {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let form = || SizeError::Form {
            text: text.to_owned(),
        };
        let trimmed = text.trim();
        let digits = trimmed.len() - trimmed.trim_start_matches(is_number_part).len();
        let (number, unit) = trimmed.split_at(digits);
        let shift = unit_shift(unit.trim_start()).ok_or_else(form)?;
        let (whole, decimals) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty()
            || decimals.len() > DECIMALS_MAX
            || !decimals.bytes().all(|digit| digit.is_ascii_digit())
            || number.ends_with('.')
            || (shift == 0 && number.contains('.'))
        {
            return Err(form());
        }
        let overflow = || SizeError::Overflow {
            text: text.to_owned(),
        };
        let whole: u64 = whole.parse().map_err(|_overflowing| overflow())?;
        let unit_bytes = 1u64 << shift;
        let mut bytes = whole.checked_mul(unit_bytes).ok_or_else(overflow)?;
        if !decimals.is_empty() {
            let parts: u64 = decimals.parse().map_err(|_overflowing| overflow())?;
            let fraction =
                u128::from(parts) * u128::from(unit_bytes) / 10u128.pow(decimals.len() as u32);
            // A fraction of a unit is less than the unit, and so fits.
            bytes = bytes.checked_add(fraction as u64).ok_or_else(overflow)?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for ByteSize {
    // Three digits that matter; exact where the size is a whole number of units.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = UNITS.iter().rev().find(|(_, shift)| self.0 >= 1 << shift);
        let Some(&(letter, shift)) = unit else {
            return write!(out, "{} B", self.0);
        };
        let tenths = (u128::from(self.0) * 10) >> shift;
        match (tenths / 10, tenths % 10) {
            (whole, 0) => write!(out, "{whole} {letter}iB"),
            (whole, _) if whole >= 100 => write!(out, "{whole} {letter}iB"),
            (whole, tenth) => write!(out, "{whole}.{tenth} {letter}iB"),
        }
    }
}

fn is_number_part(letter: char) -> bool {
    letter.is_ascii_digit() || letter == '.'
}

/// The power of two that a unit stands for: `M`, `MiB` and `MB` are the same.
fn unit_shift(unit: &str) -> Option<u32> {
    let mut letters = unit.chars();
    let Some(first) = letters.next() else {
        return Some(0);
    };
    let rest = letters.as_str().to_ascii_lowercase();
    match first.to_ascii_uppercase() {
        'B' => rest.is_empty().then_some(0),
        first => {
            let (_, shift) = *UNITS.iter().find(|(letter, _)| *letter == first)?;
            matches!(rest.as_str(), "" | "b" | "ib").then_some(shift)
        }
    }
}

/// A text is no span of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{text}\" is not a span of time; write a number with ms, s, m or h, such as 500ms, 60s or 5m"
)]
pub struct SpanError {
    /// What was given.
    pub text: String,
}

/// Reads a span of time; a number alone is seconds.
///
/// # Errors
/// [`SpanError`] if it is not a whole number and a unit.
pub fn parse_span(text: &str) -> Result<Duration, SpanError> {
    let error = || SpanError {
        text: text.to_owned(),
    };
    let trimmed = text.trim();
    let digits = trimmed.len()
        - trimmed
            .trim_start_matches(|c: char| c.is_ascii_digit())
            .len();
    let (number, unit) = trimmed.split_at(digits);
    let number: u64 = number.parse().map_err(|_not_a_number| error())?;
    let unit_ms = match unit.trim_start() {
        "ms" => 1,
        "" | "s" => 1000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        _ => return Err(error()),
    };
    number
        .checked_mul(unit_ms)
        .map(Duration::from_millis)
        .ok_or_else(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("0", 0),
            ("1048576", 1 << 20),
            ("7B", 7),
            ("512M", 512 << 20),
            ("512m", 512 << 20),
            ("512MB", 512 << 20),
            ("512 MiB", 512 << 20),
            (" 8GiB ", 8 << 30),
            ("8G", 8 << 30),
            ("1.5G", 3 << 29),
            ("0.25k", 256),
            ("1T", 1 << 40),
            ("16777215T", 16_777_215 << 40),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_named_with_the_forms_that_are() {
        for text in [
            "",
            "M",
            "lots",
            "-1",
            "1.5",
            "1.M",
            ".5M",
            "1.2.3M",
            "1X",
            "1MBB",
            "1iB",
            "1Mi",
            "0x10",
            "1e9",
            "1.0000001G",
            "1,5G",
            "8 G B",
        ] {
            let error = text.parse::<ByteSize>().unwrap_err();
            assert_eq!(
                error,
                SizeError::Form {
                    text: text.to_owned()
                }
            );
            assert!(error.to_string().contains("512M, 1.5G or 8GiB"), "{error}");
        }
        for text in ["16777216T", "18446744073709551616", "99999999999999999999G"] {
            let error = text.parse::<ByteSize>().unwrap_err();
            assert_eq!(
                error,
                SizeError::Overflow {
                    text: text.to_owned()
                }
            );
        }
    }

    #[test]
    fn sizes_are_shown_with_the_digits_that_matter() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            (24 << 20, "24 MiB"),
            ((24 << 20) + (300 << 10), "24.2 MiB"),
            ((500 << 20) + (700 << 10), "500 MiB"),
            (u64::MAX, "16777215 TiB"),
        ] {
            assert_eq!(ByteSize(bytes).to_string(), text);
        }
    }

    #[test]
    fn a_size_that_was_shown_can_be_read_again() {
        for bytes in [0, 1, 1023, 1 << 10, 3 << 20, 5 << 30] {
            assert_eq!(ByteSize(bytes).to_string().parse(), Ok(ByteSize(bytes)));
        }
    }

    #[test]
    fn spans_are_read_as_people_write_them() {
        for (text, ms) in [
            ("60s", 60_000),
            ("60", 60_000),
            ("500ms", 500),
            ("5m", 300_000),
            ("1 h", 3_600_000),
        ] {
            assert_eq!(parse_span(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "s", "1.5s", "-1s", "1d", "18446744073709551615h"] {
            assert_eq!(
                parse_span(text),
                Err(SpanError {
                    text: text.to_owned()
                })
            );
        }
    }
}
