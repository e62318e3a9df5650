//! One file on a disk that may lose its power: what is on stable storage, and what was done since.

use std::collections::HashMap;
use std::ops::Range;

use super::draws::Draws;

/// What is written whole or not at all.
const SECTOR_BYTES: u64 = 512;
/// What the kernel writes at a time.
const PAGE_BYTES: u64 = 4096;

/// What of the changes since the last sync a power cut leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Survival {
    /// Nothing: the strictest disk.
    Nothing,
    /// All, as if the process alone had been killed.
    Everything,
    /// Of each file all or nothing, so that files are out of order with each other.
    Files,
    /// Each page as it was at some moment since the last sync.
    Pages,
    /// Each sector as it was at some moment, so that writes are torn.
    Sectors,
}

/// A file.
#[derive(Debug, Clone, Default)]
pub(super) struct FileState {
    /// What is on stable storage.
    kept: Vec<u8>,
    /// What was done since, with the numbers of the events.
    changes: Vec<(usize, Change)>,
}

/// A change of a file.
#[derive(Debug, Clone)]
pub(super) enum Change {
    /// Bytes at an offset, which lie in the trace.
    Write { offset: u64, bytes: Range<usize> },
    /// A new length.
    Cut { bytes: u64 },
}

impl FileState {
    pub(super) fn change(&mut self, number: usize, change: Change) {
        self.changes.push((number, change));
    }

    /// What was done before the event `began` is on stable storage.
    pub(super) fn sync(&mut self, trace: &[u8], began: usize) {
        let synced = self.changes.partition_point(|(number, _)| *number < began);
        for (_, change) in self.changes.drain(..synced) {
            match change {
                Change::Write { offset, bytes } => put(&mut self.kept, offset, &trace[bytes]),
                Change::Cut { bytes } => self.kept.resize(bytes as usize, 0),
            }
        }
    }

    /// What was done before the event `began` never gets to the disk: a kernel that could not write a page may
    /// call it clean.
    pub(super) fn fail_sync(&mut self, began: usize) {
        self.changes.retain(|(number, _)| *number >= began);
    }

    /// Whether something was done that is not on stable storage.
    #[cfg(test)]
    pub(super) fn is_dirty(&self) -> bool {
        !self.changes.is_empty()
    }

    /// What a power cut leaves of it.
    pub(super) fn survivor(&self, trace: &[u8], survival: Survival, draws: &mut Draws) -> Vec<u8> {
        let moments = self.changes.len();
        let (unit_bytes, whole) = match survival {
            Survival::Nothing => (PAGE_BYTES, Some(0)),
            Survival::Everything => (PAGE_BYTES, Some(moments)),
            Survival::Files => (PAGE_BYTES, Some(if draws.once_in(2) { 0 } else { moments })),
            Survival::Pages => (PAGE_BYTES, None),
            Survival::Sectors => (SECTOR_BYTES, None),
        };
        // Lengths are kept in order: a later one stands for all before it.
        let cut_moment = whole.unwrap_or_else(|| draws.moment(moments));
        let mut units: HashMap<u64, usize> = HashMap::new();
        let mut content = self.kept.clone();
        let mut length = content.len() as u64;
        for (moment, (_, change)) in self.changes.iter().enumerate() {
            match change {
                Change::Cut { bytes } if moment < cut_moment => {
                    content.resize(*bytes as usize, 0);
                    length = *bytes;
                }
                Change::Cut { .. } => {}
                Change::Write { offset, bytes } => {
                    let written = &trace[bytes.clone()];
                    if moment < cut_moment {
                        length = length.max(offset + written.len() as u64);
                    }
                    for unit in units_of(*offset, written.len(), unit_bytes) {
                        let reached = whole.unwrap_or_else(|| {
                            *units
                                .entry(unit.start / unit_bytes)
                                .or_insert_with(|| draws.moment(moments))
                        });
                        if moment < reached {
                            let from = (unit.start - offset) as usize;
                            let to = (unit.end - offset) as usize;
                            put(&mut content, unit.start, &written[from..to]);
                        }
                    }
                }
            }
        }
        content.resize(length as usize, 0);
        content
    }
}

/// The parts of a write that lie in one unit each.
fn units_of(offset: u64, length: usize, unit_bytes: u64) -> impl Iterator<Item = Range<u64>> {
    let end = offset + length as u64;
    let mut from = offset;
    std::iter::from_fn(move || {
        let to = ((from / unit_bytes + 1) * unit_bytes).min(end);
        let unit = from..to;
        from = to;
        (!unit.is_empty()).then_some(unit)
    })
}

fn put(content: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let offset = offset as usize;
    let end = offset + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset..end].copy_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A trace's bytes of which any part can be written: the number of the write, all over.
    fn ink(writes: u8, length: usize) -> Vec<u8> {
        (1..=writes)
            .flat_map(|number| vec![number; length])
            .collect()
    }

    fn write(number: u8, offset: u64, length: usize) -> Change {
        let from = (usize::from(number) - 1) * length;
        Change::Write {
            offset,
            bytes: from..from + length,
        }
    }

    #[test]
    fn a_write_that_was_not_synced_may_be_dropped_and_one_that_was_is_kept() {
        let trace = ink(2, 100);
        let mut file = FileState::default();
        file.change(1, write(1, 0, 100));
        file.change(3, write(2, 0, 100));
        // The sync began before the second write.
        file.sync(&trace, 2);
        assert!(file.is_dirty());
        let mut draws = Draws::new(1, 1);
        let left = |survival, draws: &mut Draws| file.survivor(&trace, survival, draws);
        assert_eq!(left(Survival::Nothing, &mut draws), vec![1; 100]);
        assert_eq!(left(Survival::Everything, &mut draws), vec![2; 100]);
        let mut seen: Vec<Vec<u8>> = (0..50).map(|_| left(Survival::Files, &mut draws)).collect();
        seen.sort();
        seen.dedup();
        assert_eq!(seen, [vec![1; 100], vec![2; 100]], "both come");
    }

    #[test]
    fn sectors_are_torn_at_their_borders_and_nowhere_else() {
        let trace = ink(3, 2048);
        let mut file = FileState::default();
        file.change(1, write(1, 100, 2048));
        file.sync(&trace, 2);
        file.change(3, write(2, 100, 2048));
        file.change(4, write(3, 100, 2048));
        let mut torn = 0;
        for seed in 0..200 {
            let mut draws = Draws::new(seed, 0);
            let content = file.survivor(&trace, Survival::Sectors, &mut draws);
            assert_eq!(content.len(), 2148);
            assert!(content[..100].iter().all(|byte| *byte == 0));
            for sector in content.chunks(SECTOR_BYTES as usize).skip(1) {
                assert!(sector.iter().all(|byte| *byte == sector[0]), "seed {seed}");
            }
            torn += u32::from(content[100..].iter().any(|byte| *byte != content[100]));
        }
        assert!(torn > 100, "{torn} of 200 are torn");
    }

    #[test]
    fn a_page_of_the_page_cache_is_from_one_moment() {
        let trace = ink(2, 8192);
        let mut file = FileState::default();
        file.change(1, write(1, 0, 8192));
        file.change(2, write(2, 0, 8192));
        for seed in 0..100 {
            let mut draws = Draws::new(seed, 0);
            let content = file.survivor(&trace, Survival::Pages, &mut draws);
            assert!([0, 8192].contains(&content.len()), "of the writes' lengths");
            for page in content.chunks(PAGE_BYTES as usize) {
                assert!(page.iter().all(|byte| *byte == page[0]), "seed {seed}");
            }
        }
    }

    #[test]
    fn a_cut_that_took_place_hides_what_was_behind_it_for_good() {
        let trace = ink(2, 1000);
        let mut file = FileState::default();
        file.change(1, write(1, 0, 1000));
        file.sync(&trace, 2);
        file.change(3, Change::Cut { bytes: 10 });
        file.change(4, Change::Cut { bytes: 600 });
        for seed in 0..100 {
            let mut draws = Draws::new(seed, 0);
            let content = file.survivor(&trace, Survival::Sectors, &mut draws);
            match content.len() {
                1000 => assert_eq!(content, vec![1; 1000]),
                10 => assert_eq!(content, vec![1; 10]),
                600 => assert!(content[10..].iter().all(|byte| *byte == 0), "seed {seed}"),
                length => panic!("{length} bytes, seed {seed}"),
            }
        }
    }

    #[test]
    fn what_a_failed_sync_covered_never_gets_to_the_disk() {
        let trace = ink(2, 10);
        let mut file = FileState::default();
        file.change(1, write(1, 0, 10));
        file.fail_sync(2);
        file.change(3, write(2, 10, 10));
        file.sync(&trace, 4);
        let mut draws = Draws::new(1, 1);
        let content = file.survivor(&trace, Survival::Everything, &mut draws);
        assert_eq!(content, [vec![0; 10], vec![2; 10]].concat());
    }
}
