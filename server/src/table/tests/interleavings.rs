//! Each step of a spill, a merge, a read and a conditional write, met by each thing that can happen
//! to its table meanwhile. A gate stops the thread at a point until the test has done the rest.

use std::{
    path::Path,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

use parking_lot::Mutex;
use rhash_protocol::{ErrorCode, Keys, Op, ScanWhat, TableKind, packed::push_bytes};

use super::support::{Came, get_one, open, open_table, scan, tiny, wait, write};
use crate::{
    hot::Sweep,
    store::Store,
    table::{Answer, MergeDone, PackedReply, Table, hooks::Point},
};

const DEADLINE: Duration = Duration::from_secs(20);

/// Stops the first thread that comes to a point.
struct Gate {
    reached: mpsc::Receiver<()>,
    go: mpsc::Sender<()>,
}

impl Gate {
    fn at(store: &Arc<Store>, point: Point) -> Self {
        let (reached_sender, reached) = mpsc::channel();
        let (go, go_receiver) = mpsc::channel();
        let once = Mutex::new(Some((reached_sender, go_receiver)));
        store.hooks().set(move |at| {
            if at != point {
                return;
            }
            let taken = once.lock().take();
            if let Some((reached, go)) = taken {
                reached.send(()).expect("the test waits");
                go.recv_timeout(DEADLINE).expect("the test opens the gate");
            }
        });
        Self { reached, go }
    }

    fn wait(&self) {
        self.reached
            .recv_timeout(DEADLINE)
            .expect("a thread comes to the point");
    }

    fn open(self) {
        self.go.send(()).expect("a thread waits at the point");
    }
}

/// What may happen to a table while another thread stands still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meanwhile {
    Nothing,
    Overwrite,
    Append,
    Discard,
    SpillAndMerge,
    OverwriteAndSpill,
    Clear,
    Close,
}

const ALL: [Meanwhile; 8] = [
    Meanwhile::Nothing,
    Meanwhile::Overwrite,
    Meanwhile::Append,
    Meanwhile::Discard,
    Meanwhile::SpillAndMerge,
    Meanwhile::OverwriteAndSpill,
    Meanwhile::Clear,
    Meanwhile::Close,
];

impl Meanwhile {
    /// Does it, and says what `key` has after it; none in a table that is closed.
    fn happen(self, store: &Store, table: &Arc<Table>, before: Option<&[u8]>) -> After {
        let before = before.map(<[u8]>::to_vec);
        match self {
            Self::Nothing => After::Has(before),
            Self::Overwrite => {
                write(
                    table,
                    &[Op::Put {
                        key: KEY,
                        value: b"new",
                    }],
                )
                .expect("a put");
                After::Has(Some(b"new".to_vec()))
            }
            Self::Append => {
                write(
                    table,
                    &[Op::Append {
                        key: KEY,
                        bytes: b"+more",
                    }],
                )
                .expect("an append");
                let mut value = before.unwrap_or_default();
                value.extend_from_slice(b"+more");
                After::Has(Some(value))
            }
            Self::Discard => {
                write(table, &[Op::Discard { key: KEY }]).expect("a discard");
                After::Has(None)
            }
            Self::SpillAndMerge => {
                fill(table, b"other");
                spill_all(table);
                merge_all(table);
                After::Has(before)
            }
            Self::OverwriteAndSpill => {
                write(
                    table,
                    &[Op::Put {
                        key: KEY,
                        value: b"new",
                    }],
                )
                .expect("a put");
                spill_all(table);
                After::Has(Some(b"new".to_vec()))
            }
            Self::Clear => {
                table.clear().expect("a clear");
                After::Has(None)
            }
            Self::Close => {
                store.close_table(table.id()).expect("a close");
                After::Closed
            }
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum After {
    Has(Option<Vec<u8>>),
    Closed,
}

const KEY: &[u8] = b"the key";

fn fill(table: &Arc<Table>, value: &[u8]) {
    for number in 0..40u32 {
        let key = number.to_le_bytes();
        write(table, &[Op::Put { key: &key, value }]).expect("a put");
    }
}

fn spill_all(table: &Arc<Table>) {
    while table.has_unspilled() {
        table.spill(usize::MAX, Sweep::All).expect("a spill");
    }
}

fn merge_all(table: &Arc<Table>) {
    let runs = table.runs().len();
    if runs > 1 {
        assert_eq!(table.merge_all().expect("a merge"), MergeDone::Some);
    }
}

/// A table whose key lies in two runs and is worth `old1old2`.
fn cold_list(dir: &Path) -> (Arc<Store>, Arc<Table>) {
    let store = open(Some(dir), tiny(64));
    let table = open_table(&store, "t", TableKind::Lists);
    for part in [b"old1", b"old2"] {
        write(
            &table,
            &[Op::Append {
                key: KEY,
                bytes: part,
            }],
        )
        .expect("an append");
        fill(&table, part);
        spill_all(&table);
    }
    assert_eq!(table.runs().len(), 2);
    (store, table)
}

const OLD: &[u8] = b"old1old2";

fn check(table: &Arc<Table>, after: &After, context: &str) {
    match after {
        After::Has(value) => {
            assert_eq!(&get_one(table, KEY), value, "{context}");
            let found = scan(table, 7)
                .into_iter()
                .find(|(key, _)| key == KEY)
                .map(|(_, value)| value);
            assert_eq!(&found, value, "{context}, by a scan");
        }
        After::Closed => {
            let error = write(table, &[Op::Discard { key: KEY }]).expect_err("it is closed");
            assert_eq!(error.code, ErrorCode::TableClosed, "{context}");
        }
    }
}

/// A get that was looked up in RAM and has read nothing below.
fn start_get(table: &Arc<Table>) -> Answer<PackedReply> {
    let mut keys = Vec::new();
    push_bytes(&mut keys, KEY);
    table.get(Keys::new(1, &keys))
}

fn value_of(reply: PackedReply) -> Option<Vec<u8>> {
    let slot = rhash_protocol::Values::new(reply.count, &reply.bytes)
        .iter()
        .next();
    match slot.expect("a slot").expect("a sound slot") {
        rhash_protocol::Slot::Absent => None,
        rhash_protocol::Slot::Value(value) => Some(value.to_vec()),
        rhash_protocol::Slot::Large(_) => panic!("the value is short"),
    }
}

#[test]
fn a_get_answers_as_of_its_call_whatever_happens_before_it_reads_below() {
    for meanwhile in ALL {
        let dir = tempfile::tempdir().expect("a directory");
        let (store, table) = cold_list(dir.path());
        let gate = Gate::at(&store, Point::BatchLooked);
        let getting = spawn(&table, |table| wait(start_get(table)));
        gate.wait();
        let after = meanwhile.happen(&store, &table, Some(OLD));
        gate.open();
        let context = format!("{meanwhile:?}");
        assert_eq!(
            value_of(getting.join().expect("no panic").expect("a get")).as_deref(),
            Some(OLD),
            "{context}"
        );
        check(&table, &after, &context);
        // A second get finds the first one's mark and would promote what is stale.
        check(&table, &after, &context);
    }
}

#[test]
fn a_get_during_a_spill_returns_the_value_whatever_happens_meanwhile() {
    for point in [Point::SpillFrozen, Point::SpillWritten] {
        for meanwhile in ALL {
            // These spill, and the one thread that may is stopped.
            if matches!(
                meanwhile,
                Meanwhile::SpillAndMerge | Meanwhile::OverwriteAndSpill
            ) {
                continue;
            }
            let dir = tempfile::tempdir().expect("a directory");
            let (store, table) = cold_list(dir.path());
            write(
                &table,
                &[Op::Append {
                    key: KEY,
                    bytes: b"+hot",
                }],
            )
            .expect("an append");
            let value = b"old1old2+hot";
            let gate = Gate::at(&store, point);
            let spilling = spawn(&table, |table| {
                table.spill(usize::MAX, Sweep::All).map(drop)
            });
            gate.wait();
            let context = format!("{point:?}, {meanwhile:?}");
            check(&table, &After::Has(Some(value.to_vec())), &context);
            let after = meanwhile.happen(&store, &table, Some(value));
            check(&table, &after, &context);
            gate.open();
            spilling.join().expect("no panic").expect("a spill");
            check(&table, &after, &context);
            check_given_back(meanwhile, dir.path(), &store, table, &context);
        }
    }
}

#[test]
fn a_get_during_a_merge_returns_the_value_whatever_happens_meanwhile() {
    for meanwhile in ALL {
        // This merges, and the one thread that may is stopped.
        if meanwhile == Meanwhile::SpillAndMerge {
            continue;
        }
        let dir = tempfile::tempdir().expect("a directory");
        let (store, table) = cold_list(dir.path());
        let gate = Gate::at(&store, Point::MergeWritten);
        let merging = spawn(&table, |table| table.merge_all().map(drop));
        gate.wait();
        let context = format!("{meanwhile:?}");
        check(&table, &After::Has(Some(OLD.to_vec())), &context);
        let after = meanwhile.happen(&store, &table, Some(OLD));
        check(&table, &after, &context);
        gate.open();
        merging.join().expect("no panic").expect("a merge");
        check(&table, &after, &context);
        check_given_back(meanwhile, dir.path(), &store, table, &context);
    }
}

#[test]
fn a_conditional_write_decides_on_what_is_there_when_it_applies() {
    for meanwhile in ALL {
        let dir = tempfile::tempdir().expect("a directory");
        let (store, table) = cold_list(dir.path());
        let gate = Gate::at(&store, Point::ConditionalLooked);
        let removing = spawn(&table, |table| write(table, &[Op::Remove { key: KEY }]));
        gate.wait();
        let after = meanwhile.happen(&store, &table, Some(OLD));
        gate.open();
        let came = removing.join().expect("no panic");
        let context = format!("{meanwhile:?}");
        match after {
            After::Closed => assert_eq!(
                came.expect_err("closed").code,
                ErrorCode::TableClosed,
                "{context}"
            ),
            After::Has(value) => {
                let expected = value.map_or(Came::Absent, Came::Value);
                assert_eq!(came.expect("a remove"), [expected], "{context}");
                check(&table, &After::Has(None), &context);
            }
        }
    }
}

/// A key of the batch that needed no look, being clean in RAM, lost its base to an append while
/// the others were read, and was then taken for absent.
#[test]
fn a_conditional_batch_sees_a_list_whole_that_is_appended_to_while_others_are_read() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(Some(dir.path()), tiny(64));
    let table = open_table(&store, "t", TableKind::Lists);
    let long = [5; 400];
    for key in [KEY, b"cold"] {
        write(&table, &[Op::Append { key, bytes: &long }]).expect("an append");
    }
    spill_all(&table);
    // The second reading brings it back to RAM.
    for _ in 0..2 {
        assert_eq!(get_one(&table, KEY).as_deref(), Some(long.as_slice()));
    }
    assert_eq!(table.info().hot_entries, 1);
    let gate = Gate::at(&store, Point::ConditionalLooked);
    let removing = spawn(&table, |table| {
        write(
            table,
            &[Op::Remove { key: b"cold" }, Op::Remove { key: KEY }],
        )
    });
    gate.wait();
    write(
        &table,
        &[Op::Append {
            key: KEY,
            bytes: b"+more",
        }],
    )
    .expect("an append");
    gate.open();
    let mut grown = long.to_vec();
    grown.extend_from_slice(b"+more");
    let came = removing.join().expect("no panic").expect("a batch");
    assert_eq!(came, [Came::Value(long.to_vec()), Came::Value(grown)]);
    assert_eq!(wait(table.len()).expect("a count"), 0);
}

#[test]
fn a_scan_yields_what_was_there_at_its_call_whatever_happens_before_it_reads() {
    for meanwhile in ALL {
        let dir = tempfile::tempdir().expect("a directory");
        let (store, table) = cold_list(dir.path());
        let expected = {
            let mut entries = scan(&table, 1000);
            entries.sort();
            entries
        };
        let gate = Gate::at(&store, Point::ScanLooked);
        let answer = table.scan(None, ScanWhat::Items, 1000);
        gate.wait();
        let after = meanwhile.happen(&store, &table, Some(OLD));
        gate.open();
        let page = wait(answer).expect("a page");
        let context = format!("{meanwhile:?}");
        assert_eq!(page.entries.count as usize, expected.len(), "{context}");
        check(&table, &after, &context);
    }
}

#[test]
fn a_spill_that_fails_leaves_its_entries_readable_and_is_done_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, faults) = super::support::open_faulty(dir.path());
    let table = open_table(&store, "t", TableKind::Lists);
    write(
        &table,
        &[Op::Append {
            key: KEY,
            bytes: b"one",
        }],
    )
    .expect("an append");
    fill(&table, &[7; 500]);
    faults.fail_write(1);
    assert!(table.spill(usize::MAX, Sweep::All).is_err());
    assert_eq!(get_one(&table, KEY).as_deref(), Some(b"one".as_slice()));
    write(
        &table,
        &[Op::Append {
            key: KEY,
            bytes: b"two",
        }],
    )
    .expect("an append");
    assert_eq!(get_one(&table, KEY).as_deref(), Some(b"onetwo".as_slice()));
    spill_all(&table);
    assert_eq!(table.info().hot_entries, 0);
    assert_eq!(get_one(&table, KEY).as_deref(), Some(b"onetwo".as_slice()));
    assert_eq!(wait(table.len()).expect("a count"), 41);
}

fn spawn<T: Send + 'static>(
    table: &Arc<Table>,
    work: impl FnOnce(&Arc<Table>) -> T + Send + 'static,
) -> JoinHandle<T> {
    let table = Arc::clone(table);
    thread::spawn(move || work(&table))
}

fn run_files(dir: &Path) -> usize {
    std::fs::read_dir(dir.join("runs")).map_or(0, Iterator::count)
}

/// After a clear or a close, nothing of the table is left on disk once its last reader is gone.
fn check_given_back(
    meanwhile: Meanwhile,
    dir: &Path,
    store: &Store,
    table: Arc<Table>,
    context: &str,
) {
    drop(table);
    if matches!(meanwhile, Meanwhile::Clear | Meanwhile::Close) {
        assert_eq!(run_files(dir), 0, "{context}: the disk is given back");
        assert_eq!(store.stats().sled_bytes, 0, "{context}");
    }
}
