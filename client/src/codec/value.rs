//! A value that says itself what it is.

/// The deepest nesting of lists and maps that is encoded or decoded.
pub const VALUE_DEPTH_MAX: usize = 128;

/// A value of the codec [`ValueCodec`](super::ValueCodec), which the command line, Python and Rust
/// share.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// Nothing.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number of 64 bits.
    Int(i64),
    /// A whole number outside of 64 bits: its sign, and its magnitude with the least byte first.
    BigInt {
        /// Whether it is below zero.
        negative: bool,
        /// The magnitude, without zeros at the end.
        magnitude: Vec<u8>,
    },
    /// A floating-point number.
    Float(f64),
    /// Text.
    Str(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// Values in order.
    List(Vec<Value>),
    /// Pairs of a key and a value, in order.
    Map(Vec<(Value, Value)>),
    /// A type of another language, carried through as it is: tuples, sets, dates, arrays.
    Extension {
        /// Which type, from the codec's table.
        tag: u8,
        /// Its content, in that type's own format.
        payload: Vec<u8>,
    },
}

impl Value {
    /// The whole number of this sign and magnitude, as `Int` if it fits.
    pub fn whole(negative: bool, mut magnitude: Vec<u8>) -> Self {
        while magnitude.last() == Some(&0) {
            magnitude.pop();
        }
        if magnitude.len() <= 8 {
            let mut bytes = [0; 8];
            for (to, from) in bytes.iter_mut().zip(&magnitude) {
                *to = *from;
            }
            let absolute = i128::from(u64::from_le_bytes(bytes));
            if let Ok(number) = i64::try_from(if negative { -absolute } else { absolute }) {
                return Self::Int(number);
            }
        }
        Self::BigInt {
            negative,
            magnitude,
        }
    }

    /// What stands for this value in a key: numbers that are equal become the same.
    pub(super) fn key_number(&self) -> Option<Self> {
        match *self {
            Self::Bool(truth) => Some(Self::Int(i64::from(truth))),
            Self::Float(float) if float.is_nan() => Some(Self::Float(f64::NAN)),
            Self::Float(float) if float.is_finite() && float.fract() == 0.0 => {
                Some(integral(float))
            }
            Self::BigInt {
                negative,
                ref magnitude,
            } => Some(Self::whole(negative, magnitude.clone())),
            _ => None,
        }
    }
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

macro_rules! from {
    ($($type:ty => $make:expr),* $(,)?) => {$(
        impl From<$type> for Value {
            fn from(value: $type) -> Self {
                $make(value)
            }
        }
    )*};
}

from! {
    bool => Value::Bool,
    i64 => Value::Int,
    i32 => |number| Value::Int(i64::from(number)),
    u32 => |number| Value::Int(i64::from(number)),
    u64 => |number: u64| Value::whole(false, number.to_le_bytes().to_vec()),
    f64 => Value::Float,
    String => Value::Str,
    &str => |text: &str| Value::Str(text.to_owned()),
    Vec<u8> => Value::Bytes,
    &[u8] => |bytes: &[u8]| Value::Bytes(bytes.to_vec()),
    Vec<Value> => Value::List,
    Vec<(Value, Value)> => Value::Map,
}
