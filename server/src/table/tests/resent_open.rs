//! An open that made its table, and is sent again to the next server since this one died before it said so.

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use rhash_protocol::{Durability, ErrorCode, OpenMode, TableId};

use super::support::{open_logged, opening, tiny};
use crate::{
    log::{By, Holding, OwnedReply, Record, SessionRecord},
    store::{Opening, Store},
};

fn by(sequence: u64) -> By {
    By {
        session: 7,
        sequence,
        settled: 2,
    }
}

/// A store that knows session 7, of which two requests were answered, and the record that says so.
fn begin(dir: &Path) -> (Arc<Store>, u64) {
    let store = open_logged(dir, tiny(64), Durability::EverySec);
    let session = || SessionRecord {
        id: 7,
        secret: [1; 16],
        token: ("anybody".to_owned(), None),
        taken: 2,
        settled: 2,
        tables: vec![],
        replies: vec![],
    };
    let log = store.log().expect("a log");
    let begun = log.begin_session(7, session).expect("begun");
    (store, begun)
}

/// Opens table `t`; tells its number, and whether it was made.
fn open(
    store: &Store,
    mode: OpenMode,
    by: By,
    session_lsn: u64,
) -> Result<(TableId, bool), ErrorCode> {
    let opening = Opening {
        mode,
        by: Some(by),
        session_lsn,
        ..opening("t")
    };
    let opened = store.open_as(&opening).map_err(|error| error.code)?;
    Ok((opened.table.id(), opened.created))
}

/// The client was told that somebody else had made the table.
#[test]
fn it_is_told_that_it_made_the_table() {
    for mode in [OpenMode::CreateNew, OpenMode::OpenOrCreate] {
        let dir = tempfile::tempdir().expect("a directory");
        let (store, begun) = begin(dir.path());
        let made = open(&store, mode, by(3), begun).expect("made");
        assert!(made.1);
        // As if killed: what the log has not written yet is lost.
        drop(store);
        // It may die again before it answers.
        for _ in 0..2 {
            let (store, known) = begin(dir.path());
            assert_eq!(known, 0, "the session is known, so it may be asked again");
            assert_eq!(open(&store, mode, by(3), 0), Ok(made), "{mode:?}");
        }
        let (store, _) = begin(dir.path());
        let others = open(&store, OpenMode::CreateNew, by(4), 0);
        assert_eq!(others, Err(ErrorCode::TableExists), "it did not make it");
        let others = open(&store, OpenMode::OpenOrCreate, by(4), 0);
        assert_eq!(others, Ok((made.0, false)));
    }
}

#[test]
fn who_made_a_table_is_forgotten_once_the_log_has_the_answer() {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, begun) = begin(dir.path());
    let (id, _) = open(&store, OpenMode::CreateNew, by(3), begun).expect("made");
    let log = store.log().expect("a log");
    let answer = log.append(&Record::Reply {
        by: by(3),
        reply: OwnedReply::Body(Bytes::from_static(b"opened")),
        holding: Holding::Opens(id, 1),
    });
    log.wait_acked(answer.expect("appended")).expect("written");
    drop(store);
    for _ in 0..2 {
        let (store, _) = begin(dir.path());
        assert_eq!(
            open(&store, OpenMode::CreateNew, by(3), 0),
            Err(ErrorCode::TableExists)
        );
    }
}
