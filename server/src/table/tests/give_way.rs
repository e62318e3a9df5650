//! Which merges rest while reads wait for the disk.

use std::time::{Duration, Instant};

use rhash_protocol::{Op, TableKind};

use super::support::{open, open_table, tiny, write};
use crate::{
    counters::Waiting,
    hot::Sweep,
    table::{due::Cause, give_way::QUIET_AFTER},
};

/// What may take longer than reads are remembered for is tried again, up to this.
const DEADLINE: Duration = Duration::from_secs(20);

#[test]
fn merges_rest_for_reads_unless_somebody_waits_for_them() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(Some(dir.path()), tiny(16));
    let table = open_table(&store, "t", TableKind::Values);
    let shared = &table.shared;
    let causes = [Cause::Depth, Cause::Garbage];
    let after_a_read = || {
        shared.pool.waits();
        causes.map(|cause| table.reads_go_first(cause))
    };
    // A thread that does not run for a while sees no read of late, nor a spill.
    let sees = |expected: [bool; 2], prepare: &dyn Fn()| {
        let began = Instant::now();
        while began.elapsed() < DEADLINE {
            prepare();
            if after_a_read() == expected {
                return true;
            }
        }
        false
    };
    assert_eq!(
        causes.map(|cause| table.reads_go_first(cause)),
        [false; 2],
        "no read has waited"
    );
    assert!(sees([true; 2], &|| {}), "nothing is written");
    let spill = || {
        let (key, value) = (b"k", b"v");
        write(&table, &[Op::Put { key, value }]).expect("a put");
        table.spill(usize::MAX, Sweep::All).expect("a spill");
    };
    assert!(
        sees([true, false], &spill),
        "garbage waits for nobody while the table is written to"
    );
    let waiting = Waiting::among(&shared.waits_for_merges);
    assert!(sees([false; 2], &|| {}), "a spill waits");
    drop(waiting);
    std::thread::park_timeout(QUIET_AFTER);
    assert!(sees([true; 2], &|| {}), "all is quiet again");
}
