//! Connections that have not said who they are: few, and not for long.
//!
//! Where there are too many, the one that has waited longest is closed. Clients say hello in the
//! moment in which they connect, so that a flood of others displaces itself.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// The connections that have not said hello.
#[derive(Debug)]
pub(crate) struct Strangers {
    count_max: u64,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    next_number: u64,
    /// From the one that has waited longest; its number, and what makes it go.
    oldest_first: VecDeque<(u64, oneshot::Sender<()>)>,
}

/// One of them, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Stranger {
    strangers: Arc<Strangers>,
    number: u64,
    displaced: oneshot::Receiver<()>,
}

impl Strangers {
    /// None yet, and so many at most.
    pub(crate) fn new(count_max: u64) -> Self {
        Self {
            count_max: count_max.max(1),
            waiting: Mutex::default(),
        }
    }

    /// Counts one more; the oldest goes if there are too many.
    pub(crate) fn add(self: &Arc<Self>) -> Stranger {
        let (displace, displaced) = oneshot::channel();
        let mut waiting = self.waiting.lock();
        let number = waiting.next_number;
        waiting.next_number += 1;
        waiting.oldest_first.push_back((number, displace));
        if waiting.oldest_first.len() as u64 > self.count_max {
            // It hears of it by the end of its channel.
            drop(waiting.oldest_first.pop_front());
        }
        drop(waiting);
        Stranger {
            strangers: Arc::clone(self),
            number,
            displaced,
        }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        self.waiting.lock().oldest_first.len() as u64
    }
}

impl Stranger {
    /// Waits until it has to go for others. Cancel safe.
    pub(crate) async fn displaced(&mut self) {
        if !self.displaced.is_terminated() {
            // Nothing is ever sent: the sender is dropped.
            drop((&mut self.displaced).await);
        }
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let mut waiting = self.strangers.waiting.lock();
        // Numbers go up from the front.
        let found = waiting
            .oldest_first
            .binary_search_by_key(&self.number, |(number, _)| *number);
        if let Ok(at) = found {
            waiting.oldest_first.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn must_go(stranger: &mut Stranger) -> bool {
        tokio::select! {
            biased;
            () = stranger.displaced() => true,
            () = async {} => false,
        }
    }

    #[tokio::test]
    async fn of_too_many_the_oldest_goes() {
        let strangers = Arc::new(Strangers::new(2));
        let mut first = strangers.add();
        let second = strangers.add();
        drop(second);
        let mut third = strangers.add();
        assert!(!must_go(&mut first).await);
        let mut fourth = strangers.add();
        assert_eq!(strangers.count(), 2);
        assert!(must_go(&mut first).await);
        assert!(must_go(&mut first).await, "whoever asks, and however often");
        assert!(!must_go(&mut third).await && !must_go(&mut fourth).await);
        drop(first);
        assert_eq!(strangers.count(), 2);
        drop((third, fourth));
        assert_eq!(strangers.count(), 0);
    }
}
