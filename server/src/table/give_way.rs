//! Merges give way to reads that wait for the disk, as long as nobody waits for the merges.
//!
//! Where nothing is written, all of them do. Where something is, runs pile up and entries become
//! garbage while a merge rests: then those alone do that would be done ahead of need.

use std::{sync::atomic::Ordering::Relaxed, thread, time::Duration};

use super::{Table, due::Cause};

/// A read of this time ago that waited for the disk is likely to be followed by others, …
const READS_GO_FIRST: Duration = Duration::from_millis(10);
/// … for which a merge rests so many times as long as it works, …
const REST_FOR_WORK: u32 = 8;
/// … a step of it at a time.
const REST_MAX: Duration = Duration::from_millis(20);
/// Nothing is written when nothing was spilled for so long. A load at full rate spills more often; one that does not
/// notices little of merges that rest in between, since they end that as soon as it waits for them.
pub(super) const QUIET_AFTER: Duration = Duration::from_millis(20);

impl Table {
    /// Rests after some work on a merge, if reads are to go first.
    pub(super) fn give_way(&self, cause: Cause, worked: Duration) {
        if self.reads_go_first(cause) {
            thread::park_timeout((worked * REST_FOR_WORK).min(REST_MAX));
        }
    }

    /// Whether reads go before a merge for this cause.
    pub(super) fn reads_go_first(&self, cause: Cause) -> bool {
        let shared = &self.shared;
        shared.pool.waited.was_within(READS_GO_FIRST)
            && shared.waits_for_merges.load(Relaxed) == 0
            && !shared.budget.is_stopping()
            && !shared.budget.wants_relief()
            && (!shared.spilled.was_within(QUIET_AFTER) || self.is_ahead_of_need(cause))
    }

    /// Whether a merge for this cause leaves time while the table is written to.
    fn is_ahead_of_need(&self, cause: Cause) -> bool {
        cause == Cause::Depth && self.runs_deepest() <= self.depths().most
    }
}
