//! Packed batches: their bytes, their round trips, and what is not one.

use proptest::{collection::vec, option, prelude::*};

use super::*;

fn ops_bytes(ops: &[Op<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for op in ops {
        push_op(&mut bytes, op);
    }
    bytes
}

#[test]
fn operations_are_these_bytes() {
    let key = b"k".as_slice();
    let cases: [(Op<'_>, &[u8]); 10] = [
        (Op::Put { key, value: b"va" }, b"\x00\x01k\x02va"),
        (Op::Append { key, bytes: b"xyz" }, b"\x01\x01k\x03xyz"),
        (
            Op::Add { key, delta: -2 },
            b"\x02\x01k\xfe\xff\xff\xff\xff\xff\xff\xff",
        ),
        (Op::Discard { key }, b"\x03\x01k"),
        (Op::PutIfAbsent { key, value: b"" }, b"\x04\x01k\x00"),
        (Op::Replace { key, value: b"v" }, b"\x05\x01k\x01v"),
        (
            Op::CompareAndSwap {
                key,
                expected: Some(b"old"),
                new: Some(b"new"),
            },
            b"\x06\x01k\x01\x03old\x01\x03new",
        ),
        (
            Op::CompareAndSwap {
                key,
                expected: None,
                new: None,
            },
            b"\x06\x01k\x00\x00",
        ),
        (Op::Remove { key }, b"\x07\x01k"),
        (
            Op::AddAndGet { key, delta: 258 },
            b"\x08\x01k\x02\x01\x00\x00\x00\x00\x00\x00",
        ),
    ];
    for (op, bytes) in cases {
        assert_eq!(ops_bytes(&[op]), bytes, "{op:?}");
        assert_eq!(Ops::new(1, bytes).iter().next(), Some(Ok(op)));
    }
}

#[test]
fn outcomes_slots_presences_and_entries_are_these_bytes() {
    let mut bytes = Vec::new();
    push_outcome(&mut bytes, &Outcome::Absent);
    push_outcome(&mut bytes, &Outcome::Value(b"v"));
    push_outcome(&mut bytes, &Outcome::Swapped);
    assert_eq!(bytes, b"\x00\x01\x01v\x02");
    let back: Result<Vec<_>, _> = Outcomes::new(3, &bytes).iter().collect();
    assert_eq!(
        back,
        Ok(vec![
            Outcome::Absent,
            Outcome::Value(b"v"),
            Outcome::Swapped
        ])
    );

    bytes.clear();
    push_slot(&mut bytes, &Slot::Absent);
    push_slot(&mut bytes, &Slot::Value(b"v"));
    push_slot(&mut bytes, &Slot::Large(300));
    assert_eq!(bytes, b"\x00\x01\x01v\x02\xac\x02");
    let back: Result<Vec<_>, _> = Values::new(3, &bytes).iter().collect();
    assert_eq!(
        back,
        Ok(vec![Slot::Absent, Slot::Value(b"v"), Slot::Large(300)])
    );

    bytes.clear();
    push_presence(&mut bytes, true);
    push_presence(&mut bytes, false);
    assert_eq!(bytes, b"\x01\x00");
    let back: Result<Vec<_>, _> = Presence::new(2, &bytes).iter().collect();
    assert_eq!(back, Ok(vec![true, false]));

    bytes.clear();
    push_page_entry(
        &mut bytes,
        &PageEntry {
            key: b"k",
            value: Slot::Value(b"v"),
        },
    );
    assert_eq!(bytes, b"\x01k\x01\x01v");
    assert_eq!(PageEntries::new(1, &bytes).check(), Ok(()));
}

#[test]
fn numbers_take_the_bytes_they_need() {
    for (number, bytes) in [
        (0, &b"\x00"[..]),
        (127, b"\x7f"),
        (128, b"\x80\x01"),
        (u64::from(u32::MAX), b"\xff\xff\xff\xff\x0f"),
        (u64::MAX, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
    ] {
        let mut out = Vec::new();
        push_number(&mut out, number);
        assert_eq!(out, bytes);
        let mut rest = bytes;
        assert_eq!((take_number(&mut rest), rest), (Ok(number), &b""[..]));
    }
    for bytes in [
        &b"\x80"[..],
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02",
        &[0xff; 11],
    ] {
        assert!(take_number(&mut { bytes }).is_err(), "{bytes:?}");
    }
}

#[test]
fn what_does_not_fit_ends_a_batch_with_an_error() {
    let whole = ops_bytes(&[Op::Put {
        key: b"key",
        value: b"value",
    }]);
    assert_eq!(Ops::new(1, &whole).check(), Ok(()));
    assert_eq!(
        Ops::new(0, &whole).check(),
        Err(Malformed("bytes left over"))
    );
    assert_eq!(
        Ops::new(2, &whole).check(),
        Err(Malformed("the end inside an entry"))
    );
    assert_eq!(
        Ops::new(1, b"\x09\x01k").check(),
        Err(Malformed("an unknown operation"))
    );
    assert_eq!(
        Keys::new(1, b"\x05key").check(),
        Err(Malformed("a length beyond the end"))
    );
    let mut entries = Ops::new(u32::MAX, b"").iter();
    assert!(entries.next().is_some_and(|entry| entry.is_err()));
    assert!(
        entries.next().is_none(),
        "an error ends the batch, whatever its count says"
    );
}

/// An operation that owns its operands, so that proptest can make one.
#[derive(Debug, Clone)]
struct OwnedOp {
    tag: u8,
    key: Vec<u8>,
    first: Option<Vec<u8>>,
    second: Option<Vec<u8>>,
    delta: i64,
}

impl OwnedOp {
    fn op(&self) -> Op<'_> {
        let key = self.key.as_slice();
        let value = self.first.as_deref().unwrap_or_default();
        match self.tag {
            0 => Op::Put { key, value },
            1 => Op::Append { key, bytes: value },
            2 => Op::Add {
                key,
                delta: self.delta,
            },
            3 => Op::Discard { key },
            4 => Op::PutIfAbsent { key, value },
            5 => Op::Replace { key, value },
            6 => Op::CompareAndSwap {
                key,
                expected: self.first.as_deref(),
                new: self.second.as_deref(),
            },
            7 => Op::Remove { key },
            _ => Op::AddAndGet {
                key,
                delta: self.delta,
            },
        }
    }
}

fn owned_op() -> impl Strategy<Value = OwnedOp> {
    let value = || option::of(vec(any::<u8>(), 0..300));
    (
        0..9u8,
        vec(any::<u8>(), 0..200),
        value(),
        value(),
        any::<i64>(),
    )
        .prop_map(|(tag, key, first, second, delta)| OwnedOp {
            tag,
            key,
            first,
            second,
            delta,
        })
}

proptest! {
    #[test]
    fn batches_come_back(owned in vec(owned_op(), 0..20)) {
        let ops: Vec<Op<'_>> = owned.iter().map(OwnedOp::op).collect();
        let bytes = ops_bytes(&ops);
        let batch = Ops::new(ops.len() as u32, &bytes);
        prop_assert_eq!(batch.check(), Ok(()));
        let back: Result<Vec<_>, _> = batch.iter().collect();
        prop_assert_eq!(back, Ok(ops));
    }

    #[test]
    fn cut_batches_are_errors(owned in vec(owned_op(), 1..5), cut in any::<prop::sample::Index>()) {
        let ops: Vec<Op<'_>> = owned.iter().map(OwnedOp::op).collect();
        let bytes = ops_bytes(&ops);
        let cut = &bytes[..cut.index(bytes.len())];
        prop_assert!(Ops::new(ops.len() as u32, cut).check().is_err());
    }

    #[test]
    fn arbitrary_bytes_never_panic(count in any::<u32>(), bytes in vec(any::<u8>(), 0..400)) {
        let entries = Ops::new(count, &bytes).iter().count();
        // Each entry takes a byte at least, and at most one is an error.
        prop_assert!(entries <= bytes.len() + 1);
        let _ = Outcomes::new(count, &bytes).check();
        let _ = Keys::new(count, &bytes).check();
        let _ = Values::new(count, &bytes).check();
        let _ = Presence::new(count, &bytes).check();
        let _ = PageEntries::new(count, &bytes).check();
    }
}
