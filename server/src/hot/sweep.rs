//! Sweeps: which entries leave RAM, and which stay for having been read.
//!
//! A hand goes round the buckets in order, as in CLOCK. Entries count their reads up to three, and
//! those that were read stay apart from the stream of what is written or read once, as in the small
//! and the main queue of S3-FIFO (Yang et al., "FIFO queues are all you need for cache eviction",
//! SOSP 2023): as long as they take no more than their share of RAM they neither leave nor age,
//! however fast the hand goes round. Beyond their share each passing of the hand ages them, and the
//! least used leave first. What is kept is copied to fresh memory, so that all else of a bucket is
//! freed as a whole.
//!
//! A sweep of a *logged* map leaves nothing dirty behind it, so that its run says all that was ever written
//! to its interval: what is kept goes into the run, too, and is clean from then on; what cannot
//! be clean, fragments and deletes, leaves.

use super::{
    HotMap,
    arena::{EntryRef, Header, State, USES_MAX},
    bucket::Bucket,
    frozen::Frozen,
};

/// A bucket stays as it is if less than this part of it would leave: freeing little is not worth
/// copying much.
const LEAVES_SHARE: usize = 4;
/// At least this part of a bucket leaves when its entries age.
const AGED_SHARE: usize = 2;

/// How a sweep treats entries that were read of late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sweep {
    /// They stay, and no older.
    Spare,
    /// They age, and of each bucket at most half stays.
    Age,
    /// They leave like all others.
    All,
    /// Only deletes leave, for what they hide on disk.
    Deletes,
    /// Only what is on disk already leaves, which takes none.
    Clean,
    /// Nothing leaves that can stay: what is dirty is written down. For logged maps.
    Checkpoint,
}

impl Sweep {
    /// Whether it leaves nothing dirty behind in a logged map.
    pub(super) fn is_whole(self) -> bool {
        !matches!(self, Self::Deletes | Self::Clean)
    }
}

/// All of them.
#[cfg(test)]
pub(crate) const SWEEPS: [Sweep; 6] = [
    Sweep::Spare,
    Sweep::Age,
    Sweep::All,
    Sweep::Deletes,
    Sweep::Clean,
    Sweep::Checkpoint,
];

/// What one step of a sweep took out.
#[derive(Debug)]
pub(crate) struct Swept {
    /// The entries; none if nothing in the step's buckets was to leave.
    pub(crate) frozen: Option<Frozen>,
    /// What was freed by itself, since buckets that keep all their entries were written anew.
    pub(crate) freed_bytes: usize,
    /// The hand is at the end, and begins anew.
    pub(crate) ends: bool,
}

impl HotMap {
    /// Where the next sweep begins.
    pub(crate) fn hand(&self) -> u64 {
        self.hand
    }

    /// Lets the next sweep begin elsewhere.
    pub(crate) fn set_hand(&mut self, hand: u64) {
        self.hand = hand;
    }

    /// The least that the next step will go over.
    pub(crate) fn next_bytes(&self) -> usize {
        let index = self.directory[self.slot(self.hand)] as usize;
        self.buckets[index].footprint_bytes()
    }

    /// Goes on with the hand over buckets of about `bytes_target` bytes, no further than those of
    /// `last`, and takes out what is to leave.
    pub(crate) fn sweep(&mut self, bytes_target: usize, last: u64, sweep: Sweep) -> Swept {
        let last_slot = self.slot(last);
        let mut slot = self.slot(self.hand);
        let mut frozen = Frozen::new(self.slot_first_place(slot));
        let (mut bytes, mut freed_bytes) = (0, 0);
        while slot <= last_slot && bytes < bytes_target {
            let index = self.directory[slot] as usize;
            // A large one begins a step, so that it can be seen to come.
            if bytes > 0 && bytes + self.buckets[index].footprint_bytes() > bytes_target {
                break;
            }
            let next_slot = self.slot_after(slot);
            let bucket_first = self.slot_first_place(slot);
            bytes += self.buckets[index].footprint_bytes();
            if self.buckets[index].len() > 0 {
                freed_bytes += self.sweep_bucket(index, bucket_first, sweep, &mut frozen);
            }
            slot = next_slot;
        }
        let ends = slot == self.directory.len();
        let last = if ends {
            u64::MAX
        } else {
            self.slot_first_place(slot) - 1
        };
        self.hand = if ends { 0 } else { last + 1 };
        frozen.end_at(last);
        Swept {
            frozen: (frozen.len() > 0).then_some(frozen),
            freed_bytes,
            ends,
        }
    }

    /// Returns what was freed at once, which is nothing if any entry left.
    fn sweep_bucket(
        &mut self,
        index: usize,
        first: u64,
        sweep: Sweep,
        frozen: &mut Frozen,
    ) -> usize {
        let logged = self.logged;
        let bucket = &mut self.buckets[index];
        let kept = match sweep {
            Sweep::Spare if leaves_little(bucket) && !(logged && has_dirty(bucket)) => return 0,
            Sweep::Spare => used(bucket),
            Sweep::Age => most_used(bucket),
            Sweep::All => Vec::new(),
            Sweep::Checkpoint => {
                self.checkpoint_bucket(index, first, frozen);
                return 0;
            }
            Sweep::Deletes | Sweep::Clean => {
                let kept = match sweep {
                    Sweep::Deletes => all_but(bucket, |header| header.state == State::Tombstone),
                    _ => all_but(bucket, |header| header.clean),
                };
                if kept.len() == bucket.len() {
                    return 0;
                }
                kept
            }
        };
        let writes_kept = logged && sweep.is_whole();
        self.entries -= bucket.len();
        self.bytes -= bucket.footprint_bytes();
        self.used_bytes -= bucket.used_bytes();
        let fresh = if kept.is_empty() {
            Bucket::to_be_like(bucket, bucket.depth)
        } else {
            let kept_bytes = kept.iter().map(|at| bucket.cost_bytes(*at)).sum();
            Bucket::expecting(bucket.depth, kept.len(), kept_bytes)
        };
        let mut old = std::mem::replace(bucket, fresh);
        let mut written_bytes = 0;
        for at in kept {
            let mut entry = old.entry(at);
            let is_written = writes_kept && !entry.header.clean;
            if is_written && entry.header.state != State::Base {
                continue;
            }
            if sweep == Sweep::Age {
                entry.header.uses -= 1;
            }
            entry.header.clean |= is_written;
            // A fresh bucket holds no more than the old one did.
            if bucket.adopt(&entry).is_ok() {
                if is_written {
                    written_bytes += old.cost_bytes(at);
                } else {
                    old.hide(at);
                }
            }
        }
        self.entries += bucket.len();
        self.bytes += bucket.footprint_bytes();
        self.used_bytes += bucket.used_bytes();
        let live_bytes = old
            .footprint_bytes()
            .saturating_sub(bucket.footprint_bytes());
        if old.len() == 0 {
            return live_bytes;
        }
        frozen.push_bucket(first, old, live_bytes, written_bytes);
        0
    }

    /// Copies out what is dirty. Whole values stay, and are clean; fragments and deletes leave.
    fn checkpoint_bucket(&mut self, index: usize, first: u64, frozen: &mut Frozen) {
        let bucket = &mut self.buckets[index];
        let is_dirty = |at: &EntryRef| !bucket.entry(*at).header.clean;
        let dirty: Vec<EntryRef> = bucket.refs().filter(is_dirty).collect();
        if dirty.is_empty() {
            return;
        }
        let copy_bytes = dirty.iter().map(|at| bucket.cost_bytes(*at)).sum();
        let mut copy = Bucket::expecting(bucket.depth, dirty.len(), copy_bytes);
        let mut leaving: Vec<(u64, Vec<u8>)> = Vec::new();
        let (len_before, bytes_before) = (bucket.len(), bucket.footprint_bytes());
        let used_before = bucket.used_bytes();
        for at in dirty {
            let entry = bucket.entry(at);
            // A copy of a part holds no more than the whole does.
            let adopted = copy.adopt(&entry);
            debug_assert!(adopted.is_ok());
            match entry.header.state {
                State::Base => bucket.mark_clean(at),
                State::Fragment | State::Tombstone => {
                    leaving.push((entry.header.place, entry.key.to_vec()));
                }
            }
        }
        for (place, key) in leaving {
            bucket.remove(place, &key);
        }
        self.entries = self.entries - len_before + bucket.len();
        self.bytes = self.bytes - bytes_before + bucket.footprint_bytes();
        self.used_bytes = self.used_bytes - used_before + bucket.used_bytes();
        // What left may have taken garbage along, which is no part of the copy.
        let left_bytes = bytes_before.saturating_sub(bucket.footprint_bytes());
        let live_bytes = left_bytes.min(copy.footprint_bytes());
        let kept_bytes = copy_bytes.saturating_sub(live_bytes);
        frozen.push_bucket(first, copy, live_bytes, kept_bytes);
    }
}

/// Whether it has what the cold tier does not.
fn has_dirty(bucket: &Bucket) -> bool {
    bucket.refs().any(|at| !bucket.entry(at).header.clean)
}

/// Whether next to all of a bucket was read of late.
fn leaves_little(bucket: &Bucket) -> bool {
    let bytes = bucket.footprint_bytes();
    bytes.saturating_sub(bucket.used_bytes()) < bytes / LEAVES_SHARE
}

/// The entries that were read of late.
fn used(bucket: &Bucket) -> Vec<EntryRef> {
    if bucket.used_bytes() == 0 {
        return Vec::new();
    }
    let is_used = |at: &EntryRef| bucket.entry(*at).header.uses > 0;
    bucket.refs().filter(is_used).collect()
}

/// The entries that do not leave.
fn all_but(bucket: &Bucket, leaves: impl Fn(&Header) -> bool) -> Vec<EntryRef> {
    let stays = |at: &EntryRef| !leaves(&bucket.entry(*at).header);
    bucket.refs().filter(stays).collect()
}

/// The most used entries that together take no more than a bucket may keep.
fn most_used(bucket: &Bucket) -> Vec<EntryRef> {
    let mut room_bytes = bucket.footprint_bytes() / AGED_SHARE;
    let mut kept = Vec::new();
    if bucket.used_bytes() == 0 {
        return kept;
    }
    for uses in (1..=USES_MAX).rev() {
        for at in bucket.refs() {
            let bytes = bucket.cost_bytes(at);
            if bucket.entry(at).header.uses == uses && bytes <= room_bytes {
                room_bytes -= bytes;
                kept.push(at);
            }
        }
    }
    kept
}
