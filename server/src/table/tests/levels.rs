//! Each named table has the durability that it was made with, whatever the server's, before and after crashes.

use std::{path::Path, sync::Arc};

use rhash_protocol::{Durability, ErrorCode, Op, WireError};

use super::support::{get_one, open, open_logged, open_logged_in, opening, tiny, write};
use crate::{
    hot::Sweep,
    log::memory_files::MemoryFiles,
    store::{Opening, Store},
    table::Table,
};

const LEVELS: [(&str, Durability); 3] = [
    ("none", Durability::None),
    ("everysec", Durability::EverySec),
    ("always", Durability::Always),
];

fn open_at(store: &Store, name: &str, durability: Durability) -> Result<Arc<Table>, WireError> {
    let opening = Opening {
        durability: Some(durability),
        ..opening(name)
    };
    store.open_as(&opening).map(|opened| opened.table)
}

fn open_table(store: &Store, name: &str) -> Arc<Table> {
    store.open_as(&opening(name)).expect("a table").table
}

fn put(table: &Arc<Table>, key: &[u8]) {
    write(table, &[Op::Put { key, value: b"v" }]).expect("a put");
    if let Some(log) = table.log() {
        log.wait_here(table.durability(), log.last())
            .expect("it is as safe as its level asks");
    }
}

fn has(table: &Arc<Table>, key: &[u8]) -> bool {
    get_one(table, key).is_some()
}

fn code(result: Result<Arc<Table>, WireError>) -> Option<ErrorCode> {
    result.err().map(|error| error.code)
}

/// What a level promises of writes that were answered, after a kill and after a power cut that loses what was not
/// synced.
#[test]
fn three_tables_at_three_levels_survive_what_their_levels_say() {
    for default in [Durability::EverySec, Durability::Always] {
        let dir = tempfile::tempdir().expect("a directory");
        let files = MemoryFiles::default();
        let store = open_logged_in(dir.path(), Arc::new(files.clone()), tiny(64), default);
        for (name, level) in LEVELS {
            let table = open_at(&store, name, level).expect("a table");
            assert_eq!(table.log().is_some(), level != Durability::None);
            put(&table, b"first");
            if level == Durability::None {
                table.spill(usize::MAX, Sweep::All).expect("a spill");
            }
            put(&table, b"second");
        }
        let killed = files.after_kill();
        drop(store);
        let store = open_logged_in(dir.path(), Arc::new(killed), tiny(64), default);
        for (name, level) in LEVELS {
            let table = open_table(&store, name);
            assert_eq!(table.own_durability(), Some(level));
            assert!(has(&table, b"first"), "{name}: spilled, or logged");
            assert_eq!(has(&table, b"second"), level != Durability::None, "{name}");
        }
    }
}

#[test]
fn a_write_at_always_is_on_stable_storage_when_it_is_answered_whatever_the_server_does_for_others()
{
    for default in [Durability::None, Durability::EverySec] {
        let dir = tempfile::tempdir().expect("a directory");
        // The log of a server whose own level is none is there for the sake of a table that it finds.
        let store = open_logged(dir.path(), tiny(64), Durability::EverySec);
        drop(open_at(&store, "always", Durability::Always).expect("a table"));
        drop(store);
        let store = open_logged(dir.path(), tiny(64), default);
        let table = open_table(&store, "always");
        let log = table.log().expect("a log");
        for number in 0..20u8 {
            put(&table, &[number]);
            assert!(log.is_synced(log.last()));
        }
        let other = open_table(&store, "other");
        assert_eq!(other.log().is_some(), default != Durability::None);
        // More levels may come while there is a log.
        open_at(&store, "more", Durability::EverySec).expect("a table");
        drop((table, other));
        drop(store);
        let store = open_logged(dir.path(), tiny(64), Durability::None);
        let table = open_table(&store, "always");
        assert!((0..20u8).all(|number| has(&table, &[number])));
    }
}

#[test]
fn a_table_keeps_its_level_and_one_without_follows_the_server() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open_logged(dir.path(), tiny(64), Durability::EverySec);
    open_at(&store, "safe", Durability::Always).expect("a table");
    open_table(&store, "plain");
    drop(store);
    for default in [Durability::None, Durability::EverySec, Durability::Always] {
        let store = open_logged(dir.path(), tiny(64), default);
        assert_eq!(open_table(&store, "safe").durability(), Durability::Always);
        assert_eq!(open_table(&store, "plain").durability(), default);
        for (_, level) in LEVELS {
            let safe = open_at(&store, "safe", level);
            let plain = open_at(&store, "plain", level);
            for (opened, has) in [(safe, Durability::Always), (plain, default)] {
                let Err(error) = opened else {
                    assert_eq!(level, has);
                    continue;
                };
                assert_eq!(error.code, ErrorCode::WrongDurability);
                let both = format!("has durability {}", has.name());
                assert!(error.text.contains(&both), "{}", error.text);
                let asked = format!("not {}", level.name());
                assert!(error.text.contains(&asked), "{}", error.text);
            }
        }
        let infos = store.tables();
        let own: Vec<_> = infos
            .iter()
            .map(|info| (info.durability, info.own_durability))
            .collect();
        assert_eq!(own, [(default, false), (Durability::Always, true)]);
    }
}

#[test]
fn a_server_without_a_log_and_a_temporary_table_say_why_they_cannot() {
    let dir = tempfile::tempdir().expect("a directory");
    for (dir, way_out) in [(Some(dir.path()), "--durability"), (None, "--data")] {
        let store = open(dir, tiny(64));
        for level in [Durability::EverySec, Durability::Always] {
            let error = open_at(&store, "t", level).expect_err("there is no log");
            assert_eq!(error.code, ErrorCode::WrongDurability);
            assert!(error.text.contains(way_out), "{}", error.text);
        }
        open_at(&store, "t", Durability::None).expect("that it can");
        let there = open_at(&store, "t", Durability::Always);
        assert_eq!(code(there), Some(ErrorCode::WrongDurability));
        let temporary = Opening {
            name: None,
            durability: Some(Durability::None),
            ..opening("")
        };
        let temporary = store.open_as(&temporary).map(|opened| opened.table);
        assert_eq!(code(temporary), Some(ErrorCode::BadRequest));
    }
}

fn crash(store: Arc<Store>, dir: &Path, default: Durability) -> Arc<Store> {
    drop(store);
    open_logged(dir, tiny(64), default)
}

/// A table was logged, and then it was not, while the log went on for another's sake: checkpoints cut the records of
/// what only RAM had of it.
#[test]
fn what_was_logged_of_a_table_stays_when_it_is_logged_no_more() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open_logged(dir.path(), tiny(64), Durability::EverySec);
    open_at(&store, "safe", Durability::Always).expect("a table");
    put(&open_table(&store, "plain"), b"logged");
    let store = crash(store, dir.path(), Durability::None);
    put(&open_table(&store, "safe"), b"k");
    put(&open_table(&store, "plain"), b"not logged");
    store.checkpoint().expect("a checkpoint");
    let store = crash(store, dir.path(), Durability::None);
    let plain = open_table(&store, "plain");
    assert!(has(&plain, b"logged") && !has(&plain, b"not logged"));
    assert!(has(&open_table(&store, "safe"), b"k"));
}

/// Records of before came back after a clear that was not logged.
#[test]
fn a_clear_that_is_not_logged_is_not_undone_by_what_was_logged_before() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open_logged(dir.path(), tiny(64), Durability::EverySec);
    open_at(&store, "safe", Durability::Always).expect("a table");
    put(&open_table(&store, "plain"), b"logged");
    let store = crash(store, dir.path(), Durability::None);
    open_table(&store, "plain").clear().expect("cleared");
    let mut store = store;
    for default in [Durability::None, Durability::EverySec] {
        store = crash(store, dir.path(), default);
        assert!(!has(&open_table(&store, "plain"), b"logged"));
    }
    // What is logged after that counts again.
    put(&open_table(&store, "plain"), b"again");
    let store = crash(store, dir.path(), Durability::EverySec);
    assert!(has(&open_table(&store, "plain"), b"again"));
}

#[test]
fn checkpoints_leave_out_what_is_not_logged_and_a_sync_does_not() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open_logged(dir.path(), tiny(64), Durability::EverySec);
    for (name, level) in LEVELS {
        put(&open_at(&store, name, level).expect("a table"), b"k");
    }
    store.checkpoint().expect("a checkpoint");
    let runs = |store: &Store| LEVELS.map(|(name, _)| open_table(store, name).runs().len());
    assert_eq!(runs(&store), [0, 1, 1]);
    store.write_down_unlogged().expect("written down");
    assert_eq!(runs(&store), [1, 1, 1]);
    let store = crash(store, dir.path(), Durability::EverySec);
    for (name, _) in LEVELS {
        assert!(has(&open_table(&store, name), b"k"), "{name}");
    }
}

#[test]
fn a_clean_stop_keeps_all_levels_and_an_end_of_the_last_one_ends_the_log() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open_logged(dir.path(), tiny(64), Durability::EverySec);
    for (name, level) in LEVELS {
        put(&open_at(&store, name, level).expect("a table"), b"k");
    }
    store.stop().expect("a clean stop");
    let store = crash(store, dir.path(), Durability::None);
    for (name, level) in LEVELS {
        let table = open_table(&store, name);
        assert!(has(&table, b"k") && table.durability() == level, "{name}");
        if level != Durability::None {
            store.close_table(table.id()).expect("closed");
        }
    }
    assert!(store.log().is_some(), "until the next start");
    let store = crash(store, dir.path(), Durability::None);
    assert!(store.log().is_none());
    assert!(has(&open_table(&store, "none"), b"k"));
}
