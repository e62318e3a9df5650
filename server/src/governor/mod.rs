//! The governor: keeps the process under its memory limit, and the runs few.
//!
//! One thread spills when entries take more than the high mark, down to the low mark, in steps of a
//! few MiB; `relief` says which tables give. It also steers: it measures what the process takes beyond
//! entries, and leaves entries that much less. A second thread merges (`upkeep`).

mod budget;
mod kept;
mod relief;
mod resident;
mod upkeep;

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

pub(crate) use budget::Budget;
pub(crate) use kept::{KeptAccount, KeptRoom};
pub(crate) use resident::Resident;
pub(crate) use upkeep::upkeep;

use crate::{
    allocator, cold,
    pages::{self, Keep},
    shared::Shared,
    store::Tables,
};

/// The governor looks at least this often.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(20);
/// After a spill or merge that failed, it waits this long.
const RETRY_AFTER: Duration = Duration::from_millis(250);
/// Of the limit, this part stays free for what nobody foresees, …
const MARGIN_SHARE: u64 = 16;
/// … and at least this much: buffers of many connections grow by it between two looks.
const MARGIN_BYTES_MIN: u64 = 2560 << 10;
/// Before anything is measured: what threads, buffers, sled and merges take.
const OVERHEAD_BYTES: u64 = 8 << 20;
/// So much of the limit more is left free at first, as a divisor, and forgotten like an overhead that was measured: the
/// first burst of a fast writer grows all buffers at once, before any of them was seen.
const START_SHARE: u64 = 16;
/// How fast a measured overhead is forgotten: a 1024th of it at each look.
const FORGET_SHARE: u64 = 1024;
/// Beyond this part of the limit, and beyond what is usual, what is not entries may be memory that
/// was freed and not given back.
const OVERHEAD_SHARE_SUSPECT: u64 = 8;
/// The allocator is told to give back at most this often: it holds its locks for milliseconds.
const GIVE_BACK_EVERY: Duration = Duration::from_millis(100);
/// It is told as well when no entry came or went for so long.
const REST_AFTER: Duration = Duration::from_secs(5);
/// Memory that was freed is kept for entries to come while this part of the limit is free.
const RESIDENT_SHARE_FREE: u64 = 8;
/// What long answers that may be asked for again take at most of the limit, as a divisor.
const KEPT_SHARE: u64 = 16;
/// Entries keep at least this part of the limit, whatever the overhead.
const ENTRIES_SHARE_MIN: u64 = 8;
/// In a server with a cold tier entries take at most this part of the limit, in eighths.
const ENTRIES_EIGHTHS_MAX: u64 = 7;

/// How much is done at a time; all follow from the memory limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Steps {
    /// Bytes of hot entries that one spill takes.
    pub(crate) spill_bytes: usize,
    /// A small table's ranges are split until there are this many.
    pub(crate) ranges_soon: usize,
    /// A range of a table that has few ranges is split beyond this.
    pub(crate) range_bytes_soon: u64,
    /// A range of a table that has many is split beyond this.
    pub(crate) range_bytes_late: u64,
}

impl Steps {
    /// The steps under a memory limit.
    pub(crate) fn under(mem_limit_bytes: u64) -> Self {
        let spill_bytes = (mem_limit_bytes / 12).clamp(1 << 20, 16 << 20);
        Self {
            spill_bytes: spill_bytes as usize,
            ranges_soon: 8,
            range_bytes_soon: spill_bytes * 16,
            range_bytes_late: (spill_bytes * 64).max(1 << 30),
        }
    }

    /// Steps that the reserve of a disk limit has room for. A merge needs as much as its range has;
    /// and it frees a run only with the last range that the run reaches into, so runs are narrow.
    pub(crate) fn within(self, disk_limit_bytes: Option<u64>) -> Self {
        let Some(limit_bytes) = disk_limit_bytes else {
            return self;
        };
        let reserve_bytes = cold::reserve_bytes(limit_bytes);
        let merge_bytes = reserve_bytes / 4;
        Self {
            spill_bytes: self.spill_bytes.min((reserve_bytes / 64) as usize),
            range_bytes_soon: self.range_bytes_soon.min(merge_bytes),
            range_bytes_late: self.range_bytes_late.min(merge_bytes),
            ..self
        }
    }

    /// How large a range may be in a table of so many ranges.
    pub(crate) fn range_bytes_max(&self, ranges: usize) -> u64 {
        if ranges < self.ranges_soon {
            self.range_bytes_soon
        } else {
            self.range_bytes_late
        }
    }
}

/// Wakes one thread that waits, or the next one that will.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    rung: Mutex<bool>,
    wakes: Condvar,
}

impl Bell {
    /// Wakes the waiter.
    pub(crate) fn ring(&self) {
        *self.rung.lock() = true;
        self.wakes.notify_all();
    }

    /// Waits until the bell is rung, at most so long; says whether it was.
    pub(crate) fn wait(&self, at_most: Duration) -> bool {
        let mut rung = self.rung.lock();
        if !*rung {
            self.wakes.wait_for(&mut rung, at_most);
        }
        std::mem::take(&mut *rung)
    }
}

/// What the steering thread saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// The most that any look found.
    pub(crate) resident_bytes_max: AtomicU64,
}

/// Spills and steers until the budget stops it.
pub(crate) fn govern(shared: &Shared, tables: &Tables, seen: &Seen, limit_bytes: Option<u64>) {
    let resident = Resident::new();
    let mut steering = Steering {
        shared,
        seen,
        resident,
        limit_bytes,
        overhead_bytes: limit_bytes.map_or(0, overhead_bytes_at_start),
        buffers_bytes: 0,
        margin_used_bytes: 0,
        resident_bytes: 0,
        gave_back: Instant::now(),
        rest: Rest::new(),
        merges: Merges::Elsewhere,
    };
    while !shared.budget.is_stopping() {
        shared.budget.wait_for_work(LOOK_EVERY);
        steering.look();
        if shared.cold.is_some() && !relief::relieve(shared, tables, &mut steering) {
            shared.budget.wait_for_work(RETRY_AFTER);
        }
    }
    pages::keep(Keep {
        warm_bytes_min: 0,
        warm_bytes_max: 0,
        room_bytes: 0,
    });
}

/// Spills as the governor would do now, before it runs.
///
/// # Errors
/// Why nothing can be spilled.
pub(crate) fn relieve_at_start(shared: &Shared, tables: &Tables) -> Result<(), String> {
    let mut steering = Steering {
        shared,
        seen: &Seen::default(),
        resident: Resident::new(),
        limit_bytes: None,
        overhead_bytes: 0,
        buffers_bytes: 0,
        margin_used_bytes: 0,
        resident_bytes: 0,
        gave_back: Instant::now(),
        rest: Rest::new(),
        merges: Merges::Here,
    };
    if relief::relieve(shared, tables, &mut steering) {
        return Ok(());
    }
    let trouble = shared.budget.trouble();
    Err(trouble.map_or_else(
        || "what it says does not fit memory, and could not be spilled".to_owned(),
        |trouble| trouble.text,
    ))
}

/// Spills as the governor would do now.
#[cfg(test)]
pub(crate) fn relieve_now(shared: &Shared, tables: &Tables) {
    assert_eq!(relieve_at_start(shared, tables), Ok(()));
}

/// What entries may take before anything is measured.
pub(crate) fn entries_bytes_at_start(limit_bytes: u64) -> usize {
    entries_bytes(limit_bytes, overhead_bytes_at_start(limit_bytes))
}

fn overhead_bytes_at_start(limit_bytes: u64) -> u64 {
    OVERHEAD_BYTES + limit_bytes / START_SHARE
}

/// What answers that may be asked for again may take.
pub(crate) fn kept_bytes_max(limit_bytes: u64) -> usize {
    usize::try_from(limit_bytes / KEPT_SHARE).unwrap_or(usize::MAX)
}

/// What is left between all that is counted and the limit.
fn margin_bytes(limit_bytes: u64) -> u64 {
    (limit_bytes / MARGIN_SHARE).max(MARGIN_BYTES_MIN)
}

fn entries_bytes(limit_bytes: u64, overhead_bytes: u64) -> usize {
    let room = limit_bytes.saturating_sub(margin_bytes(limit_bytes));
    let most = limit_bytes / 8 * ENTRIES_EIGHTHS_MAX;
    room.saturating_sub(overhead_bytes)
        .clamp(limit_bytes / ENTRIES_SHARE_MIN, most) as usize
}

/// The most that was seen of late: it is forgotten slowly.
fn remember(before: u64, now: u64) -> u64 {
    now.max(before - before / FORGET_SHARE)
}

/// Measures what the process takes beyond entries, and leaves them the rest.
struct Steering<'a> {
    shared: &'a Shared,
    seen: &'a Seen,
    resident: Resident,
    /// None: what entries may take is fixed.
    limit_bytes: Option<u64>,
    overhead_bytes: u64,
    /// What buffers of connections took of late.
    buffers_bytes: u64,
    /// What of the margin was used of late: twice as much more is left free.
    margin_used_bytes: u64,
    /// What the process took at the last look.
    resident_bytes: u64,
    /// When the allocator was told last.
    gave_back: Instant,
    rest: Rest,
    merges: Merges,
}

/// Since when what entries take is as it is.
#[derive(Debug)]
struct Rest {
    tracked_bytes: u64,
    since: Instant,
    was_told: bool,
}

impl Rest {
    fn new() -> Self {
        Self {
            tracked_bytes: 0,
            since: Instant::now(),
            was_told: false,
        }
    }

    /// Whether a rest is long enough now; said once for each.
    fn is_reached(&mut self, tracked_bytes: u64) -> bool {
        if tracked_bytes != self.tracked_bytes {
            *self = Self {
                tracked_bytes,
                ..Self::new()
            };
        }
        let is_reached = !self.was_told && self.since.elapsed() >= REST_AFTER;
        self.was_told |= is_reached;
        is_reached
    }
}

/// Who merges while spills wait for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Merges {
    /// A thread of its own.
    Elsewhere,
    /// Nobody else, as no thread runs yet.
    Here,
}

impl Steering<'_> {
    /// What the process takes beyond what is tracked, and beyond what entries will take next.
    fn measure(&mut self) -> u64 {
        let tracked_bytes = self.shared.budget.tracked_bytes() as u64;
        let now = self.resident.anonymous_bytes();
        self.seen.resident_bytes_max.fetch_max(now, Relaxed);
        self.resident_bytes = now;
        now.saturating_sub(tracked_bytes + pages::warm_bytes() as u64)
    }

    fn look(&mut self) {
        let Some(limit_bytes) = self.limit_bytes else {
            return;
        };
        let mut overhead_now = self.measure();
        let suspect = OVERHEAD_BYTES.max(limit_bytes / OVERHEAD_SHARE_SUSPECT);
        let is_much = overhead_now > suspect && self.gave_back.elapsed() >= GIVE_BACK_EVERY;
        // Whoever filled tables and closed them finds little to have been kept for the next ones.
        let is_at_rest = self
            .rest
            .is_reached(self.shared.budget.tracked_bytes() as u64);
        if is_much || is_at_rest {
            allocator::give_back_now();
            self.gave_back = Instant::now();
            overhead_now = self.measure();
        }
        // What was seen once may come again, and faster than entries make room for it.
        self.overhead_bytes = remember(self.overhead_bytes, overhead_now);
        let buffers_now = self.shared.budget.buffers_bytes() as u64;
        self.buffers_bytes = remember(self.buffers_bytes, buffers_now);
        let margin_from = limit_bytes.saturating_sub(margin_bytes(limit_bytes));
        let margin_used_now = self.resident_bytes.saturating_sub(margin_from);
        self.margin_used_bytes = remember(self.margin_used_bytes, margin_used_now);
        let overhead = self.overhead_bytes.max(OVERHEAD_BYTES)
            + 2 * self.margin_used_bytes
            + (self.buffers_bytes - buffers_now);
        let bytes = entries_bytes(limit_bytes, overhead);
        let budget = &self.shared.budget;
        budget.set_entries_bytes_max(bytes);
        // What one spill frees is what comes in until the next. Near the limit nothing is kept, nor
        // what entries could not take without going over theirs.
        let is_near = self.resident_bytes > limit_bytes - limit_bytes / MARGIN_SHARE;
        let most = limit_bytes - limit_bytes / RESIDENT_SHARE_FREE;
        pages::keep(Keep {
            warm_bytes_min: if is_near {
                0
            } else {
                self.shared.steps.spill_bytes / 8
            },
            warm_bytes_max: self.shared.steps.spill_bytes,
            room_bytes: (most as i64 - self.resident_bytes as i64)
                .min(bytes as i64 - (budget.tracked_bytes() + pages::warm_bytes()) as i64),
        });
    }
}
