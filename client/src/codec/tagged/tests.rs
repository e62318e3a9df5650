//! The bytes of the codec, and which values are one key.

use super::{
    super::value::{Array, Clock, Zone},
    *,
};

fn value_bytes(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    Item::encode(value, &mut out).unwrap();
    out
}

fn key_bytes(value: impl Into<Value>) -> Vec<u8> {
    let mut out = Vec::new();
    Item::encode_key(&value.into(), &mut out).unwrap();
    out
}

#[test]
fn values_are_these_bytes_and_come_back() {
    let big = Value::BigInt {
        negative: true,
        magnitude: vec![0, 0, 0, 0, 0, 0, 0, 0, 1],
    };
    let cases: &[(Value, &[u8])] = &[
        (Value::Null, &[0]),
        (false.into(), &[1]),
        (true.into(), &[2]),
        (0i64.into(), &[3, 0]),
        ((-1i64).into(), &[3, 1]),
        (300i64.into(), &[3, 0xd8, 4]),
        (
            i64::MIN.into(),
            &[3, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1],
        ),
        (
            u64::MAX.into(),
            &[4, 0, 8, 255, 255, 255, 255, 255, 255, 255, 255],
        ),
        (big, &[4, 1, 9, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
        (1.0.into(), &[5, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f]),
        ("hé".into(), &[6, 3, b'h', 0xc3, 0xa9]),
        (vec![1u8, 0].into(), &[7, 2, 1, 0]),
        (vec![Value::Null, 1i64.into()].into(), &[8, 2, 0, 3, 2]),
        (
            vec![("a".into(), Value::Null)].into(),
            &[9, 1, 6, 1, b'a', 0],
        ),
        (
            Value::Extension {
                tag: 0x1d,
                payload: vec![9],
            },
            &[0x1d, 1, 9],
        ),
    ];
    for (value, bytes) in cases {
        assert_eq!(value_bytes(value), *bytes, "{value:?}");
        assert_eq!(Value::decode(bytes).unwrap(), *value);
    }
}

#[test]
fn equal_numbers_are_one_key() {
    for number in [
        key_bytes(1i64),
        key_bytes(1.0),
        key_bytes(true),
        key_bytes(1u64),
    ] {
        assert_eq!(number, [3, 2]);
    }
    assert_eq!(key_bytes(-0.0), key_bytes(false));
    assert_eq!(
        key_bytes(9_007_199_254_740_993i64 as f64),
        key_bytes(9_007_199_254_740_992i64)
    );
    assert_eq!(
        key_bytes(18_446_744_073_709_551_616.0),
        [4, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 1]
    );
    assert_eq!(key_bytes(-9_223_372_036_854_775_808.0), key_bytes(i64::MIN));
    assert_eq!(key_bytes(f64::NAN), key_bytes(-f64::NAN));
    assert_ne!(key_bytes(1.5), key_bytes(1i64));
    assert_eq!(
        key_bytes(vec![Value::Float(2.0), Value::Bool(true)]),
        key_bytes(vec![Value::Int(2), Value::Int(1)])
    );
    let pairs =
        |first: i64, second: i64| vec![(first.into(), Value::Null), (second.into(), Value::Null)];
    assert_eq!(key_bytes(pairs(1, 2)), key_bytes(pairs(2, 1)));
    assert_ne!(
        value_bytes(&1.0.into()),
        value_bytes(&1i64.into()),
        "values stay apart"
    );
}

#[test]
fn bytes_that_are_no_value_are_errors() {
    for bytes in [
        &[][..],
        &[3],
        &[5, 1],
        &[6, 5, b'a'],
        &[6, 1, 0xff],
        &[8, 2, 0],
        &[0x0a],
        &[0x80],
        &[0, 0],
        &[8, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1],
    ] {
        assert!(Value::decode(bytes).is_err(), "{bytes:?}");
    }
    let mut deep = [8, 1].repeat(VALUE_DEPTH_MAX + 1);
    deep.push(0);
    assert!(
        Value::decode(&deep)
            .unwrap_err()
            .to_string()
            .starts_with("nested deeper")
    );
    let nested = (0..=VALUE_DEPTH_MAX).fold(Value::Null, |inner, _| Value::List(vec![inner]));
    assert!(Item::encode(&nested, &mut Vec::new()).is_err());
}

#[test]
fn types_of_python_are_these_bytes_and_come_back() {
    let berlin = Zone {
        ahead_micros: 2,
        name: "Europe/Berlin".to_owned(),
        is_iana: true,
    };
    let cases: Vec<(Value, Vec<u8>)> = vec![
        (Value::Tuple(vec![]), vec![0x10, 0]),
        (
            Value::Tuple(vec![1i64.into(), Value::Tuple(vec![Value::Null])]),
            vec![0x10, 5, 3, 2, 0x10, 1, 0],
        ),
        (
            Value::Set(vec![1i64.into(), "a".into()]),
            vec![0x11, 5, 3, 2, 6, 1, b'a'],
        ),
        (Value::FrozenSet(vec![Value::Null]), vec![0x12, 1, 0]),
        (
            Value::Complex(1.0, -2.0),
            [&[0x13, 16][..], &1f64.to_le_bytes(), &(-2f64).to_le_bytes()].concat(),
        ),
        (Value::Date(-1), vec![0x14, 4, 255, 255, 255, 255]),
        (
            Value::Time(Clock {
                micros: 1,
                fold: true,
                zone: None,
            }),
            vec![0x15, 9, 1, 0, 0, 0, 0, 0, 0, 0, 1],
        ),
        (
            Value::DateTime(Clock {
                micros: 3,
                fold: false,
                zone: Some(berlin),
            }),
            [
                &[0x16, 30, 3, 0, 0, 0, 0, 0, 0, 0, 6, 2, 0, 0, 0, 0, 0, 0, 0][..],
                b"Europe/Berlin",
            ]
            .concat(),
        ),
        (
            Value::TimeSpan {
                days: -1,
                seconds: 2,
                micros: 3,
            },
            vec![0x17, 12, 255, 255, 255, 255, 2, 0, 0, 0, 3, 0, 0, 0],
        ),
        (
            Value::Decimal("-1.50".to_owned()),
            b"\x18\x05-1.50".to_vec(),
        ),
        (
            Value::Array(Array {
                element: "<i2".to_owned(),
                shape: vec![2, 1],
                data: vec![1, 0, 2, 0],
                is_scalar: false,
            }),
            b"\x19\x0c\0\x03<i2\x02\x02\x01\x01\0\x02\0".to_vec(),
        ),
        (Value::Uuid([7; 16]), [&[0x1a, 16][..], &[7; 16]].concat()),
    ];
    for (value, bytes) in cases {
        assert_eq!(value_bytes(&value), bytes, "{value:?}");
        assert_eq!(Value::decode(&bytes).unwrap(), value);
        for cut in 0..bytes.len() {
            assert!(
                Value::decode(&bytes[..cut]).is_err(),
                "{value:?} cut at {cut}"
            );
        }
    }
}

#[test]
fn content_longer_than_a_byte_says_has_its_length_before_it() {
    for count in [127, 128, 300, 20_000] {
        let tuple = Value::Tuple(vec![Value::Null; count]);
        let bytes = value_bytes(&tuple);
        assert_eq!(Value::decode(&bytes).unwrap(), tuple);
    }
}

#[test]
fn decimals_and_complex_numbers_are_one_key_with_what_they_equal() {
    let decimal = |text: &str| key_bytes(Value::Decimal(text.to_owned()));
    for one in ["1", "1.0", "1.000E+0", "10E-1", "0.1E1", "+1"] {
        assert_eq!(decimal(one), key_bytes(1i64), "{one}");
    }
    for zero in ["0", "-0", "0.000", "0E+99"] {
        assert_eq!(decimal(zero), key_bytes(0i64), "{zero}");
    }
    assert_eq!(decimal("0.5"), key_bytes(0.5));
    assert_eq!(decimal("-2.50"), key_bytes(-2.5));
    assert_eq!(decimal("1E+20"), key_bytes(1e20));
    assert_eq!(
        decimal("-18446744073709551616"),
        key_bytes(-18_446_744_073_709_551_616.0)
    );
    assert_eq!(decimal("Infinity"), key_bytes(f64::INFINITY));
    assert_eq!(decimal("NaN"), key_bytes(f64::NAN));
    // No float is a tenth.
    assert_eq!(decimal("0.10"), b"\x18\x041E-1");
    assert_ne!(decimal("0.1"), key_bytes(0.1));
    let exact = format!("{:.60}", 0.1);
    assert_eq!(decimal(&exact), key_bytes(0.1));
    assert_eq!(key_bytes(Value::Complex(3.0, 0.0)), key_bytes(3i64));
    assert_eq!(key_bytes(Value::Complex(0.25, -0.0)), key_bytes(0.25));
    assert_eq!(
        key_bytes(Value::Complex(-0.0, 1.0)),
        key_bytes(Value::Complex(0.0, 1.0))
    );
}

#[test]
fn one_moment_in_two_zones_is_one_key() {
    let hour = 3_600_000_000;
    let at = |micros, ahead: Option<i64>| {
        let zone = ahead.map(|ahead_micros| Zone {
            ahead_micros,
            name: "here".to_owned(),
            is_iana: false,
        });
        key_bytes(Value::DateTime(Clock {
            micros,
            fold: true,
            zone,
        }))
    };
    assert_eq!(at(5 * hour, Some(hour)), at(4 * hour, Some(0)));
    assert_ne!(at(4 * hour, Some(0)), at(4 * hour, None));
}

#[test]
fn sets_are_one_key_in_any_order_and_tuples_are_not() {
    let set = |items: &[i64]| items.iter().copied().map(Value::from).collect::<Vec<_>>();
    assert_eq!(
        key_bytes(Value::Set(set(&[1, 2, 3]))),
        key_bytes(Value::FrozenSet(set(&[3, 1, 2]))),
    );
    assert_ne!(
        key_bytes(Value::Tuple(set(&[1, 2]))),
        key_bytes(Value::Tuple(set(&[2, 1])))
    );
    assert_ne!(
        key_bytes(Value::Tuple(set(&[1]))),
        key_bytes(Value::List(set(&[1])))
    );
    assert_eq!(
        key_bytes(Value::Tuple(vec![Value::Bool(true)])),
        key_bytes(Value::Tuple(vec![Value::Float(1.0)])),
    );
}

/// The same file is read by the tests of the Python package, which encode objects without values
/// in between: both must write these bytes.
#[test]
fn python_and_rust_write_the_same_bytes() {
    let unhex = |digits: &str| -> Vec<u8> {
        let (pairs, _) = digits.trim().as_bytes().as_chunks::<2>();
        pairs
            .iter()
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    };
    let mut count = 0;
    for line in include_str!("vectors.txt").lines() {
        if line.starts_with('#') {
            continue;
        }
        let mut parts = line.rsplitn(3, '|');
        let (key, bytes) = (parts.next().unwrap(), unhex(parts.next().unwrap()));
        let value = Value::decode(&bytes).unwrap();
        assert_eq!(value_bytes(&value), bytes, "{line}");
        if key != "-" {
            assert_eq!(key_bytes(value), unhex(key), "{line}");
        }
        count += 1;
    }
    assert!(count > 40);
}
