//! How much a cache holds, and how much one batch.

use std::time::Duration;

use rhash_protocol::limits::{BATCH_BYTES_TARGET, BATCH_ENTRIES_MAX};

use super::pending::BatchLimits;

/// Where the flusher closes a batch.
pub(super) const BATCH_LIMITS: BatchLimits = BatchLimits {
    bytes_target: BATCH_BYTES_TARGET,
    entries_max: BATCH_ENTRIES_MAX,
};

/// The bounds of a cache.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CacheLimits {
    pub(crate) bytes_max: usize,
    pub(crate) items_max: Option<usize>,
    /// Pending bytes at which the flusher starts.
    pub(crate) flush_bytes: usize,
    /// The age at which a write is flushed.
    pub(crate) flush_interval: Duration,
    /// The longest value or fragment that the server takes in one operation.
    pub(crate) op_bytes_max: usize,
}
