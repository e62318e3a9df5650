//! What an index run has done so far: written by its threads, read by the progress display.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

/// The unreadable paths that are named; all are counted.
pub(crate) const UNREADABLE_NAMED_MAX: usize = 20;

/// Counts of a run. They are for people to read, so no ordering between them is promised.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    /// Bytes of the documents that were read.
    pub(crate) bytes: AtomicU64,
    /// Documents that were begun.
    pub(crate) documents: AtomicU64,
    /// Documents that the server has acknowledged whole.
    pub(crate) documents_sent: AtomicU64,
    /// Terms that were counted.
    pub(crate) terms: AtomicU64,
    /// Postings that the server has acknowledged.
    pub(crate) postings_sent: AtomicU64,
    /// Appends that the server has acknowledged.
    pub(crate) appends_sent: AtomicU64,
    /// Bytes of posting lists that the server has acknowledged.
    pub(crate) posting_bytes_sent: AtomicU64,
    /// Files that are no text.
    pub(crate) skipped: AtomicU64,
    /// Somebody has waited long enough.
    stopped: AtomicBool,
}

impl Figures {
    pub(crate) fn get(figure: &AtomicU64) -> u64 {
        figure.load(Relaxed)
    }

    pub(crate) fn add(figure: &AtomicU64, amount: u64) {
        figure.fetch_add(amount, Relaxed);
    }

    /// Ends the run in order.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Relaxed);
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Relaxed)
    }
}

/// The paths that could not be read: the first by name, all by count.
#[derive(Debug, Default)]
pub(crate) struct Unreadable {
    pub(crate) count: u64,
    /// Each with the reason.
    pub(crate) named: Vec<(PathBuf, String)>,
}

impl Unreadable {
    pub(crate) fn add(&mut self, path: PathBuf, reason: String) {
        self.count += 1;
        if self.named.len() < UNREADABLE_NAMED_MAX {
            self.named.push((path, reason));
        }
    }
}
