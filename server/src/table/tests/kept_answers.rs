//! Answers that may be asked for again: their bytes are there once, charged, and bounded.

use std::sync::Arc;

use rhash_protocol::{Durability, ErrorCode, Op, Ops, TableKind, packed::push_op};

use super::support::{get_one, open_logged, open_table, tiny, wait, write};
use crate::{
    log::{By, OwnedReply, SessionRecord},
    store::Store,
    table::{Asker, Table, TableError, WriteReply},
};

const VALUE: [u8; 10_000] = [7; 10_000];

fn open() -> (tempfile::TempDir, Arc<Store>, Arc<Table>) {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open_logged(dir.path(), tiny(64), Durability::EverySec);
    let table = open_table(&store, "t", TableKind::Values);
    let session = || SessionRecord {
        id: 7,
        secret: [1; 16],
        token: ("anybody".to_owned(), None),
        taken: 0,
        settled: 0,
        tables: vec![(table.id(), 1)],
        replies: vec![],
    };
    let log = store.log().expect("a log");
    log.begin_session(7, session).expect("begun");
    let put = Op::Put {
        key: b"k",
        value: &VALUE,
    };
    write(&table, &[put]).expect("a put");
    (dir, store, table)
}

/// One operation, under a number of session 7.
fn ask(table: &Arc<Table>, op: &Op<'_>, sequence: u64) -> Result<WriteReply, TableError> {
    let mut bytes = Vec::new();
    push_op(&mut bytes, op);
    let asker = Asker {
        by: By {
            session: 7,
            sequence,
            settled: sequence - 1,
        },
        kept_bytes: 0,
    };
    wait(table.write_by(Ops::new(1, &bytes), Some(asker)))
}

#[test]
fn a_session_and_the_log_keep_the_same_bytes_until_both_let_go() {
    let (_dir, store, table) = open();
    let account = table.shared.budget.kept();
    assert_eq!(account.bytes(), 0, "blind writes have no answers to keep");
    let reply = ask(&table, &Op::Remove { key: b"k" }, 1).expect("removed");
    assert!(reply.bytes.len() > VALUE.len());
    let charged = account.bytes();
    assert!(
        (VALUE.len()..VALUE.len() + 1000).contains(&charged),
        "{charged}"
    );
    assert!(table.shared.budget.tracked_bytes() >= charged);
    let sessions = store.logged_sessions();
    let [(1, OwnedReply::Written(1, kept))] = &sessions[0].replies[..] else {
        panic!("{:?}", sessions[0].replies);
    };
    assert_eq!(kept.as_ptr(), reply.bytes.as_ptr());
    drop(sessions);
    drop(reply);
    assert_eq!(account.bytes(), charged, "the log may be asked for it");
    ask(&table, &Op::Discard { key: b"k" }, 2).expect("discarded");
    assert_eq!(account.bytes(), 0, "it is settled");
}

#[test]
fn what_is_settled_by_a_read_is_let_go_of_by_the_log_too() {
    let (_dir, store, table) = open();
    let account = table.shared.budget.kept();
    drop(ask(&table, &Op::Remove { key: b"k" }, 1).expect("removed"));
    let log = store.log().expect("a log");
    log.settle(7, 0);
    assert!(account.bytes() > 0);
    log.settle(7, 1);
    assert_eq!(account.bytes(), 0);
    assert_eq!(store.logged_sessions()[0].settled, 1);
}

/// What the log says of answers is charged after a start, too.
#[test]
fn answers_that_a_start_finds_are_charged() {
    let (dir, store, table) = open();
    ask(&table, &Op::Remove { key: b"k" }, 1).expect("removed");
    let charged = table.shared.budget.kept().bytes();
    let log = store.log().expect("a log");
    log.wait_acked(log.last()).expect("written");
    drop((store, table));
    let store = open_logged(dir.path(), tiny(64), Durability::EverySec);
    let table = open_table(&store, "t", TableKind::Values);
    assert_eq!(table.shared.budget.kept().bytes(), charged);
}

#[test]
fn a_long_answer_for_which_there_is_no_room_is_refused_and_nothing_is_applied() {
    let (_dir, _store, table) = open();
    let all = table.shared.budget.kept().take(64 << 20, 0).expect("alone");
    let refused = ask(&table, &Op::Remove { key: b"k" }, 1);
    assert_eq!(
        refused.map_err(|error| error.code),
        Err(ErrorCode::Busy),
        "it would have to be kept"
    );
    assert_eq!(get_one(&table, b"k").as_deref(), Some(&VALUE[..]));
    let short = Op::PutIfAbsent {
        key: b"other",
        value: b"v",
    };
    ask(&table, &short, 2).expect("a short answer");
    drop(all);
    ask(&table, &Op::Remove { key: b"k" }, 3).expect("removed");
    assert_eq!(get_one(&table, b"k"), None);
}
