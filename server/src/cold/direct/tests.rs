//! What is read past the page cache is what lies in the file.

use std::{
    fs,
    os::unix::fs::FileExt as _,
    path::PathBuf,
    time::{Duration, Instant},
};

use super::*;

/// A file of pages, each of which says which one it is, and a few bytes more; opened for direct reads, if they are possible
/// here.
struct Pages {
    _dir: tempfile::TempDir,
    path: PathBuf,
    direct: Option<Arc<File>>,
}

const PAGES: u64 = 300;
const REST: &[u8] = b"and a rest";

impl Pages {
    fn new() -> Self {
        // Beside the program, since a directory for temporary files may lie in RAM.
        let program = std::env::current_exe().unwrap();
        let dir = tempfile::tempdir_in(program.parent().unwrap()).unwrap();
        let path = dir.path().join("pages");
        let mut bytes: Vec<u8> = (0..PAGES * ALIGNED_BYTES / 8)
            .flat_map(|word| (word * 8).to_le_bytes())
            .collect();
        bytes.extend_from_slice(REST);
        fs::write(&path, bytes).unwrap();
        File::open(&path).unwrap().sync_all().unwrap();
        let direct = open(&path).ok().map(Arc::new);
        if direct.is_none() {
            eprintln!("no direct reads in {}", dir.path().display());
        }
        Self {
            _dir: dir,
            path,
            direct,
        }
    }
}

/// The word that begins the bytes.
fn word(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes[..8].try_into().unwrap())
}

#[test]
fn reads_bring_what_lies_in_the_file_in_whatever_order_they_are_taken() {
    let pages = Pages::new();
    let Some(file) = &pages.direct else { return };
    let (run, mut random) = (7, fastrand::Rng::with_seed(2010));
    let before = begun_count();
    within(|| {
        for _ in 0..20 {
            let mut offsets: Vec<u64> = (0..queue::READS_MAX)
                .map(|_| random.u64(..PAGES * ALIGNED_BYTES / 8 - 100) * 8)
                .collect();
            for &offset in &offsets {
                assert!(begin(run, offset, 800, file), "of {offset}");
            }
            random.shuffle(&mut offsets);
            for offset in offsets {
                let mut bytes = [0; 800];
                assert_eq!(take(run, offset, &mut bytes), Ok(true));
                assert_eq!((word(&bytes), word(&bytes[792..])), (offset, offset + 792));
                assert_eq!(take(run, offset, &mut bytes), Ok(true), "once more");
                assert_eq!(take(run + 1, offset, &mut bytes), Ok(false), "another run");
            }
        }
    });
    assert_eq!(begun_count() - before, 20 * queue::READS_MAX as u64);
    let mut bytes = [0; 8];
    let left: Vec<_> = (0..PAGES)
        .filter(|page| take(run, page * ALIGNED_BYTES, &mut bytes) != Ok(false))
        .collect();
    assert!(left.is_empty(), "forgotten with the work: {left:?}");
}

#[test]
fn who_must_not_wait_is_told_so_and_finds_the_read_under_way() {
    let pages = Pages::new();
    let Some(file) = &pages.direct else { return };
    within(|| {
        let mut bytes = [0; 8];
        for page in 0..10 {
            let offset = page * ALIGNED_BYTES;
            let begins = || begin(1, offset, 8, file) && take(1, offset, &mut bytes).is_err();
            assert_eq!(waiting::never(begins), None, "it would have had to wait");
        }
        for page in 0..10 {
            assert_eq!(take(1, page * ALIGNED_BYTES, &mut bytes), Ok(true));
            assert_eq!(word(&bytes), page * ALIGNED_BYTES);
        }
    });
}

#[test]
fn what_the_file_does_not_have_is_not_made_up() {
    let pages = Pages::new();
    let Some(file) = &pages.direct else { return };
    within(|| {
        let end = PAGES * ALIGNED_BYTES;
        let mut rest = [0; REST.len()];
        assert!(begin(1, end, REST.len(), file));
        assert_eq!(take(1, end, &mut rest), Ok(true));
        assert_eq!(rest, REST);
        let mut beyond = [0; REST.len() + 1];
        assert_eq!(take(1, end, &mut beyond), Ok(false), "one byte too many");
        assert!(begin(2, end + 3 * ALIGNED_BYTES, 8, file));
        assert_eq!(take(2, end + 3 * ALIGNED_BYTES, &mut rest[..8]), Ok(false));
        assert!(!begin(1, 0, queue::READ_BYTES_MAX + 1, file), "too long");
        assert!(
            !begin(1, 1, queue::READ_BYTES_MAX, file),
            "with what is around it"
        );
        assert!(!begin(1, u64::MAX, 8, file));
    });
    // Written after the file was opened, and still in the page cache alone.
    let other = fs::OpenOptions::new()
        .write(true)
        .open(&pages.path)
        .unwrap();
    other.write_all_at(&[9; 8], 0).unwrap();
    within(|| {
        let mut bytes = [0; 8];
        assert!(begin(1, 0, 8, file));
        assert_eq!((take(1, 0, &mut bytes), bytes), (Ok(true), [9; 8]));
    });
}

#[test]
fn a_thread_whose_reads_all_fail_begins_no_more() {
    let pages = Pages::new();
    let Some(file) = &pages.direct else { return };
    let beyond = (PAGES + 7) * ALIGNED_BYTES;
    let mut bytes = [0; 8];
    within(|| {
        for run in 0..u64::from(FAILURES_MAX) {
            assert!(is_open(), "after {run}");
            assert!(begin(run, beyond, 8, file));
            assert_eq!(take(run, beyond, &mut bytes), Ok(false));
        }
        assert!(!is_open());
        assert!(begin(0, 0, 8, file) && take(0, 0, &mut bytes) == Ok(true));
        assert!(is_open(), "one that does not fail is trusted again");
    });
}

#[test]
fn reads_that_nobody_takes_are_in_nobody_s_way() {
    let pages = Pages::new();
    let Some(file) = &pages.direct else { return };
    for round in 0..50 {
        within(|| {
            let mut bytes = [0; 8];
            // Forgotten while they are under way, by this work and by the ones before.
            for page in 0..queue::READS_MAX as u64 * 2 {
                begin(round, page * ALIGNED_BYTES, 8, file);
            }
            let last = (queue::READS_MAX as u64 * 2 - 1) * ALIGNED_BYTES;
            let began = Instant::now();
            while !begin(round, last, 8, file) {
                assert!(began.elapsed() < Duration::from_secs(20), "round {round}");
                std::thread::yield_now();
            }
            assert_eq!(take(round, last, &mut bytes), Ok(true));
            assert_eq!(word(&bytes), last);
        });
    }
}

#[test]
fn a_thread_that_ends_leaves_no_read_behind() {
    let pages = Pages::new();
    let Some(file) = &pages.direct else { return };
    for _ in 0..20 {
        let file = Arc::clone(file);
        let thread = std::thread::spawn(move || {
            within(|| {
                for page in 0..20 {
                    begin(1, page * ALIGNED_BYTES, 8, &file);
                }
            });
            file
        });
        drop(thread.join().unwrap());
    }
    assert_eq!(Arc::strong_count(file), 1, "nobody has the file any more");
}

#[test]
fn one_in_a_few_goes_through_the_page_cache() {
    let direct = (0..READS_FOR_A_CACHED * 10).filter(|_| is_next()).count();
    assert_eq!(direct as u32, (READS_FOR_A_CACHED - 1) * 10);
    assert!(!is_open());
    within(|| assert!(is_open()));
    assert!(!is_open());
}
