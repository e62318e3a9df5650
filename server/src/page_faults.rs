//! Whether threads had to wait for pages of the maps that they read.
//!
//! The index of a run is read through a map, and a page of it that is not in RAM is waited for as it is touched, one
//! after the other. To ask for each page whether it is there costs more than most looks do. So it is counted afterwards
//! how often a thread had to wait; where that happened of late, whoever reads begins to fetch first.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// To begin to fetch costs a call of the system for each page, so that it is worth it only where at least one look in
/// so many had to wait.
const LOOKS_FOR_A_WAIT: u32 = 16;
/// The suspicion ends after as many batches as there were waits in the last one that had them, but after so many at most.
const SUSPECTED_FOR_MAX: u32 = 32;

/// Whether pages are likely to be missing.
#[derive(Debug, Default)]
pub(crate) struct Missing(AtomicU32);

impl Missing {
    /// Whether pages were missing of late.
    pub(crate) fn is_likely(&self) -> bool {
        self.0.load(Relaxed) > 0
    }

    /// Does `work`, which says how many looks it took, and takes note of how often it had to wait for pages.
    pub(crate) fn watch(&self, work: impl FnOnce() -> u32) {
        let before = waits_of_this_thread();
        let looks = work();
        self.note(looks, waits_of_this_thread().saturating_sub(before));
    }

    fn note(&self, looks: u32, waits: u64) {
        let waits = u32::try_from(waits).unwrap_or(u32::MAX);
        if waits > 0 && waits >= looks / LOOKS_FOR_A_WAIT {
            self.0.fetch_max(waits.min(SUSPECTED_FOR_MAX), Relaxed);
        } else if self.is_likely() {
            let less = |left: u32| left.checked_sub(1);
            // It may have ended meanwhile.
            let _ = self.0.fetch_update(Relaxed, Relaxed, less);
        }
    }
}

/// How often the calling thread waited for a page; always 0 where the system does not say.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "the standard library does not tell")]
fn waits_of_this_thread() -> u64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the call fills what it is given, which is valid as zeros, too.
    unsafe {
        libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr());
        usage.assume_init().ru_majflt as u64
    }
}

#[cfg(not(target_os = "linux"))]
fn waits_of_this_thread() -> u64 {
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_suspected_while_a_share_of_looks_waits_for_them() {
        let missing = Missing::default();
        missing.note(50, 2);
        assert!(!missing.is_likely(), "two of fifty are not worth it");
        missing.note(50, 2000);
        for _ in 0..SUSPECTED_FOR_MAX {
            assert!(missing.is_likely());
            missing.note(50, 1);
        }
        assert!(!missing.is_likely());
        missing.note(1, 1);
        assert!(missing.is_likely(), "a get by itself waited");
        missing.watch(|| 1);
        assert!(!missing.is_likely());
    }
}
