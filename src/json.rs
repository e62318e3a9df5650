//! Values and bytes as JSON, and back.
//!
//! What JSON has no form for is an object with one name that begins with a dollar sign:
//! `{"$hex": "00ff"}` for bytes, `{"$int": "0x1…"}` for whole numbers beyond 64 bits,
//! `{"$float": "NaN"}` for floats that are no numbers, `{"$map": [[key, value], …]}` for maps whose
//! keys are not plain text, and `{"$extension": [tag, "hex"]}` for types of other languages. The
//! first and the fourth are read as well as written.

use rhash_client::Value;
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
        Value::Extension { tag, payload } => json!({ "$extension": [tag, hex(payload)] }),
        other => json!({ "$unknown": format!("{other:?}") }),
    }
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
        ] {
            assert_eq!(from_json(json_of_value(&value)), value);
        }
    }
}
