//! Whose turn it is: connections that ask for much stand in line, and those that ask for little pass
//! them by.
//!
//! A thread runs what is ready in the order in which it became so, and looks at the sockets seldom
//! while there is some. Were hundreds of connections ready whose next step takes long, a short request
//! that has arrived would wait for a step of each. So a connection that has taken a good deal of a
//! thread's time waits in a [`Line`], of which only a few are ready at a time.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use tokio::{sync::Semaphore, task::yield_now};

/// After so many bytes of requests a connection gets in line.
const STINT_BYTES: usize = 16 * 1024;

/// More of a long request is not read in one step: while a thread takes what the kernel has of it, nobody
/// may be looking at the other sockets.
pub(super) const PART_BYTES_MAX: usize = 64 * 1024;

/// So many bytes of answers take as long as one of requests: to make, and again to send.
const ANSWER_BYTES_PER_STINT_BYTE: usize = 4;

/// Where connections wait for their next turn, in the order in which they came.
#[derive(Debug)]
pub(crate) struct Line {
    ready: Semaphore,
}

impl Line {
    /// A line of which so many may be ready at a time.
    pub(crate) fn new(ready_max: usize) -> Self {
        Self {
            ready: Semaphore::new(ready_max.max(1)),
        }
    }

    /// Waits for a turn. Cancel safe.
    pub(crate) async fn turn(&self) {
        // The semaphore is never closed. The permit is kept until the runtime has come by: it looks at
        // the sockets before it goes on with who has yielded.
        let _permit = self.ready.acquire().await;
        yield_now().await;
    }
}

/// What a task has done since its last turn.
#[derive(Debug)]
pub(crate) struct Stint {
    line: Arc<Line>,
    /// Changed by its task alone.
    bytes: AtomicUsize,
}

impl Stint {
    /// One that begins now.
    pub(crate) fn new(line: Arc<Line>) -> Self {
        Self {
            line,
            bytes: AtomicUsize::new(0),
        }
    }

    /// Counts `bytes` of a request, and waits for the next turn where this one is over. Cancel safe.
    pub(crate) async fn took(&self, bytes: usize) {
        if self.is_over_with(bytes) {
            self.next().await;
        }
    }

    /// The same for `bytes` of an answer that was made.
    pub(crate) async fn made(&self, bytes: usize) {
        self.took(bytes / ANSWER_BYTES_PER_STINT_BYTE).await;
    }

    /// Counts `bytes` of an answer that is on its way, and says whether it is time for the next turn.
    pub(crate) fn is_over_with_sent(&self, bytes: usize) -> bool {
        self.is_over_with(bytes / ANSWER_BYTES_PER_STINT_BYTE)
    }

    /// Waits for the next turn. Cancel safe.
    pub(crate) async fn next(&self) {
        self.line.turn().await;
    }

    fn is_over_with(&self, bytes: usize) -> bool {
        let bytes = self.bytes.load(Relaxed).saturating_add(bytes);
        let is_over = bytes >= STINT_BYTES;
        self.bytes.store(if is_over { 0 } else { bytes }, Relaxed);
        is_over
    }
}
