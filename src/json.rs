//! Values and bytes as JSON, and back.
//!
//! What JSON has no form for is an object with one name that begins with a dollar sign:
//! `{"$hex": "00ff"}` for bytes, `{"$int": "0x1…"}` for whole numbers beyond 64 bits,
//! `{"$float": "NaN"}` for floats that are no numbers, `{"$map": [[key, value], …]}` for maps whose
//! keys are not plain text, `{"$tuple": […]}`, `{"$set": […]}`, `{"$frozenset": […]}`,
//! `{"$complex": [real, imaginary]}`, `{"$decimal": "1.50"}`, and what `clock` and `array` below say
//! for dates, times and arrays; `{"$extension": [tag, "hex"]}` for what only Python can read. Bytes,
//! maps, tuples, sets, complex numbers and decimals are read as well as written.

use rhash_client::{Value, codec::Clock};
use serde_json::{Map, json};

/// Reads an argument: JSON if it parses as that, else a string.
pub(crate) fn value_of_argument(argument: &str) -> Value {
    match serde_json::from_str(argument) {
        Ok(json) => from_json(json),
        Err(_not_json) => Value::Str(argument.to_owned()),
    }
}

/// Reads an argument for a table of bytes: its own bytes, or those of `{"$hex": …}`.
pub(crate) fn bytes_of_argument(argument: &str) -> Vec<u8> {
    match serde_json::from_str(argument).map(from_json) {
        Ok(Value::Bytes(bytes)) => bytes,
        _ => argument.as_bytes().to_vec(),
    }
}

/// Bytes as text if they are text, else as hexadecimal digits.
pub(crate) fn json_of_bytes(bytes: &[u8]) -> serde_json::Value {
    match str::from_utf8(bytes) {
        Ok(text) => json!(text),
        Err(_not_text) => json!({ "$hex": hex(bytes) }),
    }
}

/// A value as JSON.
pub(crate) fn json_of_value(value: &Value) -> serde_json::Value {
    match value {
        Value::Null => json!(null),
        Value::Bool(truth) => json!(truth),
        Value::Int(number) => json!(number),
        Value::BigInt {
            negative,
            magnitude,
        } => json_of_big(*negative, magnitude),
        Value::Float(float) if float.is_finite() => json!(float),
        Value::Float(float) => json!({ "$float": float.to_string() }),
        Value::Str(text) => json!(text),
        Value::Bytes(bytes) => json!({ "$hex": hex(bytes) }),
        Value::List(values) => values.iter().map(json_of_value).collect(),
        Value::Map(pairs) => json_of_map(pairs),
        Value::Tuple(values) => json!({ "$tuple": list(values) }),
        Value::Set(values) => json!({ "$set": list(values) }),
        Value::FrozenSet(values) => json!({ "$frozenset": list(values) }),
        Value::Complex(real, imaginary) => json!({ "$complex": [real, imaginary] }),
        Value::Date(days) => json!({ "$date": date(i64::from(*days)) }),
        Value::Time(clock) => json!({ "$time": time_of(clock) }),
        Value::DateTime(clock) => json!({ "$datetime": date_time_of(clock) }),
        Value::TimeSpan {
            days,
            seconds,
            micros,
        } => json!({ "$timespan": [days, seconds, micros] }),
        Value::Decimal(text) => json!({ "$decimal": text }),
        Value::Array(array) => json!({
            "$array": { "type": array.element, "shape": array.shape, "hex": hex(&array.data) }
        }),
        Value::Uuid(bytes) => json!({ "$uuid": hex(bytes) }),
        Value::Extension { tag, payload } => json!({ "$extension": [tag, hex(payload)] }),
        other => json!({ "$unknown": format!("{other:?}") }),
    }
}

fn list(values: &[Value]) -> Vec<serde_json::Value> {
    values.iter().map(json_of_value).collect()
}

const MICROS_A_SECOND: i64 = 1_000_000;
const MICROS_A_DAY: i64 = 86_400 * MICROS_A_SECOND;

/// A date as ISO 8601 writes it.
fn date(days: i64) -> String {
    // Years begin in March here, so that the day that some have more is the last; 400 years make
    // 146,097 days.
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    format!("{:04}-{month:02}-{day:02}", era * 400 + year + next)
}

/// A time as ISO 8601 writes it, with the name of its zone in brackets.
fn time_of(clock: &Clock) -> String {
    let (seconds, micros) = (
        clock.micros / MICROS_A_SECOND,
        clock.micros % MICROS_A_SECOND,
    );
    let mut text = format!(
        "{:02}:{:02}:{:02}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    );
    if micros != 0 {
        text.push_str(&format!(".{micros:06}"));
    }
    if let Some(zone) = &clock.zone {
        let minutes = zone.ahead_micros / (60 * MICROS_A_SECOND);
        let sign = if minutes < 0 { '-' } else { '+' };
        let (hours, minutes) = (minutes.abs() / 60, minutes.abs() % 60);
        text.push_str(&format!("{sign}{hours:02}:{minutes:02}"));
        if !zone.name.is_empty() {
            text.push_str(&format!("[{}]", zone.name));
        }
    }
    text
}

fn date_time_of(clock: &Clock) -> String {
    let time = Clock {
        micros: clock.micros.rem_euclid(MICROS_A_DAY),
        ..clock.clone()
    };
    format!(
        "{}T{}",
        date(clock.micros.div_euclid(MICROS_A_DAY)),
        time_of(&time)
    )
}

fn json_of_big(negative: bool, magnitude: &[u8]) -> serde_json::Value {
    let positive = Value::BigInt {
        negative: false,
        magnitude: magnitude.to_vec(),
    };
    if let Some(number) = (!negative).then(|| small(&positive)).flatten() {
        return json!(number);
    }
    let digits: Vec<u8> = magnitude.iter().rev().copied().collect();
    let sign = if negative { "-" } else { "" };
    json!({ "$int": format!("{sign}0x{}", hex(&digits)) })
}

/// A positive whole number, if JSON's numbers reach it.
fn small(value: &Value) -> Option<u64> {
    let Value::BigInt { magnitude, .. } = value else {
        return None;
    };
    let mut bytes = [0; 8];
    bytes.get_mut(..magnitude.len())?.copy_from_slice(magnitude);
    Some(u64::from_le_bytes(bytes))
}

fn json_of_map(pairs: &[(Value, Value)]) -> serde_json::Value {
    let plain = |(key, value): &(Value, Value)| match key {
        Value::Str(name) if !name.starts_with('$') => Some((name.clone(), json_of_value(value))),
        _ => None,
    };
    match pairs.iter().map(plain).collect::<Option<Map<_, _>>>() {
        Some(object) if object.len() == pairs.len() => serde_json::Value::Object(object),
        _ => {
            let pair = |(key, value)| json!([json_of_value(key), json_of_value(value)]);
            json!({ "$map": pairs.iter().map(|(key, value)| pair((key, value))).collect::<Vec<_>>() })
        }
    }
}

/// JSON as a value.
pub(crate) fn from_json(json: serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(truth) => Value::Bool(truth),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Value::Int(number),
            (None, Some(number)) => Value::from(number),
            (None, None) => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        serde_json::Value::String(text) => Value::Str(text),
        serde_json::Value::Array(items) => Value::List(items.into_iter().map(from_json).collect()),
        serde_json::Value::Object(object) => special(&object).unwrap_or_else(|| {
            Value::Map(
                object
                    .into_iter()
                    .map(|(k, v)| (Value::Str(k), from_json(v)))
                    .collect(),
            )
        }),
    }
}

fn special(object: &Map<String, serde_json::Value>) -> Option<Value> {
    if object.len() != 1 {
        return None;
    }
    if let Some(digits) = object.get("$hex").and_then(|digits| digits.as_str()) {
        return unhex(digits).map(Value::Bytes);
    }
    let (name, content) = object.iter().next()?;
    let values = || Some(content.as_array()?.iter().cloned().map(from_json).collect());
    match name.as_str() {
        "$tuple" => return values().map(Value::Tuple),
        "$set" => return values().map(Value::Set),
        "$frozenset" => return values().map(Value::FrozenSet),
        "$decimal" => return content.as_str().map(|text| Value::Decimal(text.to_owned())),
        "$complex" => match &content.as_array()?[..] {
            [real, imaginary] => {
                return Some(Value::Complex(real.as_f64()?, imaginary.as_f64()?));
            }
            _ => return None,
        },
        _ => {}
    }
    let pairs = object.get("$map")?.as_array()?;
    let pair = |pair: &serde_json::Value| match &pair.as_array()?[..] {
        [key, value] => Some((from_json(key.clone()), from_json(value.clone()))),
        _ => None,
    };
    Some(Value::Map(pairs.iter().map(pair).collect::<Option<_>>()?))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    let digit = |digit: &u8| char::from(*digit).to_digit(16).map(|digit| digit as u8);
    let digits = digits
        .as_bytes()
        .iter()
        .map(digit)
        .collect::<Option<Vec<u8>>>()?;
    let (pairs, rest) = digits.as_chunks::<2>();
    rest.is_empty()
        .then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_json_or_strings() {
        for (argument, value) in [
            ("17", Value::Int(17)),
            ("-1.5", Value::Float(-1.5)),
            ("true", Value::Bool(true)),
            ("null", Value::Null),
            ("\"17\"", Value::Str("17".into())),
            ("plain words", Value::Str("plain words".into())),
            (
                "[1, \"a\"]",
                Value::List(vec![Value::Int(1), Value::Str("a".into())]),
            ),
            (
                "{\"a\": 1}",
                Value::Map(vec![(Value::Str("a".into()), Value::Int(1))]),
            ),
            ("{\"$hex\": \"00fF\"}", Value::Bytes(vec![0, 255])),
        ] {
            assert_eq!(value_of_argument(argument), value, "{argument}");
        }
        assert_eq!(bytes_of_argument("17"), b"17");
        assert_eq!(bytes_of_argument("{\"$hex\": \"00ff\"}"), [0, 255]);
        assert_eq!(bytes_of_argument("{\"$hex\": \"0\"}"), b"{\"$hex\": \"0\"}");
    }

    #[test]
    fn values_become_json() {
        let map = |key: Value| Value::Map(vec![(key, Value::Bool(false))]);
        for (value, expected) in [
            (Value::Bytes(vec![1, 171]), r#"{"$hex":"01ab"}"#),
            (Value::Float(f64::INFINITY), r#"{"$float":"inf"}"#),
            (Value::from(u64::MAX), "18446744073709551615"),
            (
                Value::whole(true, vec![0, 0, 0, 0, 0, 0, 0, 0, 1]),
                r#"{"$int":"-0x010000000000000000"}"#,
            ),
            (map(Value::Str("a".into())), r#"{"a":false}"#),
            (map(Value::Int(1)), r#"{"$map":[[1,false]]}"#),
            (
                map(Value::Str("$hex".into())),
                r#"{"$map":[["$hex",false]]}"#,
            ),
        ] {
            assert_eq!(json_of_value(&value).to_string(), expected);
        }
        assert_eq!(json_of_bytes(b"text").to_string(), "\"text\"");
        assert_eq!(json_of_bytes(b"\xff").to_string(), r#"{"$hex":"ff"}"#);
    }

    #[test]
    fn what_is_written_reads_back() {
        for value in [
            Value::Map(vec![(Value::Int(1), Value::Bytes(vec![7]))]),
            Value::List(vec![Value::Null, Value::Int(i64::MIN), Value::Float(0.1)]),
            Value::from(u64::MAX),
            Value::Tuple(vec![
                Value::Set(vec![]),
                Value::FrozenSet(vec![Value::Int(1)]),
            ]),
            Value::Complex(1.5, -2.0),
            Value::Decimal("1.50".to_owned()),
        ] {
            assert_eq!(from_json(json_of_value(&value)), value);
        }
    }

    #[test]
    fn dates_and_times_are_written_as_people_write_them() {
        for (days, text) in [
            (0, "1970-01-01"),
            (-1, "1969-12-31"),
            (11_016, "2000-02-29"),
            (11_017, "2000-03-01"),
            (-719_162, "0001-01-01"),
            (2_932_896, "9999-12-31"),
        ] {
            assert_eq!(date(days), text);
        }
        let zone = rhash_client::codec::Zone {
            ahead_micros: -5_400 * MICROS_A_SECOND,
            name: "X".to_owned(),
            is_iana: false,
        };
        let clock = Clock {
            micros: -1,
            fold: false,
            zone: Some(zone),
        };
        assert_eq!(date_time_of(&clock), "1969-12-31T23:59:59.999999-01:30[X]");
    }
}
