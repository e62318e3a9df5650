//! A store with tiny budgets, and tables driven by plain calls.

use std::{path::Path, sync::Arc};

use rhash_protocol::{
    Keys, Op, OpenMode, Ops, Outcome, Outcomes, ScanWhat, Slot, TableKind, Values,
    packed::{PageEntries, Presence, push_bytes, push_op},
};

use crate::{
    cold::{BlockReads, Faults},
    log::{Durability, LogFiles},
    store::{
        CheckReport, Opening, RepairReport, Store, StoreConfig, StoreError, Tiny, check, repair,
    },
    table::{Answer, Table, TableError},
};

/// Budgets under which some hundred operations visit every state.
pub(super) fn tiny(place_bits: u32) -> Tiny {
    Tiny {
        entries_bytes: 1 << 30,
        spill_bytes: 2048,
        range_bytes: 24 * 1024,
        place_bits,
        threads: false,
    }
}

/// A store in `dir`, or one without a disk.
pub(super) fn open(dir: Option<&Path>, tiny: Tiny) -> Arc<Store> {
    Store::open(config(dir, tiny)).expect("a store")
}

/// A store that logs, with segments so short that there are several.
pub(super) fn open_logged(dir: &Path, tiny: Tiny, durability: Durability) -> Arc<Store> {
    try_open_logged(dir, tiny, durability).expect("a store")
}

/// Such a store, or why there is none.
pub(super) fn try_open_logged(
    dir: &Path,
    tiny: Tiny,
    durability: Durability,
) -> Result<Arc<Store>, StoreError> {
    let mut config = config(Some(dir), tiny);
    config.durability = durability;
    config.log_limit_bytes = 64 << 10;
    Store::open(config)
}

/// A store whose log is where it is told.
pub(super) fn open_logged_in(
    dir: &Path,
    files: Arc<dyn LogFiles>,
    tiny: Tiny,
    durability: Durability,
) -> Arc<Store> {
    let mut config = config(Some(dir), tiny);
    config.durability = durability;
    config.log_limit_bytes = 64 << 10;
    config.log_files = Some(files);
    Store::open(config).expect("a store")
}

/// A store whose disk fails when it is told to.
pub(super) fn open_faulty(dir: &Path) -> (Arc<Store>, Arc<Faults>) {
    let faults = Arc::new(Faults::default());
    let mut config = config(Some(dir), tiny(64));
    // What the page cache gives, and what is waited for, is counted.
    config.block_reads = BlockReads::Cached;
    config.faults = Some(Arc::clone(&faults));
    (Store::open(config).expect("a store"), faults)
}

/// Checks a directory that no store is using.
pub(super) fn check_dir(dir: &Path, tiny: Tiny) -> CheckReport {
    check(&config(Some(dir), tiny), &mut |_, _| {}).expect("a check")
}

/// All in a directory that no store is using is as it was written.
pub(super) fn assert_sound(dir: &Path, tiny: Tiny) {
    let report = check_dir(dir, tiny);
    assert!(report.is_sound(), "{:#?}", report.damage);
}

/// Repairs a directory that no store is using.
pub(super) fn repair_dir(dir: &Path, durability: Durability) -> RepairReport {
    let mut config = config(Some(dir), tiny(64));
    config.durability = durability;
    config.log_limit_bytes = 64 << 10;
    repair(&config, &mut |_, _| {}).expect("a repair")
}

pub(super) fn config(dir: Option<&Path>, tiny: Tiny) -> StoreConfig {
    let mut config = StoreConfig::new(64 << 20, dir.map(Path::to_owned));
    config.tiny = Some(tiny);
    config.read_threads = 2;
    config.small_run_bytes = 3 * 1024;
    // What tests write is in the page cache, so that they would never read past it by themselves.
    config.block_reads = BlockReads::Direct;
    config.value_bytes_max = 256 * 1024;
    config
}

pub(super) fn open_table(store: &Store, name: &str, kind: TableKind) -> Arc<Table> {
    store
        .open_table(
            Some(name),
            Some(kind),
            Some("bytes"),
            OpenMode::OpenOrCreate,
        )
        .expect("a table")
        .table
}

/// An open of a table of values, as a client asks for it that says nothing but the name.
pub(super) fn opening(name: &str) -> Opening<'_> {
    Opening {
        name: Some(name),
        kind: Some(TableKind::Values),
        codec: Some("bytes"),
        mode: OpenMode::OpenOrCreate,
        durability: None,
        by: None,
        session_lsn: 0,
    }
}

/// Waits for an answer.
pub(super) fn wait<T>(answer: Answer<T>) -> Result<T, TableError> {
    match answer {
        Answer::Ready(result) => result,
        Answer::Pending(receiver) => receiver.blocking_recv().expect("the read pool answers"),
    }
}

/// An outcome that owns its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Came {
    Absent,
    Value(Vec<u8>),
    Swapped,
}

pub(super) fn write(table: &Arc<Table>, ops: &[Op<'_>]) -> Result<Vec<Came>, TableError> {
    let mut bytes = Vec::new();
    ops.iter().for_each(|op| push_op(&mut bytes, op));
    let reply = wait(table.write(Ops::new(ops.len() as u32, &bytes)))?;
    let outcomes = Outcomes::new(reply.count, &reply.bytes);
    outcomes.check().expect("a sound reply");
    Ok(outcomes
        .iter()
        .map(|outcome| match outcome.expect("a sound outcome") {
            Outcome::Absent => Came::Absent,
            Outcome::Value(value) => Came::Value(value.to_vec()),
            Outcome::Swapped => Came::Swapped,
        })
        .collect())
}

fn packed_keys(keys: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    keys.iter().for_each(|key| push_bytes(&mut bytes, key));
    bytes
}

/// Reads values of any length; asks again for what an answer left out.
pub(super) fn get(table: &Arc<Table>, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, TableError> {
    let mut values = Vec::new();
    while values.len() < keys.len() {
        let asked = &keys[values.len()..];
        let bytes = packed_keys(asked);
        let reply = wait(table.get(Keys::new(asked.len() as u32, &bytes)))?;
        assert!(reply.count > 0, "an answer says something");
        for (slot, key) in Values::new(reply.count, &reply.bytes).iter().zip(asked) {
            values.push(match slot.expect("a sound slot") {
                Slot::Absent => None,
                Slot::Value(value) => Some(value.to_vec()),
                Slot::Large(_) => fetch(table, key)?,
            });
        }
    }
    Ok(values)
}

pub(super) fn get_one(table: &Arc<Table>, key: &[u8]) -> Option<Vec<u8>> {
    get(table, &[key]).expect("a get").remove(0)
}

pub(super) fn fetch(table: &Arc<Table>, key: &[u8]) -> Result<Option<Vec<u8>>, TableError> {
    let Some(mut stream) = wait(table.fetch(key))? else {
        return Ok(None);
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let mut value = Vec::new();
    while let Some(chunk) = runtime.block_on(stream.recv()) {
        value.extend_from_slice(&chunk?);
    }
    Ok(Some(value))
}

pub(super) fn contains(table: &Arc<Table>, keys: &[&[u8]]) -> Vec<bool> {
    let bytes = packed_keys(keys);
    let reply = wait(table.contains(Keys::new(keys.len() as u32, &bytes))).expect("contains");
    Presence::new(reply.count, &reply.bytes)
        .iter()
        .map(|key| key.expect("sound"))
        .collect()
}

/// Everything in the table, page by page.
pub(super) fn scan(table: &Arc<Table>, entries_max: u32) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut entries = Vec::new();
    let mut cursor: Option<Vec<u8>> = None;
    loop {
        let page =
            wait(table.scan(cursor.as_deref(), ScanWhat::Items, entries_max)).expect("a page");
        for entry in PageEntries::new(page.entries.count, &page.entries.bytes).iter() {
            let entry = entry.expect("a sound entry");
            let value = match entry.value {
                Slot::Value(value) => value.to_vec(),
                Slot::Large(_) => fetch(table, entry.key)
                    .expect("fetch")
                    .expect("it is there"),
                Slot::Absent => panic!("items have values"),
            };
            entries.push((entry.key.to_vec(), value));
        }
        cursor = page.next;
        if cursor.is_none() {
            return entries;
        }
    }
}

/// How many sequences a model test runs: few, or `RHASH_MODEL_SEQUENCES`.
pub(super) fn sequences(few: u64) -> u64 {
    std::env::var("RHASH_MODEL_SEQUENCES")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(few)
}

/// The first seed: `RHASH_MODEL_SEED`, or drawn anew each time.
pub(super) fn first_seed() -> u64 {
    std::env::var("RHASH_MODEL_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| fastrand::u64(..1 << 40))
}
