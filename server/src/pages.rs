//! Memory for entries, in pieces of whole pages that go back to the kernel one by one.
//!
//! An allocator keeps what was freed for its next use, and a map for each piece costs two calls of the
//! kernel, a fault a page, and one of the 65,530 maps that a process may have. So pieces are cut
//! from slabs that are mapped once and for ever, a list for each size. A piece that is let go of is kept
//! *warm* for whoever wants one next, as long as [`keep`] allows it; else its pages are
//! given back at that moment, whichever thread does it, and it is *cold*: address space without RAM.
//! What lies warm and unwanted is given back little by little.

use std::{
    mem,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use parking_lot::Mutex;

use crate::mapped;

/// The kernel's page; every platform that rhash runs on has this one.
const PAGE_BYTES: usize = 4096;
/// Pieces have these sizes; what is longer is not for this place.
const SIZES_BYTES: [usize; 5] = [4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10];
/// So much address space is mapped at a time.
const SLAB_BYTES: usize = 1 << 20;
/// Of what lay warm since the last look, this part is given back at the next.
const IDLE_SHARE: usize = 32;

/// The shortest piece.
pub(crate) const PIECE_BYTES_MIN: usize = SIZES_BYTES[0];

static POOL: Pool = Pool::new();

/// How much may be warm.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keep {
    /// So much, whatever room there is: what is written anew by and by needs no more.
    pub(crate) warm_bytes_min: usize,
    /// At most this, even if there is more room.
    pub(crate) warm_bytes_max: usize,
    /// All pieces, warm or in use, may take so many bytes more than they do now; fewer, if it is less than
    /// nothing.
    pub(crate) room_bytes: i64,
}

/// The pieces that nobody has.
#[derive(Debug)]
struct Pool {
    warm_bytes: AtomicUsize,
    warm_bytes_min: AtomicUsize,
    warm_bytes_max: AtomicUsize,
    /// Pieces that somebody has; what such a piece does not use counts, too.
    used_bytes: AtomicUsize,
    /// What is warm and what is in use may come to together.
    bytes_max: AtomicUsize,
    by_size: [Mutex<Lists>; SIZES_BYTES.len()],
}

/// Pieces of one size.
#[derive(Debug)]
struct Lists {
    /// Their pages are in RAM, with what was last written to them.
    warm: Vec<&'static mut [u8]>,
    /// Their pages are not.
    cold: Vec<&'static mut [u8]>,
    /// The fewest that were warm since the last look.
    idle: usize,
}

impl Lists {
    const fn new() -> Self {
        Self {
            warm: Vec::new(),
            cold: Vec::new(),
            idle: 0,
        }
    }
}

/// A piece of memory with any content, for as long as its owner keeps it.
#[derive(Debug)]
pub(crate) struct Piece {
    memory: &'static mut [u8],
    /// Whole pages; less than the memory if that is longer than what was asked for.
    usable_bytes: usize,
}

impl Piece {
    /// A piece of `bytes`, rounded up to pages; none if that is longer than pieces are, or the kernel
    /// has no more.
    pub(crate) fn new(bytes: usize) -> Option<Self> {
        let usable_bytes = bytes.next_multiple_of(PAGE_BYTES);
        Some(Self {
            memory: POOL.take(usable_bytes)?,
            usable_bytes,
        })
    }

    /// The memory.
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.memory[..self.usable_bytes]
    }

    /// The memory, to be written to.
    #[inline]
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[..self.usable_bytes]
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        POOL.put(mem::take(&mut self.memory), self.usable_bytes);
    }
}

/// RAM that nobody has at the moment, and that the next pieces will take.
pub(crate) fn warm_bytes() -> usize {
    POOL.warm_bytes.load(Relaxed)
}

/// Gives back about so many bytes of what is warm, at once: something else needs the RAM.
pub(crate) fn cool(bytes: usize) {
    POOL.cool(bytes);
}

/// Says how much may be warm from now on, and gives back some of what nobody wanted since the last
/// call.
pub(crate) fn keep(keep: Keep) {
    POOL.keep(keep);
}

impl Pool {
    const fn new() -> Self {
        Self {
            warm_bytes: AtomicUsize::new(0),
            warm_bytes_min: AtomicUsize::new(0),
            warm_bytes_max: AtomicUsize::new(0),
            used_bytes: AtomicUsize::new(0),
            bytes_max: AtomicUsize::new(0),
            by_size: [const { Mutex::new(Lists::new()) }; SIZES_BYTES.len()],
        }
    }

    /// Memory of at least `bytes`.
    fn take(&self, bytes: usize) -> Option<&'static mut [u8]> {
        let class = SIZES_BYTES.iter().position(|&size| size >= bytes)?;
        let piece_bytes = *SIZES_BYTES.get(class)?;
        let mut lists = self.by_size.get(class)?.lock();
        self.used_bytes.fetch_add(piece_bytes, Relaxed);
        // A warm piece has all its pages, so it is for those only who want them all.
        if bytes == piece_bytes
            && let Some(memory) = lists.warm.pop()
        {
            lists.idle = lists.idle.min(lists.warm.len());
            self.warm_bytes.fetch_sub(piece_bytes, Relaxed);
            return Some(memory);
        }
        if lists.cold.is_empty() {
            let Some(slab) = mapped::anonymous_for_ever(SLAB_BYTES) else {
                self.used_bytes.fetch_sub(piece_bytes, Relaxed);
                return None;
            };
            // From the end, so that those that lie in front are used first.
            lists.cold.extend(slab.chunks_exact_mut(piece_bytes).rev());
        }
        lists.cold.pop()
    }

    /// Takes memory back of which `used_bytes` may have been written to.
    fn put(&self, memory: &'static mut [u8], used_bytes: usize) {
        let piece_bytes = memory.len();
        let class = SIZES_BYTES.iter().position(|&size| size == piece_bytes);
        let Some(lists) = class.and_then(|class| self.by_size.get(class)) else {
            return;
        };
        self.used_bytes.fetch_sub(piece_bytes, Relaxed);
        if used_bytes == piece_bytes {
            self.warm_bytes.fetch_add(piece_bytes, Relaxed);
            if self.surplus_bytes() == 0 {
                lists.lock().warm.push(memory);
                return;
            }
            self.warm_bytes.fetch_sub(piece_bytes, Relaxed);
        }
        mapped::give_back(&mut memory[..used_bytes]);
        lists.lock().cold.push(memory);
    }

    /// How much more is warm than may be.
    fn surplus_bytes(&self) -> usize {
        let warm_bytes = self.warm_bytes.load(Relaxed);
        let bytes = self.used_bytes.load(Relaxed) + warm_bytes;
        let over = bytes.saturating_sub(self.bytes_max.load(Relaxed));
        let over_least = warm_bytes.saturating_sub(self.warm_bytes_min.load(Relaxed));
        let over_most = warm_bytes.saturating_sub(self.warm_bytes_max.load(Relaxed));
        over.min(over_least).max(over_most)
    }

    fn cool(&self, bytes: usize) {
        let mut left = bytes;
        for (lists, piece_bytes) in self.by_size.iter().zip(SIZES_BYTES).rev() {
            let mut pieces: Vec<_> = {
                let mut lists = lists.lock();
                let count = left.div_ceil(piece_bytes).min(lists.warm.len());
                let pieces = lists.warm.drain(..count).collect();
                lists.idle = lists.idle.min(lists.warm.len());
                pieces
            };
            let cooled_bytes = pieces.len() * piece_bytes;
            self.warm_bytes.fetch_sub(cooled_bytes, Relaxed);
            for memory in &mut pieces {
                mapped::give_back(memory);
            }
            lists.lock().cold.append(&mut pieces);
            left = left.saturating_sub(cooled_bytes);
            if left == 0 {
                return;
            }
        }
    }

    fn keep(&self, keep: Keep) {
        let bytes = self.used_bytes.load(Relaxed) + self.warm_bytes.load(Relaxed);
        let bytes_max = (bytes as i64).saturating_add(keep.room_bytes).max(0);
        self.bytes_max.store(bytes_max as usize, Relaxed);
        self.warm_bytes_min.store(keep.warm_bytes_min, Relaxed);
        self.warm_bytes_max.store(keep.warm_bytes_max, Relaxed);
        // Long pieces first: they are few, and give most.
        for (lists, piece_bytes) in self.by_size.iter().zip(SIZES_BYTES).rev() {
            if self.warm_bytes.load(Relaxed) == 0 {
                return;
            }
            let over = self.surplus_bytes().div_ceil(piece_bytes);
            let mut surplus: Vec<_> = {
                let mut lists = lists.lock();
                let idle = lists.idle.div_ceil(IDLE_SHARE);
                let pieces = over.max(idle).min(lists.warm.len());
                // Those in front have lain longest.
                let surplus = lists.warm.drain(..pieces).collect();
                lists.idle = lists.warm.len();
                surplus
            };
            self.warm_bytes
                .fetch_sub(surplus.len() * piece_bytes, Relaxed);
            for memory in &mut surplus {
                mapped::give_back(memory);
            }
            lists.lock().cold.append(&mut surplus);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pages that were given back read as zero, on the platforms that this is tested on.
    fn is_warm(memory: &[u8]) -> bool {
        memory.iter().all(|&byte| byte == 7)
    }

    fn keep(pool: &Pool, warm_bytes_max: usize) {
        pool.keep(Keep {
            warm_bytes_min: 0,
            warm_bytes_max,
            room_bytes: i64::MAX,
        });
    }

    fn pieces(pool: &Pool, bytes: usize, count: usize) -> Vec<&'static mut [u8]> {
        let take = |_| {
            let memory = pool.take(bytes).expect("address space");
            memory.fill(7);
            memory
        };
        (0..count).map(take).collect()
    }

    #[test]
    fn what_may_not_be_kept_is_given_back_at_once() {
        let pool = Pool::new();
        keep(&pool, 3 * PIECE_BYTES_MIN);
        for memory in pieces(&pool, PIECE_BYTES_MIN, 10) {
            pool.put(memory, PIECE_BYTES_MIN);
        }
        assert_eq!(pool.warm_bytes.load(Relaxed), 3 * PIECE_BYTES_MIN);
        let mut warm = 0;
        for _ in 0..10 {
            let memory = pool.take(PIECE_BYTES_MIN).expect("address space");
            assert!(is_warm(memory) || memory.iter().all(|&byte| byte == 0));
            warm += usize::from(is_warm(memory));
        }
        assert_eq!(warm, 3);
        assert_eq!(pool.warm_bytes.load(Relaxed), 0);
    }

    #[test]
    fn what_is_warm_leaves_room_to_others() {
        let pool = Pool::new();
        let bytes = PIECE_BYTES_MIN;
        let room = |warm_pieces_min: usize, pieces: i64| {
            pool.keep(Keep {
                warm_bytes_min: warm_pieces_min * bytes,
                warm_bytes_max: 1 << 20,
                room_bytes: pieces * bytes as i64,
            });
            pool.warm_bytes.load(Relaxed) / bytes
        };
        let mut used = pieces(&pool, bytes, 10);
        let mut put = |leave: usize| {
            for memory in used.drain(..leave) {
                pool.put(memory, bytes);
            }
            pool.warm_bytes.load(Relaxed) / bytes
        };
        // Four too many are in use, so of what leaves use the first four go.
        assert_eq!(room(0, -4), 0);
        assert_eq!(put(4), 0);
        assert_eq!(put(3), 3);
        // Others took the room of two, and then of all.
        assert_eq!(room(0, -2), 1);
        assert_eq!(put(1), 2);
        assert_eq!(room(1, -10), 1);
        assert_eq!(put(1), 1);
    }

    #[test]
    fn a_part_of_a_piece_is_never_taken_from_a_warm_one_nor_kept() {
        let pool = Pool::new();
        keep(&pool, 1 << 20);
        let part_bytes = 3 * PAGE_BYTES;
        for memory in pieces(&pool, 4 * PAGE_BYTES, 5) {
            pool.put(memory, 4 * PAGE_BYTES);
        }
        let kept_bytes = pool.warm_bytes.load(Relaxed);
        assert_eq!(kept_bytes, 5 * 4 * PAGE_BYTES);
        let part = pool.take(part_bytes).expect("address space");
        assert!(!is_warm(part));
        part[..part_bytes].fill(7);
        pool.put(part, part_bytes);
        assert_eq!(pool.warm_bytes.load(Relaxed), kept_bytes);
        let again = pool.take(part_bytes).expect("address space");
        assert!(again.iter().all(|&byte| byte == 0));
    }

    #[test]
    fn what_lies_idle_goes_little_by_little_and_what_must_go_at_once() {
        let pool = Pool::new();
        keep(&pool, 1 << 20);
        for bytes in SIZES_BYTES {
            for memory in pieces(&pool, bytes, 6) {
                pool.put(memory, bytes);
            }
        }
        let warm_bytes = || pool.warm_bytes.load(Relaxed);
        let all_bytes: usize = SIZES_BYTES.iter().map(|bytes| bytes * 6).sum();
        assert_eq!(warm_bytes(), all_bytes);
        // The first look only sees that they are there, and each later one gives some back.
        keep(&pool, 1 << 20);
        assert_eq!(warm_bytes(), all_bytes);
        keep(&pool, 1 << 20);
        assert_eq!(warm_bytes(), all_bytes - SIZES_BYTES.iter().sum::<usize>());
        keep(&pool, 100_000);
        assert!(warm_bytes() <= 100_000, "{}", warm_bytes());
        keep(&pool, 0);
        assert_eq!(warm_bytes(), 0);
    }

    #[test]
    fn what_is_longer_than_a_piece_is_not_for_this_place() {
        assert!(Piece::new(64 << 10).is_some());
        assert!(Piece::new((64 << 10) + 1).is_none());
        let piece = Piece::new(9000).expect("address space");
        assert_eq!(piece.bytes().len(), 12_288);
    }
}
