//! How many files this process may have open, and what that is shared out to.
//!
//! ```text
//! a quarter   run files that are kept open, 512 at most
//! a quarter   what is no connection: sled, the manifest, files being written, reads in flight, the
//!             runtime, those who watch; 2,048 at most
//! the rest    connections
//! ```
//!
//! However much data there is, no more run files are open than that: 1,024 files suffice for any.

use std::{fs, sync::LazyLock};

/// What is assumed where the system does not say.
const ASSUMED: usize = 1024;
/// More run files need not be open at once: opening one costs less than reading a block.
const RUN_FILES_MAX: usize = 512;
/// Nor is there more of the rest, however many files there may be.
const OTHERS_MAX: usize = 2048;
/// With fewer the server could not work.
const RUN_FILES_MIN: usize = 16;
/// The fewest connections that are let in all the same.
const CONNECTIONS_MIN: u64 = 16;

static OPEN_FILES_MAX: LazyLock<usize> = LazyLock::new(|| {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    soft_limit(&limits).unwrap_or(ASSUMED)
});

/// How many run files are kept open at once.
pub(crate) fn run_files_max() -> usize {
    (*OPEN_FILES_MAX / 4).clamp(RUN_FILES_MIN, RUN_FILES_MAX)
}

/// How many connections there are files for.
pub(crate) fn connections_max() -> u64 {
    connections_of(*OPEN_FILES_MAX)
}

fn connections_of(open_files_max: usize) -> u64 {
    let quarter = open_files_max / 4;
    let kept = quarter.min(RUN_FILES_MAX) + quarter.min(OTHERS_MAX);
    (open_files_max.saturating_sub(kept) as u64).max(CONNECTIONS_MIN)
}

/// The soft limit of open files, of the kernel's table of limits.
fn soft_limit(limits: &str) -> Option<usize> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(usize::MAX),
        number => number.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_is_read() {
        let table = "Limit                     Soft Limit           Hard Limit           Units     \n\
                     Max processes             95790                95790                processes \n\
                     Max open files            1024                 524288               files     \n";
        assert_eq!(soft_limit(table), Some(1024));
        assert_eq!(
            soft_limit("Max open files unlimited unlimited"),
            Some(usize::MAX)
        );
        assert_eq!(soft_limit("nothing"), None);
        assert!(run_files_max() >= RUN_FILES_MIN);
    }

    #[test]
    fn connections_get_what_nothing_else_may_need() {
        for (open_files_max, connections) in [
            (0, CONNECTIONS_MIN),
            (256, 128),
            (1024, 512),
            (20_000, 17_440),
            (usize::MAX, (usize::MAX - 2560) as u64),
        ] {
            assert_eq!(connections_of(open_files_max), connections);
        }
    }
}
