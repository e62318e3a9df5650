//! The keys that an iteration gave last, in its order: gets that follow it are fetched in batches.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

/// The most that remembered keys take.
const TRAIL_BYTES_MAX: usize = 8 << 20;

/// What a key takes beyond its bytes: its two handles, and its place in the index.
const KEY_BYTES: usize = 112;

/// The keys of the first batch of a run, and of the longest.
const BATCH_KEYS_MIN: usize = 8;
const BATCH_KEYS_MAX: usize = 1024;

/// The values that one batch should have.
const BATCH_BYTES_TARGET: usize = 256 << 10;

#[derive(Debug, Default)]
pub(crate) struct Trail {
    pages: VecDeque<Vec<Bytes>>,
    /// The number of the first page that is kept, and of the first that is not indexed.
    first: usize,
    unindexed: usize,
    /// Where each key is: its page and its place in that.
    index: HashMap<Bytes, (usize, usize)>,
    bytes: usize,
    /// Where the next get of a run is expected, and how many keys it fetches.
    expected: (usize, usize),
    batch_keys: usize,
    value_bytes: usize,
}

impl Trail {
    /// Remembers the keys of a page.
    pub(crate) fn push(&mut self, page: Vec<Bytes>) {
        self.bytes += cost(&page);
        self.pages.push_back(page);
        while self.bytes > TRAIL_BYTES_MAX {
            let Some(gone) = self.pages.pop_front() else {
                break;
            };
            self.bytes -= cost(&gone);
            if self.first < self.unindexed {
                for key in &gone {
                    if self.index.get(key).is_some_and(|at| at.0 == self.first) {
                        self.index.remove(key);
                    }
                }
            }
            self.first += 1;
            self.unindexed = self.unindexed.max(self.first);
        }
    }

    /// The keys to get at once with this one, which comes first; none if no iteration gave it.
    pub(crate) fn run(&mut self, key: &[u8]) -> Option<Vec<Bytes>> {
        if self.pages.is_empty() {
            return None;
        }
        self.index_pages();
        let &(page, at) = self.index.get(key)?;
        self.batch_keys = if (page, at) == self.expected {
            (self.batch_keys * 2).clamp(BATCH_KEYS_MIN, BATCH_KEYS_MAX)
        } else {
            BATCH_KEYS_MIN
        };
        let fit = BATCH_BYTES_TARGET / self.value_bytes.max(1);
        let count = self.batch_keys.min(fit).max(1);
        let rest = self.pages.get(page - self.first)?.get(at..)?;
        let keys: Vec<Bytes> = rest.iter().take(count).cloned().collect();
        self.expected = if keys.len() == rest.len() {
            (page + 1, 0)
        } else {
            (page, at + keys.len())
        };
        Some(keys)
    }

    /// How long the values of a run were.
    pub(crate) fn learn(&mut self, values: usize, bytes: usize) {
        self.value_bytes = bytes / values.max(1);
    }

    fn index_pages(&mut self) {
        for (number, page) in self.pages.iter().enumerate() {
            let number = self.first + number;
            if number < self.unindexed {
                continue;
            }
            for (at, key) in page.iter().enumerate() {
                self.index.insert(key.clone(), (number, at));
            }
            self.unindexed = number + 1;
        }
    }
}

fn cost(page: &[Bytes]) -> usize {
    page.iter().map(|key| key.len() + KEY_BYTES).sum()
}
