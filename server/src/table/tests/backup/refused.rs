//! Where no backup can be made, the error says why, and nothing stays of it.

use std::{
    cell::Cell,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use rhash_protocol::{ErrorCode, TableKind};

use super::{
    super::support::{open, open_table, tiny},
    Tables, back_up, filled, partial_of,
};
use crate::{cold::Faults, data_dir::manifest::Edit};

#[test]
fn where_no_backup_can_be_made_the_error_says_why() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let store = filled(&data, None);
    let there = dir.path().join("there");
    fs::create_dir(&there).expect("a directory");
    let cut_short = dir.path().join("cut short");
    fs::create_dir(partial_of(&cut_short)).expect("a directory");
    for (to, why) in [
        (Path::new("relative").to_owned(), "not the absolute path"),
        (PathBuf::from("/"), "not the absolute path"),
        (dir.path().join(".."), "not the absolute path"),
        (there.clone(), "exists; a backup makes a directory"),
        (cut_short.clone(), "a backup that was cut short left it"),
        (
            data.join("copy"),
            "lies inside of the server's data directory",
        ),
        (data.join("runs").join("copy"), "lies inside of"),
    ] {
        let error = store.backup(&to, &|| true).expect_err("it cannot be made");
        assert_eq!(error.code, ErrorCode::BadRequest, "{error:?}");
        assert!(error.text.contains(why), "{}: {}", to.display(), error.text);
    }
    let error = store.backup(&dir.path().join("no/parent"), &|| true);
    let error = error.expect_err("there is no parent");
    assert!(
        error.text.contains("find the directory") && error.text.contains("/no"),
        "{error:?}"
    );
    assert!(
        partial_of(&cut_short).exists(),
        "it belongs to somebody else"
    );
    let in_memory = open(None, tiny(64));
    let without_log = open(Some(&dir.path().join("other")), tiny(64));
    for (store, why) in [
        (in_memory, "--memory-only"),
        (without_log, "--durability none"),
    ] {
        let to = dir.path().join("copy");
        let error = back_up(&store, &to).expect_err("it cannot be made");
        assert_eq!(error.code, ErrorCode::BadRequest);
        assert!(error.text.contains(why), "{}", error.text);
    }
}

#[test]
fn one_backup_is_made_at_a_time() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = filled(&dir.path().join("data"), None);
    let (first, second) = (dir.path().join("first"), dir.path().join("second"));
    let refused = Cell::new(0);
    let goes_on = || {
        // The first look is taken before the directory is made.
        let error = store
            .backup(&second, &|| true)
            .expect_err("it is too early");
        assert_eq!(error.code, ErrorCode::Busy);
        refused.set(refused.get() + 1);
        true
    };
    store.backup(&first, &goes_on).expect("a backup");
    assert!(refused.get() > 2 && !second.exists());
    back_up(&store, &second).expect("another backup");
}

#[test]
fn a_backup_that_is_given_up_or_fails_leaves_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let faults = Arc::new(Faults::default());
    let store = filled(&dir.path().join("data"), Some(&faults));
    let copy = dir.path().join("copy");
    let mut given_up = 0;
    for looks in 0u32.. {
        let left = Cell::new(looks);
        let goes_on = || left.replace(left.get().saturating_sub(1)) > 0;
        match store.backup(&copy, &goes_on) {
            Ok(_) => break,
            Err(error) => assert_eq!(error.code, ErrorCode::ShuttingDown, "{error:?}"),
        }
        assert!(
            !copy.exists() && !partial_of(&copy).exists(),
            "after {looks} looks"
        );
        given_up += 1;
    }
    assert!(given_up > 5, "{given_up}");
    fs::remove_dir_all(&copy).expect("it is there");

    let mut failed = 0;
    for nth in 1.. {
        faults.fail_read(nth);
        let made = back_up(&store, &copy);
        faults.fail_read(0);
        match made {
            Ok(_) => break,
            Err(error) => assert!(error.text.contains("a faulty home"), "{error:?}"),
        }
        assert!(!copy.exists());
        failed += 1;
    }
    assert!(failed > 0);
    assert_eq!(
        Tables::of(&store).steps(),
        [300, 0, 0, 0],
        "the store goes on"
    );
    store.stop().expect("a clean stop");
    let other = dir.path().join("other");
    let error = back_up(&store, &other).expect_err("it has stopped");
    assert_eq!(error.code, ErrorCode::ShuttingDown);
}

#[test]
fn a_run_that_is_not_there_is_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = filled(&dir.path().join("data"), None);
    let table = open_table(&store, "values", TableKind::Values);
    let edit = Edit::Spilled {
        id: table.id(),
        run: 777_777,
        first: 0,
        last: u64::MAX,
        marks: Vec::new(),
    };
    table.shared.record(edit).expect("it is recorded");
    let error = back_up(&store, &dir.path().join("copy")).expect_err("a run is missing");
    assert_eq!(error.code, ErrorCode::Damaged);
    assert!(
        error.text.contains("run 777777 of the table \"values\""),
        "{}",
        error.text
    );
}
