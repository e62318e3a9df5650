//! Reads of blocks past the page cache.
//!
//! Where the page cache can hold little of the runs, a block that is read through it pushes out another one that would
//! have been of the same use, and pages of indexes, and to do so costs the kernel more than the read itself. So a thread that reads
//! a batch has its blocks read past it: it begins with all that it needs, a few at a time since each call of the disk costs as much as
//! several reads, and then takes them in the order in which it began. What is in the page cache is read there;
//! and of the rest one read in [`READS_FOR_A_CACHED`] goes through it, so that it comes to hold what is of use now.

#[cfg(target_os = "linux")]
mod queue;
#[cfg(not(target_os = "linux"))]
#[path = "no_queue.rs"]
mod queue;
mod way;

use std::{cell::RefCell, collections::VecDeque, fs::File, sync::Arc};

use self::queue::{Queue, Ticket};
use super::store::RunId;
use crate::waiting::{self, WouldWait};

pub(super) use self::queue::open;
pub use self::way::BlockReads;
pub(super) use self::way::Way;

/// Of so many blocks that are not in the page cache, one is read through it.
const READS_FOR_A_CACHED: u32 = 8;

/// What the kernel wants offsets, lengths and addresses of such reads to be multiples of, whatever the disk.
const ALIGNED_BYTES: u64 = 4096;

/// After so many reads in a row that failed, this thread begins no more: the file system promises what it cannot do.
const FAILURES_MAX: u32 = 16;

thread_local! {
    static READS: RefCell<Reads> = const { RefCell::new(Reads::new()) };
}

/// The direct reads of a thread.
#[derive(Debug)]
struct Reads {
    /// Whether somebody will take them.
    is_open: bool,
    queue: Opened,
    /// Those that were begun, the oldest first. They stay when they were taken: the next key may lie in the same block.
    begun: VecDeque<Begun>,
    /// How many were begun so far.
    count: u64,
    /// How many failed since the last one that did not.
    failures: u32,
    /// How many blocks it was asked for that are not in the page cache.
    turn: u32,
}

#[derive(Debug)]
enum Opened {
    NotYet,
    Open(Queue),
    /// The system refuses, and is not asked again by this thread.
    Refused,
}

#[derive(Debug)]
struct Begun {
    run: RunId,
    start: u64,
    bytes: usize,
    ticket: Ticket,
}

impl Reads {
    const fn new() -> Self {
        Self {
            is_open: false,
            queue: Opened::NotYet,
            begun: VecDeque::new(),
            count: 0,
            failures: 0,
            turn: 0,
        }
    }

    fn begin(&mut self, run: RunId, start: u64, bytes: usize, file: &Arc<File>) -> bool {
        if matches!(self.queue, Opened::NotYet) {
            self.queue = match Queue::new() {
                Ok(queue) => Opened::Open(queue),
                Err(error) => {
                    tracing::debug!(%error, "no reads past the page cache");
                    Opened::Refused
                }
            };
        }
        let Opened::Open(queue) = &mut self.queue else {
            return false;
        };
        if self.begun.len() >= queue::READS_MAX
            && let Some(oldest) = self.begun.pop_front()
        {
            queue.forget(oldest.ticket);
        }
        let Some(ticket) = queue.begin(file, start, bytes) else {
            return false;
        };
        self.count += 1;
        self.begun.push_back(Begun {
            run,
            start,
            bytes,
            ticket,
        });
        true
    }

    fn forget_all(&mut self) {
        if let Opened::Open(queue) = &mut self.queue {
            for begun in self.begun.drain(..) {
                queue.forget(begun.ticket);
            }
        }
    }
}

/// Does `work`, in which reads that must not wait may be begun past the page cache. Whoever began one has to read
/// the same again inside the same work.
pub(crate) fn within<T>(work: impl FnOnce() -> T) -> T {
    /// Also if the work panics: the thread goes on with other work.
    struct Close;
    impl Drop for Close {
        fn drop(&mut self) {
            READS.with_borrow_mut(|reads| {
                reads.forget_all();
                reads.is_open = false;
            });
        }
    }
    READS.with_borrow_mut(|reads| reads.is_open = true);
    let _close = Close;
    work()
}

/// How many reads this thread has begun past the page cache.
pub(crate) fn begun_count() -> u64 {
    READS.with_borrow(|reads| reads.count)
}

/// Whether this thread may begin one.
pub(super) fn is_open() -> bool {
    READS.with_borrow(|reads| {
        let may_work = !matches!(reads.queue, Opened::Refused) && reads.failures < FAILURES_MAX;
        reads.is_open && may_work
    })
}

/// Whether a block that is not in the page cache is not one of the few that are read through it all the same.
pub(super) fn is_next() -> bool {
    READS.with_borrow_mut(|reads| {
        reads.turn = reads.turn.wrapping_add(1);
        !reads.turn.is_multiple_of(READS_FOR_A_CACHED)
    })
}

/// The aligned bytes around these.
fn around(offset: u64, bytes: usize) -> Option<(u64, usize)> {
    let start = offset - offset % ALIGNED_BYTES;
    let end = offset.checked_add(bytes as u64)?;
    let bytes = end.checked_next_multiple_of(ALIGNED_BYTES)? - start;
    let bytes = usize::try_from(bytes).ok()?;
    (bytes <= queue::READ_BYTES_MAX).then_some((start, bytes))
}

/// Begins to read bytes of a run from its file, which was opened for that; says whether it did.
pub(super) fn begin(run: RunId, offset: u64, bytes: usize, file: &Arc<File>) -> bool {
    around(offset, bytes).is_some_and(|(start, bytes)| {
        READS.with_borrow_mut(|reads| reads.begin(run, start, bytes, file))
    })
}

/// Fills `buffer` with bytes of a run that this thread has begun to read; waits for them, if it may. False if it has begun no
/// such read, or if that failed: then an ordinary read tells why.
///
/// # Errors
/// It would have to wait.
pub(super) fn take(run: RunId, offset: u64, buffer: &mut [u8]) -> Result<bool, WouldWait> {
    let Some((start, bytes)) = around(offset, buffer.len()) else {
        return Ok(false);
    };
    let found = READS.with_borrow(|reads| {
        let is_it =
            |begun: &&Begun| (begun.run, begun.start) == (run, start) && begun.bytes >= bytes;
        let begun = reads.begun.iter().find(is_it)?;
        match &reads.queue {
            Opened::Open(queue) => Some((begun.ticket, queue.is_done(begun.ticket))),
            Opened::NotYet | Opened::Refused => None,
        }
    });
    let Some((ticket, is_done)) = found else {
        return Ok(false);
    };
    if !is_done {
        waiting::before_waiting()?;
    }
    Ok(READS.with_borrow_mut(|reads| {
        let Opened::Open(queue) = &mut reads.queue else {
            return false;
        };
        let read = queue.wait(ticket);
        let skipped = (offset - start) as usize;
        let wanted = read.and_then(|bytes| bytes.get(skipped..)?.get(..buffer.len()));
        match wanted {
            Some(bytes) => {
                buffer.copy_from_slice(bytes);
                reads.failures = 0;
                true
            }
            None => {
                reads.failures = reads.failures.saturating_add(1);
                false
            }
        }
    }))
}

#[cfg(test)]
mod tests;
