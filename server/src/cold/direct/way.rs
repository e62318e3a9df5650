//! Which way blocks are read from the disk: through the page cache, or past it.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use clap::ValueEnum;

use crate::{moment::Moment, page_cache};

/// How blocks of run files are read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum BlockReads {
    /// Past the page cache where that could hold less than half of the runs, else through it.
    #[default]
    Auto,
    /// Through the page cache.
    Cached,
    /// Past it, even what it has, but for one in eight.
    Direct,
}

/// So long an answer is good for: to ask the system takes some 50 µs.
const GOOD_FOR: Duration = Duration::from_secs(1);

/// So many times as much as the page cache can hold must lie on disk.
const TIMES_THE_CACHE: u64 = 2;

/// The way that blocks are read now.
#[derive(Debug)]
pub(in crate::cold) struct Way {
    rule: BlockReads,
    asked: Moment,
    is_direct: AtomicBool,
    /// When a file could not be opened for it.
    refused: Moment,
}

impl Way {
    pub(in crate::cold) fn new(rule: BlockReads) -> Self {
        Self {
            rule,
            asked: Moment::default(),
            is_direct: AtomicBool::new(false),
            refused: Moment::default(),
        }
    }

    /// A file could not be opened for direct reads, as on file systems that have none: not to be tried for each block.
    pub(in crate::cold) fn refuse(&self) {
        self.refused.note();
    }

    /// Whether what the page cache has is read past it, too.
    pub(in crate::cold) fn is_always_direct(&self) -> bool {
        self.rule == BlockReads::Direct
    }

    /// Whether blocks of so many bytes of runs are to be read past the page cache.
    pub(in crate::cold) fn is_direct(&self, run_bytes: u64) -> bool {
        if self.refused.was_within(GOOD_FOR) {
            return false;
        }
        match self.rule {
            BlockReads::Cached => false,
            BlockReads::Direct => true,
            BlockReads::Auto => {
                if !self.asked.was_within(GOOD_FOR) {
                    self.asked.note();
                    let holds_bytes = page_cache::may_hold_bytes();
                    // Where the system does not say, the cache has its chance.
                    let is_direct = holds_bytes
                        .is_some_and(|held| held.saturating_mul(TIMES_THE_CACHE) < run_bytes);
                    self.is_direct.store(is_direct, Relaxed);
                }
                self.is_direct.load(Relaxed)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_holds_and_without_one_it_depends_on_how_much_there_is() {
        assert!(!Way::new(BlockReads::Cached).is_direct(u64::MAX));
        assert!(Way::new(BlockReads::Direct).is_direct(0));
        assert!(!Way::new(BlockReads::Auto).is_direct(0));
        let refused = Way::new(BlockReads::Direct);
        refused.refuse();
        assert!(!refused.is_direct(0), "not before a while");
        let is_known = page_cache::may_hold_bytes().is_some();
        assert_eq!(Way::new(BlockReads::Auto).is_direct(u64::MAX), is_known);
    }
}
