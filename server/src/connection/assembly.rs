//! Room for what a connection is receiving: a long frame before its body is read, and the parts of
//! a long request as they come. It is taken from the commons, so that all connections together
//! stay within a bound.

use std::sync::Arc;

use rhash_protocol::limits::FRAME_BYTES_MAX;

use super::commons::{Charge, Commons, Share};

/// What a byte of a half-received request is charged: its buffer doubles as it grows, and is
/// copied while both are there; then its value is copied once more, into its table.
const CHARGE_FACTOR: usize = 4;

/// What a connection is about to receive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Incoming {
    /// A request that is one frame, of this many bytes.
    Frame(usize),
    /// A part of a longer request; so many bytes with all parts before.
    Parts(usize),
}

/// What one connection has taken.
#[derive(Debug)]
pub(crate) struct AssemblyRoom {
    shares: Vec<Share>,
    /// What they cover.
    bytes: usize,
    charge: Charge,
}

impl AssemblyRoom {
    /// Nothing yet.
    pub(crate) fn new(commons: Arc<Commons>) -> Self {
        Self {
            shares: Vec::new(),
            bytes: 0,
            charge: Charge::none(commons),
        }
    }

    /// Waits until there is room for all that is being received. Cancel safe.
    pub(crate) async fn cover(&mut self, incoming: Incoming) {
        let (bytes, factor) = match incoming {
            Incoming::Frame(bytes) => (bytes, 1),
            Incoming::Parts(bytes) => (bytes, CHARGE_FACTOR),
        };
        let missing = bytes.saturating_sub(self.bytes);
        if missing > 0 {
            let overdraws = matches!(self.shares.last(), Some(Share::Overdraft { .. }));
            if !overdraws {
                let share = self.charge.commons().take(missing).await;
                self.shares.push(share);
            }
            self.bytes = bytes;
        }
        self.charge.set(self.bytes.saturating_mul(factor));
        self.charge.make_room().await;
    }

    /// Keeps the room for the buffer of a frame, of this many bytes, for the next frame; says
    /// whether it may: nobody else needs it.
    pub(crate) fn keep(&mut self, buffer_bytes: usize) -> bool {
        let overdraws = matches!(self.shares.last(), Some(Share::Overdraft { .. }));
        let commons = self.charge.commons();
        let may = buffer_bytes <= self.bytes
            && self.bytes <= 2 * FRAME_BYTES_MAX
            && !overdraws
            && !commons.is_wanted()
            && commons.is_roomy();
        if may {
            self.charge.set(self.bytes);
        }
        may
    }

    /// Whether this connection has room that others wait for.
    pub(crate) fn is_wanted(&self) -> bool {
        !self.shares.is_empty() && self.charge.commons().is_wanted()
    }

    /// Gives everything back.
    pub(crate) fn release(&mut self) {
        self.shares.clear();
        self.bytes = 0;
        self.charge.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::BufferAccount;

    fn rooms(bytes: u64) -> [AssemblyRoom; 3] {
        let commons = Arc::new(Commons::new(bytes, BufferAccount::of_nothing()));
        [(); 3].map(|()| AssemblyRoom::new(Arc::clone(&commons)))
    }

    #[tokio::test]
    async fn one_that_overdraws_gets_its_request_whole() {
        let [mut first, mut second, mut third] = rooms(1);
        first.cover(Incoming::Frame(10)).await;
        second.cover(Incoming::Parts(10)).await;
        second.cover(Incoming::Parts(100 << 20)).await;
        assert_eq!(second.shares.len(), 1);
        let mut waiting = Box::pin(third.cover(Incoming::Frame(10)));
        let pending = tokio::select! { biased; () = &mut waiting => false, () = async {} => true };
        assert!(pending);
        second.release();
        waiting.await;
        assert!(!third.keep(10), "it overdraws");
    }

    #[tokio::test]
    async fn room_that_is_given_back_is_there_for_others() {
        let [mut first, mut second, _] = rooms(1 << 20);
        first.cover(Incoming::Frame(100_000)).await;
        first.cover(Incoming::Frame(90_000)).await;
        assert_eq!(first.shares.len(), 1, "what is covered is not taken twice");
        assert!(first.keep(100_000) && !first.keep(100_001));
        second.cover(Incoming::Frame(450_000)).await;
        assert!(!first.keep(100_000), "less than half is left");
        second.release();
        assert!(first.keep(100_000));
    }
}
