//! An answer is as long as its reader has room for, whether its values are hot or cold.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use rhash_protocol::{Keys, Op, Slot, TableKind, Values, packed::push_bytes};

use super::support::{open, open_table, tiny, wait, write};
use crate::{
    hot::Sweep,
    table::{Allowance, Table},
};

/// So many bytes to begin with, and no more than a bound.
#[derive(Debug)]
struct Room {
    bytes: AtomicUsize,
    bytes_max: usize,
}

impl Allowance for Room {
    fn bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }

    fn raise_to(&self, bytes: usize) -> bool {
        let fits = bytes <= self.bytes_max;
        if fits {
            self.bytes.fetch_max(bytes, Relaxed);
        }
        fits
    }
}

/// What each key's slot said, of a prefix of the keys: a value's length, whether it came or not.
fn get_within(table: &Arc<Table>, keys: &[u32], bytes_max: usize) -> Vec<(bool, usize)> {
    let mut packed = Vec::new();
    for key in keys {
        push_bytes(&mut packed, &key.to_be_bytes());
    }
    let room = Arc::new(Room {
        bytes: AtomicUsize::new(100),
        bytes_max,
    });
    let keys = Keys::new(keys.len() as u32, &packed);
    let reply = wait(table.get_within(keys, Arc::clone(&room) as Arc<dyn Allowance>));
    let reply = reply.expect("a get");
    assert!(reply.bytes.len() <= bytes_max.max(100), "{bytes_max}");
    let slots = Values::new(reply.count, &reply.bytes);
    let slots = slots.iter().map(|slot| match slot.expect("a sound slot") {
        Slot::Value(value) => (true, value.len()),
        Slot::Large(bytes) => (false, bytes as usize),
        Slot::Absent => (true, 0),
    });
    slots.collect()
}

#[test]
fn an_answer_ends_before_what_it_has_no_room_for() {
    const LONG: usize = 100_000;
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(Some(dir.path()), tiny(64));
    let table = open_table(&store, "t", TableKind::Values);
    let long = vec![7; LONG];
    for key in 0..4u32 {
        let (key, value) = (key.to_be_bytes(), &long[..if key == 1 { 10 } else { LONG }]);
        let put = Op::Put { key: &key, value };
        write(&table, &[put]).expect("a write");
    }
    for cold in [false, true] {
        if cold {
            while table.has_unspilled() {
                table.spill(usize::MAX, Sweep::All).expect("a spill");
            }
        }
        let all = [(true, LONG), (true, 10), (true, LONG), (true, LONG)];
        assert_eq!(get_within(&table, &[0, 1, 2, 3], 1 << 20)[..2], all[..2]);
        let short = get_within(&table, &[0, 1, 2, 3], LONG + 1000);
        assert!((1..=2).contains(&short.len()), "{short:?}");
        assert_eq!(short[..], all[..short.len()]);
        assert_eq!(
            get_within(&table, &[0], LONG),
            [(false, LONG)],
            "one that does not fit by itself is to be fetched"
        );
        assert_eq!(get_within(&table, &[1, 9], 100), [(true, 10), (true, 0)]);
    }
}
