//! Numbers and sizes as people write and read them.

use crate::failure::Failure;

/// Reads a number that an option was given.
pub(crate) fn number<T: std::str::FromStr>(option: &str, text: &str) -> Result<T, Failure> {
    let parsed = text.parse().ok();
    parsed.ok_or_else(|| Failure::Usage(format!("`{option}` needs a number, not `{text}`")))
}

/// Reads a size such as `512M` or `8GiB`, as the server does.
pub(crate) fn size(option: &str, text: &str) -> Result<u64, Failure> {
    let wrong = || Failure::Usage(format!("`{option}` needs a size such as 32M, not `{text}`"));
    let digits = text.trim_end_matches(|letter: char| !letter.is_ascii_digit());
    let shift = match &text[digits.len()..] {
        "" => 0,
        "K" | "KiB" => 10,
        "M" | "MiB" => 20,
        "G" | "GiB" => 30,
        _ => return Err(wrong()),
    };
    let count: u64 = digits.parse().ok().ok_or_else(wrong)?;
    count.checked_mul(1 << shift).ok_or_else(wrong)
}

/// A number of bytes, for reading.
pub(crate) fn mebibytes(count: u64) -> String {
    format!("{:.1} MiB", count as f64 / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, bytes) in [("7", 7), ("3K", 3072), ("32M", 32 << 20), ("8GiB", 8 << 30)] {
            assert_eq!(size("--mem-limit", text).unwrap(), bytes);
        }
        for text in ["", "M", "1T", "1.5G", "-1M", "99999999999G"] {
            assert!(size("--mem-limit", text).is_err(), "{text}");
        }
    }
}
