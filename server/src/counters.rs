//! What the engine counts for `stats`.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counters since the start; each is exact, but they are not read at one moment.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Entries that spills wrote.
    pub(crate) spilled_entries: AtomicU64,
    /// Bytes that spills wrote.
    pub(crate) spilled_bytes: AtomicU64,
    /// Entries that reads brought back to RAM.
    pub(crate) promoted_entries: AtomicU64,
    /// Merges done.
    pub(crate) merges: AtomicU64,
    /// Bytes that merges wrote.
    pub(crate) merged_bytes: AtomicU64,
    /// Microseconds that writers waited.
    pub(crate) stall_us: AtomicU64,
}

/// Adds to a counter.
pub(crate) fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Relaxed);
}
