//! Scans: pages of entries in the order of places and keys.
//!
//! A page is folded from a copy of the hot entries after the cursor, the intervals in transit and
//! the runs of one range at a time, all taken under one hold of the lock. An entry that lives
//! throughout is in that picture in whatever level it is, and cursors only go up, so each scan
//! yields it exactly once.

use std::sync::Arc;

use rhash_protocol::{
    PageEntry, ScanWhat, Slot,
    limits::{ANSWER_BYTES_TARGET, BATCH_ENTRIES_MAX, INLINE_VALUE_BYTES_MAX, KEY_BYTES_MAX},
    packed::push_page_entry,
};

use super::{Answer, PackedReply, PageReply, Table, TableError, check::bad_request};
use crate::{
    cold::{ColdError, Fold, RecordSource},
    hot::FrozenSource,
    shared::cold_error,
};

/// Hot entries copied for a page, in bytes.
const SNAPSHOT_BYTES_MAX: usize = ANSWER_BYTES_TARGET;
const SNAPSHOT_BYTES_MIN: usize = 8 * 1024;
/// A page is expected to hold hot entries in their share of the table; so many times that is
/// copied, since a page that needs more has to begin again.
const SNAPSHOT_SLACK: u64 = 2;
/// What a page reads ahead in all runs together.
const READ_AHEAD_BYTES: usize = 256 * 1024;
const READ_AHEAD_BYTES_MIN: usize = 8 * 1024;

/// Where a scan stands: after the key, or before all keys of the place.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Cursor {
    place: u64,
    after: Option<Vec<u8>>,
}

/// The page at hand.
#[derive(Debug)]
struct PageBuilder {
    what: ScanWhat,
    entries_max: usize,
    page: PackedReply,
}

impl Table {
    /// A page of entries after the cursor; a page is empty only at the end.
    pub fn scan(
        self: &Arc<Self>,
        cursor: Option<&[u8]>,
        what: ScanWhat,
        entries_max: u32,
    ) -> Answer<PageReply> {
        let cursor = match cursor.map_or(
            Ok(Cursor {
                place: 0,
                after: None,
            }),
            Cursor::decode,
        ) {
            Ok(cursor) => cursor,
            Err(error) => return Answer::Ready(Err(error)),
        };
        let entries_max = (entries_max as usize).clamp(1, BATCH_ENTRIES_MAX);
        self.on_pool(move |table| table.page(cursor, what, entries_max))
    }

    /// Whether the table has no entry; reads until it meets one.
    pub fn is_empty(self: &Arc<Self>) -> Answer<bool> {
        self.on_pool(|table| {
            let start = Cursor {
                place: 0,
                after: None,
            };
            Ok(table.page(start, ScanWhat::Keys, 1)?.entries.count == 0)
        })
    }

    fn page(
        self: &Arc<Self>,
        mut cursor: Cursor,
        what: ScanWhat,
        entries_max: usize,
    ) -> Result<PageReply, TableError> {
        let mut builder = PageBuilder {
            what,
            entries_max,
            page: PackedReply::default(),
        };
        let snapshot_bytes = self.snapshot_bytes();
        loop {
            let (mut fold, end) = self.fold_after(&cursor, snapshot_bytes)?;
            let stopped = builder
                .fill(&mut fold, &end)
                .map_err(|error| cold_error(&error))?;
            if let Some(cursor) = stopped {
                return Ok(PageReply {
                    next: Some(cursor.encode()),
                    entries: builder.page,
                });
            }
            cursor = match end {
                Cursor {
                    place: u64::MAX,
                    after: None,
                } => {
                    return Ok(PageReply {
                        next: None,
                        entries: builder.page,
                    });
                }
                Cursor { place, after: None } => Cursor {
                    place: place + 1,
                    after: None,
                },
                end => end,
            };
            // Ranges without entries are passed over, but the client shall not wait for many.
            if builder.page.count > 0 && builder.is_full_enough() {
                return Ok(PageReply {
                    next: Some(cursor.encode()),
                    entries: builder.page,
                });
            }
        }
    }

    /// How much of the hot entries a page is expected to need. The runs are counted without the lock:
    /// this is an estimate.
    fn snapshot_bytes(&self) -> usize {
        let state = self.state.lock();
        let (hot, cold) = (state.hot.footprint_bytes() as u64, Arc::clone(&state.cold));
        drop(state);
        let cold: u64 = cold.runs().iter().map(|run| run.bytes()).sum();
        let share =
            (SNAPSHOT_BYTES_MAX as u64 * SNAPSHOT_SLACK).saturating_mul(hot) / (hot + cold).max(1);
        (share as usize).clamp(SNAPSHOT_BYTES_MIN, SNAPSHOT_BYTES_MAX)
    }

    /// A fold over all levels from the cursor on, and how far it goes: up to a key, or to the
    /// last key of a place.
    fn fold_after(
        &self,
        cursor: &Cursor,
        snapshot_bytes: usize,
    ) -> Result<(Fold, Cursor), TableError> {
        let state = self.state.lock();
        if state.closed {
            return Err(self.closed_error());
        }
        let after = cursor.after.as_deref();
        let snapshot = Arc::new(state.hot.snapshot(cursor.place, after, snapshot_bytes));
        let transit = state.transit.clone();
        let cold = Arc::clone(&state.cold);
        drop(state);
        #[cfg(test)]
        self.shared.hooks.reached(super::hooks::Point::ScanLooked);
        let index = cold.index_of(cursor.place);
        let range_last = cold.last_of(index);
        let end = if snapshot.last() <= range_last {
            let last_key = snapshot.last_key().map(<[u8]>::to_vec);
            Cursor {
                place: snapshot.last(),
                after: last_key,
            }
        } else {
            Cursor {
                place: range_last,
                after: None,
            }
        };
        let mut sources: Vec<Box<dyn RecordSource + Send>> = Vec::new();
        let above = std::iter::once(snapshot).chain(transit);
        for frozen in
            above.filter(|frozen| frozen.first() <= end.place && frozen.last() >= cursor.place)
        {
            let hasher = self.shared.hasher.clone();
            sources.push(Box::new(FrozenSource::after(
                frozen,
                hasher,
                cursor.place,
                after,
            )));
        }
        let runs = &cold.at(cursor.place).runs;
        let read_ahead = (READ_AHEAD_BYTES / runs.len().max(1)).max(READ_AHEAD_BYTES_MIN);
        for run in runs {
            let mut records = run
                .cursor(cursor.place, end.place, read_ahead)
                .map_err(|error| cold_error(&error))?;
            skip_to(&mut records, cursor).map_err(|error| cold_error(&error))?;
            sources.push(Box::new(records));
        }
        Ok((Fold::new(sources, self.kind), end))
    }
}

/// Passes over records at the cursor's place up to and with its key.
fn skip_to(records: &mut impl RecordSource, cursor: &Cursor) -> Result<(), ColdError> {
    let Some(after) = cursor.after.as_deref() else {
        return Ok(());
    };
    while records
        .head()
        .is_some_and(|head| (head.hash.place, head.key) <= (cursor.place, after))
    {
        records.advance()?;
    }
    Ok(())
}

impl PageBuilder {
    /// Takes entries from the fold up to `end`; returns where it stopped, if the page is full.
    fn fill(&mut self, fold: &mut Fold, end: &Cursor) -> Result<Option<Cursor>, ColdError> {
        let mut value = Vec::new();
        while let Some(folded) = fold.next_key()? {
            let place = folded.hash.place;
            let beyond = match &end.after {
                None => place > end.place,
                Some(last_key) => (place, fold.key()) > (end.place, last_key.as_slice()),
            };
            if beyond {
                return Ok(None);
            }
            if folded.deleted {
                continue;
            }
            let key = fold.key().to_vec();
            let longer_bytes = match self.what {
                ScanWhat::Keys => None,
                ScanWhat::Values | ScanWhat::Items => read_value(fold, &mut value)?,
            };
            self.push(&key, &value, longer_bytes);
            if self.page.count as usize >= self.entries_max || self.is_full_enough() {
                return Ok(Some(Cursor {
                    place,
                    after: Some(key),
                }));
            }
        }
        Ok(None)
    }

    fn is_full_enough(&self) -> bool {
        self.page.bytes.len() >= ANSWER_BYTES_TARGET
    }

    fn push(&mut self, key: &[u8], value: &[u8], longer_bytes: Option<u64>) {
        let value = match (self.what, longer_bytes) {
            (ScanWhat::Keys, _) => Slot::Absent,
            (_, Some(bytes)) => Slot::Large(bytes),
            (_, None) => Slot::Value(value),
        };
        let key = match (self.what, value) {
            (ScanWhat::Values, Slot::Value(_)) => &[],
            _ => key,
        };
        push_page_entry(&mut self.page.bytes, &PageEntry { key, value });
        self.page.count += 1;
    }
}

/// Reads the fold's value; for one that is too long for a page, at least how long it is.
fn read_value(fold: &mut Fold, value: &mut Vec<u8>) -> Result<Option<u64>, ColdError> {
    value.clear();
    while let Some(part) = fold.next_part()? {
        if value.len() + part.len() > INLINE_VALUE_BYTES_MAX {
            return Ok(Some((value.len() + part.len()) as u64));
        }
        value.extend_from_slice(part);
    }
    Ok(None)
}

impl Cursor {
    /// The place, big-endian, and the key if there is one, behind a byte that says so.
    fn encode(&self) -> Vec<u8> {
        let mut bytes = self.place.to_be_bytes().to_vec();
        bytes.push(u8::from(self.after.is_some()));
        bytes.extend_from_slice(self.after.as_deref().unwrap_or_default());
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Self, TableError> {
        let parts = bytes.split_first_chunk::<8>().and_then(|(place, rest)| {
            let (&has_key, key) = rest.split_first()?;
            let after = match has_key {
                0 if key.is_empty() => None,
                1 if key.len() <= KEY_BYTES_MAX => Some(key.to_vec()),
                _ => return None,
            };
            Some(Self {
                place: u64::from_be_bytes(*place),
                after,
            })
        });
        parts.ok_or_else(|| {
            bad_request("the scan's cursor is not one that a server gave".to_owned())
        })
    }
}
