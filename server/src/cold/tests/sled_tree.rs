//! sled where its tree lacks something that it has no word of.

use super::{
    homes::{one_record, sled_dirs, sled_home, store_on, write_expecting},
    *,
};
use crate::cold::sled_home::SledHome;

/// A home with two runs, of which sled lists one.
fn lacking() -> (tempfile::TempDir, Arc<SledHome>, [Arc<Run>; 2]) {
    let dir = tempfile::tempdir().unwrap();
    let home = sled_home(dir.path());
    let store = store_on(&home);
    let runs = [5000, 7000].map(|bytes| write_expecting(&store, 10, bytes));
    assert_eq!(store.unlisted().unwrap(), []);
    home.lose_values(runs[0].id());
    (dir, home, runs)
}

#[test]
fn a_run_that_sled_does_not_list_is_told_of() {
    let (_dir, home, [lost, kept]) = lacking();
    let store = store_on(&home);
    assert_eq!(store.unlisted().unwrap(), [lost.id()]);
    kept.remove_on_drop();
    drop(kept);
    assert_eq!(
        store.unlisted().unwrap(),
        [lost.id()],
        "who is gone is not missed"
    );
}

/// All that was listed was moved, and the old directory removed, with all runs that were not listed and could be read.
#[test]
fn where_a_run_is_not_moved_whole_the_old_directory_is_set_aside() {
    let (dir, home, [_lost, kept]) = lacking();
    for moves in 1..3 {
        home.move_on(&|_| Ok(())).unwrap();
        assert_eq!(sled_dirs(dir.path()), [format!("sled-{moves}")]);
        assert!(all_of(&kept, 0) == [one_record(7000)]);
        let aside = std::fs::read_dir(dir.path().join("damaged")).unwrap();
        assert_eq!(
            aside.count(),
            1,
            "nothing more is missed by the second move"
        );
    }
}

#[test]
fn what_can_be_read_is_written_anew_where_not_all_is_listed() {
    let (dir, home, [lost, kept]) = lacking();
    assert_eq!(store_on(&home).mend().unwrap(), [lost.id()]);
    assert_eq!(sled_dirs(dir.path()), ["sled-1"]);
    assert!(dir.path().join("damaged/sled/db").is_file());
    assert!(all_of(&kept, 0) == [one_record(7000)]);
    let id = kept.id();
    drop((home, lost, kept));
    let store = store_on(&sled_home(dir.path()));
    assert_eq!(store.mend().unwrap(), []);
    assert_eq!(store.list().unwrap().len(), 1);
    assert!(all_of(&store.open_run(id).unwrap(), 0) == [one_record(7000)]);
}
