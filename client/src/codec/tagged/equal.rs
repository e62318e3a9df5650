//! What stands for a value in a key, so that values that are equal are one key.

use super::super::value::{Clock, Value, Zone};

/// Decimals are taken for whole numbers up to this many digits. More would not fit in a key.
const WHOLE_DIGITS_MAX: usize = 160_000;

/// The digits that tell any 64-bit float exactly: 2^-1074 has the most.
const FLOAT_DIGITS_MAX: usize = 1074;

impl Value {
    /// What this value is equal to, in the form that keys have; none if that is itself.
    pub(super) fn key_form(&self) -> Option<Self> {
        match *self {
            Self::Bool(truth) => Some(Self::Int(i64::from(truth))),
            Self::Float(float) => float_form(float),
            Self::Complex(real, 0.0) => Some(float_form(real).unwrap_or(Self::Float(real))),
            Self::Complex(real, imaginary) if real.is_nan() || imaginary.is_nan() => {
                Some(Self::Complex(positive(real), positive(imaginary)))
            }
            Self::Complex(0.0, imaginary) => Some(Self::Complex(0.0, imaginary)),
            Self::BigInt {
                negative,
                ref magnitude,
            } => Some(Self::whole(negative, magnitude.clone())),
            Self::Decimal(ref text) => decimal_form(text),
            Self::Time(ref clock) => Some(Self::Time(clock.key_form())),
            Self::DateTime(ref clock) => Some(Self::DateTime(clock.key_form())),
            _ => None,
        }
    }
}

impl Clock {
    /// The same moment in UTC. Times of clocks that hang nowhere stay.
    fn key_form(&self) -> Self {
        let ahead = self.zone.as_ref().map(|zone| zone.ahead_micros);
        Self {
            micros: self.micros.saturating_sub(ahead.unwrap_or(0)),
            fold: false,
            zone: ahead.map(|_| Zone::default()),
        }
    }
}

/// What a float is equal to: a whole number if it has no fraction, each NaN the same.
pub(super) fn float_form(float: f64) -> Option<Value> {
    if float.is_nan() {
        Some(Value::Float(f64::NAN))
    } else if float.is_finite() && float.fract() == 0.0 {
        Some(integral(float))
    } else {
        None
    }
}

fn positive(float: f64) -> f64 {
    if float.is_nan() { f64::NAN } else { float }
}

/// The whole number that a finite float without a fraction is.
fn integral(float: f64) -> Value {
    const FRACTION_BITS: u64 = 52;
    const EXPONENT_BIAS: u64 = 1023;
    let bits = float.abs().to_bits();
    let exponent = (bits >> FRACTION_BITS).saturating_sub(EXPONENT_BIAS);
    if float == 0.0 {
        return Value::Int(0);
    }
    let mantissa = (bits & ((1 << FRACTION_BITS) - 1)) | (1 << FRACTION_BITS);
    let magnitude = match exponent.checked_sub(FRACTION_BITS) {
        // No fraction means that the bits below the point are zero.
        None => (mantissa >> (FRACTION_BITS - exponent))
            .to_le_bytes()
            .to_vec(),
        Some(shift) => {
            let mut magnitude = vec![0; (shift / 8) as usize];
            // At most 53 + 7 bits, which fit.
            magnitude.extend_from_slice(&(mantissa << (shift % 8)).to_le_bytes());
            magnitude
        }
    };
    Value::whole(float < 0.0, magnitude)
}

/// What a decimal is equal to: a whole number, else the float that has exactly this value, else
/// the decimal without zeros at its end.
fn decimal_form(text: &str) -> Option<Value> {
    let unsigned = text.trim_start_matches(['-', '+']);
    let negative = text.starts_with('-');
    if unsigned.eq_ignore_ascii_case("infinity") {
        let infinity = if negative {
            f64::NEG_INFINITY
        } else {
            f64::INFINITY
        };
        return Some(Value::Float(infinity));
    }
    let Some(Digits {
        mut digits,
        exponent,
    }) = Digits::parse(unsigned)
    else {
        // A NaN, quiet or signalling, whatever it carries.
        return Some(Value::Float(f64::NAN));
    };
    if digits.is_empty() {
        return Some(Value::Int(0));
    }
    let whole_digits = exponent.checked_add(digits.len() as i64);
    if exponent >= 0 && whole_digits.is_some_and(|digits| digits <= WHOLE_DIGITS_MAX as i64) {
        digits.resize(digits.len() + exponent as usize, 0);
        return Some(Value::whole(negative, magnitude(&digits)));
    }
    let written: String = digits
        .iter()
        .map(|digit| char::from(b'0' + digit))
        .collect();
    let sign = if negative { "-" } else { "" };
    let canonical = format!("{sign}{written}E{exponent}");
    if exponent < 0
        && let Ok(float) = canonical.parse::<f64>()
        && float.is_finite()
        && Digits::parse(&format!("{:.FLOAT_DIGITS_MAX$}", float.abs()))
            .is_some_and(|exact| exact.digits == digits && exact.exponent == exponent)
    {
        return Some(Value::Float(float));
    }
    Some(Value::Decimal(canonical))
}

/// A positive decimal: its digits without zeros at either end, and the power of ten of the last.
struct Digits {
    digits: Vec<u8>,
    exponent: i64,
}

impl Digits {
    fn parse(text: &str) -> Option<Self> {
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse().ok()?),
            None => (text, 0i64),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let mut digits: Vec<u8> = whole
            .bytes()
            .chain(fraction.bytes())
            .map(|digit| digit.is_ascii_digit().then(|| digit - b'0'))
            .collect::<Option<_>>()?;
        if digits.is_empty() {
            return None;
        }
        let mut exponent = exponent.checked_sub(fraction.len() as i64)?;
        while digits.last() == Some(&0) {
            digits.pop();
            exponent = exponent.checked_add(1)?;
        }
        let zeros = digits.iter().take_while(|digit| **digit == 0).count();
        digits.drain(..zeros);
        Some(Self { digits, exponent })
    }
}

/// The bytes of the number that these decimal digits write, the least byte first.
fn magnitude(digits: &[u8]) -> Vec<u8> {
    /// Digits that are taken at once: as many as fit a word beside the carry.
    const CHUNK: usize = 9;
    let mut words: Vec<u32> = Vec::new();
    for chunk in digits.chunks(CHUNK) {
        let mut carry = chunk
            .iter()
            .fold(0u64, |sum, digit| sum * 10 + u64::from(*digit));
        let scale = 10u64.pow(chunk.len() as u32);
        for word in &mut words {
            let product = u64::from(*word) * scale + carry;
            *word = product as u32;
            carry = product >> 32;
        }
        if carry > 0 {
            words.push(carry as u32);
        }
    }
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}
