//! When something was last seen.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

/// The last time that something was seen, for threads that ask whether it was of late.
#[derive(Debug)]
pub(crate) struct Moment {
    began: Instant,
    /// Microseconds since then, and one; 0 for never.
    at_us: AtomicU64,
}

impl Default for Moment {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            at_us: AtomicU64::new(0),
        }
    }
}

impl Moment {
    /// It is seen now.
    pub(crate) fn note(&self) {
        self.at_us.store(self.now_us().saturating_add(1), Relaxed);
    }

    /// Whether it was seen within this time.
    pub(crate) fn was_within(&self, time: Duration) -> bool {
        let at_us = self.at_us.load(Relaxed);
        at_us > 0 && u128::from(self.now_us().saturating_sub(at_us)) < time.as_micros()
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_never_seen_is_not_of_late() {
        let moment = Moment::default();
        assert!(!moment.was_within(Duration::MAX));
        moment.note();
        assert!(moment.was_within(Duration::from_secs(3600)));
        assert!(!moment.was_within(Duration::ZERO));
    }
}
