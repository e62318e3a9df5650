//! A disk that fails at every possible moment.

use rhash_protocol::TableKind;

use super::*;

fn plan() -> MergePlan {
    MergePlan {
        table: 5,
        kind: TableKind::Lists,
        places: 0..=u64::MAX,
        includes_oldest: false,
        claim: unlimited(),
        sync: true,
        read_ahead_bytes: 2000,
        note: Vec::new(),
        says_nothing_is_left: false,
    }
}

fn faulty_with_two_runs() -> (Fixture, Vec<Arc<Run>>, Vec<Vec<Owned>>) {
    let fixture = Fixture::new(HomeKind::Faulty, 64);
    let mut rng = fastrand::Rng::with_seed(21);
    let records: Vec<Vec<Owned>> = (0..2)
        .map(|_| random_records(&mut rng, &fixture.options.hasher, 200, 400))
        .collect();
    let runs = records
        .iter()
        .map(|records| fixture.write(records))
        .collect();
    (fixture, runs, records)
}

#[test]
fn a_write_that_fails_leaves_no_trace_whichever_it_is() {
    let (fixture, runs, _) = faulty_with_two_runs();
    let mut nth = 1;
    loop {
        fixture.faults().fail_write(nth);
        match fixture.store.merge(&runs, &plan(), &|_| true) {
            Err(ColdError::DiskFull { .. }) => {}
            Ok(Some(_)) => break,
            other => panic!("write {nth}: {other:?}"),
        }
        assert_eq!(fixture.store.list().unwrap().len(), 2, "write {nth}");
        nth += 1;
    }
    assert!(nth > 20, "only {nth} writes were tried");
}

#[test]
fn a_read_that_fails_is_an_error_whichever_it_is() {
    let (fixture, runs, records) = faulty_with_two_runs();
    let mut nth = 1;
    loop {
        fixture.faults().fail_read(nth);
        match fixture.store.merge(&runs, &plan(), &|_| true) {
            Err(ColdError::Io { .. }) => {}
            Ok(Some(_)) => break,
            other => panic!("read {nth}: {other:?}"),
        }
        nth += 1;
    }
    assert!(nth > 20, "only {nth} reads were tried");
    // Nothing of the failures stuck to the runs.
    fixture.faults().fail_read(0);
    assert!(all_of(&runs[0], 0) == records[0]);
    let first = &records[0][0];
    fixture.faults().fail_read(1);
    assert!(runs[0].seek_key(first.hash, &first.key).is_err());
    assert!(runs[0].seek_key(first.hash, &first.key).unwrap().is_some());
}

#[test]
fn a_sync_that_fails_leaves_no_run() {
    let (fixture, runs, _) = faulty_with_two_runs();
    fixture.faults().fail_sync(1);
    let merged = fixture.store.merge(&runs, &plan(), &|_| true);
    assert!(matches!(merged, Err(ColdError::Io { action: "sync", .. })));
    assert_eq!(fixture.store.list().unwrap().len(), 2);
    fixture.faults().fail_sync(1);
    assert!(fixture.store.sync().is_err());
    fixture.store.sync().unwrap();
}
