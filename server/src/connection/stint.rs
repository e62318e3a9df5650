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

/// A request takes as long as so many bytes of one, however short it is.
const REQUEST_BYTES_MIN: usize = 512;

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

    /// Waits for the next turn where this one does not suffice for a request, or a part of one, of
    /// `bytes`. Cancel safe.
    pub(crate) async fn take(&self, bytes: usize) {
        if self.is_over_with(bytes.max(REQUEST_BYTES_MIN)) {
            self.next().await;
        }
    }

    /// Counts `bytes` of an answer that was made.
    pub(crate) fn made(&self, bytes: usize) {
        let bytes = self.with(bytes / ANSWER_BYTES_PER_STINT_BYTE);
        self.bytes.store(bytes, Relaxed);
    }

    /// Whether it is time for the next turn, before `bytes` of an answer are sent.
    pub(crate) fn is_over_with_answer(&self, bytes: usize) -> bool {
        self.is_over_with(bytes / ANSWER_BYTES_PER_STINT_BYTE)
    }

    /// Waits for the next turn. Cancel safe.
    pub(crate) async fn next(&self) {
        self.line.turn().await;
    }

    fn with(&self, bytes: usize) -> usize {
        self.bytes.load(Relaxed).saturating_add(bytes)
    }

    /// Counts `bytes`, to this turn or, where it does not suffice, to the next.
    fn is_over_with(&self, bytes: usize) -> bool {
        let all = self.with(bytes);
        let is_over = all >= STINT_BYTES;
        self.bytes.store(if is_over { bytes } else { all }, Relaxed);
        is_over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_suffices_for_so_much_and_what_is_longer_has_one_of_its_own() {
        let stint = Stint::new(Arc::new(Line::new(1)));
        let quarter = STINT_BYTES / 4;
        for round in 0..3 {
            for step in 0..3 {
                let is_first = step == 0 && round > 0;
                assert_eq!(stint.is_over_with(quarter), is_first, "{round} {step}");
            }
        }
        assert!(stint.is_over_with(STINT_BYTES) && stint.is_over_with(1));
        assert!(!stint.is_over_with(STINT_BYTES - 2) && stint.is_over_with(1));
        // What was made counts for what comes after it; an answer counts as less than a request.
        let answer_bytes = STINT_BYTES * ANSWER_BYTES_PER_STINT_BYTE;
        assert!(!stint.is_over_with_answer(answer_bytes / 2));
        stint.made(answer_bytes / 2);
        assert!(stint.is_over_with(1));
    }

    #[tokio::test]
    async fn only_a_few_of_those_in_line_are_ready_at_a_time() {
        let line = Line::new(2);
        let mut turns = [(); 5].map(|()| tokio_test::task::spawn(line.turn()));
        assert!(turns.iter_mut().all(|turn| turn.poll().is_pending()));
        let (ready, behind) = turns.split_at_mut(2);
        assert!(behind.iter_mut().all(|turn| turn.poll().is_pending()));
        assert!(ready.iter_mut().all(|turn| turn.poll().is_ready()));
        // Who has had its turn makes room for the next.
        assert!(behind.iter().filter(|turn| turn.is_woken()).count() == 2);
        for turn in behind {
            turn.await;
        }
    }
}
