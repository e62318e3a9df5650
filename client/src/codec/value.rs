//! A value that says itself what it is.

/// The deepest nesting of lists, maps, tuples and sets that is encoded or decoded.
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
    /// Values in order, as one that does not change: Python's tuple.
    Tuple(Vec<Value>),
    /// Different values in no order.
    Set(Vec<Value>),
    /// Different values in no order, as one that does not change.
    FrozenSet(Vec<Value>),
    /// A complex number: its real and its imaginary part.
    Complex(f64, f64),
    /// A day, counted from 1970-01-01.
    Date(i32),
    /// A time of the day.
    Time(Clock),
    /// A day and a time.
    DateTime(Clock),
    /// A span of time; seconds and microseconds are positive and less than a day and a second.
    TimeSpan {
        /// Whole days, which may be negative.
        days: i32,
        /// Seconds beyond the days.
        seconds: u32,
        /// Microseconds beyond the seconds.
        micros: u32,
    },
    /// A decimal number, as Python's `Decimal` writes it.
    Decimal(String),
    /// An array of numbers.
    Array(Array),
    /// A UUID, its first byte first.
    Uuid([u8; 16]),
    /// A type of another language, carried through as it is.
    Extension {
        /// Which type, from the codec's table.
        tag: u8,
        /// Its content, in that type's own format.
        payload: Vec<u8>,
    },
}

/// What a clock on the wall shows, and where it hangs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Clock {
    /// Microseconds of the clock's time: since midnight for a time, since 1970-01-01 00:00 by the
    /// same clock for a day and a time.
    pub micros: i64,
    /// Whether it is the second of two equal times, as when a summer ends.
    pub fold: bool,
    /// The clock's zone, if that is known.
    pub zone: Option<Zone>,
}

/// A time zone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Zone {
    /// Microseconds by which its clocks are ahead of UTC, at the time that is meant.
    pub ahead_micros: i64,
    /// Its name, if it has one.
    pub name: String,
    /// Whether the name is one of the IANA's table, which knows the zone's rules.
    pub is_iana: bool,
}

/// An array of numbers of one type, in as many dimensions as needed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Array {
    /// The type of its elements, as numpy writes it: `<f8`, `|b1`, `<M8[ns]`.
    pub element: String,
    /// The length of each dimension.
    pub shape: Vec<u64>,
    /// The elements, the last dimension changing fastest.
    pub data: Vec<u8>,
    /// Whether it is not an array but one number of that type.
    pub is_scalar: bool,
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
